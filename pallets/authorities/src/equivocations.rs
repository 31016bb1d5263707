//! Two signatures where there may be one: what the proof of it does to the host.
//!
//! BABE's and GRANDPA's pallets check the proof and the ownership of the key; the offences pallet refuses what it has seen.
//! Here the host is convicted, as for a fraud, and kept away from blocks and votes at once. A weight that is at stake in
//! consensus is work of the epoch and not money: losing it, the epoch's due and the reputation is the punishment, and no
//! share is computed.

use crate::{pallet::*, Court, Pallet};
use alloc::vec::Vec;
use core::marker::PhantomData;
use frame_support::weights::Weight;
use pallet_session::{
    disabling::{DisablingDecision, DisablingStrategy},
    historical::IdentificationTuple,
};
use sp_runtime::Perbill;
use sp_staking::{
    offence::{Offence, OffenceDetails, OffenceError, OffenceSeverity, OnOffenceHandler, ReportOffence},
    SessionIndex,
};
use starling_primitives::AccountId;

impl<T: Config> Pallet<T> {
    /// Whether the host was convicted when it was in this session's set, or already planned for it.
    pub fn has_paid(host: &AccountId, session: SessionIndex) -> bool {
        Equivocators::<T>::get(host).is_some_and(|until| session <= until)
    }

    fn equivocated(host: &AccountId, session: SessionIndex) {
        if Self::has_paid(host, session) {
            return;
        }
        // The next session is planned, and announced to BABE's clients, with the host in it.
        let until = pallet_session::Pallet::<T>::current_index().saturating_add(1);
        Equivocators::<T>::insert(host, until);
        T::Court::convict(host);
        pallet_session::Pallet::<T>::report_offence(host.clone(), OffenceSeverity::max_severity());
        Self::deposit_event(Event::Equivocated { host: host.clone(), session });
    }

    /// The session pallet forgets who was disabled when a session starts.
    pub(crate) fn disable_equivocators(session: SessionIndex) {
        for host in pallet_session::Pallet::<T>::validators() {
            if Self::has_paid(&host, session) {
                pallet_session::Pallet::<T>::report_offence(host, OffenceSeverity::max_severity());
            }
        }
    }

    /// What happened before `session` can no longer be proven.
    pub(crate) fn forget_equivocators_before(session: SessionIndex) {
        let old: Vec<_> = Equivocators::<T>::iter().filter(|(_, until)| *until < session).collect();
        old.into_iter().for_each(|(host, _)| Equivocators::<T>::remove(host));
    }
}

impl<T> OnOffenceHandler<AccountId, IdentificationTuple<T>, Weight> for Pallet<T>
where
    T: Config + pallet_session::historical::Config,
{
    /// Costs nothing of its own: it is part of the weight of the report.
    fn on_offence(
        offenders: &[OffenceDetails<AccountId, IdentificationTuple<T>>],
        _fractions: &[Perbill],
        session: SessionIndex,
    ) -> Weight {
        offenders.iter().for_each(|details| Self::equivocated(&details.offender.0, session));
        Weight::zero()
    }
}

/// Takes a report only of who has not paid for it yet, so that someone who signs everything twice fills no storage.
#[derive(Debug)]
pub struct OncePerSet<T, Reports>(PhantomData<(T, Reports)>);

impl<T, Reports, O> ReportOffence<AccountId, IdentificationTuple<T>, O> for OncePerSet<T, Reports>
where
    T: Config + pallet_session::historical::Config,
    Reports: ReportOffence<AccountId, IdentificationTuple<T>, O>,
    O: Offence<IdentificationTuple<T>>,
{
    fn report_offence(reporters: Vec<AccountId>, offence: O) -> Result<(), OffenceError> {
        let session = offence.session_index();
        if offence.offenders().iter().all(|(host, _)| Pallet::<T>::has_paid(host, session)) {
            return Err(OffenceError::DuplicateReport);
        }
        Reports::report_offence(reporters, offence)
    }

    fn is_known_offence(offenders: &[IdentificationTuple<T>], slot: &O::Slot) -> bool {
        Reports::is_known_offence(offenders, slot)
    }
}

/// Refuses the blocks of equivocators as long as at least half of the weight is left to make blocks.
#[derive(Debug)]
pub struct DisableUpToHalf;

impl<T: Config> DisablingStrategy<T> for DisableUpToHalf {
    fn decision(
        offender: &AccountId,
        _severity: OffenceSeverity,
        disabled: &Vec<(u32, OffenceSeverity)>,
    ) -> DisablingDecision {
        let session = pallet_session::Pallet::<T>::current_index();
        let validators = pallet_session::Pallet::<T>::validators();
        let weighed = Pallet::<T>::weigh(session, validators.iter().map(|host| (host, ())));
        let is_disabled = |at: u32| disabled.iter().any(|(index, _)| *index == at);
        let (mut total, mut without, mut index) = (0u128, 0u128, None);
        for (at, (host, (), weight)) in (0u32..).zip(weighed) {
            total = total.saturating_add(weight.into());
            if host == offender {
                index = Some(at).filter(|at| !is_disabled(*at));
            }
            if host == offender || is_disabled(at) {
                without = without.saturating_add(weight.into());
            }
        }
        let enough_is_left = without.saturating_mul(2) <= total;
        DisablingDecision { disable: index.filter(|_| enough_is_left), reenable: None }
    }
}
