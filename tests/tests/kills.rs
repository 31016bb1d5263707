//! `kill -9` of an agent, an ML node and a node, in the middle of streamed requests and of a sprint.

use anyhow::{bail, ensure, Context, Result};
use reqwest::Method;
use serde_json::Value;
use starling_chain_client::{BlockTick, ChainClient, Keypair, PlacedRecord};
use starling_e2e::{
    key::{self, request_id, ApiKey, Ended, Streamed},
    network::{Network, Role, Spec, HOST_NAMES},
    poll,
    ports::Ports,
    watch::{self, DrawnFrom, EPOCHS},
};
use starling_math::clock;
use starling_primitives::{
    ids::TOKEN,
    records::{InferenceRecord, InferenceState},
    verdict::Outcome,
    EpochIndex, RequestId,
};
use std::{collections::BTreeSet, time::Duration};

/// Its gateway is asked first, and its agent killed as a gateway.
const ALICE: usize = 0;
/// Its agent is killed while it executes, and while it races.
const BOB: usize = 1;
/// Its ML node is killed.
const CHARLIE: usize = 2;
/// Its node is killed.
const DAVE: usize = 3;

const CLIENT: &str = "//Eve";
const DEPOSIT: u128 = 900;
const DELEGATED: u128 = 400;
/// Long enough to be interrupted.
const LONG: u32 = 600;
const SHORT: u32 = 12;
/// Streams that may end before the kill, or go to others.
const TRIES: usize = 40;
/// For records, verdicts and queues to settle.
const SETTLED: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_promised_is_lost_by_kill_9() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("starling-kills-").tempdir()?;
    let mut spec = Spec::four_hosts("test", Ports::free_block()?);
    spec.full_node = false;
    // As fast as the demo model is, an answer ends before anybody is killed in it.
    for host in &mut spec.hosts {
        for node in &mut host.ml_nodes {
            node.program = "slow-mlnode".into();
        }
    }
    Network::prepare(folder.path(), spec)?.run(story).await
}

async fn story(network: &mut Network) -> Result<()> {
    let mut client = Client::open(network).await?;
    let tick = watch::fresh_epoch(network, &client.chain, &[ALICE, BOB, CHARLIE, DAVE], 6).await?;
    let epoch = tick.epoch.index;
    client.drawn_from = Some(DrawnFrom::at(&client.chain, tick).await?);

    // First the one that takes longest to come back: a host must be there when the beacon asks for it.
    client.node_dies_while_its_host_streams(network, DAVE).await?;
    client.ml_node_dies_while_it_streams(network, CHARLIE).await?;
    client.agent_dies_while_it_streams(network, BOB).await?;
    client.gateway_dies_while_it_streams(network, ALICE, BOB).await?;
    for role in network.spec().processes() {
        network.ready(role).await?;
    }
    everything_dies_in_the_race(network, &client.chain, tick).await?;

    racers_have_weight(network, &client.chain, epoch + 1).await?;
    everybody_claims(network, &client.chain, epoch).await?;
    every_request_is_settled(network, &client, epoch).await?;
    outboxes_drain(network).await?;
    killed_node_has_weight(network, &client.chain, epoch + 1).await?;
    network.finality_goes_on(DAVE, SETTLED).await
}

/// One who pays, asks, and remembers what it asked.
struct Client {
    chain: ChainClient,
    keys: [ApiKey; 2],
    drawn_from: Option<DrawnFrom>,
    asked: Vec<RequestId>,
    /// Those whose answer came with a receipt.
    answered: Vec<RequestId>,
}

impl Client {
    /// Waits for an epoch with weights, deposits, and takes keys of two gateways.
    async fn open(network: &Network) -> Result<Self> {
        let chain = ChainClient::connect(&network.rpc(ALICE)).await?;
        watch::fresh_epoch(network, &chain, &[ALICE, BOB], 60).await?;
        key::deposit(&chain, CLIENT, DEPOSIT).await?;
        let first = ApiKey::issue(network, &chain, ALICE, CLIENT, DELEGATED).await?;
        let second = ApiKey::issue(network, &chain, BOB, CLIENT, DELEGATED).await?;
        Ok(Self { chain, keys: [first, second], drawn_from: None, asked: vec![], answered: vec![] })
    }

