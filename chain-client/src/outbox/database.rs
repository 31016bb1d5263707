//! The tables of the outbox.

use super::{
    item::{Item, Kind},
    OutboxError,
};
use codec::{Decode, Encode};
use sqlx::{
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    Row, SqlitePool,
};
use starling_primitives::{BlockNumber, H256};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Settled items older than this many blocks are forgotten; their effect is visible on chain for longer.
const KEEP_BLOCKS: BlockNumber = 50_000;

const PENDING: i64 = 0;
const DONE: i64 = 1;
const DROPPED: i64 = 2;

/// Where an item stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemState {
    /// On its way.
    Pending,
    /// Its effect is finalized.
    Done,
    /// Given up.
    Dropped {
        /// Why.
        reason: String,
    },
}

/// Items by kind: (pending, done, dropped).
pub type Counts = BTreeMap<Kind, (u64, u64, u64)>;

/// A pending item as stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) id: i64,
    pub(super) item: Item,
    pub(super) deadline: BlockNumber,
    pub(super) retry_blocks: BlockNumber,
    pub(super) submitted_at: Option<BlockNumber>,
    pub(super) refusals: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Database {
    pool: SqlitePool,
    /// Items on their way into the next transaction. Each has a caller that waits, so they are as few as callers.
    arriving: Arc<Mutex<Vec<Request>>>,
    /// Held while items are written.
    writing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Request {
    row: NewRow,
    answer: oneshot::Sender<Result<bool, OutboxError>>,
}

/// An item as it is written.
#[derive(Debug)]
struct NewRow {
    statement: &'static str,
    kind: i64,
    key: Vec<u8>,
    payload: Vec<u8>,
    deadline: i64,
    retry_blocks: i64,
}

impl NewRow {
    fn of(item: &Item, deadline: BlockNumber, retry_blocks: BlockNumber) -> Self {
        let statement = match item.kind() {
            // Whatever was announced before is void. The caller has seen that the chain says otherwise.
            Kind::Announce => {
                "INSERT INTO items (kind, key, payload, deadline, retry_blocks) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (kind, key) DO UPDATE SET payload = excluded.payload, state = 0, reason = NULL,
                 deadline = excluded.deadline, submitted_at = NULL, refusals = 0, settled_at = NULL
                 WHERE payload != excluded.payload OR state != 0"
            }
            // What was given up may be tried again.
            Kind::Claim
            | Kind::Commit
            | Kind::Contribute
            | Kind::Verdict
            | Kind::CommitVerdict
            | Kind::RevealVerdict
            | Kind::ProveFraud => {
                "INSERT INTO items (kind, key, payload, deadline, retry_blocks) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (kind, key) DO UPDATE SET payload = excluded.payload, state = 0, reason = NULL,
                 deadline = excluded.deadline, submitted_at = NULL, refusals = 0, settled_at = NULL
                 WHERE state = 2"
            }
            _ => {
                "INSERT INTO items (kind, key, payload, deadline, retry_blocks) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (kind, key) DO NOTHING"
            }
        };
        Self {
            statement,
            kind: item.kind() as i64,
            key: item.key(),
            payload: item.encode(),
            deadline: deadline.into(),
            retry_blocks: retry_blocks.into(),
        }
    }
}

impl Database {
    pub(super) async fn open(path: &Path) -> Result<Self, OutboxError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An item is a promise: it must be on the disk, not in the page cache, before it is announced.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        MIGRATIONS.run(&pool).await?;
        Ok(Self { pool, arriving: Arc::default(), writing: Arc::default() })
    }

    /// Queues an item. Callers that come at the same time share one transaction, and so one wait for the disk.
    pub(super) async fn insert(
        &self,
        item: &Item,
        deadline: BlockNumber,
        retry_blocks: BlockNumber,
    ) -> Result<bool, OutboxError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { row: NewRow::of(item, deadline, retry_blocks), answer };
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let database = self.clone();
        // Its own task: a caller that is dropped must not take the others' items with it.
        tokio::spawn(async move { database.insert_arriving().await });
        answered.await.map_err(|_| OutboxError::Closed)?
    }

    /// Writes what has arrived, unless somebody before has done it.
    async fn insert_arriving(&self) {
        let _writing = self.writing.lock().await;
        let requests = std::mem::take(&mut *self.arriving.lock().unwrap_or_else(PoisonError::into_inner));
        if requests.is_empty() {
            return;
        }
        let (rows, answers): (Vec<_>, Vec<_>) =
            requests.into_iter().map(|request| (request.row, request.answer)).unzip();
        match self.insert_rows(&rows).await {
            Ok(new) => {
                for (answer, new) in answers.into_iter().zip(new) {
                    // The caller may be gone; its item is not.
                    let _ = answer.send(Ok(new));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    let _ = answer.send(Err(OutboxError::Batch(error.clone())));
                }
            }
        }
    }

    pub(super) async fn insert_all(
        &self,
        items: &[Item],
        deadline: BlockNumber,
        retry_blocks: BlockNumber,
    ) -> Result<usize, OutboxError> {
        let rows: Vec<NewRow> = items.iter().map(|item| NewRow::of(item, deadline, retry_blocks)).collect();
        let _writing = self.writing.lock().await;
        Ok(self.insert_rows(&rows).await?.into_iter().filter(|new| *new).count())
    }

    /// Says of each row whether it was new.
    async fn insert_rows(&self, rows: &[NewRow]) -> Result<Vec<bool>, OutboxError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut new = Vec::with_capacity(rows.len());
        for row in rows {
            let result = sqlx::query(row.statement)
                .bind(row.kind)
                .bind(&row.key)
                .bind(&row.payload)
                .bind(row.deadline)
                .bind(row.retry_blocks)
                .execute(&mut *transaction)
                .await?;
            new.push(result.rows_affected() > 0);
        }
        transaction.commit().await?;
        Ok(new)
    }

    pub(super) async fn state(&self, kind: Kind, key: &[u8]) -> Result<Option<ItemState>, OutboxError> {
        let row = sqlx::query("SELECT state, reason FROM items WHERE kind = ? AND key = ?")
            .bind(kind as i64)
            .bind(key)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(match row.try_get::<i64, _>(0)? {
            PENDING => ItemState::Pending,
            DONE => ItemState::Done,
            _ => ItemState::Dropped { reason: row.try_get::<Option<String>, _>(1)?.unwrap_or_default() },
        }))
    }

    pub(super) async fn counts(&self) -> Result<Counts, OutboxError> {
        let rows = sqlx::query("SELECT kind, state, COUNT(*) FROM items GROUP BY kind, state")
            .fetch_all(&self.pool)
            .await?;
        let mut counts = Counts::new();
        for row in rows {
            let (kind, state): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let Some(kind) = usize::try_from(kind).ok().and_then(|kind| Kind::ALL.get(kind)) else {
                continue;
            };
            let (pending, done, dropped) = counts.entry(*kind).or_default();
            let count = row.try_get::<i64, _>(2)?.unsigned_abs();
            match state {
                PENDING => *pending = count,
                DONE => *done = count,
                _ => *dropped = count,
            }
        }
        Ok(counts)
    }

    /// The oldest pending items of a kind.
    pub(super) async fn pending(&self, kind: Kind, limit: usize) -> Result<Vec<Stored>, OutboxError> {
        let rows = sqlx::query(
            "SELECT id, payload, deadline, retry_blocks, submitted_at, refusals FROM items
             WHERE state = 0 AND kind = ? ORDER BY id LIMIT ?",
        )
        .bind(kind as i64)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let id: i64 = row.try_get(0)?;
                let payload: Vec<u8> = row.try_get(1)?;
                Ok(Stored {
                    id,
                    item: Item::decode(&mut payload.as_slice()).map_err(|_| OutboxError::Malformed(id))?,
                    deadline: block(row.try_get(2)?),
                    retry_blocks: block(row.try_get(3)?),
                    submitted_at: row.try_get::<Option<i64>, _>(4)?.map(block),
                    refusals: u32::try_from(row.try_get::<i64, _>(5)?).unwrap_or(u32::MAX),
                })
            })
            .collect()
    }

    /// Writes down that a transaction with these items is about to be given to the pool.
    pub(super) async fn note_submission(
        &self,
        hash: H256,
        items: &[i64],
        at: BlockNumber,
    ) -> Result<(), OutboxError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for item in items {
            sqlx::query("UPDATE items SET submitted_at = ? WHERE id = ?")
                .bind(i64::from(at))
                .bind(item)
                .execute(&mut *transaction)
                .await?;
            sqlx::query("INSERT OR REPLACE INTO transactions (hash, item, submitted_at) VALUES (?, ?, ?)")
                .bind(hash.0.to_vec())
                .bind(item)
                .bind(i64::from(at))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The pool did not take the transaction: its items are free again.
    pub(super) async fn note_refusal(
        &self,
        items: &[i64],
        reason: &str,
        counts: bool,
    ) -> Result<(), OutboxError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for item in items {
            sqlx::query(
                "UPDATE items SET submitted_at = NULL, refusals = refusals + ?, reason = ? WHERE id = ?",
            )
            .bind(i64::from(counts))
            .bind(reason)
            .bind(item)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Notes what went wrong with pending items without settling them.
    pub(super) async fn note_reason(&self, item: i64, reason: &str) -> Result<(), OutboxError> {
        sqlx::query("UPDATE items SET reason = ? WHERE id = ?")
            .bind(reason)
            .bind(item)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(super) async fn settle(
        &self,
        items: &[(i64, Option<String>)],
        at: BlockNumber,
    ) -> Result<(), OutboxError> {
        if items.is_empty() {
            return Ok(());
        }
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for (item, dropped) in items {
            sqlx::query("UPDATE items SET state = ?, settled_at = ?, reason = ? WHERE id = ? AND state = 0")
                .bind(if dropped.is_some() { DROPPED } else { DONE })
                .bind(i64::from(at))
                .bind(dropped)
                .bind(item)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Pending items that a transaction of ours carries.
    pub(super) async fn items_of(&self, hash: H256) -> Result<Vec<(i64, Item)>, OutboxError> {
        let rows = sqlx::query(
            "SELECT items.id, items.payload FROM transactions JOIN items ON items.id = transactions.item
             WHERE transactions.hash = ? AND items.state = 0",
        )
        .bind(hash.0.to_vec())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let (id, payload): (i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
                Ok((id, Item::decode(&mut payload.as_slice()).map_err(|_| OutboxError::Malformed(id))?))
            })
            .collect()
    }

    /// Whether any transaction of ours may be in a block, or on its way into one, with items that are still pending.
    pub(super) async fn has_open_transactions(&self) -> Result<bool, OutboxError> {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM transactions JOIN items ON items.id = transactions.item WHERE items.state = 0)",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(row.try_get::<i64, _>(0)? != 0)
    }

    /// The last finalized block whose events were read.
    pub(super) async fn progress(&self) -> Result<Option<BlockNumber>, OutboxError> {
        let row =
            sqlx::query("SELECT finalized FROM progress WHERE id = 0").fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.try_get::<i64, _>(0)).transpose()?.map(block))
    }

    pub(super) async fn set_progress(&self, finalized: BlockNumber) -> Result<(), OutboxError> {
        sqlx::query(
            "INSERT INTO progress (id, finalized) VALUES (0, ?) ON CONFLICT (id) DO UPDATE SET finalized = excluded.finalized",
        )
        .bind(i64::from(finalized))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The chain that the items are for: this one from now on, unless another was given before.
    pub(super) async fn bind(&self, genesis: &H256) -> Result<H256, OutboxError> {
        sqlx::query("INSERT INTO chain (id, genesis) VALUES (0, ?) ON CONFLICT (id) DO NOTHING")
            .bind(genesis.0.to_vec())
            .execute(&self.pool)
            .await?;
        let row = sqlx::query("SELECT genesis FROM chain WHERE id = 0").fetch_one(&self.pool).await?;
        let bytes: Vec<u8> = row.try_get(0)?;
        Ok(<[u8; 32]>::try_from(bytes).map(H256).unwrap_or_default())
    }

    /// Forgets what was settled long ago.
    pub(super) async fn prune(&self, now: BlockNumber) -> Result<(), OutboxError> {
        let before = i64::from(now.saturating_sub(KEEP_BLOCKS));
        sqlx::query("DELETE FROM items WHERE state != 0 AND settled_at < ?")
            .bind(before)
            .execute(&self.pool)
            .await?;
        sqlx::query(
            "DELETE FROM transactions WHERE submitted_at < ?
             OR item IN (SELECT id FROM items WHERE state != 0)",
        )
        .bind(before)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

fn block(number: i64) -> BlockNumber {
    BlockNumber::try_from(number).unwrap_or(BlockNumber::MAX)
}
