//! A host plants a bad answer; the honest ones see that it is one, and nobody comes to harm.

use anyhow::{ensure, Context, Result};
use starling_chain_client::{ChainClient, ChainEvent, HostStatus, Keypair, PlacedRecord};
use starling_e2e::{
    key,
    network::{Network, Spec, HOST_NAMES},
    poll,
    ports::Ports,
    watch::{self, EPOCHS},
};
use starling_primitives::records::{Delivery, InferenceState};

/// Plants.
const ALICE: usize = 0;
/// Its client.
const CLIENT: &str = "//Eve";
const DEPOSIT: u128 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_plant_is_seen_revealed_and_paid_back() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("starling-plants-").tempdir()?;
    let mut spec = Spec::four_hosts("test", Ports::free_block()?);
    spec.full_node = false;
    spec.hosts[ALICE].plants = Some(CLIENT.into());
    Network::prepare(folder.path(), spec)?.run(async |network| story(network).await).await
}

async fn story(network: &Network) -> Result<()> {
    let chain = ChainClient::connect(&network.rpc(ALICE)).await?;
    key::deposit(&chain, CLIENT, DEPOSIT).await?;
    let alice = network.account(ALICE)?;
    let everybody: Vec<usize> = (0..HOST_NAMES.len()).collect();
    let from = watch::fresh_epoch(network, &chain, &everybody, 30).await?;

    let client = Keypair::from_suri(CLIENT)?.account();
    let planted = poll::until("a revealed plant in a finalised block", EPOCHS, || async {
        let records =
            watch::inferences(&chain, from.epoch.index..=chain.finalized_tick()?.epoch.index).await?;
        Ok(records.into_iter().find(|placed| placed.record.state == InferenceState::Planted))
    })
    .await?;
    let PlacedRecord { id, record } = planted;
    println!("{id:?}: {record:?}");
    ensure!(record.executor == alice && record.client == client, "alice planted it herself: {record:?}");
    ensure!(record.gateway != alice, "through another gateway: {record:?}");
    ensure!(record.attempt == 0 && record.delivery != Delivery::Pending, "as any other: {record:?}");

    let events = watch::events(&chain, from.number..=chain.finalized_tick()?.number).await?;
    let reveal = events.iter().find_map(|event| match event {
        ChainEvent::PlantRevealed { id: of, planter, approvers } if *of == id => Some((planter, *approvers)),
        _ => None,
    });
    let (planter, approvers) = reveal.context("the reveal")?;
    ensure!((planter, approvers) == (&alice, 0), "{planter} planted, {approvers} honest hosts approved");
    for host in watch::all_hosts(network)? {
        let committed = events
            .iter()
            .any(|event| matches!(event, ChainEvent::PlantCommitted { host: of, .. } if *of == host));
        ensure!(committed, "{host} has committed itself to nothing");
        let info = chain.finalized()?.host(&host).await?.context("a host")?;
        ensure!(info.status == HostStatus::Active, "{host} is {:?}", info.status);
    }
    let harmed = events
        .iter()
        .find(|event| matches!(event, ChainEvent::Negligent { .. } | ChainEvent::Convicted { .. }));
    ensure!(harmed.is_none(), "{harmed:?}");
    let refunded = events.iter().find_map(|event| match event {
        ChainEvent::Planted { id: of, refunded } if *of == id => Some(*refunded),
        _ => None,
    });
    ensure!(refunded.is_some_and(|refunded| refunded > 0), "the client has its money back: {refunded:?}");
    Ok(())
}
