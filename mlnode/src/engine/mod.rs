//! The engine: one OS thread owns the model and runs steps; everybody else holds an [`Engine`] and talks to it through
//! bounded channels.
//!
//! What is admitted is counted before it reaches the thread: a request needs a permit and room for its keys and values,
//! else it is refused at once. Events of a generation go into a channel that holds all of them, so a slow reader never
//! holds up a step; a reader that is gone ends its generation at the next one.

mod jobs;
mod sequence;
mod worker;

pub use jobs::{Generation, Refusal, ValidRequest, MAX_STOP_BYTES, MAX_STOP_STRINGS};

use crate::{
    constraint::Constrained,
    kv::KvRoom,
    loader::{LoadError, LoadSpec, Loader},
    metrics::Metrics,
    pace::PaceLimits,
    readiness::Readiness,
    source::{Resources, Shape, Waker},
    verify::{self, Ready},
};
use jobs::{Command, GenerateJob, SprintJob, VerifyJob};
use starling_mlnode_api::{
    GenerateEvent, GenerateRequest, ModelInfo, NonceRange, SprintEvent, SprintRunRequest, SprintStatus,
    VerifyItem, VerifyOutcome,
};
use starling_primitives::{
    request::{prompt_hash, RequestHeader, SamplingParams},
    H256,
};
use starling_prompt::{Limits, Tokenizer};
use std::{
    io,
    sync::{
        mpsc::{sync_channel, SyncSender, TrySendError},
        Arc, RwLock,
    },
    time::SystemTime,
};
use tokio::sync::{mpsc, oneshot, Semaphore};
use tokio_util::sync::CancellationToken;

/// Commands that may wait for the engine's thread. Requests are bounded by their permits long before.
const COMMANDS_MAX: usize = 1_024;
/// Sprint runs that may be queued.
const SPRINT_RUNS_MAX: usize = 16;
/// Verification requests that may be queued.
const VERIFY_REQUESTS_MAX: usize = 16;

/// Answers that one chat request may ask for. Each takes a slot of its own.
const CHOICES_MAX: u8 = 8;

/// How much the engine takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Requests running at once; one more is refused.
    pub requests_max: u32,
    /// Tokens of KV room.
    pub kv_tokens: u32,
    /// Tokens of a step.
    pub steps: PaceLimits,
    /// Of them for verification and sprints, beside requests.
    pub background_tokens: u32,
    /// Sprint nonces decoded at once.
    pub sprint_batch: u32,
    /// Transcripts verified at once.
    pub verify_batch: u32,
    /// What the source may use.
    pub resources: Resources,
}

/// A model as everybody outside the engine's thread sees it.
#[derive(Debug)]
pub struct ServedModel {
    /// Digests, sizes, name.
    pub info: ModelInfo,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// What the source can do.
    pub shape: Shape,
    /// When it was loaded.
    pub loaded_at: SystemTime,
    /// Whether work can be taken now.
    pub readiness: Readiness,
}

impl ServedModel {
    /// What a chat request may ask of it.
    pub fn limits(&self) -> Limits {
        Limits {
            max_context: self.shape.max_context,
            top_k: self.shape.top_k,
            vocab_size: self.shape.vocab_size,
            default_max_tokens: None,
            choices_max: CHOICES_MAX,
        }
    }
}

/// Handle of the engine. The thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Shared, and known to a source's waker only weakly: the thread ends when the last handle is gone.
    commands: Arc<SyncSender<Command>>,
    shared: Arc<Shared>,
}

/// What handle and thread share.
#[derive(Debug)]
struct Shared {
    limits: EngineLimits,
    metrics: Metrics,
    model: RwLock<Option<Arc<ServedModel>>>,
    requests: Arc<Semaphore>,
    sprints: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
    probes: Semaphore,
    kv: KvRoom,
    /// Cancelled when the thread ends, by a panic too.
    ended: CancellationToken,
}

