//! A node, over its RPC endpoint.

mod events;
mod storage;
mod supervise;
mod transaction;

use crate::{
    backend::{Backend, Head, RawPair},
    call::Call,
    entries::Place,
    error::{ChainError, SubmitError},
    event::RawEvent,
    keys::Keypair,
    types::BlockTick,
};
use async_trait::async_trait;
use starling_primitives::{AccountId, BlockNumber, H256};
use std::sync::{Arc, PoisonError, RwLock};
use subxt::{
    config::RpcConfigFor,
    rpcs::{methods::legacy::NumberOrHex, LegacyRpcMethods},
    OnlineClientAtBlock, SubstrateConfig,
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

type Rpc = LegacyRpcMethods<RpcConfigFor<SubstrateConfig>>;
type NodeHash = subxt::config::HashFor<SubstrateConfig>;

/// One live connection with the metadata that was in force when it was made.
#[derive(Debug)]
struct Link {
    rpc: Rpc,
    at: OnlineClientAtBlock<SubstrateConfig>,
    spec_version: u32,
}

#[derive(Debug)]
struct Shared {
    url: String,
    genesis: H256,
    link: RwLock<Option<Arc<Link>>>,
    best: watch::Sender<Option<BlockTick>>,
    finalized: watch::Sender<Option<BlockTick>>,
}

impl Shared {
    fn set_link(&self, link: Option<Arc<Link>>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    fn link(&self) -> Result<Arc<Link>, ChainError> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner).clone();
        link.ok_or_else(|| ChainError::Disconnected { url: self.url.clone(), reason: "reconnecting".into() })
    }

    fn sender(&self, head: Head) -> &watch::Sender<Option<BlockTick>> {
        match head {
            Head::Best => &self.best,
            Head::Finalized => &self.finalized,
        }
    }

    /// An error of the RPC client in the words of this crate.
    fn failed(&self, what: &str, error: subxt::rpcs::Error) -> ChainError {
        match error {
            subxt::rpcs::Error::User(error) => ChainError::Refused {
                what: what.into(),
                reason: format!("{} ({})", error.message, error.code),
            },
            subxt::rpcs::Error::Deserialization(error) => ChainError::decode(what, error),
            subxt::rpcs::Error::Decode(error) => ChainError::decode(what, error),
            other => ChainError::Disconnected { url: self.url.clone(), reason: other.to_string() },
        }
    }
}

/// The real [`Backend`]. Owns a task that follows the node and mends the connection; dropping it ends the task.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    _supervisor: AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects, checks that the runtime fits, and waits until both heads are known.
    pub async fn open(url: &str) -> Result<Self, ChainError> {
        let (link, genesis) = supervise::link_up(url).await?;
        let shared = Arc::new(Shared {
            url: url.into(),
            genesis,
            link: RwLock::new(Some(Arc::new(link))),
            best: watch::Sender::new(None),
            finalized: watch::Sender::new(None),
        });
        let task = tokio::spawn(supervise::supervise(shared.clone()));
        let connection = Self { shared, _supervisor: AbortOnDropHandle::new(task) };
        for head in [Head::Best, Head::Finalized] {
            let mut ticks = connection.head(head);
            // The supervisor holds the sender as long as this connection lives.
            let _ = ticks.wait_for(Option::is_some).await;
        }
        Ok(connection)
    }

    /// Asks one thing of the node.
    async fn ask<T, F>(&self, what: &str, question: impl FnOnce(Arc<Link>) -> F) -> Result<T, ChainError>
    where
        F: std::future::Future<Output = Result<T, subxt::rpcs::Error>>,
    {
        let link = self.shared.link()?;
        question(link).await.map_err(|error| self.shared.failed(what, error))
    }
}

#[async_trait]
impl Backend for Connection {
    fn genesis(&self) -> H256 {
        self.shared.genesis
    }

    fn head(&self, head: Head) -> watch::Receiver<Option<BlockTick>> {
        self.shared.sender(head).subscribe()
    }

