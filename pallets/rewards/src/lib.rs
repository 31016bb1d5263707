//! # Rewards pallet
//!
//! Epoch pots, emission, claims checked against duties, and burning.
//!
//! ## Pallet API
//!
//! See the [`pallet`] module. `inference` pays fees and takes refunds through [`starling_primitives::traits::Pots`]; the
//! clock tells this pallet of the epoch's change through [`starling_primitives::traits::EpochHooks`]. [`Pallet`]
//! implements both. [`Pallet::claimable`] and [`Pallet::undone_duties`] are there for the runtime's API.
//!
//! ## Overview
//!
//! Each epoch has a *pot*. Clients' fees go into it while inferences finish; when the epoch ends, its emission is minted
//! into it. A host's *due* is its share of the emission by weight, plus its own fees. It claims the due in the next epoch,
//! once the grace for late records is over, by revealing its duty secret: the VRF output of its worker key over the
//! epoch's seed. The chain then recomputes which inferences the host had to verify, over a sample that was drawn after the
//! work was done, and refuses while one of them has no verdict of the host. A host that catches up loses nothing. What
//! nobody has claimed when the next epoch ends too is burned.
//!
//! ## Example
//!
//! Epoch 7 emits 284,053 tokens. Host A has a quarter of the weight and finished inferences for 12 tokens. In epoch 8 it
//! claims `284,053 / 4 + 12`. Host B never claims: when epoch 9 begins, its part is burned and issuance falls by it.
//!
//! ## Low-level details
//!
//! * *One account, a ledger of pots.* All pots lie in one account; [`Pots`] and [`Fees`] say what belongs to which. The
//!   account holds one existential deposit more than the ledger from genesis on, so that a fee of any size can be paid
//!   in, the last unit can be paid out, and rounding dust can be burned to the unit.
//! * *Rounding.* A share of the emission is rounded down; the dust stays in the pot and is burned with it.
//! * *Issuance* changes by [`Event::Minted`] and [`Event::Burned`] and by nothing else here.
//! * *Refunds.* A fee is given back from the pot while the host has not claimed it, and from the host's bond afterwards.
//! * *Keys.* The worker key must have been in place before the epoch's seed was final: otherwise a host could try keys
//!   until it has few duties. A host that changes its key later can claim the epoch only if it is an epoch the new key
//!   precedes.
//! * Fees and claims of burned pots are pruned in `on_idle`, in bounded steps.
//!
//! ## Limitations
//!
//! * The sample bounds the cost of a claim. A host that leaves a share `s` of its duties undone is found out with a
//!   probability of `1 - (1 - s)^k` when `k` of its duties are in the sample.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
pub mod cost;
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

pub use pallet::*;
pub use types::{Due, PotInfo};
pub use weights::WeightInfo;

/// The pallet.
#[frame_support::pallet]
pub mod pallet {
    use crate::{
        cost,
        types::{Due, PotInfo},
        WeightInfo,
    };
    use frame_support::{
        pallet_prelude::*,
        traits::fungible::{Inspect, Mutate},
        PalletId,
    };
    use frame_system::pallet_prelude::*;
    use starling_primitives::{
        traits::{Attendance, Beacon, Clock, Duties, Hosts, Inferences, Reputation, Weights},
        vrf::VrfProof,
        AccountId, Balance, EpochIndex, H256,
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
        /// The native token.
        type Currency: Mutate<AccountId, Balance = Balance>;
        /// The epoch clock.
        type Clock: Clock;
        /// Seeds, and who withheld.
        type Beacon: Beacon;
        /// The registry of hosts.
        type Hosts: Hosts;
        /// Weights of the epochs.
        type Weights: Weights;
        /// Told of clean epochs.
        type Reputation: Reputation;
        /// Who answers what it is drawn for.
        type Attendance: Attendance;
        /// Duties of verification, and convictions.
        type Duties: Duties;
        /// How many inferences an epoch has.
        type Inferences: Inferences;
        /// Derives the account that holds the pots.
        #[pallet::constant]
        type PalletId: Get<PalletId>;
        /// Items that a block prunes at most.
        #[pallet::constant]
        type MaxPrunedPerBlock: Get<u32>;
        /// What calls and hooks cost.
        type WeightInfo: WeightInfo;
    }

    /// The pots: at most those of the running epoch and of the two before. Hasher: the chain chooses the keys.
    #[pallet::storage]
    pub type Pots<T: Config> = StorageMap<_, Twox64Concat, EpochIndex, PotInfo, ValueQuery>;

    /// Fees of a host in an epoch that it has not claimed; at most one entry for each host with weight. Hashers: the chain
    /// chooses epochs, users choose accounts.
    #[pallet::storage]
    pub type Fees<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Balance, ValueQuery>;

