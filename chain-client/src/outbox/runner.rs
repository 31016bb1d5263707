//! Brings items to the chain, block by block.

use super::{
    database::{Database, Stored},
    effects::{effects, read_refusal, Answer, Effect},
    item::{pack, Item, Kind},
    OutboxError, PassError,
};
use crate::{client::ChainClient, keys::Keypair, types::BlockTick, Call, ChainEvent, SubmitError};
use starling_primitives::{AccountId, BlockNumber, H256};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Calls of one kind that one block's pass sends at most.
const CALLS_PER_PASS: usize = 4;
/// Blocks' worth of items that are looked at: those that wait for finality must not hide those behind them.
const BLOCKS_UNDER_WAY: usize = 8;
/// Finalized blocks whose events are read at most after a pause; older refusals show again when the item is resent.
const CATCH_UP_BLOCKS: BlockNumber = 256;
/// Blocks after its deadline for which an item waits for its effect to be finalized.
const FINALITY_BLOCKS: BlockNumber = 64;
/// Refusals of the pool after which a reason is worth a warning.
const WARN_AFTER: u32 = 3;

pub(super) async fn run(
    database: Database,
    urgent: Arc<Notify>,
    chain: ChainClient,
    worker: Keypair,
    host: AccountId,
    shutdown: CancellationToken,
) {
    let mut ticks = chain.subscribe_best();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            tick = ticks.next() => {
                if tick.is_none() {
                    return;
                }
            }
            () = urgent.notified() => {}
        }
        // A pass is not cut short by the shutdown: it writes down what it sends before it sends it, but finishing it
        // spares the next start a wait.
        if let Err(error) = Runner::new(&database, &chain, &worker, &host).pass().await {
            tracing::warn!(target: "outbox", error = %Chain(&error), "pass cut short");
        }
    }
}

/// Shows an error with its sources.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(formatter, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

pub(super) struct Runner<'a> {
    database: &'a Database,
    chain: &'a ChainClient,
    worker: &'a Keypair,
    host: &'a AccountId,
}

impl<'a> Runner<'a> {
    pub(super) fn new(
        database: &'a Database,
        chain: &'a ChainClient,
        worker: &'a Keypair,
        host: &'a AccountId,
    ) -> Self {
        Self { database, chain, worker, host }
    }

    /// Reads what became of the items, then sends those that are due.
    pub(super) async fn pass(&self) -> Result<(), PassError> {
        let best = self.chain.best_tick()?;
        let finalized = self.chain.finalized_tick()?;
        self.read_refusals(finalized).await?;
        let mut nonce = None;
        for kind in Kind::ALL {
            let limit = kind.batch_limit().saturating_mul(CALLS_PER_PASS).saturating_mul(BLOCKS_UNDER_WAY);
            let items = self.database.pending(kind, limit).await?;
            if items.is_empty() {
                continue;
            }
            let due = self.settle(items, best, finalized).await?;
            if !self.send(kind, due, best, &mut nonce).await? {
                break;
            }
        }
        if best.number.is_multiple_of(100) {
            self.database.prune(best.number).await?;
        }
        Ok(())
    }

    /// Settles the items whose effect is final and those that are out of time; returns the ones to send now.
    async fn settle(
        &self,
        items: Vec<Stored>,
        best: BlockTick,
        finalized: BlockTick,
    ) -> Result<Vec<Stored>, PassError> {
        let at_best = effects(&self.chain.at(best.hash), self.host, &items).await?;
        let mut settled = Vec::new();
        let (mut effective, mut due) = (Vec::new(), Vec::new());
        for (stored, effect) in items.into_iter().zip(at_best) {
            let late = best.number > stored.deadline;
            match effect {
                Effect::Done => effective.push(stored),
                Effect::Void(reason) => settled.push((stored.id, Some(reason.to_string()), stored.item)),
                Effect::Absent | Effect::Early if late && finalized.number >= stored.deadline => {
                    settled.push((stored.id, Some("its deadline passed".to_string()), stored.item));
                }
                Effect::Absent | Effect::Early
                    if best.number > stored.deadline.saturating_add(FINALITY_BLOCKS) =>
                {
                    settled.push((stored.id, Some("its deadline passed long ago".to_string()), stored.item));
                }
                Effect::Absent if !late && is_due(&stored, best.number) => due.push(stored),
                Effect::Absent | Effect::Early => {}
            }
        }
        // What stands in the best block is done once it stands in a finalized one.
        let final_effects = effects(&self.chain.at(finalized.hash), self.host, &effective).await?;
        for (stored, effect) in effective.into_iter().zip(final_effects) {
            if effect == Effect::Done {
                settled.push((stored.id, None, stored.item));
            }
        }
        for (_, reason, item) in &settled {
            log_settled(item, reason.as_deref());
        }
        let settled: Vec<_> = settled.into_iter().map(|(id, reason, _)| (id, reason)).collect();
        self.database.settle(&settled, best.number).await?;
        Ok(due)
    }

