//! Hosts that are full, and hosts whose agent is away: who is told what, and who loses what.

use anyhow::{ensure, Context, Result};
use starling_chain_client::{ChainClient, ChainEvent, HostStatus, PlacedRecord};
use starling_e2e::{
    clients,
    key::{self, request_id, ApiKey},
    network::{Network, Role, Spec, HOST_NAMES, PROFILE},
    poll,
    ports::Ports,
    watch::{self, EPOCHS},
};
use starling_primitives::{records::InferenceState, BlockNumber, EpochIndex};
use std::{collections::BTreeSet, time::Duration};

/// Its gateway is asked.
const ALICE: usize = 0;
/// Its agent runs inside its node.
const BOB: usize = 1;
/// Its agent is away for a while, and back in time.
const CHARLIE: usize = 2;
/// Its agent stays away.
const DAVE: usize = 3;

const CLIENT: &str = "//Eve";
const DEPOSIT: u128 = 900;
/// For records and verdicts to settle.
const SETTLED: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn full_hosts_say_so_and_absent_ones_lose_their_due_and_no_more() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("starling-absence-").tempdir()?;
    let mut spec = Spec::four_hosts("test", Ports::free_block()?);
    spec.full_node = false;
    spec.hosts[BOB].embedded_agent = true;
    for host in &mut spec.hosts {
        for node in &mut host.ml_nodes {
            node.program = "slow-mlnode".into();
            node.max_concurrent = 1;
        }
    }
    Network::prepare(folder.path(), spec)?.run(story).await
}

async fn story(network: &mut Network) -> Result<()> {
    let chain = ChainClient::connect(&network.rpc(ALICE)).await?;
    let everybody: Vec<usize> = (0..HOST_NAMES.len()).collect();
    watch::fresh_epoch(network, &chain, &everybody, 30).await?;
    key::deposit(&chain, CLIENT, DEPOSIT).await?;
    let key = ApiKey::issue(network, &chain, ALICE, CLIENT, DEPOSIT).await?;

    let tick = watch::fresh_epoch(network, &chain, &everybody, 12).await?;
    stock_clients_understand_429(network, &key).await?;
    everybody_earns(network, &key).await?;
    let epoch = tick.epoch.index;
    ensure!(chain.best_tick()?.epoch.index == epoch, "the requests took longer than epoch {epoch}");
    everything_is_verified(&chain, epoch).await?;
    next_epoch_begins(&chain, epoch + 1).await?;

    network.kill(Role::Agent(CHARLIE));
    network.kill(Role::Agent(DAVE));
    let present = [ALICE, BOB];
    have_claimed(network, &chain, epoch, &present).await?;
    comes_back_and_is_paid(network, &chain, epoch, CHARLIE).await?;
    let end = next_epoch_begins(&chain, epoch + 2).await?;
    stayed_away_and_lost_its_due(network, &chain, epoch, end).await?;

    // It is a host like before: suspended for nothing, its bond whole.
    network.spawn(Role::Agent(DAVE))?;
    network.ready(Role::Agent(DAVE)).await?;
    let view = chain.finalized()?;
    let (dave, alice) =
        (view.host(&network.account(DAVE)?).await?, view.host(&network.account(ALICE)?).await?);
    let (dave, alice) = (dave.context("the host that stayed away")?, alice.context("a host")?);
    ensure!(dave.bond == alice.bond && dave.convictions == 0, "{dave:?}");
    ensure!(matches!(dave.status, HostStatus::Active | HostStatus::Joining), "{dave:?}");
    Ok(())
}

/// At a gateway that knows the others to be full, and through the proxy, which asks one gateway after the other.
async fn stock_clients_understand_429(network: &Network, key: &ApiKey) -> Result<()> {
    let (base_url, api_key) = key.for_openai_clients();
    let python = clients::openai_python("openai_busy.py", &base_url, &api_key, PROFILE).await?;
    println!("python and full hosts: {python}");
    let npm = clients::openai_npm("openai_busy.mjs", &base_url, &api_key, PROFILE).await?;
    println!("npm and full hosts: {npm}");
    let port = network.spec().ports.proxy();
    let _proxy = clients::start_proxy(network, CLIENT, port)?;
    let base_url = format!("http://127.0.0.1:{port}/v1");
    let models = format!("{base_url}/models");
    poll::until("the proxy", SETTLED, || async { Ok(network.get(&models).await.ok()) }).await?;
    let python = clients::openai_python("openai_busy.py", &base_url, "any", PROFILE).await?;
    println!("python and full hosts, through the proxy: {python}");
    Ok(())
}

