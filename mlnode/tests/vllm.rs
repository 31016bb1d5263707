//! vLLM as the engine, the real one on the processor: its transcripts verify on the engine's own kernels and the other way
//! round, and a server that ends is started again. A start takes most of a minute, so each test does many things with one.

mod common;

use codec::Encode;
use common::{
    client, config, constrained, demo_model, eventually, eventually_within, write_other_model, Answer,
    Running, MODEL, SAMPLED, TOKEN,
};
use futures::StreamExt;
use serde_json::{json, Value};
use starling_mlnode::{
    config::{Config, Limits, Vllm},
    loader::{FolderLoader, LoadSpec, Loader},
    node::Node,
    vllm::{VllmLoader, SAMPLER, SAMPLER_FILE},
};
use starling_mlnode_api::{
    codes, ClientError, GenerateEvent, GenerateRequest, MlNode, NonceRange, SprintEvent, SprintRunRequest,
    UnloadRequest, VerifyItem, VerifyOutcome, VerifyRequest,
};
use starling_primitives::{
    constraint::{Constraint, Grammar, TokenBias},
    replay::replay_sprint,
    request::SamplingParams,
    sprint::SprintTask,
    transcript::{Transcript, TranscriptBuilder},
    verdict::Figures,
    H256,
};
use std::{
    collections::BTreeSet,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Longer than a start of vLLM on a busy machine.
const START: Duration = Duration::from_secs(240);
const QUESTION: &str = "<|im_start|>user\nWhat is a river?<|im_end|>\n<|im_start|>assistant\n";
/// So few tokens of a step that a prompt of 150 is taken in in pieces, each of which gives a row that is thrown away.
const ARGUMENTS: [&str; 5] = ["--dtype", "float32", "--enforce-eager", "--max-num-batched-tokens", "64"];
const ENVIRONMENT: [(&str, &str); 1] = [("VLLM_CPU_KVCACHE_SPACE", "1")];

fn python() -> PathBuf {
    let default =
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/starling/vllm/bin/python");
    let python = std::env::var_os("STARLING_VLLM_PYTHON").map_or_else(default, PathBuf::from);
    assert!(
        python.exists(),
        "there is no Python with vLLM at {}: run scripts/setup --tests, or set STARLING_VLLM_PYTHON",
        python.display()
    );
    python
}

fn settings(changes: Value) -> Vllm {
    let mut settings = json!({});
    for (key, value) in changes.as_object().unwrap() {
        settings[key] = value.clone();
    }
    serde_json::from_value(settings).unwrap()
}

fn started() -> Vllm {
    let environment: serde_json::Map<_, _> =
        ENVIRONMENT.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
    settings(json!({"python": python(), "arguments": ARGUMENTS, "environment": environment}))
}

async fn start(vllm: Vllm, limits: Limits) -> Running {
    // What vLLM writes is shown with a failure.
    let _ = tracing_subscriber::fmt().with_ansi(false).with_test_writer().try_init();
    let config = Config { vllm: Some(vllm.clone()), ..config(&demo_model(), limits) };
    Running::start(&config, VllmLoader { settings: vllm }).await
}

fn ask(
    node: &Running,
    seed: u8,
    sampling: SamplingParams,
    constraint: Option<Constraint>,
) -> GenerateRequest {
    let mut request = constrained(node.tokens(QUESTION), sampling, 60, constraint);
    request.header.nonce = [seed; 32];
    request.tape_seed.0[0] = seed;
    request
}

/// Requests of every kind.
fn requests(node: &Running) -> Vec<GenerateRequest> {
    let bias = |token, milli| Constraint { logit_bias: vec![TokenBias { token, milli }], grammar: None };
    let schema = json!({
        "type": "object", "properties": {"river": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
        "required": ["river", "size"], "additionalProperties": false,
    });
    let grammar = Grammar { before: "{\"x\": ".into(), schema: schema.to_string(), after: "}".into() };
    let grammar = Constraint { grammar: Some(grammar), ..bias(300, 1_500) };
    let hot = SamplingParams { temperature_milli: 2_000, ..SAMPLED };
    let filtered = SamplingParams { top_p: 9_000, min_p: 500, top_k: 12, ..SAMPLED };
    let penalised =
        SamplingParams { frequency_penalty_milli: 900, presence_penalty_milli: -1_100, ..SAMPLED };
    let mut long = ask(node, 7, SAMPLED, None);
    long.prompt_tokens = node.tokens(&"The history of the city and its rivers is long. ".repeat(16));
    assert!(long.prompt_tokens.len() > 2 * 64, "it has to be taken in in pieces");
    long.header.prompt_hash = starling_primitives::request::prompt_hash(&long.prompt_tokens);
    vec![
        ask(node, 0, SamplingParams::GREEDY, None),
        ask(node, 1, SAMPLED, None),
        ask(node, 2, hot, None),
        ask(node, 3, filtered, None),
        ask(node, 4, penalised, None),
        ask(node, 5, SAMPLED, Some(bias(4_095, -100_000))),
        ask(node, 6, hot, Some(grammar)),
        long,
    ]
}

fn item(request: &GenerateRequest, answer: &Answer) -> VerifyItem {
    VerifyItem {
        transcript: answer.done().transcript.clone(),
        prompt_tokens: request.prompt_tokens.clone(),
        tape_seed: request.tape_seed,
        constraint: request.constraint.clone(),
    }
}

async fn answers(node: &Running, requests: &[GenerateRequest]) -> Vec<VerifyItem> {
    let answers = futures::future::join_all(requests.iter().map(|request| node.run(request))).await;
    requests.iter().zip(&answers).map(|(request, answer)| item(request, answer)).collect()
}

async fn verify(node: &Running, items: Vec<VerifyItem>) -> Vec<VerifyOutcome> {
    node.client.verify(&VerifyRequest { model: MODEL.into(), items }).await.unwrap().outcomes
}

fn figures(outcome: &VerifyOutcome) -> (f64, f64) {
    let VerifyOutcome::Figures(Figures { tokens, distance_sum, margin_sum }) = outcome else {
        panic!("{outcome:?}")
    };
    (*distance_sum as f64 / f64::from(*tokens), *margin_sum as f64 / f64::from(*tokens))
}

/// No farther than rounding to 1/128 nat may move a token.
fn near(what: &str, outcomes: &[VerifyOutcome]) {
    for (index, outcome) in outcomes.iter().enumerate() {
        let (distance, margin) = figures(outcome);
        println!("{what} {index}: distance {distance:.3}, margin {margin:.3} (1/1024 nat a token)");
        assert!(distance <= 4.0 && margin <= 4.0, "{what} {index}: {distance} {margin}");
    }
}

/// Processes that this one started, by a part of their command.
fn children(part: &str) -> Vec<libc::pid_t> {
    let stat = |id: &str| std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let ids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    ids.filter(|id| {
        let parent =
            stat(id).rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        parent == Some(std::process::id()) && command.contains(part)
    })
    .filter_map(|id| id.parse().ok())
    .collect()
}

/// Processes of a group.
fn members(group: libc::pid_t) -> usize {
    let ids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let stats = ids.filter_map(|id| std::fs::read_to_string(format!("/proc/{id}/stat")).ok());
    stats
        .filter(|stat| {
            let fields: Vec<_> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
            fields.first() != Some(&"Z") && fields.get(2).and_then(|g| g.parse().ok()) == Some(group)
        })
        .count()
}

/// Sockets that lie about where everybody's temporary files are.
fn loose_sockets() -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().filter_map(Result::ok);
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    sockets.map(|entry| entry.path()).collect()
}

fn kill(process: libc::pid_t) {
    let done = Command::new("kill").args(["-9", &process.to_string()]).status().unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_started_server_serves_verifies_and_is_started_again() {
    let loose = loose_sockets();
    let own = Running::demo(Limits::default()).await;
    let node = start(started(), Limits::default()).await;
    let model = node.client.state().await.unwrap().model.unwrap();
    let same = own.client.state().await.unwrap().model.unwrap();
    assert_eq!((&model.digest, &model.numerics, model.top_k), (&same.digest, &same.numerics, same.top_k));
    assert_eq!(model.parameters, same.parameters);
    assert_eq!(node.client.health().await.unwrap().model, MODEL);

    transcripts_verify_both_ways(&node, &own).await;
    a_sprint_verifies(&node, &own).await;
    cheats_are_found_out(&node).await;
    chats_are_answered(&node).await;
    a_hang_up_frees_the_slot(&node).await;
    it_is_started_again(&node).await;

    let server = children("vllm.entrypoints")[0];
    node.client.unload(&UnloadRequest { model: MODEL.into() }).await.unwrap();
    assert_eq!(members(server), 0, "the server is gone with its model");
    assert_eq!(loose_sockets(), loose, "a server that was killed, and one that ended, left none");
}

async fn transcripts_verify_both_ways(node: &Running, own: &Running) {
    let requests = requests(node);
    let (theirs, ours) = (answers(node, &requests).await, answers(own, &requests).await);
    let same = theirs.iter().zip(&ours).filter(|(a, b)| a.transcript == b.transcript).count();
    println!("{same} of {} transcripts are the same byte for byte", requests.len());
    near("vLLM's, checked by the kernels", &verify(own, theirs.clone()).await);
    near("vLLM's, checked by vLLM", &verify(node, theirs).await);
    near("the kernels', checked by vLLM", &verify(node, ours).await);
    // Alone and beside others.
    let alone = node.run(&requests[6]).await;
    let value: Value = serde_json::from_str(&alone.text).unwrap();
    assert!(value["x"]["river"].is_boolean(), "{value}");
    near("alone", &verify(own, vec![item(&requests[6], &alone)]).await);
    let mut stopped = ask(node, 1, SAMPLED, None);
    let text = node.run(&stopped).await.text;
    let word = text.split_whitespace().nth(1).unwrap();
    stopped.stop = vec![word.into()];
    assert!(!node.run(&stopped).await.text.contains(word));
}

async fn a_sprint_verifies(node: &Running, own: &Running) {
    let task = SprintTask {
        seed: H256::repeat_byte(2),
        epoch: 1,
        host: starling_primitives::AccountId::new([3; 32]),
        profile: 7,
        vocab_size: 4_096,
        prompt_tokens: 24,
        decode_tokens: 40,
    };
    let run =
        SprintRunRequest { task: task.clone(), model: MODEL.into(), nonces: NonceRange { from: 0, to: 12 } };
    let mut events = node.client.sprint_run(&run).await.unwrap();
    let mut items = Vec::new();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            SprintEvent::Result { nonce, root, transcript } => {
                let decoded: Transcript = codec::Decode::decode(&mut transcript.as_slice()).unwrap();
                replay_sprint(&decoded, &task, nonce, &root, 20).unwrap();
                let (prompt_tokens, tape_seed) = (task.prompt(nonce), task.tape_seed(nonce));
                items.push(VerifyItem { transcript, prompt_tokens, tape_seed, constraint: None });
            }
            SprintEvent::Done { results } => assert_eq!(results, 12),
            SprintEvent::Error(detail) => panic!("{detail:?}"),
        }
    }
    assert_eq!(items.len(), 12);
    near("sprint", &verify(own, items.clone()).await);
    near("sprint, checked by vLLM", &verify(node, items).await);
}

