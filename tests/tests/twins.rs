//! A host runs two nodes with the same keys, as who wants a spare by mistake would. Both make blocks for the same slots: whoever
//! sees it proves it, the host is convicted, and the network goes on without it.

use anyhow::{ensure, Context, Result};
use codec::Decode;
use serde_json::json;
use sp_consensus_babe::digests::{CompatibleDigestItem, PreDigest};
use sp_crypto_hashing::twox_128;
use sp_runtime::DigestItem;
use starling_chain_client::{BlockTick, ChainClient, HostStatus};
use starling_e2e::{
    network::{Network, Role, Spec},
    poll,
    ports::Ports,
    watch,
};
use starling_primitives::{AccountId, BlockNumber};
use std::time::Duration;

const ALICE: usize = 0;
/// Has the twins.
const DAVE: usize = 3;
/// The twin needs the chain first, and then a slot of its own.
const CONVICTED: Duration = Duration::from_secs(300);
/// Blocks without the host: about two sessions.
const WITHOUT: BlockNumber = 20;

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_two_nodes_with_the_same_keys_is_convicted() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("starling-twins-").tempdir()?;
    let mut spec = Spec::four_hosts("test", Ports::free_block()?);
    // Its place is for the twin.
    spec.full_node = false;
    Network::prepare(folder.path(), spec)?.run(story).await
}

async fn story(network: &mut Network) -> Result<()> {
    let chain = ChainClient::connect(&network.rpc(ALICE)).await?;
    let dave = network.account(DAVE)?;
    // What is at stake is the weight that was worked for.
    let tick = watch::fresh_epoch(network, &chain, &[0, 1, 2, DAVE], 60).await?;
    ensure!(!is_convicted(&chain, &tick, &dave).await?, "nothing is proven yet");

    network.spawn_full_node(&["--validator", "--dave"])?;
    network.ready(Role::FullNode).await?;
    let proven = poll::until("a proof of two signatures", CONVICTED, || async {
        let tick = chain.finalized_tick()?;
        Ok(is_convicted(&chain, &tick, &dave).await?.then_some(tick))
    })
    .await?;
    println!("convicted by block {}", proven.number);
    let view = chain.at(proven.hash);
    let status = view.host(&dave).await?.context("the host")?.status;
    ensure!(status == HostStatus::Suspended, "{status:?}");
    ensure!(view.reputation(&dave).await? == 0, "its reputation is left");

    // Neither of the twins makes blocks any more, and the votes of the others are enough.
    let last = proven.number + WITHOUT;
    poll::until("finality without the host", CONVICTED, || async {
        Ok((chain.finalized_tick()?.number >= last).then_some(()))
    })
    .await?;
    for number in proven.number + 1..=last {
        let author = author(network, number).await?;
        ensure!(author != dave, "the host made block {number}");
    }
    let validators = validators(network, &block_hash(network, last).await?).await?;
    ensure!(!validators.contains(&dave) && validators.len() == 3, "{validators:?}");
    Ok(())
}

/// In the running epoch or the one before.
async fn is_convicted(chain: &ChainClient, tick: &BlockTick, host: &AccountId) -> Result<bool> {
    let view = chain.at(tick.hash);
    let epoch = tick.epoch.index;
    Ok(view.is_convicted(epoch, host).await? || view.is_convicted(epoch.saturating_sub(1), host).await?)
}

async fn block_hash(network: &Network, number: BlockNumber) -> Result<String> {
    let hash = network.rpc_call(ALICE, "chain_getBlockHash", json!([number])).await?;
    Ok(hash.as_str().with_context(|| format!("no block {number}"))?.to_owned())
}

/// The authorities at a block, in the order in which its seal counts them.
async fn validators(network: &Network, block: &str) -> Result<Vec<AccountId>> {
    let key = [twox_128(b"Session"), twox_128(b"Validators")].concat();
    let key = format!("0x{}", hex::encode(key));
    let value = network.rpc_call(ALICE, "state_getStorage", json!([key, block])).await?;
    Ok(Vec::decode(&mut bytes(value.as_str().context("the validators")?)?.as_slice())?)
}

/// Who made a block.
async fn author(network: &Network, number: BlockNumber) -> Result<AccountId> {
    let block = block_hash(network, number).await?;
    let header = network.rpc_call(ALICE, "chain_getHeader", json!([block])).await?;
    let logs = header["digest"]["logs"].as_array().context("the digest")?;
    let claims: Vec<PreDigest> = logs
        .iter()
        .filter_map(|log| DigestItem::decode(&mut bytes(log.as_str()?).ok()?.as_slice()).ok())
        .filter_map(|item| item.as_babe_pre_digest())
        .collect();
    let index = claims.first().with_context(|| format!("no claim of a slot: {header}"))?.authority_index();
    let validators = validators(network, &block).await?;
    validators.get(index as usize).cloned().with_context(|| format!("no authority {index}"))
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    Ok(hex::decode(text.trim_start_matches("0x"))?)
}
