//! The registry of hosts: keys, endpoints, status and the profiles they serve.
//!
//! ## Pallet API
//!
//! See the [`pallet`] module. Other pallets ask the registry through [`starling_primitives::traits::Hosts`], which
//! [`Pallet`] implements.
//!
//! ## Overview
//!
//! Any account becomes a host by registering with a bond; there is no list of who may. It names a *worker* key, which
//! does all duties without fees, never holds funds and can be replaced at once, and declares the profiles it serves.
//! The worker announces where the host is reached.
//!
//! ```text
//!   register ─> Joining <──(no weight)── Active ─┐
//!                  │ └──────(weight)──────> │    │ conviction
//!                  └────────> Draining <────┘    v
//!                  ^   drain     │           Suspended ── conviction ──> Removed
//!                  └── resume ───┴───────────────┘ (no weight left)
//! ```
//!
//! ## Low-level details
//!
//! * The bond is a *hold*. It pays for what the host was paid unjustly when the pot cannot pay it back any more
//!   ([`HostsTrait::slash_bond`]), and part of it burns when the worker accuses somebody falsely ([`starling_primitives::traits::Bonds::burn`]);
//!   `resume` fills it up again. It comes back with `deregister`, which waits until the host
//!   has had no weight for three epochs, so that nothing recorded in its name is open.
//! * A worker account needs no balance: registration makes it self-sufficient.
//! * `announce` is free, but not more often than every [`Config::AnnounceInterval`] blocks.
//! * Removal binds an account, not a person; who comes back under another account begins without reputation, as
//!   everybody does. So `deregister` forgets a removed host like any other.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
mod impls;
mod maintenance;
pub mod types;
pub mod weights;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

pub use pallet::*;
pub use types::{Endpoints, HostInfo, HostProfiles, HostStatus, Maintenance};
pub use weights::WeightInfo;

use starling_primitives::{
    traits::{Clock, Hosts as HostsTrait, Profiles, Weights},
    AccountId, Balance, BlockNumber, ProfileId,
};

#[frame_support::pallet]
pub mod pallet {
    use super::*;
    use frame_support::{pallet_prelude::*, traits::fungible};
    use frame_system::pallet_prelude::*;

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the registry needs from the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId, RuntimeEvent: From<Event<Self>>> {
        /// Holds the bonds.
        type Currency: fungible::Inspect<AccountId, Balance = Balance>
            + fungible::Mutate<AccountId>
            + fungible::hold::Mutate<AccountId, Reason = Self::RuntimeHoldReason>;
        /// The overarching hold reason.
        type RuntimeHoldReason: From<HoldReason>;
        /// The epoch clock.
        type Clock: Clock;
        /// The registry of profiles.
        type Profiles: Profiles;
        /// Who has weight.
        type Weights: Weights;
        /// Held while registered.
        #[pallet::constant]
        type Bond: Get<Balance>;
        /// Blocks between two announcements of one host at least.
        #[pallet::constant]
        type AnnounceInterval: Get<BlockNumber>;
        /// Weights of this pallet.
        type WeightInfo: WeightInfo;
    }

    /// Why funds are held.
    #[pallet::composite_enum]
    pub enum HoldReason {
        /// The bond of a host.
        #[codec(index = 0)]
        Bond,
    }

    /// The hosts. Hasher: accounts are chosen by anybody.
    #[pallet::storage]
    pub type Hosts<T> = StorageMap<_, Blake2_128Concat, AccountId, HostInfo>;

    /// Host of each worker key. Hasher: keys are chosen by anybody.
    #[pallet::storage]
    pub type HostOfWorker<T> = StorageMap<_, Blake2_128Concat, AccountId, AccountId>;

    /// Block of each host's last announcement. Hasher: accounts are chosen by anybody.
    #[pallet::storage]
    pub type AnnouncedAt<T> = StorageMap<_, Blake2_128Concat, AccountId, BlockNumber>;

    /// Each host's last declared maintenance. Hasher: accounts are chosen by anybody.
    #[pallet::storage]
    pub type Maintenances<T> = StorageMap<_, Blake2_128Concat, AccountId, Maintenance>;

    /// Number of hosts that are neither suspended nor removed.
    #[pallet::storage]
    pub type Count<T> = StorageValue<_, u32, ValueQuery>;

