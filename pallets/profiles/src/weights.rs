//! Weights of the pallet, estimated from the database accesses.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// Weights of the calls.
pub trait WeightInfo {
    /// `register`.
    fn register() -> Weight;
    /// `retire`.
    fn retire() -> Weight;
}

/// Weights by the runtime's database costs.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn register() -> Weight {
        Weight::from_parts(20_000_000, 4_096).saturating_add(T::DbWeight::get().reads_writes(2, 3))
    }

    fn retire() -> Weight {
        Weight::from_parts(20_000_000, 4_096).saturating_add(T::DbWeight::get().reads_writes(3, 2))
    }
}

impl WeightInfo for () {
    fn register() -> Weight {
        Weight::zero()
    }

    fn retire() -> Weight {
        Weight::zero()
    }
}
