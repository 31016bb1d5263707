//! Planted transcripts: bad on purpose, so that who approves one shows that it has not looked.
//!
//! A revealed plant is a dispute of its own. Until [`starling_math::plant::over_at`] its approvers may contest it, in the
//! state [`DisputeStatus::Planted`]; then a panel judges as it does elsewhere. What approvers lose is worked off the agenda,
//! so that no call has to.

use crate::{
    types::{Approvers, Dispute, DisputeStatus, Plant},
    verdicts::Jury,
    Agenda, ApproversOf, Config, Disputes, Error, Event, LastBoundary, Negligences, OpenDisputes, Pallet,
    Plants, Verdicts,
};
use frame_support::{ensure, BoundedVec};
use frame_system::pallet_prelude::{BlockNumberFor, OriginFor};
use sp_runtime::DispatchError;
use starling_math::{
    dispute::Finding,
    plant::{over_at, FIRST_ROUND},
    reputation,
};
use starling_primitives::{
    plant::{commitment, Consent},
    records::{InferenceRecord, InferenceState},
    traits::{Clock, Inferences, Reputation, Weights},
    AccountId, EpochIndex, InferenceId, H256,
};

/// A reveal that will be taken.
pub(crate) struct Revealable {
    planter: AccountId,
    plant: Plant,
    record: InferenceRecord,
}

impl<T: Config> Pallet<T> {
    // ---- what may be said; what is free of fees is exactly what succeeds ----

    /// The host that may commit itself now.
    pub(crate) fn check_commit_plant(origin: OriginFor<T>) -> Result<(EpochIndex, AccountId), DispatchError> {
        let host = Self::ensure_worker(origin)?;
        let epoch = T::Clock::epoch().index;
        ensure!(!Plants::<T>::contains_key(epoch, &host), Error::<T>::AlreadyCommitted);
        ensure!(T::Weights::weight(epoch, &host) > 0, Error::<T>::NoWeight);
        Ok((epoch, host))
    }

