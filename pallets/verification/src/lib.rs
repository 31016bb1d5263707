//! # Verification pallet
//!
//! Verdicts, coverage, plants, refunds of bad answers, and reputation.
//!
//! ## Overview
//!
//! Hosts check each other's transcripts. Which ones a host *must* check follows from three rules:
//!
//! 1. *Drawn.* By its duty secret (a VRF output that nobody else knows before it claims), with a probability that
//!    falls with the executor's reputation.
//! 2. *Coverage.* Draws leave gaps. When a coverage window closes, each inference of a host below full trust that has
//!    no verdict yet is assigned, by the window's seed, to exactly one verifier.
//! 3. *On a panel.* Once a verdict lies beyond the limits, a random jury must look.
//!
//! The same pure functions ([`starling_math::duty`], [`starling_math::draw`]) tell the host's agent what to do and the
//! chain what to ask for when the host claims its reward.
//!
//! A verdict that fails (beyond the profile's limits, a transcript that does not replay, or one that is not to be had)
//! opens a dispute. The next
//! coverage boundary's seed, which nobody knew when the verdict was given, draws a *panel*: distinct hosts by weight, without
//! executor and accuser. Its members check the transcript, *commit* themselves to their verdicts, and *reveal* them when
//! nobody can commit any more, so that none can be copied. More than half of the panel's weight decides. If the answer falls,
//! the client is refunded; if more than half says that the transcript itself is bad, the executor is convicted: reputation
//! 0, suspended, the epoch's due lost. An answer whose transcript more than half cannot get falls, too, but convicts nobody:
//! it is a miss, and the executor has not answered. Silence is no vote: it is a
//! miss of the silent one, and a duty that its claim asks for. Without a majority a second, larger panel is drawn; if that
//! has none either, the answer stands.
//!
//! A lie that needs no model to be seen needs no vote: [`Call::prove_fraud`] shows the executor's signed receipt beside
//! what it put on chain, or beside a window that it commits to and that does not replay. The chain judges for itself.
//!
//! What no single verdict shows is left to a sequential test: every verdict within the limits is a bet against the
//! executor's honesty, and each verifier keeps the running product of its own ([`starling_math::evidence`]). One that
//! crosses the test's limit *accuses*. An accused host's reputation counts as 0 from the next epoch on; with a third of
//! the weight against it, it gets no new work; with half, it is convicted.
//!
//! Verifiers that approve without looking are told apart by *plants*: answers that are bad on purpose. Their executor commits itself
//! before the request is recorded, and reveals the plant with the consent of whoever asked, when others have judged it. Who
//! approved it may contest that it was bad, before a panel; otherwise it is negligent: reputation 0, and no due of the
//! running epoch. A plant that the panel finds good convicts its planter.
//!
//! ## Low-level details
//!
//! * Weights are those of the inference's epoch and profile, without the executor's.
//! * A panel's stages are counted in coverage boundaries ([`starling_math::panel`]), so that they follow the epoch's
//!   schedule. When all members have committed, the reveal begins at once. A dispute without surprises is over within five
//!   coverage windows.
//! * What time asks for (draw a panel, close it) stands in the [`Agenda`]; a block works off a bounded part of it.
//! * [`PanelTallies`] sums a panel's votes as they come, so a reveal costs the same whether or not it decides.
//! * `Unavailable` speaks against the answer, since an executor must not gain by hiding the evidence; but hiding alone
//!   convicts nobody. Whether a transcript is to be had, a panel says and nobody else, because what one verifier cannot get
//!   another one may: the panel's members ask for themselves.
//! * The verdicts of other verifiers open disputes and feed the sequential test; they do not vote. While a panel judges they
//!   are refused, because its members could copy them. A member's reveal is its verdict, too.
//! * `Unavailable` can be replaced once by a measured verdict, so a host that was down can still be heard: by the members of
//!   the panel while it judges, by everybody afterwards.
//! * Verdicts are taken until the epoch after the inference's ends, so that a host can catch up before it claims. So are
//!   panels' votes: a dispute that is still open then ends in the executor's favour.
//! * Where nobody remains to sit on a panel, nobody contradicts the executor: the answer stands.
//! * An accuser whom a panel contradicts loses no reputation: the executor may have served it other bytes than the panel. But it is
//!   heard less ([`starling_math::complaint`]), so that liars cannot make panels work without end.
//! * A revealed plant is a dispute of its own, with panels of its own rounds ([`starling_math::plant`]); it ends any other one about
//!   the answer. Its approvers are looked for once, when it is revealed, and answer for it when the agenda comes to it.
//! * The last windows of an epoch close at the first two boundaries of the next one, within its grace.
//!
//! ## Limitations
//!
//! * Nothing forces a host to plant, and whoever keeps its verdicts back until the last plants are revealed is not tested.
//! * The accuser's verdict is known to its panel. A member that copies it without looking is right as long as accusers are.
//! * A receipt is checked against the executor's present worker key: who replaced it can be convicted by votes only.
//! * One window shows what it holds; a chain of hashes that breaks after the first window, an answer of several windows
//!   that is not the transcript's, and a window longer than any valid one are left to the votes.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
pub mod cost;
mod court;
mod coverage;
mod disputes;
mod duties;
mod fraud;
mod hooks;
#[cfg(any(test, feature = "invariants"))]
mod invariants;
#[cfg(test)]
mod mock;
mod panels;
mod plants;
mod reputation;
mod suspicion;
#[cfg(test)]
mod tests;
pub mod types;
mod verdicts;
pub mod weights;

