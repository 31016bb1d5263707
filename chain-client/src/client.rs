//! The handle that everything else holds.

use crate::{
    backend::{Backend, Head},
    call::Call,
    error::{ChainError, SubmitError},
    keys::Keypair,
    node::Connection,
    types::BlockTick,
    view::ChainView,
};
use starling_primitives::{AccountId, BlockNumber, H256};
use std::sync::Arc;
use tokio::sync::watch;

/// A chain, followed through one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ChainClient {
    backend: Arc<dyn Backend>,
}

impl ChainClient {
    /// Connects to a node's WebSocket endpoint, checks that its runtime fits, and waits for the first block.
    ///
    /// Later disconnections are mended in the background; reads fail with a temporary error meanwhile.
    pub async fn connect(url: &str) -> Result<Self, ChainError> {
        Ok(Self::new(Arc::new(Connection::open(url).await?)))
    }

    /// On top of any backend; for tests.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// Hash of block 0.
    pub fn genesis(&self) -> H256 {
        self.backend.genesis()
    }

    /// The latest best block.
    pub fn best_tick(&self) -> Result<BlockTick, ChainError> {
        self.tick(Head::Best)
    }

    /// The latest finalized block.
    pub fn finalized_tick(&self) -> Result<BlockTick, ChainError> {
        self.tick(Head::Finalized)
    }

    fn tick(&self, head: Head) -> Result<BlockTick, ChainError> {
        (*self.backend.head(head).borrow()).ok_or(ChainError::NoBlock)
    }

    /// The state of the latest best block.
    pub fn best(&self) -> Result<ChainView, ChainError> {
        Ok(self.at(self.best_tick()?.hash))
    }

    /// The state of the latest finalized block.
    pub fn finalized(&self) -> Result<ChainView, ChainError> {
        Ok(self.at(self.finalized_tick()?.hash))
    }

    /// The state of a block.
    pub fn at(&self, block: H256) -> ChainView {
        ChainView::new(self.backend.clone(), block)
    }

    /// Best blocks from now on, the current one first.
    pub fn subscribe_best(&self) -> Ticks {
        Ticks::new(self.backend.head(Head::Best))
    }

    /// Finalized blocks from now on, the current one first. Skips blocks when several are finalized at once.
    pub fn subscribe_finalized(&self) -> Ticks {
        Ticks::new(self.backend.head(Head::Finalized))
    }

    /// Hash of the block of this height on the best chain.
    pub async fn block_hash(&self, number: BlockNumber) -> Result<Option<H256>, ChainError> {
        self.backend.block_hash(number).await
    }

    /// First nonce of an account that neither the chain nor the pool has used.
    pub async fn next_nonce(&self, account: &AccountId) -> Result<u64, ChainError> {
        self.backend.next_nonce(account).await
    }

    /// Hash and bytes of a call signed with this nonce.
    pub async fn sign(
        &self,
        call: &Call,
        signer: &Keypair,
        nonce: u64,
    ) -> Result<(H256, Vec<u8>), ChainError> {
        self.backend.sign(call, signer, nonce).await
    }

    /// Gives a signed transaction to the pool.
    pub async fn submit(&self, transaction: &[u8]) -> Result<(), SubmitError> {
        self.backend.submit(transaction).await
    }
}

/// Blocks as they come. A slow reader misses the ones in between and gets the latest.
#[derive(Debug)]
pub struct Ticks {
    head: watch::Receiver<Option<BlockTick>>,
}

impl Ticks {
    fn new(mut head: watch::Receiver<Option<BlockTick>>) -> Self {
        head.mark_changed();
        Self { head }
    }

    /// Makes [`Self::next`] wait for a block that is not there yet.
    pub fn skip_current(&mut self) {
        self.head.mark_unchanged();
    }

    /// The next block; `None` when the client is gone.
    pub async fn next(&mut self) -> Option<BlockTick> {
        loop {
            self.head.changed().await.ok()?;
            if let Some(tick) = *self.head.borrow_and_update() {
                return Some(tick);
            }
        }
    }
}
