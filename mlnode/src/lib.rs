//! The Starling ML node: a libtorch engine that makes and checks transcripts.
//!
//! - [`model`]: weights and arithmetic.
//! - [`source`]: from a model to committed tokens: quantisation, penalties, the integer sampler.
//! - [`scheduler`], [`kv`]: what a step computes, and for whom there is room. No tensors.
//! - [`engine`]: one thread that owns the source and runs requests, verification and sprint work in steps.
//! - [`server`]: two HTTP ports on top of it.
//!
//! The node knows nothing of chains, hosts or epochs: it is given models, prompts, seeds and transcripts.

pub mod bench;
pub mod candidates;
pub mod config;
pub mod digest;
pub mod engine;
pub mod kv;
pub mod loader;
pub mod measure;
pub mod metrics;
pub mod model;
pub mod node;
pub mod scheduler;
pub mod server;
pub mod source;
mod verify;
