//! Both ports as their users see them.

mod common;

use common::{
    client, config, demo_model, eventually, request, write_other_model, Running, MODEL, SAMPLED, TOKEN,
};
use futures::StreamExt;
use serde_json::{json, Value};
use starling_mlnode::{config::Limits, digest::folder_digest, loader::FolderLoader};
use starling_mlnode_api::{
    codes, ClientError, GenerateRequest, LoadRequest, MlNode, Mode, TokenizeRequest, UnloadRequest,
};
use starling_prompt::TokenizerBundle;
use std::time::Duration;

async fn post(url: String, body: &Value) -> (u16, Value) {
    let response = reqwest::Client::new().post(url).bearer_auth(TOKEN).json(body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn chat(changes: Value) -> Value {
    let mut body = json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is a river?"}],
        "max_tokens": 40,
        "seed": 5,
    });
    for (key, change) in changes.as_object().unwrap() {
        body[key] = change.clone();
    }
    body
}

fn refusal(error: ClientError) -> (u16, String, Option<Duration>) {
    match error {
        ClientError::Refused { status, detail, retry_after } => {
            (status, detail.code.unwrap_or_default(), retry_after)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_chat_is_answered_plain_and_streamed_alike() {
    let node = Running::demo(Limits::default()).await;
    let url = node.inference("/v1/chat/completions");
    let (status, plain) = post(url.clone(), &chat(json!({"logprobs": true, "top_logprobs": 3}))).await;
    assert_eq!(status, 200);
    let text = plain["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!text.is_empty());
    let logprobs = plain["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(logprobs.iter().any(|token| token["top_logprobs"].as_array().unwrap().len() == 3));
    let (_, again) = post(url.clone(), &chat(json!({}))).await;
    assert_eq!(again["choices"][0]["message"]["content"], text);
    assert_eq!(again["usage"], plain["usage"]);
    assert!(again["choices"][0]["logprobs"].is_null());

    let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let response = node.client.chat_completions(&body).await.unwrap().text().await.unwrap();
    let mut events: Vec<&str> = response.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let streamed: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(streamed, text);
    assert_eq!(chunks.last().unwrap()["usage"], plain["usage"]);
}

#[tokio::test]
async fn errors_have_openais_shape() {
    let node = Running::demo(Limits::default()).await;
    let url = node.inference("/v1/chat/completions");
    for (changes, status, code) in [
        (json!({"model": "other"}), 404, json!("model_not_found")),
        (json!({"max_tokens": 4_000}), 400, json!("context_length_exceeded")),
        (json!({"temperature": 3}), 400, json!("invalid_value")),
        (json!({"messages": "x"}), 400, json!("invalid_type")),
        (json!({"n": 2}), 400, json!("unsupported_parameter")),
    ] {
        let (found, body) = post(url.clone(), &chat(changes.clone())).await;
        assert_eq!((found, &body["error"]["code"]), (status, &code), "{changes}: {body}");
    }
    let (status, body) = post(node.inference("/nothing"), &json!({})).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not_found")));
    let (status, _) = post(node.inference("/v1/models"), &json!({})).await;
    assert_eq!(status, 405);
    let (status, body) = post(node.inference("/v1/generate"), &json!({"model": 1})).await;
    assert_eq!((status, &body["error"]["type"]), (400, &json!("invalid_request_error")));
}

#[tokio::test]
async fn both_ports_want_the_token() {
    let node = Running::demo(Limits::default()).await;
    let http = reqwest::Client::new();
    let urls = ["/v1/models", "/v1/generate", "/nothing"].map(|path| node.inference(path));
    let management =
        ["/health", "/metrics", "/api/v1/state", "/api/v1/verify"].map(|path| node.management(path));
    for url in urls.iter().chain(&management) {
        for request in
            [http.get(url), http.get(url).bearer_auth("wrong"), http.get(url).basic_auth(TOKEN, Some(TOKEN))]
        {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{url}");
            assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "invalid_api_key");
        }
    }
    let (status, code, _) = refusal(client(&node.node, "another token").health().await.unwrap_err());
    assert_eq!((status, code.as_str()), (401, codes::UNAUTHORIZED));
}

#[tokio::test]
async fn overload_is_refused_at_once_and_a_hang_up_frees_the_slot() {
    let node = Running::rambling_slowly(Limits { requests_max: 1, ..Limits::default() }).await;
    let prompt = node.tokens("The river");
    let long = request(prompt.clone(), SAMPLED, 1_000);
    let mut running = node.client.generate(&long).await.unwrap();
    running.next().await.unwrap().unwrap();
    let (status, code, retry_after) = refusal(node.client.generate(&long).await.err().unwrap());
    assert_eq!((status, code.as_str(), retry_after), (429, codes::OVERLOADED, Some(Duration::from_secs(1))));
    let (status, body) = post(node.inference("/v1/chat/completions"), &chat(json!({}))).await;
    assert_eq!((status, &body["error"]["type"]), (429, &json!("rate_limit_error")));
    // Health does not need a slot.
    assert_eq!(node.client.health().await.unwrap().model, MODEL);
    assert_eq!(node.client.state().await.unwrap().numbers.requests_running, 1);
    drop(running);
    eventually("the slot is free", async || node.client.state().await.unwrap().numbers.requests_running == 0)
        .await;
    let lines = [
        "vllm:request_success_total{finished_reason=\"abort\",model_name=\"demo\"} 1",
        "vllm:num_requests_running{model_name=\"demo\"} 0",
        "vllm:num_requests_waiting{model_name=\"demo\"} 0",
        "vllm:kv_cache_usage_perc{model_name=\"demo\"} 0",
        "mlnode_requests_overloaded_total 2",
    ];
    let mut metrics = String::new();
    eventually("the metrics say so", async || {
        metrics = node.client.metrics().await.unwrap();
        lines.iter().all(|line| metrics.lines().any(|found| found == *line))
    })
    .await;
    // The first token of the cancelled request and that of the health check; the time between those that followed.
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(value("vllm:time_to_first_token_seconds_count"), 2);
    assert_eq!(value("vllm:inter_token_latency_seconds_count") + 2, value("vllm:generation_tokens_total"));
    let generated = node.client.state().await.unwrap().numbers.completion_tokens_total;
    assert!(generated < 900, "{generated} tokens for nobody");
    assert!(!node.run(&request(prompt, SAMPLED, 3)).await.tokens.is_empty());
}

#[tokio::test]
async fn room_for_keys_and_values_is_counted() {
    let node = Running::rambling(Limits { kv_tokens: 100, ..Limits::default() }).await;
    let error = node.client.generate(&request(node.tokens("The river"), SAMPLED, 200)).await.err().unwrap();
    assert!(error.is_overloaded() && error.is_retryable());
    assert_eq!(node.run(&request(node.tokens("The river"), SAMPLED, 20)).await.tokens.len(), 20);
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let node = Running::demo(Limits::default()).await;
    let good = request(node.tokens("The river"), SAMPLED, 3);
    let mut other_prompt = good.clone();
    other_prompt.prompt_tokens.push(1);
    let mut too_long = good.clone();
    too_long.header.max_tokens = 1_024;
    for (bad, status, expected) in [
        (GenerateRequest { model: "other".into(), ..good.clone() }, 404, codes::MODEL_NOT_FOUND),
        (other_prompt, 400, codes::INVALID),
        (too_long, 400, codes::CONTEXT_LENGTH),
    ] {
        let (found, code, _) = refusal(node.client.generate(&bad).await.err().unwrap());
        assert_eq!((found, code.as_str()), (status, expected));
    }
}

#[tokio::test]
async fn models_are_described_loaded_and_unloaded() {
    let folder = tempfile::tempdir().unwrap();
    write_other_model(&folder.path().join("other"), 0.1);
    let mut config = config(&demo_model(), Limits::default());
    config.models_dir = Some(folder.path().into());
    let node = Running::start(&config, FolderLoader).await;
    let digest = folder_digest(&demo_model()).unwrap();
    let state = node.client.state().await.unwrap();
    assert_eq!((state.mode, state.model.unwrap().digest), (Mode::Serving, digest));
    assert_eq!(node.client.models().await.unwrap().data[0].id, MODEL);
    let bundle: TokenizerBundle = node.client.tokenizer(MODEL).await.unwrap();
    assert_eq!(bundle.digest(), digest.tokenizer_digest);
    let tokenize = TokenizeRequest { model: MODEL.into(), text: "The river".into() };
    assert_eq!(node.client.tokenize(&tokenize).await.unwrap().tokens, node.tokens("The river"));

    let load =
        |model: &str| LoadRequest { model: model.into(), folder: None, top_k: None, weights_digest: None };
    assert_eq!(node.client.load(&load(MODEL)).await.unwrap().digest, digest);
    assert_eq!(refusal(node.client.load(&load("other")).await.unwrap_err()).0, 409);
    let mut running = node.client.generate(&request(node.tokens("The river"), SAMPLED, 900)).await.unwrap();
    running.next().await.unwrap().unwrap();
    node.client.unload(&UnloadRequest { model: MODEL.into() }).await.unwrap();
    let last = running.fold(None, |_, event| std::future::ready(Some(event))).await;
    println!("{last:?}");
    assert_eq!(node.client.state().await.unwrap().mode, Mode::Empty);
    assert_eq!(refusal(node.client.health().await.unwrap_err()).0, 503);
    assert_eq!(refusal(node.client.unload(&UnloadRequest { model: MODEL.into() }).await.unwrap_err()).0, 404);

    let wrong = LoadRequest { weights_digest: Some(digest.weights_digest), ..load("other") };
    assert_eq!(refusal(node.client.load(&wrong).await.unwrap_err()).0, 422);
    let outside = LoadRequest { folder: Some("../x".into()), ..load("other") };
    assert_eq!(refusal(node.client.load(&outside).await.unwrap_err()).0, 400);
    std::os::unix::fs::symlink(demo_model(), folder.path().join("linked")).unwrap();
    assert_eq!(refusal(node.client.load(&load("linked")).await.unwrap_err()).0, 400);
    assert_eq!(refusal(node.client.load(&load("missing")).await.unwrap_err()).0, 422);
    let other = node.client.load(&load("other")).await.unwrap();
    assert_ne!(other.digest.weights_digest, digest.weights_digest);
    assert_eq!(node.client.health().await.unwrap().model, "other");
}
