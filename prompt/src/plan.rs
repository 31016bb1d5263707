//! Request to tokens, parameters and stops.

use crate::{
    constraint,
    openai::{
        ApiError, ChatCompletionRequest, CompletionPrompt, CompletionRequest, PlanError, StopStrings,
        TextForm,
    },
    tools::{self, Tools},
    Tokenizer, ToolFormat,
};
use serde::{de::DeserializeOwned, Deserialize, Serialize};
use serde_json::{Map, Value};
use starling_primitives::{
    constraint::Constraint,
    profile::Profile,
    request::{prompt_hash, RequestHeader, SamplingParams},
    ProfileId,
};

/// Stop strings at most, as in the OpenAI API.
pub const MAX_STOP_STRINGS: usize = 4;
/// Bytes of one stop string at most.
pub const MAX_STOP_BYTES: usize = 1_024;
/// Alternatives per token at most, as in the OpenAI API.
const MAX_TOP_LOGPROBS: u64 = 20;

/// What a profile allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Tokens of prompt and completion together.
    pub max_context: u32,
    /// Candidates kept per token: the profile's K.
    pub top_k: u8,
    /// Entries of the vocabulary; token ids lie below.
    pub vocab_size: u32,
    /// Completion tokens when the request names no number; what is left of the context otherwise.
    pub default_max_tokens: Option<u32>,
    /// Answers that one request may ask for. On the network it is one: each answer is a request of its own there, with a
    /// nonce, a price and a receipt.
    pub choices_max: u8,
}

impl From<&Profile> for Limits {
    fn from(profile: &Profile) -> Self {
        Self {
            max_context: profile.max_context,
            top_k: profile.top_k,
            vocab_size: profile.vocab_size,
            default_max_tokens: None,
            choices_max: 1,
        }
    }
}

/// A request in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Token ids of the prompt.
    pub prompt_tokens: Vec<u32>,
    /// Sampling parameters.
    pub sampling: SamplingParams,
    /// Most tokens to generate, at least 1.
    pub max_tokens: u32,
    /// Strings that end the generation; not part of the answer.
    pub stop: Vec<String>,
    /// Whether the answer is an event stream.
    pub stream: bool,
    /// Whether the event stream ends with the usage.
    pub include_usage: bool,
    /// Log-probabilities wanted, with so many alternatives per token.
    pub logprobs: Option<u8>,
    /// Seed where the node makes its own tape.
    pub seed: Option<i64>,
    /// What the answer keeps to.
    pub constraint: Option<Constraint>,
    /// Answers wanted, at least 1.
    pub choices: u8,
    /// How calls of tools are written in the answer, where the model knows of tools.
    pub tools: Option<ToolFormat>,
}

impl Planned {
    /// The header that this request is bound to.
    pub fn header(&self, profile: ProfileId, nonce: [u8; 32]) -> RequestHeader {
        RequestHeader {
            profile,
            prompt_hash: prompt_hash(&self.prompt_tokens),
            sampling: self.sampling,
            max_tokens: self.max_tokens,
            constraint: self.constraint.as_ref().map(Constraint::hash),
            nonce,
        }
    }

    /// Number of prompt tokens.
    pub fn prompt_len(&self) -> u32 {
        u32::try_from(self.prompt_tokens.len()).unwrap_or(u32::MAX)
    }
}

/// Reads a chat request; an error names the parameter that does not fit.
pub fn parse_request(body: &[u8]) -> Result<ChatCompletionRequest, ApiError> {
    parse(body, "chat completion")
}

/// Reads a request to continue a text; an error names the parameter that does not fit.
pub fn parse_completion(body: &[u8]) -> Result<CompletionRequest, ApiError> {
    parse(body, "completion")
}

/// A request in either of the API's forms.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyRequest {
    /// A conversation.
    Chat(Box<ChatCompletionRequest>),
    /// A text to be continued.
    Completion(Box<CompletionRequest>),
}

impl AnyRequest {
    /// Reads a body of `POST /v1/chat/completions`.
    pub fn chat(body: &[u8]) -> Result<Self, ApiError> {
        parse_request(body).map(|request| Self::Chat(Box::new(request)))
    }

