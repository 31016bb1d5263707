//! OpenAI's chats and completions, with a tape that the node makes itself: for operators who try a node, and for
//! baselines.

use super::{
    error::HttpError,
    stream::{events, json_event},
    AppState,
};
use crate::engine::{Generation, ServedModel};
use axum::{
    body::Bytes,
    extract::State,
    response::{sse::Event, IntoResponse, Response},
    Json,
};
use futures::{
    future::try_join_all,
    stream::{self, SelectAll},
    Stream, StreamExt,
};
use sp_crypto_hashing::blake2_256;
use starling_mlnode_api::{Done, ErrorDetail, FinishReason, GenerateEvent, GenerateRequest};
use starling_primitives::{
    tape::tape_seed,
    transcript::{Candidate, TokenRecord},
    H256,
};
use starling_prompt::{
    openai::{self, ChatCompletionChunk, Choice, TextForm, Usage},
    Answer, AnswerMeta, AnyRequest, ApiError, Planned,
};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio_stream::wrappers::ReceiverStream;

/// `POST /v1/chat/completions`
pub(super) async fn chat(State(state): State<AppState>, body: Bytes) -> Result<Response, HttpError> {
    answer(&state, AnyRequest::chat(&body)?).await
}

/// `POST /v1/completions`
pub(super) async fn completions(State(state): State<AppState>, body: Bytes) -> Result<Response, HttpError> {
    answer(&state, AnyRequest::completion(&body)?).await
}

/// Runs each choice as a request of its own.
async fn answer(state: &AppState, request: AnyRequest) -> Result<Response, HttpError> {
    let model = &state.engine.model_named(request.model())?;
    let (kind, form) = (request.id_prefix(), request.form());
    let planner = Arc::clone(model);
    // Rendering and tokenising a long conversation takes milliseconds, and so does a schema.
    let planned = tokio::task::spawn_blocking(move || request.plan(&planner.tokenizer, &planner.limits()))
        .await
        .map_err(|_| ApiError::internal("The request could not be planned."))??;
    let mut choices = Vec::new();
    let mut meta = None;
    for index in 0..planned.choices {
        let request = generate_request(model, &planned, index);
        let meta: &AnswerMeta = meta.get_or_insert_with(|| {
            let id = format!("{kind}{}", hex::encode(&request.header.id().as_bytes()[..12]));
            self::meta(id, model, &planned)
        });
        let answer = Answer::new(meta.clone(), Arc::clone(&model.tokenizer)).at(index.into());
        // When one is refused, dropping the others ends them.
        choices.push(Running { answer, generation: state.engine.admit(request).await? });
    }
    if planned.stream {
        return Ok(stream_answer(choices, planned.include_usage, form));
    }
    whole_answer(choices, form).await
}

/// The same seed gives the same answer; without one every request has its own. Each choice has a nonce of its own.
fn generate_request(model: &ServedModel, planned: &Planned, choice: u8) -> GenerateRequest {
    let nonce = match planned.seed {
        Some(seed) => {
            let mut bytes = [b"starling/chat-seed".as_slice(), &seed.to_le_bytes()].concat();
            // The first choice is the answer that a request for one gets.
            bytes.extend((choice > 0).then_some(choice));
            blake2_256(&bytes)
        }
        None => rand::random(),
    };
    let header = planned.header(0, nonce);
    let tape_seed = tape_seed(&H256(nonce), &header.id());
    GenerateRequest {
        model: model.info.model.clone(),
        header,
        prompt_tokens: planned.prompt_tokens.clone(),
        tape_seed,
        constraint: planned.constraint.clone(),
        stop: planned.stop.clone(),
        logprobs: planned.logprobs.is_some(),
        perturbation: None,
    }
}

fn meta(id: String, model: &ServedModel, planned: &Planned) -> AnswerMeta {
    let digest = &model.info.digest.weights_digest;
    AnswerMeta {
        id,
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        model: model.info.model.clone(),
        system_fingerprint: Some(format!("{}-{}", model.info.numerics, hex::encode(&digest.as_bytes()[..6]))),
        prompt_tokens: planned.prompt_len(),
        logprobs: planned.logprobs,
        include_usage: planned.include_usage,
        tools: planned.tools,
    }
}

fn reason(reason: FinishReason) -> openai::FinishReason {
    match reason {
        FinishReason::Stop => openai::FinishReason::Stop,
        FinishReason::Length => openai::FinishReason::Length,
    }
}

/// The record of a token as an answer wants it.
fn record(token: u32, candidates: &[(u32, u16)]) -> Option<TokenRecord> {
    let chosen = candidates.iter().position(|(id, _)| *id == token)?;
    let candidates = candidates.iter().map(|(token, q)| Candidate { token: *token, q: *q }).collect();
    Some(TokenRecord { candidates, chosen: u8::try_from(chosen).ok()? })
}

fn failure(detail: ErrorDetail) -> ApiError {
    ApiError::new(503, &detail.kind, detail.code.as_deref(), detail.param.as_deref(), detail.message)
}

fn cut_off() -> ApiError {
    ApiError::unavailable("The node stopped.")
}

/// One choice while it is being written.
struct Running {
    answer: Answer,
    generation: Generation,
}