pub use pallet::*;
pub use types::{
    Accuser, Boundary, Conviction, CoverageMark, CoverageState, Dispute, DisputeStatus, Member, Panel,
    PanelTally, Plant, Refusal, Seat, VerdictRecord,
};
pub use weights::WeightInfo;

/// The pallet.
#[allow(clippy::borrowed_box, reason = "a fee rule takes the arguments as the call does")]
#[frame_support::pallet]
pub mod pallet {
    use crate::{
        cost::{self, Shape},
        types::{
            Accuser, Accusers, Approvers, Boundary, CommitBatch, Conviction, CoverageMark, CoverageState,
            Dispute, Panel, PanelTally, Plant, Refusal, RevealBatch, Seat, VerdictBatch, VerdictRecord,
            MAX_ACCUSERS,
        },
        WeightInfo,
    };
    use alloc::boxed::Box;
    use frame_support::{pallet_prelude::*, traits::fungible};
    use frame_system::pallet_prelude::*;
    use starling_math::{
        complaint::{Complaints, Ground},
        evidence::Standing,
    };
    use starling_primitives::{
        fraud::{Fraud, FraudProof, NoProof},
        plant::Consent,
        traits::{Beacon, Bonds, Clock, Hosts, Inferences, Profiles, Weights},
        verdict::PanelRound,
        AccountId, Balance, EpochIndex, InferenceId, Ppm, ProfileId, H256,
    };

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the pallet needs of the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId, Hash = H256> {
        /// What accounts lose by a false fraud proof.
        type Currency: fungible::Inspect<AccountId, Balance = Balance> + fungible::Mutate<AccountId>;
        /// What hosts lose by one.
        type Bonds: Bonds;
        /// The epoch clock.
        type Clock: Clock;
        /// Seeds of the coverage windows.
        type Beacon: Beacon;
        /// The registry of hosts.
        type Hosts: Hosts;
        /// The registry of profiles.
        type Profiles: Profiles;
        /// Weights of the epochs.
        type Weights: Weights;
        /// The records that verdicts are about.
        type Inferences: Inferences;
        /// Burned of who sends a fraud proof that proves nothing.
        #[pallet::constant]
        type FraudDeposit: Get<Balance>;
        /// Hosts on the first panel of a dispute, if there are as many; at most [`crate::types::MAX_PANEL`].
        #[pallet::constant]
        type FirstPanel: Get<u32>;
        /// Hosts on the second panel, if there are as many; at most [`crate::types::MAX_PANEL`].
        #[pallet::constant]
        type SecondPanel: Get<u32>;
        /// Seats of panels that a block draws or closes at most, and approvers of plants that it finds negligent; each dispute
        /// counts as some seats more. The last panel of a
        /// block may go beyond, by less than its own size.
        #[pallet::constant]
        type MaxSeatsPerBlock: Get<u32>;
        /// Entries that a block prunes at most.
        #[pallet::constant]
        type MaxPrunedPerBlock: Get<u32>;
        /// What calls and hooks cost.
        type WeightInfo: WeightInfo;
    }

