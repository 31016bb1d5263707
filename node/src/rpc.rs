//! JSON-RPC methods beside those that every Substrate node has.

use crate::service::{FullBackend, FullClient, FullSelectChain, TransactionPool};
use jsonrpsee::RpcModule;
use sc_consensus_babe::BabeWorkerHandle;
use sc_consensus_babe_rpc::{Babe, BabeApiServer};
use sc_consensus_grandpa::{
    FinalityProofProvider, GrandpaJustificationStream, SharedAuthoritySet, SharedVoterState,
};
use sc_consensus_grandpa_rpc::{Grandpa, GrandpaApiServer};
use sc_rpc::SubscriptionTaskExecutor;
use sc_sync_state_rpc::{SyncState, SyncStateApiServer};
use sp_keystore::KeystorePtr;
use starling_runtime::{opaque::Block, BlockNumber, Hash};
use std::{error::Error, sync::Arc};

/// What the methods need.
pub(crate) struct Dependencies {
    pub(crate) client: Arc<FullClient>,
    pub(crate) pool: Arc<TransactionPool>,
    pub(crate) select_chain: FullSelectChain,
    pub(crate) chain_spec: Box<dyn sc_chain_spec::ChainSpec>,
    pub(crate) keystore: KeystorePtr,
    pub(crate) babe_worker: BabeWorkerHandle<Block>,
    pub(crate) grandpa: GrandpaDependencies,
}

/// What the GRANDPA methods need.
pub(crate) struct GrandpaDependencies {
    pub(crate) voter_state: SharedVoterState,
    pub(crate) authority_set: SharedAuthoritySet<Hash, BlockNumber>,
    pub(crate) justifications: GrandpaJustificationStream<Block>,
    pub(crate) finality_proofs: Arc<FinalityProofProvider<FullBackend, Block>>,
    pub(crate) subscriptions: SubscriptionTaskExecutor,
}

/// All methods.
pub(crate) fn module(of: Dependencies) -> Result<RpcModule<()>, Box<dyn Error + Send + Sync>> {
    use pallet_transaction_payment_rpc::{TransactionPayment, TransactionPaymentApiServer};
    use substrate_frame_rpc_system::{System, SystemApiServer};

    let mut module = RpcModule::new(());
    module.merge(System::new(Arc::clone(&of.client), of.pool).into_rpc())?;
    module.merge(TransactionPayment::new(Arc::clone(&of.client)).into_rpc())?;
    module.merge(
        Babe::new(Arc::clone(&of.client), of.babe_worker.clone(), of.keystore, of.select_chain).into_rpc(),
    )?;
    let authority_set = of.grandpa.authority_set.clone();
    module.merge(
        Grandpa::new(
            of.grandpa.subscriptions,
            of.grandpa.authority_set,
            of.grandpa.voter_state,
            of.grandpa.justifications,
            of.grandpa.finality_proofs,
        )
        .into_rpc(),
    )?;
    module.merge(SyncState::new(of.chain_spec, of.client, authority_set, of.babe_worker)?.into_rpc())?;
    Ok(module)
}
