//! What batches cost: the measured weights of their parts, put together by what a batch is made of.

use crate::{weights::WeightInfo, Config};
use alloc::collections::BTreeSet;
use frame_support::{traits::Get, weights::Weight};
use starling_primitives::{records::Started, AccountId, EpochIndex, ProfileId};

/// What `items` cost beyond what any batch does.
fn more(weight: fn(u32) -> Weight, items: u32) -> Weight {
    weight(items).saturating_sub(weight(0))
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
    /// Different pairs of epoch and profile: lists of hosts that executors are drawn from.
    pub draws: u32,
}

impl StartShape {
    /// Of a batch whose items are all taken.
    pub fn of(items: &[Started]) -> Self {
        let mut accounts: BTreeSet<(&AccountId, &AccountId)> = BTreeSet::new();
        let mut draws: BTreeSet<(EpochIndex, ProfileId)> = BTreeSet::new();
        for item in items {
            let authorization = &item.authorization.authorization;
            let client = &authorization.client;
            // The deposit stands under (client, client), a delegated key under (client, key).
            accounts.extend([(client, client), (client, &item.authorization.signer)]);
            draws.insert((item.epoch, authorization.profile));
        }
        Self {
            taken: items.len() as u32,
            refused: 0,
            accounts: accounts.len() as u32,
            draws: draws.len() as u32,
        }
    }

    /// With what came of it.
    pub(crate) fn with_taken(self, taken: u32) -> Self {
        Self { taken, refused: self.taken.saturating_sub(taken), ..self }
    }
}

/// `start`: the items as if one key had signed them all, and what further accounts and draws add.
pub fn start<T: Config>(shape: StartShape) -> Weight {
    // Measured were pairs of a deposit and a key.
    let payers = shape.accounts.div_ceil(2).saturating_sub(1);
    let own = more(T::WeightInfo::start_payers, payers).saturating_sub(more(T::WeightInfo::start, payers));
    T::WeightInfo::start(shape.taken)
        .saturating_add(more(T::WeightInfo::start_refused, shape.refused))
        .saturating_add(own)
        .saturating_add(more(T::WeightInfo::start_profiles, shape.draws.saturating_sub(1)))
}

/// What a `finish` batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FinishShape {
    /// Items that are taken.
    pub taken: u32,
    /// Of these, items that a delegated key had signed.
    pub delegated: u32,
    /// Items that are refused.
    pub refused: u32,
    /// Different profiles.
    pub profiles: u32,
    /// Different epochs, profiles and gateways, for which answers are counted.
    pub counted: u32,
}

impl FinishShape {
    /// The dearest that a batch of `items` can come to.
    pub fn worst(items: u32) -> Self {
        Self { taken: items, delegated: items, refused: 0, profiles: items, counted: items }
    }
}

/// `finish`.
pub fn finish<T: Config>(shape: FinishShape) -> Weight {
    T::WeightInfo::finish(shape.taken.saturating_sub(shape.delegated))
        .saturating_add(more(T::WeightInfo::finish_delegated, shape.delegated))
        .saturating_add(more(T::WeightInfo::finish_profiles, shape.profiles.saturating_sub(1)))
        .saturating_add(more(T::WeightInfo::settle_refused, shape.refused))
        .saturating_add(counted::<T>(shape.counted.saturating_sub(1)))
}

/// What counting answers costs for so many epochs, profiles and gateways more: two tallies and a sum are read and written. An
/// estimate of the time, since what is measured comes through one gateway.
fn counted<T: Config>(groups: u32) -> Weight {
    Weight::from_parts(12_000_000, 0)
        .saturating_add(T::DbWeight::get().reads_writes(3, 3))
        .saturating_mul(groups.into())
}

/// `deliver`.
pub fn deliver<T: Config>(taken: u32, refused: u32) -> Weight {
    T::WeightInfo::deliver(taken).saturating_add(more(T::WeightInfo::settle_refused, refused))
}

/// `expire`.
pub fn expire<T: Config>(taken: u32, refused: u32) -> Weight {
    T::WeightInfo::expire(taken).saturating_add(more(T::WeightInfo::settle_refused, refused))
}
