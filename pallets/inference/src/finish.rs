//! `Finished`, `Delivered` and expiry.

use crate::{cost::FinishShape, types::Refusal, Config, Event, Inferences, Pallet, RequestIndex};
use alloc::{collections::BTreeMap, vec::Vec};
use starling_primitives::{
    profile::Profile,
    records::{Delivered, Delivery, FinishedIn, InferenceRecord, InferenceResult, InferenceState},
    traits::{Attendance, Clock, Hosts, Profiles, Reputation},
    AccountId, Balance, BlockNumber, EpochIndex, InferenceId, ProfileId, RequestId,
};

/// Time and schedules, read once per batch.
pub(crate) struct Times {
    now: BlockNumber,
    current_expiry: BlockNumber,
    /// The epoch before, whose schedule may have been another one.
    previous: Option<(EpochIndex, BlockNumber)>,
}

impl Times {
    pub(crate) fn load<T: Config>() -> Self {
        let previous = T::Clock::previous().map(|epoch| (epoch.index, epoch.schedule.expiry_blocks));
        Self { now: Pallet::<T>::now(), current_expiry: T::Clock::epoch().schedule.expiry_blocks, previous }
    }

    /// Last block in which the record can finish.
    pub(crate) fn deadline(&self, id: InferenceId, record: &InferenceRecord) -> BlockNumber {
        let expiry = match self.previous {
            Some((epoch, expiry)) if epoch == id.epoch => expiry,
            _ => self.current_expiry,
        };
        record.started_at.saturating_add(expiry)
    }
}

/// The profiles that a batch names, each loaded once.
struct Prices(Vec<(ProfileId, Option<Profile>)>);

impl Prices {
    fn of<T: Config>(&mut self, id: ProfileId) -> Option<&Profile> {
        let position = match self.0.iter().position(|(known, _)| *known == id) {
            Some(position) => position,
            None => {
                self.0.push((id, T::Profiles::registered(id)));
                self.0.len().checked_sub(1)?
            }
        };
        self.0.get(position)?.1.as_ref()
    }
}

/// What one item of a `finish` batch came to.
struct Paid {
    price: Balance,
    delegated: bool,
    answer: Answer,
}

/// What an answer counts for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    epoch: EpochIndex,
    profile: ProfileId,
    gateway: AccountId,
}

/// Fees earned in a batch, by epoch.
#[derive(Default)]
struct Earned(Vec<(EpochIndex, Balance)>);

impl Earned {
    fn add(&mut self, epoch: EpochIndex, amount: Balance) {
        match self.0.iter_mut().find(|(known, _)| *known == epoch) {
            Some((_, sum)) => *sum = sum.saturating_add(amount),
            None => self.0.push((epoch, amount)),
        }
    }
}

impl<T: Config> Pallet<T> {
    /// Takes what it can of the batch and pays the sum into the pots.
    pub(crate) fn do_finish(host: &AccountId, items: &[FinishedIn]) -> FinishShape {
        let times = Times::load::<T>();
        let mut prices = Prices(Vec::new());
        let mut earned = Earned::default();
        let mut answers = BTreeMap::<Answer, u32>::new();
        let mut shape = FinishShape::default();
        for item in items {
            match Self::finish_one(&times, &mut prices, host, item) {
                Ok(paid) => {
                    earned.add(paid.answer.epoch, paid.price);
                    let count = answers.entry(paid.answer).or_default();
                    *count = count.saturating_add(1);
                    shape.taken = shape.taken.saturating_add(1);
                    shape.delegated = shape.delegated.saturating_add(paid.delegated.into());
                }
                Err(reason) => {
                    shape.refused = shape.refused.saturating_add(1);
                    Self::refuse(item.finished.request_id, reason);
                }
            }
        }
        shape.profiles = prices.0.len() as u32;
        for (epoch, sum) in earned.0 {
            Self::pay_fees(epoch, host, sum);
        }
        shape.counted = answers.len() as u32;
        for (Answer { epoch, profile, gateway }, count) in answers {
            T::Attendance::on_answered(epoch, profile, host, &gateway, count);
        }
        shape
    }

