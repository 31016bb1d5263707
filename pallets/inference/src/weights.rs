//! Weights of `pallet_inference`, measured. Made by `scripts/benchmark-weights`; what is changed here by hand is lost.
//!
//! 20 points on each line, 10 repetitions of each, in WASM, by the processor's time.
//!
//! Reads and writes are priced by the runtime's database; a chain of its own has no bound on the size of proofs.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// What calls and the steps of hooks cost.
pub trait WeightInfo {
    /// `close_epoch`, `h` in `0..=1024`.
    fn close_epoch(h: u32) -> Weight;
    /// `delegate`.
    fn delegate() -> Weight;
    /// `deliver`, `n` in `1..=512`.
    fn deliver(n: u32) -> Weight;
    /// `deposit`.
    fn deposit() -> Weight;
    /// `expire`, `n` in `1..=256`.
    fn expire(n: u32) -> Weight;
    /// `finish`, `n` in `1..=512`.
    fn finish(n: u32) -> Weight;
    /// `finish_delegated`, `n` in `1..=512`.
    fn finish_delegated(n: u32) -> Weight;
    /// `finish_profiles`, `p` in `1..=512`.
    fn finish_profiles(p: u32) -> Weight;
    /// `flush_pending`, `h` in `0..=1024`.
    fn flush_pending(h: u32) -> Weight;
    /// `prune`, `n` in `0..=200`.
    fn prune(n: u32) -> Weight;
    /// `revoke`.
    fn revoke() -> Weight;
    /// `settle_refused`, `n` in `1..=512`.
    fn settle_refused(n: u32) -> Weight;
    /// `start`, `n` in `1..=256`.
    fn start(n: u32) -> Weight;
    /// `start_payers`, `n` in `1..=256`.
    fn start_payers(n: u32) -> Weight;
    /// `start_profiles`, `p` in `1..=256`.
    fn start_profiles(p: u32) -> Weight;
    /// `start_refused`, `n` in `1..=256`.
    fn start_refused(n: u32) -> Weight;
    /// `withdraw`.
    fn withdraw() -> Weight;
}

/// The measured weights.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn close_epoch(h: u32) -> Weight {
        Weight::from_parts(118440382, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 3))
            .saturating_add(Weight::from_parts(525555, 0).saturating_mul(h.into()))
    }

    fn delegate() -> Weight {
        Weight::from_parts(12338000, 0).saturating_add(T::DbWeight::get().reads_writes(2, 2))
    }

    fn deliver(n: u32) -> Weight {
        Weight::from_parts(26141803, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 0))
            .saturating_add(Weight::from_parts(11103125, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 1).saturating_mul(n.into()))
    }

    fn deposit() -> Weight {
        Weight::from_parts(46239000, 0).saturating_add(T::DbWeight::get().reads_writes(3, 3))
    }

    fn expire(n: u32) -> Weight {
        Weight::from_parts(53821000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(4, 0))
            .saturating_add(Weight::from_parts(31881291, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(7, 4).saturating_mul(n.into()))
    }

    fn finish(n: u32) -> Weight {
        Weight::from_parts(94892000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(11, 4))
            .saturating_add(Weight::from_parts(16548476, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 2).saturating_mul(n.into()))
    }

    fn finish_delegated(n: u32) -> Weight {
        Weight::from_parts(103475000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(11, 4))
            .saturating_add(Weight::from_parts(23181520, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(4, 3).saturating_mul(n.into()))
    }

    fn finish_profiles(p: u32) -> Weight {
        Weight::from_parts(8548867551, 0)
            .saturating_add(T::DbWeight::get().reads_writes(1546, 1028))
            .saturating_add(Weight::from_parts(4900013, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 0).saturating_mul(p.into()))
    }

    fn flush_pending(h: u32) -> Weight {
        Weight::from_parts(13760000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(4, 3))
            .saturating_add(Weight::from_parts(6309180, 0).saturating_mul(h.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(h.into()))
    }

    fn prune(n: u32) -> Weight {
        Weight::from_parts(37813178, 0)
            .saturating_add(T::DbWeight::get().reads_writes(3, 1))
            .saturating_add(Weight::from_parts(25596417, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(4, 4).saturating_mul(n.into()))
    }

    fn revoke() -> Weight {
        Weight::from_parts(13981000, 0).saturating_add(T::DbWeight::get().reads_writes(2, 2))
    }

    fn settle_refused(n: u32) -> Weight {
        Weight::from_parts(41692000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(5, 0))
            .saturating_add(Weight::from_parts(8540423, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 0).saturating_mul(n.into()))
    }

    fn start(n: u32) -> Weight {
        Weight::from_parts(19898016, 0)
            .saturating_add(T::DbWeight::get().reads_writes(11, 3))
            .saturating_add(Weight::from_parts(53239903, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 2).saturating_mul(n.into()))
    }

    fn start_payers(n: u32) -> Weight {
        Weight::from_parts(49269829, 0)
            .saturating_add(T::DbWeight::get().reads_writes(9, 1))
            .saturating_add(Weight::from_parts(57735787, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 4).saturating_mul(n.into()))
    }

    fn start_profiles(p: u32) -> Weight {
        Weight::from_parts(13616280155, 0)
            .saturating_add(T::DbWeight::get().reads_writes(264, 515))
            .saturating_add(Weight::from_parts(24289335, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 0).saturating_mul(p.into()))
    }

    fn start_refused(n: u32) -> Weight {
        Weight::from_parts(205837333, 0)
            .saturating_add(T::DbWeight::get().reads_writes(9, 0))
            .saturating_add(Weight::from_parts(10369087, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 0).saturating_mul(n.into()))
    }

    fn withdraw() -> Weight {
        Weight::from_parts(49323000, 0).saturating_add(T::DbWeight::get().reads_writes(3, 3))
    }
}
