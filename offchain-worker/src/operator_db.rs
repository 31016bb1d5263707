//! What the operator decided at run time: ML nodes and API keys. Durable, apart from what duties keep.

use crate::config::NodeSpec;
use sqlx::{
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    Row, SqlitePool,
};
use starling_primitives::{AccountId, Balance, H256};
use std::{path::Path, time::Duration};

/// The operator's database failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorDbError {
    /// The database does not do what it was told.
    #[error("the operator's database failed")]
    Database(#[from] sqlx::Error),
    /// A row does not read back.
    #[error("the operator's database holds an unreadable {what}")]
    Unreadable {
        /// What.
        what: &'static str,
    },
}

/// An API key as stored; the key itself is never kept, only its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Public name of the key.
    pub id: String,
    /// What the operator calls it.
    pub label: String,
    /// Account that pays. It must have delegated spending to this gateway's delegate key.
    pub account: AccountId,
    /// Most that this key may spend in all; `None`: only the chain's limit holds.
    pub limit: Option<Balance>,
    /// Spent so far, with what is promised to requests in flight.
    pub spent: Balance,
    /// Unix time of its making, in seconds.
    pub created_at: u64,
    /// Unix time of its revocation, in seconds.
    pub revoked_at: Option<u64>,
}

/// The operator's database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OperatorDb {
    pool: SqlitePool,
}

const SCHEMA: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS nodes (id TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS api_keys (
        id TEXT PRIMARY KEY,
        hash BLOB NOT NULL UNIQUE,
        label TEXT NOT NULL,
        account BLOB NOT NULL,
        spend_limit TEXT,
        spent TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        revoked_at INTEGER
    ) STRICT",
];

