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
        Weight::from_parts(105654324, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 3))
            .saturating_add(Weight::from_parts(514110, 0).saturating_mul(h.into()))
    }

    fn delegate() -> Weight {
        Weight::from_parts(15874000, 0).saturating_add(T::DbWeight::get().reads_writes(2, 2))
    }

    fn deliver(n: u32) -> Weight {
        Weight::from_parts(35833000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 0))
            .saturating_add(Weight::from_parts(11072920, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 1).saturating_mul(n.into()))
    }

    fn deposit() -> Weight {
        Weight::from_parts(50815000, 0).saturating_add(T::DbWeight::get().reads_writes(3, 3))
    }

    fn expire(n: u32) -> Weight {
        Weight::from_parts(54992000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(4, 0))
            .saturating_add(Weight::from_parts(31276989, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(7, 4).saturating_mul(n.into()))
    }

    fn finish(n: u32) -> Weight {
        Weight::from_parts(103575000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(13, 6))
            .saturating_add(Weight::from_parts(19783080, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 2).saturating_mul(n.into()))
    }

    fn finish_delegated(n: u32) -> Weight {
        Weight::from_parts(137195000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(13, 6))
            .saturating_add(Weight::from_parts(27218138, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(4, 3).saturating_mul(n.into()))
    }

    fn finish_profiles(p: u32) -> Weight {
        Weight::from_parts(10227074560, 0)
            .saturating_add(T::DbWeight::get().reads_writes(1546, 1028))
            .saturating_add(Weight::from_parts(9857741, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 2).saturating_mul(p.into()))
    }

    fn flush_pending(h: u32) -> Weight {
        Weight::from_parts(23967628, 0)
            .saturating_add(T::DbWeight::get().reads_writes(4, 3))
            .saturating_add(Weight::from_parts(6206678, 0).saturating_mul(h.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(h.into()))
    }

    fn prune(n: u32) -> Weight {
        Weight::from_parts(8933000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(3, 1))
            .saturating_add(Weight::from_parts(26325359, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(5, 4).saturating_mul(n.into()))
    }

    fn revoke() -> Weight {
        Weight::from_parts(13790000, 0).saturating_add(T::DbWeight::get().reads_writes(2, 2))
    }

    fn settle_refused(n: u32) -> Weight {
        Weight::from_parts(62407298, 0)
            .saturating_add(T::DbWeight::get().reads_writes(5, 0))
            .saturating_add(Weight::from_parts(8516292, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 0).saturating_mul(n.into()))
    }

    fn start(n: u32) -> Weight {
        Weight::from_parts(61922777, 0)
            .saturating_add(T::DbWeight::get().reads_writes(11, 3))
            .saturating_add(Weight::from_parts(54254223, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 2).saturating_mul(n.into()))
    }

    fn start_payers(n: u32) -> Weight {
        Weight::from_parts(18733244, 0)
            .saturating_add(T::DbWeight::get().reads_writes(9, 1))
            .saturating_add(Weight::from_parts(61958427, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 4).saturating_mul(n.into()))
    }

    fn start_profiles(p: u32) -> Weight {
        Weight::from_parts(13757118711, 0)
            .saturating_add(T::DbWeight::get().reads_writes(264, 515))
            .saturating_add(Weight::from_parts(26933334, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 0).saturating_mul(p.into()))
    }

    fn start_refused(n: u32) -> Weight {
        Weight::from_parts(202000416, 0)
            .saturating_add(T::DbWeight::get().reads_writes(9, 0))
            .saturating_add(Weight::from_parts(10778179, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 0).saturating_mul(n.into()))
    }

    fn withdraw() -> Weight {
        Weight::from_parts(53349000, 0).saturating_add(T::DbWeight::get().reads_writes(3, 3))
    }
}
