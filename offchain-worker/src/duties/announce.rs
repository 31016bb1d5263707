//! Announce: say where this host is, whenever that changes.

use super::{Duty, DutyError};
use crate::context::AgentContext;
use futures::future::BoxFuture;
use starling_chain_client::{BlockTick, Endpoints, Item, Ticks};
use starling_primitives::BlockNumber;
use tokio::sync::watch;

/// Blocks between two looks at what the chain says, when nothing changed here.
const LOOK_BLOCKS: BlockNumber = 20;
/// Blocks for which an announcement is worth sending; the next look queues it again.
const DEADLINE_BLOCKS: BlockNumber = 100;

pub(super) struct Announce {
    context: AgentContext,
    endpoints: watch::Receiver<Option<Endpoints>>,
    looked_at: Option<BlockNumber>,
}

impl Announce {
    pub(super) fn new(context: AgentContext, endpoints: watch::Receiver<Option<Endpoints>>) -> Self {
        Self { context, endpoints, looked_at: None }
    }

    async fn announce(&mut self, tick: BlockTick) -> Result<(), DutyError> {
        let changed = self.endpoints.has_changed().unwrap_or(false);
        let due =
            self.looked_at.is_none_or(|at| tick.number >= at.saturating_add(LOOK_BLOCKS) || tick.number < at);
        if !changed && !due {
            return Ok(());
        }
        let wanted = self.endpoints.borrow_and_update().clone();
        let Some(wanted) = wanted else { return Ok(()) };
        let registered = self.context.chain.at(tick.hash).host(&self.context.host).await?;
        match registered {
            None => {
                tracing::warn!(target: "duties::announce", host = %self.context.host, "this account is not a registered host yet");
            }
            Some(info) if info.endpoints.as_ref() != Some(&wanted) => {
                let deadline = tick.number.saturating_add(DEADLINE_BLOCKS);
                if self.context.outbox.enqueue(&Item::Announce(wanted), deadline).await? {
                    tracing::info!(target: "duties::announce", "announcing where this host is");
                }
            }
            Some(_) => {}
        }
        self.looked_at = Some(tick.number);
        Ok(())
    }
}

impl Duty for Announce {
    const NAME: &'static str = "announce";

    fn ticks(&self) -> Ticks {
        self.context.chain.subscribe_best()
    }

    fn on_block(&mut self, tick: BlockTick) -> BoxFuture<'_, Result<(), DutyError>> {
        Box::pin(self.announce(tick))
    }
}
