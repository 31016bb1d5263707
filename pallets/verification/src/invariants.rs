//! What always holds.

use crate::{
    types::{DisputeStatus, Votes},
    verdicts::Juries,
    Accusations, Config, Coverage, CoverageMarks, Disputes, Doubts, OpenDisputes, Pallet, PrunedBefore,
    Reputations, Standings, Tallies, Verdicts,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use frame_support::ensure;
use sp_runtime::DispatchError;
use starling_math::evidence::ACCUSES;
use starling_primitives::{
    records::InferenceState,
    traits::{Clock, Inferences},
    InferenceId, PPM,
};

impl<T: Config> Pallet<T> {
    /// Checks the pallet's state.
    ///
    /// 1. The votes of an inference sum the weights of its verdicts, and no executor judges itself.
    /// 2. The queue names exactly the open disputes, and their inferences are disputed.
    /// 3. Windows of an epoch follow each other without gap or overlap up to what is closed.
    /// 4. Reputations are at most 1,000,000 ppm and never stored as 0.
    /// 5. A running product lies between 1 and the test's limit, nobody doubts or accuses itself, nobody accuses twice, and
    ///    an accused host has a standing.
    pub fn do_try_state() -> Result<(), DispatchError> {
        Self::check_votes()?;
        Self::check_disputes()?;
        Self::check_coverage()?;
        for reputation in Reputations::<T>::iter_values() {
            ensure!((1..=PPM).contains(&reputation), "a reputation out of range");
        }
        Self::check_suspicion()
    }

    fn check_suspicion() -> Result<(), DispatchError> {
        for (_, (executor, _, verifier), doubt) in Doubts::<T>::iter() {
            ensure!((1..ACCUSES).contains(&doubt), "a doubt out of range");
            ensure!(executor != verifier, "a host doubts itself");
        }
        let oldest = PrunedBefore::<T>::get();
        for (epoch, (executor, _), accusers) in Accusations::<T>::iter().filter(|(epoch, ..)| *epoch > oldest)
        {
            let distinct: BTreeSet<_> = accusers.iter().collect();
            ensure!(distinct.len() == accusers.len() && !distinct.is_empty(), "nobody accuses, or one twice");
            ensure!(!distinct.contains(&executor), "a host accuses itself");
            ensure!(Standings::<T>::contains_key(epoch, executor), "an accused host without a standing");
        }
        Ok(())
    }

    /// Only for epochs whose weights are still kept and of which nothing is pruned.
    fn check_votes() -> Result<(), DispatchError> {
        let oldest = PrunedBefore::<T>::get().max(T::Clock::epoch().index.saturating_sub(2));
        let mut juries = Juries::default();
        let mut sums: BTreeMap<(u32, u32), Votes> = BTreeMap::new();
        for (epoch, (index, verifier), verdict) in
            Verdicts::<T>::iter().filter(|(epoch, ..)| *epoch >= oldest)
        {
            let record = T::Inferences::record(InferenceId { epoch, index }).ok_or("a verdict on nothing")?;
            ensure!(record.executor != verifier, "an executor judges itself");
            ensure!(
                record.first_verdict_at.is_some_and(|at| at <= verdict.at),
                "a verdict that was not noted"
            );
            let jury = juries.of::<T>(epoch, record.profile).ok_or("no jury")?;
            let votes = sums.entry((epoch, index)).or_default();
            *votes = votes.with(&verdict.outcome, verdict.passed, jury.weight(&verifier));
        }
        for (epoch, index, votes) in Tallies::<T>::iter().filter(|(epoch, ..)| *epoch >= oldest) {
            let expected = sums.remove(&(epoch, index)).unwrap_or_default();
            ensure!(Votes { missed: false, ..votes } == expected, "votes differ from verdicts");
        }
        ensure!(sums.is_empty(), "verdicts that were not counted");
        Ok(())
    }

    fn check_disputes() -> Result<(), DispatchError> {
        let open: Vec<_> =
            Disputes::<T>::iter().filter(|(.., dispute)| dispute.status == DisputeStatus::Open).collect();
        for (epoch, index, dispute) in &open {
            ensure!(
                OpenDisputes::<T>::contains_key((*epoch, dispute.late), index),
                "an open dispute is not queued"
            );
            let record = T::Inferences::record(InferenceId { epoch: *epoch, index: *index });
            ensure!(
                record.is_none_or(|record| record.state == InferenceState::Disputed),
                "an open dispute's inference is not disputed"
            );
        }
        ensure!(OpenDisputes::<T>::iter_keys().count() == open.len(), "a queued dispute is not open");
        Ok(())
    }

    fn check_coverage() -> Result<(), DispatchError> {
        for (epoch, state) in Coverage::<T>::iter().filter(|(epoch, _)| *epoch >= PrunedBefore::<T>::get()) {
            ensure!(state.closed <= state.counted, "more is closed than counted");
            let mut marks: Vec<_> = CoverageMarks::<T>::iter_prefix(epoch).collect();
            if epoch.saturating_add(crate::hooks::KEPT_EPOCHS) < T::Clock::epoch().index {
                continue;
            }
            marks.sort_by_key(|(window, _)| *window);
            let mut end = 0;
            for (window, mark) in marks {
                ensure!(window <= state.windows, "a window beyond the last one");
                ensure!(mark.first == end && mark.first < mark.end, "windows do not follow each other");
                end = mark.end;
            }
            ensure!(end == state.closed, "the last window does not end where coverage does");
        }
        Ok(())
    }
}
