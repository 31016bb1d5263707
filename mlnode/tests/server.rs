//! Both ports as their users see them.

mod common;

use common::{
    client, config, demo_model, eventually, request, write_other_model, Running, MODEL, SAMPLED, TOKEN,
};
use futures::StreamExt;
use serde_json::{json, Value};
use starling_mlnode::{config::Limits, digest::folder_digest, loader::FolderLoader};
use starling_mlnode_api::{
    codes, ClientError, DetokenizeRequest, GenerateRequest, LoadRequest, MlNode, Mode, TokenizeRequest,
    UnloadRequest,
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
        (json!({"n": 9}), 400, json!("invalid_value")),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
            400,
            json!("unsupported_parameter"),
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "wizard"}}}}),
            400,
            json!("invalid_value"),
        ),
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

/// Chunks of a streamed answer.
async fn streamed(url: String, body: Value) -> Vec<Value> {
    let response = reqwest::Client::new().post(url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
    let text = response.text().await.unwrap();
    let mut events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some("[DONE]"), "{text}");
    events.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn several_choices_are_several_answers() {
    let node = Running::rambling(Limits::default()).await;
    let url = node.inference("/v1/chat/completions");
    let (_, one) = post(url.clone(), &chat(json!({"temperature": 2}))).await;
    let (status, several) = post(url.clone(), &chat(json!({"temperature": 2, "n": 3}))).await;
    assert_eq!(status, 200, "{several}");
    let texts: Vec<&str> =
        (0..3).map(|i| several["choices"][i]["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(one["choices"][0]["message"]["content"], texts[0]);
    assert!(texts[0] != texts[1] && texts[1] != texts[2]);
    assert_eq!(several["choices"][2]["index"], 2);
    assert_eq!(several["usage"]["prompt_tokens"], one["usage"]["prompt_tokens"]);
    assert!(several["usage"]["completion_tokens"].as_u64() > one["usage"]["completion_tokens"].as_u64());

    let body = json!({"temperature": 2, "n": 3, "stream": true, "stream_options": {"include_usage": true}});
    let chunks = streamed(url, chat(body)).await;
    for (choice, expected) in texts.iter().enumerate() {
        let mine = chunks.iter().map(|c| &c["choices"][0]).filter(|c| c["index"] == choice);
        let text: String = mine.filter_map(|c| c["delta"]["content"].as_str()).collect();
        assert_eq!(text, *expected);
    }
    let ends = chunks.iter().filter(|c| !c["choices"][0]["finish_reason"].is_null()).count();
    assert_eq!((ends, &chunks.last().unwrap()["usage"]), (3, &several["usage"]));
}

#[tokio::test]
async fn an_answer_in_a_format_is_json() {
    let node = Running::demo(Limits::default()).await;
    let schema = json!({
        "type": "object", "properties": {"river": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
        "required": ["river", "size"], "additionalProperties": false,
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "r", "schema": schema, "strict": true}});
    let body = chat(json!({"response_format": format, "temperature": 2, "max_tokens": 100}));
    let (status, answer) = post(node.inference("/v1/chat/completions"), &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap();
    assert!(value["river"].is_boolean() && value.as_object().unwrap().len() == 2, "{text}");
}

/// A template that tells of tools, as Qwen's does.
const TOOL_TEMPLATE: &str = r#"{%- if tools %}<|im_start|>system
# Tools
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content }}
{%- for call in message.tool_calls %}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}"#;

#[tokio::test]
async fn a_forced_call_is_made_plain_and_streamed_alike() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(demo_model()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("chat_template.jinja"), TOOL_TEMPLATE).unwrap();
    let node = Running::start(&config(folder.path(), Limits::default()), FolderLoader::default()).await;
    let url = node.inference("/v1/chat/completions");
    let tool = |name: &str| {
        let city = json!({"enum": ["Rome", "Oslo"]});
        let parameters = json!({"type": "object", "properties": {"city": city}, "required": ["city"], "additionalProperties": false});
        json!({"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}})
    };
    let body = json!({"tools": [tool("weather"), tool("time")], "tool_choice": "required", "temperature": 2, "max_tokens": 120});
    let (status, plain) = post(url.clone(), &chat(body.clone())).await;
    assert_eq!(status, 200, "{plain}");
    let choice = &plain["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let call = &choice["message"]["tool_calls"][0];
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(["weather", "time"].contains(&call["function"]["name"].as_str().unwrap()), "{call}");
    assert!(["Rome", "Oslo"].contains(&arguments["city"].as_str().unwrap()), "{call}");

    let mut streaming = body.clone();
    streaming["stream"] = json!(true);
    let chunks = streamed(url.clone(), chat(streaming)).await;
    let calls: Vec<&Value> =
        chunks.iter().filter_map(|c| c["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    assert_eq!(calls.len(), 1);
    assert_eq!((&calls[0]["function"], &calls[0]["index"]), (&call["function"], &json!(0)));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    // The conversation goes on with the call and its result.
    let messages = json!([
        {"role": "user", "content": "Weather?"}, choice["message"],
        {"role": "tool", "tool_call_id": call["id"], "content": "Rain."},
    ]);
    let (status, next) = post(url, &chat(json!({"messages": messages, "tools": [tool("weather")]}))).await;
    assert_eq!(status, 200, "{next}");
}

#[tokio::test]
async fn texts_are_continued_plain_and_streamed_alike() {
    let node = Running::demo(Limits::default()).await;
    let url = node.inference("/v1/completions");
    let body = |changes: Value| {
        let mut body = json!({"model": MODEL, "prompt": "The river", "max_tokens": 12, "seed": 1});
        for (key, change) in changes.as_object().unwrap() {
            body[key] = change.clone();
        }
        body
    };
    let (status, plain) = post(url.clone(), &body(json!({"logprobs": 2}))).await;
    assert_eq!((status, &plain["object"]), (200, &json!("text_completion")), "{plain}");
    let choice = &plain["choices"][0];
    let logprobs = &choice["logprobs"];
    let tokens: String = logprobs["tokens"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(choice["text"], tokens);
    assert_eq!(
        (&logprobs["text_offset"][0], logprobs["top_logprobs"][0].as_object().unwrap().len() <= 2),
        (&json!(0), true)
    );
    let (_, tokens) = post(url.clone(), &body(json!({"prompt": node.tokens("The river")}))).await;
    assert_eq!(tokens["choices"][0]["text"], choice["text"]);
    let chunks = streamed(url.clone(), body(json!({"stream": true}))).await;
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, choice["text"].as_str().unwrap());
    for (changes, param) in [
        (json!({"echo": true}), "echo"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"prompt": ["a"]}), "prompt"),
    ] {
        let (status, error) = post(url.clone(), &body(changes)).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)));
    }
}

#[tokio::test]
async fn tokens_become_text_and_what_is_known_is_counted() {
    let node = Running::demo(Limits::default()).await;
    let text = "The river é runs.";
    let tokens = node.tokens(text);
    let request = DetokenizeRequest { model: MODEL.into(), tokens };
    assert_eq!(node.client.detokenize(&request).await.unwrap().text, text);
    let long = "Tell me about the history of the city and its rivers. ".repeat(6);
    let url = node.inference("/v1/chat/completions");
    let body = chat(json!({"messages": [{"role": "user", "content": long}]}));
    let (_, first) = post(url.clone(), &body).await;
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let (_, second) = post(url, &body).await;
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let prompt = second["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(cached, (prompt - 1) / 32 * 32);
    assert!(cached > 0);
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
    let node = Running::start(&config, FolderLoader::default()).await;
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
