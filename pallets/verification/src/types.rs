//! What the pallet stores, and why it refuses.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use scale_info::TypeInfo;
use starling_primitives::{
    verdict::{Outcome, Verdict},
    AccountId, BlockNumber, EpochIndex, Ppm, Work, PPM,
};

/// Verdicts that one call takes at most.
pub const MAX_VERDICTS: u32 = 256;
/// Reputation from which on a host's work needs no coverage: random duties suffice.
pub const TRUSTED: Ppm = PPM;

/// Argument of `submit_verdicts`.
pub type VerdictBatch = BoundedVec<Verdict, ConstU32<MAX_VERDICTS>>;

/// One verifier's verdict as stored.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct VerdictRecord {
    /// What came of the check.
    pub outcome: Outcome,
    /// Whether that lies within the profile's limits.
    pub passed: bool,
    /// Block of submission.
    pub at: BlockNumber,
}

/// Weight of the verdicts of one inference, by what they say.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Votes {
    /// Measured, and within the limits.
    pub passed: Work,
    /// Measured beyond the limits, or not replayable.
    pub failed: Work,
    /// Could not get the transcript.
    pub unavailable: Work,
    /// Whether the executor's miss was noted, because more than half could not get the transcript.
    pub missed: bool,
}

impl Votes {
    /// The sum that a verdict counts towards.
    fn side(&mut self, outcome: &Outcome, passed: bool) -> &mut Work {
        match outcome {
            Outcome::Unavailable => &mut self.unavailable,
            _ if passed => &mut self.passed,
            _ => &mut self.failed,
        }
    }

    /// With a verdict of this weight added.
    pub(crate) fn with(mut self, outcome: &Outcome, passed: bool, weight: Work) -> Self {
        let side = self.side(outcome, passed);
        *side = side.saturating_add(weight);
        self
    }

    /// With a verdict of this weight taken out.
    pub(crate) fn without(mut self, outcome: &Outcome, passed: bool, weight: Work) -> Self {
        let side = self.side(outcome, passed);
        *side = side.saturating_sub(weight);
        self
    }
}

/// A host's fall in an epoch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Conviction {
    /// Block of the first one: from here on nobody counts on the host.
    pub since: BlockNumber,
    /// Number of its answers of the epoch that fell.
    pub answers: u32,
}

/// Who says that an executor lied, and answers for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub enum Accuser {
    /// The host whose worker signed: its bond answers.
    Host(AccountId),
    /// Somebody else: what it has answers.
    Account(AccountId),
}

/// Hosts that can accuse one at most: all that can have weight.
pub const MAX_ACCUSERS: u32 = 1_024;

/// Verifiers that accuse an executor.
pub type Accusers = BoundedVec<AccountId, ConstU32<MAX_ACCUSERS>>;

/// Where a dispute stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum DisputeStatus {
    /// Votes are taken.
    Open,
    /// The answer stands: by majority, or because there was none in time.
    Valid,
    /// The answer does not stand.
    Invalid,
}

/// A vote on an inference.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Dispute {
    /// Block of the verdict that opened it.
    pub opened_at: BlockNumber,
    /// Opened after the grace: it ends with the claims, not with the grace.
    pub late: bool,
    /// Where it stands.
    pub status: DisputeStatus,
}

/// A closed coverage window: the inferences in it that had no verdict by then are assigned.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct CoverageMark {
    /// Index of its first inference.
    pub first: u32,
    /// Index after its last inference.
    pub end: u32,
    /// Block in which it closed. A verdict of this block comes too late to count as coverage.
    pub closed_at: BlockNumber,
    /// The seed `Round::Coverage(seed_epoch, seed_window)` assigns; it was drawn when the window closed. Its epoch is the
    /// window's own, or the next one for the last windows of an epoch.
    pub seed_epoch: EpochIndex,
    /// See [`Self::seed_epoch`].
    pub seed_window: u32,
}

/// How far the coverage of an epoch is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct CoverageState {
    /// Windows closed so far.
    pub windows: u32,
    /// Inferences in closed windows.
    pub closed: u32,
    /// Inferences recorded before the last boundary; the next window ends here.
    pub counted: u32,
}

/// Why a verdict was not taken.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum Refusal {
    /// The epoch lies ahead, or its claims are over.
    EpochClosed,
    /// No such inference.
    UnknownInference,
    /// The inference has no result to check.
    NotFinished,
    /// The verifier is the executor.
    OwnInference,
    /// The verifier has no weight for the profile in the inference's epoch.
    NotServing,
    /// The verifier's verdict is on chain. Only `Unavailable` can be replaced, by a measured one.
    Duplicate,
    /// The figures do not belong to a transcript of this length.
    BadFigures,
    /// The profile is not registered.
    UnknownProfile,
}
