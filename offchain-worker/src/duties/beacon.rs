//! The beacon: contribute in the reveal window.

use super::{Duty, DutyError, URGENT_RETRY_BLOCKS};
use crate::context::AgentContext;
use futures::future::BoxFuture;
use starling_chain_client::{BlockTick, Item, Ticks};
use starling_math::clock::{self, Phase};
use starling_primitives::{vrf::VrfInput, BlockNumber, EpochIndex};

pub(super) struct Beacon {
    context: AgentContext,
    /// Epoch and end of the reveal window that were served.
    served: Option<(EpochIndex, BlockNumber)>,
}

impl Beacon {
    pub(super) fn new(context: AgentContext) -> Self {
        Self { context, served: None }
    }

    async fn contribute(&mut self, tick: BlockTick) -> Result<(), DutyError> {
        let window = (tick.epoch.index, clock::race_start(&tick.epoch));
        if tick.phase() != Phase::Reveal || self.served == Some(window) {
            return Ok(());
        }
        let AgentContext { chain, outbox, worker, host, genesis, .. } = &self.context;
        let view = chain.at(tick.hash);
        let weights = view.weights(tick.epoch.index).await?;
        let may = weights.is_empty() || weights.iter().any(|entry| entry.host == *host);
        if may && !view.has_contributed(tick.epoch.index, host).await? {
            let (proof, _) = worker.vrf(&VrfInput::Beacon(*genesis, tick.epoch.index));
            let item = Item::Contribute { epoch: tick.epoch.index, proof };
            // The last block of the window; when it is extended, the item is queued again.
            let deadline = window.1.saturating_sub(1);
            if outbox.enqueue_with_retry(&item, deadline, URGENT_RETRY_BLOCKS).await? {
                tracing::info!(target: "duties::beacon", epoch = tick.epoch.index, "contributing");
            }
        }
        self.served = Some(window);
        Ok(())
    }
}

impl Duty for Beacon {
    const NAME: &'static str = "beacon";

    fn ticks(&self) -> Ticks {
        self.context.chain.subscribe_best()
    }

    fn on_block(&mut self, tick: BlockTick) -> BoxFuture<'_, Result<(), DutyError>> {
        Box::pin(self.contribute(tick))
    }
}
