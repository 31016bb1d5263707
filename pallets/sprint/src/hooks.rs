//! What the clock tells, and pruning in bounded steps.

use crate::{
    CommitmentCount, Commitments, Config, EpochWeights, Pallet, ProfileWeights, PrunedTo, Voters, WeightInfo,
};
use frame_support::{traits::Get, weights::Weight};
use starling_primitives::{
    traits::{Clock, EpochHooks},
    EpochIndex,
};

/// Weights of the current epoch and of this many before it are kept.
pub(crate) const KEPT_EPOCHS: EpochIndex = 2;

impl<T: Config> EpochHooks for Pallet<T> {
    fn on_epoch_change(ended: EpochIndex) {
        Self::elect(ended);
    }
}

impl<T: Config> Pallet<T> {
    /// Prunes what a block has room for, at most `MaxPrunedPerBlock` items. Returns the weight used.
    pub(crate) fn prune(remaining: Weight) -> Weight {
        let check = T::WeightInfo::prune(0);
        let step = T::WeightInfo::prune(1).saturating_sub(check);
        let Some(budget) = remaining.checked_sub(&check) else { return Weight::zero() };
        let affordable = budget.checked_div_per_component(&step).unwrap_or(0);
        let limit = u32::try_from(affordable).unwrap_or(u32::MAX).min(T::MaxPrunedPerBlock::get());
        let steps = Self::prune_steps(limit);
        check.saturating_add(step.saturating_mul(steps.into()))
    }

    /// Removes at most `limit` items of epochs that are no longer kept; returns how many.
    pub(crate) fn prune_steps(limit: u32) -> u32 {
        let current = T::Clock::epoch().index;
        let mut left = limit;
        while left > 0 {
            let epoch = PrunedTo::<T>::get();
            if epoch.saturating_add(KEPT_EPOCHS) >= current {
                break;
            }
            left = Self::prune_epoch(epoch, left);
        }
        limit.saturating_sub(left)
    }

    /// Removes lists of voters, then commitments, then lists of weights, then the rest of the epoch, which is one item more.
    /// Returns what is left of the limit. Each map is walked once: a search for its first key, again for each item, would
    /// pass all keys that this block has removed before.
    fn prune_epoch(epoch: EpochIndex, limit: u32) -> u32 {
        let mut left = limit;
        let mut drain = |keys: &mut dyn Iterator<Item = ()>| {
            let removed = keys.take(left as usize).count() as u32;
            left = left.saturating_sub(removed);
        };
        drain(&mut Voters::<T>::iter_key_prefix(epoch).drain().map(drop));
        drain(&mut Commitments::<T>::iter_key_prefix(epoch).drain().map(drop));
        drain(&mut ProfileWeights::<T>::iter_key_prefix(epoch).drain().map(drop));
        if left == 0 {
            return 0;
        }
        CommitmentCount::<T>::remove(epoch);
        EpochWeights::<T>::remove(epoch);
        PrunedTo::<T>::put(epoch.saturating_add(1));
        left.saturating_sub(1)
    }
}
