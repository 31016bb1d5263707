//! Verification of transcripts.

use crate::hex_bytes;
use serde::{Deserialize, Serialize};
use starling_primitives::{constraint::Constraint, verdict::Figures, H256};

/// Transcripts that one request may hold.
pub const MAX_VERIFY_ITEMS: usize = 256;

/// Body of `POST /api/v1/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Name under which the transcripts' model was loaded.
    pub model: String,
    /// At most [`MAX_VERIFY_ITEMS`] transcripts.
    pub items: Vec<VerifyItem>,
}

/// A transcript with what is needed to check it. Whether it is the one that was committed to (its root and the hash of
/// its tokens) is for the caller to say: the ML node knows no chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyItem {
    /// SCALE encoding of the `Transcript`.
    #[serde(with = "hex_bytes")]
    pub transcript: Vec<u8>,
    /// Token ids of the prompt; tokenised by the verifier itself.
    pub prompt_tokens: Vec<u32>,
    /// Seed of the tape.
    pub tape_seed: H256,
    /// What the answer had to keep to: what the transcript's header holds the hash of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
}

/// Answer to a [`VerifyRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyResponse {
    /// One outcome per item, in the same order.
    pub outcomes: Vec<VerifyOutcome>,
}

/// What came of one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum VerifyOutcome {
    /// The transcript replays; its distance and margin are these.
    Figures(Figures),
    /// The transcript contradicts itself, its header, its prompt or its tape.
    ReplayFailed {
        /// For humans.
        reason: String,
    },
    /// The transcript replays, and says that something was offered which its constraint does not allow there.
    ConstraintBroken {
        /// For humans.
        reason: String,
    },
    /// This node could not check it; nothing is said about the transcript.
    Failed {
        /// For humans.
        reason: String,
    },
}