async fn cheats_are_found_out(node: &Running) {
    // The model is certain of nothing after this: another tape writes something else.
    let patternless = (0..24).map(|n| n * 1_337 % 4_000).collect();
    let request = constrained(patternless, SAMPLED, 40, None);
    let honest = item(&request, &node.run(&request).await);
    let mut other_tape = honest.clone();
    other_tape.tape_seed.0[1] ^= 1;
    // One token is another than the one that was drawn.
    let transcript: Transcript = codec::Decode::decode(&mut honest.transcript.as_slice()).unwrap();
    let mut records = transcript.records().unwrap();
    let record = records.iter_mut().find(|record| record.candidates.len() > 1).unwrap();
    record.chosen = u8::from(record.chosen == 0);
    let mut builder = TranscriptBuilder::new(transcript.header);
    records.into_iter().for_each(|record| drop(builder.push(record)));
    let changed = VerifyItem { transcript: builder.finish().0.encode(), ..honest.clone() };
    for outcome in verify(node, vec![other_tape, changed]).await {
        assert!(matches!(outcome, VerifyOutcome::ReplayFailed { .. }), "{outcome:?}");
    }
    // Another model's transcripts replay. What it says is far from what this one says.
    let folder = tempfile::tempdir().unwrap();
    write_other_model(folder.path(), 0.5);
    let other = Running::start(&config(folder.path(), Limits::default()), FolderLoader::default()).await;
    let requests = requests(node);
    for (index, outcome) in verify(node, answers(&other, &requests).await).await.iter().enumerate() {
        let (distance, margin) = figures(outcome);
        println!("another model {index}: distance {distance:.1}, margin {margin:.1}");
        assert!(distance > 50.0, "{index}: {distance} {margin}");
    }
}

