//! The outbox: what was promised to the chain reaches it, whatever dies in between.
//!
//! An item is durable when [`Outbox::enqueue`] returns. At each best block, [`Outbox::run`] packs what is pending
//! into one call per kind (a few when there is more than a call holds), signs with the worker key and gives it to
//! the pool. Whether an item arrived is decided by the chain's *state* alone, never by the fate of a transaction:
//! an item is done when its effect stands in a finalized block. So a crash, a reorganisation, a dropped transaction
//! or a nonce gap all look alike (no effect yet) and are cured alike: it is sent again with the account's next
//! nonce. What the chain refuses for good, and what outlives its deadline, is dropped with a logged reason.

mod database;
mod effects;
mod item;
mod runner;

pub use database::{Counts, ItemState};
pub use item::{Item, Kind};

use crate::{client::ChainClient, keys::Keypair};
use database::Database;
use starling_primitives::{AccountId, BlockNumber, H256};
use std::{path::Path, sync::Arc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Blocks to wait for an effect before an item is sent again.
pub const RETRY_BLOCKS: BlockNumber = 5;

/// The outbox failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The database does not do its work.
    #[error("outbox database")]
    Database(#[from] sqlx::Error),
    /// The database cannot be brought to this program's layout.
    #[error("layout of the outbox database")]
    Layout(#[from] sqlx::migrate::MigrateError),
    /// The transaction that was to take this item, and others, failed.
    #[error("a batch of items was not written")]
    Batch(#[source] Arc<OutboxError>),
    /// The process is ending.
    #[error("the outbox is closed")]
    Closed,
    /// The items are for another chain.
    #[error("the outbox holds items for the chain with genesis {found:?}, not for {expected:?}: give this chain its own data folder")]
    OtherChain {
        /// The chain of the items.
        found: H256,
        /// The chain that the node follows.
        expected: H256,
    },
    /// An item was stored by another program.
    #[error("item {0} of the outbox cannot be decoded")]
    Malformed(i64),
}

/// A durable queue of calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    database: Database,
    /// Something was queued whose window is short: it does not wait for the next block.
    urgent: Arc<Notify>,
}

impl Outbox {
    /// Opens, or makes, the database file.
    pub async fn open(path: &Path) -> Result<Self, OutboxError> {
        Ok(Self { database: Database::open(path).await?, urgent: Arc::default() })
    }

    /// Binds the outbox to a chain, for good; refuses another one.
    pub async fn bind(&self, genesis: &H256) -> Result<(), OutboxError> {
        match self.database.bind(genesis).await? {
            found if found == *genesis => Ok(()),
            found => Err(OutboxError::OtherChain { found, expected: *genesis }),
        }
    }

    /// Queues an item; durable when this returns. False when the same item is queued, or was, already.
    ///
    /// `deadline` is the last block at which it is worth sending.
    pub async fn enqueue(&self, item: &Item, deadline: BlockNumber) -> Result<bool, OutboxError> {
        self.enqueue_with_retry(item, deadline, RETRY_BLOCKS).await
    }

    /// [`Self::enqueue`] with another pause between attempts.
    pub async fn enqueue_with_retry(
        &self,
        item: &Item,
        deadline: BlockNumber,
        retry_blocks: BlockNumber,
    ) -> Result<bool, OutboxError> {
        let new = self.database.insert(item, deadline, retry_blocks).await?;
        if new && item.kind().is_urgent() {
            self.urgent.notify_one();
        }
        Ok(new)
    }

    /// Queues several items in one transaction; returns how many were new.
    pub async fn enqueue_all(&self, items: &[Item], deadline: BlockNumber) -> Result<usize, OutboxError> {
        self.database.insert_all(items, deadline, RETRY_BLOCKS).await
    }

    /// Where an item stands; `None` when it was never queued, or long ago.
    pub async fn state(&self, kind: Kind, key: &[u8]) -> Result<Option<ItemState>, OutboxError> {
        self.database.state(kind, key).await
    }

    /// The oldest items of a kind that wait.
    pub async fn pending(&self, kind: Kind, limit: usize) -> Result<Vec<Item>, OutboxError> {
        let stored = self.database.pending(kind, limit).await?;
        Ok(stored.into_iter().map(|stored| stored.item).collect())
    }

    /// How many items wait and how many were settled, by kind.
    pub async fn counts(&self) -> Result<Counts, OutboxError> {
        self.database.counts().await
    }

    /// Brings items to the chain until `shutdown`. Only one may run at a time for a worker key.
    pub async fn run(
        self,
        chain: ChainClient,
        worker: Keypair,
        host: AccountId,
        shutdown: CancellationToken,
    ) {
        runner::run(self.database, self.urgent, chain, worker, host, shutdown).await;
    }

    /// One pass at the latest best block, for tests and tools.
    pub async fn pass(
        &self,
        chain: &ChainClient,
        worker: &Keypair,
        host: &AccountId,
    ) -> Result<(), PassError> {
        runner::Runner::new(&self.database, chain, worker, host).pass().await
    }
}

/// A pass over the outbox was cut short; the next block tries again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The database.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] crate::ChainError),
}

#[cfg(test)]
mod tests;