impl OperatorDb {
    /// Opens or makes the database.
    pub async fn open(path: &Path) -> Result<Self, OperatorDbError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Survives the death of the process; a power cut may cost the last moment's counts, which the chain's own
            // limit bounds. A request must not wait for the disk because of them.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(10));
        // One writer: sqlite has no more, and read-modify-write of a key's spending stays atomic.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        for statement in SCHEMA {
            sqlx::query(statement).execute(&pool).await?;
        }
        Ok(Self { pool })
    }

    /// All registered ML nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeSpec>, OperatorDbError> {
        let rows = sqlx::query("SELECT spec FROM nodes ORDER BY id").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                serde_json::from_str(row.try_get::<&str, _>(0)?)
                    .map_err(|_| OperatorDbError::Unreadable { what: "ML node" })
            })
            .collect()
    }

    /// Adds or replaces an ML node.
    pub async fn put_node(&self, node: &NodeSpec) -> Result<(), OperatorDbError> {
        let spec =
            serde_json::to_string(node).map_err(|_| OperatorDbError::Unreadable { what: "ML node" })?;
        sqlx::query(
            "INSERT INTO nodes (id, spec) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET spec = excluded.spec",
        )
        .bind(&node.id)
        .bind(spec)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets an ML node.
    pub async fn delete_node(&self, id: &str) -> Result<(), OperatorDbError> {
        sqlx::query("DELETE FROM nodes WHERE id = ?").bind(id).execute(&self.pool).await?;
        Ok(())
    }

    /// Stores a new API key under the hash of its text.
    pub async fn put_key(&self, hash: &H256, key: &ApiKey) -> Result<(), OperatorDbError> {
        let account: &[u8] = key.account.as_ref();
        sqlx::query(
            "INSERT INTO api_keys (id, hash, label, account, spend_limit, spent, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&key.id)
        .bind(hash.as_bytes())
        .bind(&key.label)
        .bind(account)
        .bind(key.limit.map(|limit| limit.to_string()))
        .bind(key.spent.to_string())
        .bind(i64::try_from(key.created_at).unwrap_or(i64::MAX))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All API keys, revoked ones too.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, OperatorDbError> {
        let rows = sqlx::query(
            "SELECT id, label, account, spend_limit, spent, created_at, revoked_at FROM api_keys ORDER BY created_at, id",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_key).collect()
    }

    /// The API key with this hash, unless it was revoked.
    pub async fn key_by_hash(&self, hash: &H256) -> Result<Option<ApiKey>, OperatorDbError> {
        let row = sqlx::query(
            "SELECT id, label, account, spend_limit, spent, created_at, revoked_at FROM api_keys
             WHERE hash = ? AND revoked_at IS NULL",
        )
        .bind(hash.as_bytes())
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read_key).transpose()
    }

    /// Revokes a key; false when there is none of this id, or it was revoked before.
    pub async fn revoke_key(&self, id: &str, now: u64) -> Result<bool, OperatorDbError> {
        let done = sqlx::query("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
            .bind(i64::try_from(now).unwrap_or(i64::MAX))
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Promises `amount` of a key's limit to a request; false when the limit does not cover it.
    pub async fn spend(&self, id: &str, amount: Balance) -> Result<bool, OperatorDbError> {
        self.change_spent(id, |key| {
            let spent = key.spent.checked_add(amount)?;
            key.limit.is_none_or(|limit| spent <= limit).then_some(spent)
        })
        .await
    }

    /// Gives back what a request did not use.
    pub async fn give_back(&self, id: &str, amount: Balance) -> Result<(), OperatorDbError> {
        self.change_spent(id, |key| Some(key.spent.saturating_sub(amount))).await.map(drop)
    }

    async fn change_spent(
        &self,
        id: &str,
        change: impl FnOnce(&ApiKey) -> Option<Balance>,
    ) -> Result<bool, OperatorDbError> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query(
            "SELECT id, label, account, spend_limit, spent, created_at, revoked_at FROM api_keys WHERE id = ?",
        )
        .bind(id)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(spent) = row.as_ref().map(read_key).transpose()?.as_ref().and_then(change) else {
            return Ok(false);
        };
        sqlx::query("UPDATE api_keys SET spent = ? WHERE id = ?")
            .bind(spent.to_string())
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }
}

fn read_key(row: &sqlx::sqlite::SqliteRow) -> Result<ApiKey, OperatorDbError> {
    let unreadable = || OperatorDbError::Unreadable { what: "API key" };
    let amount = |text: &str| text.parse::<Balance>().map_err(|_| unreadable());
    let account: [u8; 32] = row.try_get::<&[u8], _>("account")?.try_into().map_err(|_| unreadable())?;
    let limit: Option<&str> = row.try_get("spend_limit")?;
    Ok(ApiKey {
        id: row.try_get("id")?,
        label: row.try_get("label")?,
        account: AccountId::new(account),
        limit: limit.map(amount).transpose()?,
        spent: amount(row.try_get("spent")?)?,
        created_at: row.try_get::<i64, _>("created_at")?.try_into().unwrap_or_default(),
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.and_then(|at| at.try_into().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(limit: Option<Balance>) -> ApiKey {
        ApiKey {
            id: "k1".into(),
            label: "test".into(),
            account: AccountId::new([7; 32]),
            limit,
            spent: 0,
            created_at: 5,
            revoked_at: None,
        }
    }

    #[tokio::test]
    async fn keys_survive_and_never_exceed_their_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.sqlite");
        let hash = H256::repeat_byte(1);
        let db = OperatorDb::open(&path).await.unwrap();
        db.put_key(&hash, &key(Some(10))).await.unwrap();
        let (a, b) = tokio::join!(db.spend("k1", 6), db.spend("k1", 6));
        assert!(a.unwrap() ^ b.unwrap(), "two requests at once must not overspend");
        db.give_back("k1", 2).await.unwrap();
        drop(db);
        let db = OperatorDb::open(&path).await.unwrap();
        assert_eq!(db.key_by_hash(&hash).await.unwrap().unwrap().spent, 4);
        assert!(db.spend("k1", 6).await.unwrap());
        assert!(!db.spend("k1", 1).await.unwrap());
        assert!(db.revoke_key("k1", 9).await.unwrap());
        assert!(!db.revoke_key("k1", 9).await.unwrap());
        assert_eq!(db.key_by_hash(&hash).await.unwrap(), None);
        assert_eq!(db.keys().await.unwrap()[0].revoked_at, Some(9));
    }

    #[tokio::test]
    async fn nodes_survive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.sqlite");
        let node = NodeSpec {
            id: "a".into(),
            host: "127.0.0.1".into(),
            inference_port: 1,
            poc_port: 2,
            max_concurrent: 3,
            models: [("m".to_owned(), crate::config::ModelSpec::default())].into(),
        };
        OperatorDb::open(&path).await.unwrap().put_node(&node).await.unwrap();
        let db = OperatorDb::open(&path).await.unwrap();
        assert_eq!(db.nodes().await.unwrap(), vec![node]);
        db.delete_node("a").await.unwrap();
        assert!(db.nodes().await.unwrap().is_empty());
    }
}
