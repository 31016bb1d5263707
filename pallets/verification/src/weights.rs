//! What calls and hooks cost: explicit estimates of computation plus database accesses.

use crate::Config;
use frame_support::{traits::Get, weights::Weight};

/// Judging, counting, two events.
const VERDICT_REF_TIME: u64 = 20_000_000;

/// `submit_verdicts`: clock, host, profiles and weights once; record, verdict and dispute of each item are read, verdict,
/// record and the verifier's running product (of two epochs) written, and for the few that open a dispute, or accuse, also
/// dispute, agenda, accusers, host, reputation and conviction.
pub fn submit_verdicts<T: Config>(taken: u32, refused: u32, disputes: u32) -> Weight {
    let db = T::DbWeight::get();
    Weight::from_parts(40_000_000, 0)
        .saturating_add(db.reads(8))
        .saturating_add(
            Weight::from_parts(VERDICT_REF_TIME, 0).saturating_mul(taken.saturating_add(refused).into()),
        )
        .saturating_add(db.reads_writes(6, 5).saturating_mul(taken.into()))
        .saturating_add(db.reads(4).saturating_mul(refused.into()))
        .saturating_add(settlement::<T>().saturating_mul(disputes.into()))
}

/// `commit_verdicts`: panel, tally and seat of each item; looked at by the fee rule, too.
pub fn commit_verdicts<T: Config>(items: u32) -> Weight {
    let db = T::DbWeight::get();
    Weight::from_parts(40_000_000, 0).saturating_add(db.reads(8)).saturating_add(
        Weight::from_parts(VERDICT_REF_TIME, 0)
            .saturating_add(db.reads_writes(6, 2))
            .saturating_mul(items.into()),
    )
}

/// `reveal_verdicts`: as a verdict, with panel, tally and seat, twice for the fee rule; and the settlements.
pub fn reveal_verdicts<T: Config>(items: u32, disputes: u32) -> Weight {
    submit_verdicts::<T>(items, 0, disputes)
        .saturating_add(commit_verdicts::<T>(items))
        .saturating_add(T::DbWeight::get().reads(4).saturating_mul(items.into()))
}

/// Signature check and replay of one window, 32 tokens of 20 candidates: 0.43 ms in WASM on a shared core of the class that
/// the runtime's example `fraud` was run on; more than twice that.
const JUDGE_REF_TIME: u64 = 1_000_000_000;

/// `prove_fraud`: judged twice, because what is free of fees must be known before; then the settlement, the panel that is
/// dissolved, and what the deposit takes.
pub fn prove_fraud<T: Config>() -> Weight {
    Weight::from_parts(JUDGE_REF_TIME, 0)
        .saturating_mul(2)
        .saturating_add(T::DbWeight::get().reads_writes(13, 7))
        .saturating_add(settlement::<T>())
}

/// Opening or closing one dispute.
pub fn settlement<T: Config>() -> Weight {
    Weight::from_parts(60_000_000, 0).saturating_add(T::DbWeight::get().reads_writes(10, 12))
}

/// Working off the agenda: each dispute's step (a panel is drawn, or over; at worst it is settled), and each seat of its
/// panel, which is drawn (the host's key, its place in the draw) or found silent (its reputation).
pub fn agenda<T: Config>(disputes: u32, seats: u32) -> Weight {
    let db = T::DbWeight::get();
    let seat = Weight::from_parts(30_000_000, 0).saturating_add(db.reads_writes(4, 2));
    Weight::from_parts(10_000_000, 0)
        .saturating_add(db.reads_writes(3, 1))
        .saturating_add(settlement::<T>().saturating_mul(disputes.into()))
        .saturating_add(seat.saturating_mul(seats.into()))
}

/// Looking for something to prune.
pub fn prune_check<T: Config>() -> Weight {
    Weight::from_parts(10_000_000, 0).saturating_add(T::DbWeight::get().reads_writes(3, 1))
}

/// Removing one entry.
pub fn prune_step<T: Config>() -> Weight {
    Weight::from_parts(2_000_000, 0).saturating_add(T::DbWeight::get().reads_writes(1, 1))
}
