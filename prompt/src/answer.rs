//! Tokens to chunks and to the final body.

use crate::{
    openai::{
        AssistantMessage, ChatCompletion, ChatCompletionChunk, Choice, ChoiceLogprobs, ChunkChoice, Delta,
        FinishReason, FunctionCall, PromptTokensDetails, TokenLogprob, ToolCall, TopLogprob, Usage,
    },
    tool_calls::{Call, Pieces, ToolReader},
    Tokenizer, ToolFormat,
};
use serde_json::Value;
use starling_primitives::{
    hashing::hash_of,
    transcript::{TokenRecord, Q_UNIT},
};
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
    /// How calls of tools are written in the text ([`crate::Planned::tools`]).
    pub tools: Option<ToolFormat>,
}

/// An answer that grows token by token. For a streamed one send what [`Answer::start`], [`Answer::token`] and
/// [`Answer::finish_stream`] return; for a plain one feed [`Answer::token`] and take [`Answer::into_completion`].
#[derive(Debug)]
pub struct Answer {
    meta: AnswerMeta,
    tokenizer: Arc<Tokenizer>,
    /// Place among the answers to one request.
    index: u32,
    text: String,
    content: String,
    reader: Option<ToolReader>,
    calls: Vec<ToolCall>,
    logprobs: Vec<TokenLogprob>,
    completion_tokens: u32,
    cached_tokens: Option<u32>,
}

impl Answer {
    /// Before the first token.
    pub fn new(meta: AnswerMeta, tokenizer: Arc<Tokenizer>) -> Self {
        Self {
            reader: meta.tools.map(ToolReader::new),
            meta,
            tokenizer,
            index: 0,
            text: String::new(),
            content: String::new(),
            calls: Vec::new(),
            logprobs: Vec::new(),
            completion_tokens: 0,
            cached_tokens: None,
        }
    }

    /// The same as one of several answers to one request.
    pub fn at(mut self, index: u32) -> Self {
        self.index = index;
        self
    }

    /// Tokens of the prompt that were known from earlier requests, for the usage.
    pub fn set_cached_tokens(&mut self, tokens: u32) {
        self.cached_tokens = Some(tokens);
    }

    /// The chunk that opens a stream.
    pub fn start(&self) -> ChatCompletionChunk {
        let delta =
            Delta { role: Some("assistant".into()), content: Some(String::new()), tool_calls: vec![] };
        self.chunk(delta, None)
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
        let (content, tool_calls) = self.grow(text);
        let logprob = match (self.meta.logprobs, record) {
            (Some(top), Some(record)) if !self.tokenizer.is_eos(token) => {
                Some(self.logprob(token, record, usize::from(top)))
            }
            _ => None,
        };
        self.logprobs.extend(logprob.clone());
        if content.is_empty() && tool_calls.is_empty() && logprob.is_none() && starling.is_none() {
            return None;
        }
        let content = (!content.is_empty() || tool_calls.is_empty()).then_some(content);
        let mut chunk = self.chunk(Delta { role: None, content, tool_calls }, None);
        if let Some(choice) = chunk.choices.first_mut() {
            choice.logprobs =
                logprob.map(|entry| ChoiceLogprobs { content: Some(vec![entry]), refusal: None });
        }
        chunk.starling = starling;
        Some(chunk)
    }

    /// Takes text; returns what of it is content, and the calls that it completed.
    fn grow(&mut self, text: &str) -> (String, Vec<ToolCall>) {
        self.text.push_str(text);
        let pieces = match &mut self.reader {
            Some(reader) => reader.push(text),
            None => Pieces { content: text.into(), calls: Vec::new() },
        };
        self.take(pieces)
    }

    fn take(&mut self, pieces: Pieces) -> (String, Vec<ToolCall>) {
        self.content.push_str(&pieces.content);
        let first = self.calls.len();
        for Call { name, arguments } in pieces.calls {
            let index = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
            let id = call_id(&self.meta.id, self.index, index);
            let function = FunctionCall { name, arguments };
            self.calls.push(ToolCall { index: Some(index), id, kind: "function".into(), function });
        }
        (pieces.content, self.calls.get(first..).unwrap_or_default().to_vec())
    }

    /// Takes the rest of the text; returns what of it is content, the calls that it completed, and why the answer ended.
    fn end(&mut self, rest: &str, reason: FinishReason) -> (String, Vec<ToolCall>, FinishReason) {
        let (mut content, mut calls) = self.grow(rest);
        if let Some(pieces) = self.reader.as_mut().map(ToolReader::finish) {
            let (more, last) = self.take(pieces);
            content.push_str(&more);
            calls.extend(last);
        }
        let called = reason == FinishReason::Stop && !self.calls.is_empty();
        (content, calls, if called { FinishReason::ToolCalls } else { reason })
    }

    /// The chunks that close a stream: `rest` is text that was still held back. With `include_usage` the usage comes in
    /// one more chunk. `starling` travels in the last one.
    pub fn finish_stream(
        &mut self,
        rest: &str,
        reason: FinishReason,
        starling: Option<Value>,
    ) -> Vec<ChatCompletionChunk> {
        let mut chunks = self.finish_choice(rest, reason);
        if self.meta.include_usage {
            chunks.push(self.usage_chunk(self.usage()));
        }
        if let Some(last) = chunks.last_mut() {
            last.starling = starling;
        }
        chunks
    }

    /// The chunks that close this answer, where others to the same request may go on.
    pub fn finish_choice(&mut self, rest: &str, reason: FinishReason) -> Vec<ChatCompletionChunk> {
        let (content, tool_calls, reason) = self.end(rest, reason);
        let content = (!content.is_empty()).then_some(content);
        vec![self.chunk(Delta { role: None, content, tool_calls }, Some(reason))]
    }

