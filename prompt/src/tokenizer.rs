//! Text to tokens, messages to tokens, tokens to text.

use crate::{
    grammar::Compiler,
    openai::{ApiError, ChatMessage, MessageContent},
    template::Template,
    TokenizerBundle,
};
use minijinja::value::Value;
use serde_json::Map;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    panic::{catch_unwind, AssertUnwindSafe},
    path::Path,
    sync::OnceLock,
};
use tokenizers::DecoderWrapper;

/// Why a bundle gave no tokenizer, or a tokenizer no tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// `tokenizer.json` is not a tokenizer.
    #[error("tokenizer.json is not usable: {0}")]
    Tokenizer(String),
    /// The chat template does not compile.
    #[error("the chat template is not usable")]
    Template(#[source] minijinja::Error),
    /// An end-of-sequence id is not in the vocabulary.
    #[error("the end-of-sequence id {0} is not in the vocabulary")]
    UnknownEos(u32),
    /// The tokenizer failed on a text.
    #[error("the tokenizer failed: {0}")]
    Encode(String),
    /// The folder gave no bundle.
    #[error("the model folder is not usable")]
    Bundle(#[from] crate::BundleError),
}

/// A ready tokenizer with its chat template. Cheap to share behind an `Arc`; all methods take `&self`.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Template,
    bundle: TokenizerBundle,
    /// Bytes that a character of a byte-level vocabulary stands for; absent for other vocabularies.
    byte_of: Option<HashMap<char, u8>>,
    vocab_size: u32,
    longest_token_bytes: usize,
    /// Made when the first grammar asks for it: it takes a while with a large vocabulary.
    compiler: OnceLock<Option<Compiler>>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Builds the tokenizer of a bundle. Whatever the bundle holds, this returns an error rather than panic.
    pub fn new(bundle: TokenizerBundle) -> Result<Self, TokenizerError> {
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(bundle.tokenizer_json.as_bytes()))
            .map_err(TokenizerError::Tokenizer)?;
        // A prompt is never cut nor filled up in silence.
        inner.with_padding(None);
        guarded(|| inner.with_truncation(None).map(drop)).map_err(TokenizerError::Tokenizer)?;
        let template = Template::compile(&bundle.chat_template).map_err(TokenizerError::Template)?;
        let vocabulary = inner.get_vocab(true);
        let vocab_size = vocabulary.values().max().map_or(0, |id| id.saturating_add(1));
        let longest_token_bytes = vocabulary.keys().map(String::len).max().unwrap_or(1).max(1);
        if let Some(id) = bundle.eos_token_ids.iter().find(|id| inner.id_to_token(**id).is_none()) {
            return Err(TokenizerError::UnknownEos(*id));
        }
        let byte_of =
            matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))).then(byte_level_alphabet);
        let compiler = OnceLock::new();
        Ok(Self { inner, template, bundle, byte_of, vocab_size, longest_token_bytes, compiler })
    }

    /// The tokenizer of a model folder.
    pub fn load_from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        Self::new(TokenizerBundle::load_from_folder(folder)?)
    }

    /// What it was built from.
    pub fn bundle(&self) -> &TokenizerBundle {
        &self.bundle
    }

    /// Highest token id plus one. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// Whether a token ends a generation.
    pub fn is_eos(&self, token: u32) -> bool {
        self.bundle.eos_token_ids.binary_search(&token).is_ok()
    }

    /// Tokens of a text. Special tokens written out in the text become special tokens; none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = guarded(|| self.inner.encode_fast(text, false)).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens; special tokens are left out, bytes that are not UTF-8 are replaced.
    pub fn decode(&self, tokens: &[u32]) -> String {
        if self.byte_of.is_some() {
            let bytes: Vec<u8> = tokens.iter().filter_map(|t| self.bytes_of(*t)).flatten().collect();
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        guarded(|| self.inner.decode(tokens, true)).unwrap_or_default()
    }

    /// Bytes that a token adds to the text, where that does not depend on its neighbours (byte-level vocabularies).
    /// Special and unknown tokens add none.
    pub(crate) fn bytes_of(&self, token: u32) -> Option<Vec<u8>> {
        let byte_of = self.byte_of.as_ref()?;
        let text = self.inner.id_to_token(token)?;
        if self.is_special(&text) {
            return None;
        }
        let mapped: Option<Vec<u8>> = text.chars().map(|c| byte_of.get(&c).copied()).collect();
        Some(mapped.unwrap_or_else(|| text.into_bytes()))
    }

    pub(crate) fn is_byte_level(&self) -> bool {
        self.byte_of.is_some()
    }

    /// Whether a token is part of the text at all: special and unknown tokens are not.
    pub(crate) fn adds_text(&self, token: u32) -> bool {
        self.inner.id_to_token(token).is_some_and(|text| !self.is_special(&text))
    }

    fn is_special(&self, token: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(token)
    }

    /// What compiles grammars for this vocabulary; `None` when the vocabulary cannot be used for it.
    pub(crate) fn compiler(&self) -> Option<&Compiler> {
        let bytes = |token| match self.token_text(token) {
            Some((_, bytes)) if self.adds_text(token) => bytes,
            _ => Vec::new(),
        };
        let make = || Compiler::new((0..self.vocab_size).map(bytes).collect()).ok();
        self.compiler.get_or_init(make).as_ref()
    }

    /// A token for display, with the bytes it stands for; special tokens are spelled out. `None`: no such token.
    pub fn token_text(&self, token: u32) -> Option<(String, Vec<u8>)> {
        let raw = self.inner.id_to_token(token)?;
        let bytes = if self.is_special(&raw) {
            raw.into_bytes()
        } else {
            match self.bytes_of(token) {
                Some(bytes) => bytes,
                None => sentencepiece_bytes(&raw),
            }
        };
        Some((String::from_utf8_lossy(&bytes).into_owned(), bytes))
    }

    /// The prompt of a conversation as text: the chat template, ready for the assistant's answer.
    pub fn render_text(
        &self,
        messages: &[ChatMessage],
        tools: &[serde_json::Value],
        template_variables: Option<&Map<String, serde_json::Value>>,
    ) -> Result<String, ApiError> {
        let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, value) in template_variables.into_iter().flatten() {
            variables.insert(name, crate::template::from_json(value));
        }
        let messages = messages
            .iter()
            .enumerate()
            .map(|(i, m)| template_message(i, m))
            .collect::<Result<Vec<_>, _>>()?;
        variables.insert("messages", Value::from(messages));
        variables.insert("add_generation_prompt", Value::from(true));
        if !tools.is_empty() {
            let tools: Vec<Value> = tools.iter().map(crate::template::from_json).collect();
            variables.insert("tools", Value::from(tools));
        }
        let tokens = [
            ("bos_token", &self.bundle.bos_token),
            ("eos_token", &self.bundle.eos_token),
            ("pad_token", &self.bundle.pad_token),
            ("unk_token", &self.bundle.unk_token),
        ];
        for (name, token) in tokens {
            if let Some(token) = token {
                variables.insert(name, Value::from(token.as_str()));
            }
        }
        self.template.render(Value::from_serialize(variables)).map_err(|error| {
            let detail = error.detail().unwrap_or("it failed");
            ApiError::invalid_value("messages", format!("The chat template refused the messages: {detail}."))
        })
    }

    /// The prompt of a conversation as tokens.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, ApiError> {
        let text = self.render_text(messages, &[], None)?;
        self.encode(&text).map_err(|_| ApiError::internal("The prompt could not be tokenized."))
    }

    /// Whether a text has more than `tokens` tokens by its length alone, so that it need not be tokenised to know.
    /// A normaliser may shrink text (composing accents, folding width) by no more than a factor of four.
    pub(crate) fn surely_longer_than(&self, text: &str, tokens: u32) -> bool {
        let most = self.longest_token_bytes.saturating_mul(4).saturating_mul(tokens as usize);
        text.len() > most
    }
}

