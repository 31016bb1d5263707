//! # Beacon pallet
//!
//! Collective random seeds from the hosts' VRF outputs.
//!
//! ## Pallet API
//!
//! See the [`pallet`] module. Other pallets read seeds through [`starling_primitives::traits::Beacon`]; the clock tells
//! this pallet of boundaries through [`starling_primitives::traits::EpochHooks`]. [`Pallet`] implements both.
//!
//! ## Overview
//!
//! Executor draws, duties, sprint tasks and samples need numbers that nobody could know or choose before. Once an
//! epoch, in the *reveal window*, every host with weight contributes the VRF output of its worker key over (genesis
//! hash, epoch). That output is unique: a host cannot choose it, only withhold it. The seed of the next epoch is the
//! hash of this epoch's seed and of all contributions. It is final at the starting gun, when hosts with at least two
//! thirds of the weight have contributed; otherwise the window is extended, and in the end the sprint is cancelled, but
//! there is a seed for the next epoch in any case.
//!
//! In between, seeds of other rounds (sprint challenge, coverage windows, claims) are hashes of the newest epoch seed, of
//! the block authors' VRF outputs up to and including the block that draws them, and of the round.
//!
//! ## Low-level details
//!
//! * A worker key counts only if it was in place before the seed of the running epoch was final, so that nobody can try
//!   keys until the next seed suits him. Changing the key in an epoch before contributing therefore counts as
//!   withholding: it must not be a way around the penalty.
//! * The hash takes contributions in the order of accounts, so the order of transactions does not matter.
//! * As long as nobody has weight (the first epoch), every registered host may contribute, and one contribution is
//!   enough.
//! * A host that had weight and did not contribute by the time the seed became final *withheld*: the sprint refuses it,
//!   and the epoch's rewards do too.
//! * Rounds and contributions of the current epoch and of the two before are kept; older ones are pruned in `on_idle`.
//!
//! ## Limitations
//!
//! * A coalition that holds `k` contributions back until the last block of the window can choose among the `2^k` seeds
//!   that result, at the price of `k` epochs' rewards and sprints, and only as long as two thirds contribute.
//! * The author of the block that draws another round's seed knows it one block earlier when it authored the block before
//!   as well, and can skip its block. A threshold signature behind the same trait removes both.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
mod hooks;
mod impls;
#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;
pub mod types;
pub mod weights;

pub use pallet::*;
pub use weights::WeightInfo;

/// The pallet.
#[frame_support::pallet]
pub mod pallet {
    use crate::{
        types::{Contribution, RollingMix, Tally},
        WeightInfo,
    };
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use starling_primitives::{
        hashing::hash_of,
        traits::{Clock, Hosts, Round, Weights},
        vrf::VrfProof,
        AccountId, BlockNumber, EpochIndex, Work, H256,
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
        /// The registry of hosts.
        type Hosts: Hosts;
        /// Weights of the epochs.
        type Weights: Weights;
        /// VRF output of this block's author, if it gave one. Has to be known in `on_initialize`.
        type BlockRandomness: Get<Option<H256>>;
        /// Contributions to one seed at most. Not below the number of hosts that can have weight.
        #[pallet::constant]
        type MaxContributions: Get<u32>;
        /// Items that a block prunes at most.
        #[pallet::constant]
        type MaxPrunedPerBlock: Get<u32>;
        /// What calls and hooks cost.
        type WeightInfo: WeightInfo;
    }

    /// Final seeds. Hasher: the chain chooses the keys, nobody can unbalance the trie.
    #[pallet::storage]
    pub type Seeds<T: Config> = StorageMap<_, Twox64Concat, Round, H256>;

    /// Block in which the seed of an epoch became final. Hasher: the chain chooses the keys.
    #[pallet::storage]
    pub type FinalAt<T: Config> = StorageMap<_, Twox64Concat, EpochIndex, BlockNumber>;

    /// Contributions of an epoch to the next epoch's seed, by host. A double map, so that an epoch can be walked and
    /// pruned. Hashers: the chain chooses epochs, users choose accounts.
    #[pallet::storage]
    pub type Contributions<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Contribution>;

    /// Sum of the contributions of an epoch, so that the threshold is one read. Hasher: the chain chooses the keys.
    #[pallet::storage]
    pub type Tallies<T: Config> = StorageMap<_, Twox64Concat, EpochIndex, Tally, ValueQuery>;

    /// Number of coverage windows of an epoch whose seed was drawn (windows `0..n`). Hasher: the chain chooses the keys.
    #[pallet::storage]
    pub type CoverageDrawn<T: Config> = StorageMap<_, Twox64Concat, EpochIndex, u32, ValueQuery>;

    /// Randomness of all blocks so far.
    #[pallet::storage]
    pub type Mix<T: Config> = StorageValue<_, RollingMix, ValueQuery>;

    /// First epoch that is not pruned yet.
    #[pallet::storage]
    pub type PrunedTo<T: Config> = StorageValue<_, EpochIndex, ValueQuery>;

    /// The first seed.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound, frame_support::DebugNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Hashed into the seed of epoch 0, in which nobody draws anything; hex of 32 bytes.
        pub seed: H256,
        #[doc(hidden)]
        #[serde(skip)]
        pub _config: PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            Seeds::<T>::insert(Round::Epoch(0), hash_of(b"starling/beacon/genesis", &self.seed));
            FinalAt::<T>::insert(0, 0);
        }
    }

    /// What happened.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A host contributed to the next epoch's seed.
        Contributed {
            /// The running epoch.
            epoch: EpochIndex,
            /// The host.
            host: AccountId,
            /// Its weight.
            weight: Work,
        },
        /// A seed is final.
        SeedFinal {
            /// What it is for.
            round: Round,
            /// The seed.
            seed: H256,
        },
    }

    /// Why a call is refused.
    #[pallet::error]
    pub enum Error<T> {
        /// The signer is not the worker key of a host in good standing.
        NotAWorker,
        /// The epoch is not the running one.
        WrongEpoch,
        /// The reveal window is not open.
        NotInReveal,
        /// The host has no weight in this epoch.
        NoWeight,
        /// The worker key was not in place before the epoch's seed was final.
        KeyTooNew,
        /// The host has contributed.
        AlreadyContributed,
        /// This epoch cannot take more contributions.
        TooManyContributions,
        /// The proof is not that of the worker key for this epoch.
        InvalidProof,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
            Self::roll();
            T::WeightInfo::roll()
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
        /// Contributes to the seed of the next epoch.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a host with weight in the running epoch (when nobody has weight: of any host).
        /// Free of fees when it will succeed.
        ///
        /// ## Details
        /// `proof` is the worker key's VRF proof for `VrfInput::Beacon(genesis hash, epoch)`. Taken once, inside the
        /// reveal window only.
        ///
        /// ## Errors
        /// `NotAWorker`, `WrongEpoch`, `NotInReveal`, `NoWeight`, `KeyTooNew`, `AlreadyContributed`,
        /// `TooManyContributions`, `InvalidProof`.
        ///
        /// ## Events
        /// `Contributed`.
        #[pallet::call_index(0)]
        #[pallet::weight((T::WeightInfo::contribute(), DispatchClass::Operational))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, epoch: &EpochIndex, proof: &VrfProof| -> bool {
            Pallet::<T>::check_contribution(origin.clone(), *epoch, proof).is_ok()
        })]
        pub fn contribute(origin: OriginFor<T>, epoch: EpochIndex, proof: VrfProof) -> DispatchResult {
            let (host, contribution) = Self::check_contribution(origin, epoch, &proof)?;
            Self::do_contribute(epoch, host, contribution)
        }
    }
}
