//! The session manager: decides who is an authority of a coming session, and with which weight.

use crate::{pallet::*, Clock, Hosts, Weights};
use alloc::vec::Vec;
use core::cmp::Reverse;
use frame_support::traits::Get;
use pallet_session::historical;
use sp_staking::SessionIndex;
use starling_math::weights;
use starling_primitives::AccountId;

impl<T: Config> Pallet<T> {
    /// Hosts that qualify now, sorted by account: a share of the current epoch's weight that is large enough, session
    /// keys, and no conviction.
    fn qualified() -> Plan<T> {
        let epoch = T::Clock::epoch();
        let hosts = T::Weights::hosts(epoch.index);
        let mut chosen = weights::authorities(&hosts, epoch.schedule.min_authority_share);
        chosen.retain(|(host, weight)| {
            *weight > 0 && Self::is_live(host) && pallet_session::NextKeys::<T>::contains_key(host)
        });
        // The sort is stable and the accounts differ, so the choice is the same everywhere.
        chosen.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        let mut plan = Plan::<T>::truncate_from(chosen);
        plan.sort();
        plan
    }

    /// A set that stays, without those who were convicted of an equivocation since; all of it when nobody else is in it.
    fn without_equivocators<E: Clone>(set: Vec<E>, host: impl Fn(&E) -> &AccountId) -> Vec<E> {
        let is_out = |entry: &&E| Equivocators::<T>::contains_key(host(entry)) && !Self::is_live(host(entry));
        let rest: Vec<E> = set.iter().filter(|entry| !is_out(entry)).cloned().collect();
        if rest.is_empty() {
            set
        } else {
            rest
        }
    }

    fn is_live(host: &AccountId) -> bool {
        let worker = T::Hosts::worker_of(host);
        worker.and_then(|worker| T::Hosts::host_of(&worker)).as_ref() == Some(host)
    }
}

impl<T: Config> pallet_session::SessionManager<AccountId> for Pallet<T> {
    /// Plans a session. `None` when nobody qualifies: the session pallet then keeps the set it has, and its weights are
    /// carried over.
    fn new_session(session: SessionIndex) -> Option<Vec<AccountId>> {
        let plan = Self::qualified();
        if plan.is_empty() {
            let kept = Planned::<T>::get(session.saturating_sub(1)).into_inner();
            let kept = Self::without_equivocators(kept, |(host, _)| host);
            if !kept.is_empty() {
                Planned::<T>::insert(session, Plan::<T>::truncate_from(kept));
            }
            Self::deposit_event(Event::SetKept { session });
            return None;
        }
        let accounts: Vec<_> = plan.iter().map(|(account, _)| account.clone()).collect();
        let total = plan.iter().fold(0u64, |total, (_, weight)| total.saturating_add(*weight));
        let authorities = u32::try_from(plan.len()).unwrap_or(u32::MAX);
        Planned::<T>::insert(session, plan);
        Self::deposit_event(Event::SessionPlanned { session, authorities, total });
        Some(accounts)
    }

    /// The session pallet takes the keys of its genesis.
    fn new_session_genesis(_: SessionIndex) -> Option<Vec<AccountId>> {
        None
    }

    fn end_session(session: SessionIndex) {
        Planned::<T>::remove(session);
        let kept = session.saturating_sub(T::KeptSessions::get());
        historical::Pallet::<T>::prune_up_to(kept);
        Self::forget_equivocators_before(kept);
    }

    fn start_session(session: SessionIndex) {
        Self::disable_equivocators(session);
    }
}

impl<T: Config> historical::SessionManager<AccountId, ()> for Pallet<T> {
    /// A set that stays is named again, because key ownership is stored only for sets that are named.
    fn new_session(session: SessionIndex) -> Option<Vec<(AccountId, ())>> {
        let planned = <Self as pallet_session::SessionManager<_>>::new_session(session);
        let kept = || Self::without_equivocators(pallet_session::Pallet::<T>::validators(), |host| host);
        let accounts = planned.unwrap_or_else(kept);
        Some(accounts.into_iter().map(|account| (account, ())).collect())
    }

    fn new_session_genesis(_: SessionIndex) -> Option<Vec<(AccountId, ())>> {
        None
    }

    fn end_session(session: SessionIndex) {
        <Self as pallet_session::SessionManager<_>>::end_session(session);
    }

    fn start_session(session: SessionIndex) {
        <Self as pallet_session::SessionManager<_>>::start_session(session);
    }
}
