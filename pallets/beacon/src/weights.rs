//! Weights of `pallet_beacon`, measured. Made by `scripts/benchmark-weights`; what is changed here by hand is lost.
//!
//! 20 points on each line, 10 repetitions of each, in WASM, by the processor's time.
//!
//! Reads and writes are priced by the runtime's database; a chain of its own has no bound on the size of proofs.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// What calls and the steps of hooks cost.
pub trait WeightInfo {
    /// `contribute`.
    fn contribute() -> Weight;
    /// `draw`.
    fn draw() -> Weight;
    /// `finalise`, `c` in `0..=1024`.
    fn finalise(c: u32) -> Weight;
    /// `prune`, `n` in `0..=200`.
    fn prune(n: u32) -> Weight;
    /// `roll`.
    fn roll() -> Weight;
}

/// The measured weights.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn contribute() -> Weight {
        Weight::from_parts(769027000, 0).saturating_add(T::DbWeight::get().reads_writes(9, 2))
    }

    fn draw() -> Weight {
        Weight::from_parts(21623000, 0).saturating_add(T::DbWeight::get().reads_writes(6, 3))
    }

    fn finalise(c: u32) -> Weight {
        Weight::from_parts(41602000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(7, 3))
            .saturating_add(Weight::from_parts(4545696, 0).saturating_mul(c.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 0).saturating_mul(c.into()))
    }

    fn prune(n: u32) -> Weight {
        Weight::from_parts(8331572, 0)
            .saturating_add(T::DbWeight::get().reads_writes(3, 0))
            .saturating_add(Weight::from_parts(1429500, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(n.into()))
    }

    fn roll() -> Weight {
        Weight::from_parts(4697000, 0).saturating_add(T::DbWeight::get().reads_writes(1, 1))
    }
}
