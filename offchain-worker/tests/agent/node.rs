//! A small ML node that speaks the real protocol: its tokens come from a hash instead of a model.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{sse::Event, IntoResponse, Response, Sse},
    routing::{get, post},
    serve::ListenerExt,
    Json, Router,
};
use codec::Encode;
use futures::StreamExt;
use serde_json::json;
use starling_mlnode_api as api;
use starling_primitives::{
    hashing::hash_of,
    profile::{Calibration, Numerics, Profile},
    sampler::sample,
    transcript::{Candidate, TokenRecord, TranscriptBuilder},
    verdict::Figures,
    H256,
};
use starling_prompt::{Tokenizer, TokenizerBundle};
use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering},
        Arc, Mutex, OnceLock,
    },
};
use tokio::sync::{watch, Semaphore};

pub(crate) const TOKEN: &str = "node-token";
pub(crate) const MODEL: &str = "starling-demo";

/// The demo model's tokenizer: the fake has no model, but the tokens are real ones.
pub(crate) fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mlnode/demo-model");
    TOKENIZER.get_or_init(|| Arc::new(Tokenizer::load_from_folder(&folder).unwrap())).clone()
}

pub(crate) fn profile() -> Profile {
    Profile {
        name: MODEL.as_bytes().to_vec().try_into().unwrap(),
        weights_digest: H256::repeat_byte(0x77),
        tokenizer_digest: tokenizer().bundle().digest(),
        numerics: Numerics::F32,
        top_k: 20,
        max_context: 512,
        vocab_size: 4_096,
        prompt_price: 1,
        completion_price: 10,
        prompt_work: 1,
        completion_work: 4,
        sprint_tolerance: 0,
        calibration: Calibration { distance_limit: 1, margin_limit: 1, short_allowance: 1 },
    }
}

/// What a test can do to the node.
#[derive(Debug)]
pub(crate) struct Controls {
    /// One permit per token that may be made; plenty unless a test takes them away.
    pub(crate) steps: Semaphore,
    /// Streams that were begun.
    pub(crate) begun: AtomicU32,
    /// Streams that the agent dropped before their end.
    pub(crate) dropped: watch::Sender<u32>,
    /// Break off after so many tokens.
    pub(crate) break_after: AtomicU32,
    /// Answer 503 to everything.
    pub(crate) down: AtomicBool,
    /// Answer 429 to every generation.
    pub(crate) full: AtomicBool,
    /// Say that another model's weights are loaded.
    pub(crate) other_weights: AtomicBool,
    /// Find every transcript far from the model.
    pub(crate) far: AtomicBool,
    /// Requests to be answered with noise.
    pub(crate) perturbed: Mutex<Vec<api::GenerateRequest>>,
}

