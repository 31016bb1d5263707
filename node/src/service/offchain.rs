//! The runtime's own hook after each block. Equivocation reports are submitted from here.

use super::{FullBackend, FullClient, TransactionPool};
use futures::FutureExt;
use sc_client_api::Backend;
use sc_network::service::traits::NetworkService;
use sc_offchain::{OffchainWorkerOptions, OffchainWorkers};
use sc_service::{error::Error, TaskManager};
use sc_transaction_pool_api::OffchainTransactionPoolFactory;
use sp_keystore::KeystorePtr;
use std::sync::Arc;

/// What the hook gets.
pub(super) struct Parts {
    pub(super) client: Arc<FullClient>,
    pub(super) backend: Arc<FullBackend>,
    pub(super) keystore: KeystorePtr,
    pub(super) pool: Arc<TransactionPool>,
    pub(super) network: Arc<dyn NetworkService>,
    pub(super) is_validator: bool,
}

/// Runs the hook after each block. An ordinary task: the chain goes on without it.
pub(super) fn spawn(tasks: &TaskManager, parts: Parts) -> Result<(), Error> {
    let workers = OffchainWorkers::new(OffchainWorkerOptions {
        runtime_api_provider: Arc::clone(&parts.client),
        keystore: Some(parts.keystore),
        offchain_db: parts.backend.offchain_storage(),
        transaction_pool: Some(OffchainTransactionPoolFactory::new(parts.pool)),
        network_provider: Arc::new(parts.network),
        is_validator: parts.is_validator,
        enable_http_requests: false,
        custom_extensions: |_| Vec::new(),
    })?;
    let run = workers.run(parts.client, tasks.spawn_handle()).boxed();
    tasks.spawn_handle().spawn("offchain-workers-runner", "offchain-worker", run);
    Ok(())
}
