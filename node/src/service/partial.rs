//! What every command needs: database, client, transaction pool and import queue.

use super::{Executor, FullBackend, FullClient, FullSelectChain, TransactionPool};
use sc_consensus_babe::{BabeBlockImport, BabeLink, BabeWorkerHandle, ImportQueueParams};
use sc_consensus_grandpa::{GrandpaBlockImport, LinkHalf};
use sc_service::{error::Error, Configuration, PartialComponents};
use sc_telemetry::{Telemetry, TelemetryWorker};
use sc_transaction_pool_api::OffchainTransactionPoolFactory;
use sp_consensus_babe::{inherents::InherentDataProvider as SlotProvider, SlotDuration};
use sp_inherents::CreateInherentDataProviders;
use sp_timestamp::InherentDataProvider as TimestampProvider;
use starling_runtime::{opaque::Block, Hash, RuntimeApi};
use std::sync::Arc;

/// GRANDPA makes a justification at least every this many blocks.
pub(super) const JUSTIFICATION_PERIOD: u32 = 512;

/// Imports blocks into GRANDPA's view of the chain.
pub(super) type GrandpaImport = GrandpaBlockImport<FullBackend, Block, FullClient, FullSelectChain>;
/// Imports blocks.
pub(super) type BlockImport = BabeBlockImport<Block, FullClient, GrandpaImport, Inherents, FullSelectChain>;

/// What consensus needs later.
pub struct Consensus {
    pub(super) block_import: BlockImport,
    pub(super) grandpa_link: LinkHalf<Block, FullClient, FullSelectChain>,
    pub(super) babe_link: BabeLink<Block>,
    pub(super) babe_worker: BabeWorkerHandle<Block>,
    pub(super) telemetry: Option<Telemetry>,
}

/// A node's parts, with import queue `Q`.
pub(super) type Partial<Q> =
    PartialComponents<FullClient, FullBackend, FullSelectChain, Q, TransactionPool, Consensus>;

/// Time and slot of a new block.
#[derive(Clone, Debug)]
pub(super) struct Inherents {
    /// Length of a slot.
    pub(super) slot_duration: SlotDuration,
}

#[async_trait::async_trait]
impl CreateInherentDataProviders<Block, ()> for Inherents {
    type InherentDataProviders = (SlotProvider, TimestampProvider);

    async fn create_inherent_data_providers(
        &self,
        _parent: Hash,
        (): (),
    ) -> Result<Self::InherentDataProviders, Box<dyn std::error::Error + Send + Sync>> {
        let timestamp = TimestampProvider::from_system_time();
        let slot = SlotProvider::from_timestamp_and_slot_duration(*timestamp, self.slot_duration);
        Ok((slot, timestamp))
    }
}

fn telemetry_worker(config: &Configuration) -> Result<Option<(TelemetryWorker, Telemetry)>, Error> {
    let endpoints = config.telemetry_endpoints.clone().filter(|endpoints| !endpoints.is_empty());
    let Some(endpoints) = endpoints else { return Ok(None) };
    let worker = TelemetryWorker::new(16)?;
    let telemetry = worker.handle().new_telemetry(endpoints);
    Ok(Some((worker, telemetry)))
}

/// Opens the database and prepares to import blocks.
pub fn new_partial(
    config: &Configuration,
) -> Result<Partial<sc_consensus::DefaultImportQueue<Block>>, Error> {
    let telemetry = telemetry_worker(config)?;
    let executor: Executor = sc_service::new_wasm_executor(&config.executor);
    let (client, backend, keystore_container, task_manager) =
        sc_service::new_full_parts::<Block, RuntimeApi, _>(
            config,
            telemetry.as_ref().map(|(_, telemetry)| telemetry.handle()),
            executor,
            Vec::new(),
        )?;
    let client = Arc::new(client);
    let telemetry = telemetry.map(|(worker, telemetry)| {
        task_manager.spawn_handle().spawn("telemetry", None, worker.run());
        telemetry
    });
    let telemetry_handle = telemetry.as_ref().map(|telemetry| telemetry.handle());

    let select_chain = sc_consensus::LongestChain::new(Arc::clone(&backend));
    let transaction_pool = Arc::from(
        sc_transaction_pool::Builder::new(
            task_manager.spawn_essential_handle(),
            Arc::clone(&client),
            config.role.is_authority().into(),
        )
        .with_options(config.transaction_pool.clone())
        .with_prometheus(config.prometheus_registry())
        .build(),
    );
    let (grandpa_import, grandpa_link) = sc_consensus_grandpa::block_import(
        Arc::clone(&client),
        JUSTIFICATION_PERIOD,
        &client,
        select_chain.clone(),
        telemetry_handle.clone(),
    )?;
    let babe_config = sc_consensus_babe::configuration(&*client)?;
    let slot_duration = babe_config.slot_duration();
    let (block_import, babe_link) = sc_consensus_babe::block_import(
        babe_config,
        grandpa_import.clone(),
        Arc::clone(&client),
        Inherents { slot_duration },
        select_chain.clone(),
        OffchainTransactionPoolFactory::new(Arc::clone(&transaction_pool)),
    )?;
    let (import_queue, babe_worker) = sc_consensus_babe::import_queue(ImportQueueParams {
        link: babe_link.clone(),
        block_import: block_import.clone(),
        justification_import: Some(Box::new(grandpa_import)),
        client: Arc::clone(&client),
        slot_duration,
        spawner: &task_manager.spawn_essential_handle(),
        registry: config.prometheus_registry(),
        telemetry: telemetry_handle,
    })?;

    let other = Consensus { block_import, grandpa_link, babe_link, babe_worker, telemetry };
    Ok(PartialComponents {
        client,
        backend,
        task_manager,
        import_queue,
        keystore_container,
        select_chain,
        transaction_pool,
        other,
    })
}
