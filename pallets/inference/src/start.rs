//! `Started`: what a batch is checked against, and how one item is taken.

use crate::{types::Refusal, Config, Counts, Event, Inferences, Pallet, RequestIndex};
use alloc::vec::Vec;
use sp_runtime::traits::Zero;
use starling_math::{clock, draw::DrawTable};
use starling_primitives::{
    records::{Delivery, InferenceRecord, InferenceState, Started, MAX_ATTEMPT},
    schedule::EpochState,
    traits::{Beacon, Clock, HostWeight, Hosts, Profiles, Round, Weights},
    AccountId, BlockNumber, EpochIndex, InferenceId, ProfileId, H256,
};

/// What all items of a batch share.
struct Frame<'a> {
    submitter: &'a AccountId,
    now: BlockNumber,
    /// Highest `expires_at` that is taken.
    horizon: BlockNumber,
    genesis: H256,
}

/// An epoch that takes new records.
struct OpenEpoch {
    index: EpochIndex,
    seed: H256,
    /// Index of its next record.
    next: u32,
    /// The same before the batch.
    first: u32,
}

/// The hosts that a profile's executors are drawn from in an epoch.
struct DrawSet {
    epoch: EpochIndex,
    profile: ProfileId,
    hosts: Vec<HostWeight>,
}

impl<T: Config> Pallet<T> {
    /// Takes what it can of the batch; returns the number of items taken.
    pub(crate) fn do_start(submitter: &AccountId, items: &[Started]) -> u32 {
        let now = Self::now();
        let current = T::Clock::epoch();
        let frame = Frame {
            submitter,
            now,
            horizon: now.saturating_add(current.schedule.epoch_blocks),
            genesis: frame_system::Pallet::<T>::block_hash(
                frame_system::pallet_prelude::BlockNumberFor::<T>::zero(),
            ),
        };
        let mut epochs = Self::open_epochs(&current, now);
        let sets = Self::draw_sets(&epochs, items);
        let tables: Vec<DrawTable> = sets.iter().map(|set| DrawTable::new(&set.hosts)).collect();
        let mut taken = 0u32;
        for item in items {
            let wanted = (item.epoch, item.authorization.authorization.profile);
            let table = sets.iter().position(|set| (set.epoch, set.profile) == wanted);
            let table = table.and_then(|position| tables.get(position));
            match Self::start_one(&frame, &mut epochs, table, item) {
                Ok(()) => taken = taken.saturating_add(1),
                Err(reason) => Self::refuse(item.authorization.authorization.request_id, reason),
            }
        }
        for epoch in epochs.iter().filter(|epoch| epoch.next != epoch.first) {
            Counts::<T>::insert(epoch.index, epoch.next);
        }
        taken
    }

    /// The current epoch and, during its first two coverage windows, the one before.
    fn open_epochs(current: &EpochState, now: BlockNumber) -> Vec<OpenEpoch> {
        let coverage_over = current.start.saturating_add(current.schedule.coverage_blocks.saturating_mul(2));
        let previous = (clock::in_grace(current, now) && now < coverage_over)
            .then(|| current.index.checked_sub(1))
            .flatten();
        let open = |index| {
            let seed = T::Beacon::seed(Round::Epoch(index))?;
            let next = Counts::<T>::get(index);
            Some(OpenEpoch { index, seed, next, first: next })
        };
        core::iter::once(current.index).chain(previous).filter_map(open).collect()
    }

    /// The draw sets that the items of a batch name, each loaded once.
    fn draw_sets(epochs: &[OpenEpoch], items: &[Started]) -> Vec<DrawSet> {
        let mut sets: Vec<DrawSet> = Vec::new();
        for item in items {
            let (epoch, profile) = (item.epoch, item.authorization.authorization.profile);
            let known = sets.iter().any(|set| (set.epoch, set.profile) == (epoch, profile));
            if known || !epochs.iter().any(|open| open.index == epoch) {
                continue;
            }
            let hosts = match T::Profiles::profile(profile) {
                Some(_) => T::Weights::of_profile(epoch, profile),
                None => Vec::new(),
            };
            sets.push(DrawSet { epoch, profile, hosts });
        }
        sets
    }

    fn start_one(
        frame: &Frame,
        epochs: &mut [OpenEpoch],
        table: Option<&DrawTable>,
        item: &Started,
    ) -> Result<(), Refusal> {
        let epoch = epochs.iter_mut().find(|open| open.index == item.epoch).ok_or(Refusal::EpochClosed)?;
        Self::check_terms(frame, item)?;
        match RequestIndex::<T>::get(item.authorization.authorization.request_id) {
            None => {
                Self::check_proof(frame, epoch, table, item)?;
                Self::open(frame, epoch, item)
            }
            Some(id) => {
                let record = Inferences::<T>::get(id.epoch, id.index).ok_or(Refusal::Internal)?;
                Self::check_reassignment(frame, id, &record, item)?;
                Self::check_proof(frame, epoch, table, item)?;
                Self::reassign(frame, id, record, item);
                Ok(())
            }
        }
    }

