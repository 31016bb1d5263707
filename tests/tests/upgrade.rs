//! A new runtime by referendum, while clients stream: nobody waits for it, and everybody goes on. Then a node that was not
//! there joins by the proofs of finality alone.

use anyhow::{bail, ensure, Context, Result};
use serde_json::json;
use sp_crypto_hashing::twox_128;
use starling_chain_client::ChainClient;
use starling_e2e::{
    clients,
    key::{self, ApiKey, Ended},
    network::{Network, Role, Spec, HOST_NAMES},
    paths, poll,
    ports::Ports,
    watch::{self, EPOCHS},
};
use starling_primitives::{EpochIndex, RequestId};
use std::{
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

const ALICE: usize = 0;
const BOB: usize = 1;
/// Its agent runs inside its node.
const DAVE: usize = 3;
/// Node of the one who joins late.
const LATE: usize = HOST_NAMES.len();

const CLIENT: &str = "//Eve";
const PROPOSER: &str = "//Ferdie";
/// Seconds of streaming for each answer, so that some are under way whenever the runtime changes.
const LONG: u32 = 300;
/// All nodes compile the new runtime at the same time, on the cores that generate.
const NO_STALL: Duration = Duration::from_secs(60);
/// Blocks with the new runtime while clients stream.
const BLOCKS_AFTER: u32 = 12;
const SETTLED: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn the_network_takes_a_new_runtime_while_it_streams() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("starling-upgrade-").tempdir()?;
    let mut spec = Spec::four_hosts("test", Ports::free_block()?);
    spec.full_node = false;
    spec.hosts[DAVE].embedded_agent = true;
    for host in &mut spec.hosts {
        for node in &mut host.ml_nodes {
            node.program = "slow-mlnode".into();
        }
    }
    let wasm = packed_runtime(folder.path())?;
    Network::prepare(folder.path(), spec)?.run(async |network| story(network, &wasm).await).await
}

/// The next runtime as it would be published: packed, so that a block has room for it. Its path.
fn packed_runtime(folder: &Path) -> Result<String> {
    let plain = std::fs::read(paths::next_runtime()?)?;
    let packed = sp_maybe_compressed_blob::compress_weakly(&plain, plain.len()).context("it packs")?;
    println!("the next runtime: {} bytes, packed {}", plain.len(), packed.len());
    let path = folder.join("next.wasm");
    std::fs::write(&path, packed)?;
    Ok(path.to_str().context("a path of text")?.to_owned())
}

async fn story(network: &mut Network, wasm: &str) -> Result<()> {
    let chain = ChainClient::connect(&network.rpc(ALICE)).await?;
    // Votes count by the weights of the epoch in which the referendum begins.
    watch::fresh_epoch(network, &chain, &[ALICE, BOB, DAVE], 60).await?;
    hosts_authorize(network, wasm).await?;

    // Far from the sprint: nodes that compile a runtime, and agents that read its metadata, miss some blocks.
    watch::fresh_epoch(network, &chain, &[ALICE, BOB, DAVE], 12).await?;
    key::deposit(&chain, CLIENT, 900).await?;
    let load = Load::begin(network, &chain).await?;
    let before = spec_version(network, ALICE).await?;
    let epoch = enact(network, wasm).await?;
    let after = follows(network, &chain, before).await?;
    let answered = load.end().await?;
    println!("spec version {before} became {after} in epoch {epoch}; {} streams answered", answered.len());

    every_answer_is_settled(network, &chain, epoch, &answered).await?;
    everybody_claims(network, &chain, epoch).await?;
    a_new_node_joins_by_proofs_of_finality(network).await?;
    network.finality_goes_on(DAVE, SETTLED).await
}

/// A referendum authorizes the runtime, as it would on a network where nobody has a key to everything.
async fn hosts_authorize(network: &Network, wasm: &str) -> Result<()> {
    let proposed = clients::polkadot(&network.rpc(ALICE), &["propose-upgrade", PROPOSER, wasm]).await?;
    let index = proposed.last().context("the referendum")?["index"].to_string();
    for host in ["//Alice", "//Bob", "//Dave"] {
        clients::polkadot(&network.rpc(ALICE), &["vote", host, &index]).await?;
    }
    let early = clients::polkadot(&network.rpc(ALICE), &["upgrade", wasm]).await;
    ensure!(early.is_err(), "nothing is authorized yet: {early:?}");
    let key = [twox_128(b"System"), twox_128(b"AuthorizedUpgrade")].concat();
    let key = format!("0x{}", hex::encode(key));
    poll::until("the referendum", EPOCHS, || async {
        let authorized = network.rpc_call(ALICE, "state_getStorage", json!([key])).await?;
        Ok((!authorized.is_null()).then_some(()))
    })
    .await
}

/// Brings the code; the epoch in which that was.
async fn enact(network: &Network, wasm: &str) -> Result<EpochIndex> {
    let chain = ChainClient::connect(&network.rpc(BOB)).await?;
    // The events of its block may be those of another metadata already: that nodes follow is looked at afterwards.
    clients::polkadot(&network.rpc(BOB), &["upgrade", wasm]).await?;
    Ok(chain.best_tick()?.epoch.index)
}

async fn spec_version(network: &Network, node: usize) -> Result<u64> {
    let version = network.rpc_call(node, "state_getRuntimeVersion", json!([])).await?;
    version["specVersion"].as_u64().context("a version")
}

