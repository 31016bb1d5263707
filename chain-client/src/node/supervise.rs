//! Follows the node's heads and mends the connection.

use super::{storage, Link, NodeHash, Rpc, Shared};
use crate::{backend::Head, entries, error::ChainError, shape, types::BlockTick};
use codec::{Decode, Encode};
use starling_primitives::{schedule::EpochState, H256};
use std::{sync::Arc, time::Duration};
use subxt::{config::substrate::SubstrateHeader, rpcs::RpcClient, OnlineClient, SubstrateConfig};

/// First and longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Silence after which the node is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(30);
/// Time that a node has to answer that.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection with its metadata, checked, and the hash of block 0.
pub(super) async fn link_up(url: &str) -> Result<(Link, H256), ChainError> {
    let unreachable = |error: &dyn std::fmt::Display| ChainError::Disconnected {
        url: url.into(),
        reason: error.to_string(),
    };
    // The node is the host's own, next to the agent: plain `ws` is as good as its private network.
    let client = RpcClient::from_insecure_url(url).await.map_err(|error| unreachable(&error))?;
    let rpc = Rpc::new(client.clone());
    let backend = subxt::backend::LegacyBackend::<SubstrateConfig>::builder().build(client);
    let online = OnlineClient::from_backend_with_config(SubstrateConfig::new(), Arc::new(backend))
        .await
        .map_err(|error| unreachable(&error))?;
    let at = online.at_current_block().await.map_err(|error| unreachable(&error))?;
    shape::check(at.metadata_ref())?;
    let genesis = H256(online.genesis_hash().0);
    let spec_version = at.spec_version();
    Ok((Link { rpc, at, spec_version }, genesis))
}

/// Runs until it is aborted.
pub(super) async fn supervise(shared: Arc<Shared>) {
    let mut pause = BACKOFF.0;
    loop {
        if let Ok(link) = shared.link() {
            let started = tokio::time::Instant::now();
            let error = follow(&shared, &link).await;
            tracing::warn!(target: "chain", url = %shared.url, %error, "connection to the node lost");
            shared.set_link(None);
            if started.elapsed() > BACKOFF.1 {
                pause = BACKOFF.0;
            }
        }
        match link_up(&shared.url).await {
            Ok((_, genesis)) if genesis != shared.genesis => {
                tracing::error!(target: "chain", url = %shared.url, ?genesis, "the node follows another chain");
            }
            Ok((link, _)) => {
                tracing::info!(target: "chain", url = %shared.url, "connected to the node");
                shared.set_link(Some(Arc::new(link)));
                continue;
            }
            Err(error) => {
                tracing::debug!(target: "chain", url = %shared.url, %error, "the node is not there yet")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// Passes blocks on until something fails.
async fn follow(shared: &Shared, link: &Link) -> ChainError {
    match try_follow(shared, link).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn try_follow(shared: &Shared, link: &Link) -> Result<std::convert::Infallible, ChainError> {
    let failed = |error| shared.failed("subscription", error);
    let mut best = link.rpc.chain_subscribe_new_heads().await.map_err(failed)?;
    let mut finalized = link.rpc.chain_subscribe_finalized_heads().await.map_err(failed)?;
    let mut versions = link.rpc.state_subscribe_runtime_version().await.map_err(failed)?;
    let ended =
        || ChainError::Disconnected { url: shared.url.clone(), reason: "the subscription ended".into() };
    loop {
        tokio::select! {
            header = best.next() => {
                pass_on(shared, link, Head::Best, header.ok_or_else(ended)?.map_err(failed)?).await?;
            }
            header = finalized.next() => {
                pass_on(shared, link, Head::Finalized, header.ok_or_else(ended)?.map_err(failed)?).await?;
            }
            version = versions.next() => {
                let version = version.ok_or_else(ended)?.map_err(failed)?;
                if version.spec_version != link.spec_version {
                    return Err(ChainError::Incompatible("the runtime was upgraded; its metadata is read again".into()));
                }
            }
            () = tokio::time::sleep(SILENCE) => {
                tokio::time::timeout(ANSWER, link.rpc.system_health()).await.map_err(|_| ended())?.map_err(failed)?;
            }
        }
    }
}

async fn pass_on(
    shared: &Shared,
    link: &Link,
    head: Head,
    header: SubstrateHeader<NodeHash>,
) -> Result<(), ChainError> {
    let hash = H256(sp_crypto_hashing::blake2_256(&header.encode()));
    let number = u32::try_from(header.number).map_err(|error| ChainError::decode("a block number", error))?;
    let item = storage::Item::find(link.at.metadata_ref(), entries::EPOCH.place)?;
    let bytes = storage::values(&link.rpc, hash, &[item.key(&[])?]).await;
    let bytes = bytes.map_err(|error| shared.failed("state_getStorage", error))?.into_iter().next().flatten();
    let bytes = bytes.ok_or_else(|| ChainError::decode("Epochs.Current", "it is absent"))?;
    let epoch = EpochState::decode(&mut bytes.as_slice())
        .map_err(|error| ChainError::decode("Epochs.Current", error))?;
    let tick = BlockTick { number, hash, epoch };
    shared.sender(head).send_if_modified(|current| {
        let changed = current.is_none_or(|current| current.hash != hash);
        if changed {
            *current = Some(tick);
        }
        changed
    });
    Ok(())
}
