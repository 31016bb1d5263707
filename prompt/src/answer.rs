//! Tokens to chunks and to the final body.

use crate::{
    openai::{
        AssistantMessage, ChatCompletion, ChatCompletionChunk, Choice, ChoiceLogprobs, ChunkChoice, Delta,
        FinishReason, TokenLogprob, TopLogprob, Usage,
    },
    Tokenizer,
};
use serde_json::Value;
use starling_primitives::transcript::{TokenRecord, Q_UNIT};
use std::sync::Arc;

/// What is the same in every chunk of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerMeta {
    /// `chatcmpl-...`
    pub id: String,
    /// Unix time in seconds.
    pub created: u64,
    /// Name of the profile.
    pub model: String,
    /// Identifies weights and numerics.
    pub system_fingerprint: Option<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Log-probabilities wanted, with so many alternatives per token ([`crate::Planned::logprobs`]).
    pub logprobs: Option<u8>,
    /// Whether the event stream ends with the usage ([`crate::Planned::include_usage`]).
    pub include_usage: bool,
}

/// An answer that grows token by token. For a streamed one send what [`Answer::start`], [`Answer::token`] and
/// [`Answer::finish_stream`] return; for a plain one feed [`Answer::token`] and take [`Answer::into_completion`].
#[derive(Debug)]
pub struct Answer {
    meta: AnswerMeta,
    tokenizer: Arc<Tokenizer>,
    text: String,
    logprobs: Vec<TokenLogprob>,
    completion_tokens: u32,
}

impl Answer {
    /// Before the first token.
    pub fn new(meta: AnswerMeta, tokenizer: Arc<Tokenizer>) -> Self {
        Self { meta, tokenizer, text: String::new(), logprobs: Vec::new(), completion_tokens: 0 }
    }

    /// The chunk that opens a stream.
    pub fn start(&self) -> ChatCompletionChunk {
        self.chunk(Delta { role: Some("assistant".into()), content: Some(String::new()) }, None)
    }

    /// Takes a generated token (end-of-sequence tokens too) and the text that it released, which may be empty while a
    /// character or a stop string is incomplete. Returns a chunk if there is something to send: text,
    /// log-probabilities, or `starling` (for instance the running window hash).
    pub fn token(
        &mut self,
        token: u32,
        text: &str,
        record: Option<&TokenRecord>,
        starling: Option<Value>,
    ) -> Option<ChatCompletionChunk> {
        self.completion_tokens = self.completion_tokens.saturating_add(1);
        self.text.push_str(text);
        let logprob = match (self.meta.logprobs, record) {
            (Some(top), Some(record)) if !self.tokenizer.is_eos(token) => {
                Some(self.logprob(token, record, usize::from(top)))
            }
            _ => None,
        };
        self.logprobs.extend(logprob.clone());
        if text.is_empty() && logprob.is_none() && starling.is_none() {
            return None;
        }
        let mut chunk = self.chunk(Delta { role: None, content: Some(text.into()) }, None);
        if let Some(choice) = chunk.choices.first_mut() {
            choice.logprobs =
                logprob.map(|entry| ChoiceLogprobs { content: Some(vec![entry]), refusal: None });
        }
        chunk.starling = starling;
        Some(chunk)
    }

    /// The chunks that close a stream: `rest` is text that was still held back. With `include_usage` the usage comes in
    /// one more chunk. `starling` travels in the last one.
    pub fn finish_stream(
        &mut self,
        rest: &str,
        reason: FinishReason,
        starling: Option<Value>,
    ) -> Vec<ChatCompletionChunk> {
        self.text.push_str(rest);
        let content = (!rest.is_empty()).then(|| rest.to_owned());
        let mut chunks = vec![self.chunk(Delta { role: None, content }, Some(reason))];
        if self.meta.include_usage {
            let mut chunk = self.chunk(Delta::default(), None);
            chunk.choices.clear();
            chunk.usage = Some(Some(self.usage()));
            chunks.push(chunk);
        }
        if let Some(last) = chunks.last_mut() {
            last.starling = starling;
        }
        chunks
    }

    /// The body of an answer that is not streamed. `rest` is text that was still held back.
    pub fn into_completion(
        mut self,
        rest: &str,
        reason: FinishReason,
        starling: Option<Value>,
    ) -> ChatCompletion {
        self.text.push_str(rest);
        let usage = self.usage();
        let logprobs = std::mem::take(&mut self.logprobs);
        let logprobs = self.meta.logprobs.map(|_| ChoiceLogprobs { content: Some(logprobs), refusal: None });
        let message = AssistantMessage { role: "assistant".into(), content: Some(self.text), refusal: None };
        ChatCompletion {
            id: self.meta.id,
            object: "chat.completion".into(),
            created: self.meta.created,
            model: self.meta.model,
            choices: vec![Choice { index: 0, message, logprobs, finish_reason: Some(reason) }],
            usage: Some(usage),
            system_fingerprint: self.meta.system_fingerprint,
            starling,
        }
    }

