//! Expiry: have this gateway's unfinished requests refunded.

use super::{records::Book, DutyError};
use crate::context::AgentContext;
use starling_chain_client::{BlockTick, Item};
use starling_primitives::{records::InferenceState, BlockNumber, EpochIndex};

/// Blocks for which an expiry is worth sending; the chain sweeps what is left when it prunes.
const DEADLINE_BLOCKS: BlockNumber = 200;

/// Queues what is overdue. `expiry_of` gives an epoch's expiry time.
pub(super) async fn expire(
    context: &AgentContext,
    book: &Book,
    tick: BlockTick,
    expiry_of: impl Fn(EpochIndex) -> BlockNumber,
) -> Result<(), DutyError> {
    let overdue: Vec<Item> = book
        .open()
        .filter(|(id, record)| {
            record.gateway == context.host
                && record.state == InferenceState::Started
                && tick.number > record.started_at.saturating_add(expiry_of(id.epoch))
        })
        .map(|(_, record)| Item::Expire(record.request_id))
        .collect();
    if overdue.is_empty() {
        return Ok(());
    }
    let new = context.outbox.enqueue_all(&overdue, tick.number.saturating_add(DEADLINE_BLOCKS)).await?;
    if new > 0 {
        tracing::info!(target: "duties::expiry", requests = new, "unfinished requests expire");
    }
    Ok(())
}
