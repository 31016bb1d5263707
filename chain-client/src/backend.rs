//! What this crate needs of a node. [`crate::Connection`] does it over RPC, [`crate::fake::FakeChain`] in memory.

use crate::{
    call::Call,
    entries::Place,
    error::{ChainError, SubmitError},
    event::RawEvent,
    keys::Keypair,
    types::BlockTick,
};
use async_trait::async_trait;
use starling_primitives::{AccountId, BlockNumber, H256};
use tokio::sync::watch;

/// Which end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The node's best block; may be undone by a reorganisation.
    Best,
    /// The last block that cannot be undone.
    Finalized,
}

/// Encoded key parts and value of an entry of a map.
pub type RawPair = (Vec<Vec<u8>>, Vec<u8>);

/// A node, or what stands for one.
#[async_trait]
pub trait Backend: std::fmt::Debug + Send + Sync + 'static {
    /// Hash of block 0.
    fn genesis(&self) -> H256;

    /// The latest block of this head, and each one after it. May skip blocks; never repeats one.
    fn head(&self, head: Head) -> watch::Receiver<Option<BlockTick>>;

    /// Values of several keys of one storage item, in order. Each key is given as its encoded parts.
    async fn fetch(
        &self,
        at: H256,
        place: Place,
        keys: &[Vec<Vec<u8>>],
    ) -> Result<Vec<Option<Vec<u8>>>, ChainError>;

    /// All entries of a map below the given first parts; each with its remaining parts.
    async fn iterate(&self, at: H256, place: Place, prefix: &[Vec<u8>]) -> Result<Vec<RawPair>, ChainError>;

    /// Calls a runtime API.
    async fn call_api(&self, at: H256, function: &str, arguments: Vec<u8>) -> Result<Vec<u8>, ChainError>;

    /// Events of a block.
    async fn events(&self, at: H256) -> Result<Vec<RawEvent>, ChainError>;

    /// Hash of the block of this height on the best chain.
    async fn block_hash(&self, number: BlockNumber) -> Result<Option<H256>, ChainError>;

    /// Hashes of a block's transactions, in order.
    async fn transaction_hashes(&self, at: H256) -> Result<Vec<H256>, ChainError>;

    /// First nonce of an account that neither the chain nor the pool has used.
    async fn next_nonce(&self, account: &AccountId) -> Result<u64, ChainError>;

    /// Hash that a call will have as a transaction, and its bytes.
    async fn sign(&self, call: &Call, signer: &Keypair, nonce: u64) -> Result<(H256, Vec<u8>), ChainError>;

    /// Gives a signed transaction to the pool.
    async fn submit(&self, transaction: &[u8]) -> Result<(), SubmitError>;
}
