//! What calls and hooks cost: explicit estimates of computation plus database accesses.

use crate::Config;
use frame_support::{traits::Get, weights::Weight};

/// Judging, counting, two events.
const VERDICT_REF_TIME: u64 = 20_000_000;

/// `submit_verdicts`: clock, host, profiles and weights once; record, verdict, votes and dispute of each item are read,
/// verdict, votes, record and the verifier's running product (of two epochs) written, and for the few that open or decide a
/// dispute, or accuse, also dispute, queue, accusers, host, reputation, conviction and the refund's accounts.
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

/// Signature check and replay of one window, 32 tokens of 20 candidates: 0.43 ms in WASM on a shared core of the class that
/// the runtime's example `fraud` was run on; more than twice that.
const JUDGE_REF_TIME: u64 = 1_000_000_000;

/// `prove_fraud`: judged twice, because what is free of fees must be known before; then the settlement and what the
/// deposit takes.
pub fn prove_fraud<T: Config>() -> Weight {
    Weight::from_parts(JUDGE_REF_TIME, 0)
        .saturating_mul(2)
        .saturating_add(T::DbWeight::get().reads_writes(12, 3))
        .saturating_add(settlement::<T>())
}

/// Opening or closing one dispute.
pub fn settlement<T: Config>() -> Weight {
    Weight::from_parts(60_000_000, 0).saturating_add(T::DbWeight::get().reads_writes(10, 12))
}

/// Looking for disputes that are out of time.
pub fn dispute_check<T: Config>() -> Weight {
    Weight::from_parts(5_000_000, 0).saturating_add(T::DbWeight::get().reads(6))
}

/// Looking for something to prune.
pub fn prune_check<T: Config>() -> Weight {
    Weight::from_parts(10_000_000, 0).saturating_add(T::DbWeight::get().reads_writes(3, 1))
}

/// Removing one entry.
pub fn prune_step<T: Config>() -> Weight {
    Weight::from_parts(2_000_000, 0).saturating_add(T::DbWeight::get().reads_writes(1, 1))
}
