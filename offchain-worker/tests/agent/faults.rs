//! Executors that are full, down or die; clients that hang up; gateways that vanish.

use crate::{
    network::{eventually, Network},
    node::MODEL,
    requests::events,
};
use futures::StreamExt;
use serde_json::{json, Value};
use starling_chain_client::Call;
use std::sync::atomic::Ordering;

fn body(max_tokens: u32, stream: bool) -> Value {
    json!({
        "model": MODEL, "max_tokens": max_tokens, "stream": stream,
        "messages": [{ "role": "user", "content": "tell me" }],
    })
}

async fn begin(network: &Network, key: &str, body: &Value) -> reqwest::Response {
    let url = network.url(0, "/v1/chat/completions");
    network.http.post(url).bearer_auth(key).json(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_down_is_replaced_before_the_first_token() {
    let mut network = Network::start(3).await;
    let key = network.api_key(0, None).await;
    // Host 1's agent is gone, host 2 must take over whatever was drawn.
    let gone = network.hosts.remove(1);
    let account = gone.account.clone();
    gone.agent.stop().await;
    for _ in 0..4 {
        let answer = begin(&network, &key, &body(3, false)).await;
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        assert_ne!(answer["starling"]["executor"], account.to_string());
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_before_the_first_token_costs_the_client_nothing() {
    let network = Network::start(3).await;
    let key = network.api_key(0, None).await;
    network.hosts[1].node.controls.break_after.store(0, Ordering::SeqCst);
    for _ in 0..4 {
        let answer = begin(&network, &key, &body(3, false)).await;
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["starling"]["executor"], network.hosts[2].account.to_string());
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_dies_later_ends_the_stream_with_an_error() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    network.hosts[1].node.controls.break_after.store(4, Ordering::SeqCst);
    let answer = begin(&network, &key, &body(20, true)).await;
    assert_eq!(answer.status(), 200);
    let events = events(&answer.text().await.unwrap());
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "executor_failed", "{last}");
    // Nothing internal reaches the client.
    assert!(!last["error"]["message"].as_str().unwrap().contains("ML node"));
    let plain = begin(&network, &key, &body(20, false)).await;
    assert_eq!(plain.status(), 502);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_full_is_429_with_retry_after() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    network.hosts[1].node.hold();
    let request = body(2, false);
    // The ML node has four places.
    let held: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let request = network
                    .http
                    .post(network.url(0, "/v1/chat/completions"))
                    .bearer_auth(&key)
                    .json(&request);
                async move { request.send().await.unwrap().status() }
            })
        })
        .collect();
    eventually("four requests run", || async {
        (network.hosts[1].node.controls.begun.load(Ordering::SeqCst) == 4).then_some(())
    })
    .await;
    let refused = begin(&network, &key, &request).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "rate_limit_exceeded");
    network.hosts[1].node.controls.steps.add_permits(1_000);
    for held in held {
        assert_eq!(held.await.unwrap(), 200);
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ml_node_that_is_fuller_than_its_agent_knows_is_429_too() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    network.hosts[1].node.controls.full.store(true, Ordering::SeqCst);
    for stream in [false, true] {
        let refused = begin(&network, &key, &body(2, stream)).await;
        assert_eq!(refused.status(), 429);
        assert!(refused.headers().contains_key("retry-after"));
    }
    network.hosts[1].node.controls.full.store(false, Ordering::SeqCst);
    assert_eq!(begin(&network, &key, &body(2, false)).await.status(), 200);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_gateway_is_429() {
    let network = Network::start_with(2, "max_in_flight = 1").await;
    let key = network.api_key(0, None).await;
    network.hosts[1].node.hold();
    let request = body(2, false);
    let held = network.http.post(network.url(0, "/v1/chat/completions")).bearer_auth(&key).json(&request);
    let held = tokio::spawn(async move { held.send().await.unwrap().status() });
    eventually("one request runs", || async {
        (network.hosts[1].node.controls.begun.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    assert_eq!(begin(&network, &key, &request).await.status(), 429);
    network.hosts[1].node.controls.steps.add_permits(10);
    assert_eq!(held.await.unwrap(), 200);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_stops_the_ml_node_and_pays_for_what_was_made() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    let node = &network.hosts[1].node;
    node.hold();
    node.controls.steps.add_permits(3);
    let answer = begin(&network, &key, &body(100, true)).await;
    assert_eq!(answer.status(), 200);
    let mut stream = answer.bytes_stream();
    let mut seen = String::new();
    while events(&seen).len() < 4 {
        seen.push_str(&String::from_utf8_lossy(&stream.next().await.unwrap().unwrap()));
    }
    drop(stream);
    let mut dropped = node.controls.dropped.subscribe();
    tokio::time::timeout(std::time::Duration::from_secs(10), dropped.wait_for(|count| *count == 1))
        .await
        .expect("the ML node's stream is dropped")
        .unwrap();
    let finished = eventually("what was made is recorded", || async {
        network.chain.advance();
        network.chain.submitted().into_iter().find_map(|call| match call {
            Call::Finish { records } => Some(records[0].finished.clone()),
            _ => None,
        })
    })
    .await;
    assert_eq!(finished.completion_tokens, 3);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_before_the_first_token_stops_the_request_too() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    let node = &network.hosts[1].node;
    node.hold();
    let request =
        network.http.post(network.url(0, "/v1/chat/completions")).bearer_auth(&key).json(&body(100, true));
    let waiting = tokio::spawn(request.send());
    eventually("the request runs", || async {
        (node.controls.begun.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    waiting.abort();
    // Tokens are made one at a time: the news of the hang-up travels beside them.
    eventually("the ML node's stream is dropped", || async {
        node.controls.steps.add_permits(1);
        (*node.controls.dropped.borrow() == 1).then_some(())
    })
    .await;
    // What was made is recorded, unless the hang-up was all that arrived.
    network.chain.advance();
    for call in network.chain.submitted() {
        if let Call::Finish { records } = call {
            assert!(records[0].finished.completion_tokens < 50, "{records:?}");
        }
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_leaves_out_the_executor_records() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    // The gateway's transactions never reach a block.
    let answer: Value = begin(&network, &key, &body(3, false)).await.json().await.unwrap();
    let id = answer["starling"]["request_id"].as_str().unwrap().to_owned();
    let mut network = network;
    let gateway = network.hosts.remove(0);
    gateway.agent.stop().await;
    network.chain.drop_pool();
    let record = eventually("the executor records both", || async {
        network.chain.advance();
        let url = network.url(0, &format!("/v1/inferences/{id}"));
        let found: Value = network.http.get(url).send().await.unwrap().json().await.unwrap();
        (found["state"] == "Finished").then_some(found)
    })
    .await;
    assert_eq!(record["executor"], network.hosts[0].account.to_string());
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_in_the_middle_leaves_nothing_unpaid() {
    let mut network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    network.hosts[1].node.hold();
    network.hosts[1].node.controls.steps.add_permits(5);
    let answer = begin(&network, &key, &body(100, true)).await;
    let id = answer.headers()["x-starling-request-id"].to_str().unwrap().to_owned();
    let mut stream = answer.bytes_stream();
    let mut seen = String::new();
    while events(&seen).len() < 6 {
        seen.push_str(&String::from_utf8_lossy(&stream.next().await.unwrap().unwrap()));
    }
    // Dropping an agent ends everything it spawned, like a kill.
    drop(network.hosts.remove(0).agent);
    network.chain.drop_pool();
    let record = eventually("the executor records the part that was delivered", || async {
        network.chain.advance();
        let url = network.url(0, &format!("/v1/inferences/{id}"));
        let found: Value = network.http.get(url).send().await.unwrap().json().await.unwrap();
        (found["state"] == "Finished").then_some(found)
    })
    .await;
    assert_eq!(record["result"]["completion_tokens"], 5);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_requests_end() {
    let mut network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    network.hosts[1].node.hold();
    let url = network.url(0, "/v1/chat/completions");
    let request = network.http.post(&url).bearer_auth(&key).json(&body(4, false));
    let running = tokio::spawn(async move { request.send().await.unwrap() });
    eventually("the request runs", || async {
        (network.hosts[1].node.controls.begun.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    let gateway = network.hosts.remove(0);
    let stopping = tokio::spawn(gateway.agent.stop());
    let http = reqwest::Client::new();
    eventually("nothing new is taken", || async { http.get(&url).send().await.is_err().then_some(()) }).await;
    network.hosts[0].node.controls.steps.add_permits(100);
    let answer = running.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap()["usage"]["completion_tokens"], 4);
    stopping.await.unwrap();
    network.stop().await;
}
