//! What a host must have done before it may claim.

use crate::{
    types::{CoverageMark, TRUSTED},
    verdicts::{Juries, Jury},
    Config, Convictions, CoverageMarks, Negligences, Pallet, Verdicts,
};
use alloc::{collections::BTreeMap, vec::Vec};
use starling_math::{draw, duty};
use starling_primitives::{
    records::{InferenceRecord, InferenceState},
    traits::{Beacon, Clock, Duties, Inferences, Round},
    AccountId, BlockNumber, EpochIndex, InferenceId, H256,
};

/// Whose duties are asked for.
struct Asked<'a> {
    epoch: EpochIndex,
    host: &'a AccountId,
    secret: &'a H256,
}

/// A closed window of an epoch.
struct Window {
    mark: CoverageMark,
    seed: Option<H256>,
}

/// What coverage assigns in an epoch, and to whom.
struct Coverage {
    windows: Vec<Window>,
    /// Hosts that have fallen, and when: what they had not looked at by then is the next one's.
    fallen: BTreeMap<AccountId, BlockNumber>,
}

impl<T: Config> Pallet<T> {
    fn coverage(epoch: EpochIndex) -> Coverage {
        // A host with weight may have fallen over an answer of the epoch before.
        let current = T::Clock::epoch();
        // Of two falls the earlier one counts.
        let fallen = (epoch.saturating_sub(1)..=epoch)
            .rev()
            .flat_map(Convictions::<T>::iter_prefix)
            .map(|(host, conviction)| (host, conviction.since))
            .filter(|(_, since)| duty::fall_counts(epoch, *since, &current))
            .collect();
        let window = |mark: CoverageMark| Window {
            mark,
            seed: T::Beacon::seed(Round::Coverage(mark.seed_epoch, mark.seed_window)),
        };
        Coverage { windows: CoverageMarks::<T>::iter_prefix_values(epoch).map(window).collect(), fallen }
    }

    fn is_undone(asked: &Asked, juries: &mut Juries, coverage: &Coverage, index: u32) -> bool {
        let id = InferenceId { epoch: asked.epoch, index };
        let Some(record) = T::Inferences::record(id) else { return false };
        // Of a plant nobody owes anything, whatever it drew before it was revealed.
        let is_plant = record.state == InferenceState::Planted;
        if record.result.is_none() || record.executor == *asked.host || is_plant {
            return false;
        }
        let Some(jury) = juries.of::<T>(id.epoch, record.profile) else { return false };
        if jury.member(asked.host).is_none() {
            return false;
        }
        if Self::owes_panel(id, asked.host) {
            return true;
        }
        // While a panel judges, no other verdicts are taken.
        if Verdicts::<T>::contains_key(id.epoch, (index, asked.host)) || Self::is_disputed(id) {
            return false;
        }
        is_drawn(asked, jury, &record) || Self::is_assigned(asked, jury, &record, coverage, index)
    }

    /// Assigned by the seed of the coverage window, which closed before there was a verdict: as the first one, or because all
    /// before it have fallen, and not looked.
    fn is_assigned(
        asked: &Asked,
        jury: &Jury,
        record: &InferenceRecord,
        coverage: &Coverage,
        index: u32,
    ) -> bool {
        if jury.member(&record.executor).is_some_and(|executor| executor.reputation >= TRUSTED) {
            return false;
        }
        let window =
            coverage.windows.iter().find(|window| (window.mark.first..window.mark.end).contains(&index));
        let Some(Window { mark, seed: Some(seed) }) = window else { return false };
        if record.first_verdict_at.is_some_and(|at| at < mark.closed_at) {
            return false;
        }
        // Who falls afterwards keeps its own duty.
        let passes_on = |host: &AccountId| {
            duty::passes_on(coverage.fallen.get(host).copied(), mark.closed_at, || {
                host == asked.host || Verdicts::<T>::contains_key(asked.epoch, (index, host))
            })
        };
        draw::coverage_verifiers(seed, &record.request_id, &jury.hosts, &record.executor)
            .find(|host| !passes_on(host))
            == Some(asked.host)
    }
}

/// Drawn by the duty secret, against the executor's frozen reputation.
fn is_drawn(asked: &Asked, jury: &Jury, record: &InferenceRecord) -> bool {
    let executor = jury.member(&record.executor);
    let target = duty::target(executor.map_or(0, |executor| executor.reputation));
    duty::is_duty(
        asked.secret,
        &record.request_id,
        target,
        jury.weight(asked.host),
        jury.total,
        executor.map_or(0, |executor| executor.weight),
    )
}

impl<T: Config> Duties for Pallet<T> {
    fn undone(epoch: EpochIndex, host: &AccountId, secret: &H256, sample: &[u32]) -> Vec<u32> {
        let asked = Asked { epoch, host, secret };
        let coverage = Self::coverage(epoch);
        let mut juries = Juries::default();
        sample
            .iter()
            .copied()
            .filter(|index| Self::is_undone(&asked, &mut juries, &coverage, *index))
            .collect()
    }

    fn forfeits(epoch: EpochIndex, host: &AccountId) -> bool {
        Convictions::<T>::contains_key(epoch, host) || Negligences::<T>::contains_key(epoch, host)
    }
}
