//! Sprint work: the agent hands out chunks of nonces, the node streams their transcripts back.

use crate::{hex_bytes, ErrorDetail};
use serde::{Deserialize, Serialize};
use starling_primitives::{sprint::SprintTask, H256};

/// Nonces `from..to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonceRange {
    /// First nonce.
    pub from: u32,
    /// One past the last nonce.
    pub to: u32,
}

impl NonceRange {
    /// Nonces that one request may hold.
    pub const MAX_LEN: u32 = 4_096;

    /// Number of nonces.
    pub fn len(&self) -> u32 {
        self.to.saturating_sub(self.from)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Body of `POST /api/v1/sprint/run`; the answer is a stream of [`SprintEvent`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SprintRunRequest {
    /// The task.
    pub task: SprintTask,
    /// Name under which the task's model was loaded.
    pub model: String,
    /// Nonces to run.
    pub nonces: NonceRange,
}

/// One event of a sprint run. A stream ends with exactly one [`SprintEvent::Done`] or [`SprintEvent::Error`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SprintEvent {
    /// A nonce is done. Nonces may come in any order.
    Result {
        /// The nonce.
        nonce: u32,
        /// Root of its transcript: the leaf of the commitment's tree.
        root: H256,
        /// SCALE encoding of its `Transcript`.
        #[serde(with = "hex_bytes")]
        transcript: Vec<u8>,
    },
    /// All nonces are done.
    Done {
        /// Number of results sent.
        results: u32,
    },
    /// The run failed or was stopped; results sent before remain good.
    #[serde(with = "crate::error::nested")]
    Error(ErrorDetail),
}

/// Answer of `GET /api/v1/sprint/status` and `POST /api/v1/sprint/stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SprintStatus {
    /// Nonces being decoded.
    pub running: u32,
    /// Nonces waiting.
    pub queued: u32,
    /// Nonces done since the start of the program.
    pub done_total: u64,
}