    /// The chunk with the usage.
    pub fn usage_chunk(&self, usage: Usage) -> ChatCompletionChunk {
        let mut chunk = self.chunk(Delta::default(), None);
        chunk.choices.clear();
        chunk.usage = Some(Some(usage));
        chunk
    }

    /// The body of an answer that is not streamed. `rest` is text that was still held back.
    pub fn into_completion(
        mut self,
        rest: &str,
        reason: FinishReason,
        starling: Option<Value>,
    ) -> ChatCompletion {
        let choice = self.take_choice(rest, reason);
        let usage = self.usage();
        let mut body = self.body(vec![choice], usage);
        body.starling = starling;
        body
    }

    /// This answer as one of several.
    pub fn take_choice(&mut self, rest: &str, reason: FinishReason) -> Choice {
        let (_, _, reason) = self.end(rest, reason);
        let logprobs = std::mem::take(&mut self.logprobs);
        let logprobs = self.meta.logprobs.map(|_| ChoiceLogprobs { content: Some(logprobs), refusal: None });
        let mut tool_calls = std::mem::take(&mut self.calls);
        tool_calls.iter_mut().for_each(|call| call.index = None);
        let content = std::mem::take(&mut self.content);
        let content = (!content.is_empty() || tool_calls.is_empty()).then_some(content);
        let message = AssistantMessage { role: "assistant".into(), content, refusal: None, tool_calls };
        Choice { index: self.index, message, logprobs, finish_reason: Some(reason) }
    }

    /// The body of a plain answer with these choices.
    pub fn body(&self, choices: Vec<Choice>, usage: Usage) -> ChatCompletion {
        ChatCompletion {
            id: self.meta.id.clone(),
            object: "chat.completion".into(),
            created: self.meta.created,
            model: self.meta.model.clone(),
            choices,
            usage: Some(usage),
            system_fingerprint: self.meta.system_fingerprint.clone(),
            starling: None,
        }
    }

    /// Token counts so far.
    pub fn usage(&self) -> Usage {
        let details = self.cached_tokens.map(|cached_tokens| PromptTokensDetails { cached_tokens });
        Usage {
            prompt_tokens_details: details,
            ..Usage::new(self.meta.prompt_tokens, self.completion_tokens)
        }
    }

    /// The text so far, calls of tools included.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn chunk(&self, delta: Delta, finish_reason: Option<FinishReason>) -> ChatCompletionChunk {
        ChatCompletionChunk {
            id: self.meta.id.clone(),
            object: "chat.completion.chunk".into(),
            created: self.meta.created,
            model: self.meta.model.clone(),
            choices: vec![ChunkChoice { index: self.index, delta, logprobs: None, finish_reason }],
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

/// The same call of the same answer has the same id, whoever writes the answer down.
fn call_id(answer: &str, choice: u32, call: u32) -> String {
    let hash = hash_of(b"starling/tool-call", &(answer.as_bytes(), choice, call));
    format!("call_{}", hex::encode(hash.as_bytes().get(..12).unwrap_or_default()))
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
            tools: None,
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
    fn calls_of_tools_are_told_from_text_plain_and_streamed() {
        let text = "Wait. <tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": 2}}\n</tool_call>";
        let new = || {
            let mut answer = answer(None, false).at(3);
            answer.meta.tools = Some(ToolFormat::Tagged);
            answer.reader = Some(ToolReader::new(ToolFormat::Tagged));
            answer
        };
        let mut plain = new();
        for c in text.chars() {
            plain.token(c as u32, &c.to_string(), None, None);
        }
        let plain = plain.take_choice("", FinishReason::Stop);
        assert_eq!((plain.index, plain.finish_reason), (3, Some(FinishReason::ToolCalls)));
        assert_eq!(plain.message.content.as_deref(), Some("Wait. "));
        let [call] = plain.message.tool_calls.as_slice() else { panic!("{:?}", plain.message) };
        assert_eq!(
            (call.function.name.as_str(), call.function.arguments.as_str()),
            ("f", r#"{"b":1,"a":2}"#)
        );
        assert_eq!((call.index, call.kind.as_str()), (None, "function"));

        let mut streamed = new();
        let mut chunks: Vec<_> =
            text.chars().filter_map(|c| streamed.token(c as u32, &c.to_string(), None, None)).collect();
        chunks.extend(streamed.finish_choice("", FinishReason::Stop));
        let content: String = chunks.iter().filter_map(|c| c.choices[0].delta.content.clone()).collect();
        assert_eq!(content, "Wait. ");
        let calls: Vec<_> = chunks.iter().flat_map(|c| c.choices[0].delta.tool_calls.clone()).collect();
        assert_eq!((calls.len(), calls[0].index, &calls[0].id), (1, Some(0), &call.id));
        assert_eq!(calls[0].function, call.function);
        assert_eq!(chunks.last().unwrap().choices[0].finish_reason, Some(FinishReason::ToolCalls));
    }

    #[test]
    fn a_call_cut_off_is_text_and_keeps_its_reason() {
        let mut answer = answer(None, false);
        answer.reader = Some(ToolReader::new(ToolFormat::Tagged));
        answer.token(0, "<tool_call>{\"na", None, None);
        let choice = answer.take_choice("", FinishReason::Length);
        assert_eq!(choice.message.content.as_deref(), Some("<tool_call>{\"na"));
        assert_eq!(choice.finish_reason, Some(FinishReason::Length));
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
