//! A request from the client to the ML node and back, and what the chain learns of it.

use crate::{
    network::{eventually, hex_of, Network, EPOCH_SEED},
    node::{profile, tokenizer, MODEL},
};
use codec::Decode;
use reqwest::{Method, StatusCode};
use serde_json::{json, Value};
use starling_chain_client::Call;
use starling_primitives::{
    receipt::SignedReceipt,
    replay::{replay_with, Checks},
    request::RequestHeader,
    tape::tape_seed,
    transcript::Transcript,
    AccountId,
};
use starling_prompt::{plan, Limits};

fn body(max_tokens: u32, stream: bool) -> Value {
    json!({
        "model": MODEL, "max_tokens": max_tokens, "stream": stream, "temperature": 1.0,
        "messages": [{ "role": "user", "content": "what is a starling ?" }],
    })
}

async fn post(network: &Network, host: usize, key: &str, body: &Value) -> (StatusCode, Value) {
    let url = network.url(host, "/v1/chat/completions");
    let answer = network.http.post(url).bearer_auth(key).json(body).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// The `data:` events of a stream.
pub(crate) fn events(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

fn decode<T: Decode>(value: &Value) -> T {
    T::decode(&mut hex::decode(value.as_str().unwrap()).unwrap().as_slice()).unwrap()
}

/// Checks everything that a client can check on its own.
fn check_proof(network: &Network, starling: &Value, tokens: usize) -> (SignedReceipt, RequestHeader) {
    let receipt: SignedReceipt = decode(&starling["receipt"]);
    let transcript: Transcript = decode(&starling["transcript"]);
    let header: RequestHeader = decode(&starling["header"]);
    let prompt: Vec<u32> = serde_json::from_value(starling["prompt_tokens"].clone()).unwrap();
    assert!(receipt.verify(&network.client.genesis()));
    assert_eq!(header, transcript.header);
    assert_eq!(receipt.receipt.epoch_seed, EPOCH_SEED);
    let executor: AccountId = starling["executor"].as_str().unwrap().parse().unwrap();
    assert_eq!(executor, receipt.receipt.executor);
    let tape = tape_seed(&EPOCH_SEED, &header.id());
    let checks = Checks { prompt: Some(&prompt), vocab_size: Some(4_096), top_k: Some(20) };
    let replayed = replay_with(&transcript, &tape, &receipt.receipt.finished, &checks).unwrap();
    assert_eq!(replayed.tokens.len(), tokens);
    (receipt, header)
}

/// Makes blocks until the chain has what the agents promised it.
async fn settle(network: &Network, request_id: &str, state: &str) -> Value {
    let url = network.url(0, &format!("/v1/inferences/{request_id}"));
    eventually("the record reaches the chain", || async {
        network.chain.advance();
        network.chain.finalize();
        let answer = network.http.get(&url).send().await.unwrap();
        let found: Value = answer.json().await.unwrap();
        (found["state"] == state).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_answer_proves_itself_and_is_recorded() {
    let network = Network::start(3).await;
    let key = network.api_key(0, None).await;
    let mut request = body(40, false);
    request["logprobs"] = true.into();
    request["top_logprobs"] = 2.into();
    let url = network.url(0, "/v1/chat/completions");
    let answer = network.http.post(url).bearer_auth(&key).json(&request).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["x-starling-request-id"].to_str().unwrap().to_owned();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 40);
    assert_eq!(answer["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), 40);
    assert_eq!(answer["starling"]["request_id"], id.as_str());
    let (receipt, _) = check_proof(&network, &answer["starling"], 40);
    assert_ne!(
        receipt.receipt.executor, network.hosts[0].account,
        "a gateway does not run its own client's request"
    );

    let record = settle(&network, &id, "Delivered").await;
    assert_eq!(record["delivery"], "Matched");
    assert_eq!(record["gateway"], network.hosts[0].account.to_string());
    assert_eq!(record["refunded"], false);
    let price = profile().price(receipt.receipt.finished.prompt_tokens, 40);
    assert_eq!(record["price"], price.to_string());
    let by_place = network.url(1, &format!("/v1/inferences/{}", record["id"].as_str().unwrap()));
    let by_place: Value = network.http.get(by_place).send().await.unwrap().json().await.unwrap();
    assert_eq!(by_place["request_id"], record["request_id"]);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reads_as_openai_writes_it() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    let mut request = body(35, true);
    request["stream_options"] = json!({ "include_usage": true });
    let url = network.url(0, "/v1/chat/completions");
    let answer = network.http.post(url).bearer_auth(&key).json(&request).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let events = events(&answer.text().await.unwrap());
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert!(!text.is_empty());
    // The running hash changes when a window of 32 tokens closes.
    let hashes: Vec<&Value> =
        chunks.iter().map(|c| &c["starling"]["window_hash"]).filter(|h| !h.is_null()).collect();
    assert_eq!(hashes.len(), 35);
    assert_eq!(hashes[0], hashes[30]);
    assert_ne!(hashes[30], hashes[31]);
    let last = chunks.last().unwrap();
    assert_eq!(last["usage"]["completion_tokens"], 35);
    check_proof(&network, &last["starling"], 35);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_must_mean_what_its_body_says() {
    let network = Network::start(2).await;
    let request = body(5, false);
    let parsed = serde_json::from_value(request.clone()).unwrap();
    let planned = plan(&tokenizer(), &parsed, &Limits::from(&profile())).unwrap();
    let header = |nonce: u8| planned.header(0, [nonce; 32]);
    let price = profile().price(planned.prompt_len(), 5);
    let send = |body: Value, header: RequestHeader, authorization| {
        let request = network
            .http
            .post(network.url(0, "/v1/chat/completions"))
            .header("x-starling-header", hex_of(&header))
            .header("x-starling-authorization", hex_of(&authorization))
            .json(&body);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let (status, answer) = send(request.clone(), header(1), network.sign(0, &header(1), price)).await;
    assert_eq!(status, 200, "{answer}");
    let (receipt, found) = check_proof(&network, &answer["starling"], 5);
    assert_eq!((found, receipt.receipt.finished.completion_tokens), (header(1), 5));

    let (status, answer) = send(request.clone(), header(1), network.sign(0, &header(1), price)).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("request_id_used")));
    let (status, answer) = send(body(6, false), header(2), network.sign(0, &header(2), price)).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("invalid_authorization")));
    let (status, _) = send(request.clone(), header(3), network.sign(1, &header(3), price)).await;
    assert_eq!(status, 400, "it is for another gateway");
    let (status, _) = send(request.clone(), header(4), network.sign(0, &header(4), price - 1)).await;
    assert_eq!(status, 402, "a price limit below the price");
    let mut forged = network.sign(0, &header(5), price);
    forged.authorization.max_price += 1;
    let (status, answer) = send(request, header(5), forged).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!("invalid_api_key")));
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_gets_openai_shaped_errors() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    let check = |answer: (StatusCode, Value), status: u16, code: &str| {
        assert_eq!(answer.0.as_u16(), status, "{}", answer.1);
        assert_eq!(answer.1["error"]["code"], code);
        assert!(answer.1["error"]["message"].is_string());
    };
    let mut unknown = body(5, false);
    unknown["model"] = "nobody-has-this".into();
    check(post(&network, 0, &key, &unknown).await, 404, "model_not_found");
    check(post(&network, 0, "sk-starling-wrong", &body(5, false)).await, 401, "invalid_api_key");
    check(post(&network, 0, "sk-other", &body(5, false)).await, 401, "invalid_api_key");
    let mut long = body(5, false);
    long["messages"][0]["content"] = "word ".repeat(2_000).into();
    check(post(&network, 0, &key, &long).await, 400, "context_length_exceeded");
    let mut tools = body(5, false);
    tools["tools"] = json!([{ "type": "function", "function": { "name": "f" } }]);
    check(post(&network, 0, &key, &tools).await, 400, "unsupported_parameter");
    let limited = network.api_key(0, Some("10")).await;
    check(post(&network, 0, &limited, &body(5, false)).await, 402, "insufficient_quota");
    network.write_deposit(3);
    let poor = eventually("the deposit is gone", || async {
        let answer = post(&network, 0, &key, &body(5, false)).await;
        (answer.0 == 402).then_some(answer)
    })
    .await;
    check(poor, 402, "insufficient_quota");
    let nowhere = network.http.get(network.url(0, "/v1/nowhere")).send().await.unwrap();
    assert_eq!(nowhere.status(), 404);
    assert!(nowhere.json::<Value>().await.unwrap()["error"]["code"].is_string());
    let wrong = network.http.get(network.url(0, "/v1/chat/completions")).send().await.unwrap();
    assert_eq!(wrong.status(), 405);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_cannot_spend_the_same_money_twice() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    let parsed = serde_json::from_value(body(5, false)).unwrap();
    let planned = plan(&tokenizer(), &parsed, &Limits::from(&profile())).unwrap();
    let price = profile().price(planned.prompt_len(), 5);
    network.write_deposit(price * 2 + price / 2);
    // A block later everybody has seen it.
    network.chain.advance();
    let url = network.url(0, "/v1/status");
    eventually("the gateway has seen the block", || async {
        let status: Value = network.http.get(&url).send().await.unwrap().json().await.unwrap();
        (status["block"]["number"] == network.client.best_tick().unwrap().number).then_some(())
    })
    .await;
    let request = body(5, false);
    let answers = futures::future::join_all((0..6).map(|_| post(&network, 0, &key, &request))).await;
    let paid = answers.iter().filter(|answer| answer.0 == 200).count();
    assert_eq!(paid, 2, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.0 == 200 || answer.0 == 402));
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_host_runs_its_own_requests() {
    let network = Network::start(1).await;
    let key = network.api_key(0, None).await;
    let (status, answer) = post(&network, 0, &key, &body(4, false)).await;
    assert_eq!(status, 200, "{answer}");
    let (receipt, _) = check_proof(&network, &answer["starling"], 4);
    assert_eq!(receipt.receipt.executor, network.hosts[0].account);
    let id = answer["starling"]["request_id"].as_str().unwrap();
    settle(&network, id, "Delivered").await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_batched_one_call_per_kind_and_block() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    let request = body(3, false);
    let answers = futures::future::join_all((0..4).map(|_| post(&network, 0, &key, &request))).await;
    for (status, answer) in &answers {
        assert_eq!(*status, 200, "{answer}");
        settle(&network, answer["starling"]["request_id"].as_str().unwrap(), "Delivered").await;
    }
    let calls = network.chain.submitted();
    let starts = calls.iter().filter(|call| matches!(call, Call::Start { .. })).count();
    assert!(starts < 4, "{starts} calls for four records");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_can_be_looked_at() {
    let network = Network::start(2).await;
    let get = |path: &'static str| {
        let request = network.http.get(network.url(0, path));
        async move {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            answer.json::<Value>().await.unwrap()
        }
    };
    let status = get("/v1/status").await;
    assert_eq!(status["host"], network.hosts[0].account.to_string());
    assert_eq!(status["phase"], "serving");
    assert_eq!(get("/v1/epochs/current").await["hosts"], 2);
    assert_eq!(get("/v1/epochs/0").await["total_weight"], "200");
    let participants = get("/v1/epochs/current/participants").await;
    assert_eq!(participants["participants"][0]["share_ppm"], 500_000);
    assert!(participants["participants"][0]["endpoints"]["gateway_url"]
        .as_str()
        .unwrap()
        .starts_with("http"));
    let models = get("/v1/models").await;
    assert_eq!(models["data"][0]["id"], MODEL);
    let bundle = get("/v1/models/starling-demo/tokenizer").await;
    let bundle: starling_prompt::TokenizerBundle = serde_json::from_value(bundle).unwrap();
    assert_eq!(bundle.digest(), profile().tokenizer_digest);
    let metrics = network.http.get(network.url(0, "/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("starling_host_requests_in_flight 0"), "{metrics}");
    for (path, code) in [
        ("/v1/epochs/9", 404),
        ("/v1/epochs/x", 400),
        ("/v1/inferences/0-99", 404),
        ("/v1/inferences/zz", 400),
    ] {
        assert_eq!(network.http.get(network.url(0, path)).send().await.unwrap().status(), code, "{path}");
    }
    let status = network.admin(0, Method::GET, "/admin/v1/status").send().await.unwrap();
    assert_eq!(status.status(), 200);
    network.stop().await;
}
