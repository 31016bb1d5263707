//! What calls and hooks cost. Computing times are estimates with a margin (reference hardware, one core); reads and
//! writes are counted from the code and priced by the runtime's database.

use crate::Config;
use frame_support::{traits::Get, weights::Weight};

/// Decoding, comparing and hashing of one item: about 5 us.
const ITEM: Weight = Weight::from_parts(10_000_000, 0);
/// Proof size of one small storage item with its trie nodes.
const ITEM_PROOF: u64 = 2_048;
/// Proof size of a list of an epoch's weights.
const LIST_PROOF: u64 = 65_536;

fn proof(items: u64) -> Weight {
    Weight::from_parts(0, items.saturating_mul(ITEM_PROOF))
}

/// `commit`: checked once by the fee rule and once by the call. Reads clock, host, key and its age, two seeds'
/// blocks, contribution, weights, profile, commitment, count; writes commitment and count.
pub fn commit<T: Config>() -> Weight {
    ITEM.saturating_mul(4)
        .saturating_add(T::DbWeight::get().reads_writes(28, 2))
        .saturating_add(proof(12))
        .saturating_add(Weight::from_parts(0, LIST_PROOF))
}

/// `submit_verdicts` of `items`: what is common is that of [`commit`]; each item reads commitment, verdict and voters
/// (once for the fee rule, once for the call) and writes the latter two and, at most, removes one verdict.
pub fn submit_verdicts<T: Config>(items: u32) -> Weight {
    let each =
        ITEM.saturating_mul(4).saturating_add(T::DbWeight::get().reads_writes(6, 3)).saturating_add(proof(4));
    commit::<T>().saturating_add(each.saturating_mul(items.into()))
}

/// The weights of the next epoch from `commitments` with `verdicts` in all, for `hosts` in the new and the old list.
pub fn epoch_change<T: Config>(commitments: u32, verdicts: u32, hosts: u32) -> Weight {
    let commitment =
        ITEM.saturating_mul(4).saturating_add(T::DbWeight::get().reads(6)).saturating_add(proof(6));
    let verdict = ITEM.saturating_add(T::DbWeight::get().reads(1)).saturating_add(proof(1));
    // Status, reputation, and twice what accusations come to, of two epochs.
    let host = ITEM.saturating_add(T::DbWeight::get().reads_writes(8, 1)).saturating_add(proof(7));
    T::DbWeight::get()
        .reads_writes(8, 4)
        .saturating_add(Weight::from_parts(0, LIST_PROOF))
        .saturating_add(commitment.saturating_mul(commitments.into()))
        .saturating_add(verdict.saturating_mul(verdicts.into()))
        .saturating_add(host.saturating_mul(hosts.into()))
}

/// Looking whether anything is to be pruned.
pub fn prune_check<T: Config>() -> Weight {
    T::DbWeight::get().reads(2).saturating_add(proof(2))
}

/// Pruning one item.
pub fn prune_step<T: Config>() -> Weight {
    ITEM.saturating_add(T::DbWeight::get().reads_writes(3, 2)).saturating_add(proof(2))
}
