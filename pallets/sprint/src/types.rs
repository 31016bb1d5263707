//! What the sprint stores.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use scale_info::TypeInfo;
use starling_primitives::{sprint::SprintVerdict, AccountId, ProfileId, Work};

/// Verdicts of one call at most.
pub const MAX_VERDICTS_PER_CALL: u32 = 64;

/// Verdicts of one verifier about commitments of one profile, by prover.
pub type VerdictBatch = BoundedVec<(AccountId, SprintVerdict), ConstU32<MAX_VERDICTS_PER_CALL>>;

/// Who committed, with what.
pub type CommitmentKey = (ProfileId, AccountId);

/// A host that gave a verdict. What it said lies here, so that an election reads one entry for each commitment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Voter {
    /// The verifier.
    pub verifier: AccountId,
    /// Its voting weight.
    pub weight: Work,
    /// Its score for this commitment ([`starling_math::draw::sprint_score`]).
    pub score: i64,
    /// Its verdict.
    pub verdict: SprintVerdict,
}

/// Why a verdict of a batch is not taken.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum Refusal {
    /// A host does not judge itself.
    OneselfJudged,
    /// The prover has not committed for this profile.
    NoCommitment,
    /// The verifier has voted on this commitment.
    AlreadyVoted,
    /// `checked` is 0 or more than the samples of the commitment, or `failed` is more than `checked`.
    CountsOutOfRange,
    /// As many verifiers as one commitment can have gave a verdict before, and the draw prefers all of them.
    TooManyVoters,
}