    /// A stream that a certain host is writing.
    async fn stream_of(&mut self, network: &Network, key: usize, executor: usize) -> Result<Streamed> {
        let wanted = network.account(executor)?;
        let key = self.keys.get(key).context("a key")?.clone();
        let gateway = network.account(key.gateway)?;
        for number in 0..TRIES {
            let streamed = key.stream(&format!("Tell me all about number {number}."), LONG).await?;
            self.asked.push(streamed.request);
            let drawn = self.drawn_from.as_ref().context("what executors are drawn from")?;
            if drawn.executor(&streamed.request, &gateway).as_ref() == Some(&wanted) {
                return Ok(streamed);
            }
            // Dropping it hangs up.
        }
        bail!("{TRIES} requests, and none for {}", HOST_NAMES[executor])
    }

    /// Kills a process while a host streams through a gateway; how the stream ended. Tries again when it had ended
    /// before the kill and `until` wants another end.
    async fn kill_in_stream(
        &mut self,
        network: &mut Network,
        (victim, key, executor): (Role, usize, usize),
        until: impl Fn(&Ended) -> bool,
    ) -> Result<Ended> {
        for _ in 0..5 {
            let streamed = self.stream_of(network, key, executor).await?;
            let request = streamed.request;
            network.kill(victim);
            let ended = streamed.rest().await;
            println!("{} killed in {request:?}: {ended:?}", victim.name());
            if matches!(ended, Ended::Answered(_)) {
                self.answered.push(request);
            }
            if until(&ended) {
                return Ok(ended);
            }
            network.spawn(victim)?;
            network.ready(victim).await?;
            serves_again(network, executor).await?;
        }
        bail!("every stream ended before {} was killed", victim.name())
    }

    /// Plain requests while something is down: each is answered, by the next attempt where the first one fails.
    async fn is_answered(&mut self, key: usize) -> Result<()> {
        for question in ["What is a cat?", "What is a house?", "What is a river?", "What is a book?"] {
            let key = self.keys.get(key).context("a key")?;
            let answer = key.ask(question, SHORT).await.context("an answer while a process is down")?;
            let request = request_id(answer["starling"]["request_id"].as_str().context("request id")?)?;
            println!("meanwhile {} answered", answer["starling"]["executor"]);
            self.asked.push(request);
            self.answered.push(request);
        }
        Ok(())
    }

    async fn node_dies_while_its_host_streams(&mut self, network: &mut Network, host: usize) -> Result<()> {
        let victim = Role::Node(host);
        let answered = |ended: &Ended| matches!(ended, Ended::Answered(_));
        // Nothing waits for a block: the answer goes on.
        self.kill_in_stream(network, (victim, 0, host), answered).await?;
        network.spawn(victim)
    }

    async fn ml_node_dies_while_it_streams(&mut self, network: &mut Network, host: usize) -> Result<()> {
        let victim = Role::MlNode(host, 0);
        let ended = self.kill_in_stream(network, (victim, 0, host), is_interrupted).await?;
        ensure!(matches!(ended, Ended::Error(_)), "the client is told: {ended:?}");
        self.is_answered(0).await?;
        network.spawn(victim)?;
        network.ready(victim).await?;
        serves_again(network, host).await
    }

    async fn agent_dies_while_it_streams(&mut self, network: &mut Network, host: usize) -> Result<()> {
        let victim = Role::Agent(host);
        let ended = self.kill_in_stream(network, (victim, 0, host), is_interrupted).await?;
        ensure!(matches!(ended, Ended::Error(_)), "the client is told: {ended:?}");
        self.is_answered(0).await?;
        network.spawn(victim)?;
        network.ready(victim).await?;
        serves_again(network, host).await
    }