    /// What a host was paid for an epoch. Hashers: the chain chooses epochs, users choose accounts.
    #[pallet::storage]
    pub type Claimed<T: Config> =
        StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Due>;

    /// First epoch whose pot is not burned.
    #[pallet::storage]
    pub type BurnedTo<T: Config> = StorageValue<_, EpochIndex, ValueQuery>;

    /// First epoch whose fees and claims are not pruned.
    #[pallet::storage]
    pub type PrunedTo<T: Config> = StorageValue<_, EpochIndex, ValueQuery>;

    /// Gives the account of the pots its existential deposit. Has to be built after the balances.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound, frame_support::DebugNoBound)]
    pub struct GenesisConfig<T: Config> {
        #[doc(hidden)]
        #[serde(skip)]
        pub _config: PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            let (account, deposit) = (Pallet::<T>::pots_account(), T::Currency::minimum_balance());
            if T::Currency::balance(&account) < deposit {
                let minted = T::Currency::mint_into(&account, deposit);
                assert!(minted.is_ok(), "an empty chain can mint an existential deposit");
            }
        }
    }

    /// What happened.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// An epoch's emission was minted into its pot; issuance grew by it.
        Minted {
            /// The epoch, which has just ended.
            epoch: EpochIndex,
            /// Its emission.
            amount: Balance,
        },
        /// A host was paid.
        Claimed {
            /// The epoch.
            epoch: EpochIndex,
            /// The host.
            host: AccountId,
            /// Its share of the emission.
            emission: Balance,
            /// Its fees.
            fees: Balance,
        },
        /// A host that claims has no share of the emission, because it did not answer what it was drawn for.
        Absent {
            /// The epoch.
            epoch: EpochIndex,
            /// The host.
            host: AccountId,
        },
        /// A fee was given back.
        Refunded {
            /// The epoch of the inference.
            epoch: EpochIndex,
            /// The host whose fee it was.
            host: AccountId,
            /// Who has it back.
            to: AccountId,
            /// Taken from the pot.
            from_pot: Balance,
            /// Taken from the host's bond.
            from_bond: Balance,
        },
        /// What was left in a pot was burned; issuance fell by it.
        Burned {
            /// The epoch of the pot.
            epoch: EpochIndex,
            /// What was left.
            amount: Balance,
        },
    }

    /// Why a claim is refused.
    #[pallet::error]
    pub enum Error<T> {
        /// The signer is not the worker key of a host in good standing.
        NotAWorker,
        /// An epoch can be claimed from the end of the next one's grace until that one ends.
        NotOpen,
        /// The host has claimed this epoch.
        AlreadyClaimed,
        /// The host had no weight, withheld its contribution to the beacon, was convicted or was found negligent in this epoch;
        /// or it was absent and earned no fees.
        NothingDue,
        /// The worker key was not in place before the epoch's seed was final.
        KeyTooNew,
        /// The proof is not that of the worker key for this epoch.
        InvalidProof,
        /// A duty is undone. Nothing is lost: `StarlingApi::undone_duties` names it; claim again once it is done.
        DutyMissing,
        /// The pot does not hold what is due. This never happens.
        PotTooSmall,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
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
        /// Claims what the signer's host is due of an epoch, and reveals its duty secret of that epoch.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker key of a host. Free of fees when it will succeed. The host's account is paid.
        ///
        /// ## Details
        /// `proof` is the worker key's VRF proof for `VrfInput::Duty(genesis hash, epoch, epoch seed)`. Taken once per
        /// epoch, from the end of the next epoch's grace until that epoch ends.
        ///
        /// ## Errors
        /// `NotAWorker`, `NotOpen`, `AlreadyClaimed`, `NothingDue`, `KeyTooNew`, `InvalidProof`, `DutyMissing`.
        ///
        /// ## Events
        /// `Claimed`, and `Absent` where the host has no share of the emission for that.
        #[pallet::call_index(0)]
        #[pallet::weight(cost::claim::<T>(cost::MAX_CLAIM_SAMPLES, cost::MAX_PROFILES))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, epoch: &EpochIndex, proof: &VrfProof| -> bool {
            Pallet::<T>::check_claim(origin.clone(), *epoch, proof).is_ok()
        })]
        pub fn claim(origin: OriginFor<T>, epoch: EpochIndex, proof: VrfProof) -> DispatchResultWithPostInfo {
            let claim = Self::check_claim(origin, epoch, &proof)?;
            let weight = cost::claim::<T>(claim.samples, claim.profiles);
            Self::do_claim(epoch, claim)?;
            Ok(Some(weight).into())
        }
    }
}
