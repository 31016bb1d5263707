//! # Sprint pallet
//!
//! Sprint commitments, samples, verdicts and the accepted work that becomes weight.
//!
//! ## Pallet API
//!
//! See the [`pallet`] module. Other pallets read weights through [`starling_primitives::traits::Weights`]; the clock
//! tells this pallet of the epoch's change through [`starling_primitives::traits::EpochHooks`]. [`Pallet`] implements
//! both.
//!
//! ## Overview
//!
//! At the end of each epoch every host works, for each profile that it serves, through as many nonces of the sprint's
//! task as it can. In the *commit* window it commits to the transcripts (a Merkle root) and to their number; a late host
//! is absent. Then the challenge seed picks samples of every commitment for every verifier, and in the *check* window
//! hosts that serve the same profile say how many of their samples failed, and whether one was fabricated.
//!
//! When the epoch changes, accepted nonces become work units, summed per host and capped, and these are the weights of
//! the next epoch: they drive executor draws, duties, votes, rewards and consensus.
//!
//! ## Low-level details
//!
//! * A host that withheld its contribution to the beacon takes no part, neither as prover nor as verifier. Nor does a
//!   worker key that was set after the starting gun: it could not claim the epoch that it would win weight for.
//! * A verifier's vote has its weight of the running epoch; while nobody has weight (the first epoch), each has one.
//! * One commitment keeps the verdicts of at most [`Config::MaxVoters`] verifiers: those with the highest scores
//!   ([`starling_math::draw::sprint_score`]), which are a draw by weight with the challenge's seed. So nobody can fill the places, neither
//!   with small hosts nor with heavy ones, and the work of the epoch's change is bounded.
//! * A host's weight for one profile is its share of its capped weight. The shares are rounded so that they sum to the
//!   capped weight exactly; a share that rounds to 0 is left out.
//! * Hosts that have been suspended, removed or are draining when the epoch changes get no weight.
//! * Nobody committed, nothing was accepted, or the sprint was cancelled: the weights of the ended epoch carry over,
//!   with fresh reputations, so that the chain does not halt.
//! * Weights of the current epoch and the two before are kept; what is older is pruned in `on_idle`, in bounded steps.
//!
//! ## Limitations
//!
//! * Every verifier may judge every commitment, though only the drawn ones count: those that are not need not, and who is drawn and
//!   silent leaves its place to the next one.
//! * In the first epoch the hosts that could vote are not known; those that committed or voted count.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
mod election;
mod hooks;
mod impls;
#[cfg(any(test, feature = "invariants"))]
mod invariants;
#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;
pub mod types;
pub mod weights;

pub use election::{cost, Size};
pub use pallet::*;
pub use types::{Refusal, VerdictBatch, Voter};
pub use weights::WeightInfo;

/// The pallet.
#[frame_support::pallet]
pub mod pallet {
    use crate::{
        types::{CommitmentKey, Refusal, VerdictBatch, Voter},
        WeightInfo,
    };
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use starling_primitives::{
        sprint::{SprintCommitment, SprintVerdict},
        traits::{Beacon, Clock, HostWeight, Hosts, Profiles, Reputation},
        AccountId, EpochIndex, ProfileId, Work, H256,
    };

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the pallet needs of the runtime.
    #[pallet::config]
    pub trait Config:
        frame_system::Config<AccountId = AccountId, Hash = H256, RuntimeEvent: From<Event<Self>>>
    {
        /// The epoch clock.
        type Clock: Clock;
        /// Seeds, and who withheld.
        type Beacon: Beacon;
        /// The registry of hosts.
        type Hosts: Hosts;
        /// The registry of profiles.
        type Profiles: Profiles;
        /// Frozen into the weights.
        type Reputation: Reputation;
        /// Hosts that can have weight in an epoch at most: 1,024 in the agent's view of the chain.
        #[pallet::constant]
        type MaxHosts: Get<u32>;
        /// Commitments of an epoch at most, over all hosts and profiles.
        #[pallet::constant]
        type MaxCommitments: Get<u32>;
        /// Verifiers whose verdicts on one commitment are kept at most.
        #[pallet::constant]
        type MaxVoters: Get<u32>;
        /// Items that a block prunes at most.
        #[pallet::constant]
        type MaxPrunedPerBlock: Get<u32>;
        /// What calls and hooks cost.
        type WeightInfo: WeightInfo;
    }

    /// Commitments of an epoch, by (profile, host). A double map, so that an epoch can be walked and pruned. Hashers:
    /// the chain chooses epochs, users choose accounts.
    #[pallet::storage]
    pub type Commitments<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, CommitmentKey, SprintCommitment>;

    /// Number of an epoch's commitments. Hasher: the chain chooses the keys.
    #[pallet::storage]
    pub type CommitmentCount<T: Config> = StorageMap<_, Twox64Concat, EpochIndex, u32, ValueQuery>;

    /// The verdicts on a commitment, by (profile, prover), heaviest voter first. One bounded list each, because an election
    /// reads all of them in one block. Hashers: the chain chooses epochs, users choose accounts.
    #[pallet::storage]
    pub type Voters<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        EpochIndex,
        Blake2_128Concat,
        CommitmentKey,
        BoundedVec<Voter, T::MaxVoters>,
        ValueQuery,
    >;

    /// Weights of an epoch, sorted by account. Hasher: the chain chooses the keys.
    #[pallet::storage]
    pub type EpochWeights<T: Config> =
        StorageMap<_, Twox64Concat, EpochIndex, BoundedVec<HostWeight, T::MaxHosts>, ValueQuery>;

