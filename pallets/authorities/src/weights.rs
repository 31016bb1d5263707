//! Weights of `pallet_authorities`, measured. Made by `scripts/benchmark-weights`; what is changed here by hand is lost.
//!
//! 20 points on each line, 10 repetitions of each, in WASM, by the processor's time.
//!
//! Reads and writes are priced by the runtime's database; a chain of its own has no bound on the size of proofs.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// What calls and the steps of hooks cost.
pub trait WeightInfo {
    /// `begin_session`, `h` in `1..=1000`.
    fn begin_session(h: u32) -> Weight;
    /// `plan_session`, `h` in `1..=1000`.
    fn plan_session(h: u32) -> Weight;
}

/// The measured weights.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn begin_session(h: u32) -> Weight {
        Weight::from_parts(21970768, 0)
            .saturating_add(T::DbWeight::get().reads_writes(18, 13))
            .saturating_add(Weight::from_parts(1994251, 0).saturating_mul(h.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 0).saturating_mul(h.into()))
    }

    fn plan_session(h: u32) -> Weight {
        Weight::from_parts(29584000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 1))
            .saturating_add(Weight::from_parts(18249457, 0).saturating_mul(h.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 0).saturating_mul(h.into()))
    }
}
