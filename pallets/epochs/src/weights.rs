//! Weights of the pallet, estimated from the database accesses.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// Weights of calls and of the per-block work.
pub trait WeightInfo {
    /// A block in which nothing but the clock moves.
    fn tick() -> Weight;
    /// `propose_schedule`.
    fn propose_schedule() -> Weight;
}

/// Weights by the runtime's database costs.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn tick() -> Weight {
        Weight::from_parts(5_000_000, 512).saturating_add(T::DbWeight::get().reads_writes(2, 1))
    }

    fn propose_schedule() -> Weight {
        Weight::from_parts(15_000_000, 256).saturating_add(T::DbWeight::get().writes(1))
    }
}

impl WeightInfo for () {
    fn tick() -> Weight {
        Weight::zero()
    }

    fn propose_schedule() -> Weight {
        Weight::zero()
    }
}
