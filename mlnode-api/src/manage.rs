//! State, health, models.

use serde::{Deserialize, Serialize};
use starling_primitives::H256;

/// Body of `POST /api/v1/models/load`. Answered with [`ModelInfo`] once the model serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadRequest {
    /// Name to serve it under.
    pub model: String,
    /// Folder below the configured `models_dir`; the name itself when absent.
    #[serde(default)]
    pub folder: Option<String>,
    /// Candidates per token, 1..=20; the configured value when absent.
    #[serde(default)]
    pub top_k: Option<u8>,
    /// Refuse to serve unless the folder's weights have this digest.
    #[serde(default)]
    pub weights_digest: Option<H256>,
}

/// Body of `POST /api/v1/models/unload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnloadRequest {
    /// Name under which the model was loaded.
    pub model: String,
}

/// What `starling-mlnode digest FOLDER` prints, and part of [`ModelInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDigest {
    /// `Profile::weights_digest`.
    pub weights_digest: H256,
    /// `Profile::tokenizer_digest`.
    pub tokenizer_digest: H256,
    /// `Profile::vocab_size`.
    pub vocab_size: u32,
    /// Longest context that the model was made for.
    pub max_context: u32,
}

/// A loaded model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name it is served under.
    pub model: String,
    /// Digests and sizes.
    #[serde(flatten)]
    pub digest: ModelDigest,
    /// Candidates per token.
    pub top_k: u8,
    /// Number of parameters.
    pub parameters: u64,
    /// Kernel class of its arithmetic.
    pub numerics: String,
    /// Milliseconds that loading took.
    pub load_ms: u64,
}

/// What the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No model is loaded.
    Empty,
    /// Serves requests.
    Serving,
    /// Runs a sprint, and serves requests beside it.
    Sprint,
}

/// Answer of `GET /api/v1/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Version of the program.
    pub version: String,
    /// What the node is doing.
    pub mode: Mode,
    /// The loaded model.
    pub model: Option<ModelInfo>,
    /// Load and counters.
    pub numbers: Numbers,
}

/// Load and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Requests admitted and not finished.
    pub requests_running: u32,
    /// Requests admitted at most.
    pub requests_max: u32,
    /// Tokens of room for keys and values that admitted work holds.
    #[serde(default)]
    pub kv_tokens: u32,
    /// Sprint nonces being worked on.
    pub sprint_running: u32,
    /// Tokens of prompts processed since the start.
    pub prompt_tokens_total: u64,
    /// Tokens generated since the start, sprints included.
    pub completion_tokens_total: u64,
    /// Transcripts verified since the start.
    pub verified_total: u64,
    /// Seconds since the start.
    pub uptime_seconds: u64,
}

/// Answer of `GET /health`: the node has just produced a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Model that produced it.
    pub model: String,
    /// The token.
    pub token: u32,
    /// Microseconds from the request to the token.
    pub micros: u64,
}

/// Answer of `GET /v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelsResponse {
    /// `list`.
    pub object: String,
    /// The loaded models.
    pub data: Vec<ModelEntry>,
}

/// A model as OpenAI lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// Name it is served under.
    pub id: String,
    /// `model`.
    pub object: String,
    /// Unix time in seconds at which it was loaded.
    pub created: u64,
    /// Who offers it.
    pub owned_by: String,
}
