//! The Starling ML node: an engine that makes and checks transcripts.
//!
//! - [`kernel`]: arithmetic on the processor, the same bits whatever the batch.
//! - [`device`]: which device models run on.
//! - [`model`]: weights, and what is computed with them.
//! - [`prefix`]: beginnings that sequences have in common.
//! - [`source`]: from a model to committed tokens: quantisation, penalties, the integer sampler.
//! - [`mod@vllm`]: a source that has vLLM run the model.
//! - [`scheduler`], [`kv`]: what a step computes, and for whom there is room. No tensors.
//! - [`engine`]: one thread that owns the source and runs requests, verification and sprint work in steps.
//! - [`calibrate`], [`detect`]: what honest hosts differ by, and how soon others are found out.
//! - [`load_test`]: a node under more clients than it takes.
//! - [`server`]: two HTTP ports on top of it.
//! - [`mod@bench`], [`doctor`]: what a machine makes of a model, and whether it can serve it.
//!
//! The node knows nothing of chains, hosts or epochs: it is given models, prompts, seeds and transcripts.

pub mod bench;
pub mod calibrate;
pub mod candidates;
pub mod config;
pub mod constraint;
pub mod detect;
pub mod device;
pub mod digest;
pub mod distribution;
pub mod doctor;
pub mod engine;
pub mod kernel;
pub mod kv;
pub mod load_test;
pub mod loader;
pub mod measure;
pub mod metrics;
pub mod model;
pub mod node;
pub mod pace;
pub mod perturbation;
pub mod prefix;
pub mod readiness;
pub mod scheduler;
pub mod server;
pub mod source;
mod verify;
pub mod vllm;
