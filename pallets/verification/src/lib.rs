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
//! Everybody who serves the profile is the jury. Panels drawn by the beacon, convictions by a sequential test over many
//! verdicts, and fraud proofs that the chain checks itself take this place when hosts become many.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod coverage;
mod disputes;
mod duties;
mod hooks;
#[cfg(any(test, feature = "try-runtime"))]
mod invariants;
#[cfg(test)]
mod mock;
mod reputation;
#[cfg(test)]
mod tests;
pub mod types;
mod verdicts;
pub mod weights;

pub use pallet::*;
pub use types::{CoverageMark, CoverageState, Dispute, DisputeStatus, Refusal, VerdictRecord, Votes};

/// The pallet.
#[frame_support::pallet]
pub mod pallet {
    use crate::{
        types::{CoverageMark, CoverageState, Dispute, Refusal, VerdictBatch, VerdictRecord, Votes},
        weights,
    };
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use starling_primitives::{
        traits::{Beacon, Clock, Hosts, Inferences, Profiles, Weights},
        AccountId, EpochIndex, InferenceId, Ppm,
    };

    #[pallet::pallet]
    pub struct Pallet<T>(_);

    /// What the pallet needs of the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId> {
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

    /// Hosts convicted of fraud in an epoch, with the number of their answers that fell.
    ///
    /// Hashers: epochs are counted by the chain; hosts choose their accounts.
    #[pallet::storage]
    pub type Convictions<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, u32>;

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
    }
}
