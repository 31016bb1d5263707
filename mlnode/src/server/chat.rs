//! OpenAI's chat completions, with a tape that the node makes itself: for operators who try a node, and for baselines.

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
use futures::stream;
use sp_crypto_hashing::blake2_256;
use starling_mlnode_api::{Done, ErrorDetail, FinishReason, GenerateEvent, GenerateRequest};
use starling_primitives::{
    tape::tape_seed,
    transcript::{Candidate, TokenRecord},
    H256,
};
use starling_prompt::{openai, parse_request, plan, Answer, AnswerMeta, ApiError, Planned};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// `POST /v1/chat/completions`
pub(super) async fn completions(State(state): State<AppState>, body: Bytes) -> Result<Response, HttpError> {
    let request = parse_request(&body)?;
    let model = state.engine.model_named(&request.model)?;
    let planner = Arc::clone(&model);
    // Rendering and tokenising a long conversation takes milliseconds.
    let planned = tokio::task::spawn_blocking(move || plan(&planner.tokenizer, &request, &planner.limits()))
        .await
        .map_err(|_| ApiError::internal("The request could not be planned."))??;
    let generate = generate_request(&model, &planned);
    let id = format!("chatcmpl-{}", hex::encode(&generate.header.id().as_bytes()[..12]));
    let generation = state.engine.generate(&generate)?;
    let answer = Answer::new(meta(id, &model, &planned), Arc::clone(&model.tokenizer));
    if planned.stream {
        return Ok(stream_answer(answer, generation));
    }
    whole_answer(answer, generation).await
}

/// The same seed gives the same answer; without one every request has its own.
fn generate_request(model: &ServedModel, planned: &Planned) -> GenerateRequest {
    let nonce = match planned.seed {
        Some(seed) => blake2_256(&[b"starling/chat-seed".as_slice(), &seed.to_le_bytes()].concat()),
        None => rand::random(),
    };
    let header = planned.header(0, nonce);
    let tape_seed = tape_seed(&H256(nonce), &header.id());
    GenerateRequest {
        model: model.info.model.clone(),
        header,
        prompt_tokens: planned.prompt_tokens.clone(),
        tape_seed,
        stop: planned.stop.clone(),
        logprobs: planned.logprobs.is_some(),
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

async fn whole_answer(mut answer: Answer, mut generation: Generation) -> Result<Response, HttpError> {
    while let Some(event) = generation.recv().await {
        match event {
            GenerateEvent::Token { token, text, candidates, .. } => {
                let _ = answer.token(token, &text, record(token, &candidates).as_ref(), None);
            }
            GenerateEvent::Window { .. } => {}
            GenerateEvent::Done(Done { finish_reason, text, .. }) => {
                return Ok(Json(answer.into_completion(&text, reason(finish_reason), None)).into_response());
            }
            GenerateEvent::Error(detail) => return Err(failure(detail).into()),
        }
    }
    Err(cut_off().into())
}

/// What a stream still has to send.
struct Streaming {
    answer: Answer,
    generation: Generation,
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
            match self.generation.recv().await {
                Some(event) => self.take(event),
                None => self.fail(&cut_off()),
            }
        }
    }

    fn take(&mut self, event: GenerateEvent) {
        match event {
            GenerateEvent::Token { token, text, candidates, .. } => {
                let chunk = self.answer.token(token, &text, record(token, &candidates).as_ref(), None);
                self.queued.extend(chunk.map(|chunk| json_event(&chunk)));
            }
            GenerateEvent::Window { .. } => {}
            GenerateEvent::Done(Done { finish_reason, text, .. }) => {
                let chunks = self.answer.finish_stream(&text, reason(finish_reason), None);
                self.queued.extend(chunks.iter().map(json_event));
                self.queued.push_back(Event::default().data("[DONE]"));
                self.ended = true;
            }
            GenerateEvent::Error(detail) => self.fail(&failure(detail)),
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.queued.push_back(json_event(&error.body()));
        self.ended = true;
    }
}

fn stream_answer(answer: Answer, generation: Generation) -> Response {
    let queued = VecDeque::from([json_event(&answer.start())]);
    let streaming = Streaming { answer, generation, queued, ended: false };
    events(stream::unfold(streaming, Streaming::next))
}
