//! The older API: a text to be continued.

use super::{
    response::{ChatCompletion, ChatCompletionChunk, ChoiceLogprobs, FinishReason, Usage},
    ApiError, ChatCompletionRequest,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Completion tokens when a request names no number, as in the OpenAI API.
const DEFAULT_MAX_TOKENS: u64 = 16;
/// What only chats have.
const CHAT_ONLY: [&str; 8] = [
    "audio",
    "functions",
    "messages",
    "modalities",
    "tool_choice",
    "tools",
    "chat_template_kwargs",
    "max_completion_tokens",
];

/// Body of `POST /v1/completions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionRequest {
    /// Name of the profile.
    pub model: String,
    /// The text.
    pub prompt: CompletionPrompt,
    /// Alternatives per token, 0 to the profile's K; here a number switches log-probabilities on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u64>,
    /// Everything else means what it means in a chat.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What is to be continued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CompletionPrompt {
    /// A text.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
    /// Several prompts: refused.
    Several(Vec<Value>),
}

impl CompletionRequest {
    /// The parameters that a chat has too.
    pub(crate) fn common(&self) -> Result<ChatCompletionRequest, ApiError> {
        if let Some(name) = CHAT_ONLY.iter().find(|name| self.rest.get(**name).is_some_and(|v| !v.is_null()))
        {
            let message = format!("'{name}' is for /v1/chat/completions.");
            return Err(ApiError::unsupported(name, message));
        }
        let mut fields = self.rest.clone();
        fields.insert("model".into(), self.model.as_str().into());
        fields.insert("messages".into(), Value::Array(Vec::new()));
        if let Some(top) = self.logprobs {
            fields.insert("logprobs".into(), true.into());
            fields.insert("top_logprobs".into(), top.into());
        }
        let mut common: ChatCompletionRequest = serde_path_to_error::deserialize(Value::Object(fields))
            .map_err(|error| {
                let path = error.path().to_string();
                ApiError::invalid_type(&path, format!("Invalid type for '{path}': {}.", error.inner()))
            })?;
        common.max_tokens.get_or_insert(DEFAULT_MAX_TOKENS);
        Ok(common)
    }
}

/// Log-probabilities as the older API lists them: one entry per token in each list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TextLogprobs {
    /// Texts of the tokens.
    pub tokens: Vec<String>,
    /// Their log-probabilities.
    pub token_logprobs: Vec<f64>,
    /// The most likely tokens at each place.
    pub top_logprobs: Vec<BTreeMap<String, f64>>,
    /// Where each token begins in the text of the answer, in characters.
    pub text_offset: Vec<u64>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextChoice {
    /// The text, or the new part of it.
    pub text: String,
    /// Its place among the answers.
    pub index: u32,
    /// When asked for.
    #[serde(default)]
    pub logprobs: Option<TextLogprobs>,
    /// Why it ended; null in a stream until it did.
    #[serde(default)]
    pub finish_reason: Option<FinishReason>,
}

/// Body of an answer, and event of a streamed one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextCompletion {
    /// `cmpl-...`
    pub id: String,
    /// `text_completion`
    pub object: String,
    /// Unix time in seconds.
    pub created: u64,
    /// Name of the profile.
    pub model: String,
    /// The answers.
    pub choices: Vec<TextChoice>,
    /// Token counts; in a stream only in its last event, and only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Identifies weights and numerics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// Extension: receipt, transcript and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starling: Option<Value>,
}

/// Turns a chat's answer into the older form. Keeps where the tokens of each answer begin.
#[derive(Clone, Debug, Default)]
pub struct TextForm {
    offsets: BTreeMap<u32, u64>,
}

impl TextForm {
    /// A plain answer.
    pub fn body(&mut self, answer: ChatCompletion) -> TextCompletion {
        let choices = answer.choices.into_iter().map(|choice| TextChoice {
            text: choice.message.content.unwrap_or_default(),
            index: choice.index,
            logprobs: choice.logprobs.map(|logprobs| self.logprobs(choice.index, logprobs)),
            finish_reason: choice.finish_reason,
        });
        TextCompletion {
            choices: choices.collect(),
            id: answer.id,
            object: "text_completion".into(),
            created: answer.created,
            model: answer.model,
            usage: answer.usage,
            system_fingerprint: answer.system_fingerprint,
            starling: answer.starling,
        }
    }

    /// An event of a streamed answer.
    pub fn chunk(&mut self, chunk: ChatCompletionChunk) -> TextCompletion {
        let choices = chunk.choices.into_iter().map(|choice| TextChoice {
            text: choice.delta.content.unwrap_or_default(),
            index: choice.index,
            logprobs: choice.logprobs.map(|logprobs| self.logprobs(choice.index, logprobs)),
            finish_reason: choice.finish_reason,
        });
        TextCompletion {
            choices: choices.collect(),
            id: chunk.id,
            object: "text_completion".into(),
            created: chunk.created,
            model: chunk.model,
            usage: chunk.usage.flatten(),
            system_fingerprint: chunk.system_fingerprint,
            starling: chunk.starling,
        }
    }

    fn logprobs(&mut self, choice: u32, logprobs: ChoiceLogprobs) -> TextLogprobs {
        let offset = self.offsets.entry(choice).or_default();
        let mut out = TextLogprobs::default();
        for entry in logprobs.content.unwrap_or_default() {
            out.text_offset.push(*offset);
            *offset += entry.token.chars().count() as u64;
            out.tokens.push(entry.token);
            out.token_logprobs.push(entry.logprob);
            out.top_logprobs
                .push(entry.top_logprobs.into_iter().map(|top| (top.token, top.logprob)).collect());
        }
        out
    }
}