pub(crate) struct FakeNode {
    pub(crate) address: SocketAddr,
    pub(crate) controls: Arc<Controls>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeNode {
    pub(crate) async fn start() -> Self {
        let controls = Arc::new(Controls {
            steps: Semaphore::new(Semaphore::MAX_PERMITS >> 1),
            begun: AtomicU32::new(0),
            dropped: watch::Sender::new(0),
            break_after: AtomicU32::new(u32::MAX),
            down: AtomicBool::new(false),
            full: AtomicBool::new(false),
            other_weights: AtomicBool::new(false),
            far: AtomicBool::new(false),
            perturbed: Mutex::default(),
        });
        let router = Router::new()
            .route("/api/v1/state", get(state))
            .route("/health", get(health))
            .route("/v1/generate", post(generate))
            .route("/v1/models/{model}/tokenizer", get(bundle))
            .route("/api/v1/sprint/run", post(sprint))
            .route("/api/v1/verify", post(verify))
            .layer(axum::middleware::from_fn_with_state(controls.clone(), guard))
            .with_state(controls.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, controls, server }
    }

    /// No token is made until the test gives permits.
    pub(crate) fn hold(&self) {
        self.controls.steps.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn spec(&self, id: &str, max_concurrent: u32) -> serde_json::Value {
        json!({
            "id": id, "host": "127.0.0.1", "inference_port": self.address.port(), "poc_port": self.address.port(),
            "max_concurrent": max_concurrent, "models": { MODEL: { "args": [] } },
        })
    }
}

async fn guard(
    State(controls): State<Arc<Controls>>,
    headers: HeaderMap,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    if headers.get("authorization").and_then(|value| value.to_str().ok()) != Some("Bearer node-token") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if controls.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    next.run(request).await
}

async fn state(State(controls): State<Arc<Controls>>) -> Json<api::NodeState> {
    let profile = profile();
    let other = controls.other_weights.load(Ordering::SeqCst);
    Json(api::NodeState {
        version: "0".into(),
        mode: api::Mode::Serving,
        model: Some(api::ModelInfo {
            model: MODEL.into(),
            digest: api::ModelDigest {
                weights_digest: if other { H256::zero() } else { profile.weights_digest },
                tokenizer_digest: profile.tokenizer_digest,
                vocab_size: profile.vocab_size,
                max_context: profile.max_context,
            },
            top_k: profile.top_k,
            parameters: 1,
            numerics: "f32".into(),
            load_ms: 0,
        }),
        numbers: api::Numbers::default(),
    })
}

async fn health() -> Json<api::Health> {
    Json(api::Health { model: MODEL.into(), token: 1, micros: 1 })
}

async fn bundle() -> Json<TokenizerBundle> {
    Json(tokenizer().bundle().clone())
}

/// Candidates at a position: a function of prompt and position, like a model's.
fn candidates(seed: &H256, position: u32) -> Vec<Candidate> {
    let hash = hash_of(b"fake-node", &(seed, position));
    let token = |index: u32| 300 + (u32::from(hash.0[index as usize]) + index * 256) % 3_000;
    (0..4).map(|index| Candidate { token: token(index), q: 60 + 100 * index as u16 }).collect()
}

fn record(request: &api::GenerateRequest, position: u32) -> TokenRecord {
    let candidates = candidates(&request.header.prompt_hash, position);
    let chosen = sample(&request.tape_seed, position, &candidates, &request.header.sampling).unwrap();
    TokenRecord { candidates, chosen: chosen as u8 }
}

/// Counts a stream that is dropped before its end.
struct DropCount {
    controls: Arc<Controls>,
    ended: bool,
}

impl Drop for DropCount {
    fn drop(&mut self) {
        if !self.ended {
            self.controls.dropped.send_modify(|dropped| *dropped += 1);
        }
    }
}

async fn generate(
    State(controls): State<Arc<Controls>>,
    Json(request): Json<api::GenerateRequest>,
) -> Response {
    if controls.full.load(Ordering::SeqCst) {
        return StatusCode::TOO_MANY_REQUESTS.into_response();
    }
    controls.begun.fetch_add(1, Ordering::SeqCst);
    if request.perturbation.is_some() {
        controls.perturbed.lock().unwrap().push(request.clone());
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<api::GenerateEvent>(1);
    let count = DropCount { controls: controls.clone(), ended: false };
    tokio::spawn(async move {
        // Taken as a whole: an edition 2021 closure would capture the flag alone and drop the rest at once.
        let mut count = count;
        let mut builder = TranscriptBuilder::new(request.header.clone());
        let mut tokens = Vec::new();
        for position in 0..request.header.max_tokens {
            let permit = tokio::select! {
                () = sender.closed() => return,
                permit = controls.steps.acquire() => permit.unwrap(),
            };
            permit.forget();
            if position >= controls.break_after.load(Ordering::SeqCst) {
                count.ended = true;
                return;
            }
            let record = record(&request, position);
            let token = record.chosen().unwrap().token;
            tokens.push(token);
            let candidates = record.candidates.iter().map(|c| (c.token, c.q)).collect();
            builder.push(record);
            let text = tokenizer().decode(&[token]);
            let event = api::GenerateEvent::Token { index: position, token, text, candidates };
            if sender.send(event).await.is_err() {
                return;
            }
        }
        let (transcript, _) = builder.finish();
        let done = api::Done {
            finish_reason: api::FinishReason::Length,
            text: String::new(),
            prompt_tokens: request.prompt_tokens.len() as u32,
            cached_tokens: 0,
            completion_tokens: tokens.len() as u32,
            transcript_root: transcript.root(),
            response_hash: starling_primitives::records::response_hash(&tokens),
            transcript: transcript.encode(),
        };
        count.ended = sender.send(api::GenerateEvent::Done(done)).await.is_ok();
    });
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver)
        .map(|event| Ok::<_, Infallible>(Event::default().json_data(&event).unwrap()));
    Sse::new(stream).into_response()
}

async fn sprint(Json(request): Json<api::SprintRunRequest>) -> Response {
    let task = request.task;
    let events: Vec<_> = (request.nonces.from..request.nonces.to)
        .map(|nonce| {
            let header = task.header(nonce);
            let mut builder = TranscriptBuilder::new(header.clone());
            for position in 0..task.decode_tokens {
                let candidates = candidates(&header.prompt_hash, position);
                let chosen = sample(&task.tape_seed(nonce), position, &candidates, &header.sampling).unwrap();
                builder.push(TokenRecord { candidates, chosen: chosen as u8 });
            }
            let (transcript, _) = builder.finish();
            api::SprintEvent::Result { nonce, root: transcript.root(), transcript: transcript.encode() }
        })
        .chain([api::SprintEvent::Done { results: request.nonces.len() }])
        .collect();
    let stream = futures::stream::iter(events)
        .map(|event| Ok::<_, Infallible>(Event::default().json_data(&event).unwrap()));
    Sse::new(stream).into_response()
}

async fn verify(
    State(controls): State<Arc<Controls>>,
    Json(request): Json<api::VerifyRequest>,
) -> Json<api::VerifyResponse> {
    let distance_sum = if controls.far.load(Ordering::SeqCst) { 2_000 } else { 2 };
    let figures = Figures { tokens: 1, distance_sum, margin_sum: 3 };
    Json(api::VerifyResponse {
        outcomes: request.items.iter().map(|_| api::VerifyOutcome::Figures(figures)).collect(),
    })
}
