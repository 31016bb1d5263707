//! Models with their numerics, prices and calibration.
//!
//! ## Overview
//!
//! A host never serves "a model" but a [`Profile`]: weights, tokenizer and chat template by digest, the arithmetic it must
//! reproduce, prices, and the limits of the tolerant checks. Governance registers and retires profiles; nothing of a
//! profile ever changes, because transcripts are judged by it long after they were made.
//!
//! ## Low-level details
//!
//! * Ids are dense from 0 and never used again. A name belongs to one profile at a time; retiring gives it free.
//! * A profile is retired at an epoch boundary: until the end of the epoch in which governance says so it takes work as
//!   before (`Profiles::profile`). It is never forgotten (`Profiles::registered`), because what was recorded under it
//!   is still priced and judged.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
pub mod weights;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

pub use pallet::*;
pub use weights::WeightInfo;

use starling_primitives::{
    profile::{Profile, MAX_NAME},
    traits::{Clock, Profiles as ProfilesTrait},
    EpochIndex, ProfileId,
};

#[frame_support::pallet]
pub mod pallet {
    use super::*;
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What the registry needs from the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<RuntimeEvent: From<Event<Self>>> {
        /// The epoch clock.
        type Clock: Clock;
        /// Profiles that can ever be registered.
        #[pallet::constant]
        type MaxProfiles: Get<u32>;
        /// Weights of this pallet.
        type WeightInfo: WeightInfo;
    }

    /// Every profile ever registered. Hasher: ids are given by the chain.
    #[pallet::storage]
    pub type Profiles<T> = StorageMap<_, Twox64Concat, ProfileId, Profile>;

    /// Number of profiles ever registered; the next id.
    #[pallet::storage]
    pub type Count<T> = StorageValue<_, u32, ValueQuery>;

    /// Epoch in which a profile was retired. Hasher: ids are given by the chain.
    #[pallet::storage]
    pub type RetiredIn<T> = StorageMap<_, Twox64Concat, ProfileId, EpochIndex>;

    /// Profile of a name that is in use. Hasher: names are chosen by whoever governs, hence the cryptographic one.
    #[pallet::storage]
    pub type IdOfName<T> = StorageMap<_, Blake2_128Concat, BoundedVec<u8, ConstU32<MAX_NAME>>, ProfileId>;

    /// Profiles of the genesis, with ids from 0 in this order.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound, frame_support::DebugNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// The profiles.
        pub profiles: alloc::vec::Vec<Profile>,
        #[doc(hidden)]
        #[serde(skip)]
        pub _config: PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            for profile in &self.profiles {
                let added = Pallet::<T>::add(profile.clone());
                assert!(added.is_ok(), "a profile of the genesis is invalid or named twice");
            }
        }
    }

    /// What happened to a profile.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// Hosts may declare that they serve it.
        Registered {
            /// The profile.
            id: ProfileId,
            /// Its name.
            name: BoundedVec<u8, ConstU32<MAX_NAME>>,
        },
        /// It takes no new work from the next epoch on.
        Retired {
            /// The profile.
            id: ProfileId,
        },
    }

    /// Why a call is refused.
    #[pallet::error]
    pub enum Error<T> {
        /// A field lies outside its documented range.
        InvalidProfile,
        /// Another profile that is not retired has this name.
        NameTaken,
        /// No more profiles can be registered.
        TooManyProfiles,
        /// No profile has this id.
        UnknownProfile,
        /// The profile was retired before.
        AlreadyRetired,
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
        /// Registers a profile under the next id.
        ///
        /// ## Dispatch Origin
        /// Root.
        ///
        /// ## Errors
        /// `InvalidProfile`, `NameTaken`, `TooManyProfiles`.
        ///
        /// ## Events
        /// `Registered`.
        #[pallet::call_index(0)]
        #[pallet::weight(T::WeightInfo::register())]
        pub fn register(origin: OriginFor<T>, profile: Profile) -> DispatchResult {
            ensure_root(origin)?;
            let name = profile.name.clone();
            let id = Self::add(profile)?;
            Self::deposit_event(Event::Registered { id, name });
            Ok(())
        }

        /// Retires a profile: it takes no new work from the next epoch on.
        ///
        /// ## Dispatch Origin
        /// Root.
        ///
        /// ## Errors
        /// `UnknownProfile`, `AlreadyRetired`.
        ///
        /// ## Events
        /// `Retired`.
        #[pallet::call_index(1)]
        #[pallet::weight(T::WeightInfo::retire())]
        pub fn retire(origin: OriginFor<T>, id: ProfileId) -> DispatchResult {
            ensure_root(origin)?;
            let profile = Profiles::<T>::get(id).ok_or(Error::<T>::UnknownProfile)?;
            ensure!(!RetiredIn::<T>::contains_key(id), Error::<T>::AlreadyRetired);
            RetiredIn::<T>::insert(id, T::Clock::epoch().index);
            IdOfName::<T>::remove(&profile.name);
            Self::deposit_event(Event::Retired { id });
            Ok(())
        }
    }

    impl<T: Config> Pallet<T> {
        fn add(profile: Profile) -> Result<ProfileId, Error<T>> {
            ensure!(profile.is_valid(), Error::<T>::InvalidProfile);
            ensure!(!IdOfName::<T>::contains_key(&profile.name), Error::<T>::NameTaken);
            let id = Count::<T>::get();
            ensure!(id < T::MaxProfiles::get(), Error::<T>::TooManyProfiles);
            Count::<T>::put(id.saturating_add(1));
            IdOfName::<T>::insert(&profile.name, id);
            Profiles::<T>::insert(id, profile);
            Ok(id)
        }
    }
}

impl<T: Config> Pallet<T> {
    /// Invariants of the registry:
    ///
    /// 1. Ids are dense from 0 to the count, and the count is within its bound.
    /// 2. Every profile is valid.
    /// 3. The names in use are those of the profiles that are not retired.
    #[cfg(any(feature = "invariants", test))]
    pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
        use frame_support::{ensure, traits::Get};
        let count = Count::<T>::get();
        ensure!(count <= T::MaxProfiles::get(), "too many profiles");
        ensure!(Profiles::<T>::iter_keys().all(|id| id < count), "a profile beyond the count");
        for id in 0..count {
            let profile = Profiles::<T>::get(id).ok_or("ids are not dense")?;
            ensure!(profile.is_valid(), "an invalid profile");
            let named = IdOfName::<T>::get(&profile.name) == Some(id);
            ensure!(
                named != RetiredIn::<T>::contains_key(id),
                "name of a retired profile, or none of a live one"
            );
        }
        let live = count.saturating_sub(RetiredIn::<T>::iter_keys().count() as u32);
        ensure!(IdOfName::<T>::iter_keys().count() as u32 == live, "a name of no profile");
        Ok(())
    }
}

impl<T: Config> ProfilesTrait for Pallet<T> {
    fn profile(id: ProfileId) -> Option<Profile> {
        let takes_work = RetiredIn::<T>::get(id).is_none_or(|retired| T::Clock::epoch().index <= retired);
        Profiles::<T>::get(id).filter(|_| takes_work)
    }

    fn registered(id: ProfileId) -> Option<Profile> {
        Profiles::<T>::get(id)
    }
}
