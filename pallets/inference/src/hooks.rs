//! Pruning: bounded work in what a block has left.

use crate::{
    types::PruneCursor, Config, Counts, Event, Inferences, Pallet, PendingFees, Pruned, RequestIndex,
    WeightInfo,
};
use frame_support::{defensive, dispatch::DispatchClass, traits::Get, weights::Weight};
use starling_primitives::{records::InferenceState, traits::Clock, BlockNumber, EpochIndex, InferenceId};

/// Records are kept while their epoch is at most this much older than the current one.
const KEPT_EPOCHS: EpochIndex = 2;

impl<T: Config> Pallet<T> {
    /// Removes records of epochs that nobody can claim, judge or refund any more. Takes at most half of what the block
    /// has left and at most [`Config::MaxPrunedPerBlock`] steps; returns what it used.
    pub(crate) fn prune(remaining: Weight) -> Weight {
        let check = T::WeightInfo::prune(0);
        let step = T::WeightInfo::prune(1).saturating_sub(check);
        let Some(budget) = remaining.div(2).checked_sub(&check) else { return Weight::zero() };
        let affordable = budget.checked_div_per_component(&step).unwrap_or(0);
        let limit = u32::try_from(affordable).unwrap_or(u32::MAX).min(T::MaxPrunedPerBlock::get());
        if limit == 0 {
            return Weight::zero();
        }
        let steps = Self::prune_steps(limit);
        check.saturating_add(step.saturating_mul(steps.into()))
    }

    pub(crate) fn prune_steps(limit: u32) -> u32 {
        let current = T::Clock::epoch().index;
        let now = Self::now();
        let start = Pruned::<T>::get();
        let mut cursor = start;
        let mut steps = 0u32;
        while steps < limit && cursor.epoch.saturating_add(KEPT_EPOCHS) < current {
            let next = if cursor.index < Counts::<T>::get(cursor.epoch) {
                if !Self::prune_one(InferenceId { epoch: cursor.epoch, index: cursor.index }, now) {
                    break;
                }
                PruneCursor { index: cursor.index.saturating_add(1), ..cursor }
            } else {
                Self::close_epoch(cursor.epoch, current);
                PruneCursor { epoch: cursor.epoch.saturating_add(1), index: 0 }
            };
            cursor = next;
            steps = steps.saturating_add(1);
        }
        if cursor != start {
            Pruned::<T>::put(cursor);
        }
        steps
    }

    /// Removes one record; false when its authorization could still be used, so that it has to stay.
    fn prune_one(id: InferenceId, now: BlockNumber) -> bool {
        let Some(record) = Inferences::<T>::get(id.epoch, id.index) else {
            defensive!("records are dense");
            return true;
        };
        if now <= record.expires_at {
            return false;
        }
        RequestIndex::<T>::remove(record.request_id);
        Inferences::<T>::remove(id.epoch, id.index);
        if record.state == InferenceState::Started {
            let request_id = record.request_id;
            if let Err(reason) = Self::refund_reserve(id, record) {
                Self::deposit_event(Event::RecordRefused { request_id, reason });
            }
        }
        true
    }

    /// Fees that an epoch's pot never took (it got no emission and never held the existential deposit) go to the
    /// current epoch's, so that they are not lost.
    pub(crate) fn close_epoch(epoch: EpochIndex, current: EpochIndex) {
        Counts::<T>::remove(epoch);
        let fees = PendingFees::<T>::take(epoch);
        if fees.is_empty() {
            return;
        }
        // Hardly ever, so no step of pruning pays for it beforehand.
        let cost = T::WeightInfo::close_epoch(fees.len() as u32);
        frame_system::Pallet::<T>::register_extra_weight_unchecked(cost, DispatchClass::Mandatory);
        Self::add_pending(current, &fees);
    }
}
