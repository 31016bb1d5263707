//! What the check takes.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// Weights of the check.
pub trait WeightInfo {
    /// For a host's duty call: found in the registry and in the weights of a full network, counted, and forgotten.
    fn check() -> Weight;
}

/// By the runtime's database costs.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

/// Decoding the weights of a thousand hosts is the dearest part.
const CHECK_REF_TIME: u64 = 60_000_000;

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn check() -> Weight {
        // The registry's two, clock, weights; the two counters live in memory and cost their computation only.
        Weight::from_parts(CHECK_REF_TIME, 0).saturating_add(T::DbWeight::get().reads(4))
    }
}

impl WeightInfo for () {
    fn check() -> Weight {
        Weight::from_parts(CHECK_REF_TIME, 0)
    }
}
