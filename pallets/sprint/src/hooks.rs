//! What the clock tells, and pruning in bounded steps.

use crate::{
    weights, CommitmentCount, Commitments, Config, EpochWeights, Pallet, ProfileWeights, PrunedTo, Verdicts,
    Voters,
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
        let check = weights::prune_check::<T>();
        let step = weights::prune_step::<T>();
        let Some(budget) = remaining.checked_sub(&check) else { return Weight::zero() };
        let affordable = budget.checked_div_per_component(&step).unwrap_or(0);
        let limit = u32::try_from(affordable).unwrap_or(u32::MAX).min(T::MaxPrunedPerBlock::get());
        let steps = Self::prune_steps(limit);
        check.saturating_add(step.saturating_mul(steps.into()))
    }

    /// Removes at most `limit` items of epochs that are no longer kept; returns how many.
    pub(crate) fn prune_steps(limit: u32) -> u32 {
        let current = T::Clock::epoch().index;
        let mut steps = 0u32;
        while steps < limit {
            let epoch = PrunedTo::<T>::get();
            if epoch.saturating_add(KEPT_EPOCHS) >= current {
                break;
            }
            Self::prune_one(epoch);
            steps = steps.saturating_add(1);
        }
        steps
    }

    /// Removes one verdict, else one list of voters, one commitment, one list of weights, else the rest of the epoch.
    fn prune_one(epoch: EpochIndex) {
        if let Some(key) = Verdicts::<T>::iter_key_prefix(epoch).next() {
            Verdicts::<T>::remove(epoch, key);
        } else if let Some(key) = Voters::<T>::iter_key_prefix(epoch).next() {
            Voters::<T>::remove(epoch, key);
        } else if let Some(key) = Commitments::<T>::iter_key_prefix(epoch).next() {
            Commitments::<T>::remove(epoch, key);
        } else if let Some(profile) = ProfileWeights::<T>::iter_key_prefix(epoch).next() {
            ProfileWeights::<T>::remove(epoch, profile);
        } else {
            CommitmentCount::<T>::remove(epoch);
            EpochWeights::<T>::remove(epoch);
            PrunedTo::<T>::put(epoch.saturating_add(1));
        }
    }
}
