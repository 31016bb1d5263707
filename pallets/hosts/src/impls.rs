//! What the calls do, and what the registry answers to other pallets.

use crate::{pallet::*, types::*};
use alloc::vec::Vec;
use frame_support::{
    ensure,
    pallet_prelude::{DispatchError, DispatchResult},
    traits::{
        fungible::hold::Mutate,
        tokens::{Fortitude, Precision, Restriction},
        Get,
    },
};
use sp_runtime::traits::UniqueSaturatedInto;
use starling_primitives::{
    traits::{Bonds, Clock, Hosts as HostsTrait, Profiles, Weights},
    AccountId, Balance, BlockNumber, ProfileId, Work,
};

/// Epochs before the current one in which weight still binds a host: what was recorded then may be open.
const EPOCHS_BOUND: u32 = 2;

impl<T: Config> Pallet<T> {
    pub(crate) fn now() -> BlockNumber {
        frame_system::Pallet::<T>::block_number().unique_saturated_into()
    }

    pub(crate) fn do_register(host: AccountId, worker: AccountId, profiles: HostProfiles) -> DispatchResult {
        ensure!(!Hosts::<T>::contains_key(&host), Error::<T>::AlreadyRegistered);
        Self::ensure_free(&host, &worker)?;
        ensure!(!HostOfWorker::<T>::contains_key(&host), Error::<T>::WorkerTaken);
        let profiles = Self::checked_profiles(profiles)?;
        let bond = T::Bond::get();
        T::Currency::hold(&HoldReason::Bond.into(), &host, bond)?;
        let now = Self::now();
        Self::grant(&host, &worker);
        Count::<T>::mutate(|count| *count = count.saturating_add(1));
        let info = HostInfo {
            worker,
            worker_since: now,
            endpoints: None,
            profiles,
            status: HostStatus::Joining,
            bond,
            registered_at: now,
            convictions: 0,
        };
        Hosts::<T>::insert(host, info);
        Ok(())
    }

    pub(crate) fn do_set_worker(host: &AccountId, worker: &AccountId) -> DispatchResult {
        Self::ensure_free(host, worker)?;
        Self::mutate(host, |info| {
            Self::revoke(&info.worker);
            Self::grant(host, worker);
            info.worker = worker.clone();
            info.worker_since = Self::now();
            Ok(())
        })
    }

    pub(crate) fn do_resume(host: &AccountId) -> DispatchResult {
        Self::mutate(host, |info| {
            let weight = T::Weights::weight(T::Clock::epoch().index, host);
            match info.status {
                HostStatus::Draining => {}
                HostStatus::Suspended => {
                    ensure!(weight == 0, Error::<T>::HasWeight);
                    Count::<T>::mutate(|count| *count = count.saturating_add(1));
                }
                _ => return Err(Error::<T>::WrongStatus.into()),
            }
            let missing = T::Bond::get().saturating_sub(info.bond);
            T::Currency::hold(&HoldReason::Bond.into(), host, missing)?;
            info.bond = info.bond.saturating_add(missing);
            let status = if weight > 0 { HostStatus::Active } else { HostStatus::Joining };
            Self::set_status(host, info, status);
            Ok(())
        })
    }

    pub(crate) fn do_deregister(host: &AccountId) -> Result<Balance, DispatchError> {
        let info = Hosts::<T>::get(host).ok_or(Error::<T>::NotRegistered)?;
        let current = T::Clock::epoch().index;
        let bound =
            (current.saturating_sub(EPOCHS_BOUND)..=current).any(|epoch| T::Weights::weight(epoch, host) > 0);
        ensure!(!bound, Error::<T>::HasWeight);
        let bond = T::Currency::release(&HoldReason::Bond.into(), host, info.bond, Precision::BestEffort)?;
        Self::revoke(&info.worker);
        if info.status.is_live() {
            Count::<T>::mutate(|count| *count = count.saturating_sub(1));
        }
        AnnouncedAt::<T>::remove(host);
        Maintenances::<T>::remove(host);
        Hosts::<T>::remove(host);
        Ok(bond)
    }

