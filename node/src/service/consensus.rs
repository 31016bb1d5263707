//! Making blocks (BABE) and finalising them (GRANDPA).

use super::{
    network::GrandpaProtocol,
    partial::{BlockImport, Inherents, JUSTIFICATION_PERIOD},
    FullClient, FullSelectChain, TransactionPool,
};
use sc_consensus_babe::{BabeLink, BabeParams, SlotProportion};
use sc_consensus_grandpa::{GrandpaParams, LinkHalf, SharedVoterState, VotingRulesBuilder};
use sc_consensus_slots::BackoffAuthoringOnFinalizedHeadLagging;
use sc_network::{config::Role, service::traits::NetworkService};
use sc_network_sync::SyncingService;
use sc_service::{error::Error, Configuration, TaskManager};
use sc_telemetry::TelemetryHandle;
use sc_transaction_pool_api::OffchainTransactionPoolFactory;
use sp_keystore::KeystorePtr;
use starling_runtime::{opaque::Block, BlockNumber};
use std::{sync::Arc, time::Duration};
use substrate_prometheus_endpoint::Registry;

/// What consensus takes from the node's configuration.
pub(super) struct Settings {
    pub(super) role: Role,
    pub(super) enable_grandpa: bool,
    name: String,
    force_authoring: bool,
    registry: Option<Registry>,
}

impl Settings {
    pub(super) fn of(config: &Configuration) -> Self {
        Self {
            role: config.role,
            enable_grandpa: !config.disable_grandpa,
            name: config.network.node_name.clone(),
            force_authoring: config.force_authoring,
            registry: config.prometheus_registry().cloned(),
        }
    }
}

/// What BABE needs.
pub(super) struct Babe {
    pub(super) client: Arc<FullClient>,
    pub(super) select_chain: FullSelectChain,
    pub(super) block_import: BlockImport,
    pub(super) link: BabeLink<Block>,
    pub(super) keystore: KeystorePtr,
    pub(super) pool: Arc<TransactionPool>,
    pub(super) sync: Arc<SyncingService<Block>>,
    pub(super) telemetry: Option<TelemetryHandle>,
}

/// Makes blocks. Essential: an authority that makes none is down.
pub(super) fn spawn_babe(tasks: &TaskManager, settings: &Settings, babe: Babe) -> Result<(), Error> {
    let proposer = sc_basic_authorship::ProposerFactory::new(
        tasks.spawn_handle(),
        Arc::clone(&babe.client),
        babe.pool,
        settings.registry.as_ref(),
        babe.telemetry.clone(),
    );
    let slot_duration = babe.link.config().slot_duration();
    // Slows down while finality lags far behind, so that a chain without finality does not run away.
    let backoff = BackoffAuthoringOnFinalizedHeadLagging::<BlockNumber>::default();
    let worker = sc_consensus_babe::start_babe(BabeParams {
        keystore: babe.keystore,
        client: babe.client,
        select_chain: babe.select_chain,
        env: proposer,
        block_import: babe.block_import,
        sync_oracle: Arc::clone(&babe.sync),
        justification_sync_link: babe.sync,
        create_inherent_data_providers: Inherents { slot_duration },
        force_authoring: settings.force_authoring,
        backoff_authoring_blocks: Some(backoff),
        babe_link: babe.link,
        block_proposal_slot_portion: SlotProportion::new(0.5),
        max_block_proposal_slot_portion: None,
        telemetry: babe.telemetry,
    })?;
    tasks.spawn_essential_handle().spawn_blocking("babe-proposer", Some("block-authoring"), worker);
    Ok(())
}

/// What GRANDPA needs.
pub(super) struct Grandpa {
    pub(super) link: LinkHalf<Block, FullClient, FullSelectChain>,
    pub(super) protocol: GrandpaProtocol,
    pub(super) keystore: KeystorePtr,
    pub(super) pool: Arc<TransactionPool>,
    pub(super) network: Arc<dyn NetworkService>,
    pub(super) sync: Arc<SyncingService<Block>>,
    pub(super) voter_state: SharedVoterState,
    pub(super) telemetry: Option<TelemetryHandle>,
}

/// Votes on finality; without authority keys, follows the votes. Essential: a voter that ended does not come back.
pub(super) fn spawn_grandpa(tasks: &TaskManager, settings: &Settings, grandpa: Grandpa) -> Result<(), Error> {
    let config = sc_consensus_grandpa::Config {
        gossip_duration: Duration::from_millis(333),
        justification_generation_period: JUSTIFICATION_PERIOD,
        observer_enabled: false,
        local_role: settings.role,
        name: Some(settings.name.clone()),
        keystore: settings.role.is_authority().then_some(grandpa.keystore),
        telemetry: grandpa.telemetry.clone(),
        protocol_name: grandpa.protocol.name,
    };
    let voter = sc_consensus_grandpa::run_grandpa_voter(GrandpaParams {
        config,
        link: grandpa.link,
        network: grandpa.network,
        sync: grandpa.sync,
        notification_service: grandpa.protocol.notifications,
        voting_rule: VotingRulesBuilder::default().build(),
        prometheus_registry: settings.registry.clone(),
        shared_voter_state: grandpa.voter_state,
        telemetry: grandpa.telemetry,
        offchain_tx_pool_factory: OffchainTransactionPoolFactory::new(grandpa.pool),
    })?;
    tasks.spawn_essential_handle().spawn_blocking("grandpa-voter", None, voter);
    Ok(())
}