    /// Reads a body of `POST /v1/completions`.
    pub fn completion(body: &[u8]) -> Result<Self, ApiError> {
        parse_completion(body).map(|request| Self::Completion(Box::new(request)))
    }

    /// Name of the profile.
    pub fn model(&self) -> &str {
        match self {
            Self::Chat(request) => &request.model,
            Self::Completion(request) => &request.model,
        }
    }

    /// What it means for a model: [`plan`] or [`plan_completion`].
    pub fn plan(&self, tokenizer: &Tokenizer, limits: &Limits) -> Result<Planned, PlanError> {
        match self {
            Self::Chat(request) => plan(tokenizer, request, limits),
            Self::Completion(request) => plan_completion(tokenizer, request, limits),
        }
    }

    /// Where it is sent to.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Chat(_) => "/v1/chat/completions",
            Self::Completion(_) => "/v1/completions",
        }
    }

    /// What the id of its answer begins with.
    pub fn id_prefix(&self) -> &'static str {
        match self {
            Self::Chat(_) => "chatcmpl-",
            Self::Completion(_) => "cmpl-",
        }
    }

    /// What turns a chat's answer into the form asked for, where that is another one.
    pub fn form(&self) -> Option<TextForm> {
        matches!(self, Self::Completion(_)).then(TextForm::default)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let request = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        let text = inner.to_string();
        if !inner.is_data() {
            return ApiError::invalid_body(format!("The body is not valid JSON: {text}."));
        }
        if let Some(field) = text.strip_prefix("missing field `").and_then(|t| t.split('`').next()) {
            return ApiError::missing(&joined(&path, field));
        }
        if path == "." {
            return ApiError::invalid_body(format!("The body is not a {what} request: {text}."));
        }
        ApiError::invalid_type(&path, format!("Invalid type for '{path}': {text}."))
    })?;
    json.end().map_err(|error| ApiError::invalid_body(format!("The body is not valid JSON: {error}.")))?;
    Ok(request)
}

fn joined(path: &str, field: &str) -> String {
    let parent = path.strip_suffix(field).map_or(path, |p| p.trim_end_matches('.'));
    match parent {
        "" | "." => field.into(),
        parent => format!("{parent}.{field}"),
    }
}

/// What a request means for a model.
///
/// Client, gateway and ML node call this with the same arguments and get the same numbers. Whatever would change the
/// answer but cannot be done is refused by name; nothing is dropped in silence.
pub fn plan(
    tokenizer: &Tokenizer,
    request: &ChatCompletionRequest,
    limits: &Limits,
) -> Result<Planned, PlanError> {
    let tools = tools::read(request, &tokenizer.bundle().chat_template)?;
    let prompt = || {
        if request.messages.is_empty() {
            let message = "Invalid 'messages': empty array. Expected at least one message.";
            let (kind, code) = ("invalid_request_error", Some("empty_array"));
            return Err(ApiError::new(400, kind, code, Some("messages"), message));
        }
        let variables = request.chat_template_kwargs.as_ref();
        let offered = tools.as_ref().map_or(&[][..], |tools| &tools.written);
        tokens_of(
            tokenizer,
            &tokenizer.render_text(&request.messages, offered, variables)?,
            "messages",
            limits,
        )
    };
    plan_with(tokenizer, request, limits, tools.as_ref(), prompt)
}

/// What a request to continue a text means for a model; as [`plan`].
pub fn plan_completion(
    tokenizer: &Tokenizer,
    request: &CompletionRequest,
    limits: &Limits,
) -> Result<Planned, PlanError> {
    let common = request.common()?;
    let prompt = || match &request.prompt {
        CompletionPrompt::Text(text) => tokens_of(tokenizer, text, "prompt", limits),
        CompletionPrompt::Tokens(tokens) => match tokens.iter().find(|t| **t >= limits.vocab_size) {
            Some(token) => {
                Err(ApiError::invalid_value("prompt", format!("{token} is not a token of the model.")))
            }
            None => Ok(tokens.clone()),
        },
        CompletionPrompt::Several(_) => {
            Err(ApiError::unsupported("prompt", "Only one prompt per request is supported."))
        }
    };
    plan_with(tokenizer, &common, limits, None, prompt)
}

