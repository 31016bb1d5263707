//! Peers: block and transaction gossip, sync, and GRANDPA's protocol.

use super::{partial::Partial, FullBackend};
use sc_client_api::BlockBackend;
use sc_consensus_grandpa::warp_proof::NetworkProvider;
use sc_network::{
    config::FullNetworkConfiguration, service::traits::NetworkService, types::ProtocolName,
    NotificationService,
};
use sc_service::{error::Error, BuildNetworkParams, Configuration, PartialComponents, WarpSyncConfig};
use sp_runtime::traits::Block as BlockT;
use starling_runtime::{opaque::Block, Hash};
use std::sync::Arc;

/// How the rest of the node talks to the network.
pub(super) struct Handles {
    pub(super) network: Arc<dyn NetworkService>,
    pub(super) sync: Arc<sc_network_sync::SyncingService<Block>>,
    pub(super) system_rpc: sc_utils::mpsc::TracingUnboundedSender<sc_rpc::system::Request<Block>>,
    pub(super) transactions: sc_network_transactions::TransactionsHandlerController<Hash>,
}

/// GRANDPA's gossip protocol.
pub(super) struct GrandpaProtocol {
    pub(super) name: ProtocolName,
    pub(super) notifications: Box<dyn NotificationService>,
}

/// A network that runs, and the parts it was not given.
pub(super) struct Started {
    pub(super) parts: Partial<()>,
    pub(super) handles: Handles,
    pub(super) grandpa: GrandpaProtocol,
}

/// Starts the network. It takes the import queue.
pub(super) fn start<N>(
    config: &Configuration,
    parts: Partial<sc_consensus::DefaultImportQueue<Block>>,
) -> Result<Started, Error>
where
    N: sc_network::NetworkBackend<Block, <Block as BlockT>::Hash>,
{
    let PartialComponents {
        client,
        backend,
        task_manager,
        import_queue,
        keystore_container,
        select_chain,
        transaction_pool,
        other,
    } = parts;
    let registry = config.prometheus_registry();
    let metrics = N::register_notification_metrics(registry);
    let mut net_config = FullNetworkConfiguration::<Block, Hash, N>::new(&config.network, registry.cloned());
    let genesis = client.block_hash(0)?.ok_or_else(|| Error::Other("the database has no genesis".into()))?;
    let name = sc_consensus_grandpa::protocol_standard_name(&genesis, &config.chain_spec);
    let (protocol, notifications) = sc_consensus_grandpa::grandpa_peers_set_config::<_, N>(
        name.clone(),
        metrics.clone(),
        net_config.peer_store_handle(),
    );
    net_config.add_notification_protocol(protocol);
    let warp_sync = NetworkProvider::<Block, FullBackend>::new(
        Arc::clone(&backend),
        other.grandpa_link.shared_authority_set().clone(),
        Vec::new(),
    );
    let (network, system_rpc, transactions, sync, _bitswap) =
        sc_service::build_network(BuildNetworkParams {
            config,
            net_config,
            client: Arc::clone(&client),
            transaction_pool: Arc::clone(&transaction_pool),
            spawn_handle: task_manager.spawn_handle(),
            spawn_essential_handle: task_manager.spawn_essential_handle(),
            import_queue,
            block_announce_validator_builder: None,
            warp_sync_config: Some(WarpSyncConfig::WithProvider(Arc::new(warp_sync))),
            block_relay: None,
            metrics,
            gap_sync_body_policy: None,
        })?;
    let parts = PartialComponents {
        client,
        backend,
        task_manager,
        import_queue: (),
        keystore_container,
        select_chain,
        transaction_pool,
        other,
    };
    let handles = Handles { network, sync, system_rpc, transactions };
    Ok(Started { parts, handles, grandpa: GrandpaProtocol { name, notifications } })
}
