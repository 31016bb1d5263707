//! What the clock tells, and pruning in bounded steps.

use crate::{Config, Contributions, CoverageDrawn, FinalAt, Pallet, PrunedTo, Seeds, Tallies, WeightInfo};
use frame_support::{dispatch::DispatchClass, traits::Get, weights::Weight};
use starling_math::clock::coverage_window;
use starling_primitives::{
    traits::{Clock, EpochHooks, Round},
    BlockNumber, EpochIndex,
};

/// Rounds of the current epoch and of this many before it are kept.
pub(crate) const KEPT_EPOCHS: EpochIndex = 2;

impl<T: Config> EpochHooks for Pallet<T> {
    fn seed_is_final(epoch: EpochIndex, extensions_left: u8) -> bool {
        Self::charge(T::WeightInfo::finalise(Tallies::<T>::get(epoch).count));
        Self::decide_seed(epoch, extensions_left)
    }

    fn on_check(epoch: EpochIndex) {
        Self::charge(T::WeightInfo::draw());
        Self::draw(Round::Challenge(epoch));
    }

    fn on_coverage_boundary(epoch: EpochIndex, offset: BlockNumber) {
        Self::charge(T::WeightInfo::draw());
        let current = T::Clock::epoch();
        let schedule = if epoch == current.index {
            current.schedule
        } else {
            T::Clock::previous().unwrap_or(current).schedule
        };
        // The boundary at offset n x length closes window n - 1.
        let Some(window) = coverage_window(&schedule, offset).checked_sub(1) else { return };
        CoverageDrawn::<T>::mutate(epoch, |drawn| *drawn = (*drawn).max(window.saturating_add(1)));
        Self::draw(Round::Coverage(epoch, window));
    }

    fn on_claims_open(epoch: EpochIndex) {
        Self::charge(T::WeightInfo::draw());
        if let Some(claimable) = epoch.checked_sub(1) {
            Self::draw(Round::Claim(claimable));
        }
    }
}

impl<T: Config> Pallet<T> {
    /// The clock calls from its own hook, whose weight does not know what is done here.
    fn charge(weight: Weight) {
        frame_system::Pallet::<T>::register_extra_weight_unchecked(weight, DispatchClass::Mandatory);
    }

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

    /// Removes contributions, then coverage windows from the last one down, then the rest of the epoch, which is one item
    /// more. Returns what is left of the limit. The contributions are walked once: a search for the first key, again for
    /// each item, would pass all keys that this block has removed before.
    fn prune_epoch(epoch: EpochIndex, limit: u32) -> u32 {
        let contributions = Contributions::<T>::iter_key_prefix(epoch).drain();
        let mut left = limit.saturating_sub(contributions.take(limit as usize).count() as u32);
        let drawn = CoverageDrawn::<T>::get(epoch);
        let kept = drawn.saturating_sub(left);
        if kept < drawn {
            for window in kept..drawn {
                Seeds::<T>::remove(Round::Coverage(epoch, window));
            }
            CoverageDrawn::<T>::insert(epoch, kept);
            left = left.saturating_sub(drawn.saturating_sub(kept));
        }
        if left == 0 {
            return 0;
        }
        for round in [Round::Epoch(epoch), Round::Challenge(epoch), Round::Claim(epoch)] {
            Seeds::<T>::remove(round);
        }
        FinalAt::<T>::remove(epoch);
        Tallies::<T>::remove(epoch);
        CoverageDrawn::<T>::remove(epoch);
        PrunedTo::<T>::put(epoch.saturating_add(1));
        left.saturating_sub(1)
    }
}
