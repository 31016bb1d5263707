//! What calls cost: explicit estimates of computation plus the database accesses of each item.
//!
//! The constants are rounded up from what the `records` benchmark shows natively; the dearest part by far is the check of a
//! client's signature, which is a host function in WASM too.

use crate::Config;
use alloc::collections::BTreeSet;
use frame_support::{traits::Get, weights::Weight};
use starling_primitives::{records::Started, AccountId};

/// Decoding, dispatch and the batch's own reads' computation.
const BATCH_REF_TIME: u64 = 30_000_000;
/// One signature check (ecdsa recovery is the dearest of the three kinds), one draw, hashing, one event.
const STARTED_REF_TIME: u64 = 80_000_000;
/// Pricing, two or three codec passes, one event.
const ITEM_REF_TIME: u64 = 12_000_000;

/// Clock, host, genesis hash, seeds, counts and pots: read once per batch.
const BATCH_READS: u64 = 10;
/// Counts of two epochs, or pot, fees and the pallet's account.
const BATCH_WRITES: u64 = 4;

fn batch<T: Config>(items: u32, item: Weight) -> Weight {
    Weight::from_parts(BATCH_REF_TIME, 0)
        .saturating_add(T::DbWeight::get().reads_writes(BATCH_READS, BATCH_WRITES))
        .saturating_add(item.saturating_mul(items.into()))
}

fn item<T: Config>(ref_time: u64, reads: u64, writes: u64) -> Weight {
    Weight::from_parts(ref_time, 0).saturating_add(T::DbWeight::get().reads_writes(reads, writes))
}

/// A call that moves money between an account and the ledger.
pub fn transfer<T: Config>() -> Weight {
    item::<T>(60_000_000, 3, 3)
}

/// A call that changes a delegation.
pub fn delegation<T: Config>() -> Weight {
    item::<T>(20_000_000, 2, 2)
}

/// What a `start` batch touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartShape {
    /// Items that are taken.
    pub taken: u32,
    /// Items that are refused.
    pub refused: u32,
    /// Different deposits and delegated keys.
    pub accounts: u32,
}

impl StartShape {
    /// Of a batch whose items are all taken.
    pub fn of(items: &[Started]) -> Self {
        let mut accounts: BTreeSet<(&AccountId, &AccountId)> = BTreeSet::new();
        for item in items {
            let client = &item.authorization.authorization.client;
            // The deposit stands under (client, client), a delegated key under (client, key).
            accounts.extend([(client, client), (client, &item.authorization.signer)]);
        }
        Self { taken: items.len() as u32, refused: 0, accounts: accounts.len() as u32 }
    }

    /// With what came of it.
    pub(crate) fn with_taken(self, taken: u32) -> Self {
        Self { taken, refused: self.taken.saturating_sub(taken), ..self }
    }
}

/// `start`: the index is read for each item, record and index are written; deposits and delegations are read and
/// written once each, later items find them in the overlay.
pub fn start<T: Config>(shape: StartShape) -> Weight {
    batch::<T>(shape.taken, item::<T>(STARTED_REF_TIME, 1, 2))
        .saturating_add(item::<T>(STARTED_REF_TIME, 2, 0).saturating_mul(shape.refused.into()))
        .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(shape.accounts.into()))
}

/// `finish` and `expire`: index, record and deposit are read, record and deposit written; so is the delegation of the
/// items that have one.
pub fn settle<T: Config>(taken: u32, refused: u32, delegated: u32) -> Weight {
    batch::<T>(taken, item::<T>(ITEM_REF_TIME, 3, 2))
        .saturating_add(item::<T>(ITEM_REF_TIME, 2, 0).saturating_mul(refused.into()))
        .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(delegated.into()))
}

/// What `finish` counts for attendance: the executor's and the gateway's tally and the sum, for so many epochs, profiles and
/// gateways.
pub fn counted<T: Config>(groups: u32) -> Weight {
    item::<T>(ITEM_REF_TIME, 3, 3).saturating_mul(groups.into())
}

/// `deliver`: index and record are read, the record written.
pub fn deliver<T: Config>(taken: u32, refused: u32) -> Weight {
    batch::<T>(taken, item::<T>(ITEM_REF_TIME, 2, 1))
        .saturating_add(item::<T>(ITEM_REF_TIME, 2, 0).saturating_mul(refused.into()))
}

/// One step of pruning: a record that may still have a reserve.
pub fn prune_step<T: Config>() -> Weight {
    item::<T>(ITEM_REF_TIME, 3, 4)
}

/// What a block pays to find out that there is nothing to prune.
pub fn prune_check<T: Config>() -> Weight {
    item::<T>(ITEM_REF_TIME, 3, 1)
}