impl Shared {
    fn model(&self) -> Option<Arc<ServedModel>> {
        // A poisoned lock still holds a whole value: it is replaced in one assignment.
        self.model.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn set_model(&self, model: Option<Arc<ServedModel>>) {
        *self.model.write().unwrap_or_else(std::sync::PoisonError::into_inner) = model;
    }
}

impl Engine {
    /// Starts the thread. No model is loaded yet.
    pub fn start(loader: Box<dyn Loader>, limits: EngineLimits, metrics: Metrics) -> io::Result<Self> {
        let (commands, receiver) = sync_channel(COMMANDS_MAX);
        let commands = Arc::new(commands);
        let shared = Arc::new(Shared {
            limits,
            metrics,
            model: RwLock::new(None),
            requests: Arc::new(Semaphore::new(limits.requests_max as usize)),
            sprints: Arc::new(Semaphore::new(SPRINT_RUNS_MAX)),
            verifications: Arc::new(Semaphore::new(VERIFY_REQUESTS_MAX)),
            probes: Semaphore::new(1),
            kv: KvRoom::new(limits.kv_tokens),
            ended: CancellationToken::new(),
        });
        let worker = worker::Worker::new(receiver, waker(&commands), loader, Arc::clone(&shared));
        let ended = shared.ended.clone().drop_guard();
        std::thread::Builder::new().name("engine".into()).spawn(move || {
            let _ended = ended;
            worker.run();
        })?;
        Ok(Self { commands, shared })
    }

    /// Waits for the end of the thread. While a handle exists it ends only by a panic.
    pub async fn ended(&self) {
        self.shared.ended.cancelled().await;
    }

    /// What the engine takes on.
    pub fn limits(&self) -> &EngineLimits {
        &self.shared.limits
    }

    /// The node's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The model, if one is loaded.
    pub fn model(&self) -> Option<Arc<ServedModel>> {
        self.shared.model()
    }

    /// The model, if it is loaded under this name.
    pub fn model_named(&self, name: &str) -> Result<Arc<ServedModel>, Refusal> {
        self.model().filter(|m| m.info.model == name).ok_or_else(|| Refusal::ModelNotFound(name.into()))
    }

    /// The model, if it is loaded under this name and work can be taken.
    fn ready_model(&self, name: &str) -> Result<Arc<ServedModel>, Refusal> {
        let model = self.model_named(name)?;
        model.readiness.check().map_err(Refusal::NotReady)?;
        Ok(model)
    }

    /// Requests admitted and not finished.
    pub fn requests_running(&self) -> u32 {
        let free = u32::try_from(self.shared.requests.available_permits()).unwrap_or(u32::MAX);
        self.shared.limits.requests_max.saturating_sub(free)
    }

    /// Tokens of room for keys and values that admitted work holds.
    pub fn kv_tokens(&self) -> u32 {
        self.shared.kv.used()
    }

