//! The records of finished answers, until they are surely on their way.
//!
//! It is the gateway's part to record `Started`. One that vanished would make the executor work for nothing, so the
//! executor remembers the record, looks whether it appears, and sends its own if it does not. `Finished` stands here
//! too: it is announced to the gateway as soon as it is here, and reaches the outbox a moment later, or at the next
//! pass if the agent died in between.

use crate::{context::AgentContext, network::NetworkView, store::StoreError};
use codec::{DecodeAll, Encode};
use sqlx::{
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    Row, SqlitePool,
};
use starling_chain_client::{ChainError, Item, OutboxError, PlacedRecord};
use starling_primitives::{
    records::{Finished, FinishedIn, InferenceState, Started},
    BlockNumber, RequestId, H256,
};
use std::{path::Path, time::Duration};

/// Blocks that the gateway's record may take.
const PATIENCE: BlockNumber = 2;
/// Records looked at per block at most.
const BATCH: i64 = 1_000;

/// The fallback failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FallbackError {
    /// The database.
    #[error("the fallback's database failed")]
    Database(#[from] sqlx::Error),
    /// The chain.
    #[error("the chain could not be asked")]
    Chain(#[from] ChainError),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The outbox.
    #[error("the outbox failed")]
    Outbox(#[from] OutboxError),
}

/// Remembers records until the chain or the outbox has them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fallback {
    pool: SqlitePool,
}

impl Fallback {
    /// Opens or makes the database.
    pub async fn open(path: &Path) -> Result<Self, FallbackError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Survives the death of the process. After a power cut the gateway's record is still the rule.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS answers (
                request_id BLOB PRIMARY KEY, records BLOB NOT NULL, since INTEGER NOT NULL
            ) STRICT, WITHOUT ROWID",
        )
        .execute(&pool)
        .await?;
        Ok(Self { pool })
    }

    /// Remembers the records of an answer finished at block `now`.
    pub async fn remember(
        &self,
        started: &Started,
        finished: &Finished,
        now: BlockNumber,
    ) -> Result<(), FallbackError> {
        sqlx::query("INSERT OR REPLACE INTO answers (request_id, records, since) VALUES (?, ?, ?)")
            .bind(finished.request_id.as_bytes())
            .bind((started, finished).encode())
            .bind(i64::from(now))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Looks at the answers that have been waiting: hands their `Finished` to the outbox, which knows it mostly, and
    /// their `Started` if the chain has none. Returns how many of the latter it handed over.
    pub async fn pass(&self, context: &AgentContext, view: &NetworkView) -> Result<usize, FallbackError> {
        let now = view.number();
        let rows =
            sqlx::query("SELECT request_id, records FROM answers WHERE since <= ? ORDER BY since LIMIT ?")
                .bind(i64::from(now.saturating_sub(PATIENCE)))
                .bind(BATCH)
                .fetch_all(&self.pool)
                .await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let mut waiting: Vec<(RequestId, Vec<u8>)> = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: &[u8] = row.try_get(0)?;
            waiting.push((H256(<[u8; 32]>::try_from(id).unwrap_or_default()), row.try_get(1)?));
        }
        let ids: Vec<RequestId> = waiting.iter().map(|(id, _)| *id).collect();
        let placed = context.chain.at(view.tick.hash).inferences_of(&ids).await?;
        let mut handed_over = 0;
        for ((id, bytes), placed) in waiting.iter().zip(placed) {
            let records = <(Started, Finished)>::decode_all(&mut bytes.as_slice());
            // Without its transcript an answer was never announced; recording it would be a promise to serve one.
            if let (Ok((started, finished)), Some(_)) = (records, context.store.transcript(id).await?) {
                handed_over += usize::from(hand_over(context, view, placed, started, finished).await?);
            }
            // Either the chain has it, or the outbox now sees to it, or it is too late.
            sqlx::query("DELETE FROM answers WHERE request_id = ?")
                .bind(id.as_bytes())
                .execute(&self.pool)
                .await?;
        }
        Ok(handed_over)
    }
}

/// Last block at which a `Finished` is worth sending.
pub(super) fn finish_deadline(view: &NetworkView) -> BlockNumber {
    view.number().saturating_add(view.tick.epoch.schedule.expiry_blocks.saturating_mul(2))
}

/// True when `Started` was missing.
async fn hand_over(
    context: &AgentContext,
    view: &NetworkView,
    placed: Option<PlacedRecord>,
    started: Started,
    finished: Finished,
) -> Result<bool, FallbackError> {
    // A record of an earlier attempt names an executor that did not answer.
    let recorded = placed.as_ref().is_some_and(|placed| {
        placed.record.attempt >= started.attempt || placed.record.state != InferenceState::Started
    });
    let start_deadline = started.authorization.authorization.expires_at;
    let finished = FinishedIn { epoch: started.epoch, finished };
    let missing = !recorded && start_deadline > view.number();
    if missing {
        context.outbox.enqueue(&Item::Start(started), start_deadline).await?;
    }
    if placed.is_none_or(|placed| placed.record.result.is_none()) {
        context.outbox.enqueue(&Item::Finish(finished), finish_deadline(view)).await?;
    }
    Ok(missing)
}