async fn chats_are_answered(node: &Running) {
    let body = json!({
        "model": MODEL, "messages": [{"role": "user", "content": "What is a river?"}], "max_tokens": 30, "seed": 4,
        "n": 2, "logprobs": true, "top_logprobs": 3, "frequency_penalty": 0.5,
    });
    let response = node.client.chat_completions(&body).await.unwrap();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2, "{answer}");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 2);
    let metrics = node.client.metrics().await.unwrap();
    for name in [
        "vllm:generation_tokens_total",
        "vllm:time_to_first_token_seconds_count",
        "vllm:iteration_tokens_total_count",
    ] {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 2.0, "{line}");
    }
}

/// A request that runs until its room is used up.
fn endless(node: &Running) -> GenerateRequest {
    let constraint =
        Constraint { logit_bias: vec![TokenBias { token: 4_095, milli: -100_000 }], grammar: None };
    constrained(node.tokens(QUESTION), SAMPLED, 900, Some(constraint))
}

async fn a_hang_up_frees_the_slot(node: &Running) {
    let mut running = node.client.generate(&endless(node)).await.unwrap();
    running.next().await.unwrap().unwrap();
    drop(running);
    eventually("the slot is free", async || node.client.state().await.unwrap().numbers.requests_running == 0)
        .await;
    assert_eq!(node.client.health().await.unwrap().model, MODEL);
}