/// Every node runs the new runtime, and finalises with it. The new version.
async fn follows(network: &Network, chain: &ChainClient, before: u64) -> Result<u64> {
    for node in 0..HOST_NAMES.len() {
        poll::until("the new runtime", SETTLED, || async {
            Ok((spec_version(network, node).await? > before).then_some(()))
        })
        .await?;
    }
    let upgraded = network.height(ALICE, false).await?;
    for node in 0..HOST_NAMES.len() {
        poll::until("finality with the new runtime", SETTLED, || async {
            Ok((network.height(node, true).await? >= upgraded + BLOCKS_AFTER).then_some(()))
        })
        .await?;
    }
    // Ours read the new metadata like everybody's.
    poll::until("our own client to follow", SETTLED, || async {
        Ok((chain.finalized_tick()?.number >= upgraded + BLOCKS_AFTER).then_some(()))
    })
    .await?;
    spec_version(network, ALICE).await
}

/// Clients that ask again as soon as they are answered.
struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Vec<RequestId>>>>,
}

impl Load {
    /// One client at each of two gateways; returns when both have had an answer.
    async fn begin(network: &Network, chain: &ChainClient) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for gateway in [ALICE, BOB] {
            let key = ApiKey::issue(network, chain, gateway, CLIENT, 400).await?;
            let first = stream(&key, 0).await.context("before the upgrade")?;
            clients.push(tokio::spawn(streams(key, first, over.clone())));
        }
        Ok(Self { over, clients })
    }

    /// Every request that was answered. Fails when one was not, or not in time.
    async fn end(self) -> Result<Vec<RequestId>> {
        self.over.store(true, Ordering::Relaxed);
        let mut answered = Vec::new();
        for client in self.clients {
            answered.extend(client.await??);
        }
        Ok(answered)
    }
}

async fn streams(key: ApiKey, first: RequestId, over: Arc<AtomicBool>) -> Result<Vec<RequestId>> {
    let mut answered = vec![first];
    while !over.load(Ordering::Relaxed) {
        let number = answered.len();
        answered.push(stream(&key, number).await.with_context(|| format!("stream {number}"))?);
    }
    Ok(answered)
}

async fn stream(key: &ApiKey, number: usize) -> Result<RequestId> {
    let begun = Instant::now();
    let question = format!("Tell me all about number {number} of gateway {}.", key.gateway);
    let answer = async {
        let streamed = key.stream(&question, LONG).await?;
        let (request, first) = (streamed.request, begun.elapsed());
        match streamed.rest().await {
            Ended::Answered(_) => Ok((request, first)),
            other => bail!("{request:?}: {other:?}"),
        }
    };
    let (request, first) = tokio::time::timeout(NO_STALL, answer)
        .await
        .with_context(|| format!("no answer within {NO_STALL:?}"))??;
    println!("{request:?}: first token after {first:.1?}, all after {:.1?}", begun.elapsed());
    Ok(request)
}

/// What was answered is on chain, finished and verified.
async fn every_answer_is_settled(
    network: &Network,
    chain: &ChainClient,
    epoch: EpochIndex,
    answered: &[RequestId],
) -> Result<()> {
    poll::until("verdicts on every answer", SETTLED, || async {
        let last = chain.finalized_tick()?.epoch.index;
        let records = watch::inferences(chain, epoch.saturating_sub(1)..=last).await?;
        for request in answered {
            let placed = records.iter().find(|placed| placed.record.request_id == *request);
            let record = &placed.with_context(|| format!("{request:?} is not on chain"))?.record;
            ensure!(record.result.is_some(), "{request:?} is not finished: {record:?}");
            ensure!(record.first_verdict_at.is_some(), "{request:?} is not verified: {record:?}");
        }
        Ok(Some(()))
    })
    .await
    .with_context(|| network.root().display().to_string())
}

/// Every agent does its duties with the new runtime: the epoch that began under the old one is claimed under the new.
async fn everybody_claims(network: &Network, chain: &ChainClient, epoch: EpochIndex) -> Result<()> {
    poll::until("all four claims", EPOCHS, || async {
        let view = chain.finalized()?;
        for (host, name) in HOST_NAMES.iter().enumerate() {
            let claimed = view.has_claimed(epoch, &network.account(host)?).await?;
            ensure!(claimed, "{name} has not claimed epoch {epoch}");
        }
        Ok(Some(()))
    })
    .await
}

/// It checks one proof for each authority set, with the weights of that set, and takes the state of the last block.
async fn a_new_node_joins_by_proofs_of_finality(network: &mut Network) -> Result<()> {
    let known = network.height(ALICE, true).await?;
    network.spawn_full_node(&["--sync", "warp"])?;
    network.ready(Role::FullNode).await?;
    poll::until("the new node to finalise", SETTLED, || async {
        Ok((network.height(LATE, true).await? > known).then_some(()))
    })
    .await?;
    // Blocks before that one are fetched afterwards and not executed: its state came as a whole.
    let log = std::fs::read_to_string(network.log(Role::FullNode))?;
    ensure!(log.contains("Warp sync is complete"), "it did not sync by proofs");
    let head = network.rpc_call(LATE, "chain_getFinalizedHead", json!([])).await?;
    for key in [b":code".to_vec(), [twox_128(b"Epochs"), twox_128(b"Current")].concat()] {
        let key = format!("0x{}", hex::encode(key));
        let here = network.rpc_call(LATE, "state_getStorageHash", json!([key, head])).await?;
        let there = network.rpc_call(ALICE, "state_getStorageHash", json!([key, head])).await?;
        ensure!(here.is_string() && here == there, "{key}: {here} and {there}");
    }
    Ok(())
}
