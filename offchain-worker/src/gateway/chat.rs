//! `POST /v1/chat/completions` and `POST /v1/completions`.

use super::{
    auth,
    error::HttpError,
    relay::{Job, Proof, Relayed},
    GatewayState,
};
use crate::{ledger::NotCovered, network::NetworkView, peer::protocol::FinishReason};
use axum::{
    body::{to_bytes, Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{
        sse::{Event, KeepAlive},
        IntoResponse, Response, Sse,
    },
    Json,
};
use codec::Encode;
use serde::Serialize;
use serde_json::json;
use starling_primitives::{constraint::Constraint, profile::Profile, RequestId};
use starling_prompt::{
    openai::{self, ErrorBody, TextForm},
    Answer, AnswerMeta, AnyRequest, ApiError, Limits,
};
use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{mpsc, OwnedSemaphorePermit},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Header of the answer with the request id.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-starling-request-id");

/// A request that runs, seen from the client's side. Dropping it cancels the request down to the ML node.
struct Running {
    relayed: mpsc::Receiver<Relayed>,
    answer: Answer,
    /// There for the older API.
    form: Option<TextForm>,
    request_id: RequestId,
    header: String,
    prompt_tokens: Vec<u32>,
    constraint: Option<Constraint>,
    _in_flight: InFlight,
    _cancel: DropGuard,
}

/// One of the gateway's places.
struct InFlight {
    state: GatewayState,
    _permit: OwnedSemaphorePermit,
}

impl InFlight {
    fn take(state: &GatewayState) -> Result<Self, HttpError> {
        let permit = state.in_flight.clone().try_acquire_owned().map_err(|_| {
            HttpError::full("This gateway is full. Please try again later, or another one.", 1)
        })?;
        state.metrics.in_flight.inc();
        Ok(Self { state: state.clone(), _permit: permit })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.metrics.in_flight.dec();
    }
}

/// `POST /v1/chat/completions`
pub(super) async fn chat(State(state): State<GatewayState>, headers: HeaderMap, body: Body) -> Response {
    respond(&state, &headers, body, AnyRequest::chat).await
}

/// `POST /v1/completions`
pub(super) async fn completions(
    State(state): State<GatewayState>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    respond(&state, &headers, body, AnyRequest::completion).await
}

type Read = fn(&[u8]) -> Result<AnyRequest, ApiError>;

async fn respond(state: &GatewayState, headers: &HeaderMap, body: Body, read: Read) -> Response {
    let response = match answer(state, headers, body, read).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    state.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
    response
}

async fn answer(
    state: &GatewayState,
    headers: &HeaderMap,
    body: Body,
    read: Read,
) -> Result<Response, HttpError> {
    let in_flight = InFlight::take(state)?;
    let credentials = auth::credentials(state, headers).await?;
    let body = read_body(body, state.config.max_body_bytes).await?;
    let received = Instant::now();
    let request = read(&body)?;
    let view = state.network.view();
    // What a tool or a schema costs shows in the body's size as well.
    let small = body.len() <= PLAN_INLINE_BYTES;
    let (running, stream) = begin(state, credentials, request, small, view, in_flight, received).await?;
    let request_id = HeaderValue::from_str(&format!("{:?}", running.request_id))
        .unwrap_or_else(|_| HeaderValue::from_static(""));
    let mut response = if stream { streamed(running).await? } else { plain(running).await? };
    response.headers_mut().insert(REQUEST_ID_HEADER, request_id);
    Ok(response)
}

/// Time that a client may take to send its request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

async fn read_body(body: Body, limit: usize) -> Result<Bytes, HttpError> {
    let error = |status, code, message: String| {
        HttpError::from(ApiError::new(status, "invalid_request_error", Some(code), None, message))
    };
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, limit)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(cause)) => {
            let message = format!("The body could not be read; it may have {limit} bytes at most.");
            Err(error(413, "body_too_large", message).because(&cause))
        }
        Err(_) => Err(error(408, "timeout", "The body did not arrive in time.".into())),
    }
}