    /// The part of each weight that was won with a profile, sorted by account. Hashers: the chain chooses the keys.
    #[pallet::storage]
    pub type ProfileWeights<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        EpochIndex,
        Twox64Concat,
        ProfileId,
        BoundedVec<HostWeight, T::MaxHosts>,
        ValueQuery,
    >;

    /// First epoch that is not pruned yet.
    #[pallet::storage]
    pub type PrunedTo<T: Config> = StorageValue<_, EpochIndex, ValueQuery>;

    /// What happened.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A host committed to its sprint work.
        Committed {
            /// The running epoch.
            epoch: EpochIndex,
            /// The profile.
            profile: ProfileId,
            /// The host.
            host: AccountId,
            /// Its commitment.
            commitment: SprintCommitment,
        },
        /// A verifier judged a commitment.
        VerdictSubmitted {
            /// The running epoch.
            epoch: EpochIndex,
            /// The profile.
            profile: ProfileId,
            /// Whose commitment.
            prover: AccountId,
            /// Who judged.
            verifier: AccountId,
            /// What it found.
            verdict: SprintVerdict,
        },
        /// A verdict of a batch was not taken; the others were.
        VerdictRefused {
            /// The profile.
            profile: ProfileId,
            /// Whose commitment it was about.
            prover: AccountId,
            /// Who judged.
            verifier: AccountId,
            /// Why not.
            reason: Refusal,
        },
        /// The sprint's result: the weights of an epoch that begins.
        WeightsSet {
            /// The epoch that begins.
            epoch: EpochIndex,
            /// Sum of the weights.
            total: Work,
            /// Hosts with weight.
            hosts: u32,
        },
        /// There is no result: the weights of the ended epoch stay in force.
        WeightsCarriedOver {
            /// The epoch that begins.
            epoch: EpochIndex,
            /// Sum of the weights.
            total: Work,
            /// Hosts with weight.
            hosts: u32,
        },
    }

    /// Why a call is refused.
    #[pallet::error]
    pub enum Error<T> {
        /// The signer is not the worker key of a host in good standing.
        NotAWorker,
        /// Commitments are taken in the commit window only.
        NotInCommit,
        /// Verdicts are taken in the check window only.
        NotInCheck,
        /// The profile is not registered, or retired.
        UnknownProfile,
        /// The host does not serve the profile.
        NotServing,
        /// The host is draining, or too many accuse it.
        NotTakingPart,
        /// The host withheld its contribution to the seed of this sprint.
        Withheld,
        /// The worker key was set after the starting gun.
        KeyTooNew,
        /// The host has committed for this profile.
        AlreadyCommitted,
        /// The count is 0 or too large.
        CountOutOfRange,
        /// This epoch cannot take more commitments.
        TooManyCommitments,
        /// The host has no vote: it has no weight in this epoch.
        NoWeight,
        /// None of the batch's verdicts can be taken.
        NothingToTake,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_idle(_now: BlockNumberFor<T>, remaining: Weight) -> Weight {
            Self::prune(remaining)
        }

        fn integrity_test() {
            assert!(T::MaxHosts::get() > 0 && T::MaxVoters::get() > 0, "the bounds leave room for somebody");
        }

        #[cfg(feature = "try-runtime")]
        fn try_state(_now: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Commits to the sprint work of this epoch.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a host that serves the profile, is not draining and did not withhold. Free of
        /// fees when it will succeed.
        ///
        /// ## Details
        /// Taken once per host and profile, in the commit window only: what comes later is absent.
        ///
        /// ## Errors
        /// `NotAWorker`, `NotInCommit`, `UnknownProfile`, `NotServing`, `NotTakingPart`, `Withheld`, `KeyTooNew`,
        /// `AlreadyCommitted`, `CountOutOfRange`, `TooManyCommitments`.
        ///
        /// ## Events
        /// `Committed`.
        #[pallet::call_index(0)]
        #[pallet::weight((T::WeightInfo::commit(), DispatchClass::Operational))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, profile: &ProfileId, commitment: &SprintCommitment| -> bool {
            Pallet::<T>::check_commitment(origin.clone(), *profile, commitment).is_ok()
        })]
        pub fn commit(
            origin: OriginFor<T>,
            profile: ProfileId,
            commitment: SprintCommitment,
        ) -> DispatchResult {
            let (epoch, host) = Self::check_commitment(origin, profile, &commitment)?;
            Self::do_commit(epoch, profile, host, commitment);
            Ok(())
        }

        /// Submits what samples of other hosts' commitments showed.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a host that serves the profile, did not withhold and has weight in this epoch
        /// (when nobody has weight, it needs none). Free of fees when at least one verdict will be taken.
        ///
        /// ## Details
        /// Taken in the check window, once per commitment, and never about oneself. A verdict that cannot be taken does
        /// not fail the others.
        ///
        /// ## Errors
        /// `NotAWorker`, `NotInCheck`, `UnknownProfile`, `NotServing`, `NotTakingPart`, `Withheld`, `KeyTooNew`,
        /// `NoWeight`, `NothingToTake`.
        ///
        /// ## Events
        /// `VerdictSubmitted` or `VerdictRefused` for each verdict.
        #[pallet::call_index(1)]
        #[pallet::weight((T::WeightInfo::submit_verdicts(verdicts.len() as u32), DispatchClass::Operational))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, profile: &ProfileId, verdicts: &VerdictBatch| -> bool {
            Pallet::<T>::check_verdicts(origin.clone(), *profile, verdicts).is_ok()
        })]
        pub fn submit_verdicts(
            origin: OriginFor<T>,
            profile: ProfileId,
            verdicts: VerdictBatch,
        ) -> DispatchResult {
            let ballot = Self::check_verdicts(origin, profile, &verdicts)?;
            Self::do_submit_verdicts(&ballot, verdicts);
            Ok(())
        }
    }
}
