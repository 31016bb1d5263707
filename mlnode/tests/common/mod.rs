//! What the tests share: model folders, nodes on free ports, requests.

#![allow(dead_code, unreachable_pub, reason = "each test binary includes this and uses its own part")]

use futures::StreamExt;
use safetensors::{tensor::TensorView, Dtype, SafeTensors};
use serde_json::{json, Value};
use starling_mlnode::{
    config::{Config, Limits, Secret},
    loader::{FolderLoader, LoadError, LoadSpec, Loaded, Loader},
    model::Rates,
    node::Node,
    source::{Chunk, Output, Resources, SequenceId, Shape, SourceError, TokenSource, Waker},
};
use starling_mlnode_api::{ClientConfig, Done, GenerateEvent, GenerateRequest, MlNode, MlNodeClient};
use starling_primitives::{
    constraint::Constraint,
    request::{prompt_hash, RequestHeader, SamplingParams},
    tape::tape_seed,
    transcript::Transcript,
    H256,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

pub const TOKEN: &str = "a token for tests only";
pub const MODEL: &str = "demo";
/// Tempered sampling without filters: every token depends on the tape.
pub const SAMPLED: SamplingParams = SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };

/// The model that the repository ships.
pub fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model")
}

/// A copy of the demo model whose weights are each moved by up to `strength` of their size: another model under the
/// same tokenizer.
pub fn write_other_model(folder: &Path, strength: f32) {
    std::fs::create_dir_all(folder).unwrap();
    for entry in std::fs::read_dir(demo_model()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let bytes = std::fs::read(demo_model().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    // By name: the file's own order is a hash map's, and the model would be another one each time.
    let mut tensors = tensors.tensors();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut noise = 1u32;
    let moved: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, view)| {
            let floats = view.data().chunks_exact(2).map(|w| {
                let bits = u16::from_le_bytes(w.try_into().unwrap());
                match view.dtype() {
                    Dtype::BF16 => f32::from_bits(u32::from(bits) << 16),
                    other => panic!("the demo model is stored as {other:?}"),
                }
            });
            let moved = floats.flat_map(|x| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let unit = (noise >> 8) as f32 / (1 << 23) as f32 - 1.0;
                (x * (1.0 + strength * unit)).to_le_bytes()
            });
            (name, view.shape().to_vec(), moved.collect())
        })
        .collect();
    let views = moved
        .iter()
        .map(|(name, shape, data)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

/// Another model that has no token to end an answer with: how long an answer is depends on the request alone, and not on
/// the last bit of a probability, which differs between processors.
pub fn rambling_model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_other_model(folder.path(), 2.0);
    let changes = [
        ("config.json", "eos_token_id", Value::Null),
        ("generation_config.json", "eos_token_id", json!([])),
        ("tokenizer_config.json", "eos_token", Value::Null),
    ];
    for (name, field, value) in changes {
        let file = folder.path().join(name);
        let mut content: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        content[field] = value;
        std::fs::write(&file, content.to_string()).unwrap();
    }
    folder
}

/// Loads a model that takes its time for each step, as a larger one does: an answer of a thousand tokens of the demo model
/// may be complete before a busy machine has sent the next request.
pub struct SlowLoader(pub Duration);

impl Loader for SlowLoader {
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError> {
        let loaded = FolderLoader::default().load(spec)?;
        let source = Box::new(SlowSource { source: loaded.source, step: self.0 });
        Ok(Loaded { source, ..loaded })
    }
}

struct SlowSource {
    source: Box<dyn TokenSource>,
    step: Duration,
}

impl TokenSource for SlowSource {
    fn shape(&self) -> Shape {
        self.source.shape()
    }
    fn use_resources(&mut self, resources: &Resources) {
        self.source.use_resources(resources)
    }
    fn set_waker(&mut self, waker: Waker) {
        self.source.set_waker(waker)
    }
    fn schedules(&self) -> bool {
        self.source.schedules()
    }
    fn reserve(&mut self, tokens: u32) -> Result<(), SourceError> {
        self.source.reserve(tokens)
    }
    fn numerics(&self) -> &'static str {
        self.source.numerics()
    }
    fn rates(&self) -> Option<Result<Rates, SourceError>> {
        self.source.rates()
    }
    fn parameters_per_token(&self) -> u64 {
        self.source.parameters_per_token()
    }
    fn weight_bytes(&self) -> u64 {
        self.source.weight_bytes()
    }
    fn transcript_time(&self) -> Duration {
        self.source.transcript_time()
    }
    fn reuse(&mut self, sequence: SequenceId, tokens: &[u32]) -> u32 {
        self.source.reuse(sequence, tokens)
    }
    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError> {
        self.source.open(sequence, capacity)
    }
    fn close(&mut self, sequence: SequenceId) {
        self.source.close(sequence)
    }
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        std::thread::sleep(self.step);
        self.source.step(chunks)
    }
}