    /// The signature is looked at last, because it costs most.
    pub(crate) fn check_reveal_plant(
        origin: OriginFor<T>,
        id: InferenceId,
        salt: H256,
        consent: &Consent,
    ) -> Result<Revealable, DispatchError> {
        let planter = Self::ensure_worker(origin)?;
        ensure!(Self::takes_verdicts(id.epoch), Error::<T>::EpochClosed);
        let plant = Plants::<T>::get(id.epoch, &planter).ok_or(Error::<T>::NotCommitted)?;
        ensure!(plant.revealed.is_none(), Error::<T>::AlreadyRevealed);
        let record = T::Inferences::record(id).ok_or(Error::<T>::UnknownInference)?;
        ensure!(record.executor == planter, Error::<T>::OtherExecutor);
        match record.state {
            InferenceState::Finished | InferenceState::Delivered | InferenceState::Disputed => {}
            InferenceState::Started | InferenceState::Expired => return Err(Error::<T>::NotFinished.into()),
            InferenceState::Valid => return Err(Error::<T>::AlreadyJudged.into()),
            InferenceState::Invalid | InferenceState::Planted => return Err(Error::<T>::AlreadyFallen.into()),
        }
        ensure!(commitment(record.request_id, salt) == plant.commitment, Error::<T>::OtherCommitment);
        ensure!(plant.committed_at < record.started_at, Error::<T>::CommittedTooLate);
        let asked = consent.signer == record.client || record.delegate.as_ref() == Some(&consent.signer);
        let genesis = frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::default());
        ensure!(asked && consent.verify(&genesis, &record.request_id), Error::<T>::NoConsent);
        Ok(Revealable { planter, plant, record })
    }

    /// The approver that may contest a plant, and the dispute that is open about it.
    pub(crate) fn check_contest_plant(
        origin: OriginFor<T>,
        id: InferenceId,
    ) -> Result<(AccountId, Dispute), DispatchError> {
        let host = Self::ensure_worker(origin)?;
        let dispute = Disputes::<T>::get(id.epoch, id.index)
            .filter(|dispute| dispute.status == DisputeStatus::Planted)
            .ok_or(Error::<T>::NotContestable)?;
        ensure!(Self::has_approved(id, &host), Error::<T>::NotAnApprover);
        Ok((host, dispute))
    }

    /// Whether the host approved a plant before it was revealed, and has not answered for it yet.
    pub(crate) fn has_approved(id: InferenceId, host: &AccountId) -> bool {
        ApproversOf::<T>::get(id.epoch, id.index).binary_search(host).is_ok()
    }

    // ---- what is said ----

    pub(crate) fn do_commit_plant(epoch: EpochIndex, host: AccountId, commitment: H256) {
        let plant = Plant { commitment, committed_at: Self::now(), revealed: None };
        Plants::<T>::insert(epoch, &host, plant);
        Self::deposit_event(Event::PlantCommitted { host, epoch });
    }

    /// The answer falls without a vote. Returns how many hosts could have approved it.
    pub(crate) fn do_reveal_plant(id: InferenceId, revealable: Revealable) -> u32 {
        let Revealable { planter, plant, record } = revealable;
        let known = Disputes::<T>::get(id.epoch, id.index);
        if let Some(dispute) = known.as_ref().filter(|dispute| dispute.status.is_open()) {
            Self::end_early(id, dispute);
        }
        Plants::<T>::insert(id.epoch, &planter, Plant { revealed: Some(id.index), ..plant });
        T::Inferences::plant(id);

        let jury = Jury::load::<T>(id.epoch, record.profile);
        let approvers = Self::approvers(id, &jury);
        let count = approvers.len() as u32;
        let due = over_at(LastBoundary::<T>::get().count);
        let accuser = known.and_then(|dispute| dispute.accuser);
        let status = if count > 0 { DisputeStatus::Planted } else { DisputeStatus::Invalid };
        if count > 0 {
            ApproversOf::<T>::insert(id.epoch, id.index, approvers);
            OpenDisputes::<T>::mutate(id.epoch, |open| *open = open.saturating_add(1));
            Agenda::<T>::insert(due, id, ());
        }
        let dispute = Dispute { opened_at: Self::now(), accuser, panels: FIRST_ROUND, due, status };
        Disputes::<T>::insert(id.epoch, id.index, dispute);
        Self::deposit_event(Event::PlantRevealed { id, planter, approvers: count });
        jury.hosts.len() as u32
    }

    /// Sorted by account, as the jury is.
    fn approvers(id: InferenceId, jury: &Jury) -> Approvers {
        let approved = |host: &AccountId| {
            Verdicts::<T>::get(id.epoch, (id.index, host)).is_some_and(|verdict| verdict.passed)
        };
        let hosts = jury.hosts.iter().map(|entry| entry.host.clone());
        BoundedVec::truncate_from(hosts.filter(approved).collect())
    }

    /// A panel is drawn by the next boundary's seed, as for any dispute.
    pub(crate) fn do_contest_plant(id: InferenceId, contester: AccountId, dispute: Dispute) {
        Agenda::<T>::remove(dispute.due, id);
        let due = LastBoundary::<T>::get().count.saturating_add(1);
        let (accuser, status) = (Some(contester.clone()), DisputeStatus::Waiting);
        Self::put_off(id, Dispute { opened_at: Self::now(), accuser, due, status, ..dispute });
        Self::deposit_event(Event::PlantContested { id, contester });
    }

    // ---- what comes of it ----

    /// Settles a contest as its panel has found. Only a majority that saw the transcript can speak for or against the planter.
    pub(crate) fn decide_contest(id: InferenceId, dispute: &Dispute, planter: &AccountId, finding: Finding) {
        match finding {
            Finding::Undecided => {}
            Finding::Valid => {
                Self::settle(id, dispute, true, true);
                Self::convict(planter, id);
            }
            Finding::Hidden => {
                Self::settle(id, dispute, true, true);
                <Self as Reputation>::on_missed(planter, id.epoch);
            }
            Finding::Invalid => Self::settle(id, dispute, false, true),
        }
    }

    /// Once it is decided whether a plant was one, its approvers are negligent, up to `most` of them now, or free. Returns how
    /// many are negligent.
    pub(crate) fn release_approvers(id: InferenceId, most: u32) -> u32 {
        let settled = Disputes::<T>::get(id.epoch, id.index)
            .filter(|dispute| dispute.is_about_plant() && !dispute.status.is_open());
        let Some(dispute) = settled else { return 0 };
        let mut approvers = ApproversOf::<T>::take(id.epoch, id.index);
        if dispute.status != DisputeStatus::Invalid {
            return 0;
        }
        let mut found = 0u32;
        while found < most {
            let Some(host) = approvers.pop() else { break };
            Self::find_negligent(&host, id);
            found = found.saturating_add(1);
        }
        if !approvers.is_empty() {
            ApproversOf::<T>::insert(id.epoch, id.index, approvers);
        }
        found
    }

    /// Loses the due of the running epoch, which nobody has claimed yet, and all reputation; once an epoch. The plant's own
    /// epoch is not a clean one.
    fn find_negligent(host: &AccountId, id: InferenceId) {
        let epoch = T::Clock::epoch().index;
        if Negligences::<T>::contains_key(epoch, host) {
            return;
        }
        Negligences::<T>::insert(epoch, host, id);
        <Self as Reputation>::on_missed(host, id.epoch);
        Self::set_reputation(host, reputation::after_conviction());
        Self::deposit_event(Event::Negligent { host: host.clone(), epoch, id });
    }
}