    /// The verdicts, by epoch, then inference and verifier.
    ///
    /// Hashers: epochs are counted by the chain; verifiers choose their accounts.
    #[pallet::storage]
    pub type Verdicts<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, (u32, AccountId), VerdictRecord>;

    /// The disputes, open and settled.
    ///
    /// Hashers: both keys are counted by the chain.
    #[pallet::storage]
    pub type Disputes<T: Config> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Twox64Concat, u32, Dispute>;

    /// How many disputes of an epoch are open; absent when none is.
    ///
    /// Hasher: epochs are counted by the chain.
    #[pallet::storage]
    pub type OpenDisputes<T: Config> = StorageMap<_, Twox64Concat, EpochIndex, u32, ValueQuery>;

    /// What came of the disputes that a host's verdicts opened, by epoch, then host and ground.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type ComplaintsOf<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        EpochIndex,
        Blake2_128Concat,
        (AccountId, Ground),
        Complaints,
        ValueQuery,
    >;

    /// The panels of disputes, by epoch, then inference and round.
    ///
    /// Hashers: all keys are counted by the chain.
    #[pallet::storage]
    pub type Panels<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Twox64Concat, (u32, PanelRound), Panel>;

    /// What the panels have come to, by epoch, then inference and round.
    ///
    /// Hashers: all keys are counted by the chain.
    #[pallet::storage]
    pub type PanelTallies<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        EpochIndex,
        Twox64Concat,
        (u32, PanelRound),
        PanelTally,
        ValueQuery,
    >;

    /// What members of panels have said, by epoch, then inference, round and host.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type Seats<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, (u32, PanelRound, AccountId), Seat>;

    /// The newest boundary of a coverage window.
    #[pallet::storage]
    pub type LastBoundary<T: Config> = StorageValue<_, Boundary, ValueQuery>;

    /// The disputes for which something is to be done at a boundary: a panel to be drawn, or one that is over.
    ///
    /// Hashers: all keys are counted by the chain.
    #[pallet::storage]
    pub type Agenda<T: Config> = StorageDoubleMap<_, Twox64Concat, u32, Twox64Concat, InferenceId, ()>;

    /// Nothing is left on the agenda of earlier boundaries.
    #[pallet::storage]
    pub type AgendaFrom<T: Config> = StorageValue<_, u32, ValueQuery>;

    /// The closed coverage windows of an epoch, numbered from 1. Windows without inferences are left out.
    ///
    /// Hashers: both keys are counted by the chain.
    #[pallet::storage]
    pub type CoverageMarks<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Twox64Concat, u32, CoverageMark>;

    /// How far the coverage of an epoch is.
    ///
    /// Hasher: epochs are counted by the chain.
    #[pallet::storage]
    pub type Coverage<T: Config> = StorageMap<_, Twox64Concat, EpochIndex, CoverageState, ValueQuery>;

    /// Reputation of hosts in ppm; 0 when absent.
    ///
    /// Hasher: hosts choose their accounts.
    #[pallet::storage]
    pub type Reputations<T: Config> = StorageMap<_, Blake2_128Concat, AccountId, Ppm, ValueQuery>;

    /// Misses of a host in an epoch, which is then not a clean one.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type Missed<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, u32, ValueQuery>;

    /// Hosts convicted of fraud in an epoch.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type Convictions<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Conviction>;

