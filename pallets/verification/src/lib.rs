//! # Verification pallet
//!
//! Verdicts, coverage, refunds of bad answers, and reputation.
//!
//! ## Overview
//!
//! Hosts check each other's transcripts. Which ones a host *must* check follows from three rules:
//!
//! 1. *Drawn.* By its duty secret (a VRF output that nobody else knows before it claims), with a probability that
//!    falls with the executor's reputation.
//! 2. *Coverage.* Draws leave gaps. When a coverage window closes, each inference of a host below full trust that has
//!    no verdict yet is assigned, by the window's seed, to exactly one verifier.
//! 3. *Disputed.* Once a verdict lies beyond the limits, everybody who serves the profile must look.
//!
//! The same pure functions ([`starling_math::duty`], [`starling_math::draw`]) tell the host's agent what to do and the
//! chain what to ask for when the host claims its reward.
//!
//! A verdict that fails (beyond the profile's limits, or a transcript that does not replay) opens a dispute. Every
//! verdict of a host with weight for the profile is a vote; more than half of the eligible weight decides. If the
//! answer falls, the client is refunded; if more than half says that the transcript itself is bad, the executor is
//! convicted: reputation 0, suspended, the epoch's due lost. A transcript that more than half cannot get is a miss.
//!
//! A lie that needs no model to be seen needs no vote: [`Call::prove_fraud`] shows the executor's signed receipt beside
//! what it put on chain, or beside a window that it commits to and that does not replay. The chain judges for itself.
//!
//! What no single verdict shows is left to a sequential test: every verdict within the limits is a bet against the
//! executor's honesty, and each verifier keeps the running product of its own ([`starling_math::evidence`]). One that
//! crosses the test's limit *accuses*. An accused host's reputation counts as 0 from the next epoch on; with a third of
//! the weight against it, it gets no new work; with half, it is convicted.
//!
//! ## Low-level details
//!
//! * Weights are those of the inference's epoch and profile, without the executor's.
//! * [`Tallies`] sums the votes as they come, so a verdict costs the same whether or not it decides.
//! * In an open dispute a vote `Unavailable` speaks against the answer, since an executor must not gain by hiding the
//!   evidence; but hiding alone convicts nobody. `Unavailable` can be replaced once by a measured verdict, so a host
//!   that was down can still be heard.
//! * Verdicts are taken until the epoch after the inference's ends, so that a host can catch up before it claims. A
//!   dispute without majority ends in the executor's favour: at the end of the grace, or with the claims if it was
//!   opened later.
//! * The last windows of an epoch close at the first two boundaries of the next one, within its grace.
//!
//! ## Limitations
//!
//! * Everybody who serves the profile is the jury. Panels drawn by the beacon take this place when hosts become many.
//! * A receipt is checked against the executor's present worker key: who replaced it can be convicted by votes only.
//! * One window shows what it holds; a chain of hashes that breaks after the first window, an answer of several windows
//!   that is not the transcript's, and a window longer than any valid one are left to the votes.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod coverage;
mod disputes;
mod duties;
mod fraud;
mod hooks;
#[cfg(any(test, feature = "invariants"))]
mod invariants;
#[cfg(test)]
mod mock;
mod reputation;
mod suspicion;
#[cfg(test)]
mod tests;
pub mod types;
mod verdicts;
pub mod weights;

pub use pallet::*;
pub use types::{
    Accuser, Conviction, CoverageMark, CoverageState, Dispute, DisputeStatus, Refusal, VerdictRecord, Votes,
};

/// The pallet.
#[allow(clippy::borrowed_box, reason = "a fee rule takes the arguments as the call does")]
#[frame_support::pallet]
pub mod pallet {
    use crate::{
        types::{
            Accuser, Accusers, Conviction, CoverageMark, CoverageState, Dispute, Refusal, VerdictBatch,
            VerdictRecord, Votes,
        },
        weights,
    };
    use alloc::boxed::Box;
    use frame_support::{pallet_prelude::*, traits::fungible};
    use frame_system::pallet_prelude::*;
    use starling_math::evidence::Standing;
    use starling_primitives::{
        fraud::{Fraud, FraudProof, NoProof},
        traits::{Beacon, Bonds, Clock, Hosts, Inferences, Profiles, Weights},
        AccountId, Balance, EpochIndex, InferenceId, Ppm, ProfileId, H256,
    };