    pub(crate) fn mutate(
        host: &AccountId,
        change: impl FnOnce(&mut HostInfo) -> DispatchResult,
    ) -> DispatchResult {
        Hosts::<T>::try_mutate(host, |info| change(info.as_mut().ok_or(Error::<T>::NotRegistered)?))
    }

    pub(crate) fn set_status(host: &AccountId, info: &mut HostInfo, status: HostStatus) {
        info.status = status;
        Self::deposit_event(Event::StatusChanged { host: host.clone(), status });
    }

    /// Sorts the profiles, without repetition, and refuses those that take no new work.
    pub(crate) fn checked_profiles(profiles: HostProfiles) -> Result<HostProfiles, DispatchError> {
        let mut profiles = profiles.into_inner();
        profiles.sort_unstable();
        profiles.dedup();
        ensure!(profiles.iter().all(|id| T::Profiles::profile(*id).is_some()), Error::<T>::UnknownProfile);
        HostProfiles::try_from(profiles).map_err(|_| Error::<T>::UnknownProfile.into())
    }

    fn ensure_free(host: &AccountId, worker: &AccountId) -> DispatchResult {
        let taken =
            host == worker || Hosts::<T>::contains_key(worker) || HostOfWorker::<T>::contains_key(worker);
        ensure!(!taken, Error::<T>::WorkerTaken);
        Ok(())
    }

    fn grant(host: &AccountId, worker: &AccountId) {
        HostOfWorker::<T>::insert(worker, host);
        frame_system::Pallet::<T>::inc_sufficients(worker);
    }

    fn revoke(worker: &AccountId) {
        HostOfWorker::<T>::remove(worker);
        frame_system::Pallet::<T>::dec_sufficients(worker);
    }

    /// Invariants of the registry:
    ///
    /// 1. Hosts and worker keys map to each other, one to one, and no account is both.
    /// 2. Each bond is held, and at most the full bond.
    /// 3. A worker account is self-sufficient.
    /// 4. The profiles of a host ascend.
    /// 5. Only hosts declare a maintenance, and it has an end.
    /// 6. The count is the number of hosts that are neither suspended nor removed; a removed host was convicted twice.
    #[cfg(any(feature = "invariants", test))]
    pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
        use frame_support::traits::fungible::InspectHold;
        let mut hosts = 0u32;
        let mut live = 0u32;
        for (host, info) in Hosts::<T>::iter() {
            hosts = hosts.saturating_add(1);
            live = live.saturating_add(info.status.is_live().into());
            ensure!(HostOfWorker::<T>::get(&info.worker) == Some(host.clone()), "a worker without its host");
            ensure!(!Hosts::<T>::contains_key(&info.worker), "a worker that is a host");
            ensure!(frame_system::Pallet::<T>::sufficients(&info.worker) > 0, "a worker that needs funds");
            let held = T::Currency::balance_on_hold(&HoldReason::Bond.into(), &host);
            ensure!(held == info.bond, "a bond that is not held");
            ensure!(info.bond <= T::Bond::get(), "a bond that is more than full");
            ensure!(info.profiles.iter().zip(info.profiles.iter().skip(1)).all(|(a, b)| a < b), "unsorted");
            ensure!(info.status != HostStatus::Removed || info.convictions > 1, "removed without reason");
        }
        ensure!(HostOfWorker::<T>::iter_keys().count() as u32 == hosts, "a worker of no host");
        ensure!(AnnouncedAt::<T>::iter_keys().all(Hosts::<T>::contains_key), "no host announced");
        for (host, declared) in Maintenances::<T>::iter() {
            ensure!(Hosts::<T>::contains_key(&host), "no host is down");
            ensure!(declared.from < declared.until, "a maintenance without end");
        }
        ensure!(Count::<T>::get() == live, "the count is wrong");
        Ok(())
    }
}