async fn it_is_started_again(node: &Running) {
    let request = ask(node, 1, SAMPLED, None);
    let before = node.run(&request).await;
    let mut running = node.client.generate(&endless(node)).await.unwrap();
    running.next().await.unwrap().unwrap();
    let server = children("vllm.entrypoints")[0];
    kill(server);
    let last = running.fold(None, |_, event| std::future::ready(Some(event.unwrap()))).await;
    let Some(GenerateEvent::Error(detail)) = last else { panic!("{last:?}") };
    assert_eq!(detail.code.as_deref(), Some(codes::INTERNAL), "{detail:?}");
    eventually("it is noticed", async || {
        let Err(error) = node.client.generate(&request).await else { return false };
        assert!(error.is_retryable(), "{error}");
        let ClientError::Refused { status, detail, retry_after } = error else { panic!("{error:?}") };
        assert_eq!((status, detail.code.as_deref()), (503, Some(codes::STOPPING)), "{detail:?}");
        assert!(detail.message.contains("try again later") && retry_after.is_some(), "{detail:?}");
        true
    })
    .await;
    assert!(node.client.health().await.is_err());
    eventually("nothing of it is left", async || members(server) == 0).await;
    eventually_within(START, "it serves again", async || node.client.health().await.is_ok()).await;
    assert_ne!(children("vllm.entrypoints"), [server]);
    assert_eq!(node.run(&request).await.tokens, before.tokens);
}