    /// Loads a model. The one that is loaded must be unloaded first; loading it again does nothing.
    pub async fn load(&self, spec: LoadSpec) -> Result<Arc<ServedModel>, LoadRefusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Load(spec, reply)).map_err(LoadRefusal::Refused)?;
        answer.await.map_err(|_| LoadRefusal::Refused(Refusal::Stopping))?
    }

    /// Unloads the model; generations in it end with an error.
    pub async fn unload(&self, name: &str) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Unload(name.into(), reply))?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }

    /// [`Engine::generate`] for async callers: a grammar is compiled beside their threads.
    pub async fn admit(&self, request: GenerateRequest) -> Result<Generation, Refusal> {
        if request.constraint.as_ref().is_none_or(|constraint| constraint.grammar.is_none()) {
            return self.generate(&request);
        }
        let engine = self.clone();
        tokio::task::spawn_blocking(move || engine.generate(&request))
            .await
            .map_err(|_| Refusal::Failed("the request could not be prepared".into()))?
    }

    /// Admits a request, or refuses it at once.
    pub fn generate(&self, request: &GenerateRequest) -> Result<Generation, Refusal> {
        let model = self.ready_model(&request.model)?;
        let valid = ValidRequest::new(request, &model.shape)?;
        let overloaded = || {
            self.shared.metrics.overloaded.inc();
            Refusal::Overloaded
        };
        let permit = Arc::clone(&self.shared.requests).try_acquire_owned().map_err(|_| overloaded())?;
        let kv = self.shared.kv.take(valid.capacity()).ok_or_else(overloaded)?;
        let (events, receiver) = mpsc::channel(valid.events_max());
        // With the permit in hand: what compiles at once is bounded.
        let constraint = valid.constraint.as_ref().map(|c| Constrained::new(c, &model.tokenizer));
        let job = GenerateJob { request: valid, constraint, events, kv: Some(kv), permit: Some(permit) };
        self.send(Command::Generate(Box::new(job)))?;
        Ok(receiver)
    }

    /// Produces one token outside of the permits, to prove that it can be done. One probe runs at a time.
    pub async fn probe(&self) -> Result<u32, Refusal> {
        let _only = self.shared.probes.acquire().await.map_err(|_| Refusal::Stopping)?;
        let model = self.model().ok_or_else(|| Refusal::ModelNotFound("any model".into()))?;
        model.readiness.check().map_err(Refusal::NotReady)?;
        let prompt = vec![0];
        let header = RequestHeader {
            profile: 0,
            prompt_hash: prompt_hash(&prompt),
            sampling: SamplingParams::GREEDY,
            max_tokens: 1,
            constraint: None,
            nonce: [0; 32],
        };
        let request = GenerateRequest {
            model: model.info.model.clone(),
            header,
            prompt_tokens: prompt,
            tape_seed: H256::zero(),
            constraint: None,
            stop: Vec::new(),
            logprobs: false,
            perturbation: None,
        };
        let valid = ValidRequest::new(&request, &model.shape)?;
        let (events, mut receiver) = mpsc::channel(valid.events_max());
        let job = GenerateJob { request: valid, constraint: None, events, kv: None, permit: None };
        self.send(Command::Generate(Box::new(job)))?;
        while let Some(event) = receiver.recv().await {
            match event {
                GenerateEvent::Token { token, .. } => return Ok(token),
                GenerateEvent::Error(detail) => return Err(Refusal::Failed(detail.message)),
                _ => {}
            }
        }
        Err(Refusal::Stopping)
    }

    /// Checks transcripts; one outcome per item, in order.
    pub async fn verify(&self, model: &str, items: Vec<VerifyItem>) -> Result<Vec<VerifyOutcome>, Refusal> {
        let model = self.ready_model(model)?;
        let permit =
            Arc::clone(&self.shared.verifications).try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
        let shape = model.shape;
        // Replay is hashing and integer arithmetic: milliseconds, but many of them.
        let replayed = tokio::task::spawn_blocking(move || {
            let tokenizer = &model.tokenizer;
            let replay = |item| {
                let ready = verify::replay_item(item, &shape)?;
                Ok(verify::compile_constraint(ready, item, tokenizer))
            };
            items.iter().map(replay).collect::<Vec<_>>()
        })
        .await
        .map_err(|_| Refusal::Failed("the replay failed".into()))?;
        let (outcomes, ready) = self.split_verification(replayed);
        let (reply, answer) = oneshot::channel();
        self.send(Command::Verify(VerifyJob { outcomes, ready, reply, _permit: permit }))?;
        let outcomes = answer.await.map_err(|_| Refusal::Stopping)?;
        for outcome in &outcomes {
            self.shared.metrics.verified.with_label_values(&[verify::label(outcome)]).inc();
        }
        Ok(outcomes)
    }

    /// Items that the replay or the room decided already, and those that need the model, with their places.
    fn split_verification(
        &self,
        replayed: Vec<Result<Ready, VerifyOutcome>>,
    ) -> (Vec<VerifyOutcome>, Vec<(usize, Ready)>) {
        let mut outcomes = Vec::with_capacity(replayed.len());
        let mut ready = Vec::new();
        for (index, item) in replayed.into_iter().enumerate() {
            let unchecked = VerifyOutcome::Failed { reason: "it was not checked".into() };
            match item {
                Err(outcome) => outcomes.push(outcome),
                Ok(item) if self.shared.kv.fits_background(item.capacity()) => {
                    outcomes.push(unchecked);
                    ready.push((index, item));
                }
                Ok(_) => {
                    let reason = "it is longer than this node's KV room".into();
                    outcomes.push(VerifyOutcome::Failed { reason });
                }
            }
        }
        (outcomes, ready)
    }

    /// Queues sprint work.
    pub fn sprint(&self, request: SprintRunRequest) -> Result<mpsc::Receiver<SprintEvent>, Refusal> {
        let model = self.ready_model(&request.model)?;
        let SprintRunRequest { task, nonces, .. } = request;
        let invalid = |param: &str, message: &str| {
            Err(Refusal::Invalid { param: param.into(), message: message.into() })
        };
        if nonces.is_empty() || nonces.len() > NonceRange::MAX_LEN {
            return invalid("nonces", &format!("A run has 1 to {} nonces.", NonceRange::MAX_LEN));
        }
        if task.vocab_size == 0 || task.vocab_size > model.shape.vocab_size {
            return invalid("task.vocab_size", "The task's vocabulary is not the model's.");
        }
        let length = task.prompt_tokens.saturating_add(task.decode_tokens);
        if task.prompt_tokens == 0 || task.decode_tokens == 0 || length > model.shape.max_context {
            return invalid("task", "Prompt and decoded tokens must be at least 1 and fit the context.");
        }
        if !self.shared.kv.fits_background(length) {
            return invalid("task", "The task is longer than this node's KV room.");
        }
        let permit = Arc::clone(&self.shared.sprints).try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
        let (events, receiver) = mpsc::channel(nonces.len() as usize + 2);
        self.send(Command::Sprint(SprintJob { task, nonces, events, _permit: permit }))?;
        Ok(receiver)
    }

    /// Stops all sprint work.
    pub async fn stop_sprint(&self) -> Result<SprintStatus, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::StopSprint(reply))?;
        answer.await.map_err(|_| Refusal::Stopping)?;
        Ok(self.sprint_status())
    }

    /// How far sprint work is.
    pub fn sprint_status(&self) -> SprintStatus {
        let metrics = &self.shared.metrics;
        let gauge = |value: i64| u32::try_from(value).unwrap_or(0);
        SprintStatus {
            running: gauge(metrics.sequences.with_label_values(&[crate::metrics::class::SPRINT]).get()),
            queued: gauge(metrics.sprint_queued.get()),
            done_total: metrics.sprint_nonces.get(),
        }
    }

    fn send(&self, command: Command) -> Result<(), Refusal> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Overloaded,
            TrySendError::Disconnected(_) => Refusal::Stopping,
        })
    }
}

/// Makes a source's [`Waker`]. Where the channel is full the thread is awake.
fn waker(commands: &Arc<SyncSender<Command>>) -> Waker {
    let commands = Arc::downgrade(commands);
    Arc::new(move || {
        if let Some(commands) = commands.upgrade() {
            let _ = commands.try_send(Command::Wake);
        }
    })
}

/// Why a model was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadRefusal {
    /// Another one is loaded.
    #[error("the model {0:?} is loaded; unload it first")]
    Occupied(String),
    /// It cannot be loaded.
    #[error("the model cannot be loaded")]
    Load(#[source] LoadError),
    /// The engine does not take it.
    #[error(transparent)]
    Refused(Refusal),
}
