//! Weights of `pallet_verification`, measured. Made by `scripts/benchmark-weights`; what is changed here by hand is lost.
//!
//! 20 points on each line, 10 repetitions of each, in WASM, by the processor's time.
//!
//! Reads and writes are priced by the runtime's database; a chain of its own has no bound on the size of proofs.

use core::marker::PhantomData;
use frame_support::{traits::Get, weights::Weight};

/// What calls and the steps of hooks cost.
pub trait WeightInfo {
    /// `accuse`, `a` in `0..=998`.
    fn accuse(a: u32) -> Weight;
    /// `agenda`, `n` in `0..=64`.
    fn agenda(n: u32) -> Weight;
    /// `close_panels`, `n` in `0..=2`.
    fn close_panels(n: u32) -> Weight;
    /// `commit_refused`, `n` in `1..=256`.
    fn commit_refused(n: u32) -> Weight;
    /// `commit_verdicts`, `n` in `1..=256`.
    fn commit_verdicts(n: u32) -> Weight;
    /// `commit_plant`.
    fn commit_plant() -> Weight;
    /// `contest_plant`.
    fn contest_plant() -> Weight;
    /// `coverage`.
    fn coverage() -> Weight;
    /// `draw_panels`, `n` in `0..=2`.
    fn draw_panels(n: u32) -> Weight;
    /// `prove_fraud`, `w` in `1..=32`.
    fn prove_fraud(w: u32) -> Weight;
    /// `prune`, `n` in `0..=200`.
    fn prune(n: u32) -> Weight;
    /// `release_approvers`, `n` in `0..=512`.
    fn release_approvers(n: u32) -> Weight;
    /// `reveal_deciding`, `n` in `1..=256`.
    fn reveal_deciding(n: u32) -> Weight;
    /// `reveal_plant`, `h` in `1..=1000`.
    fn reveal_plant(h: u32) -> Weight;
    /// `reveal_refused`, `n` in `1..=256`.
    fn reveal_refused(n: u32) -> Weight;
    /// `reveal_verdicts`, `n` in `1..=256`.
    fn reveal_verdicts(n: u32) -> Weight;
    /// `submit_failing`, `n` in `1..=256`.
    fn submit_failing(n: u32) -> Weight;
    /// `submit_profiles`, `p` in `1..=256`.
    fn submit_profiles(p: u32) -> Weight;
    /// `submit_refused`, `n` in `1..=256`.
    fn submit_refused(n: u32) -> Weight;
    /// `submit_verdicts`, `n` in `1..=256`.
    fn submit_verdicts(n: u32) -> Weight;
}

/// The measured weights.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

impl<T: frame_system::Config> WeightInfo for SubstrateWeight<T> {
    fn accuse(a: u32) -> Weight {
        Weight::from_parts(45427763, 0)
            .saturating_add(T::DbWeight::get().reads_writes(12, 6))
            .saturating_add(Weight::from_parts(386072, 0).saturating_mul(a.into()))
    }

    fn agenda(n: u32) -> Weight {
        Weight::from_parts(8613000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(5, 2))
            .saturating_add(Weight::from_parts(29395308, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 3).saturating_mul(n.into()))
    }

    fn close_panels(n: u32) -> Weight {
        Weight::from_parts(12408152, 0)
            .saturating_add(T::DbWeight::get().reads_writes(3, 1))
            .saturating_add(Weight::from_parts(3927472881, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(909, 605).saturating_mul(n.into()))
    }

    fn commit_refused(n: u32) -> Weight {
        Weight::from_parts(44206957, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 0))
            .saturating_add(Weight::from_parts(10187525, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 0).saturating_mul(n.into()))
    }

    fn commit_verdicts(n: u32) -> Weight {
        Weight::from_parts(73259299, 0)
            .saturating_add(T::DbWeight::get().reads_writes(4, 0))
            .saturating_add(Weight::from_parts(16326813, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 2).saturating_mul(n.into()))
    }

    // Counted, but timed by unoptimised code only: scaled by what `prove_fraud` and `commit_refused` take there.
    fn commit_plant() -> Weight {
        Weight::from_parts(75000000, 0).saturating_add(T::DbWeight::get().reads_writes(5, 1))
    }

    // As `commit_plant`.
    fn contest_plant() -> Weight {
        Weight::from_parts(65000000, 0).saturating_add(T::DbWeight::get().reads_writes(5, 3))
    }

    fn coverage() -> Weight {
        Weight::from_parts(33219000, 0).saturating_add(T::DbWeight::get().reads_writes(6, 5))
    }

    fn draw_panels(n: u32) -> Weight {
        Weight::from_parts(155178355, 0)
            .saturating_add(T::DbWeight::get().reads_writes(20, 1))
            .saturating_add(Weight::from_parts(5349596389, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(552, 4).saturating_mul(n.into()))
    }

    fn prove_fraud(w: u32) -> Weight {
        Weight::from_parts(277323784, 0)
            .saturating_add(T::DbWeight::get().reads_writes(19, 12))
            .saturating_add(Weight::from_parts(4526381, 0).saturating_mul(w.into()))
    }

    fn prune(n: u32) -> Weight {
        Weight::from_parts(24342413, 0)
            .saturating_add(Weight::from_parts(877211, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(n.into()))
    }

    // As `commit_plant`.
    fn release_approvers(n: u32) -> Weight {
        Weight::from_parts(45000000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(7, 5))
            .saturating_add(Weight::from_parts(25000000, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 2).saturating_mul(n.into()))
    }

    fn reveal_deciding(n: u32) -> Weight {
        Weight::from_parts(250223000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(12, 6))
            .saturating_add(Weight::from_parts(135084971, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(12, 10).saturating_mul(n.into()))
    }

    // As `commit_plant`.
    fn reveal_plant(h: u32) -> Weight {
        Weight::from_parts(220000000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(19, 12))
            .saturating_add(Weight::from_parts(4000000, 0).saturating_mul(h.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 0).saturating_mul(h.into()))
    }

    fn reveal_refused(n: u32) -> Weight {
        Weight::from_parts(33480115, 0)
            .saturating_add(T::DbWeight::get().reads_writes(4, 0))
            .saturating_add(Weight::from_parts(16063863, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(4, 0).saturating_mul(n.into()))
    }

    fn reveal_verdicts(n: u32) -> Weight {
        Weight::from_parts(34416014, 0)
            .saturating_add(T::DbWeight::get().reads_writes(6, 0))
            .saturating_add(Weight::from_parts(49487769, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(8, 6).saturating_mul(n.into()))
    }

    fn submit_failing(n: u32) -> Weight {
        Weight::from_parts(115051000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(7, 1))
            .saturating_add(Weight::from_parts(31346010, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 4).saturating_mul(n.into()))
    }

    fn submit_profiles(p: u32) -> Weight {
        Weight::from_parts(5982382736, 0)
            .saturating_add(T::DbWeight::get().reads_writes(1283, 512))
            .saturating_add(Weight::from_parts(17871131, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 0).saturating_mul(p.into()))
    }

    fn submit_refused(n: u32) -> Weight {
        Weight::from_parts(27881972, 0)
            .saturating_add(T::DbWeight::get().reads_writes(5, 0))
            .saturating_add(Weight::from_parts(9113185, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 0).saturating_mul(n.into()))
    }

    fn submit_verdicts(n: u32) -> Weight {
        Weight::from_parts(121582000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(5, 0))
            .saturating_add(Weight::from_parts(25882533, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(5, 4).saturating_mul(n.into()))
    }
}
