//! Hosts among each other: admission, transcripts, sprint work, verification.

use crate::{
    network::{Network, EPOCH_SEED},
    node::{profile, MODEL},
};
use serde_json::{json, Value};
use starling_host::{
    config::PeerConfig,
    context::{HelperError, Peers, SprintRunner, Verifier, VerifyItem, VerifyOutcome},
    peer::{Peer, PeerTable},
    tasks::Tasks,
};
use starling_primitives::{
    constraint::{Constraint, TokenBias},
    receipt::SignedReceipt,
    sprint::SprintTask,
    tape::tape_seed,
    verdict::Figures,
    H256,
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_gets_the_transcript_it_asks_for() {
    let network = Network::start(3).await;
    let key = network.api_key(0, None).await;
    let body = json!({
        "model": MODEL, "max_tokens": 40, "messages": [{ "role": "user", "content": "hello" }],
        "logit_bias": { "3": -1.5 }, "response_format": { "type": "json_object" },
    });
    let url = network.url(0, "/v1/chat/completions");
    let answer = network.http.post(url).bearer_auth(&key).json(&body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let executor = answer["starling"]["executor"].as_str().unwrap().parse().unwrap();
    let id = answer["starling"]["request_id"].as_str().unwrap();
    let id = H256::from_slice(&hex::decode(&id[2..]).unwrap());
    let verifier = network.hosts.iter().find(|host| host.account != executor).unwrap();
    let served = verifier.agent.peers().fetch_transcript(&executor, id).await.unwrap();
    assert_eq!(served.transcript.header.id(), id);
    assert_eq!(served.transcript.tokens().unwrap().len(), 40);
    let prompt: Vec<u32> = serde_json::from_value(answer["starling"]["prompt_tokens"].clone()).unwrap();
    assert_eq!(served.prompt_tokens, prompt);
    // The constraint goes wherever the prompt goes.
    let constraint = hex::decode(answer["starling"]["constraint"].as_str().unwrap()).unwrap();
    let constraint: Constraint = codec::Decode::decode(&mut constraint.as_slice()).unwrap();
    assert_eq!(served.constraint.as_ref(), Some(&constraint));
    assert_eq!(served.transcript.header.constraint, Some(constraint.hash()));
    assert_eq!(constraint.logit_bias, [TokenBias { token: 3, milli: -1_500 }]);
    assert_eq!(constraint.grammar.unwrap().schema, r#"{"type":"object"}"#);
    // The same word of the executor that the client has.
    let receipt = hex::decode(answer["starling"]["receipt"].as_str().unwrap()).unwrap();
    let receipt: SignedReceipt = codec::Decode::decode(&mut receipt.as_slice()).unwrap();
    assert_eq!(receipt.receipt.finished.transcript_root, served.transcript.root());
    assert_eq!(served.receipt, Some(receipt));
    let unknown = verifier.agent.peers().fetch_transcript(&executor, H256::zero()).await;
    assert!(matches!(unknown, Err(HelperError::Refused(_))), "{unknown:?}");

    let item = VerifyItem {
        tape_seed: tape_seed(&EPOCH_SEED, &id),
        transcript: served.transcript,
        prompt_tokens: served.prompt_tokens,
        constraint: served.constraint,
    };
    let outcomes = verifier.agent.fleet().verify(0, vec![item; 300]).await.unwrap();
    let figures = Figures { tokens: 1, distance_sum: 2, margin_sum: 3 };
    assert_eq!(outcomes, vec![VerifyOutcome::Measured(figures); 300]);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_all_find_a_stream() {
    let network = Network::start(2).await;
    let asks = (0..64).map(|index: u8| {
        let peers = network.hosts[0].agent.peers();
        let host = &network.hosts[1].account;
        async move { peers.fetch_transcript(host, H256::repeat_byte(index)).await }
    });
    for answer in futures::future::join_all(asks).await {
        assert!(matches!(answer, Err(HelperError::Refused(_))), "{answer:?}");
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sprint_chunks_run_on_the_fleet() {
    let network = Network::start(1).await;
    let fleet = network.hosts[0].agent.fleet();
    assert_eq!(fleet.nodes(0).await, vec!["n0"]);
    assert!(fleet.nodes(1).await.is_empty());
    let task = SprintTask {
        seed: H256::repeat_byte(3),
        epoch: 0,
        host: network.hosts[0].account.clone(),
        profile: 0,
        vocab_size: profile().vocab_size,
        prompt_tokens: 4,
        decode_tokens: 6,
    };
    let (sender, mut results) = tokio::sync::mpsc::channel(16);
    fleet.run("n0", &task, 5..9, sender).await.unwrap();
    let mut nonces = Vec::new();
    while let Some(result) = results.recv().await {
        assert_eq!(result.transcript.header, task.header(result.nonce));
        nonces.push(result.nonce);
    }
    assert_eq!(nonces, vec![5, 6, 7, 8]);
    let (sender, _results) = tokio::sync::mpsc::channel(1);
    assert!(fleet.run("gone", &task, 0..1, sender).await.unwrap_err().is_temporary());
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_not_served() {
    let network = Network::start(1).await;
    let host = &network.hosts[0];
    // The stranger knows the host, but the host does not know the stranger.
    let entry = host.agent.peers().network().table().entry_of(&host.account).unwrap();
    let table = PeerTable::default();
    table.replace([entry]);
    let config = PeerConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        connect_timeout_ms: 2_000,
        exchange_timeout_ms: 3_000,
        ..PeerConfig::default()
    };
    let stranger = Peer::bind(config, libp2p::identity::Keypair::generate_ed25519(), table).unwrap();
    let client = stranger.client();
    let (backbone, requests) = (Tasks::default(), Tasks::default());
    let services = starling_host::peer::Services {
        execute: std::sync::Arc::new(Nobody),
        archive: std::sync::Arc::new(Nobody),
    };
    stranger.spawn(services, &backbone, &requests, CancellationToken::new());
    let answer = client.fetch_transcript(&host.account, H256::zero()).await;
    assert!(matches!(answer, Err(HelperError::Unavailable(_))), "{answer:?}");
    backbone.end(Duration::ZERO).await;
    network.stop().await;
}

/// Serves nothing.
struct Nobody;

#[async_trait::async_trait]
impl starling_host::peer::ExecuteHandler for Nobody {
    async fn execute(
        &self,
        _request: starling_host::peer::protocol::ExecuteRequest,
        _events: tokio::sync::mpsc::Sender<starling_host::peer::protocol::ExecuteEvent>,
        _hang_up: tokio::sync::watch::Receiver<Option<starling_host::executor::HangUp>>,
    ) {
    }
}

#[async_trait::async_trait]
impl starling_host::peer::Archive for Nobody {
    async fn transcript(
        &self,
        _request: &H256,
    ) -> Result<Option<starling_host::peer::protocol::ServedTranscript>, starling_host::peer::ArchiveError>
    {
        Ok(None)
    }

    async fn sprint_leaves(
        &self,
        _epoch: u32,
        _profile: u32,
        _nonces: &[u32],
    ) -> Result<Vec<starling_host::peer::protocol::SprintLeaf>, starling_host::peer::ArchiveError> {
        Ok(Vec::new())
    }
}
