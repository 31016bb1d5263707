//! What the pallet stores, and why it refuses.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use scale_info::TypeInfo;
use starling_math::{
    dispute::Votes,
    panel::{self, Stage},
    plant::FIRST_ROUND,
};
use starling_primitives::{
    verdict::{Outcome, PanelCommit, PanelReveal, PanelRound, Verdict},
    AccountId, BlockNumber, EpochIndex, Ppm, Work, H256, PPM,
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

impl VerdictRecord {
    /// Whether a verifier that said this may still say that.
    pub(crate) fn is_replaced_by(&self, outcome: &Outcome) -> bool {
        self.outcome == Outcome::Unavailable && *outcome != Outcome::Unavailable
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

/// Hosts on a panel at most, whatever the runtime asks for.
pub const MAX_PANEL: u32 = 512;

/// Argument of `commit_verdicts`.
pub type CommitBatch = BoundedVec<PanelCommit, ConstU32<MAX_VERDICTS>>;

/// Argument of `reveal_verdicts`.
pub type RevealBatch = BoundedVec<PanelReveal, ConstU32<MAX_VERDICTS>>;

/// Where a dispute stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum DisputeStatus {
    /// A panel is drawn at the next coverage boundary.
    Waiting,
    /// The panel that was drawn last is at work.
    Judging,
    /// The answer stands: by majority, or because there was none in time.
    Valid,
    /// The answer does not stand.
    Invalid,
    /// The answer was a plant, which those who approved it may contest until the dispute is due.
    Planted,
}

impl DisputeStatus {
    /// Whether nothing is decided yet.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Judging | Self::Planted)
    }
}

/// A vote on an inference.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Dispute {
    /// Block of the verdict that opened it, or of the reveal of a plant or the contest of it.
    pub opened_at: BlockNumber,
    /// The verifier that failed the answer first, or contests that it was a plant; `None` when nobody did: a proof or a
    /// reveal made it fall.
    pub accuser: Option<AccountId>,
    /// Round of the next panel: the number of those drawn so far, from
    /// [`FIRST_ROUND`] on when it is about a plant.
    pub panels: PanelRound,
    /// Boundary at which something is to be done about it: a panel drawn, or the last one closed.
    pub due: u32,
    /// Where it stands.
    pub status: DisputeStatus,
}

impl Dispute {
    /// Whether the answer was revealed as a plant, and whatever was said of it before is over.
    pub fn is_about_plant(&self) -> bool {
        self.panels >= FIRST_ROUND
    }
}

/// A host's plant of an epoch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Plant {
    /// What it committed itself to.
    pub commitment: H256,
    /// Block of the commitment.
    pub committed_at: BlockNumber,
    /// Index of the inference, once it is revealed.
    pub revealed: Option<u32>,
}

/// Verifiers that approved a plant, sorted by account.
pub type Approvers = BoundedVec<AccountId, ConstU32<MAX_ACCUSERS>>;

/// The newest boundary of a coverage window, and its seed `Round::Coverage(epoch, window)`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Boundary {
    /// Boundaries so far.
    pub count: u32,
    /// Epoch of its seed.
    pub epoch: EpochIndex,
    /// Window of its seed.
    pub window: u32,
}

/// A host on a panel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Member {
    /// The host.
    pub host: AccountId,
    /// Its weight for the profile.
    pub weight: Work,
}

/// A jury of one dispute.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Panel {
    /// Boundaries that had passed when it was drawn, by the seed of the last of them.
    pub drawn: u32,
    /// Block of the draw, later than the accusation's.
    pub drawn_at: BlockNumber,
    /// Who sits on it, sorted by account; at least one host.
    pub members: BoundedVec<Member, ConstU32<MAX_PANEL>>,
}

impl Panel {
    /// The seat of a host.
    pub fn member(&self, host: &AccountId) -> Option<&Member> {
        let position = self.members.binary_search_by(|member| member.host.cmp(host)).ok()?;
        self.members.get(position)
    }

    /// Weight of all members.
    pub fn weight(&self) -> Work {
        self.members.iter().fold(0, |sum: Work, member| sum.saturating_add(member.weight))
    }

    /// What its members may do after `now` boundaries.
    pub fn stage(&self, now: u32, tally: &PanelTally) -> Stage {
        panel::stage(self.drawn, now, tally.committed >= self.members.len() as u32)
    }
}

/// What a panel has come to so far.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct PanelTally {
    /// Members that have committed themselves.
    pub committed: u32,
    /// The verdicts that were revealed.
    pub votes: Votes,
}

/// What a member of a panel has said.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Seat {
    /// What it committed itself to.
    pub commitment: H256,
    /// The verdict, once it is revealed.
    pub verdict: Option<VerdictRecord>,
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
    /// The verifier's verdict (or commitment) is on chain. Only `Unavailable` can be replaced, by a measured one.
    Duplicate,
    /// The figures do not belong to a transcript of this length.
    BadFigures,
    /// The profile is not registered.
    UnknownProfile,
    /// A panel judges the inference; verdicts are taken again when it has.
    Disputed,
    /// The verdict would open a dispute, and as many of the verifier's as it may have at once are open. It is taken when they are
    /// decided.
    NotHeardYet,
    /// The host does not sit on such a panel.
    NotOnPanel,
    /// The panel's time for this has not come, or is over.
    WrongStage,
    /// The host did not commit itself.
    NotCommitted,
    /// The host committed itself to something else.
    OtherCommitment,
    /// The inference was revealed as a plant: nobody has to look any more.
    Planted,
}