fn plan_with(
    tokenizer: &Tokenizer,
    request: &ChatCompletionRequest,
    limits: &Limits,
    tools: Option<&Tools>,
    prompt: impl FnOnce() -> Result<Vec<u32>, ApiError>,
) -> Result<Planned, PlanError> {
    refuse_unsupported(request)?;
    refuse_unsupported_extras(&request.extra)?;
    let stream = request.stream.unwrap_or(false);
    if request.stream_options.is_some() && !stream {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(ApiError::invalid_value("stream_options", message));
    }
    let choices = choices(request, limits)?;
    let sampling = sampling(tokenizer, request, limits)?;
    let logprobs = logprobs(request, limits)?;
    let stop = stop_strings(request)?;
    let asked = completion_limit(request)?;
    let forced = tools.and_then(|tools| tools.grammar.clone());
    let constraint = constraint::read(request, forced, tools.is_some(), limits.vocab_size)?;
    let prompt_tokens = prompt()?;
    if prompt_tokens.is_empty() {
        return Err(ApiError::invalid_value("prompt", "The prompt has no tokens."));
    }
    let max_tokens = fit(prompt_tokens.len(), asked, limits)?;
    Ok(Planned {
        prompt_tokens,
        sampling,
        max_tokens,
        stop,
        stream,
        include_usage: request.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false),
        logprobs,
        seed: request.seed,
        constraint,
        choices,
        tools: tools.map(|tools| tools.format),
    })
}

fn choices(request: &ChatCompletionRequest, limits: &Limits) -> Result<u8, ApiError> {
    let wanted = request.n.unwrap_or(1);
    match u8::try_from(wanted).ok().filter(|n| (1..=limits.choices_max).contains(n)) {
        Some(n) => Ok(n),
        None if limits.choices_max <= 1 => {
            let message = "Only one choice per request is supported ('n' must be 1): on the network each answer is \
                           a request of its own, with its own price and receipt. Send the request several times.";
            Err(ApiError::unsupported("n", message))
        }
        None => {
            let message = format!("Invalid 'n': {wanted} is not between 1 and {}.", limits.choices_max);
            Err(ApiError::invalid_value("n", message))
        }
    }
}

fn refuse_unsupported(request: &ChatCompletionRequest) -> Result<(), ApiError> {
    let refuse = |param: &str, message: &str| Err(ApiError::unsupported(param, message));
    let present = |value: &Option<Value>| value.as_ref().is_some_and(|v| !is_empty(v));
    let other_than = |value: &Option<Value>, allowed: &[&str]| {
        value.as_ref().is_some_and(|v| !v.is_null() && !v.as_str().is_some_and(|s| allowed.contains(&s)))
    };
    if present(&request.functions) {
        return refuse("functions", "Functions are not supported; use 'tools'.");
    }
    if other_than(&request.function_call, &["none", "auto"]) {
        return refuse("function_call", "Functions are not supported.");
    }
    let modalities = request.modalities.as_ref().filter(|m| !is_empty(m));
    if modalities.is_some_and(|m| *m != serde_json::json!(["text"])) {
        return refuse("modalities", "Only the modality \"text\" is supported.");
    }
    if present(&request.audio) {
        return refuse("audio", "Audio is not supported.");
    }
    if present(&request.web_search_options) {
        return refuse("web_search_options", "Web search is not supported.");
    }
    if other_than(&request.reasoning_effort, &[]) {
        return refuse("reasoning_effort", "The reasoning effort cannot be chosen.");
    }
    if other_than(&request.verbosity, &["medium"]) {
        return refuse("verbosity", "The verbosity cannot be chosen.");
    }
    if other_than(&request.service_tier, &["auto", "default"]) {
        return refuse("service_tier", "There is only one service tier ('auto' or 'default').");
    }
    if request.store == Some(true) {
        return refuse("store", "Answers are not stored.");
    }
    Ok(())
}

