//! Weights of `pallet_sprint`, measured. Made by `scripts/benchmark-weights`; what is changed here by hand is lost.
//!
//! 20 points on each line, 10 repetitions of each, in WASM, by the processor's time.
//!
//! Reads and writes are priced by the runtime's database; a chain of its own has no bound on the size of proofs.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// What calls and the steps of hooks cost.
pub trait WeightInfo {
    /// `commit`.
    fn commit() -> Weight;
    /// `elect`, `h` in `0..=1024`.
    fn elect(h: u32) -> Weight;
    /// `elect_profiles`, `p` in `1..=16`.
    fn elect_profiles(p: u32) -> Weight;
    /// `prune`, `n` in `0..=200`.
    fn prune(n: u32) -> Weight;
    /// `submit_verdicts`, `n` in `1..=64`.
    fn submit_verdicts(n: u32) -> Weight;
}

/// The measured weights.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn commit() -> Weight {
        Weight::from_parts(125228000, 0).saturating_add(T::DbWeight::get().reads_writes(13, 2))
    }

    fn elect(h: u32) -> Weight {
        Weight::from_parts(20571000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(7, 2))
            .saturating_add(Weight::from_parts(50325597, 0).saturating_mul(h.into()))
            .saturating_add(T::DbWeight::get().reads_writes(7, 1).saturating_mul(h.into()))
    }

    fn elect_profiles(p: u32) -> Weight {
        Weight::from_parts(22161481791, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2009, 2))
            .saturating_add(Weight::from_parts(191699566, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(4, 1).saturating_mul(p.into()))
    }

    fn prune(n: u32) -> Weight {
        Weight::from_parts(13995098, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 0))
            .saturating_add(Weight::from_parts(1567817, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(n.into()))
    }

    fn submit_verdicts(n: u32) -> Weight {
        Weight::from_parts(108865516, 0)
            .saturating_add(T::DbWeight::get().reads_writes(11, 0))
            .saturating_add(Weight::from_parts(44024241, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 1).saturating_mul(n.into()))
    }
}
