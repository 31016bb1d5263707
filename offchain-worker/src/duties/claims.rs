//! Claims: from their opening until the epoch ends, again and again until it is paid.

use super::{Duty, DutyError};
use crate::context::AgentContext;
use futures::future::BoxFuture;
use starling_chain_client::{BlockTick, Item, Ticks};
use starling_math::clock;
use starling_primitives::{traits::Round, vrf::VrfInput, BlockNumber, InferenceId};
use tokio::sync::mpsc;

pub(super) struct Claims {
    context: AgentContext,
    /// Takes the duties that stand between this host and its due.
    demand: mpsc::Sender<InferenceId>,
    tried_at: Option<BlockNumber>,
}

impl Claims {
    pub(super) fn new(context: AgentContext, demand: mpsc::Sender<InferenceId>) -> Self {
        Self { context, demand, tried_at: None }
    }

    async fn claim(&mut self, tick: BlockTick) -> Result<(), DutyError> {
        let Some(epoch) = tick.epoch.index.checked_sub(1) else { return Ok(()) };
        let retry = tick.epoch.schedule.claim_retry_blocks;
        let due = self.tried_at.is_none_or(|at| tick.number >= at.saturating_add(retry) || tick.number < at);
        if !due || !clock::may_claim_previous(&tick.epoch, tick.number) {
            return Ok(());
        }
        let AgentContext { chain, outbox, worker, host, genesis, .. } = &self.context;
        let view = chain.at(tick.hash);
        if view.has_claimed(epoch, host).await? {
            return Ok(());
        }
        let (emission, fees) = view.claimable(epoch, host).await?;
        if emission == 0 && fees == 0 {
            return Ok(());
        }
        let Some(seed) = view.seed(Round::Epoch(epoch)).await? else { return Ok(()) };
        let (proof, secret) = worker.vrf(&VrfInput::Duty(*genesis, epoch, seed));
        let undone = view.undone_duties(epoch, host, &secret).await?;
        self.tried_at = Some(tick.number);
        if undone.is_empty() {
            let deadline = clock::epoch_end(&tick.epoch).saturating_sub(1);
            if outbox.enqueue_with_retry(&Item::Claim { epoch, proof }, deadline, retry).await? {
                tracing::info!(target: "duties::claims", epoch, emission, fees, "claiming");
            }
            return Ok(());
        }
        tracing::warn!(target: "duties::claims", epoch, undone = undone.len(), ?retry, "duties are missing; they are done first");
        for index in undone {
            // A full queue means that there is enough to do until the next attempt.
            if self.demand.try_send(InferenceId { epoch, index }).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Duty for Claims {
    const NAME: &'static str = "claims";

    fn ticks(&self) -> Ticks {
        self.context.chain.subscribe_best()
    }

    fn on_block(&mut self, tick: BlockTick) -> BoxFuture<'_, Result<(), DutyError>> {
        Box::pin(self.claim(tick))
    }
}
