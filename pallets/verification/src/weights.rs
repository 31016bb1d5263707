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
    /// `commit_plant`.
    fn commit_plant() -> Weight;
    /// `commit_refused`, `n` in `1..=256`.
    fn commit_refused(n: u32) -> Weight;
    /// `commit_verdicts`, `n` in `1..=256`.
    fn commit_verdicts(n: u32) -> Weight;
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
        Weight::from_parts(81608094, 0)
            .saturating_add(T::DbWeight::get().reads_writes(12, 6))
            .saturating_add(Weight::from_parts(432585, 0).saturating_mul(a.into()))
    }

    fn agenda(n: u32) -> Weight {
        Weight::from_parts(16044000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(6, 3))
            .saturating_add(Weight::from_parts(41398266, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(4, 3).saturating_mul(n.into()))
    }

    fn close_panels(n: u32) -> Weight {
        Weight::from_parts(5899661, 0)
            .saturating_add(T::DbWeight::get().reads_writes(3, 1))
            .saturating_add(Weight::from_parts(5157531152, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1212, 606).saturating_mul(n.into()))
    }

    fn commit_plant() -> Weight {
        Weight::from_parts(64436000, 0).saturating_add(T::DbWeight::get().reads_writes(5, 1))
    }

    fn commit_refused(n: u32) -> Weight {
        Weight::from_parts(1752632, 0)
            .saturating_add(T::DbWeight::get().reads_writes(2, 0))
            .saturating_add(Weight::from_parts(10090524, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 0).saturating_mul(n.into()))
    }

    fn commit_verdicts(n: u32) -> Weight {
        Weight::from_parts(35553227, 0)
            .saturating_add(T::DbWeight::get().reads_writes(4, 0))
            .saturating_add(Weight::from_parts(15415990, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 2).saturating_mul(n.into()))
    }

    fn contest_plant() -> Weight {
        Weight::from_parts(68522000, 0).saturating_add(T::DbWeight::get().reads_writes(5, 3))
    }

    fn coverage() -> Weight {
        Weight::from_parts(35232000, 0).saturating_add(T::DbWeight::get().reads_writes(6, 5))
    }

    fn draw_panels(n: u32) -> Weight {
        Weight::from_parts(153425694, 0)
            .saturating_add(T::DbWeight::get().reads_writes(28, 1))
            .saturating_add(Weight::from_parts(6904130237, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(826, 4).saturating_mul(n.into()))
    }

    fn prove_fraud(w: u32) -> Weight {
        Weight::from_parts(328762753, 0)
            .saturating_add(T::DbWeight::get().reads_writes(20, 12))
            .saturating_add(Weight::from_parts(5198295, 0).saturating_mul(w.into()))
    }

    fn prune(n: u32) -> Weight {
        Weight::from_parts(48881567, 0)
            .saturating_add(Weight::from_parts(1002119, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 1).saturating_mul(n.into()))
    }

    fn release_approvers(n: u32) -> Weight {
        Weight::from_parts(47917670, 0)
            .saturating_add(T::DbWeight::get().reads_writes(8, 5))
            .saturating_add(Weight::from_parts(23133725, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 3).saturating_mul(n.into()))
    }

    fn reveal_deciding(n: u32) -> Weight {
        Weight::from_parts(276542000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(14, 7))
            .saturating_add(Weight::from_parts(162326446, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(13, 10).saturating_mul(n.into()))
    }

    fn reveal_plant(h: u32) -> Weight {
        Weight::from_parts(157204222, 0)
            .saturating_add(T::DbWeight::get().reads_writes(21, 16))
            .saturating_add(Weight::from_parts(4650418, 0).saturating_mul(h.into()))
            .saturating_add(T::DbWeight::get().reads_writes(1, 0).saturating_mul(h.into()))
    }

    fn reveal_refused(n: u32) -> Weight {
        Weight::from_parts(60801000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(4, 0))
            .saturating_add(Weight::from_parts(18011410, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(4, 0).saturating_mul(n.into()))
    }

    fn reveal_verdicts(n: u32) -> Weight {
        Weight::from_parts(136924000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(6, 0))
            .saturating_add(Weight::from_parts(50958314, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(8, 6).saturating_mul(n.into()))
    }

    fn submit_failing(n: u32) -> Weight {
        Weight::from_parts(106108000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(8, 2))
            .saturating_add(Weight::from_parts(34891544, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 4).saturating_mul(n.into()))
    }

    fn submit_profiles(p: u32) -> Weight {
        Weight::from_parts(5382263198, 0)
            .saturating_add(T::DbWeight::get().reads_writes(1283, 512))
            .saturating_add(Weight::from_parts(24359712, 0).saturating_mul(p.into()))
            .saturating_add(T::DbWeight::get().reads_writes(2, 0).saturating_mul(p.into()))
    }

    fn submit_refused(n: u32) -> Weight {
        Weight::from_parts(59857854, 0)
            .saturating_add(T::DbWeight::get().reads_writes(6, 0))
            .saturating_add(Weight::from_parts(20067529, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(3, 0).saturating_mul(n.into()))
    }

    fn submit_verdicts(n: u32) -> Weight {
        Weight::from_parts(89323000, 0)
            .saturating_add(T::DbWeight::get().reads_writes(5, 0))
            .saturating_add(Weight::from_parts(26171220, 0).saturating_mul(n.into()))
            .saturating_add(T::DbWeight::get().reads_writes(5, 4).saturating_mul(n.into()))
    }
}
