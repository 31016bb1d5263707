//! What always holds.

use crate::{
    hooks::KEPT_EPOCHS, CommitmentCount, Commitments, Config, EpochWeights, Pallet, ProfileWeights, PrunedTo,
    Voters,
};
use alloc::collections::{BTreeMap, BTreeSet};
use frame_support::{ensure, traits::Get};
use sp_runtime::TryRuntimeError;
use starling_primitives::{
    sprint::MAX_SPRINT_COUNT,
    traits::{Clock, HostWeight},
    AccountId, EpochIndex, Work,
};

impl<T: Config> Pallet<T> {
    /// Invariants, for every epoch that is not being pruned:
    ///
    /// 1. Weights are sorted by account without repetition, and never 0.
    /// 2. A host's weights over the profiles sum to its weight, with the same reputation.
    /// 3. The number of commitments is what was counted, at most `MaxCommitments`; each count is in range.
    /// 4. Voters of a commitment are distinct, sorted by score, at most `MaxVoters`, and never the prover; there are none
    ///    without a commitment. No verdict has more failures than samples.
    ///
    /// And nothing is left of an epoch before `PrunedTo`, nor set for an epoch after the current one.
    pub fn do_try_state() -> Result<(), TryRuntimeError> {
        let current = T::Clock::epoch().index;
        let pruned = PrunedTo::<T>::get();
        ensure!(pruned <= current.saturating_sub(KEPT_EPOCHS), "something was pruned too early");
        let kept = |epoch: EpochIndex| (pruned..=current).contains(&epoch);
        ensure!(EpochWeights::<T>::iter_keys().all(kept), "weights out of range");
        ensure!(ProfileWeights::<T>::iter_keys().all(|(epoch, _)| kept(epoch)), "parts out of range");
        ensure!(CommitmentCount::<T>::iter_keys().all(kept), "a count out of range");
        ensure!(Commitments::<T>::iter_keys().all(|(epoch, _)| kept(epoch)), "a commitment out of range");
        ensure!(Voters::<T>::iter_keys().all(|(epoch, _)| kept(epoch)), "voters out of range");
        for epoch in current.saturating_sub(KEPT_EPOCHS)..=current {
            Self::try_weights(epoch)?;
            Self::try_sprint(epoch)?;
        }
        Ok(())
    }

    fn try_weights(epoch: EpochIndex) -> Result<(), TryRuntimeError> {
        let ordered = |hosts: &[HostWeight]| {
            hosts.iter().all(|entry| entry.weight > 0)
                && hosts.iter().zip(hosts.iter().skip(1)).all(|(a, b)| a.host < b.host)
        };
        let all = EpochWeights::<T>::get(epoch);
        ensure!(ordered(&all), "weights out of order");
        let mut sums: BTreeMap<AccountId, Work> = BTreeMap::new();
        for (_, hosts) in ProfileWeights::<T>::iter_prefix(epoch) {
            ensure!(!hosts.is_empty() && ordered(&hosts), "parts out of order");
            for entry in hosts {
                let whole = Self::find(&all, &entry.host).ok_or("a part without a whole")?;
                ensure!(whole.reputation == entry.reputation, "reputations differ");
                let sum = sums.entry(entry.host).or_default();
                *sum = sum.checked_add(entry.weight).ok_or("parts overflow")?;
            }
        }
        ensure!(sums.len() == all.len(), "a whole without parts");
        ensure!(all.iter().all(|entry| sums.get(&entry.host) == Some(&entry.weight)), "parts do not sum up");
        Ok(())
    }

    fn try_sprint(epoch: EpochIndex) -> Result<(), TryRuntimeError> {
        let count = Commitments::<T>::iter_prefix(epoch).count();
        ensure!(count == CommitmentCount::<T>::get(epoch) as usize, "commitments were not counted");
        ensure!(count <= T::MaxCommitments::get() as usize, "too many commitments");
        let in_range = |count: u32| (1..=MAX_SPRINT_COUNT).contains(&count);
        ensure!(Commitments::<T>::iter_prefix(epoch).all(|(_, c)| in_range(c.count)), "a count out of range");
        for (key, list) in Voters::<T>::iter_prefix(epoch) {
            ensure!(Commitments::<T>::contains_key(epoch, &key), "voters without a commitment");
            ensure!(
                list.iter().zip(list.iter().skip(1)).all(|(a, b)| a.score >= b.score),
                "voters out of order"
            );
            let (_, prover) = key;
            let distinct: BTreeSet<_> = list.iter().map(|voter| &voter.verifier).collect();
            ensure!(distinct.len() == list.len(), "somebody voted twice");
            for voter in &list {
                ensure!(voter.verifier != prover && voter.weight > 0, "a voter without a right to vote");
                ensure!(voter.verdict.checked > 0, "nothing was checked");
                ensure!(voter.verdict.failed <= voter.verdict.checked, "more failures than samples");
            }
        }
        Ok(())
    }
}
