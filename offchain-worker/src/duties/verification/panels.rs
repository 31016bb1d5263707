//! Panels: commit to a verdict on a disputed inference, reveal it when nobody can commit any more.
//!
//! Both calls are queued as soon as the verdict is there; the outbox sends the reveal when its time has come. Verdict and
//! salt are in the store before, so that a process that dies in between says the same when it is back.

use super::{Job, Verification};
use crate::duties::{DutyError, URGENT_RETRY_BLOCKS};
use starling_chain_client::{BlockTick, ChainView, DisputeStatus, Item};
use starling_math::panel::{Stage, COMMIT_WINDOWS, REVEAL_WINDOWS};
use starling_primitives::{
    verdict::{Outcome, PanelCommit, PanelReveal, PanelRound},
    BlockNumber, EpochIndex, InferenceId, H256,
};

/// This host's seat on a panel, as long as it has not voted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) round: PanelRound,
    /// Block in which a transcript that nobody serves is unavailable: late enough for the executor to answer, early
    /// enough for the commitment to be in time.
    pub(super) patient_until: BlockNumber,
}

impl Verification {
    /// Looks for panels that this host sits on, as the best block has them: they last a few coverage windows only, too few
    /// to wait for finality. A panel that a reorganisation takes back refuses the commitment, and that is all.
    pub(super) async fn join_panels(
        &mut self,
        view: &ChainView,
        epoch: EpochIndex,
        tick: BlockTick,
    ) -> Result<(), DutyError> {
        for (index, dispute) in view.disputes(epoch).await? {
            let id = InferenceId { epoch, index };
            if dispute.status == DisputeStatus::Planted {
                self.look_at_plant(view, id, tick).await?;
            }
            let Some(round) = dispute.panels.checked_sub(1) else { continue };
            let seated = self.jobs.get(&id).and_then(|job| job.seat).is_some_and(|seat| seat.round == round);
            if dispute.status != DisputeStatus::Judging || seated || self.votes.contains(&(id, round)) {
                continue;
            }
            let Some(panel) = view.panel(id, round).await? else { continue };
            if !panel.has(&self.context.host) {
                continue;
            }
            let tally = view.panel_tally(id, round).await?;
            if panel.stage(view.last_boundary().await?, &tally) != Stage::Commit {
                continue;
            }
            tracing::info!(target: "duties::verification", epoch, index, round, "this host sits on a panel");
            // What this host has seen itself it need not look at again: the chain fixes the transcript.
            match self.context.store.outcome(id).await? {
                Some(outcome) if outcome != Outcome::Unavailable => {
                    self.vote(id, round, outcome, tick).await?;
                }
                _ => self.take_seat(id, round, tick),
            }
        }
        Ok(())
    }

    fn take_seat(&mut self, id: InferenceId, round: PanelRound, tick: BlockTick) {
        if !self.epochs.contains_key(&id.epoch) {
            return;
        }
        let patience = tick.epoch.schedule.coverage_blocks / 2;
        let job = self.jobs.entry(id).or_insert_with(|| Job::new(tick.number));
        job.seat = Some(Seat { round, patient_until: tick.number.saturating_add(patience) });
        if !job.running {
            job.next_try = tick.number;
        }
    }

    /// Says what this host found to a panel.
    pub(super) async fn vote(
        &mut self,
        id: InferenceId,
        round: PanelRound,
        outcome: Outcome,
        tick: BlockTick,
    ) -> Result<(), DutyError> {
        let vote = PanelReveal { inference: id, round, outcome, salt: H256(rand::random()) };
        let vote = self.context.store.put_panel_vote(&vote).await?;
        self.queue_vote(&vote, tick).await
    }

    /// Queues what the store has; to queue it twice does no harm.
    pub(super) async fn queue_vote(&mut self, vote: &PanelReveal, tick: BlockTick) -> Result<(), DutyError> {
        let commitment = vote.commitment(&self.context.host);
        let commit = PanelCommit { inference: vote.inference, round: vote.round, commitment };
        // Twice a panel's time: an epoch's first window may be longer than the others.
        let windows = COMMIT_WINDOWS.saturating_add(REVEAL_WINDOWS).saturating_mul(2);
        let blocks = tick.epoch.schedule.coverage_blocks.saturating_mul(windows);
        let deadline = tick.number.saturating_add(blocks);
        for item in [Item::CommitVerdict(commit), Item::RevealVerdict(*vote)] {
            self.context.outbox.enqueue_with_retry(&item, deadline, URGENT_RETRY_BLOCKS).await?;
        }
        self.votes.insert((vote.inference, vote.round));
        Ok(())
    }
}