/// Parameters of other servers that would change the answer, with the value that changes nothing. What is not listed
/// here is tolerated.
fn refuse_unsupported_extras(extra: &Map<String, Value>) -> Result<(), ApiError> {
    const NEUTRAL: [(&str, &str); 22] = [
        ("add_generation_prompt", "true"),
        ("best_of", "1"),
        ("continue_final_message", "false"),
        ("echo", "false"),
        ("grammar", "null"),
        ("guided_choice", "null"),
        ("guided_grammar", "null"),
        ("guided_json", "null"),
        ("guided_regex", "null"),
        ("ignore_eos", "false"),
        ("length_penalty", "1"),
        ("min_tokens", "0"),
        ("prompt_logprobs", "null"),
        ("repetition_penalty", "1"),
        ("skip_special_tokens", "true"),
        ("stop_token_ids", "[]"),
        ("structured_outputs", "null"),
        ("suffix", "null"),
        ("truncate_prompt_tokens", "null"),
        ("typical_p", "1"),
        ("use_beam_search", "false"),
        ("include_stop_str_in_output", "false"),
    ];
    for (name, neutral) in NEUTRAL {
        let Some(value) = extra.get(name).filter(|v| !v.is_null()) else { continue };
        let neutral_value: Value = serde_json::from_str(neutral).unwrap_or_default();
        let equal = match (value.as_f64(), neutral_value.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => *value == neutral_value,
        };
        if !equal {
            let message =
                format!("The parameter '{name}' is not supported (only its neutral value {neutral} is).");
            return Err(ApiError::unsupported(name, message));
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn sampling(
    tokenizer: &Tokenizer,
    request: &ChatCompletionRequest,
    limits: &Limits,
) -> Result<SamplingParams, ApiError> {
    let defaults = tokenizer.bundle().defaults;
    let temperature = scaled("temperature", request.temperature, 0.0, 2.0, 1_000.0)?.map(|v| v as u16);
    let top_p = scaled("top_p", request.top_p, 0.0, 1.0, 10_000.0)?.map(|v| v as u16);
    let min_p = scaled("min_p", request.min_p, 0.0, 1.0, 10_000.0)?.map(|v| v as u16);
    let frequency = scaled("frequency_penalty", request.frequency_penalty, -2.0, 2.0, 1_000.0)?;
    let presence = scaled("presence_penalty", request.presence_penalty, -2.0, 2.0, 1_000.0)?;
    let top_k = match request.top_k {
        None => defaults.top_k.unwrap_or(0),
        Some(-1) => 0,
        // More than K candidates are never kept, so a higher number means all of them.
        Some(k) if k >= 0 => u8::try_from(k).unwrap_or(u8::MAX),
        Some(_) => return Err(ApiError::invalid_value("top_k", "'top_k' must be -1, 0 or positive.")),
    };
    Ok(SamplingParams {
        temperature_milli: temperature.or(defaults.temperature_milli).unwrap_or(1_000),
        top_p: top_p.or(defaults.top_p).unwrap_or(10_000).max(1),
        min_p: min_p.or(defaults.min_p).unwrap_or(0),
        top_k: if top_k >= limits.top_k { 0 } else { top_k },
        frequency_penalty_milli: frequency.unwrap_or(0) as i16,
        presence_penalty_milli: presence.unwrap_or(0) as i16,
    })
}

/// A number within `min..=max`, scaled and rounded to an integer (which then lies within `min * scale..=max * scale`).
fn scaled(param: &str, value: Option<f64>, min: f64, max: f64, scale: f64) -> Result<Option<i32>, ApiError> {
    match value {
        None => Ok(None),
        Some(v) if (min..=max).contains(&v) => Ok(Some((v * scale).round() as i32)),
        Some(v) => Err(ApiError::invalid_value(
            param,
            format!("Invalid '{param}': {v} is not between {min} and {max}."),
        )),
    }
}

fn logprobs(request: &ChatCompletionRequest, limits: &Limits) -> Result<Option<u8>, ApiError> {
    let wanted = request.logprobs.unwrap_or(false);
    let most = MAX_TOP_LOGPROBS.min(limits.top_k.into());
    match request.top_logprobs {
        Some(_) if !wanted => Err(ApiError::invalid_value(
            "top_logprobs",
            "'top_logprobs' is only allowed when 'logprobs' is true.",
        )),
        Some(n) if n > most => Err(ApiError::invalid_value(
            "top_logprobs",
            format!("Invalid 'top_logprobs': {n} is not between 0 and {most}."),
        )),
        n => Ok(wanted.then(|| u8::try_from(n.unwrap_or(0)).unwrap_or(u8::MAX))),
    }
}

fn stop_strings(request: &ChatCompletionRequest) -> Result<Vec<String>, ApiError> {
    let stops = match &request.stop {
        None => return Ok(Vec::new()),
        Some(StopStrings::One(stop)) => vec![stop.clone()],
        Some(StopStrings::Many(stops)) => stops.clone(),
    };
    if stops.len() > MAX_STOP_STRINGS {
        let message = format!("Invalid 'stop': at most {MAX_STOP_STRINGS} strings are supported.");
        return Err(ApiError::invalid_value("stop", message));
    }
    if stops.iter().any(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
        let message = format!("Invalid 'stop': a string must have 1 to {MAX_STOP_BYTES} bytes.");
        return Err(ApiError::invalid_value("stop", message));
    }
    Ok(stops)
}

/// The number of completion tokens asked for, with the parameter that asked. The current name wins over the old one.
fn completion_limit(request: &ChatCompletionRequest) -> Result<Option<u64>, ApiError> {
    let asked =
        [("max_completion_tokens", request.max_completion_tokens), ("max_tokens", request.max_tokens)];
    for (param, value) in asked {
        if value == Some(0) {
            return Err(ApiError::invalid_value(param, format!("Invalid '{param}': it must be at least 1.")));
        }
    }
    Ok(request.max_completion_tokens.or(request.max_tokens))
}

/// Tokens of a prompt; `param` is where its text came from.
fn tokens_of(tokenizer: &Tokenizer, text: &str, param: &str, limits: &Limits) -> Result<Vec<u32>, ApiError> {
    if tokenizer.surely_longer_than(text, limits.max_context) {
        return Err(ApiError::context_length_exceeded(format!(
            "This model's maximum context length is {} tokens. However, your {param} has far more. Please reduce its \
             length.",
            limits.max_context
        )));
    }
    let tokens =
        tokenizer.encode(text).map_err(|_| ApiError::internal("The prompt could not be tokenized."))?;
    if tokens.is_empty() {
        return Err(ApiError::invalid_value(param, "The prompt has no tokens."));
    }
    if tokens.iter().any(|t| *t >= limits.vocab_size) {
        return Err(ApiError::internal("The tokenizer does not fit the model's vocabulary."));
    }
    Ok(tokens)
}

/// Completion tokens that fit beside the prompt.
fn fit(prompt: usize, asked: Option<u64>, limits: &Limits) -> Result<u32, ApiError> {
    let max_context = limits.max_context;
    let room = usize::try_from(max_context).unwrap_or(usize::MAX).saturating_sub(prompt);
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    if room == 0 {
        return Err(ApiError::context_length_exceeded(format!(
            "This model's maximum context length is {max_context} tokens. However, your messages resulted in {prompt} \
             tokens. Please reduce the length of the messages."
        )));
    }
    match asked {
        None => Ok(limits.default_max_tokens.unwrap_or(room).clamp(1, room)),
        Some(asked) if asked <= u64::from(room) => Ok(u32::try_from(asked).unwrap_or(room)),
        Some(asked) => Err(ApiError::context_length_exceeded(format!(
            "This model's maximum context length is {max_context} tokens. However, you requested {} tokens ({prompt} in \
             the messages, {asked} in the completion). Please reduce the length of the messages or completion.",
            u128::from(asked) + prompt as u128
        ))),
    }
}

#[cfg(test)]
mod tests;