/// Asks until every host but the gateway's has executed a request.
async fn everybody_earns(network: &Network, key: &ApiKey) -> Result<()> {
    let mut missing: BTreeSet<String> = BTreeSet::new();
    for host in [BOB, CHARLIE, DAVE] {
        missing.insert(network.account(host)?.to_string());
    }
    for number in 0..60 {
        let answer = key.ask(&format!("What is number {number}?"), 12).await?;
        request_id(answer["starling"]["request_id"].as_str().context("request id")?)?;
        missing.remove(answer["starling"]["executor"].as_str().context("executor")?);
        if missing.is_empty() {
            return Ok(());
        }
    }
    anyhow::bail!("{missing:?} were never drawn")
}

async fn everything_is_verified(chain: &ChainClient, epoch: EpochIndex) -> Result<()> {
    let open = |placed: &PlacedRecord| {
        let record = &placed.record;
        record.state != InferenceState::Expired && record.first_verdict_at.is_none()
    };
    poll::until("a verdict on every request", SETTLED, || async {
        let records = watch::inferences(chain, epoch..=epoch).await?;
        Ok((!records.is_empty() && !records.iter().any(open)).then_some(()))
    })
    .await
}

/// First finalised block of an epoch.
async fn next_epoch_begins(chain: &ChainClient, epoch: EpochIndex) -> Result<BlockNumber> {
    let tick = poll::until(&format!("epoch {epoch}"), EPOCHS, || async {
        let tick = chain.finalized_tick()?;
        Ok((tick.epoch.index >= epoch).then_some(tick))
    })
    .await?;
    ensure!(tick.epoch.index == epoch, "epoch {epoch} was missed");
    Ok(tick.epoch.start)
}

async fn have_claimed(
    network: &Network,
    chain: &ChainClient,
    epoch: EpochIndex,
    hosts: &[usize],
) -> Result<()> {
    poll::until("claims by themselves", EPOCHS, || async {
        let view = chain.finalized()?;
        for host in hosts {
            if !view.has_claimed(epoch, &network.account(*host)?).await? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
}

/// While it was away the others could claim, and it could not; its due is what it was.
async fn comes_back_and_is_paid(
    network: &mut Network,
    chain: &ChainClient,
    epoch: EpochIndex,
    host: usize,
) -> Result<()> {
    let account = network.account(host)?;
    let view = chain.finalized()?;
    ensure!(!view.has_claimed(epoch, &account).await?, "nobody claims for an agent that is away");
    let (emission, fees) = view.claimable(epoch, &account).await?;
    ensure!(emission > 0 && fees > 0, "it earned something: {emission} and {fees}");
    let away = chain.finalized_tick()?;
    network.spawn(Role::Agent(host))?;
    network.ready(Role::Agent(host)).await?;
    have_claimed(network, chain, epoch, &[host]).await?;
    let events = watch::events(chain, away.number..=chain.finalized_tick()?.number).await?;
    let paid = ChainEvent::Claimed { epoch, host: account, emission, fees };
    ensure!(events.contains(&paid), "{paid:?} is not among {events:?}");
    Ok(())
}

/// What the pot burns is the absent host's due and the dust of the division.
async fn stayed_away_and_lost_its_due(
    network: &Network,
    chain: &ChainClient,
    epoch: EpochIndex,
    end: BlockNumber,
) -> Result<()> {
    let last_hash = chain.block_hash(end - 1).await?.context("the last block of the claims")?;
    let last = chain.at(last_hash);
    let (emission, fees) = last.claimable(epoch, &network.account(DAVE)?).await?;
    ensure!(emission > 0 && fees > 0, "it earned something: {emission} and {fees}");
    let due = emission + fees;
    let burned = poll::until("the burn", SETTLED, || async {
        let events = watch::events(chain, end..=chain.finalized_tick()?.number).await?;
        Ok(events.into_iter().find_map(|event| match event {
            ChainEvent::Burned { epoch: of, amount } if of == epoch => Some(amount),
            _ => None,
        }))
    })
    .await?;
    println!("burned {burned}; the absent host's due was {due}");
    ensure!((due..due + HOST_NAMES.len() as u128).contains(&burned), "burned {burned}, due {due}");
    Ok(())
}