    /// Hosts of the genesis.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound, frame_support::DebugNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Account, worker key and profiles of each. The account must be able to pay the bond.
        pub hosts: alloc::vec::Vec<(AccountId, AccountId, alloc::vec::Vec<ProfileId>)>,
        #[doc(hidden)]
        #[serde(skip)]
        pub _config: PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            for (host, worker, profiles) in &self.hosts {
                let profiles = HostProfiles::try_from(profiles.clone());
                assert!(profiles.is_ok(), "a host of the genesis serves too many profiles");
                let added =
                    Pallet::<T>::do_register(host.clone(), worker.clone(), profiles.unwrap_or_default());
                assert!(added.is_ok(), "a host of the genesis is invalid: {added:?}");
            }
        }
    }

    /// What happened to a host.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// An account became a host.
        Registered {
            /// The host.
            host: AccountId,
            /// Its worker key.
            worker: AccountId,
        },
        /// A host said where it is reached.
        Announced {
            /// The host.
            host: AccountId,
            /// Where it is reached.
            endpoints: Endpoints,
        },
        /// A host replaced its worker key; the old one is revoked.
        WorkerChanged {
            /// The host.
            host: AccountId,
            /// The new key.
            worker: AccountId,
        },
        /// A host declared what it serves.
        ProfilesChanged {
            /// The host.
            host: AccountId,
            /// All profiles it serves now.
            profiles: HostProfiles,
        },
        /// The standing of a host changed.
        StatusChanged {
            /// The host.
            host: AccountId,
            /// Its standing now.
            status: HostStatus,
        },
        /// A host will be down, and said so beforehand.
        MaintenanceDeclared {
            /// The host.
            host: AccountId,
            /// The first block without it.
            from: BlockNumber,
            /// The first block with it again.
            until: BlockNumber,
        },
        /// A host's bond paid for something.
        BondSlashed {
            /// The host.
            host: AccountId,
            /// What was taken.
            amount: Balance,
            /// Who got it.
            to: AccountId,
        },
        /// Part of a host's bond was burned: its worker said what is not true.
        BondBurned {
            /// The host.
            host: AccountId,
            /// What was burned.
            amount: Balance,
        },
        /// A host left; its bond is free.
        Deregistered {
            /// The host.
            host: AccountId,
            /// The bond that was left.
            bond: Balance,
        },
    }

    /// Why a call is refused.
    #[pallet::error]
    pub enum Error<T> {
        /// The account is a host already.
        AlreadyRegistered,
        /// The account is not a host.
        NotRegistered,
        /// The worker key is a host, the account itself or another host's worker, or the account is a worker.
        WorkerTaken,
        /// The signer is not the worker of a host that may do duties.
        NotAWorker,
        /// A profile does not exist or takes no new work.
        UnknownProfile,
        /// The host's standing does not allow this.
        WrongStatus,
        /// The host has, or had lately, weight; something recorded in its name may be open.
        HasWeight,
        /// The last announcement is too recent.
        TooSoon,
        /// The host has declared its maintenance of this epoch.
        MaintenanceDeclared,
        /// A maintenance has at least one block and at most a 24th of an epoch.
        MaintenanceTooLong,
        /// A maintenance begins at least a coverage window and at most an epoch later.
        MaintenanceNotice,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        #[cfg(feature = "try-runtime")]
        fn try_state(_now: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Makes the signer a host.
        ///
        /// ## Dispatch Origin
        /// Signed by the account that becomes the host.
        ///
        /// ## Details
        /// Holds the bond. `worker` does the duties from now on; it needs no balance.
        ///
        /// ## Errors
        /// `AlreadyRegistered`, `WorkerTaken`, `UnknownProfile`, or the bond cannot be held.
        ///
        /// ## Events
        /// `Registered`.
        #[pallet::call_index(0)]
        #[pallet::weight(T::WeightInfo::register(profiles.len() as u32))]
        pub fn register(origin: OriginFor<T>, worker: AccountId, profiles: HostProfiles) -> DispatchResult {
            let host = ensure_signed(origin)?;
            Self::do_register(host.clone(), worker.clone(), profiles)?;
            Self::deposit_event(Event::Registered { host, worker });
            Ok(())
        }

        /// Replaces the worker key. The old key is revoked at once.
        ///
        /// ## Dispatch Origin
        /// Signed by the host.
        ///
        /// ## Details
        /// The new key counts for the beacon from the next seed on, so that nobody shops for keys.
        ///
        /// ## Errors
        /// `NotRegistered`, `WorkerTaken`.
        ///
        /// ## Events
        /// `WorkerChanged`.
        #[pallet::call_index(1)]
        #[pallet::weight(T::WeightInfo::set_worker())]
        pub fn set_worker(origin: OriginFor<T>, worker: AccountId) -> DispatchResult {
            let host = ensure_signed(origin)?;
            Self::do_set_worker(&host, &worker)?;
            Self::deposit_event(Event::WorkerChanged { host, worker });
            Ok(())
        }

        /// Declares the profiles that the host serves. Its weights of the current epoch stay as they are.
        ///
        /// ## Dispatch Origin
        /// Signed by the host.
        ///
        /// ## Errors
        /// `NotRegistered`, `UnknownProfile`.
        ///
        /// ## Events
        /// `ProfilesChanged`.
        #[pallet::call_index(2)]
        #[pallet::weight(T::WeightInfo::set_profiles(profiles.len() as u32))]
        pub fn set_profiles(origin: OriginFor<T>, profiles: HostProfiles) -> DispatchResult {
            let host = ensure_signed(origin)?;
            let profiles = Self::checked_profiles(profiles)?;
            Self::mutate(&host, |info| {
                info.profiles = profiles.clone();
                Ok(())
            })?;
            Self::deposit_event(Event::ProfilesChanged { host, profiles });
            Ok(())
        }

        /// Asks for no new work: the host does not sprint, so it has no weight from the next epoch on.
        ///
        /// ## Dispatch Origin
        /// Signed by the host.
        ///
        /// ## Errors
        /// `NotRegistered`; `WrongStatus` unless joining or active.
        ///
        /// ## Events
        /// `StatusChanged`.
        #[pallet::call_index(3)]
        #[pallet::weight(T::WeightInfo::drain())]
        pub fn drain(origin: OriginFor<T>) -> DispatchResult {
            let host = ensure_signed(origin)?;
            Self::mutate(&host, |info| {
                ensure!(
                    matches!(info.status, HostStatus::Joining | HostStatus::Active),
                    Error::<T>::WrongStatus
                );
                Self::set_status(&host, info, HostStatus::Draining);
                Ok(())
            })
        }

        /// Takes part again, after draining or when a suspension is over. Fills up the bond.
        ///
        /// ## Dispatch Origin
        /// Signed by the host.
        ///
        /// ## Errors
        /// `NotRegistered`; `WrongStatus` unless draining or suspended; `HasWeight` while a suspended host still has
        /// weight in the current epoch; or the missing part of the bond cannot be held.
        ///
        /// ## Events
        /// `StatusChanged`.
        #[pallet::call_index(4)]
        #[pallet::weight(T::WeightInfo::resume())]
        pub fn resume(origin: OriginFor<T>) -> DispatchResult {
            let host = ensure_signed(origin)?;
            Self::do_resume(&host)
        }

        /// Leaves, with what is left of the bond.
        ///
        /// ## Dispatch Origin
        /// Signed by the host.
        ///
        /// ## Errors
        /// `NotRegistered`; `HasWeight` when it has weight in the current epoch or one of the two before.
        ///
        /// ## Events
        /// `Deregistered`.
        #[pallet::call_index(5)]
        #[pallet::weight(T::WeightInfo::deregister())]
        pub fn deregister(origin: OriginFor<T>) -> DispatchResult {
            let host = ensure_signed(origin)?;
            let bond = Self::do_deregister(&host)?;
            Self::deposit_event(Event::Deregistered { host, bond });
            Ok(())
        }

        /// Says where the host is reached.
        ///
        /// ## Dispatch Origin
        /// Signed by the worker of a host. Free of fees, but not more often than every `AnnounceInterval` blocks.
        ///
        /// ## Errors
        /// `NotAWorker`, `TooSoon`.
        ///
        /// ## Events
        /// `Announced`.
        #[pallet::call_index(6)]
        #[pallet::weight(T::WeightInfo::announce())]
        #[pallet::feeless_if(|origin: &OriginFor<T>, _: &Endpoints| -> bool {
            Pallet::<T>::may_announce(origin.clone()).is_ok()
        })]
        pub fn announce(origin: OriginFor<T>, endpoints: Endpoints) -> DispatchResult {
            let host = Self::may_announce(origin)?;
            AnnouncedAt::<T>::insert(&host, Self::now());
            Self::mutate(&host, |info| {
                info.endpoints = Some(endpoints.clone());
                Ok(())
            })?;
            Self::deposit_event(Event::Announced { host, endpoints });
            Ok(())
        }

        /// Says when the host will be down.
        ///
        /// ## Dispatch Origin
        /// Signed by the host.
        ///
        /// ## Details
        /// In the `blocks` blocks from `from` on it is drawn for no panel, and neither a panel's silence nor a request that
        /// expires costs it reputation. Its other duties wait for it, and a race that it misses, it misses. Once in an
        /// epoch, at most a 24th of one long, and declared at least a coverage window before.
        ///
        /// ## Errors
        /// `NotRegistered`, `MaintenanceDeclared`, `MaintenanceTooLong`, `MaintenanceNotice`.
        ///
        /// ## Events
        /// `MaintenanceDeclared`.
        #[pallet::call_index(7)]
        #[pallet::weight(T::WeightInfo::declare_maintenance())]
        pub fn declare_maintenance(
            origin: OriginFor<T>,
            from: BlockNumber,
            blocks: BlockNumber,
        ) -> DispatchResult {
            let host = ensure_signed(origin)?;
            Self::do_declare_maintenance(&host, from, blocks)
        }
    }

    impl<T: Config> Pallet<T> {
        /// The host whose worker signed, if it may announce now.
        fn may_announce(origin: OriginFor<T>) -> Result<AccountId, DispatchError> {
            let worker = ensure_signed(origin)?;
            let host = Self::host_of(&worker).ok_or(Error::<T>::NotAWorker)?;
            let last = AnnouncedAt::<T>::get(&host);
            let due = last.is_none_or(|last| Self::now() >= last.saturating_add(T::AnnounceInterval::get()));
            ensure!(due, Error::<T>::TooSoon);
            Ok(host)
        }
    }
}