impl Running {
    async fn run_to_end(mut self) -> Result<(Answer, Choice), ApiError> {
        while let Some(event) = self.generation.recv().await {
            match event {
                GenerateEvent::Token { token, text, candidates, .. } => {
                    let _ = self.answer.token(token, &text, record(token, &candidates).as_ref(), None);
                }
                GenerateEvent::Window { .. } => {}
                GenerateEvent::Done(Done { finish_reason, text, cached_tokens, .. }) => {
                    self.answer.set_cached_tokens(cached_tokens);
                    let choice = self.answer.take_choice(&text, reason(finish_reason));
                    return Ok((self.answer, choice));
                }
                GenerateEvent::Error(detail) => return Err(failure(detail)),
            }
        }
        Err(cut_off())
    }
}

/// The prompt counts once, however many answers it got.
fn total<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Usage {
    let each = answers.into_iter().map(Answer::usage);
    each.reduce(|total, usage| Usage {
        prompt_tokens_details: total.prompt_tokens_details,
        ..Usage::new(total.prompt_tokens, total.completion_tokens.saturating_add(usage.completion_tokens))
    })
    .unwrap_or_default()
}

async fn whole_answer(choices: Vec<Running>, form: Option<TextForm>) -> Result<Response, HttpError> {
    let ended = try_join_all(choices.into_iter().map(Running::run_to_end)).await?;
    let (answers, choices): (Vec<Answer>, Vec<Choice>) = ended.into_iter().unzip();
    let first = answers.first().ok_or_else(cut_off)?;
    let body = first.body(choices, total(&answers));
    Ok(match form {
        Some(mut form) => Json(form.body(body)).into_response(),
        None => Json(body).into_response(),
    })
}

/// Events of all choices, each with its choice; the last of a choice is `None`.
type Generated = SelectAll<Pin<Box<dyn Stream<Item = (usize, Option<GenerateEvent>)> + Send>>>;

/// What a stream still has to send.
struct Streaming {
    answers: Vec<Answer>,
    generated: Generated,
    /// Choices that have not ended.
    open: usize,
    include_usage: bool,
    form: Option<TextForm>,
    queued: VecDeque<Event>,
    ended: bool,
}

impl Streaming {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.queued.pop_front() {
                return Some((event, self));
            }
            if self.ended {
                return None;
            }
            match self.generated.next().await {
                Some((choice, Some(event))) => self.take(choice, event),
                // A choice ends by itself before its events do.
                Some((_, None)) | None => self.fail(&cut_off()),
            }
        }
    }

    fn send(&mut self, chunk: ChatCompletionChunk) {
        let event = match &mut self.form {
            Some(form) => json_event(&form.chunk(chunk)),
            None => json_event(&chunk),
        };
        self.queued.push_back(event);
    }

    fn take(&mut self, choice: usize, event: GenerateEvent) {
        let Some(answer) = self.answers.get_mut(choice) else { return };
        match event {
            GenerateEvent::Token { token, text, candidates, .. } => {
                let chunk = answer.token(token, &text, record(token, &candidates).as_ref(), None);
                chunk.into_iter().for_each(|chunk| self.send(chunk));
            }
            GenerateEvent::Window { .. } => {}
            GenerateEvent::Done(Done { finish_reason, text, cached_tokens, .. }) => {
                answer.set_cached_tokens(cached_tokens);
                let chunks = answer.finish_choice(&text, reason(finish_reason));
                chunks.into_iter().for_each(|chunk| self.send(chunk));
                self.open = self.open.saturating_sub(1);
                if self.open == 0 {
                    self.end();
                }
            }
            GenerateEvent::Error(detail) => self.fail(&failure(detail)),
        }
    }

    fn end(&mut self) {
        let usage = self.answers.first().map(|first| first.usage_chunk(total(&self.answers)));
        if let Some(chunk) = usage.filter(|_| self.include_usage) {
            self.send(chunk);
        }
        self.queued.push_back(Event::default().data("[DONE]"));
        self.ended = true;
    }

    fn fail(&mut self, error: &ApiError) {
        self.queued.push_back(json_event(&error.body()));
        self.ended = true;
    }
}

fn stream_answer(choices: Vec<Running>, include_usage: bool, form: Option<TextForm>) -> Response {
    let mut answers = Vec::with_capacity(choices.len());
    let mut generated = Generated::new();
    let open = choices.len();
    for (choice, Running { answer, generation }) in choices.into_iter().enumerate() {
        answers.push(answer);
        let events = ReceiverStream::new(generation).map(Some).chain(stream::once(async { None }));
        // What comes behind the end of a choice is of no interest.
        let mut ended = false;
        let events = events.take_while(move |event| {
            let over = std::mem::replace(&mut ended, matches!(event, Some(GenerateEvent::Done(_))));
            std::future::ready(!over)
        });
        generated.push(Box::pin(events.map(move |event| (choice, event))));
    }
    // A completion has no role to open with.
    let queued = match form {
        Some(_) => VecDeque::new(),
        None => answers.iter().map(|answer| json_event(&answer.start())).collect(),
    };
    let streaming = Streaming { answers, generated, open, include_usage, form, queued, ended: false };
    events(stream::unfold(streaming, Streaming::next))
}
