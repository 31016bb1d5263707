//! Answers, chunks, usage and model lists.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// End-of-sequence token or stop string.
    Stop,
    /// `max_tokens` generated.
    Length,
    /// Withheld by a filter. Never sent by Starling; read from other servers.
    ContentFilter,
    /// The model called tools.
    ToolCalls,
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, the end-of-sequence token included.
    pub completion_tokens: u32,
    /// Both.
    pub total_tokens: u32,
    /// How the prompt's tokens were come by, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

/// How the tokens of a prompt were come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    /// Tokens whose keys and values were known from earlier requests.
    pub cached_tokens: u32,
}

impl Usage {
    /// Usage of a request.
    pub fn new(prompt_tokens: u32, completion_tokens: u32) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            prompt_tokens_details: None,
        }
    }
}

/// An alternative at a token's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    /// Text of the token.
    pub token: String,
    /// Natural logarithm of its probability before temperature.
    pub logprob: f64,
    /// UTF-8 bytes of the token; a character may be spread over several tokens.
    pub bytes: Option<Vec<u8>>,
}

/// A generated token with its log-probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// Text of the token.
    pub token: String,
    /// Natural logarithm of its probability before temperature.
    pub logprob: f64,
    /// UTF-8 bytes of the token; a character may be spread over several tokens.
    pub bytes: Option<Vec<u8>>,
    /// The most likely tokens at this place, the best first.
    pub top_logprobs: Vec<TopLogprob>,
}

/// Log-probabilities of a choice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChoiceLogprobs {
    /// One entry per token.
    pub content: Option<Vec<TokenLogprob>>,
    /// Always null.
    #[serde(default)]
    pub refusal: Option<Vec<TokenLogprob>>,
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// Name of the function.
    pub name: String,
    /// The arguments: JSON as a text, if the model kept to it.
    pub arguments: String,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its place among the calls; in streams only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Names the call for the message that answers it.
    pub id: String,
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is called.
    pub function: FunctionCall,
}

/// The answer's message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssistantMessage {
    /// `assistant`.
    pub role: String,
    /// The text; null when there are only calls.
    pub content: Option<String>,
    /// Always null.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Calls of tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// One of the choices of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Its place among them.
    pub index: u32,
    /// The message.
    pub message: AssistantMessage,
    /// When asked for.
    #[serde(default)]
    pub logprobs: Option<ChoiceLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
}

/// Body of an answer that is not streamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatCompletion {
    /// `chatcmpl-...`
    pub id: String,
    /// `chat.completion`
    pub object: String,
    /// Unix time in seconds.
    pub created: u64,
    /// Name of the profile.
    pub model: String,
    /// As many as were asked for.
    pub choices: Vec<Choice>,
    /// Token counts.
    pub usage: Option<Usage>,
    /// Identifies weights and numerics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// Extension: receipt, transcript and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starling: Option<Value>,
}

/// What a chunk adds to the message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// `assistant`, in the first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text to append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Calls of tools, each whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// The one choice of a chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkChoice {
    /// Which choice of the answer grows.
    pub index: u32,
    /// What is new.
    pub delta: Delta,
    /// When asked for: the tokens of this chunk.
    #[serde(default)]
    pub logprobs: Option<ChoiceLogprobs>,
    /// Set in the last chunk that has a choice.
    #[serde(default)]
    pub finish_reason: Option<FinishReason>,
}

/// One event of a streamed answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatCompletionChunk {
    /// `chatcmpl-...`, equal in all chunks.
    pub id: String,
    /// `chat.completion.chunk`
    pub object: String,
    /// Unix time in seconds, equal in all chunks.
    pub created: u64,
    /// Name of the profile.
    pub model: String,
    /// One choice; none in the chunk that carries the usage.
    pub choices: Vec<ChunkChoice>,
    /// Absent unless asked for; then null in all chunks but the last.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present_or_null")]
    pub usage: Option<Option<Usage>>,
    /// Identifies weights and numerics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// Extension: window hashes, receipt, transcript and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starling: Option<Value>,
}

/// Keeps an absent field and a null apart.
mod present_or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(
        clippy::option_option,
        reason = "absent, null and a value are three different things on the wire"
    )]
    pub(super) fn serialize<S: Serializer, T: Serialize>(
        v: &Option<Option<T>>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        v.as_ref().and_then(Option::as_ref).serialize(s)
    }

    #[allow(
        clippy::option_option,
        reason = "absent, null and a value are three different things on the wire"
    )]
    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        d: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::<T>::deserialize(d).map(Some)
    }
}

/// A model as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Name of the profile.
    pub id: String,
    /// `model`
    pub object: String,
    /// Unix time in seconds.
    pub created: u64,
    /// Who offers it.
    pub owned_by: String,
}

impl Model {
    /// A model of the network.
    pub fn new(id: impl Into<String>, created: u64) -> Self {
        Self { id: id.into(), object: "model".into(), created, owned_by: "starling".into() }
    }
}

/// Body of `GET /v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// `list`
    pub object: String,
    /// The models.
    pub data: Vec<Model>,
}

impl ModelList {
    /// A list.
    pub fn new(data: Vec<Model>) -> Self {
        Self { object: "list".into(), data }
    }
}
