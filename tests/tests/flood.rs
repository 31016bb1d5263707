//! A host that sends free calls as fast as it can takes room from nobody: what others owe, and what clients pay for,
//! is in the next block.

use anyhow::{ensure, Context, Result};
use starling_chain_client::{Call, ChainClient, Endpoints, Keypair, SubmitError};
use starling_e2e::{
    network::{HostSpec, Network, Role, Spec},
    ports::Ports,
    watch,
};
use starling_primitives::{
    ids::TOKEN,
    records::{Finished, FinishedIn},
    BlockNumber, H256,
};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Registers as a host and floods.
const FLOODER: &str = "//Eve";
/// Pays for what it sends.
const CLIENT: &str = "//Ferdie";
/// Times that the honest ones call.
const ROUNDS: u32 = 5;
/// Blocks between two announcements of a host, at least.
const ANNOUNCE_INTERVAL: BlockNumber = 5;
/// The next block may be in the making when a call arrives.
const SOON: BlockNumber = 2;
/// Records in one call: as many as fit.
const PER_CALL: usize = 256;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_free_calls_delays_nobody() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("starling-flood-").tempdir()?;
    let hosts = vec![HostSpec { ml_nodes: Vec::new(), ..HostSpec::default() }];
    let spec = Spec { chain: "dev".into(), ports: Ports::free_block()?, hosts, full_node: false };
    let mut network = Network::prepare(folder.path(), spec)?;
    // The chain alone: who sends what is up to the test.
    network.spawn(Role::Node(0))?;
    network.ready(Role::Node(0)).await?;
    let result = story(&network).await;
    network.report(result)
}

async fn story(network: &Network) -> Result<()> {
    let chain = ChainClient::connect(&network.rpc(0)).await?;
    let flooder = Keypair::from_suri(&format!("{FLOODER}//worker"))?;
    let register = Call::Register { worker: flooder.account(), profiles: vec![0] };
    chain.execute(&register, &Keypair::from_suri(FLOODER)?).await?;

    let flood = Flood::new(&chain, flooder);
    let first = chain.best_tick()?.number;
    let (sent, honest) = tokio::join!(flood.send(), async {
        let result = honest(&chain, &flood).await;
        flood.stop.store(true, Ordering::Relaxed);
        result
    });
    honest?;
    sent?;
    let last = chain.best_tick()?.number;
    was_a_flood(&chain, &flood, first + 1..=last).await
}

/// A worker announces its host, and a client deposits, while the flood goes on.
async fn honest(chain: &ChainClient, flood: &Flood) -> Result<()> {
    let alice = Keypair::from_suri("//Alice//worker")?;
    let client = Keypair::from_suri(CLIENT)?;
    flood.is_held_back(chain).await?;
    for round in 0..ROUNDS {
        let url = format!("http://127.0.0.1:{round}").into_bytes();
        let endpoints = Endpoints { peer_id: vec![1], multiaddrs: Vec::new(), gateway_url: url };
        let duty = delay(chain, &Call::Announce { endpoints }, &alice).await?;
        let paid = delay(chain, &Call::deposit(TOKEN), &client).await?;
        println!("a duty after {duty} blocks, a deposit after {paid}");
        ensure!(duty <= SOON && paid <= SOON, "a duty after {duty} blocks, a deposit after {paid}");
        let next = chain.best_tick()?.number + ANNOUNCE_INTERVAL;
        watch::block(chain, next).await?;
    }
    Ok(())
}

/// Blocks until a call is in one; it must succeed there.
async fn delay(chain: &ChainClient, call: &Call, signer: &Keypair) -> Result<BlockNumber> {
    let before = chain.best_tick()?.number;
    chain.execute(call, signer).await?;
    Ok(chain.best_tick()?.number - before)
}

/// Records of requests that nobody made, without end.
struct Flood {
    chain: ChainClient,
    worker: Keypair,
    stop: AtomicBool,
    /// Calls that the pool took, and that it refused.
    taken: AtomicU64,
    refused: AtomicU64,
}

impl Flood {
    fn new(chain: &ChainClient, worker: Keypair) -> Self {
        Self {
            chain: chain.clone(),
            worker,
            stop: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    async fn send(&self) -> Result<()> {
        let account = self.worker.account();
        let mut nonce = self.chain.next_nonce(&account).await?;
        while !self.stop.load(Ordering::Relaxed) {
            let (_, bytes) = self.chain.sign(&junk(nonce), &self.worker, nonce).await?;
            match self.chain.submit(&bytes).await {
                Ok(()) => {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    nonce += 1;
                }
                Err(SubmitError::Chain(error)) => return Err(error.into()),
                // At full speed: it asks again at once.
                Err(_) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    nonce = self.chain.next_nonce(&account).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits until the pool takes no more of it.
    async fn is_held_back(&self, chain: &ChainClient) -> Result<()> {
        let mut ticks = chain.subscribe_best();
        while self.refused.load(Ordering::Relaxed) == 0 {
            ticks.next().await.context("the node is gone")?;
        }
        Ok(())
    }
}

fn junk(nonce: u64) -> Call {
    let finished = |n: usize| Finished {
        request_id: H256::from_low_u64_be(nonce * PER_CALL as u64 + n as u64),
        response_hash: H256::zero(),
        transcript_root: H256::zero(),
        prompt_tokens: 1,
        completion_tokens: 1,
    };
    let records = (0..PER_CALL).map(|n| FinishedIn { epoch: 0, finished: finished(n) });
    Call::Finish { records: records.collect() }
}

/// Every block was as full of it as it may be, and no fuller.
async fn was_a_flood(
    chain: &ChainClient,
    flood: &Flood,
    blocks: std::ops::RangeInclusive<BlockNumber>,
) -> Result<()> {
    let (taken, refused) = (flood.taken.load(Ordering::Relaxed), flood.refused.load(Ordering::Relaxed));
    let mut by_block: BTreeMap<usize, u32> = BTreeMap::new();
    for number in blocks {
        let hash = chain.block_hash(number).await?.context("a block")?;
        let transactions = chain.at(hash).transaction_hashes().await?.len();
        *by_block.entry(transactions).or_default() += 1;
    }
    println!("the pool took {taken} junk calls and refused {refused}; blocks by transactions: {by_block:?}");
    ensure!(refused > 0 && taken > 64, "{taken} taken, {refused} refused: that was no flood");
    let fullest = by_block.keys().next_back().copied().unwrap_or_default();
    // An eighth of a block's time holds fewer; without bounds all that the pool takes would be in one.
    ensure!(fullest < 48, "a flood filled a block with {fullest} transactions");
    Ok(())
}
