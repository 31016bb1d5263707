//! What the calls take, by their database accesses.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// Weights of the calls.
pub trait WeightInfo {
    /// `vote`.
    fn vote() -> Weight;
    /// `remove_votes` that removes `n`.
    fn remove_votes(n: u32) -> Weight;
}

/// By the runtime's database costs.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

/// Decoding the weights of a thousand hosts, and a referendum.
const VOTE_REF_TIME: u64 = 120_000_000;
const REMOVE_REF_TIME: u64 = 10_000_000;

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn vote() -> Weight {
        // Referendum, weights, vote, and the agendas that its alarm moves between.
        Weight::from_parts(VOTE_REF_TIME, 0).saturating_add(T::DbWeight::get().reads_writes(5, 4))
    }

    fn remove_votes(n: u32) -> Weight {
        let one =
            Weight::from_parts(REMOVE_REF_TIME, 0).saturating_add(T::DbWeight::get().reads_writes(1, 1));
        one.saturating_mul(u64::from(n).saturating_add(1))
    }
}

impl WeightInfo for () {
    fn vote() -> Weight {
        Weight::from_parts(VOTE_REF_TIME, 0)
    }

    fn remove_votes(n: u32) -> Weight {
        Weight::from_parts(REMOVE_REF_TIME, 0).saturating_mul(n.into())
    }
}