    /// Token counts so far.
    pub fn usage(&self) -> Usage {
        Usage::new(self.meta.prompt_tokens, self.completion_tokens)
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn chunk(&self, delta: Delta, finish_reason: Option<FinishReason>) -> ChatCompletionChunk {
        ChatCompletionChunk {
            id: self.meta.id.clone(),
            object: "chat.completion.chunk".into(),
            created: self.meta.created,
            model: self.meta.model.clone(),
            choices: vec![ChunkChoice { index: 0, delta, logprobs: None, finish_reason }],
            usage: self.meta.include_usage.then_some(None),
            system_fingerprint: self.meta.system_fingerprint.clone(),
            starling: None,
        }
    }

    /// Candidates are sorted, the best first.
    fn logprob(&self, token: u32, record: &TokenRecord, top: usize) -> TokenLogprob {
        let entry = |token: u32, q: u16| {
            let (token, bytes) = self.tokenizer.token_text(token).unwrap_or_default();
            TopLogprob { token, logprob: logprob_of(q), bytes: Some(bytes) }
        };
        // A record that lacks its own token is broken; the least probability that can be written says so.
        let q = record.candidates.iter().find(|c| c.token == token).map_or(u16::MAX, |c| c.q);
        let TopLogprob { token, logprob, bytes } = entry(token, q);
        let top_logprobs = record.candidates.iter().take(top).map(|c| entry(c.token, c.q)).collect();
        TokenLogprob { token, logprob, bytes, top_logprobs }
    }
}

/// `q / 128` nats; never the negative zero that would be written as `-0.0`.
fn logprob_of(q: u16) -> f64 {
    0.0 - f64::from(q) / f64::from(Q_UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support;
    use serde_json::json;
    use starling_primitives::transcript::Candidate;

    fn answer(logprobs: Option<u8>, include_usage: bool) -> Answer {
        let meta = AnswerMeta {
            id: "chatcmpl-1".into(),
            created: 5,
            model: "m".into(),
            system_fingerprint: None,
            prompt_tokens: 4,
            logprobs,
            include_usage,
        };
        Answer::new(meta, test_support::tokenizer())
    }

    fn record() -> TokenRecord {
        let candidate = |c: char, q| Candidate { token: c as u32, q };
        TokenRecord {
            candidates: vec![candidate('a', 64), candidate('b', 128), candidate('c', 256)],
            chosen: 1,
        }
    }

    #[test]
    fn a_stream_reads_as_openai_writes_it() {
        let mut answer = answer(Some(2), true);
        let start = serde_json::to_value(answer.start()).unwrap();
        assert_eq!(
            start,
            json!({
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m", "usage": null,
                "choices": [{
                    "index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null
                }],
            })
        );
        let chunk =
            answer.token('b' as u32, "b", Some(&record()), Some(json!({"window_hash": "0x"}))).unwrap();
        let chunk = serde_json::to_value(chunk).unwrap();
        assert_eq!(chunk["choices"][0]["delta"], json!({"content": "b"}));
        assert_eq!(
            chunk["choices"][0]["logprobs"]["content"],
            json!([{
                "token": "b", "logprob": -1.0, "bytes": [98],
                "top_logprobs": [
                    {"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "b", "logprob": -1.0, "bytes": [98]}
                ]
            }])
        );
        assert_eq!(chunk["starling"], json!({"window_hash": "0x"}));
        let end = answer.finish_stream("", FinishReason::Stop, Some(json!({"request_id": "0x1"})));
        let end: Vec<_> = end.iter().map(|c| serde_json::to_value(c).unwrap()).collect();
        assert_eq!(end[0]["choices"][0]["finish_reason"], "stop");
        assert_eq!(end[0]["usage"], Value::Null);
        assert_eq!(end[1]["choices"], json!([]));
        assert_eq!(end[1]["usage"], json!({"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}));
        assert_eq!(end[1]["starling"], json!({"request_id": "0x1"}));
    }

    #[test]
    fn nothing_to_say_is_no_chunk_and_no_usage_field() {
        let mut answer = answer(None, false);
        assert!(answer.token('b' as u32, "", Some(&record()), None).is_none());
        let chunk = answer.token('b' as u32, "bb", Some(&record()), None).unwrap();
        let json = serde_json::to_value(&chunk).unwrap();
        assert!(json.get("usage").is_none() && json.get("starling").is_none());
        assert_eq!(json["choices"][0]["logprobs"], Value::Null);
        let end = answer.finish_stream("!", FinishReason::Length, None);
        assert_eq!((end.len(), answer.text()), (1, "bb!"));
        assert_eq!(end[0].choices[0].delta.content.as_deref(), Some("!"));
        let back: ChatCompletionChunk = serde_json::from_value(json).unwrap();
        assert_eq!(back, chunk);
    }

    #[test]
    fn a_plain_answer_has_everything() {
        let mut answer = answer(Some(0), false);
        answer.token('b' as u32, "b", Some(&record()), None);
        answer.token(test_support::IM_END, "", Some(&record()), None);
        let body = answer.into_completion("", FinishReason::Stop, None);
        let json = serde_json::to_value(&body).unwrap();
        assert_eq!(
            json,
            json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "m",
                "choices": [{
                    "index": 0, "message": {"role": "assistant", "content": "b", "refusal": null},
                    "logprobs": {
                        "content": [{"token": "b", "logprob": -1.0, "bytes": [98], "top_logprobs": []}], "refusal": null
                    },
                    "finish_reason": "stop",
                }],
                "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
            })
        );
        assert_eq!(serde_json::from_value::<ChatCompletion>(json).unwrap(), body);
    }

    #[test]
    fn usage_that_is_null_stays_apart_from_usage_that_is_absent() {
        let null: ChatCompletionChunk =
            serde_json::from_value(serde_json::to_value(answer(None, true).start()).unwrap()).unwrap();
        let absent: ChatCompletionChunk =
            serde_json::from_value(serde_json::to_value(answer(None, false).start()).unwrap()).unwrap();
        assert_eq!((null.usage, absent.usage), (Some(None), None));
    }

    #[test]
    fn certainty_is_zero_not_minus_zero() {
        assert_eq!(serde_json::to_string(&logprob_of(0)).unwrap(), "0.0");
    }
}
