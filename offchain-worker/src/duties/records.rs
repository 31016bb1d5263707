//! The inference records of the current epoch and the one before, followed on finalized blocks.
//!
//! Places on chain are given in the order of arrival, so before finality a reorganisation could give one to another
//! request. Verification and expiry wait for finality; they have the time.

use super::{expiry, verification::Verification, with_sources, DutyError, DutySettings};
use crate::context::{AgentContext, DutyHelpers};
use starling_chain_client::{BlockTick, ChainView, PlacedRecord};
use starling_primitives::{
    records::{InferenceRecord, InferenceState},
    BlockNumber, EpochIndex, InferenceId,
};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Records that one pass reads anew, per epoch, so that a restart in a busy epoch does not hold up the first verdict.
const NEW_PER_PASS: u32 = 4_096;

/// What is known of an epoch's records.
#[derive(Debug, Default)]
struct EpochBook {
    /// Index of the first record that was not read yet.
    next: u32,
    /// Records that run.
    open: BTreeMap<u32, InferenceRecord>,
}

/// The records that are not settled.
#[derive(Debug, Default)]
pub(super) struct Book {
    epochs: BTreeMap<EpochIndex, EpochBook>,
}

impl Book {
    /// The records that run.
    pub(super) fn open(&self) -> impl Iterator<Item = (InferenceId, &InferenceRecord)> {
        self.epochs.iter().flat_map(|(&epoch, book)| {
            book.open.iter().map(move |(&index, record)| (InferenceId { epoch, index }, record))
        })
    }

    /// Reads what is new in an epoch; returns the records that have a result now and had none before. Also says
    /// whether there is more to read. Nothing changes when the chain cannot be asked.
    pub(super) async fn update(
        &mut self,
        view: &ChainView,
        epoch: EpochIndex,
    ) -> Result<(Vec<PlacedRecord>, bool), DutyError> {
        let count = view.inference_count(epoch).await?;
        let book = self.epochs.entry(epoch).or_default();
        let end = count.min(book.next.saturating_add(NEW_PER_PASS));
        let wanted: Vec<u32> = book.open.keys().copied().chain(book.next..end).collect();
        let mut finished = Vec::new();
        for placed in view.inferences(epoch, &wanted).await? {
            if placed.record.state == InferenceState::Started {
                book.open.insert(placed.id.index, placed.record);
                continue;
            }
            book.open.remove(&placed.id.index);
            if placed.record.result.is_some() {
                finished.push(placed);
            }
        }
        book.next = end;
        Ok((finished, end < count))
    }

    /// Forgets the epochs before this one.
    fn retain_from(&mut self, first: EpochIndex) {
        self.epochs.retain(|epoch, _| *epoch >= first);
    }
}

/// Follows the records, and does the duties that they ask for.
pub(super) async fn follow(
    context: AgentContext,
    helpers: DutyHelpers,
    settings: DutySettings,
    mut demands: mpsc::Receiver<InferenceId>,
    shutdown: CancellationToken,
) {
    let mut ticks = context.chain.subscribe_finalized();
    let mut book = Book::default();
    let mut verification = Verification::new(context.clone(), helpers, settings.verify_concurrency);
    loop {
        let done = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(demanded) = demands.recv() => verification.demand(demanded).await,
            () = verification.job_ended() => verification.start_jobs().await,
            tick = ticks.next() => match tick {
                Some(tick) => on_block(&context, &mut book, &mut verification, tick).await,
                None => return,
            },
        };
        if let Err(error) = done {
            tracing::warn!(target: "duties", duty = "verification", error = %with_sources(&error), "tried again at the next block");
        }
    }
}

async fn on_block(
    context: &AgentContext,
    book: &mut Book,
    verification: &mut Verification,
    tick: BlockTick,
) -> Result<(), DutyError> {
    let view = context.chain.at(tick.hash);
    verification.enter(&view, tick).await?;
    let first = tick.epoch.index.saturating_sub(1);
    book.retain_from(first);
    for epoch in first..=tick.epoch.index {
        loop {
            let (finished, more) = book.update(&view, epoch).await?;
            verification.consider(finished);
            if !more {
                break;
            }
        }
    }
    verification.on_block(&view, tick).await?;
    let expiries = expiries(&view, tick).await?;
    expiry::expire(
        context,
        book,
        tick,
        |epoch| if epoch == tick.epoch.index { expiries.0 } else { expiries.1 },
    )
    .await?;
    context.store.set_progress("verification.block", tick.number).await?;
    Ok(())
}

/// Expiry time of the current epoch and of the one before, whose schedule may have been another one.
async fn expiries(view: &ChainView, tick: BlockTick) -> Result<(BlockNumber, BlockNumber), DutyError> {
    let current = tick.epoch.schedule.expiry_blocks;
    let previous = view.previous_epoch().await?;
    Ok((current, previous.map_or(current, |previous| previous.schedule.expiry_blocks)))
}
