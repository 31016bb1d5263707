//! What calls and hooks cost. Computing times are estimates with a margin (reference hardware, one core); reads and
//! writes are counted from the code and priced by the runtime's database.

use crate::Config;
use frame_support::{traits::Get, weights::Weight};

/// Checking an sr25519 VRF proof: about 150 us.
const VRF_VERIFY: Weight = Weight::from_parts(300_000_000, 0);
/// Hashing and decoding of one contribution or round: about 5 us.
const ITEM: Weight = Weight::from_parts(10_000_000, 0);
/// Proof size of one small storage item with its trie nodes.
const ITEM_PROOF: u64 = 2_048;

fn proof(items: u64) -> Weight {
    Weight::from_parts(0, items.saturating_mul(ITEM_PROOF))
}

/// `contribute`: the proof is checked once by the fee rule and once by the call, and so is everything that is read
/// (epoch, host, key, its age, weight, total, previous seed's block, contribution, tally, genesis hash).
pub fn contribute<T: Config>() -> Weight {
    VRF_VERIFY
        .saturating_mul(2)
        .saturating_add(ITEM.saturating_mul(2))
        .saturating_add(T::DbWeight::get().reads_writes(20, 2))
        .saturating_add(proof(10))
}

/// Mixing the block's randomness in.
pub fn roll<T: Config>() -> Weight {
    ITEM.saturating_add(T::DbWeight::get().reads_writes(2, 1)).saturating_add(proof(2))
}

/// Drawing a round's seed from the mix.
pub fn draw<T: Config>() -> Weight {
    roll::<T>().saturating_add(T::DbWeight::get().reads_writes(4, 2)).saturating_add(proof(4))
}

/// Deciding whether a seed is final, and making it from `contributions`.
pub fn finalise<T: Config>(contributions: u32) -> Weight {
    let each = ITEM.saturating_add(T::DbWeight::get().reads(1)).saturating_add(proof(1));
    draw::<T>()
        .saturating_add(T::DbWeight::get().reads_writes(4, 2))
        .saturating_add(each.saturating_mul(contributions.into()))
}

/// Looking whether anything is to be pruned.
pub fn prune_check<T: Config>() -> Weight {
    T::DbWeight::get().reads(2).saturating_add(proof(2))
}

/// Pruning one item.
pub fn prune_step<T: Config>() -> Weight {
    ITEM.saturating_add(T::DbWeight::get().reads_writes(2, 2)).saturating_add(proof(2))
}