/// A server that the test starts, as an operator would.
struct Attached(Child);

impl Attached {
    fn start(folder: &Path, port: u16, socket: &Path) -> Self {
        std::fs::write(folder.join(SAMPLER_FILE), SAMPLER).unwrap();
        let mut command = Command::new(python());
        command
            .args(["-m", "vllm.entrypoints.openai.api_server", "--served-model-name", "another-name"])
            .arg("--model")
            .arg(demo_model())
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--api-key", "a key for tests"])
            .args(["--logits-processors", "starling_vllm:Sampler", "--max-model-len", "512"])
            .args(ARGUMENTS)
            .envs(ENVIRONMENT)
            .env("PYTHONPATH", folder)
            .env("STARLING_SAMPLER", socket)
            .env("VLLM_USE_V2_MODEL_RUNNER", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // It ends its own processes when it is told to end.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_attached_to_and_outlives_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, key) = (folder.path().join("sampler.sock"), folder.path().join("key"));
    std::fs::write(&key, "a key for tests\n").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Attached::start(folder.path(), port, &socket);
    let vllm =
        settings(json!({"url": format!("http://127.0.0.1:{port}"), "socket": socket, "api_key_file": key}));

    // The node waits for it, and one for another model does not take it.
    let node = start(vllm.clone(), Limits::default()).await;
    let request = ask(&node, 1, SAMPLED, None);
    let first = node.run(&request).await;
    node.node.run_until(std::future::ready(())).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    write_other_model(other.path(), 0.1);
    let spec = LoadSpec {
        name: MODEL.into(),
        folder: other.path().into(),
        top_k: 20,
        max_context: u32::MAX,
        weights_digest: None,
    };
    let settings = vllm.clone();
    let load = move || VllmLoader { settings }.load(&spec).unwrap_err().to_string();
    let reason = tokio::task::spawn_blocking(load).await.unwrap();
    assert!(reason.contains("start it with that folder"), "{reason}");

    // A new node finds the sampler again.
    let node = start(vllm.clone(), Limits::default()).await;
    assert_eq!(node.node.engine().model().unwrap().shape.max_context, 511);
    let again = node.run(&request).await;
    assert_eq!(again.done().transcript, first.done().transcript);
    let own = Running::demo(Limits::default()).await;
    near("attached", &verify(&own, vec![item(&request, &again)]).await);
    near("checked by the attached", &verify(&node, vec![item(&request, &again)]).await);

    // Room that it has not is not promised.
    node.node.run_until(std::future::ready(())).await.unwrap();
    let config = Config {
        vllm: Some(vllm.clone()),
        ..config(&demo_model(), Limits { kv_tokens: 1 << 26, ..Limits::default() })
    };
    let error = Node::start(&config, Box::new(VllmLoader { settings: vllm.clone() })).await.unwrap_err();
    let reason = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
        .last()
        .unwrap()
        .to_string();
    assert!(reason.contains("limits.kv_tokens"), "{reason}");

    // When it goes away, requests are refused.
    let node = start(vllm, Limits::default()).await;
    drop(server);
    let client = client(&node.node, TOKEN);
    let mut message = String::new();
    eventually("it is noticed", async || {
        message = match client.generate(&request).await {
            Err(ClientError::Refused { status: 503, detail, .. }) => detail.message,
            Err(other) => panic!("{other:?}"),
            Ok(events) => {
                events.for_each(|_| std::future::ready(())).await;
                String::new()
            }
        };
        !message.is_empty()
    })
    .await;
    assert!(message.contains("is not there"), "{message}");
}
