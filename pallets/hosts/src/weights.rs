//! Weights of `pallet_hosts`, measured. Made by `scripts/benchmark-weights`; what is changed here by hand is lost.
//!
//! 20 points on each line, 10 repetitions of each, in WASM, by the processor's time.
//!
//! Reads and writes are priced by the runtime's database; a chain of its own has no bound on the size of proofs.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// What calls and the steps of hooks cost.
pub trait WeightInfo {
    /// `announce`.
    fn announce() -> Weight;
    /// `declare_maintenance`.
    fn declare_maintenance() -> Weight;
    /// `deregister`.
    fn deregister() -> Weight;
    /// `drain`.
    fn drain() -> Weight;
    /// `register`, `p` in `0..=16`.
    fn register(p: u32) -> Weight;
    /// `resume`.
    fn resume() -> Weight;
    /// `set_profiles`, `p` in `0..=16`.
    fn set_profiles(p: u32) -> Weight;
    /// `set_worker`.
    fn set_worker() -> Weight;
}

/// The measured weights.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn announce() -> Weight {
        Weight::from_parts(54781000, 0).saturating_add(T::DbWeight::get().reads_writes(3, 2))
    }

    fn declare_maintenance() -> Weight {
        Weight::from_parts(29774000, 0).saturating_add(T::DbWeight::get().reads_writes(3, 1))
    }

    fn deregister() -> Weight {
        Weight::from_parts(119458000, 0).saturating_add(T::DbWeight::get().reads_writes(9, 8))
    }

    fn drain() -> Weight {
        Weight::from_parts(27191000, 0).saturating_add(T::DbWeight::get().reads_writes(1, 1))
    }

    fn register(p: u32) -> Weight {
        Weight::from_parts(94234420, 0)
            .saturating_add(T::DbWeight::get().reads_writes(8, 6))
            .saturating_add(Weight::from_parts(4111050, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 0).saturating_mul(p.into()))
    }

    fn resume() -> Weight {
        Weight::from_parts(93810000, 0).saturating_add(T::DbWeight::get().reads_writes(6, 4))
    }

    fn set_profiles(p: u32) -> Weight {
        Weight::from_parts(33825703, 0)
            .saturating_add(T::DbWeight::get().reads_writes(1, 1))
            .saturating_add(Weight::from_parts(3839661, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 0).saturating_mul(p.into()))
    }

    fn set_worker() -> Weight {
        Weight::from_parts(48452000, 0).saturating_add(T::DbWeight::get().reads_writes(5, 5))
    }
}