/// A message as templates expect it: role, one string, and what belongs to calls of tools.
fn template_message(index: usize, message: &ChatMessage) -> Result<Value, ApiError> {
    let param = |field: &str| format!("messages[{index}].{field}");
    let role = match message.role.as_str() {
        // Templates know `system`; OpenAI renamed it.
        "developer" => "system",
        role @ ("system" | "user" | "assistant" | "tool") => role,
        "function" => {
            let message = "Messages of role 'function' are not supported; use 'tool'.";
            return Err(ApiError::unsupported(&param("role"), message));
        }
        role => {
            return Err(ApiError::invalid_value(
                &param("role"),
                format!(
                    "Invalid value: '{role}'. Supported values are: 'system', 'developer', 'user', 'assistant' and \
                     'tool'."
                ),
            ))
        }
    };
    let present = |field: &str| {
        message.extra.get(field).filter(|v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()))
    };
    for field in ["function_call", "audio"] {
        if present(field).is_some() {
            return Err(ApiError::unsupported(&param(field), format!("'{field}' is not supported.")));
        }
    }
    let calls = match present("tool_calls") {
        Some(calls) if role == "assistant" => Some(template_calls(calls, &param("tool_calls"))?),
        Some(_) => {
            let message = "Only messages of role 'assistant' have calls.";
            return Err(ApiError::invalid_value(&param("tool_calls"), message));
        }
        None => None,
    };
    let content = match &message.content {
        // Templates join it to other text.
        None if calls.is_some() => String::new(),
        _ => text_of(index, message)?,
    };
    let mut out: Vec<(&str, Value)> = vec![("role", role.into()), ("content", content.into())];
    if let Some(name) = &message.name {
        out.push(("name", name.as_str().into()));
    }
    if let Some(id) = message.extra.get("tool_call_id").and_then(|id| id.as_str()) {
        out.push(("tool_call_id", id.into()));
    }
    if let Some(calls) = calls {
        out.push(("tool_calls", calls));
    }
    Ok(out.into_iter().collect())
}