    async fn fetch(
        &self,
        at: H256,
        place: Place,
        keys: &[Vec<Vec<u8>>],
    ) -> Result<Vec<Option<Vec<u8>>>, ChainError> {
        let link = self.shared.link()?;
        let item = storage::Item::find(link.at.metadata_ref(), place)?;
        let keys: Vec<Vec<u8>> = keys.iter().map(|parts| item.key(parts)).collect::<Result<_, _>>()?;
        storage::values(&link.rpc, at, &keys)
            .await
            .map_err(|error| self.shared.failed("state_queryStorageAt", error))
    }

    async fn iterate(&self, at: H256, place: Place, prefix: &[Vec<u8>]) -> Result<Vec<RawPair>, ChainError> {
        let link = self.shared.link()?;
        let item = storage::Item::find(link.at.metadata_ref(), place)?;
        let start = item.key(prefix)?;
        let failed = |error| self.shared.failed("state_getKeysPaged", error);
        let keys = storage::keys(&link.rpc, at, &start).await.map_err(failed)?;
        let values = storage::values(&link.rpc, at, &keys).await.map_err(failed)?;
        let present = keys.iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
        present.map(|(key, value)| Ok((item.remaining(key, prefix.len(), start.len())?, value))).collect()
    }

    async fn call_api(&self, at: H256, function: &str, arguments: Vec<u8>) -> Result<Vec<u8>, ChainError> {
        let hash = NodeHash::from(at.0);
        let question = |link: Arc<Link>| async move {
            link.rpc.state_call(function, Some(&arguments), Some(hash)).await
        };
        self.ask(function, question).await
    }

    async fn events(&self, at: H256) -> Result<Vec<RawEvent>, ChainError> {
        let link = self.shared.link()?;
        let place = Place { pallet: "System", item: "Events" };
        let bytes =
            self.fetch(at, place, &[Vec::new()]).await?.into_iter().next().flatten().unwrap_or_default();
        events::read(&link.at, bytes)
    }

    async fn block_hash(&self, number: BlockNumber) -> Result<Option<H256>, ChainError> {
        let number = NumberOrHex::Number(number.into());
        let question = |link: Arc<Link>| async move { link.rpc.chain_get_block_hash(Some(number)).await };
        Ok(self.ask("chain_getBlockHash", question).await?.map(|hash| H256(hash.0)))
    }

    async fn transaction_hashes(&self, at: H256) -> Result<Vec<H256>, ChainError> {
        let hash = NodeHash::from(at.0);
        let question = |link: Arc<Link>| async move { link.rpc.chain_get_block(Some(hash)).await };
        let block = self.ask("chain_getBlock", question).await?;
        let extrinsics = block.map(|details| details.block.extrinsics).unwrap_or_default();
        Ok(extrinsics.iter().map(|bytes| H256(sp_crypto_hashing::blake2_256(bytes))).collect())
    }

    async fn next_nonce(&self, account: &AccountId) -> Result<u64, ChainError> {
        let bytes: &[u8; 32] = account.as_ref();
        let account = subxt::utils::AccountId32(*bytes);
        let question = |link: Arc<Link>| async move { link.rpc.system_account_next_index(&account).await };
        self.ask("system_accountNextIndex", question).await
    }

    async fn sign(&self, call: &Call, signer: &Keypair, nonce: u64) -> Result<(H256, Vec<u8>), ChainError> {
        let link = self.shared.link()?;
        let best = (*self.shared.best.borrow()).ok_or(ChainError::NoBlock)?;
        let finalized = (*self.shared.finalized.borrow()).ok_or(ChainError::NoBlock)?;
        transaction::sign(&link.at, call, signer, nonce, transaction::checkpoint(best, finalized))
    }

    async fn submit(&self, transaction: &[u8]) -> Result<(), SubmitError> {
        let link = self.shared.link()?;
        match link.rpc.author_submit_extrinsic(transaction).await {
            Ok(_) => Ok(()),
            Err(subxt::rpcs::Error::User(error)) => Err(transaction::refusal(&error)),
            Err(error) => Err(self.shared.failed("author_submitExtrinsic", error).into()),
        }
    }
}