    /// What can be said of an item at no cost.
    fn check_terms(frame: &Frame, item: &Started) -> Result<(), Refusal> {
        let authorization = &item.authorization.authorization;
        if *frame.submitter != authorization.gateway && *frame.submitter != item.executor {
            return Err(Refusal::NotInvolved);
        }
        if item.attempt > MAX_ATTEMPT {
            return Err(Refusal::AttemptTooHigh);
        }
        if !(frame.now..=frame.horizon).contains(&authorization.expires_at) {
            return Err(Refusal::AuthorizationOutOfRange);
        }
        if *frame.submitter != authorization.gateway && T::Hosts::worker_of(&authorization.gateway).is_none()
        {
            return Err(Refusal::UnknownGateway);
        }
        Ok(())
    }

    /// The draw, then the signature: the dearest check comes last.
    fn check_proof(
        frame: &Frame,
        epoch: &OpenEpoch,
        table: Option<&DrawTable>,
        item: &Started,
    ) -> Result<(), Refusal> {
        let authorization = &item.authorization.authorization;
        let drawn = table
            .and_then(|table| {
                table.executor(&epoch.seed, &authorization.request_id, item.attempt, &authorization.gateway)
            })
            .ok_or(Refusal::UnknownProfile)?;
        if *drawn != item.executor {
            return Err(Refusal::WrongExecutor);
        }
        if !item.authorization.verify(&frame.genesis) {
            return Err(Refusal::BadSignature);
        }
        Ok(())
    }

    fn open(frame: &Frame, epoch: &mut OpenEpoch, item: &Started) -> Result<(), Refusal> {
        let authorization = &item.authorization.authorization;
        let signer = &item.authorization.signer;
        let delegate = (*signer != authorization.client).then(|| signer.clone());
        let next = epoch.next.checked_add(1).ok_or(Refusal::EpochClosed)?;
        Self::reserve(&authorization.client, delegate.as_ref(), authorization.max_price)?;
        let id = InferenceId { epoch: epoch.index, index: epoch.next };
        epoch.next = next;
        let record = InferenceRecord {
            request_id: authorization.request_id,
            client: authorization.client.clone(),
            delegate,
            expires_at: authorization.expires_at,
            gateway: authorization.gateway.clone(),
            executor: item.executor.clone(),
            profile: authorization.profile,
            attempt: item.attempt,
            state: InferenceState::Started,
            started_at: frame.now,
            amount: authorization.max_price,
            result: None,
            delivery: Delivery::Pending,
            first_verdict_at: None,
        };
        Inferences::<T>::insert(id.epoch, id.index, record);
        RequestIndex::<T>::insert(authorization.request_id, id);
        Self::deposit_event(Event::Started {
            id,
            request_id: authorization.request_id,
            client: authorization.client.clone(),
            gateway: authorization.gateway.clone(),
            executor: item.executor.clone(),
            reserved: authorization.max_price,
        });
        Ok(())
    }

    /// A recorded request moves on by its gateway only, only forward, and under the terms it was recorded with.
    fn check_reassignment(
        frame: &Frame,
        id: InferenceId,
        record: &InferenceRecord,
        item: &Started,
    ) -> Result<(), Refusal> {
        let authorization = &item.authorization.authorization;
        if item.attempt <= record.attempt {
            return Err(Refusal::Duplicate);
        }
        if record.state != InferenceState::Started {
            return Err(Refusal::NotRunning);
        }
        if *frame.submitter != record.gateway {
            return Err(Refusal::NotInvolved);
        }
        let same_terms = id.epoch == item.epoch
            && record.client == authorization.client
            && record.gateway == authorization.gateway
            && record.profile == authorization.profile
            && record.amount == authorization.max_price;
        if !same_terms {
            return Err(Refusal::TermsChanged);
        }
        Ok(())
    }

    /// The reserve, and the key it was charged to, stay as they are.
    fn reassign(frame: &Frame, id: InferenceId, record: InferenceRecord, item: &Started) {
        let record = InferenceRecord {
            executor: item.executor.clone(),
            attempt: item.attempt,
            started_at: frame.now,
            expires_at: record.expires_at.max(item.authorization.authorization.expires_at),
            ..record
        };
        Self::deposit_event(Event::Reassigned {
            id,
            request_id: record.request_id,
            executor: item.executor.clone(),
            attempt: item.attempt,
        });
        Inferences::<T>::insert(id.epoch, id.index, record);
    }
}
