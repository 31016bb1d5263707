//! Disputes: opened by a failing verdict, judged by panels, settled once.

use crate::{
    types::{Conviction, Dispute, DisputeStatus},
    Agenda, ComplaintsOf, Config, Convictions, Disputes, Event, LastBoundary, OpenDisputes, Pallet, Verdicts,
};
use starling_math::{
    complaint::{Complaints, Decision, Ground, Hearing},
    dispute::Finding,
    reputation,
};
use starling_primitives::{
    records::{InferenceRecord, InferenceState},
    traits::{Hosts, Inferences, Reputation},
    AccountId, EpochIndex, InferenceId,
};

impl<T: Config> Pallet<T> {
    /// An inference is disputed once.
    pub(crate) fn is_disputable(id: InferenceId, record: &InferenceRecord) -> bool {
        matches!(record.state, InferenceState::Finished | InferenceState::Delivered)
            && !Disputes::<T>::contains_key(id.epoch, id.index)
    }

    /// Opens a dispute about what may be disputed. A panel is drawn by the next boundary's seed, which nobody knows yet.
    pub(crate) fn open_dispute(id: InferenceId, accuser: &AccountId, ground: Ground) {
        let accuser = accuser.clone();
        Self::note_complaint(id.epoch, &accuser, ground, Complaints::opened);
        let due = LastBoundary::<T>::get().count.saturating_add(1);
        let dispute = Dispute {
            opened_at: Self::now(),
            accuser: Some(accuser.clone()),
            panels: 0,
            due,
            status: DisputeStatus::Waiting,
        };
        Disputes::<T>::insert(id.epoch, id.index, dispute);
        OpenDisputes::<T>::mutate(id.epoch, |open| *open = open.saturating_add(1));
        Agenda::<T>::insert(due, id, ());
        T::Inferences::dispute(id);
        Self::deposit_event(Event::DisputeOpened { id, accuser });
    }

    pub(crate) fn is_disputed(id: InferenceId) -> bool {
        Disputes::<T>::get(id.epoch, id.index).is_some_and(|dispute| dispute.status.is_open())
    }

    /// Settles an open dispute as its panel has found. Returns whether it did.
    pub(crate) fn decide(id: InferenceId, dispute: &Dispute, executor: &AccountId, finding: Finding) -> bool {
        if !dispute.status.is_open() {
            return false;
        }
        if dispute.is_about_plant() {
            Self::decide_contest(id, dispute, executor, finding);
            return finding != Finding::Undecided;
        }
        match finding {
            Finding::Undecided => return false,
            Finding::Valid => Self::settle(id, dispute, true, true),
            Finding::Hidden => {
                Self::settle(id, dispute, false, true);
                <Self as Reputation>::on_missed(executor, id.epoch);
            }
            Finding::Invalid => {
                Self::settle(id, dispute, false, true);
                Self::convict(executor, id);
            }
        }
        true
    }

    /// Ends an open dispute, and pays the client back unless the answer stands, or was a plant and is paid back already.
    pub(crate) fn settle(id: InferenceId, dispute: &Dispute, valid: bool, decided: bool) {
        let status = if valid { DisputeStatus::Valid } else { DisputeStatus::Invalid };
        Disputes::<T>::insert(id.epoch, id.index, Dispute { status, ..dispute.clone() });
        Self::note_closed(id.epoch);
        if !dispute.is_about_plant() {
            Self::note_decision(
                id,
                dispute,
                match (valid, decided) {
                    (false, _) => Decision::Upheld,
                    (true, true) => Decision::Rejected,
                    (true, false) => Decision::None,
                },
            );
            T::Inferences::settle_dispute(id, valid);
        }
        Self::deposit_event(Event::DisputeSettled { id, valid, decided });
    }

    /// A proof or a reveal makes an answer fall whose dispute is open: there is nothing left to judge for the panel at work, or the
    /// next one, and nobody owes it anything.
    pub(crate) fn end_early(id: InferenceId, dispute: &Dispute) {
        Self::dissolve_panel(id, dispute);
        Self::note_closed(id.epoch);
        Self::note_decision(id, dispute, Decision::Upheld);
    }

    // ---- whose complaints are heard ----

    /// Whether a verdict of this host beyond the limits opens a dispute, were it about something that may be disputed.
    pub(crate) fn hearing(epoch: EpochIndex, host: &AccountId, ground: Ground) -> Hearing {
        ComplaintsOf::<T>::get(epoch, (host, ground)).hearing()
    }

    /// The complaint that opened a dispute is decided. Its verdict says on which ground it was made: it cannot be replaced while
    /// a panel judges.
    fn note_decision(id: InferenceId, dispute: &Dispute, decision: Decision) {
        let Some(accuser) = &dispute.accuser else { return };
        let verdict = Verdicts::<T>::get(id.epoch, (id.index, accuser));
        let Some(ground) = verdict.map(|verdict| Ground::of(&verdict.outcome)) else { return };
        Self::note_complaint(id.epoch, accuser, ground, |complaints| complaints.decided(decision));
    }

    fn note_complaint(
        epoch: EpochIndex,
        host: &AccountId,
        ground: Ground,
        change: impl FnOnce(Complaints) -> Complaints,
    ) {
        ComplaintsOf::<T>::mutate(epoch, (host, ground), |complaints| *complaints = change(*complaints));
    }

    fn note_closed(epoch: EpochIndex) {
        let left = OpenDisputes::<T>::get(epoch).saturating_sub(1);
        match left {
            0 => OpenDisputes::<T>::remove(epoch),
            left => OpenDisputes::<T>::insert(epoch, left),
        }
    }

    /// A host is suspended once per epoch, however many of its answers fall.
    pub(crate) fn convict(host: &AccountId, id: InferenceId) {
        let fallen = Convictions::<T>::get(id.epoch, host);
        let first = Conviction { since: Self::now(), answers: 0 };
        let Conviction { since, answers } = fallen.unwrap_or(first);
        let conviction = Conviction { since, answers: answers.saturating_add(1) };
        Convictions::<T>::insert(id.epoch, host, conviction);
        Self::set_reputation(host, reputation::after_conviction());
        if fallen.is_none() {
            T::Hosts::convict(host);
            Self::deposit_event(Event::Convicted { host: host.clone(), epoch: id.epoch, id });
        }
    }
}