    /// Running product of a verifier's test on an executor, by epoch, then executor, profile and verifier: log2 in 1/256
    /// bit, never 0.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type Doubts<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        EpochIndex,
        Blake2_128Concat,
        (AccountId, ProfileId, AccountId),
        u32,
        ValueQuery,
    >;

    /// Verifiers whose test accuses an executor, by epoch, then executor and profile.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type Accusations<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        EpochIndex,
        Blake2_128Concat,
        (AccountId, ProfileId),
        Accusers,
        ValueQuery,
    >;

    /// What the accusations of an epoch came to for a host, at worst.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type Standings<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Standing>;

    /// The plants of an epoch, by host: at most one each.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type Plants<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Plant>;

    /// Who approved a revealed plant, while it is open what comes of that.
    ///
    /// Hashers: both keys are counted by the chain.
    #[pallet::storage]
    pub type ApproversOf<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Twox64Concat, u32, Approvers, ValueQuery>;

    /// Hosts that were found negligent in an epoch, and by which plant.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type Negligences<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, InferenceId>;

    /// Everything of earlier epochs is pruned.
    #[pallet::storage]
    pub type PrunedBefore<T: Config> = StorageValue<_, EpochIndex, ValueQuery>;

    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A verdict was taken.
        VerdictSubmitted {
            /// What was checked.
            id: InferenceId,
            /// By whom.
            verifier: AccountId,
            /// Whether it lies within the limits.
            passed: bool,
        },
        /// A verdict, or the commitment to one, was not taken. Nothing was stored for it.
        VerdictRefused {
            /// What it was about.
            id: InferenceId,
            /// Why.
            reason: Refusal,
        },
        /// A verdict failed: a panel will judge.
        DisputeOpened {
            /// The inference.
            id: InferenceId,
            /// The verifier that failed it.
            accuser: AccountId,
        },
        /// A panel was drawn; [`Panels`] names its members, who have to look.
        PanelDrawn {
            /// The inference.
            id: InferenceId,
            /// Which of its panels.
            round: PanelRound,
            /// How many hosts sit on it.
            size: u32,
        },
        /// A member of a panel committed itself to a verdict.
        VerdictCommitted {
            /// The inference.
            id: InferenceId,
            /// Which of its panels.
            round: PanelRound,
            /// The member.
            host: AccountId,
        },
        /// A member of a panel revealed its verdict.
        VerdictRevealed {
            /// The inference.
            id: InferenceId,
            /// Which of its panels.
            round: PanelRound,
            /// The member.
            host: AccountId,
            /// Whether it lies within the limits.
            passed: bool,
        },
        /// A dispute is over.
        DisputeSettled {
            /// The inference.
            id: InferenceId,
            /// Whether the answer stands.
            valid: bool,
            /// Whether a majority decided it, rather than the lack of one.
            decided: bool,
        },
        /// A host lost an epoch's due and all reputation by fraud.
        Convicted {
            /// The host.
            host: AccountId,
            /// The epoch.
            epoch: EpochIndex,
            /// The inference that proved it.
            id: InferenceId,
        },
        /// An executor lied: its answer falls without a vote.
        FraudProven {
            /// The inference.
            id: InferenceId,
            /// Who showed it.
            accuser: Accuser,
            /// What the executor did.
            fraud: Fraud,
        },
        /// A fraud proof proves nothing.
        FraudUnproven {
            /// The inference.
            id: InferenceId,
            /// Who sent it.
            accuser: Accuser,
            /// Why it proves nothing.
            reason: NoProof,
            /// What that cost.
            burned: Balance,
        },
        /// A verifier's test crossed its limit: many of its verdicts on a host come too close to the limits.
        Accused {
            /// The host.
            host: AccountId,
            /// The profile it runs.
            profile: ProfileId,
            /// The verifier.
            verifier: AccountId,
            /// What all accusations come to.
            standing: Standing,
        },
        /// A host's reputation changed.
        ReputationChanged {
            /// The host.
            host: AccountId,
            /// Its reputation now, in ppm.
            reputation: Ppm,
        },
        /// A coverage window closed: its inferences without a verdict are assigned by the seed
        /// `Round::Coverage(seed_epoch, seed_window)`.
        CoverageClosed {
            /// Epoch of the inferences.
            epoch: EpochIndex,
            /// Number of the window in that epoch.
            window: u32,
            /// Its inferences and seed.
            mark: CoverageMark,
        },
        /// A host committed itself to what may be a plant.
        PlantCommitted {
            /// The host.
            host: AccountId,
            /// The epoch.
            epoch: EpochIndex,
        },
        /// An answer was a plant.
        PlantRevealed {
            /// The inference.
            id: InferenceId,
            /// Its executor.
            planter: AccountId,
            /// How many verifiers approved it: they may contest that it was bad.
            approvers: u32,
        },
        /// Somebody who approved a plant says that it was a good answer: a panel will judge.
        PlantContested {
            /// The inference.
            id: InferenceId,
            /// Who approved it.
            contester: AccountId,
        },
        /// A host approved a plant: it lost the epoch's due and all reputation.
        Negligent {
            /// The host.
            host: AccountId,
            /// The epoch that it has no due of.
            epoch: EpochIndex,
            /// The plant.
            id: InferenceId,
        },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// The signer is not the worker key of a registered host.
        NotAWorker,
        /// The epoch lies ahead, or nothing of it can fall any more.
        EpochClosed,
        /// No such inference.
        UnknownInference,
        /// The answer has fallen already.
        AlreadyFallen,
        /// The receipt names another request, executor, epoch or seed than the chain.
        OtherReceipt,
        /// The receipt names a key that is not the executor's worker key.
        OtherKey,
        /// The profile is not registered.
        UnknownProfile,
        /// The signer (or its host's bond) could not pay for a false proof.
        DepositNotCovered,
        /// The host has no weight in this epoch.
        NoWeight,
        /// The host committed itself in this epoch before.
        AlreadyCommitted,
        /// The host did not commit itself in that epoch.
        NotCommitted,
        /// The host's plant of that epoch is revealed.
        AlreadyRevealed,
        /// Another host answered.
        OtherExecutor,
        /// The answer is not on chain in time.
        NotFinished,
        /// A panel, or the lack of one, let the answer stand.
        AlreadyJudged,
        /// Request and salt are not what the host committed itself to.
        OtherCommitment,
        /// The request was recorded before the commitment, or in the same block.
        CommittedTooLate,
        /// Whoever asked did not agree to a bad answer.
        NoConsent,
        /// It is no plant, or nobody can contest it any more.
        NotContestable,
        /// The host did not approve this plant.
        NotAnApprover,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
            Self::work_off_agenda()
        }

        fn on_idle(_now: BlockNumberFor<T>, remaining: Weight) -> Weight {
            Self::prune(remaining)
        }

        #[cfg(feature = "try-runtime")]
        fn try_state(_now: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Submits verdicts on other hosts' inferences.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a registered host; free of fees for it when one of the items at least is taken.
        ///
        /// ## Details
        /// An item that cannot be taken does not fail the batch.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`].
        ///
        /// ## Events
        /// For each item [`Event::VerdictSubmitted`] or [`Event::VerdictRefused`]; and what a verdict comes to:
        /// [`Event::DisputeOpened`], [`Event::Accused`], [`Event::Convicted`], [`Event::ReputationChanged`].
        #[pallet::call_index(0)]
        #[pallet::weight(cost::submit_verdicts::<T>(Shape::worst(items.len() as u32)))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, items: &VerdictBatch| -> bool {
            Pallet::<T>::ensure_worker(origin.clone()).is_ok_and(|host| Pallet::<T>::may_submit(&host, items))
        })]
        pub fn submit_verdicts(origin: OriginFor<T>, items: VerdictBatch) -> DispatchResultWithPostInfo {
            let host = Self::ensure_worker(origin)?;
            let shape = Self::do_submit(&host, &items);
            Ok(Some(cost::submit_verdicts::<T>(shape)).into())
        }

        /// Shows that an executor lied. The chain judges the proof itself.
        ///
        /// ## Dispatch Origin
        /// Signed by anyone. Free of fees for the worker key of a registered host whose proof holds.
        ///
        /// ## Details
        /// A proof that holds takes the answer back, whatever was voted: the client is refunded, the executor convicted.
        /// One that proves nothing burns `FraudDeposit` of the sender; of its host's bond, when a worker sent it. What
        /// the chain sees at a glance fails the call and costs its fee only.
        ///
        /// ## Errors
        /// [`Error::EpochClosed`], [`Error::UnknownInference`], [`Error::AlreadyFallen`], [`Error::OtherReceipt`],
        /// [`Error::OtherKey`], [`Error::UnknownProfile`], [`Error::DepositNotCovered`].
        ///
        /// ## Events
        /// [`Event::FraudProven`], [`Event::ReputationChanged`], [`Event::Convicted`]; or [`Event::FraudUnproven`].
        #[pallet::call_index(1)]
        #[pallet::weight(cost::prove_fraud::<T>())]
        #[pallet::feeless_if(|origin: &OriginFor<T>, proof: &Box<FraudProof>| -> bool {
            Pallet::<T>::is_true_proof(origin, proof)
        })]
        pub fn prove_fraud(origin: OriginFor<T>, proof: Box<FraudProof>) -> DispatchResult {
            Self::do_prove_fraud(origin, &proof)
        }

        /// Commits members of panels to their verdicts.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a registered host; free of fees for it when one of the items at least is taken.
        ///
        /// ## Details
        /// Commitments are taken until the panel's time for them is over or all its members have committed; one for each
        /// member, and for good. An item that cannot be taken does not fail the batch.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`].
        ///
        /// ## Events
        /// For each item [`Event::VerdictCommitted`] or [`Event::VerdictRefused`].
        #[pallet::call_index(2)]
        #[pallet::weight(cost::commit_verdicts::<T>(items.len() as u32))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, items: &CommitBatch| -> bool {
            Pallet::<T>::ensure_worker(origin.clone()).is_ok_and(|host| Pallet::<T>::may_commit(&host, items))
        })]
        pub fn commit_verdicts(origin: OriginFor<T>, items: CommitBatch) -> DispatchResult {
            let host = Self::ensure_worker(origin)?;
            Self::do_commit(&host, &items);
            Ok(())
        }

        /// Reveals the verdicts that members of panels committed themselves to.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a registered host; free of fees for it when one of the items at least is taken.
        ///
        /// ## Details
        /// Taken when nobody can commit any more, and until the panel is over. A reveal is judged as a verdict is, and is its
        /// host's verdict on the inference unless there is one. An item that cannot be taken does not fail the batch.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`].
        ///
        /// ## Events
        /// For each item [`Event::VerdictRevealed`] and, if it is the host's first verdict, [`Event::VerdictSubmitted`]; or
        /// [`Event::VerdictRefused`]. And what it decides: [`Event::DisputeSettled`], [`Event::Convicted`],
        /// [`Event::Accused`], [`Event::ReputationChanged`].
        #[pallet::call_index(3)]
        #[pallet::weight(cost::reveal_verdicts::<T>(Shape::worst(items.len() as u32)))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, items: &RevealBatch| -> bool {
            Pallet::<T>::ensure_worker(origin.clone()).is_ok_and(|host| Pallet::<T>::may_reveal(&host, items))
        })]
        pub fn reveal_verdicts(origin: OriginFor<T>, items: RevealBatch) -> DispatchResultWithPostInfo {
            let host = Self::ensure_worker(origin)?;
            let shape = Self::do_reveal(&host, &items);
            Ok(Some(cost::reveal_verdicts::<T>(shape)).into())
        }

        /// Commits a host to a plant of this epoch, or to nothing: nobody sees the difference.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a host with weight; free of fees for it when it succeeds.
        ///
        /// ## Details
        /// Once an epoch. `commitment` is [`starling_primitives::plant::commitment`] of a request that is not recorded yet.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`], [`Error::AlreadyCommitted`], [`Error::NoWeight`].
        ///
        /// ## Events
        /// [`Event::PlantCommitted`].
        #[pallet::call_index(4)]
        #[pallet::weight(T::WeightInfo::commit_plant())]
        #[pallet::feeless_if(|origin: &OriginFor<T>, _commitment: &H256| -> bool {
            Pallet::<T>::check_commit_plant(origin.clone()).is_ok()
        })]
        pub fn commit_plant(origin: OriginFor<T>, commitment: H256) -> DispatchResult {
            let (epoch, host) = Self::check_commit_plant(origin)?;
            Self::do_commit_plant(epoch, host, commitment);
            Ok(())
        }

        /// Reveals that an answer was a plant.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of the host that answered; free of fees for it when it succeeds.
        ///
        /// ## Details
        /// As long as verdicts on the epoch are taken, and no panel has let the answer stand. The answer falls, which nobody
        /// holds against its executor: the client is refunded, an open dispute is over, no more verdicts are taken or asked for.
        /// Who approved the answer may contest it for two whole coverage windows, and is negligent otherwise.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`], [`Error::EpochClosed`], [`Error::NotCommitted`], [`Error::AlreadyRevealed`],
        /// [`Error::UnknownInference`], [`Error::OtherExecutor`], [`Error::NotFinished`], [`Error::AlreadyJudged`],
        /// [`Error::AlreadyFallen`], [`Error::OtherCommitment`], [`Error::CommittedTooLate`], [`Error::NoConsent`].
        ///
        /// ## Events
        /// [`Event::PlantRevealed`]; later [`Event::DisputeSettled`], [`Event::Negligent`], [`Event::ReputationChanged`].
        #[pallet::call_index(5)]
        #[pallet::weight(cost::reveal_plant::<T>(MAX_ACCUSERS))]
        #[pallet::feeless_if(
            |origin: &OriginFor<T>, inference: &InferenceId, salt: &H256, consent: &Consent| -> bool {
                Pallet::<T>::check_reveal_plant(origin.clone(), *inference, *salt, consent).is_ok()
            }
        )]
        pub fn reveal_plant(
            origin: OriginFor<T>,
            inference: InferenceId,
            salt: H256,
            consent: Consent,
        ) -> DispatchResultWithPostInfo {
            let revealable = Self::check_reveal_plant(origin, inference, salt, &consent)?;
            let hosts = Self::do_reveal_plant(inference, revealable);
            Ok(Some(cost::reveal_plant::<T>(hosts)).into())
        }

        /// Says that a plant was a good answer after all: a panel judges.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a host that approved it; free of fees for it when it succeeds.
        ///
        /// ## Details
        /// Once, by the first of the approvers, for all of them. The panel is drawn, and decides, as for any dispute; neither the
        /// executor nor who approved the answer sits on it. More than half of its weight within the limits convicts the executor,
        /// beyond them makes the approvers negligent. A transcript that is not to be had is a miss of the executor. No majority:
        /// nothing happens to anybody.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`], [`Error::NotContestable`], [`Error::NotAnApprover`].
        ///
        /// ## Events
        /// [`Event::PlantContested`]; later what a dispute comes to, and [`Event::Negligent`].
        #[pallet::call_index(6)]
        #[pallet::weight(T::WeightInfo::contest_plant())]
        #[pallet::feeless_if(|origin: &OriginFor<T>, inference: &InferenceId| -> bool {
            Pallet::<T>::check_contest_plant(origin.clone(), *inference).is_ok()
        })]
        pub fn contest_plant(origin: OriginFor<T>, inference: InferenceId) -> DispatchResult {
            let (contester, dispute) = Self::check_contest_plant(origin, inference)?;
            Self::do_contest_plant(inference, contester, dispute);
            Ok(())
        }
    }
}
