//! What calls and hooks cost. Computing times are estimates with a margin (reference hardware, one core); reads and
//! writes are counted from the code and priced by the runtime's database.

use crate::Config;
use frame_support::{traits::Get, weights::Weight};

/// Checking an sr25519 VRF proof: about 150 us.
const VRF_VERIFY: Weight = Weight::from_parts(300_000_000, 0);
/// Decoding and deciding one item: about 5 us.
const ITEM: Weight = Weight::from_parts(10_000_000, 0);
/// A transfer, mint or burn.
const PAYMENT: Weight = Weight::from_parts(50_000_000, 0);
/// Proof size of one small storage item with its trie nodes.
const ITEM_PROOF: u64 = 2_048;
/// Proof size of a list of an epoch's weights.
const LIST_PROOF: u64 = 65_536;

/// Profiles that a claim looks at in both epochs together at most: as many as can be registered, twice.
pub const MAX_PROFILES: u32 = 2_048;
/// Samples of a claim that any schedule can ask for.
pub const MAX_CLAIM_SAMPLES: u32 = 1_000;

fn proof(items: u64) -> Weight {
    Weight::from_parts(0, items.saturating_mul(ITEM_PROOF))
}

/// `claim` with duties checked over `samples` inferences and attendance over `profiles`. Everything is checked once by the
/// fee rule and once by the call; a sampled inference reads its record, its verdict and its coverage window's seed, a
/// profile its number of answers, its weights and the host's tally, once more for what the claim leaves.
pub fn claim<T: Config>(samples: u32, profiles: u32) -> Weight {
    let profile = ITEM
        .saturating_add(T::DbWeight::get().reads(3))
        .saturating_add(proof(2))
        .saturating_add(Weight::from_parts(0, LIST_PROOF));
    let sample = ITEM.saturating_add(T::DbWeight::get().reads(3)).saturating_add(proof(3));
    VRF_VERIFY
        .saturating_mul(2)
        .saturating_add(PAYMENT)
        .saturating_add(sample.saturating_mul(2).saturating_mul(samples.into()))
        .saturating_add(profile.saturating_mul(3).saturating_mul(profiles.into()))
        .saturating_add(T::DbWeight::get().reads_writes(32, 6))
        .saturating_add(proof(16))
        .saturating_add(Weight::from_parts(0, LIST_PROOF))
}

/// Minting one epoch's emission and burning what is left of another's.
pub fn epoch_change<T: Config>() -> Weight {
    PAYMENT
        .saturating_mul(2)
        .saturating_add(T::DbWeight::get().reads_writes(7, 6))
        .saturating_add(proof(8))
        .saturating_add(Weight::from_parts(0, LIST_PROOF))
}

/// Looking whether anything is to be pruned.
pub fn prune_check<T: Config>() -> Weight {
    T::DbWeight::get().reads(2).saturating_add(proof(2))
}

/// Pruning one item.
pub fn prune_step<T: Config>() -> Weight {
    ITEM.saturating_add(T::DbWeight::get().reads_writes(3, 2)).saturating_add(proof(2))
}
