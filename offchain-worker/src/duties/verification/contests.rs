//! Contests: an answer that this host approved is said to have been bad on purpose. Was it?
//!
//! An honest verifier approves no answer that is far beyond the limits, so such a reveal is false, or this host was wrong. It
//! looks again, and contests what it still finds within the limits: a panel then judges between it and the planter.

use super::{Job, Verification};
use crate::duties::{DutyError, URGENT_RETRY_BLOCKS};
use starling_chain_client::{BlockTick, ChainView, Item};
use starling_math::plant::CONTEST_WINDOWS;
use starling_primitives::{verdict::Outcome, InferenceId};

impl Verification {
    /// Looks again at a revealed plant that this host approved, once.
    pub(super) async fn look_at_plant(
        &mut self,
        view: &ChainView,
        id: InferenceId,
        tick: BlockTick,
    ) -> Result<(), DutyError> {
        if self.plants.contains(&id) || !self.epochs.contains_key(&id.epoch) {
            return Ok(());
        }
        if view.has_approved(id, &self.context.host).await? {
            tracing::warn!(target: "duties::verification", epoch = id.epoch, index = id.index, "this host approved a plant");
            // Whatever else the check was for, a plant takes no verdicts any more.
            let running = self.jobs.get(&id).is_some_and(|job| job.running);
            self.jobs.insert(id, Job { running, contested: true, ..Job::new(tick.number) });
        }
        self.plants.insert(id);
        Ok(())
    }

    /// Contests what passes.
    pub(super) async fn contest(
        &mut self,
        id: InferenceId,
        passes: bool,
        tick: BlockTick,
    ) -> Result<(), DutyError> {
        if passes {
            let windows = CONTEST_WINDOWS.saturating_add(1);
            let blocks = tick.epoch.schedule.coverage_blocks.saturating_mul(windows);
            let deadline = tick.number.saturating_add(blocks);
            let item = Item::ContestPlant(id);
            self.context.outbox.enqueue_with_retry(&item, deadline, URGENT_RETRY_BLOCKS).await?;
        }
        tracing::info!(target: "duties::verification", epoch = id.epoch, index = id.index, passes, "looked again at a plant");
        self.jobs.remove(&id);
        Ok(())
    }

    /// The planter does not show it again. What this host measured then, it would measure now: the chain fixes the
    /// transcript.
    pub(super) async fn contest_unseen(&mut self, id: InferenceId, tick: BlockTick) -> Result<(), DutyError> {
        let outcome = self.context.store.outcome(id).await?;
        self.contest(id, matches!(outcome, Some(Outcome::Measured(_))), tick).await
    }
}
