//! Weights of `pallet_rewards`, measured. Made by `scripts/benchmark-weights`; what is changed here by hand is lost.
//!
//! 20 points on each line, 10 repetitions of each, in WASM, by the processor's time.
//!
//! Reads and writes are priced by the runtime's database; a chain of its own has no bound on the size of proofs.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// What calls and the steps of hooks cost.
pub trait WeightInfo {
    /// `claim`, `s` in `0..=1000`.
    fn claim(s: u32) -> Weight;
    /// `epoch_change`.
    fn epoch_change() -> Weight;
    /// `prune`, `n` in `0..=200`.
    fn prune(n: u32) -> Weight;
}

/// The measured weights.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn claim(s: u32) -> Weight {
        Weight::from_parts(7972910249, 0)
            .saturating_add(T::DbWeight::get().reads_writes(1134, 6))
            .saturating_add(Weight::from_parts(85123676, 0).saturating_mul(s.into()))
            .saturating_add(T::DbWeight::get().reads_writes(11, 0).saturating_mul(s.into()))
    }

    fn epoch_change() -> Weight {
        Weight::from_parts(71978000, 0).saturating_add(T::DbWeight::get().reads_writes(4, 4))
    }

    fn prune(n: u32) -> Weight {
        Weight::from_parts(2459040, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 0))
            .saturating_add(Weight::from_parts(1369236, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(n.into()))
    }
}
