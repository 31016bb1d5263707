//! What the host promised to keep: one SQLite database per agent.
//!
//! Everything is durable when a `put` returns, and kept until two epochs have passed after its own. Nothing is
//! announced (to a client, a peer or the chain) before it is here.

mod panels;
mod plants;
mod sprint;

pub use plants::{Plant, PlantPlan};

use codec::{Decode, DecodeAll, Encode};
use sqlx::{
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    Row, SqlitePool,
};
use starling_primitives::{
    constraint::Constraint,
    receipt::SignedReceipt,
    request::{RequestHeader, SignedAuthorization},
    transcript::Transcript,
    verdict::Outcome,
    EpochIndex, InferenceId, RequestId, H256,
};
use std::{path::Path, time::Duration};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations/store");

/// Epochs, counted back from the current one, of which nothing is forgotten: it and the two before.
pub const KEPT_EPOCHS: EpochIndex = 3;

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database does not do its work.
    #[error("the store's database failed")]
    Database(#[from] sqlx::Error),
    /// The database cannot be brought to this program's layout.
    #[error("the store's layout")]
    Layout(#[from] sqlx::migrate::MigrateError),
    /// It keeps what was promised on another chain.
    #[error("the store belongs to the chain with genesis {found:?}, not to {expected:?}: give this chain its own data folder")]
    OtherChain {
        /// The chain of the store.
        found: H256,
        /// The chain that the node follows.
        expected: H256,
    },
    /// A row does not read back.
    #[error("the store holds an unreadable {what}")]
    Unreadable {
        /// What.
        what: &'static str,
    },
}

/// What an executor was given to run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Payload {
    /// The client's permission.
    pub authorization: SignedAuthorization,
    /// Epoch whose seed and weights drew this host.
    pub epoch: EpochIndex,
    /// Seed of that epoch.
    pub epoch_seed: H256,
    /// Attempt it was drawn with.
    pub attempt: u8,
    /// What the generation is bound to.
    pub header: RequestHeader,
    /// Token ids of the prompt.
    pub prompt_tokens: Vec<u32>,
    /// What the answer keeps to.
    pub constraint: Option<Constraint>,
}

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens, or makes, the database file.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A promise must be on the disk, not in the page cache, before it is announced.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        MIGRATIONS.run(&pool).await?;
        Ok(Self { pool })
    }

    /// Binds the store to a chain, for good; refuses another one.
    pub async fn bind(&self, genesis: &H256) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO chain (id, genesis) VALUES (0, ?) ON CONFLICT (id) DO NOTHING")
            .bind(key(genesis))
            .execute(&self.pool)
            .await?;
        let row = sqlx::query("SELECT genesis FROM chain WHERE id = 0").fetch_one(&self.pool).await?;
        match hash("genesis", row.try_get(0)?)? {
            found if found == *genesis => Ok(()),
            found => Err(StoreError::OtherChain { found, expected: *genesis }),
        }
    }

    // ---- executor ----

    /// Keeps a payload. False when this request, with this or a later attempt or with an answer, is known already.
    pub async fn put_payload(&self, payload: &Payload) -> Result<bool, StoreError> {
        let result = sqlx::query(
            "INSERT INTO inferences (request_id, epoch, attempt, payload) VALUES (?, ?, ?, ?)
             ON CONFLICT (request_id) DO UPDATE
             SET attempt = excluded.attempt, payload = excluded.payload, epoch = excluded.epoch
             WHERE inferences.transcript IS NULL AND inferences.attempt < excluded.attempt",
        )
        .bind(key(&payload.header.id()))
        .bind(i64::from(payload.epoch))
        .bind(i64::from(payload.attempt))
        .bind(payload.encode())
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected() > 0)
    }

    /// The payload of a request.
    pub async fn payload(&self, request: &RequestId) -> Result<Option<Payload>, StoreError> {
        let row = sqlx::query("SELECT payload FROM inferences WHERE request_id = ?")
            .bind(key(request))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| read("payload", row.try_get(0)?)).transpose()
    }

    /// Keeps the transcript of an answer beside its payload, and this host's word on it. False, and nothing is kept, when
    /// there is no such payload.
    pub async fn put_answer(
        &self,
        transcript: &Transcript,
        receipt: &SignedReceipt,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let result = sqlx::query("UPDATE inferences SET transcript = ? WHERE request_id = ?")
            .bind(transcript.encode())
            .bind(key(&transcript.header.id()))
            .execute(&mut *transaction)
            .await?;
        if result.rows_affected() == 0 {
            return Ok(false);
        }
        write_receipt(&mut *transaction, receipt).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Transcript and payload of a request; `None` unless both are there.
    pub async fn transcript(&self, request: &RequestId) -> Result<Option<(Transcript, Payload)>, StoreError> {
        let row = sqlx::query(
            "SELECT transcript, payload FROM inferences WHERE request_id = ? AND transcript NOT NULL",
        )
        .bind(key(request))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((read("transcript", row.try_get(0)?)?, read("payload", row.try_get(1)?)?)))
    }

    // ---- gateway ----

    /// Keeps an executor's signed word.
    pub async fn put_receipt(&self, receipt: &SignedReceipt) -> Result<(), StoreError> {
        write_receipt(&self.pool, receipt).await
    }

    /// An executor's signed word on a request: another host's that this one was the gateway of, or its own.
    pub async fn receipt(&self, request: &RequestId) -> Result<Option<SignedReceipt>, StoreError> {
        let row = sqlx::query("SELECT receipt FROM receipts WHERE request_id = ?")
            .bind(key(request))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| read("receipt", row.try_get(0)?)).transpose()
    }

    // ---- verifier ----

    /// Remembers what came of a check.
    pub async fn put_verified(&self, id: InferenceId, outcome: &Outcome) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO verified (epoch, idx, outcome) VALUES (?, ?, ?)
             ON CONFLICT (epoch, idx) DO UPDATE SET outcome = excluded.outcome",
        )
        .bind(i64::from(id.epoch))
        .bind(i64::from(id.index))
        .bind(outcome.encode())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The checked inferences of an epoch.
    pub async fn verified(&self, epoch: EpochIndex) -> Result<Vec<(u32, Outcome)>, StoreError> {
        let rows = sqlx::query("SELECT idx, outcome FROM verified WHERE epoch = ?")
            .bind(i64::from(epoch))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok((number(row.try_get(0)?), read("outcome", row.try_get(1)?)?))).collect()
    }

    // ---- progress ----

    /// How far a duty has come, in its own count; `None` when it never said.
    pub async fn progress(&self, name: &str) -> Result<Option<u32>, StoreError> {
        let row = sqlx::query("SELECT value FROM progress WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.map(number))
    }

    /// Remembers how far a duty has come.
    pub async fn set_progress(&self, name: &str, value: u32) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO progress (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(i64::from(value))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets what two epochs have passed over.
    pub async fn prune(&self, current: EpochIndex) -> Result<(), StoreError> {
        let before = i64::from(current.saturating_add(1).saturating_sub(KEPT_EPOCHS));
        for statement in [
            "DELETE FROM inferences WHERE epoch < ?",
            "DELETE FROM receipts WHERE epoch < ?",
            "DELETE FROM sprint_results WHERE epoch < ?",
            "DELETE FROM sprint_commitments WHERE epoch < ?",
            "DELETE FROM verified WHERE epoch < ?",
            "DELETE FROM panel_votes WHERE epoch < ?",
            "DELETE FROM plants WHERE epoch < ?",
        ] {
            sqlx::query(statement).bind(before).execute(&self.pool).await?;
        }
        Ok(())
    }
}

async fn write_receipt(
    executor: impl sqlx::SqliteExecutor<'_>,
    receipt: &SignedReceipt,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO receipts (request_id, epoch, receipt) VALUES (?, ?, ?)
         ON CONFLICT (request_id) DO UPDATE SET receipt = excluded.receipt, epoch = excluded.epoch",
    )
    .bind(key(&receipt.receipt.finished.request_id))
    .bind(i64::from(receipt.receipt.epoch))
    .bind(receipt.encode())
    .execute(executor)
    .await?;
    Ok(())
}

fn key(hash: &H256) -> Vec<u8> {
    hash.0.to_vec()
}

fn read<T: Decode>(what: &'static str, bytes: Vec<u8>) -> Result<T, StoreError> {
    T::decode_all(&mut bytes.as_slice()).map_err(|_| StoreError::Unreadable { what })
}

fn hash(what: &'static str, bytes: Vec<u8>) -> Result<H256, StoreError> {
    <[u8; 32]>::try_from(bytes).map(H256).map_err(|_| StoreError::Unreadable { what })
}

fn number(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