    /// The price has left the ledger when this returns: the caller moves it to the epoch's pot.
    fn finish_one(
        times: &Times,
        prices: &mut Prices,
        host: &AccountId,
        FinishedIn { epoch, finished: item }: &FinishedIn,
    ) -> Result<Paid, Refusal> {
        let (id, mut record) = Self::find(&item.request_id)?;
        if record.executor != *host {
            return Err(Refusal::NotInvolved);
        }
        if record.state != InferenceState::Started || times.now > times.deadline(id, &record) {
            return Err(Refusal::TooLate);
        }
        if *epoch != id.epoch {
            return Err(Refusal::OtherEpoch);
        }
        let profile = prices.of::<T>(record.profile).ok_or(Refusal::UnknownProfile)?;
        let fits = item
            .prompt_tokens
            .checked_add(item.completion_tokens)
            .is_some_and(|tokens| tokens <= profile.max_context);
        if !fits || item.prompt_tokens == 0 || item.completion_tokens == 0 {
            return Err(Refusal::TokensOutOfRange);
        }
        let price = profile.price(item.prompt_tokens, item.completion_tokens).min(record.amount);
        let released = Self::dissolve(&record, price)?;
        let delegated = record.delegate.is_some();
        let answer = Answer { epoch: id.epoch, profile: record.profile, gateway: record.gateway.clone() };
        record.state = InferenceState::Finished;
        record.amount = price;
        record.result = Some(InferenceResult {
            response_hash: item.response_hash,
            transcript_root: item.transcript_root,
            prompt_tokens: item.prompt_tokens,
            completion_tokens: item.completion_tokens,
            finished_at: times.now,
        });
        Inferences::<T>::insert(id.epoch, id.index, record);
        let (request_id, host) = (item.request_id, host.clone());
        Self::deposit_event(Event::Finished { id, request_id, price, released, host });
        Ok(Paid { price, delegated, answer })
    }

    /// Takes what it can of the batch; returns the number of items taken.
    pub(crate) fn do_deliver(host: &AccountId, items: &[Delivered]) -> u32 {
        let mut taken = 0u32;
        for item in items {
            match Self::deliver_one(host, item) {
                Ok(()) => taken = taken.saturating_add(1),
                Err(reason) => Self::refuse(item.request_id, reason),
            }
        }
        taken
    }

    fn deliver_one(host: &AccountId, item: &Delivered) -> Result<(), Refusal> {
        let (id, mut record) = Self::find(&item.request_id)?;
        if record.gateway != *host {
            return Err(Refusal::NotInvolved);
        }
        let result = record.result.as_ref().ok_or(Refusal::NotFinished)?;
        if record.delivery != Delivery::Pending {
            return Err(Refusal::Duplicate);
        }
        let matched = result.response_hash == item.response_hash;
        record.delivery = if matched { Delivery::Matched } else { Delivery::Mismatched };
        // A dispute, or its end, says more than a delivery.
        if record.state == InferenceState::Finished {
            record.state = InferenceState::Delivered;
        }
        Inferences::<T>::insert(id.epoch, id.index, record);
        Self::deposit_event(Event::Delivered { id, request_id: item.request_id, matched });
        Ok(())
    }

    /// Expires what it can of the batch; returns the number of items taken.
    pub(crate) fn do_expire(items: &[RequestId]) -> u32 {
        let times = Times::load::<T>();
        let mut taken = 0u32;
        for request_id in items {
            match Self::expire_one(&times, request_id) {
                Ok(()) => taken = taken.saturating_add(1),
                Err(reason) => Self::refuse(*request_id, reason),
            }
        }
        taken
    }

    fn expire_one(times: &Times, request_id: &RequestId) -> Result<(), Refusal> {
        let (id, record) = Self::find(request_id)?;
        if record.state != InferenceState::Started {
            return Err(Refusal::TooLate);
        }
        if times.now <= times.deadline(id, &record) {
            return Err(Refusal::NotExpired);
        }
        let expired = Self::refund_reserve(id, record)?;
        Inferences::<T>::insert(id.epoch, id.index, expired);
        Ok(())
    }

    /// Gives the reserve of a running record back and notes the miss, unless the executor had declared to be down; the caller stores (or drops) the record.
    pub(crate) fn refund_reserve(
        id: InferenceId,
        record: InferenceRecord,
    ) -> Result<InferenceRecord, Refusal> {
        let refunded = Self::dissolve(&record, 0)?;
        if !T::Hosts::is_away(&record.executor, record.started_at, Self::now()) {
            T::Reputation::on_missed(&record.executor, id.epoch);
        }
        Self::deposit_event(Event::Expired {
            id,
            request_id: record.request_id,
            executor: record.executor.clone(),
            refunded,
        });
        Ok(InferenceRecord { state: InferenceState::Expired, amount: 0, ..record })
    }

    fn find(request_id: &RequestId) -> Result<(InferenceId, InferenceRecord), Refusal> {
        let id = RequestIndex::<T>::get(request_id).ok_or(Refusal::UnknownRequest)?;
        let record = Inferences::<T>::get(id.epoch, id.index).ok_or(Refusal::Internal)?;
        Ok((id, record))
    }
}
