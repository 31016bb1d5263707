//! vLLM as the engine, for models that take several GPUs. It runs the model, and nothing else: a logits processor inside of it
//! (`starling_vllm.py`) has this node draw each token, so transcripts are made by the same code as from the engine's own
//! models, constraints and penalties included.
//!
//! - `source`: the node's side of it, a [`TokenSource`](crate::source::TokenSource).
//! - `wire`, `socket`: what sampler and node say to each other.
//! - `api`: what the node asks over HTTP: tokens to be written, and what the model says of a text.
//! - `supervisor`, `process`, `pulse`: starts a server and starts it again, or watches one.
//! - `loader`: from a model folder to a source.

mod api;
mod loader;
mod process;
mod pulse;
mod sequence;
mod server;
mod socket;
mod source;
mod supervisor;
mod wire;

pub use loader::VllmLoader;
pub use source::VllmSource;

use crate::source::Waker;
use socket::Connection;
use std::sync::{mpsc::Sender, Arc, OnceLock};
use wire::Message;

/// The logits processor, as vLLM loads it.
pub const SAMPLER: &str = include_str!("starling_vllm.py");
/// The name of its file; the part before the dot is its module.
pub const SAMPLER_FILE: &str = "starling_vllm.py";

/// What happens outside of the engine's thread.
#[derive(Debug)]
enum Event {
    /// The server writes tokens; the name of its model.
    Up { model: String },
    /// It does not any more, or ended before it did.
    Down {
        reason: String,
        /// The last lines of its output.
        lines: Vec<String>,
    },
    /// A sampler has connected.
    Connected(u64, Connection),
    /// A sampler has said something.
    Said(u64, Message),
    /// A sampler is gone.
    Disconnected(u64),
    /// Of the request with this key: tokens were written.
    Wrote(u64, Vec<u32>),
    /// What the model says of the last tokens of a text.
    Read(u64, Vec<Vec<(u32, f32)>>),
    /// It failed.
    Failed(u64, String),
}

/// Where events go.
#[derive(Clone)]
struct Events {
    sender: Sender<Event>,
    waker: Arc<OnceLock<Waker>>,
}

impl Events {
    fn send(&self, event: Event) {
        // Nobody is left to tell when the source is gone.
        if self.sender.send(event).is_ok() {
            if let Some(wake) = self.waker.get() {
                wake();
            }
        }
    }
}