/// Calls of an earlier answer. OpenAI's clients send the arguments as a text; templates expect what it says.
fn template_calls(calls: &serde_json::Value, param: &str) -> Result<Value, ApiError> {
    let calls = calls
        .as_array()
        .ok_or_else(|| ApiError::invalid_type(param, format!("'{param}' must be a list.")))?;
    let call = |(i, call): (usize, &serde_json::Value)| {
        let at = |field: &str| format!("{param}[{i}].{field}");
        let text = |pointer: &str| call.pointer(pointer).and_then(|v| v.as_str());
        let name = text("/function/name").ok_or_else(|| ApiError::missing(&at("function.name")))?;
        let arguments =
            text("/function/arguments").ok_or_else(|| ApiError::missing(&at("function.arguments")))?;
        let arguments: serde_json::Value = serde_json::from_str(arguments).map_err(|error| {
            ApiError::invalid_value(
                &at("function.arguments"),
                format!("The arguments are not JSON: {error}."),
            )
        })?;
        let function: Value =
            [("name", Value::from(name)), ("arguments", crate::template::from_json(&arguments))]
                .into_iter()
                .collect();
        let id = text("/id").unwrap_or_default();
        let whole = [("id", id.into()), ("type", "function".into()), ("function", function)];
        Ok(whole.into_iter().collect::<Value>())
    };
    let calls: Vec<Value> = calls.iter().enumerate().map(call).collect::<Result<_, ApiError>>()?;
    Ok(Value::from(calls))
}