    /// Sends items of one kind. False when nothing more can be sent in this block.
    async fn send(
        &self,
        kind: Kind,
        mut due: Vec<Stored>,
        best: BlockTick,
        nonce: &mut Option<u64>,
    ) -> Result<bool, PassError> {
        // What the pool refused before goes last and in ever smaller calls, so that one bad item holds up no other.
        due.sort_by_key(|stored| (stored.refusals, stored.id));
        let mut rest = due.as_slice();
        for _ in 0..CALLS_PER_PASS {
            let Some(first) = rest.first() else { return Ok(true) };
            let limit = (kind.batch_limit() >> first.refusals.min(16)).max(1);
            let alike = rest.iter().take_while(|stored| stored.refusals == first.refusals).count();
            let (batch, left) = rest.split_at(alike.min(limit));
            rest = left;
            let items: Vec<&Item> = batch.iter().map(|stored| &stored.item).collect();
            for (call, positions) in pack(&items) {
                let carried: Vec<&Stored> =
                    positions.iter().filter_map(|&position| batch.get(position)).collect();
                if !self.submit(&call, &carried, best, nonce).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Signs and submits one call. False when the nonce is unclear, so that nothing more should be sent in this block.
    async fn submit(
        &self,
        call: &Call,
        items: &[&Stored],
        best: BlockTick,
        nonce: &mut Option<u64>,
    ) -> Result<bool, PassError> {
        let ids: Vec<i64> = items.iter().map(|stored| stored.id).collect();
        let used = match *nonce {
            Some(nonce) => nonce,
            None => self.chain.next_nonce(&self.worker.account()).await?,
        };
        let (hash, bytes) = self.chain.sign(call, self.worker, used).await?;
        // Written down first: after a crash the items wait for their effect instead of being sent twice at once.
        self.database.note_submission(hash, &ids, best.number).await?;
        let (pallet, name) = call.path();
        match self.chain.submit(&bytes).await {
            Ok(()) | Err(SubmitError::AlreadyKnown) => {
                tracing::debug!(target: "outbox", call = %format!("{pallet}.{name}"), items = ids.len(), nonce = used, ?hash, "submitted");
                *nonce = Some(used.saturating_add(1));
                Ok(true)
            }
            Err(SubmitError::Nonce(reason)) => {
                self.database.note_refusal(&ids, &reason, false).await?;
                tracing::debug!(target: "outbox", nonce = used, %reason, "the nonce is asked for again in the next block");
                Ok(false)
            }
            Err(SubmitError::Invalid(reason)) => {
                self.database.note_refusal(&ids, &reason, true).await?;
                let refusals = items.iter().map(|stored| stored.refusals).max().unwrap_or_default();
                if refusals == WARN_AFTER {
                    tracing::warn!(target: "outbox", call = %format!("{pallet}.{name}"), items = ids.len(), %reason, "the pool refuses a call");
                } else {
                    tracing::debug!(target: "outbox", call = %format!("{pallet}.{name}"), items = ids.len(), %reason, "refused by the pool");
                }
                *nonce = Some(used);
                Ok(true)
            }
            Err(SubmitError::Chain(error)) => {
                self.database.note_refusal(&ids, &error.to_string(), false).await?;
                Err(error.into())
            }
        }
    }

    /// Reads the events of newly finalized blocks for answers to our transactions.
    async fn read_refusals(&self, finalized: BlockTick) -> Result<(), PassError> {
        let before = self.database.progress().await?;
        let earliest = finalized.number.saturating_sub(CATCH_UP_BLOCKS);
        let first = before.map_or(finalized.number, |read| read.saturating_add(1)).max(earliest);
        if first > finalized.number {
            return Ok(());
        }
        if self.database.has_open_transactions().await? {
            for number in first..=finalized.number {
                let hash = match number == finalized.number {
                    true => Some(finalized.hash),
                    false => self.chain.block_hash(number).await?,
                };
                if let Some(hash) = hash {
                    self.read_block(hash, number).await?;
                }
            }
        }
        self.database.set_progress(finalized.number).await?;
        Ok(())
    }

    async fn read_block(&self, block: H256, number: BlockNumber) -> Result<(), PassError> {
        let view = self.chain.at(block);
        let events = view.events().await?;
        let refusals: Vec<(u32, ChainEvent)> = events
            .into_iter()
            .filter_map(|(extrinsic, event)| Some((extrinsic?, event)))
            .filter(|(_, event)| {
                matches!(
                    event,
                    ChainEvent::RecordRefused { .. }
                        | ChainEvent::VerdictRefused { .. }
                        | ChainEvent::ExtrinsicFailed { .. }
                )
            })
            .collect();
        if refusals.is_empty() {
            return Ok(());
        }
        let hashes = view.transaction_hashes().await?;
        let mut ours: HashMap<u32, Vec<(i64, Item)>> = HashMap::new();
        let mut settled = Vec::new();
        for (extrinsic, event) in refusals {
            let Some(hash) = usize::try_from(extrinsic).ok().and_then(|index| hashes.get(index)) else {
                continue;
            };
            if let std::collections::hash_map::Entry::Vacant(entry) = ours.entry(extrinsic) {
                entry.insert(self.database.items_of(*hash).await?);
            }
            let items = ours.get(&extrinsic).map(Vec::as_slice).unwrap_or_default();
            match event {
                ChainEvent::RecordRefused { request_id, reason } => {
                    let about = |item: &Item| item.request() == Some(request_id);
                    settled.extend(self.read_refused(items, about, &reason).await?);
                }
                ChainEvent::VerdictRefused { id, reason } => {
                    let about =
                        |item: &Item| matches!(item, Item::Verdict(verdict) if verdict.inference == id);
                    settled.extend(self.read_refused(items, about, &reason).await?);
                }
                ChainEvent::ExtrinsicFailed { reason } if !items.is_empty() => {
                    tracing::warn!(target: "outbox", block = number, items = items.len(), %reason, "a call failed");
                    for (id, _) in items {
                        self.database.note_reason(*id, &reason).await?;
                    }
                }
                _ => {}
            }
        }
        self.database.settle(&settled, number).await?;
        Ok(())
    }

    async fn read_refused(
        &self,
        items: &[(i64, Item)],
        about: impl Fn(&Item) -> bool,
        reason: &str,
    ) -> Result<Vec<(i64, Option<String>)>, OutboxError> {
        let mut settled = Vec::new();
        for (id, item) in items.iter().filter(|(_, item)| about(item)) {
            match read_refusal(item, reason) {
                Answer::Done => settled.push((*id, None)),
                Answer::Never => {
                    log_settled(item, Some(reason));
                    settled.push((*id, Some(reason.to_string())));
                }
                Answer::Later => self.database.note_reason(*id, reason).await?,
            }
        }
        Ok(settled)
    }
}

fn is_due(stored: &Stored, now: BlockNumber) -> bool {
    // A block number below the one of the submission means that the chain was set back; nothing is lost by sending.
    stored.submitted_at.is_none_or(|at| now >= at.saturating_add(stored.retry_blocks) || now < at)
}

fn log_settled(item: &Item, dropped: Option<&str>) {
    let kind = item.kind().name();
    match dropped {
        Some(reason) => {
            tracing::warn!(target: "outbox", kind, request = ?item.request(), reason, "dropped");
        }
        None => tracing::debug!(target: "outbox", kind, request = ?item.request(), "done"),
    }
}
