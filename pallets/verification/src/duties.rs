//! What a host must have done before it may claim.

use crate::{
    types::{CoverageMark, TRUSTED},
    verdicts::{Juries, Jury},
    Config, Convictions, CoverageMarks, Negligences, Pallet, Verdicts,
};
use alloc::vec::Vec;
use starling_math::{draw, duty};
use starling_primitives::{
    records::{InferenceRecord, InferenceState},
    traits::{Beacon, Duties, Inferences, Round},
    AccountId, EpochIndex, InferenceId, H256,
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
    /// Hosts that had fallen when it closed: nothing is assigned to them.
    fallen: Vec<AccountId>,
}

impl<T: Config> Pallet<T> {
    fn windows(epoch: EpochIndex) -> Vec<Window> {
        // A host with weight may have fallen over an answer of the epoch before.
        let convictions: Vec<_> =
            (epoch.saturating_sub(1)..=epoch).flat_map(Convictions::<T>::iter_prefix).collect();
        let window = |mark: CoverageMark| {
            let seed = T::Beacon::seed(Round::Coverage(mark.seed_epoch, mark.seed_window));
            let fallen = convictions.iter().filter(|(_, conviction)| conviction.since < mark.closed_at);
            Window { mark, seed, fallen: fallen.map(|(host, _)| host.clone()).collect() }
        };
        CoverageMarks::<T>::iter_prefix_values(epoch).map(window).collect()
    }

    fn is_undone(asked: &Asked, juries: &mut Juries, windows: &[Window], index: u32) -> bool {
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
        is_drawn(asked, jury, &record) || is_assigned(asked, jury, &record, windows, index)
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

/// Assigned by the seed of the coverage window, which closed before there was a verdict.
fn is_assigned(asked: &Asked, jury: &Jury, record: &InferenceRecord, windows: &[Window], index: u32) -> bool {
    if jury.member(&record.executor).is_some_and(|executor| executor.reputation >= TRUSTED) {
        return false;
    }
    let window = windows.iter().find(|window| (window.mark.first..window.mark.end).contains(&index));
    let Some(Window { mark, seed: Some(seed), fallen }) = window else { return false };
    if record.first_verdict_at.is_some_and(|at| at < mark.closed_at) {
        return false;
    }
    let assigned = draw::coverage_verifier(seed, &record.request_id, &jury.hosts, &record.executor, fallen);
    assigned.as_ref() == Some(asked.host)
}

impl<T: Config> Duties for Pallet<T> {
    fn undone(epoch: EpochIndex, host: &AccountId, secret: &H256, sample: &[u32]) -> Vec<u32> {
        let asked = Asked { epoch, host, secret };
        let windows = Self::windows(epoch);
        let mut juries = Juries::default();
        sample
            .iter()
            .copied()
            .filter(|index| Self::is_undone(&asked, &mut juries, &windows, *index))
            .collect()
    }

    fn forfeits(epoch: EpochIndex, host: &AccountId) -> bool {
        Convictions::<T>::contains_key(epoch, host) || Negligences::<T>::contains_key(epoch, host)
    }
}
