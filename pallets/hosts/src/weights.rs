//! Weights of the pallet, estimated from the database accesses.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// Weights of the calls.
pub trait WeightInfo {
    /// `register`.
    fn register() -> Weight;
    /// `set_worker`.
    fn set_worker() -> Weight;
    /// `set_profiles`.
    fn set_profiles() -> Weight;
    /// `drain`.
    fn drain() -> Weight;
    /// `resume`.
    fn resume() -> Weight;
    /// `deregister`.
    fn deregister() -> Weight;
    /// `announce`.
    fn announce() -> Weight;
}

/// Proof size of one host.
const HOST: u64 = 4_096;

/// Weights by the runtime's database costs.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> SubstrateWeight<T> {
    fn of(reads: u64, writes: u64) -> Weight {
        Weight::from_parts(40_000_000, HOST).saturating_add(T::DbWeight::get().reads_writes(reads, writes))
    }
}

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn register() -> Weight {
        // Up to 16 profiles are looked up, with what retires them.
        Self::of(40, 6)
    }

    fn set_worker() -> Weight {
        Self::of(5, 5)
    }

    fn set_profiles() -> Weight {
        Self::of(34, 1)
    }

    fn drain() -> Weight {
        Self::of(1, 1)
    }

    fn resume() -> Weight {
        Self::of(6, 4)
    }

    fn deregister() -> Weight {
        Self::of(8, 7)
    }

    fn announce() -> Weight {
        Self::of(3, 2)
    }
}

impl WeightInfo for () {
    fn register() -> Weight {
        Weight::zero()
    }

    fn set_worker() -> Weight {
        Weight::zero()
    }

    fn set_profiles() -> Weight {
        Weight::zero()
    }

    fn drain() -> Weight {
        Weight::zero()
    }

    fn resume() -> Weight {
        Weight::zero()
    }

    fn deregister() -> Weight {
        Weight::zero()
    }

    fn announce() -> Weight {
        Weight::zero()
    }
}
