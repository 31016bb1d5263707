//! Who may call, and what other pallets ask of this one.

use crate::{types::Refusal, Config, Counts, Error, Event, Inferences, Pallet, PendingFees, WeightInfo};
use frame_support::{defensive, dispatch::DispatchClass};
use frame_system::pallet_prelude::OriginFor;
use sp_runtime::{traits::UniqueSaturatedInto, DispatchError};
use starling_primitives::{
    records::{InferenceRecord, InferenceState},
    traits::{Attendance, EpochHooks, Hosts, Inferences as InferencesApi, Pots},
    AccountId, Balance, BlockNumber, EpochIndex, InferenceId, RequestId,
};

impl<T: Config> Pallet<T> {
    pub(crate) fn now() -> BlockNumber {
        frame_system::Pallet::<T>::block_number().unique_saturated_into()
    }

    /// The host whose worker key signed.
    pub(crate) fn ensure_worker(origin: OriginFor<T>) -> Result<AccountId, DispatchError> {
        let worker = frame_system::ensure_signed(origin)?;
        T::Hosts::host_of(&worker).ok_or_else(|| Error::<T>::NotAWorker.into())
    }

    /// Whether the call is signed by the worker key of a registered host, and so free of fees.
    pub(crate) fn is_worker(origin: &OriginFor<T>) -> bool {
        Self::ensure_worker(origin.clone()).is_ok()
    }

    pub(crate) fn refuse(request_id: RequestId, reason: Refusal) {
        Self::deposit_event(Event::RecordRefused { request_id, reason });
    }

    /// What a settled dispute gives back: from fees that still wait here, then from the pot or the host's bond.
    fn refund_price(id: InferenceId, record: &InferenceRecord) -> Balance {
        let pending = Self::take_pending(id.epoch, &record.executor, record.amount);
        let rest = record.amount.saturating_sub(pending);
        if rest == 0 {
            return pending;
        }
        let given = T::Pots::refund(id.epoch, &record.executor, rest, &Self::account_id());
        pending.saturating_add(given.min(rest))
    }
}

impl<T: Config> Pallet<T> {
    /// The answer of a paid record does not stand: the client has its money back. Returns how much.
    fn take_back(id: InferenceId, record: InferenceRecord, state: InferenceState) -> Balance {
        let refunded = Self::refund_price(id, &record);
        Self::credit(&record, refunded);
        Inferences::<T>::insert(id.epoch, id.index, InferenceRecord { state, amount: 0, ..record });
        refunded
    }

    /// The answer was wrong.
    fn strike(id: InferenceId, record: InferenceRecord) {
        T::Attendance::on_struck(id.epoch, record.profile, &record.executor);
        let refunded = Self::take_back(id, record, InferenceState::Invalid);
        Self::deposit_event(Event::Settled { id, valid: false, refunded });
    }

    /// A record that its client has paid for.
    fn paid(id: InferenceId) -> Option<InferenceRecord> {
        use InferenceState::{Delivered, Disputed, Finished, Valid};
        let paid = |record: &InferenceRecord| matches!(record.state, Finished | Delivered | Disputed | Valid);
        Inferences::<T>::get(id.epoch, id.index).filter(paid)
    }
}

impl<T: Config> InferencesApi for Pallet<T> {
    fn count(epoch: EpochIndex) -> u32 {
        Counts::<T>::get(epoch)
    }

    fn record(id: InferenceId) -> Option<InferenceRecord> {
        Inferences::<T>::get(id.epoch, id.index)
    }

    fn note_verdict(id: InferenceId, at: BlockNumber) {
        if let Some(mut record) = Inferences::<T>::get(id.epoch, id.index) {
            if record.first_verdict_at.is_none() {
                record.first_verdict_at = Some(at);
                Inferences::<T>::insert(id.epoch, id.index, record);
            }
        }
    }

    fn dispute(id: InferenceId) {
        let Some(mut record) = Inferences::<T>::get(id.epoch, id.index) else { return };
        if matches!(record.state, InferenceState::Finished | InferenceState::Delivered) {
            record.state = InferenceState::Disputed;
            Inferences::<T>::insert(id.epoch, id.index, record);
            Self::deposit_event(Event::Disputed { id });
        }
    }

    fn settle_dispute(id: InferenceId, valid: bool) {
        let Some(record) = Inferences::<T>::get(id.epoch, id.index) else { return };
        if record.state != InferenceState::Disputed {
            defensive!("only a disputed inference is settled");
            return;
        }
        if !valid {
            return Self::strike(id, record);
        }
        Inferences::<T>::insert(
            id.epoch,
            id.index,
            InferenceRecord { state: InferenceState::Valid, ..record },
        );
        Self::deposit_event(Event::Settled { id, valid, refunded: 0 });
    }

    fn invalidate(id: InferenceId) {
        if let Some(record) = Self::paid(id) {
            Self::strike(id, record);
        }
    }

    fn plant(id: InferenceId) {
        if let Some(record) = Self::paid(id) {
            T::Attendance::on_planted(id.epoch, record.profile, &record.executor, &record.gateway);
            let refunded = Self::take_back(id, record, InferenceState::Planted);
            Self::deposit_event(Event::Planted { id, refunded });
        }
    }
}

impl<T: Config> EpochHooks for Pallet<T> {
    /// The ended epoch's pot has its emission by now, so it can take whatever waited for it.
    fn on_claims_open(epoch: EpochIndex) {
        let Some(ended) = epoch.checked_sub(1) else { return };
        let hosts = PendingFees::<T>::decode_len(ended).unwrap_or(0);
        let cost = T::WeightInfo::flush_pending(u32::try_from(hosts).unwrap_or(u32::MAX));
        frame_system::Pallet::<T>::register_extra_weight_unchecked(cost, DispatchClass::Mandatory);
        Self::flush_pending(ended);
    }
}