impl<T: Config> HostsTrait for Pallet<T> {
    fn host_of(worker: &AccountId) -> Option<AccountId> {
        let host = HostOfWorker::<T>::get(worker)?;
        Hosts::<T>::get(&host).filter(|info| info.status.is_live()).map(|_| host)
    }

    fn worker_of(host: &AccountId) -> Option<AccountId> {
        Hosts::<T>::get(host).map(|info| info.worker)
    }

    fn worker_since(host: &AccountId) -> Option<BlockNumber> {
        Hosts::<T>::get(host).map(|info| info.worker_since)
    }

    fn may_sprint(host: &AccountId) -> bool {
        Hosts::<T>::get(host)
            .is_some_and(|info| matches!(info.status, HostStatus::Joining | HostStatus::Active))
    }

    fn serves(host: &AccountId, profile: ProfileId) -> bool {
        Hosts::<T>::get(host).is_some_and(|info| info.profiles.contains(&profile))
    }

    fn sprint_profiles(host: &AccountId, among: &[ProfileId]) -> Option<Vec<ProfileId>> {
        let info = Hosts::<T>::get(host)?;
        let takes_part = matches!(info.status, HostStatus::Joining | HostStatus::Active);
        takes_part.then(|| among.iter().copied().filter(|profile| info.profiles.contains(profile)).collect())
    }

    fn is_away(host: &AccountId, from: BlockNumber, to: BlockNumber) -> bool {
        Self::is_away_in(host, from, to)
    }

    fn count() -> u32 {
        Count::<T>::get()
    }

    fn on_weight(host: &AccountId, weight: Work) {
        let Some(mut info) = Hosts::<T>::get(host) else { return };
        let status = match (info.status, weight > 0) {
            (HostStatus::Joining, true) => HostStatus::Active,
            (HostStatus::Active, false) => HostStatus::Joining,
            _ => return,
        };
        Self::set_status(host, &mut info, status);
        Hosts::<T>::insert(host, info);
    }

    fn convict(host: &AccountId) {
        let Some(mut info) = Hosts::<T>::get(host) else { return };
        if info.status.is_live() {
            Count::<T>::mutate(|count| *count = count.saturating_sub(1));
        }
        info.convictions = info.convictions.saturating_add(1);
        let status = if info.convictions > 1 { HostStatus::Removed } else { HostStatus::Suspended };
        Self::set_status(host, &mut info, status);
        Hosts::<T>::insert(host, info);
    }

    fn slash_bond(host: &AccountId, amount: Balance, to: &AccountId) -> Balance {
        let Some(mut info) = Hosts::<T>::get(host) else { return 0 };
        let taken = T::Currency::transfer_on_hold(
            &HoldReason::Bond.into(),
            host,
            to,
            amount.min(info.bond),
            Precision::BestEffort,
            Restriction::Free,
            Fortitude::Force,
        )
        .unwrap_or(0);
        if taken > 0 {
            info.bond = info.bond.saturating_sub(taken);
            Hosts::<T>::insert(host, info);
            Self::deposit_event(Event::BondSlashed { host: host.clone(), amount: taken, to: to.clone() });
        }
        taken
    }
}

impl<T: Config> Bonds for Pallet<T> {
    fn bond(host: &AccountId) -> Balance {
        Hosts::<T>::get(host).map_or(0, |info| info.bond)
    }

    fn burn(host: &AccountId, amount: Balance) -> Balance {
        let Some(mut info) = Hosts::<T>::get(host) else { return 0 };
        let burned = T::Currency::burn_held(
            &HoldReason::Bond.into(),
            host,
            amount.min(info.bond),
            Precision::BestEffort,
            Fortitude::Force,
        )
        .unwrap_or(0);
        if burned > 0 {
            info.bond = info.bond.saturating_sub(burned);
            Hosts::<T>::insert(host, info);
            Self::deposit_event(Event::BondBurned { host: host.clone(), amount: burned });
        }
        burned
    }
}
