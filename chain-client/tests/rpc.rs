//! The client against a node that speaks the real protocol over a real socket, and that dies now and then.

use codec::Encode;
use jsonrpsee::{
    server::{Server, ServerHandle},
    types::ErrorObjectOwned,
    RpcModule, SubscriptionMessage,
};
use serde_json::{json, Value};
use starling_chain_client::{ChainClient, ChainError, Deposit, Endpoints, HostInfo, HostStatus, SubmitError};
use starling_primitives::{
    schedule::{EpochState, Schedule},
    AccountId,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;

/// What the node holds; survives its death.
struct Chain {
    storage: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    height: watch::Sender<u32>,
    refusal: Mutex<(i32, &'static str)>,
}

fn hex_of(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn bytes_of(text: &str) -> Vec<u8> {
    hex::decode(text.trim_start_matches("0x")).unwrap()
}

fn key(pallet: &str, item: &str) -> Vec<u8> {
    let hash = |name: &str| sp_crypto_hashing::twox_128(name.as_bytes());
    [hash(pallet), hash(item)].concat()
}

fn account_key(pallet: &str, item: &str, account: &AccountId) -> Vec<u8> {
    let account = account.encode();
    [key(pallet, item), sp_crypto_hashing::blake2_128(&account).to_vec(), account].concat()
}

fn header(number: u32) -> Value {
    let hash = |n: u32| hex_of(&sp_crypto_hashing::blake2_256(&n.encode()));
    json!({
        "parentHash": hash(number), "number": format!("{number:#x}"), "stateRoot": hash(1),
        "extrinsicsRoot": hash(2), "digest": { "logs": [] },
    })
}

impl Chain {
    fn new() -> Arc<Self> {
        let epoch = EpochState {
            index: 3,
            start: 1,
            extension: 0,
            sprint_cancelled: false,
            schedule: Schedule::TEST,
        };
        let storage = BTreeMap::from([(key("Epochs", "Current"), epoch.encode())]);
        let refusal = Mutex::new((1010, "none"));
        Arc::new(Self { storage: Mutex::new(storage), height: watch::Sender::new(7), refusal })
    }

    fn put(&self, key: Vec<u8>, value: &impl Encode) {
        self.storage.lock().unwrap().insert(key, value.encode());
    }

    /// A node process: a server on this port (0: any).
    async fn serve(self: &Arc<Self>, port: u16) -> (SocketAddr, ServerHandle) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = Server::builder().build(address).await.unwrap();
        let address = server.local_addr().unwrap();
        (address, server.start(self.module()))
    }

    fn module(self: &Arc<Self>) -> RpcModule<Arc<Self>> {
        let mut module = RpcModule::new(self.clone());
        let block_hash = |_: jsonrpsee::types::Params<'_>, _: &Arc<Chain>, _: &_| hex_of(&[0xaa; 32]);
        module.register_method("chain_getBlockHash", block_hash).unwrap();
        module.register_method("chain_getFinalizedHead", block_hash).unwrap();
        module.register_method("chain_getHeader", |_, _, _| header(7)).unwrap();
        module
            .register_method("state_call", |params, _, _| {
                let (function, _, _): (String, String, Option<String>) = params.parse().unwrap();
                hex_of(&call(&function))
            })
            .unwrap();
        module
            .register_method("state_getStorage", |params, chain, _| {
                let (key, _): (String, Option<String>) = params.parse().unwrap();
                chain.storage.lock().unwrap().get(&bytes_of(&key)).map(|value| hex_of(value))
            })
            .unwrap();
        module
            .register_method("state_getKeysPaged", |params, chain, _| {
                let (prefix, count, start, _): (String, usize, Option<String>, Option<String>) =
                    params.parse().unwrap();
                let (prefix, start) = (bytes_of(&prefix), start.map(|start| bytes_of(&start)));
                let storage = chain.storage.lock().unwrap();
                let keys =
                    storage.keys().filter(|key| key.starts_with(&prefix) && start.as_ref() < Some(key));
                keys.take(count).map(|key| hex_of(key)).collect::<Vec<_>>()
            })
            .unwrap();
        module
            .register_method("state_queryStorageAt", |params, chain, _| {
                let (keys, _): (Vec<String>, Option<String>) = params.parse().unwrap();
                let storage = chain.storage.lock().unwrap();
                let changes: Vec<_> = keys
                    .iter()
                    .map(|key| json!([key, storage.get(&bytes_of(key)).map(|value| hex_of(value))]))
                    .collect();
                json!([{ "block": hex_of(&[0xaa; 32]), "changes": changes }])
            })
            .unwrap();
        module
            .register_method("author_submitExtrinsic", |_, chain, _| {
                let (code, text) = *chain.refusal.lock().unwrap();
                Err::<String, _>(ErrorObjectOwned::owned(code, "Invalid Transaction", Some(text)))
            })
            .unwrap();
        for (name, event, end) in [
            ("chain_subscribeNewHeads", "chain_newHead", "chain_unsubscribeNewHeads"),
            ("chain_subscribeFinalizedHeads", "chain_finalizedHead", "chain_unsubscribeFinalizedHeads"),
            ("state_subscribeRuntimeVersion", "state_runtimeVersion", "state_unsubscribeRuntimeVersion"),
        ] {
            module
                .register_subscription(name, event, end, move |_, pending, chain, _| async move {
                    let sink = pending.accept().await?;
                    let mut height = chain.height.subscribe();
                    height.mark_changed();
                    while height.changed().await.is_ok() {
                        let number = *height.borrow_and_update();
                        let message = match event {
                            "state_runtimeVersion" => json!({ "specVersion": 1, "transactionVersion": 1 }),
                            _ => header(number),
                        };
                        sink.send(SubscriptionMessage::from_json(&message)?).await?;
                    }
                    Ok(())
                })
                .unwrap();
        }
        module
    }
}

fn call(function: &str) -> Vec<u8> {
    match function {
        "Core_version" => {
            ("starling", "starling", 1u32, 1u32, 1u32, Vec::<([u8; 8], u32)>::new(), 1u32, 1u8).encode()
        }
        "Metadata_metadata_versions" => vec![16u32].encode(),
        "Metadata_metadata_at_version" => {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/metadata/starling.scale");
            Some(std::fs::read(path).unwrap()).encode()
        }
        "StarlingApi_undone_duties" => vec![4u32, 5].encode(),
        other => panic!("{other}"),
    }
}

fn account(id: u8) -> AccountId {
    AccountId::new([id; 32])
}

async fn within<T>(what: &str, future: impl std::future::Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.unwrap_or_else(|_| panic!("{what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_is_read_where_the_runtime_keeps_it() {
    let chain = Chain::new();
    let (address, _node) = chain.serve(0).await;
    let client = within("connect", ChainClient::connect(&format!("ws://{address}"))).await.unwrap();
    assert_eq!((client.best_tick().unwrap().number, client.best_tick().unwrap().epoch.index), (7, 3));
    let deposit = Deposit { free: 5, reserved: 6 };
    chain.put(account_key("Inference", "Deposits", &account(1)), &deposit);
    let view = client.best().unwrap();
    assert_eq!(view.deposit(&account(1)).await.unwrap(), deposit);
    assert_eq!(view.deposit(&account(2)).await.unwrap(), Deposit::default());
    // More hosts than a page of keys holds.
    for id in 0..1_100u32 {
        let host = AccountId::new(sp_crypto_hashing::blake2_256(&id.encode()));
        let info = HostInfo {
            worker: account(1),
            worker_since: id,
            endpoints: Some(Endpoints::default()),
            profiles: vec![0, 1],
            status: HostStatus::Active,
            bond: 1,
            registered_at: 2,
            convictions: 0,
        };
        chain.put(account_key("Hosts", "Hosts", &host), &info);
    }
    let hosts = view.hosts().await.unwrap();
    assert_eq!(hosts.len(), 1_100);
    for (host, info) in hosts {
        assert_eq!(host, AccountId::new(sp_crypto_hashing::blake2_256(&info.worker_since.encode())));
    }
    let undone = view.undone_duties(1, &account(1), &Default::default()).await.unwrap();
    assert_eq!(undone, [4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_and_comes_back_is_followed_again() {
    let chain = Chain::new();
    let (address, node) = chain.serve(0).await;
    let client = within("connect", ChainClient::connect(&format!("ws://{address}"))).await.unwrap();
    let mut ticks = client.subscribe_best();
    assert_eq!(within("the first block", ticks.next()).await.unwrap().number, 7);
    chain.height.send_replace(8);
    assert_eq!(within("the next block", ticks.next()).await.unwrap().number, 8);
    node.stop().unwrap();
    within("the end of the node", node.stopped()).await;
    let lost = async {
        loop {
            match client.best().unwrap().deposit(&account(1)).await {
                Err(error) => return error,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    let error = within("an error", lost).await;
    assert!(error.is_temporary(), "{error}");
    chain.height.send_replace(12);
    let (_, _node) = chain.serve(address.port()).await;
    assert_eq!(within("a block of the new node", ticks.next()).await.unwrap().number, 12);
    assert_eq!(client.best().unwrap().deposit(&account(1)).await.unwrap(), Deposit::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_pool_are_told_apart() {
    let chain = Chain::new();
    let (address, _node) = chain.serve(0).await;
    let client = within("connect", ChainClient::connect(&format!("ws://{address}"))).await.unwrap();
    let mut refused = Vec::new();
    for refusal in [
        (1010, "Transaction is outdated"),
        (1014, "The transaction has too low priority"),
        (1013, "Already imported"),
        (1012, "Temporarily banned"),
        (1010, "Inability to pay some fees"),
    ] {
        *chain.refusal.lock().unwrap() = refusal;
        refused.push(client.submit(&[1, 2, 3]).await.unwrap_err());
    }
    assert!(matches!(
        refused.as_slice(),
        [
            SubmitError::Nonce(_),
            SubmitError::Nonce(_),
            SubmitError::AlreadyKnown,
            SubmitError::Invalid(_),
            SubmitError::Invalid(_)
        ]
    ));
}

#[tokio::test]
async fn nobody_there_is_a_temporary_error() {
    let error = ChainClient::connect("ws://127.0.0.1:9").await.unwrap_err();
    assert!(matches!(error, ChainError::Disconnected { .. }) && error.is_temporary());
}