async fn begin(
    state: &GatewayState,
    credentials: auth::Credentials,
    request: AnyRequest,
    small: bool,
    view: Arc<NetworkView>,
    in_flight: InFlight,
    received: Instant,
) -> Result<(Running, bool), HttpError> {
    let (profile_id, profile) =
        view.profile_by_name(request.model()).ok_or_else(|| ApiError::model_not_found(request.model()))?;
    let tokenizer = state.tokenizers.get(profile, &view).await.map_err(|error| {
        HttpError::from(ApiError::unavailable("The model's tokenizer is not available at the moment."))
            .because(&error)
    })?;
    let limits = Limits::from(profile);
    let request = Arc::new(request);
    let planned = plan_off_thread(&tokenizer, &request, small, limits).await?;
    let authorized = auth::authorize(state, credentials, &planned, (profile_id, profile), &view)?;
    let epoch =
        view.current.clone().filter(|epoch| !epoch.hosts_of(profile_id).is_empty()).ok_or_else(|| {
            ApiError::unavailable("No host has weight for this model in the running epoch yet.")
        })?;
    let authorization = &authorized.authorization;
    let max_price = authorization.authorization.max_price;
    let promised = state
        .ledger
        .promise(&authorization.authorization, &authorization.signer)
        .await
        .map_err(not_covered)?;
    if let Some(key) = &authorized.key {
        let within = state.db.spend(key, max_price).await.map_err(|error| {
            HttpError::from(ApiError::internal("The API key cannot be charged at the moment."))
                .because(&error)
        })?;
        if !within {
            return Err(HttpError::payment("The API key's limit does not cover the request."));
        }
    }
    let header = authorized.header.clone();
    let request_id = header.id();
    let meta = meta(&request_id, &request, profile, &planned);
    let cancel = CancellationToken::new();
    let (sender, relayed) = mpsc::channel(state.config.stream_buffer);
    let job = Job {
        state: state.clone(),
        authorized,
        prompt_tokens: planned.prompt_tokens.clone(),
        stop: planned.stop,
        constraint: planned.constraint.clone(),
        profile: profile.clone(),
        epoch,
        promised,
        spent: max_price,
        received,
        view: view.clone(),
    };
    state.tasks.spawn(job.run(sender, cancel.clone()));
    let running = Running {
        relayed,
        answer: Answer::new(meta, tokenizer),
        form: request.form(),
        request_id,
        header: hex::encode(header.encode()),
        prompt_tokens: planned.prompt_tokens,
        constraint: planned.constraint,
        _in_flight: in_flight,
        _cancel: cancel.drop_guard(),
    };
    Ok((running, planned.stream))
}

/// Requests with more bytes are planned beside the async threads.
const PLAN_INLINE_BYTES: usize = 32 << 10;

/// Compiling a grammar takes milliseconds, whatever its size.
fn may_have_grammar(request: &AnyRequest) -> bool {
    match request {
        AnyRequest::Chat(request) => request.response_format.is_some() || request.tools.is_some(),
        AnyRequest::Completion(request) => request.rest.contains_key("response_format"),
    }
}

async fn plan_off_thread(
    tokenizer: &Arc<starling_prompt::Tokenizer>,
    request: &Arc<AnyRequest>,
    small: bool,
    limits: Limits,
) -> Result<starling_prompt::Planned, HttpError> {
    if small && !may_have_grammar(request) {
        return Ok(request.plan(tokenizer, &limits)?);
    }
    let (tokenizer, request) = (tokenizer.clone(), request.clone());
    let planned = tokio::task::spawn_blocking(move || request.plan(&tokenizer, &limits)).await;
    match planned {
        Ok(planned) => Ok(planned?),
        Err(error) => {
            Err(HttpError::from(ApiError::internal("The request could not be planned.")).because(&error))
        }
    }
}

fn meta(
    request_id: &RequestId,
    request: &AnyRequest,
    profile: &Profile,
    planned: &starling_prompt::Planned,
) -> AnswerMeta {
    AnswerMeta {
        id: format!("{}{}", request.id_prefix(), hex::encode(request_id)),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        model: request.model().to_owned(),
        system_fingerprint: Some(format!("fp_{}", hex::encode(&profile.weights_digest.as_bytes()[..6]))),
        prompt_tokens: planned.prompt_len(),
        logprobs: planned.logprobs,
        include_usage: planned.include_usage,
        tools: planned.tools,
    }
}

fn not_covered(error: NotCovered) -> HttpError {
    match &error {
        NotCovered::Deposit { available, needed } => HttpError::payment(format!(
            "The deposit does not cover the request: it may cost {needed}, {available} is free. Deposit more, or ask \
             for fewer tokens."
        )),
        NotCovered::Delegation { available, needed } => HttpError::payment(format!(
            "The signing key may not spend so much of the account's deposit: the request may cost {needed}, \
             {available} of its limit is left."
        )),
        NotCovered::Running => HttpError::conflict("The request is running already."),
        NotCovered::Chain(_) => {
            HttpError::from(ApiError::unavailable("The chain cannot be read at the moment.")).because(&error)
        }
    }
}