/// The text of a message. Several parts are joined by line breaks.
fn text_of(index: usize, message: &ChatMessage) -> Result<String, ApiError> {
    let parts = match &message.content {
        Some(MessageContent::Text(text)) => return Ok(text.clone()),
        Some(MessageContent::Parts(parts)) => parts,
        None => return Err(ApiError::missing(&format!("messages[{index}].content"))),
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (i, part) in parts.iter().enumerate() {
        let param = || format!("messages[{index}].content[{i}]");
        let text = match part.kind.as_str() {
            "text" => part.text.as_deref(),
            "refusal" if message.role == "assistant" => part.extra.get("refusal").and_then(|v| v.as_str()),
            kind => {
                return Err(ApiError::unsupported(
                    &format!("{}.type", param()),
                    format!("Content of type '{kind}' is not supported; only 'text' is."),
                ))
            }
        };
        texts.push(text.ok_or_else(|| ApiError::missing(&format!("{}.text", param())))?);
    }
    Ok(texts.join("\n"))
}

/// Runs foreign code that may panic on input that nobody foresaw.
pub(crate) fn guarded<T, E: fmt::Display>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("it panicked".into()),
    }
}

/// GPT-2's map from bytes to printable characters, inverted.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 256;
    (0..=255u8)
        .filter_map(|b| {
            let code = if printable(b) {
                u32::from(b)
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).map(|c| (c, b))
        })
        .collect()
}

