//! Requests, responses and the client shared by the host agent and the ML node.
//!
//! An ML node has two ports. The *inference* port speaks [`GenerateRequest`] to [`GenerateEvent`]s (and OpenAI's chat
//! API, whose types live in `starling-prompt`); the *management* port loads models, verifies transcripts, runs sprints
//! and says how the node is. Both want `Authorization: Bearer TOKEN`. [`MlNodeClient`] speaks to both;
//! [`MlNode`] is what the host agent needs of it, so that tests can put something else in its place.
//!
//! The node knows nothing of chains, hosts or epochs: it is given models, prompts, seeds and transcripts.

#![forbid(unsafe_code)]

mod client;
mod error;
mod generate;
pub mod hex_bytes;
mod manage;
mod sprint;
mod verify;

pub use client::{ClientConfig, ClientError, EventStream, MlNode, MlNodeClient};
pub use error::{codes, ErrorBody, ErrorDetail};
pub use generate::{
    DetokenizeRequest, DetokenizeResponse, Done, FinishReason, GenerateEvent, GenerateRequest, Perturbation,
    TokenizeRequest, TokenizeResponse,
};
pub use manage::{
    Health, LoadRequest, Mode, ModelDigest, ModelEntry, ModelInfo, ModelsResponse, NodeState, Numbers,
    UnloadRequest,
};
pub use sprint::{NonceRange, SprintEvent, SprintRunRequest, SprintStatus};
pub use verify::{VerifyItem, VerifyOutcome, VerifyRequest, VerifyResponse, MAX_VERIFY_ITEMS};