    #[pallet::pallet]
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
        /// Disputes that a block closes for lack of a majority, at most.
        #[pallet::constant]
        type MaxClosedPerBlock: Get<u32>;
        /// Entries that a block prunes at most.
        #[pallet::constant]
        type MaxPrunedPerBlock: Get<u32>;
    }

    /// The verdicts, by epoch, then inference and verifier.
    ///
    /// Hashers: epochs are counted by the chain; verifiers choose their accounts.
    #[pallet::storage]
    pub type Verdicts<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, (u32, AccountId), VerdictRecord>;

    /// Weight of the verdicts of an inference, by what they say.
    ///
    /// Hashers: both keys are counted by the chain.
    #[pallet::storage]
    pub type Tallies<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Twox64Concat, u32, Votes, ValueQuery>;

    /// The disputes, open and settled.
    ///
    /// Hashers: both keys are counted by the chain.
    #[pallet::storage]
    pub type Disputes<T: Config> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Twox64Concat, u32, Dispute>;

    /// The open disputes, by the deadline they share: (epoch, whether opened after its grace). A queue for the bounded
    /// step that closes them.
    ///
    /// Hashers: all keys are counted by the chain.
    #[pallet::storage]
    pub type OpenDisputes<T: Config> =
        StorageDoubleMap<_, Twox64Concat, (EpochIndex, bool), Twox64Concat, u32, ()>;

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
        /// A verdict was not taken. Nothing was stored for it.
        VerdictRefused {
            /// What it was about.
            id: InferenceId,
            /// Why.
            reason: Refusal,
        },
        /// A verdict failed: everybody who serves the profile has to look.
        DisputeOpened {
            /// The inference.
            id: InferenceId,
            /// The verifier that failed it.
            accuser: AccountId,
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
        /// More than half cannot get the transcript: the executor has missed.
        TranscriptMissed {
            /// The inference.
            id: InferenceId,
            /// Its executor.
            executor: AccountId,
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
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
            Self::close_overdue()
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
        /// Signed by the worker key of a registered host; free of fees for it.
        ///
        /// ## Details
        /// An item that cannot be taken does not fail the batch.
        ///
        /// ## Errors
        /// [`Error::NotAWorker`].
        ///
        /// ## Events
        /// For each item [`Event::VerdictSubmitted`] or [`Event::VerdictRefused`]; and what a verdict decides:
        /// [`Event::DisputeOpened`], [`Event::DisputeSettled`], [`Event::Convicted`], [`Event::TranscriptMissed`],
        /// [`Event::ReputationChanged`].
        #[pallet::call_index(0)]
        #[pallet::weight(weights::submit_verdicts::<T>(items.len() as u32, 0, items.len() as u32))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, items: &VerdictBatch| -> bool {
            !items.is_empty() && Pallet::<T>::is_worker(origin)
        })]
        pub fn submit_verdicts(origin: OriginFor<T>, items: VerdictBatch) -> DispatchResultWithPostInfo {
            let host = Self::ensure_worker(origin)?;
            let done = Self::do_submit(&host, &items);
            let refused = (items.len() as u32).saturating_sub(done.taken);
            Ok(Some(weights::submit_verdicts::<T>(done.taken, refused, done.disputes)).into())
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
        #[pallet::weight(weights::prove_fraud::<T>())]
        #[pallet::feeless_if(|origin: &OriginFor<T>, proof: &Box<FraudProof>| -> bool {
            Pallet::<T>::is_true_proof(origin, proof)
        })]
        pub fn prove_fraud(origin: OriginFor<T>, proof: Box<FraudProof>) -> DispatchResult {
            Self::do_prove_fraud(origin, &proof)
        }
    }
}
