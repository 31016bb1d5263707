//! Disputes: opened by a failing verdict, decided by weight, closed in favour of the executor when nobody decides.

use crate::{
    types::{Conviction, Dispute, DisputeStatus, Votes},
    weights, Config, Convictions, Disputes, Event, OpenDisputes, Pallet, PrunedBefore, Tallies,
};
use alloc::vec::Vec;
use frame_support::{traits::Get, weights::Weight};
use starling_math::{
    clock,
    dispute::{tally, Tally},
    reputation,
};
use starling_primitives::{
    records::{InferenceRecord, InferenceState},
    traits::{Clock, Hosts, Inferences, Reputation},
    AccountId, EpochIndex, InferenceId, Work,
};

impl<T: Config> Pallet<T> {
    /// Opens a dispute unless there was one. An inference is disputed once.
    pub(crate) fn open_dispute(id: InferenceId, record: &InferenceRecord, accuser: &AccountId) -> bool {
        let disputable = matches!(record.state, InferenceState::Finished | InferenceState::Delivered);
        if !disputable || Disputes::<T>::contains_key(id.epoch, id.index) {
            return false;
        }
        let current = T::Clock::epoch();
        let opened_at = Self::now();
        let late = id.epoch < current.index && !clock::in_grace(&current, opened_at);
        let dispute = Dispute { opened_at, late, status: DisputeStatus::Open };
        Disputes::<T>::insert(id.epoch, id.index, dispute);
        OpenDisputes::<T>::insert((id.epoch, late), id.index, ());
        T::Inferences::dispute(id);
        Self::deposit_event(Event::DisputeOpened { id, accuser: accuser.clone() });
        true
    }

    /// Settles an open dispute when more than half of the eligible weight agrees. Returns whether it did.
    pub(crate) fn decide(id: InferenceId, executor: &AccountId, votes: &Votes, eligible: Work) -> bool {
        let Some(dispute) = Disputes::<T>::get(id.epoch, id.index) else { return false };
        if dispute.status != DisputeStatus::Open {
            return false;
        }
        // Hiding the evidence speaks against the answer.
        match tally(&[(votes.passed, true), (votes.failed, false), (votes.unavailable, false)], eligible) {
            Tally::Undecided => return false,
            Tally::Valid => Self::settle(id, dispute, true, true),
            Tally::Invalid => {
                Self::settle(id, dispute, false, true);
                // Only those who saw the transcript can convict.
                match tally(&[(votes.failed, false)], eligible) {
                    Tally::Invalid => Self::convict(executor, id),
                    _ => <Self as Reputation>::on_missed(executor, id.epoch),
                }
            }
        }
        true
    }

    /// Notes a miss, once, when more than half of the eligible weight cannot get the transcript.
    pub(crate) fn note_unavailable(id: InferenceId, executor: &AccountId, votes: Votes, eligible: Work) {
        if votes.missed || tally(&[(votes.unavailable, false)], eligible) != Tally::Invalid {
            return;
        }
        Tallies::<T>::insert(id.epoch, id.index, Votes { missed: true, ..votes });
        Self::deposit_event(Event::TranscriptMissed { id, executor: executor.clone() });
        <Self as Reputation>::on_missed(executor, id.epoch);
    }

    fn settle(id: InferenceId, dispute: Dispute, valid: bool, decided: bool) {
        let status = if valid { DisputeStatus::Valid } else { DisputeStatus::Invalid };
        Disputes::<T>::insert(id.epoch, id.index, Dispute { status, ..dispute });
        OpenDisputes::<T>::remove((id.epoch, dispute.late), id.index);
        T::Inferences::settle_dispute(id, valid);
        Self::deposit_event(Event::DisputeSettled { id, valid, decided });
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

    /// Closes a bounded number of disputes whose time is over.
    pub(crate) fn close_overdue() -> Weight {
        let current = T::Clock::epoch();
        let mut left = T::MaxClosedPerBlock::get();
        let mut overdue: Vec<(EpochIndex, bool)> = Vec::new();
        if !clock::in_grace(&current, Self::now()) {
            overdue.extend(current.index.checked_sub(1).map(|epoch| (epoch, false)));
        }
        // The oldest one still kept comes in only when earlier blocks could not close all.
        let claimed = current.index.checked_sub(2);
        let oldest = Some(PrunedBefore::<T>::get()).filter(|oldest| Some(*oldest) < claimed);
        for epoch in claimed.into_iter().chain(oldest) {
            overdue.extend([(epoch, false), (epoch, true)]);
        }
        for queue in overdue {
            left = left.saturating_sub(Self::close_some(queue, left));
        }
        let closed = T::MaxClosedPerBlock::get().saturating_sub(left);
        weights::dispute_check::<T>().saturating_add(weights::settlement::<T>().saturating_mul(closed.into()))
    }

    fn close_some(queue: (EpochIndex, bool), limit: u32) -> u32 {
        let due: Vec<u32> = OpenDisputes::<T>::iter_key_prefix(queue).take(limit as usize).collect();
        let closed = due.len() as u32;
        for index in due {
            let id = InferenceId { epoch: queue.0, index };
            match Disputes::<T>::get(id.epoch, id.index) {
                Some(dispute) => Self::settle(id, dispute, true, false),
                None => OpenDisputes::<T>::remove(queue, index),
            }
        }
        closed
    }
}
