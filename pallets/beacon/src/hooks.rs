//! What the clock tells, and pruning in bounded steps.

use crate::{weights, Config, Contributions, CoverageDrawn, FinalAt, Pallet, PrunedTo, Seeds, Tallies};
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
        Self::charge(weights::finalise::<T>(Tallies::<T>::get(epoch).count));
        Self::decide_seed(epoch, extensions_left)
    }

    fn on_check(epoch: EpochIndex) {
        Self::charge(weights::draw::<T>());
        Self::draw(Round::Challenge(epoch));
    }

    fn on_coverage_boundary(epoch: EpochIndex, offset: BlockNumber) {
        Self::charge(weights::draw::<T>());
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
        Self::charge(weights::draw::<T>());
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

    /// Removes one contribution, else one coverage window, else the rest of the epoch.
    fn prune_one(epoch: EpochIndex) {
        if let Some(host) = Contributions::<T>::iter_key_prefix(epoch).next() {
            Contributions::<T>::remove(epoch, host);
            return;
        }
        if let Some(window) = CoverageDrawn::<T>::get(epoch).checked_sub(1) {
            Seeds::<T>::remove(Round::Coverage(epoch, window));
            CoverageDrawn::<T>::insert(epoch, window);
            return;
        }
        for round in [Round::Epoch(epoch), Round::Challenge(epoch), Round::Claim(epoch)] {
            Seeds::<T>::remove(round);
        }
        FinalAt::<T>::remove(epoch);
        Tallies::<T>::remove(epoch);
        CoverageDrawn::<T>::remove(epoch);
        PrunedTo::<T>::put(epoch.saturating_add(1));
    }
}