    /// The gateway takes the stream with it; the client asks another one.
    async fn gateway_dies_while_it_streams(
        &mut self,
        network: &mut Network,
        gateway: usize,
        executor: usize,
    ) -> Result<()> {
        let victim = Role::Agent(gateway);
        self.kill_in_stream(network, (victim, 0, executor), is_interrupted).await?;
        self.is_answered(1).await?;
        network.spawn(victim)?;
        network.ready(victim).await
    }
}

/// Waits until a host's agent has found its ML nodes healthy: before that it takes no work.
async fn serves_again(network: &Network, host: usize) -> Result<()> {
    let healthy = |node: &Value| node["health"]["state"] == "healthy";
    poll::until(&format!("{} to serve again", HOST_NAMES[host]), SETTLED, || async {
        let status = network.admin_call(host, Method::GET, "/admin/v1/status", None).await?;
        let nodes = status["nodes"].as_array().context("the agent's ML nodes")?;
        Ok(nodes.iter().all(healthy).then_some(()))
    })
    .await
}

fn is_interrupted(ended: &Ended) -> bool {
    !matches!(ended, Ended::Answered(_))
}

/// An agent, an ML node and a node of three hosts, in the middle of the race; all come back at once.
async fn everything_dies_in_the_race(
    network: &mut Network,
    chain: &ChainClient,
    tick: BlockTick,
) -> Result<()> {
    let start = clock::race_start(&tick.epoch);
    let racing = watch::block(chain, start + 2).await?;
    ensure!(
        racing.epoch.index == tick.epoch.index && racing.number < clock::check_start(&racing.epoch),
        "the kills took so long that the race of epoch {} is over",
        tick.epoch.index
    );
    let victims = [Role::Node(DAVE), Role::Agent(BOB), Role::MlNode(CHARLIE, 0)];
    for victim in victims {
        network.kill(victim);
        network.spawn(victim)?;
    }
    for victim in victims {
        network.ready(victim).await?;
    }
    Ok(())
}

/// Agent and ML node go on where they were when they died.
async fn racers_have_weight(network: &Network, chain: &ChainClient, epoch: EpochIndex) -> Result<()> {
    poll::until("the epoch after the race", EPOCHS, || async {
        Ok((chain.finalized_tick()?.epoch.index >= epoch).then_some(()))
    })
    .await?;
    let weights = chain.finalized()?.weights(epoch).await?;
    println!("weights after the race: {weights:?}");
    for host in [ALICE, BOB, CHARLIE] {
        let account = network.account(host)?;
        ensure!(weights.iter().any(|entry| entry.host == account), "{} lost its race", HOST_NAMES[host]);
    }
    Ok(())
}

/// A node needs its time to start, perhaps more than is left of the race: its host is back one race later at most.
async fn killed_node_has_weight(network: &Network, chain: &ChainClient, epoch: EpochIndex) -> Result<()> {
    let account = network.account(DAVE)?;
    let back = poll::until("weight for the host whose node was killed", EPOCHS, || async {
        let now = chain.finalized_tick()?.epoch.index;
        for later in epoch..=now.min(epoch + 1) {
            let weights = chain.finalized()?.weights(later).await?;
            if weights.iter().any(|entry| entry.host == account) {
                return Ok(Some(later));
            }
        }
        ensure!(now <= epoch + 1, "no weight in epochs {epoch} and {}", epoch + 1);
        Ok(None)
    })
    .await?;
    println!("{} has weight in epoch {back}; the race was for epoch {epoch}", HOST_NAMES[DAVE]);
    Ok(())
}

