//! Pruning: bounded work in what a block has left; and what always holds.

use crate::{impls::REMEMBERED, weights, Answers, Config, Doubts, Pallet, PrunedBefore, Tallies};
use frame_support::{traits::Get, weights::Weight};
use sp_io::MultiRemovalResults;
use starling_primitives::{traits::Clock, EpochIndex};

/// Counters are kept while their epoch is at most this much older than the current one: the claim of the epoch before asks
/// for the one before that.
pub(crate) const KEPT_EPOCHS: EpochIndex = 3;
/// Products are kept for so much longer.
const KEPT_LONGER: EpochIndex = REMEMBERED - 1;

impl<T: Config> Pallet<T> {
    /// Removes entries of the oldest epoch that no claim asks for any more. Takes at most half of what the block has left
    /// and at most [`Config::MaxPrunedPerBlock`] entries; returns what it used.
    pub(crate) fn prune(remaining: Weight) -> Weight {
        let (check, step) = (weights::prune_check::<T>(), weights::prune_step::<T>());
        let Some(budget) = remaining.div(2).checked_sub(&check) else { return Weight::zero() };
        let affordable = budget.checked_div_per_component(&step).unwrap_or(0);
        let limit = u32::try_from(affordable).unwrap_or(u32::MAX).min(T::MaxPrunedPerBlock::get());
        let epoch = PrunedBefore::<T>::get();
        if limit == 0 || epoch.saturating_add(KEPT_EPOCHS) >= T::Clock::epoch().index {
            return check;
        }
        let (removed, done) = Self::prune_epoch(epoch, limit);
        if done {
            PrunedBefore::<T>::put(epoch.saturating_add(1));
        }
        check.saturating_add(step.saturating_mul(removed.into()))
    }

    /// Removes up to `limit` entries; returns how many, and whether none are left.
    fn prune_epoch(epoch: EpochIndex, limit: u32) -> (u32, bool) {
        // The number of answers goes last: as long as it is there, an answer can be struck.
        let clear: [fn(EpochIndex, u32) -> MultiRemovalResults; 3] = [
            |epoch, limit| Tallies::<T>::clear_prefix(epoch, limit, None),
            |epoch, limit| match epoch.checked_sub(KEPT_LONGER) {
                Some(epoch) => Doubts::<T>::clear_prefix(epoch, limit, None),
                None => MultiRemovalResults { maybe_cursor: None, backend: 0, unique: 0, loops: 0 },
            },
            |epoch, limit| Answers::<T>::clear_prefix(epoch, limit, None),
        ];
        let mut removed = 0u32;
        for clear in clear {
            let result = clear(epoch, limit.saturating_sub(removed));
            removed = removed.saturating_add(result.loops);
            if result.maybe_cursor.is_some() {
                return (removed, false);
            }
        }
        (removed, true)
    }

    /// Invariants:
    ///
    /// 1. The answers of a profile in an epoch are those of its hosts, struck ones included; but for the oldest epoch, which is
    ///    being pruned.
    /// 2. A product is above 0 and not above [`starling_math::attendance::ABSENT`], and a host has one at most.
    /// 3. Nothing is kept of epochs that are pruned.
    #[cfg(any(test, feature = "invariants"))]
    pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
        use alloc::collections::{BTreeMap, BTreeSet};
        use frame_support::ensure;

        let oldest = PrunedBefore::<T>::get();
        let mut sums = BTreeMap::new();
        for (epoch, (profile, _), tally) in Tallies::<T>::iter() {
            ensure!(epoch >= oldest, "a tally outlives its epoch");
            let sum: &mut u64 = sums.entry((epoch, profile)).or_default();
            *sum = sum.saturating_add(tally.answered.into()).saturating_add(tally.struck.into());
        }
        for (epoch, profile, answers) in Answers::<T>::iter() {
            ensure!(epoch >= oldest, "a number of answers outlives its epoch");
            let counted = sums.remove(&(epoch, profile)).unwrap_or_default();
            ensure!(epoch == oldest || counted == u64::from(answers), "the answers do not add up");
        }
        ensure!(sums.keys().all(|(epoch, _)| *epoch == oldest), "tallies of answers that nobody counted");
        let mut hosts = BTreeSet::new();
        for (epoch, host, doubt) in Doubts::<T>::iter() {
            ensure!(epoch.saturating_add(KEPT_LONGER) >= oldest, "a product outlives its time");
            ensure!((1..=starling_math::attendance::ABSENT).contains(&doubt), "a product out of range");
            ensure!(hosts.insert(host), "two products of one host");
        }
        Ok(())
    }
}
