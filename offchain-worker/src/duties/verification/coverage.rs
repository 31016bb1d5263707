//! Coverage: what nobody had verified when its window closed, and whose turn it is to look.

use super::{EpochDuties, Verification};
use crate::duties::DutyError;
use starling_chain_client::{BlockTick, ChainView, CoverageMark};
use starling_math::{draw, duty};
use starling_primitives::{
    records::InferenceRecord, traits::Round, AccountId, BlockNumber, EpochIndex, InferenceId, ProfileId,
    RequestId, H256,
};
use std::collections::{BTreeMap, BTreeSet};

/// A finished inference of another host that was not drawn, as long as coverage may assign it.
#[derive(Clone, Debug)]
struct Candidate {
    request_id: RequestId,
    executor: AccountId,
    profile: ProfileId,
}

/// An inference that this host must look at if all whose turn it is before have fallen without having looked.
#[derive(Clone, Debug)]
struct Turn {
    /// Block in which the window closed.
    closed_at: BlockNumber,
    before: Vec<AccountId>,
}

/// What coverage may assign in one epoch.
#[derive(Default)]
pub(super) struct Coverage {
    /// Inferences whose window has not closed.
    uncovered: BTreeMap<u32, Candidate>,
    /// Ends of the windows that were looked at.
    windows: BTreeSet<u32>,
    /// Inferences whose window has closed, and that are this host's in turn.
    turns: BTreeMap<u32, Turn>,
}

impl Coverage {
    pub(super) fn consider(&mut self, index: u32, record: &InferenceRecord) {
        let (request_id, executor, profile) = (record.request_id, record.executor.clone(), record.profile);
        self.uncovered.insert(index, Candidate { request_id, executor, profile });
    }

    /// A candidate may finish after its window closed; then the next block looks at the windows again.
    fn look_again(&mut self) {
        let closed = self.windows.last().copied().unwrap_or_default();
        if self.uncovered.range(..closed).next().is_some() {
            self.windows.clear();
        }
    }
}

impl Verification {
    /// Looks at the windows that closed since, and at what has come to this host in turn.
    pub(super) async fn cover(
        &mut self,
        view: &ChainView,
        epoch: EpochIndex,
        tick: BlockTick,
    ) -> Result<(), DutyError> {
        let Some(EpochDuties { coverage, .. }) = self.epochs.get(&epoch) else { return Ok(()) };
        let mut marks = view.coverage_marks(epoch).await?;
        marks.retain(|mark| !coverage.windows.contains(&mark.end));
        for mark in marks {
            self.close_window(view, epoch, &mark).await?;
        }
        self.take_turns(view, epoch, tick).await?;
        if let Some(duties) = self.epochs.get_mut(&epoch) {
            duties.coverage.look_again();
        }
        Ok(())
    }

    /// Finds the turns of this host among the candidates of a window.
    async fn close_window(
        &mut self,
        view: &ChainView,
        epoch: EpochIndex,
        mark: &CoverageMark,
    ) -> Result<(), DutyError> {
        let seed = view.seed(Round::Coverage(mark.seed_epoch, mark.seed_window)).await?;
        let (Some(duties), Some(seed)) = (self.epochs.get(&epoch), seed) else { return Ok(()) };
        let window = duties.coverage.uncovered.range(mark.first..mark.end);
        let candidates: BTreeMap<u32, Candidate> =
            window.map(|(index, candidate)| (*index, candidate.clone())).collect();
        let indices: Vec<u32> = candidates.keys().copied().collect();
        let mut turns = BTreeMap::new();
        for placed in view.inferences(epoch, &indices).await? {
            let covered = placed.record.first_verdict_at.is_some_and(|at| at < mark.closed_at);
            let index = placed.id.index;
            let Some(candidate) = candidates.get(&index).filter(|_| !covered) else { continue };
            if let Some(before) = self.before_this_host(view, epoch, candidate, &seed).await? {
                turns.insert(index, Turn { closed_at: mark.closed_at, before });
            }
        }
        if let Some(EpochDuties { coverage, .. }) = self.epochs.get_mut(&epoch) {
            coverage.uncovered.retain(|index, _| !candidates.contains_key(index));
            coverage.windows.insert(mark.end);
            coverage.turns.extend(turns);
        }
        Ok(())
    }

    /// The hosts whose turn it is before this one's; `None` when its turn never comes.
    async fn before_this_host(
        &mut self,
        view: &ChainView,
        epoch: EpochIndex,
        candidate: &Candidate,
        seed: &H256,
    ) -> Result<Option<Vec<AccountId>>, DutyError> {
        let host = self.context.host.clone();
        let jury = self.jury(view, epoch, candidate.profile).await?;
        let Candidate { request_id, executor, .. } = candidate;
        let turns: Vec<_> = draw::coverage_verifiers(seed, request_id, jury, executor).cloned().collect();
        let own = turns.iter().position(|named| *named == host);
        Ok(own.map(|own| turns.into_iter().take(own).collect()))
    }

    /// Takes what is this host's turn by now: as the first one, or because all before it have fallen, and not looked.
    async fn take_turns(
        &mut self,
        view: &ChainView,
        epoch: EpochIndex,
        tick: BlockTick,
    ) -> Result<(), DutyError> {
        let turns = match self.epochs.get(&epoch) {
            Some(duties) if !duties.coverage.turns.is_empty() => duties.coverage.turns.clone(),
            _ => return Ok(()),
        };
        let fallen = fallen(view, epoch, tick).await?;
        for (index, turn) in turns {
            if !turn.before.iter().all(|host| fallen.contains_key(host)) {
                continue;
            }
            let id = InferenceId { epoch, index };
            let verdicts = view.verdicts(id, &turn.before).await?;
            let passes_on = |host: &AccountId| {
                duty::passes_on(fallen.get(host).copied(), turn.closed_at, || {
                    verdicts.iter().any(|placed| placed.verifier == *host)
                })
            };
            if turn.before.iter().all(passes_on) {
                self.add_job(id, tick);
            }
            if let Some(duties) = self.epochs.get_mut(&epoch) {
                duties.coverage.turns.remove(&index);
            }
        }
        Ok(())
    }
}

/// The hosts that have fallen, and when, as far as that changes the duties of an epoch. A host with weight may have fallen
/// over an answer of the epoch before.
async fn fallen(
    view: &ChainView,
    epoch: EpochIndex,
    tick: BlockTick,
) -> Result<BTreeMap<AccountId, BlockNumber>, DutyError> {
    let mut convictions = view.convictions(epoch).await?;
    if let Some(previous) = epoch.checked_sub(1) {
        // The earlier of two falls counts.
        convictions.extend(view.convictions(previous).await?);
    }
    let falls = convictions.into_iter().map(|(host, conviction)| (host, conviction.since));
    Ok(falls.filter(|(_, since)| duty::fall_counts(epoch, *since, &tick.epoch)).collect())
}