fn openai_reason(reason: FinishReason) -> openai::FinishReason {
    match reason {
        FinishReason::Stop | FinishReason::Cancelled => openai::FinishReason::Stop,
        FinishReason::Length => openai::FinishReason::Length,
    }
}

impl Running {
    /// What travels with the end of an answer: everything that the client needs to check it on its own.
    fn proof_json(&self, proof: &Proof) -> serde_json::Value {
        let receipt = &proof.receipt.receipt;
        json!({
            "request_id": format!("{:?}", self.request_id),
            "epoch": receipt.epoch,
            "executor": receipt.executor.to_string(),
            "receipt": hex::encode(proof.receipt.encode()),
            "header": self.header,
            "transcript": hex::encode(proof.transcript.encode()),
            "prompt_tokens": self.prompt_tokens,
            "constraint": self.constraint.as_ref().map(|constraint| hex::encode(constraint.encode())),
        })
    }
}

async fn plain(mut running: Running) -> Result<Response, HttpError> {
    while let Some(relayed) = running.relayed.recv().await {
        match relayed {
            Relayed::Token { text, record, token, .. } => {
                // The chunk is for streams; the answer keeps what it needs.
                let _ = running.answer.token(token, &text, Some(&record), None);
            }
            Relayed::Done(proof) => {
                let json = running.proof_json(&proof);
                let reason = openai_reason(proof.finish_reason);
                let body = running.answer.into_completion(&proof.text, reason, Some(json));
                return Ok(match running.form {
                    Some(mut form) => Json(form.body(body)).into_response(),
                    None => Json(body).into_response(),
                });
            }
            Relayed::Error(error) => return Err(error),
        }
    }
    Err(ApiError::internal("The request ended without an answer.").into())
}

/// Waits for the first event, so that what fails before it is an HTTP status and no event in a stream of 200.
async fn streamed(mut running: Running) -> Result<Response, HttpError> {
    let first = match running.relayed.recv().await {
        None => return Err(ApiError::internal("The request ended without an answer.").into()),
        Some(Relayed::Error(error)) => return Err(error),
        Some(first) => first,
    };
    // A completion has no role to open with.
    let opening = match running.form {
        Some(_) => Vec::new(),
        None => vec![event(&running.answer.start())],
    };
    let stream =
        futures::stream::unfold((Some((opening, first)), Some(running)), |(pending, running)| async move {
            let mut running = running?;
            let (mut events, relayed) = match pending {
                Some((opening, first)) => (opening, Some(first)),
                None => (Vec::new(), running.relayed.recv().await),
            };
            let over = running.write(relayed, &mut events);
            let events = futures::stream::iter(events.into_iter().map(Ok::<_, Infallible>));
            Some((events, (None, (!over).then_some(running))))
        });
    let stream = futures::StreamExt::flatten(stream);
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

impl Running {
    fn event(&mut self, chunk: openai::ChatCompletionChunk) -> Event {
        match &mut self.form {
            Some(form) => event(&form.chunk(chunk)),
            None => event(&chunk),
        }
    }

    /// Appends the events for what the relay sent; true when they are the last.
    fn write(&mut self, relayed: Option<Relayed>, events: &mut Vec<Event>) -> bool {
        match relayed {
            Some(Relayed::Token { text, record, token, window_hash }) => {
                let starling = json!({ "window_hash": format!("{window_hash:?}") });
                let chunk = self.answer.token(token, &text, Some(&record), Some(starling));
                events.extend(chunk.map(|chunk| self.event(chunk)));
                false
            }
            Some(Relayed::Done(proof)) => {
                let json = self.proof_json(&proof);
                let reason = openai_reason(proof.finish_reason);
                let chunks = self.answer.finish_stream(&proof.text, reason, Some(json));
                events.extend(chunks.into_iter().map(|chunk| self.event(chunk)));
                events.push(Event::default().data("[DONE]"));
                true
            }
            Some(Relayed::Error(error)) => {
                error.log();
                events.push(error_event(error.external().body()));
                true
            }
            None => {
                let error = ApiError::internal("The request ended without an answer.");
                events.push(error_event(error.body()));
                true
            }
        }
    }
}

fn event(chunk: &impl Serialize) -> Event {
    Event::default().json_data(chunk).unwrap_or_else(|_| Event::default().data("{}"))
}

fn error_event(body: ErrorBody) -> Event {
    event(&body)
}
