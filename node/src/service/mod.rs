//! The parts of a node, put together in order: database and client (`partial`), network, background work, RPC,
//! consensus. The host agent, if asked for, comes last.

mod consensus;
#[cfg(feature = "host")]
mod host;
mod network;
mod offchain;
mod partial;

#[cfg(feature = "host")]
pub use host::spawn_host;
pub use partial::new_partial;

use crate::rpc;
use partial::Consensus;
use sc_service::{Configuration, PartialComponents, SpawnTasksParams, TaskManager};
use sp_runtime::traits::Block as BlockT;
use starling_runtime::{opaque::Block, RuntimeApi};
use std::sync::Arc;

/// Functions that the runtime may call.
pub type HostFunctions = sp_io::SubstrateHostFunctions;
/// Runs the runtime's WASM.
pub type Executor = sc_executor::WasmExecutor<HostFunctions>;
/// Database, state and runtime calls.
pub type FullClient = sc_service::TFullClient<Block, RuntimeApi, Executor>;
/// The database.
pub type FullBackend = sc_service::TFullBackend<Block>;
/// Fork choice.
pub type FullSelectChain = sc_consensus::LongestChain<FullBackend, Block>;
/// Transactions that wait for a block.
pub type TransactionPool = sc_transaction_pool::TransactionPoolHandle<Block, FullClient>;

/// Starts a node. It runs until the returned task manager is dropped or an essential task ends.
pub fn new_full<N>(config: Configuration) -> Result<TaskManager, sc_service::Error>
where
    N: sc_network::NetworkBackend<Block, <Block as BlockT>::Hash>,
{
    let parts = new_partial(&config)?;
    let network = network::start::<N>(&config, parts)?;
    let network::Started { parts, handles, grandpa } = network;
    let PartialComponents {
        client,
        backend,
        mut task_manager,
        import_queue: (),
        keystore_container,
        select_chain,
        transaction_pool,
        other: Consensus { block_import, grandpa_link, babe_link, babe_worker, mut telemetry },
    } = parts;

    if config.offchain_worker.enabled {
        let is_validator = config.role.is_authority();
        offchain::spawn(
            &task_manager,
            offchain::Parts {
                client: client.clone(),
                backend: backend.clone(),
                keystore: keystore_container.keystore(),
                pool: transaction_pool.clone(),
                network: handles.network.clone(),
                is_validator,
            },
        )?;
    }

    let settings = consensus::Settings::of(&config);
    let voter_state = sc_consensus_grandpa::SharedVoterState::empty();
    let rpc_builder = {
        let client = client.clone();
        let pool = transaction_pool.clone();
        let select_chain = select_chain.clone();
        let chain_spec = config.chain_spec.cloned_box();
        let keystore = keystore_container.keystore();
        let authority_set = grandpa_link.shared_authority_set().clone();
        let justifications = grandpa_link.justification_stream();
        let finality_proofs = sc_consensus_grandpa::FinalityProofProvider::new_for_service(
            backend.clone(),
            Some(authority_set.clone()),
        );
        let voter_state = voter_state.clone();
        Box::new(move |subscriptions| {
            rpc::module(rpc::Dependencies {
                client: client.clone(),
                pool: pool.clone(),
                select_chain: select_chain.clone(),
                chain_spec: chain_spec.cloned_box(),
                keystore: keystore.clone(),
                babe_worker: babe_worker.clone(),
                grandpa: rpc::GrandpaDependencies {
                    voter_state: voter_state.clone(),
                    authority_set: authority_set.clone(),
                    justifications: justifications.clone(),
                    finality_proofs: Arc::clone(&finality_proofs),
                    subscriptions,
                },
            })
            .map_err(Into::into)
        })
    };
    sc_service::spawn_tasks(SpawnTasksParams {
        config,
        client: client.clone(),
        backend,
        task_manager: &mut task_manager,
        keystore: keystore_container.keystore(),
        transaction_pool: transaction_pool.clone(),
        rpc_builder,
        network: handles.network.clone(),
        system_rpc_tx: handles.system_rpc,
        tx_handler_controller: handles.transactions,
        sync_service: handles.sync.clone(),
        telemetry: telemetry.as_mut(),
        tracing_execute_block: None,
    })?;

    let telemetry = telemetry.as_ref().map(|telemetry| telemetry.handle());
    if settings.role.is_authority() {
        consensus::spawn_babe(
            &task_manager,
            &settings,
            consensus::Babe {
                client,
                select_chain,
                block_import,
                link: babe_link,
                keystore: keystore_container.keystore(),
                pool: transaction_pool.clone(),
                sync: handles.sync.clone(),
                telemetry: telemetry.clone(),
            },
        )?;
    }
    if settings.enable_grandpa {
        consensus::spawn_grandpa(
            &task_manager,
            &settings,
            consensus::Grandpa {
                link: grandpa_link,
                protocol: grandpa,
                keystore: keystore_container.keystore(),
                pool: transaction_pool,
                network: handles.network,
                sync: handles.sync,
                voter_state,
                telemetry,
            },
        )?;
    }
    Ok(task_manager)
}