/// What was started is finished and verified, or expired and refunded; nothing is reserved; a finished transcript could
/// be fetched by whoever verified it.
async fn every_request_is_settled(network: &Network, client: &Client, epoch: EpochIndex) -> Result<()> {
    let chain = &client.chain;
    let hosts = watch::all_hosts(network)?;
    poll::until("every request to be settled", SETTLED, || async {
        let records = watch::inferences(chain, epoch..=epoch + 1).await?;
        let on_chain: BTreeSet<RequestId> = records.iter().map(|placed| placed.record.request_id).collect();
        for request in &client.asked {
            ensure!(on_chain.contains(request), "{request:?} is not on chain");
        }
        for placed in &records {
            check_settled(chain, placed, &hosts).await?;
        }
        Ok(Some(()))
    })
    .await?;

    let records = watch::inferences(chain, epoch..=epoch + 1).await?;
    let count = |state: fn(&InferenceRecord) -> bool| records.iter().filter(|p| state(&p.record)).count();
    let expired = count(|record| record.state == InferenceState::Expired);
    println!("{} requests, {expired} expired, {} answered", records.len(), client.answered.len());
    ensure!(count(|record| record.result.is_some()) > 0, "some are finished");
    every_answer_is_recorded(client, &records)?;
    money_adds_up(client, &records).await
}

async fn check_settled(
    chain: &ChainClient,
    placed: &PlacedRecord,
    hosts: &[starling_primitives::AccountId],
) -> Result<()> {
    let record = &placed.record;
    if record.state == InferenceState::Expired {
        ensure!(record.amount == 0, "an expired request costs nothing: {placed:?}");
        return Ok(());
    }
    ensure!(record.result.is_some(), "not finished: {placed:?}");
    ensure!(record.first_verdict_at.is_some(), "not verified: {placed:?}");
    let verdicts = chain.finalized()?.verdicts(placed.id, hosts).await?;
    for placed_verdict in verdicts {
        let verdict = placed_verdict.verdict;
        ensure!(matches!(verdict.outcome, Outcome::Measured(_)) && verdict.passed, "{placed:?}: {verdict:?}");
    }
    Ok(())
}

/// An answer with a receipt is finished on chain; only one whose executor's node was down may have come too late.
fn every_answer_is_recorded(client: &Client, records: &[PlacedRecord]) -> Result<()> {
    for request in &client.answered {
        let placed = records.iter().find(|placed| placed.record.request_id == *request);
        let record = &placed.with_context(|| format!("{request:?} was answered and is not on chain"))?.record;
        let settled = record.result.is_some() || record.state == InferenceState::Expired;
        ensure!(settled, "{request:?} was answered, and is {:?}", record.state);
    }
    Ok(())
}

async fn money_adds_up(client: &Client, records: &[PlacedRecord]) -> Result<()> {
    let account = Keypair::from_suri(CLIENT)?.account();
    let paid: u128 =
        records.iter().filter(|p| p.record.client == account).map(|placed| placed.record.amount).sum();
    let deposit = client.chain.finalized()?.deposit(&account).await?;
    ensure!(deposit.reserved == 0, "nothing runs, and {} is reserved", deposit.reserved);
    ensure!(deposit.free + paid == DEPOSIT * TOKEN, "{} + {paid} is not the deposit", deposit.free);
    Ok(())
}

/// Each outbox is empty at some moment: duties go on filling them.
async fn outboxes_drain(network: &Network) -> Result<()> {
    for (host, name) in HOST_NAMES.iter().enumerate() {
        poll::until(&format!("the outbox of {name} to drain"), SETTLED, || async {
            let metrics = network.get_text(&format!("{}/metrics", network.gateway(host))).await?;
            let waiting: Vec<&str> = metrics
                .lines()
                .filter(|line| line.starts_with("starling_host_outbox_pending") && !line.ends_with(" 0"))
                .collect();
            ensure!(waiting.is_empty(), "{waiting:?}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

async fn everybody_claims(network: &Network, chain: &ChainClient, epoch: EpochIndex) -> Result<()> {
    poll::until("all four claims of the epoch of the kills", EPOCHS, || async {
        let view = chain.finalized()?;
        for (host, name) in HOST_NAMES.iter().enumerate() {
            let claimed = view.has_claimed(epoch, &network.account(host)?).await?;
            ensure!(claimed, "{name} has not claimed");
        }
        Ok(Some(()))
    })
    .await
}