/// A configuration on free ports.
pub fn config(folder: &Path, limits: Limits) -> Config {
    let text = serde_json::json!({
        "threads": 1,
        "inference": {"listen": "127.0.0.1:0"},
        "management": {"listen": "127.0.0.1:0"},
        "model": {"name": MODEL, "folder": folder},
    });
    let mut config: Config = serde_json::from_value(text).unwrap();
    config.token = Some(Secret::new(TOKEN));
    config.limits = limits;
    config
}

/// A node with its client; it stops when dropped.
pub struct Running {
    pub node: Node,
    pub client: MlNodeClient,
}

impl Running {
    pub async fn start(config: &Config, loader: impl Loader) -> Self {
        let node = Node::start(config, Box::new(loader)).await.unwrap();
        let client = client(&node, TOKEN);
        Self { node, client }
    }

    pub async fn demo(limits: Limits) -> Self {
        Self::start(&config(&demo_model(), limits), FolderLoader::default()).await
    }

    /// A node whose model rambles: no token ends its answers.
    pub async fn rambling(limits: Limits) -> Self {
        let folder = rambling_model();
        Self::start(&config(folder.path(), limits), FolderLoader::default()).await
    }

    /// The same, but a thousand tokens take at least five seconds.
    pub async fn rambling_slowly(limits: Limits) -> Self {
        let folder = rambling_model();
        Self::start(&config(folder.path(), limits), SlowLoader(Duration::from_millis(5))).await
    }

    pub fn inference(&self, path: &str) -> String {
        format!("http://{}{path}", self.node.inference_address())
    }

    pub fn management(&self, path: &str) -> String {
        format!("http://{}{path}", self.node.management_address())
    }

    pub fn tokens(&self, text: &str) -> Vec<u32> {
        self.node.engine().model().unwrap().tokenizer.encode(text).unwrap()
    }

    pub async fn run(&self, request: &GenerateRequest) -> Answer {
        let mut events = self.client.generate(request).await.unwrap();
        let mut answer = Answer::default();
        while let Some(event) = events.next().await {
            answer.take(event.unwrap());
        }
        answer
    }
}

pub fn client(node: &Node, token: &str) -> MlNodeClient {
    let url = |address| format!("http://{address}");
    let config = ClientConfig::new(url(node.inference_address()), url(node.management_address()), token);
    MlNodeClient::new(config).unwrap()
}

/// Everything that a generation sent.
#[derive(Debug, Default)]
pub struct Answer {
    pub tokens: Vec<u32>,
    pub text: String,
    pub candidates: Vec<Vec<(u32, u16)>>,
    pub windows: Vec<(Vec<u8>, H256)>,
    pub done: Option<Done>,
}

impl Answer {
    fn take(&mut self, event: GenerateEvent) {
        assert!(self.done.is_none(), "nothing comes after the end");
        match event {
            GenerateEvent::Token { index, token, text, candidates } => {
                assert_eq!(index as usize, self.tokens.len());
                self.tokens.push(token);
                self.text.push_str(&text);
                self.candidates.push(candidates);
            }
            GenerateEvent::Window { index, bytes, hash } => {
                assert_eq!(index as usize, self.windows.len());
                self.windows.push((bytes, hash));
            }
            GenerateEvent::Done(done) => {
                self.text.push_str(&done.text);
                self.done = Some(done);
            }
            GenerateEvent::Error(detail) => panic!("{detail:?}"),
        }
    }

    pub fn done(&self) -> &Done {
        self.done.as_ref().expect("the generation ended")
    }

    pub fn transcript(&self) -> Transcript {
        codec::Decode::decode(&mut self.done().transcript.as_slice()).unwrap()
    }
}

/// A request with the tape of an epoch seed.
pub fn request(prompt_tokens: Vec<u32>, sampling: SamplingParams, max_tokens: u32) -> GenerateRequest {
    constrained(prompt_tokens, sampling, max_tokens, None)
}

/// The same, bound to a constraint.
pub fn constrained(
    prompt_tokens: Vec<u32>,
    sampling: SamplingParams,
    max_tokens: u32,
    constraint: Option<Constraint>,
) -> GenerateRequest {
    let header = RequestHeader {
        profile: 7,
        prompt_hash: prompt_hash(&prompt_tokens),
        sampling,
        max_tokens,
        constraint: constraint.as_ref().map(Constraint::hash),
        nonce: [9; 32],
    };
    let tape_seed = tape_seed(&H256::repeat_byte(1), &header.id());
    GenerateRequest {
        model: MODEL.into(),
        header,
        prompt_tokens,
        tape_seed,
        constraint,
        stop: vec![],
        logprobs: false,
        perturbation: None,
    }
}

/// Waits a minute at most for a condition.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(Duration::from_secs(60), what, condition).await;
}

/// Waits so long at most for a condition.
pub async fn eventually_within(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(limit, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {limit:?}: {what}");
}