/// Bytes of a token in vocabularies that mark spaces and write bytes as `<0x41>`.
fn sentencepiece_bytes(token: &str) -> Vec<u8> {
    let hex = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')).filter(|t| t.len() == 2);
    match hex.and_then(|t| u8::from_str_radix(t, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace('\u{2581}', " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{openai::ContentPart, test_support};
    use proptest::prelude::*;

    #[test]
    fn messages_are_rendered_through_the_template() {
        let tokenizer = test_support::tokenizer();
        let messages = [ChatMessage::new("developer", "Be brief."), ChatMessage::new("user", "Hi é")];
        let text = tokenizer.render_text(&messages, &[], None).unwrap();
        let expected =
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi é<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(text, expected);
        let tokens = tokenizer.render(&messages).unwrap();
        assert_eq!(tokens.iter().filter(|t| **t == test_support::IM_START).count(), 3);
        assert_eq!(tokenizer.decode(&tokens), expected.replace("<|im_start|>", "").replace("<|im_end|>", ""));
    }

    #[test]
    fn parts_are_joined_and_other_media_refused() {
        let tokenizer = test_support::tokenizer();
        let part = |kind: &str, text: &str| ContentPart {
            kind: kind.into(),
            text: Some(text.into()),
            extra: Map::new(),
        };
        let message = |parts| ChatMessage {
            role: "user".into(),
            content: Some(MessageContent::Parts(parts)),
            ..ChatMessage::default()
        };
        let text =
            tokenizer.render_text(&[message(vec![part("text", "a"), part("text", "b")])], &[], None).unwrap();
        assert!(text.contains("user\na\nb<|im_end|>"));
        let error = tokenizer.render_text(&[message(vec![part("image_url", "x")])], &[], None).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some("messages[0].content[0].type")));
    }

    #[test]
    fn roles_and_tool_calls_are_checked() {
        let tokenizer = test_support::tokenizer();
        let param = |message| tokenizer.render(&[message]).unwrap_err().param.unwrap();
        assert_eq!(param(ChatMessage::new("function", "x")), "messages[0].role");
        assert!(tokenizer.render(&[ChatMessage::new("tool", "x")]).is_ok());
        assert_eq!(param(ChatMessage::new("wizard", "x")), "messages[0].role");
        assert_eq!(
            param(ChatMessage { role: "user".into(), ..ChatMessage::default() }),
            "messages[0].content"
        );
        let mut calls = ChatMessage::new("assistant", "x");
        calls.extra.insert("tool_calls".into(), serde_json::json!([{"id": "1"}]));
        assert_eq!(param(calls.clone()), "messages[0].tool_calls[0].function.name");
        assert_eq!(param(ChatMessage { role: "user".into(), ..calls.clone() }), "messages[0].tool_calls");
        calls.extra.insert("tool_calls".into(), serde_json::json!([]));
        assert!(tokenizer.render(&[calls]).is_ok());
    }

    #[test]
    fn template_variables_cannot_replace_the_messages() {
        let tokenizer = test_support::tokenizer();
        let variables = serde_json::json!({"messages": [], "add_generation_prompt": false});
        let text =
            tokenizer.render_text(&[ChatMessage::new("user", "x")], &[], variables.as_object()).unwrap();
        assert!(text.contains("user\nx") && text.ends_with("assistant\n"));
    }

    #[test]
    fn tokens_have_texts_and_bytes() {
        let tokenizer = test_support::tokenizer();
        let e_acute = tokenizer.encode("é").unwrap();
        assert_eq!(e_acute.len(), 2);
        assert_eq!(tokenizer.token_text(e_acute[0]), Some(("\u{FFFD}".into(), vec![0xC3])));
        assert_eq!(tokenizer.token_text(test_support::IM_END).unwrap().0, "<|im_end|>");
        assert_eq!(tokenizer.token_text(9_999), None);
        assert_eq!(sentencepiece_bytes("<0xC3>"), [0xC3]);
        assert_eq!(sentencepiece_bytes("\u{2581}the"), b" the");
    }

    #[test]
    fn padding_and_truncation_of_the_file_are_ignored() {
        let mut bundle = test_support::bundle();
        let mut json: serde_json::Value = serde_json::from_str(&bundle.tokenizer_json).unwrap();
        json["padding"] = serde_json::json!({
            "strategy": {"Fixed": 4_000_000_000u32}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "!"
        });
        json["truncation"] = serde_json::json!({
            "max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"
        });
        bundle.tokenizer_json = json.to_string();
        assert_eq!(Tokenizer::new(bundle).unwrap().encode("abc").unwrap().len(), 3);
    }

    #[test]
    fn hostile_bundles_are_errors() {
        let good = test_support::bundle();
        let with =
            |tokenizer_json: &str| TokenizerBundle { tokenizer_json: tokenizer_json.into(), ..good.clone() };
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        for text in ["", "{}", "null", "[1]", "\u{0}", &deep] {
            assert!(matches!(Tokenizer::new(with(text)), Err(TokenizerError::Tokenizer(_))));
        }
        let mut json: serde_json::Value = serde_json::from_str(&good.tokenizer_json).unwrap();
        json["model"]["merges"] = serde_json::json!([["a", "nonexistent"]]);
        assert!(matches!(Tokenizer::new(with(&json.to_string())), Err(TokenizerError::Tokenizer(_))));
        let template = TokenizerBundle { chat_template: "{% if %}".into(), ..good.clone() };
        assert!(matches!(Tokenizer::new(template), Err(TokenizerError::Template(_))));
        let eos = TokenizerBundle { eos_token_ids: vec![1_000_000], ..good.clone() };
        assert!(matches!(Tokenizer::new(eos), Err(TokenizerError::UnknownEos(1_000_000))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_survives_encoding(text in any::<String>()) {
            let tokenizer = test_support::tokenizer();
            let tokens = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&tokens), text);
        }

        #[test]
        fn decode_agrees_with_the_library(tokens in proptest::collection::vec(0u32..300, 0..40)) {
            let tokenizer = test_support::tokenizer();
            prop_assert_eq!(tokenizer.decode(&tokens), tokenizer.inner.decode(&tokens, true).unwrap());
        }

        /// Cutting, flipping and replacing parts of a good file gives a tokenizer or an error, never a panic.
        #[test]
        fn mutilated_files_do_not_panic(at in any::<prop::sample::Index>(), length in 0usize..60, with in "[0-9\"\\[\\]{},a-z-]{0,8}") {
            let mut bundle = test_support::bundle();
            let mut bytes = bundle.tokenizer_json.into_bytes();
            let start = at.index(bytes.len());
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, with.into_bytes());
            bundle.tokenizer_json = String::from_utf8_lossy(&bytes).into_owned();
            if let Ok(tokenizer) = Tokenizer::new(bundle) {
                let _ = tokenizer.encode("some text é <|im_end|>");
                let _ = tokenizer.decode(&[0, 1, 2, 300]);
            }
        }
    }
}
