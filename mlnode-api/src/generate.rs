//! Generation with a transcript.

use crate::{hex_bytes, ErrorDetail};
use serde::{Deserialize, Serialize};
use starling_primitives::{constraint::Constraint, request::RequestHeader, H256};

/// Body of `POST /v1/generate`; the answer is a stream of [`GenerateEvent`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateRequest {
    /// Name under which the model was loaded.
    pub model: String,
    /// What the generation is bound to. Its `prompt_hash` must be the hash of `prompt_tokens`.
    pub header: RequestHeader,
    /// Token ids of the prompt, at least one.
    pub prompt_tokens: Vec<u32>,
    /// Seed of the tape that the tokens are drawn with.
    pub tape_seed: H256,
    /// What the answer keeps to: what the header holds the hash of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
    /// Strings that end the generation. The transcript keeps their tokens, the text does not show them.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Whether [`GenerateEvent::Token`] carries the candidates.
    #[serde(default)]
    pub logprobs: bool,
    /// Makes the answer a wrong one that nothing but a pass of the model shows. A host asks for it to see whether others look;
    /// clients have no way to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perturbation: Option<Perturbation>,
}

/// Noise on the logits of every generated token: about normally distributed, and a function of the seed, the token's place in
/// the completion and its id. It is added before penalties and constraint, so the transcript replays as any other does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Perturbation {
    /// What the noise follows from. Who knows it can take the noise away again.
    pub seed: H256,
    /// Standard deviation of the noise in 1/1000 of a logit, 1..=[`Perturbation::MAX_STRENGTH`]. With 500 a text still reads
    /// like one, and lies far beyond what honest devices differ by.
    pub strength_milli: u32,
}

impl Perturbation {
    /// Largest standard deviation, in 1/1000 of a logit: nothing is left of the model long before.
    pub const MAX_STRENGTH: u32 = 100_000;
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// End-of-sequence token or stop string.
    Stop,
    /// `max_tokens` generated.
    Length,
}

/// One event of a generation. A stream ends with exactly one [`GenerateEvent::Done`] or [`GenerateEvent::Error`];
/// one that ends otherwise was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GenerateEvent {
    /// A token was chosen.
    Token {
        /// Its place in the completion, from 0.
        index: u32,
        /// Its id.
        token: u32,
        /// Text that is now safe to show; empty while a character is incomplete or a stop string may begin.
        text: String,
        /// `(token id, q)` of every candidate in the transcript's order; empty unless asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        candidates: Vec<(u32, u16)>,
    },
    /// A window of the transcript was closed; it comes after the tokens in it.
    Window {
        /// Its place in the transcript, from 0.
        index: u32,
        /// Its canonical encoding.
        #[serde(with = "hex_bytes")]
        bytes: Vec<u8>,
        /// Hash that chains it to the window before it.
        hash: H256,
    },
    /// The generation is complete.
    Done(Done),
    /// The generation failed.
    #[serde(with = "crate::error::nested")]
    Error(ErrorDetail),
}

/// The end of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Text that was still held back.
    #[serde(default)]
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, tokens whose keys and values were known from earlier requests.
    #[serde(default)]
    pub cached_tokens: u32,
    /// Tokens generated, an end-of-sequence token included.
    pub completion_tokens: u32,
    /// `Finished::transcript_root`.
    pub transcript_root: H256,
    /// `Finished::response_hash`.
    pub response_hash: H256,
    /// SCALE encoding of the `Transcript`.
    #[serde(with = "hex_bytes")]
    pub transcript: Vec<u8>,
}

/// Body of `POST /v1/tokenize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizeRequest {
    /// Name under which the model was loaded.
    pub model: String,
    /// The text.
    pub text: String,
}

/// Answer to a [`TokenizeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizeResponse {
    /// Its token ids.
    pub tokens: Vec<u32>,
}

/// Body of `POST /v1/detokenize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetokenizeRequest {
    /// Name under which the model was loaded.
    pub model: String,
    /// Token ids. Special tokens and ids that the tokenizer does not know give no text.
    pub tokens: Vec<u32>,
}

/// Answer to a [`DetokenizeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetokenizeResponse {
    /// The text.
    pub text: String,
}
