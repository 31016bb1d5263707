//! Pruning: bounded work in what a block has left.

use crate::{
    Accusations, ApproversOf, ComplaintsOf, Config, Convictions, Coverage, CoverageMarks, Disputes, Doubts,
    Missed, Negligences, OpenDisputes, Pallet, PanelTallies, Panels, Plants, PrunedBefore, Seats, Standings,
    Verdicts, WeightInfo,
};
use frame_support::{traits::Get, weights::Weight};
use sp_io::MultiRemovalResults;
use starling_primitives::{traits::Clock, EpochIndex};

/// Entries are kept while their epoch is at most this much older than the current one.
pub(crate) const KEPT_EPOCHS: EpochIndex = 2;

impl<T: Config> Pallet<T> {
    /// Removes entries of the oldest epoch that nobody can claim any more. Takes at most half of what the block has left
    /// and at most [`Config::MaxPrunedPerBlock`] entries; returns what it used.
    pub(crate) fn prune(remaining: Weight) -> Weight {
        let check = T::WeightInfo::prune(0);
        let step = T::WeightInfo::prune(1).saturating_sub(check);
        let Some(budget) = remaining.div(2).checked_sub(&check) else { return Weight::zero() };
        let affordable = budget.checked_div_per_component(&step).unwrap_or(0);
        let limit = u32::try_from(affordable).unwrap_or(u32::MAX).min(T::MaxPrunedPerBlock::get());
        let epoch = PrunedBefore::<T>::get();
        if limit == 0 || epoch.saturating_add(KEPT_EPOCHS) >= T::Clock::epoch().index {
            return check;
        }
        if OpenDisputes::<T>::contains_key(epoch) {
            return check;
        }
        let (removed, done) = Self::prune_epoch(epoch, limit);
        if done {
            Coverage::<T>::remove(epoch);
            PrunedBefore::<T>::put(epoch.saturating_add(1));
        }
        check.saturating_add(step.saturating_mul(removed.into()))
    }

    /// Removes up to `limit` entries; returns how many, and whether none are left.
    pub(crate) fn prune_epoch(epoch: EpochIndex, limit: u32) -> (u32, bool) {
        let clear: [fn(EpochIndex, u32) -> MultiRemovalResults; 15] = [
            |epoch, limit| Verdicts::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Seats::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| PanelTallies::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Panels::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Disputes::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| ComplaintsOf::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| CoverageMarks::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Missed::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Convictions::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Doubts::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Accusations::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Standings::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Plants::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| ApproversOf::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| Negligences::<T>::clear_prefix(epoch, limit, None),
        ];
        let mut removed = 0u32;
        for clear in clear {
            let left = limit.saturating_sub(removed);
            let result = clear(epoch, left);
            removed = removed.saturating_add(result.loops);
            if result.maybe_cursor.is_some() {
                return (removed, false);
            }
        }
        (removed, true)
    }
}
