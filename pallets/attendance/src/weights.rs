//! What counting, the test and pruning cost. Computing times are estimates with a margin (reference hardware, one core);
//! reads and writes are counted from the code and priced by the runtime's database.

use crate::Config;
use frame_support::{traits::Get, weights::Weight};

/// Proof size of one small storage item with its trie nodes.
const ITEM_PROOF: u64 = 2_048;
/// Removing one entry: about 5 us.
const STEP: Weight = Weight::from_parts(10_000_000, 0);

/// Looking whether anything is to be pruned.
pub fn prune_check<T: Config>() -> Weight {
    T::DbWeight::get().reads(2).saturating_add(Weight::from_parts(0, ITEM_PROOF))
}

/// Pruning one entry.
pub fn prune_step<T: Config>() -> Weight {
    STEP.saturating_add(T::DbWeight::get().reads_writes(1, 1))
        .saturating_add(Weight::from_parts(0, ITEM_PROOF))
}
