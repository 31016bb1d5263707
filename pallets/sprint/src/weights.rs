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
        Weight::from_parts(121562000, 0).saturating_add(T::DbWeight::get().reads_writes(13, 2))
    }

    fn elect(h: u32) -> Weight {
        Weight::from_parts(21562000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(7, 2))
            .saturating_add(Weight::from_parts(48268009, 0).saturating_mul(h.into()))
            .saturating_add(T::DbWeight::get().reads_writes(7, 1).saturating_mul(h.into()))
    }

    fn elect_profiles(p: u32) -> Weight {
        Weight::from_parts(20227603269, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2009, 2))
            .saturating_add(Weight::from_parts(57779022, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(4, 1).saturating_mul(p.into()))
    }

    fn prune(n: u32) -> Weight {
        Weight::from_parts(9053958, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 0))
            .saturating_add(Weight::from_parts(1336282, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(n.into()))
    }

    fn submit_verdicts(n: u32) -> Weight {
        Weight::from_parts(118314227, 0)
            .saturating_add(T::DbWeight::get().reads_writes(11, 0))
            .saturating_add(Weight::from_parts(15509768, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 1).saturating_mul(n.into()))
    }
}
