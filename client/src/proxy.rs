//! The proxy: an OpenAI API on localhost.

use crate::{
    gateways::{Gateway, Gateways},
    models::{Model, Models},
    receipt::{SavedReceipt, Tail},
    signer::RequestSigner,
};
use anyhow::{Context, Result};
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{header, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
    Json, Router,
};
use codec::Encode;
use eventsource_stream::Eventsource;
use futures::StreamExt;
use serde_json::{json, Value};
use starling_chain_client::ChainClient;
use starling_primitives::request::AUTHORIZED_BLOCKS;
use starling_prompt::{
    openai::{ErrorBody, Model as ModelEntry, ModelList},
    AnyRequest, ApiError, Limits, Planned,
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Gateways tried per request at most.
const MAX_GATEWAYS: usize = 4;
/// Largest request body.
const MAX_BODY: usize = 4 << 20;
/// Largest plain answer, and largest event of a stream.
const MAX_ANSWER: usize = 64 << 20;

/// Everything the proxy needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    chain: ChainClient,
    gateways: Gateways,
    models: Models,
    signer: RequestSigner,
    http: reqwest::Client,
    receipts: PathBuf,
}

/// An answer that has begun: the gateway's response, and what it was asked.
#[derive(Debug)]
pub struct Asked {
    /// The response, its status a success.
    pub response: reqwest::Response,
    /// Host that was asked.
    pub gateway: Gateway,
    /// Whether the answer is an event stream.
    pub stream: bool,
}

/// HTTP client for gateways: quick to notice one that is gone, patient with one that generates.
pub fn http_client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(3))
        .read_timeout(Duration::from_secs(180))
        .build()?)
}

impl Proxy {
    /// Fails when the receipts' folder cannot be made.
    pub fn new(
        chain: ChainClient,
        gateways: Gateways,
        models: Models,
        signer: RequestSigner,
        http: reqwest::Client,
        receipts: PathBuf,
    ) -> Result<Self> {
        std::fs::create_dir_all(&receipts).with_context(|| format!("cannot make {}", receipts.display()))?;
        Ok(Self { inner: Arc::new(Inner { chain, gateways, models, signer, http, receipts }) })
    }

    /// Names of the registered profiles.
    pub async fn model_names(&self) -> Result<Vec<String>> {
        Ok(self.inner.models.profiles().await?.iter().map(|(_, profile)| profile.name_lossy()).collect())
    }

    /// Signs a request and has it run: a random active host first, others while one cannot be reached or is full.
    pub async fn ask(&self, request: &Arc<AnyRequest>, body: &Bytes) -> Result<Asked, ApiError> {
        let gateways = self.inner.gateways.shuffled().await.map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "the chain cannot be read");
            ApiError::unavailable("The Starling node does not answer; try again later.")
        })?;
        let model = self.inner.models.find(request.model(), &gateways).await?;
        let (planning, tokenizer) = (request.clone(), model.tokenizer.clone());
        let limits = Limits::from(&model.profile);
        // Rendering and tokenising a long conversation takes milliseconds, and so does a schema.
        let planned = tokio::task::spawn_blocking(move || planning.plan(&tokenizer, &limits))
            .await
            .map_err(|_| ApiError::internal("The request could not be planned."))??;
        let mut last = ApiError::unavailable("No active host takes requests right now; try again later.");
        for gateway in gateways.into_iter().take(MAX_GATEWAYS) {
            match self.ask_one(&gateway, &model, &planned, request.path(), body).await {
                Ok(response) => return Ok(Asked { response, gateway, stream: planned.stream }),
                Err(error) if error.is_retryable() => {
                    tracing::warn!(gateway = gateway.url, status = error.status, %error, "asking another host");
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn ask_one(
        &self,
        gateway: &Gateway,
        model: &Model,
        planned: &Planned,
        path: &str,
        body: &Bytes,
    ) -> Result<reqwest::Response, ApiError> {
        let tick = self
            .inner
            .chain
            .best_tick()
            .map_err(|_| ApiError::unavailable("The Starling node has no block yet."))?;
        // A new nonce for each gateway: the request may be run by two of them if the first one's answer got lost, and
        // then each is a request of its own on chain.
        let header = planned.header(model.id, rand::random());
        let price = model.profile.price(planned.prompt_len(), planned.max_tokens);
        let expires_at = tick.number.saturating_add(AUTHORIZED_BLOCKS);
        let authorization = self.inner.signer.authorize(&header, gateway.host.clone(), price, expires_at);
        let response = self
            .inner
            .http
            .post(format!("{}{path}", gateway.url))
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-starling-header", hex::encode(header.encode()))
            .header("x-starling-authorization", hex::encode(authorization.encode()))
            .body(body.clone())
            .send()
            .await
            .map_err(|error| {
                ApiError::unavailable(format!("A host did not answer: {}.", error.without_url()))
            })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let error = match response.json::<ErrorBody>().await {
            Ok(body) => ApiError::from_body(status, body),
            Err(_) => ApiError::new(
                status,
                "server_error",
                None,
                None,
                "A host answered with something unreadable.",
            ),
        };
        Err(error)
    }

    /// Saves the receipt of an answer and says so, or why it proves nothing.
    pub fn keep_receipt(&self, model: &str, gateway: &Gateway, proof: Option<Tail>, answer: String) {
        let Some(proof) = proof else {
            tracing::error!(gateway = gateway.url, "the answer came without a receipt");
            return;
        };
        let receipt = SavedReceipt {
            genesis: self.inner.signer.genesis(),
            model: model.into(),
            gateway: gateway.host.clone(),
            proof,
            answer,
        };
        let checked = receipt.check();
        match (receipt.save(&self.inner.receipts), checked) {
            (Ok(path), Ok(_)) => {
                tracing::info!(path = %path.display(), "receipt saved; hashes, signature and replay are right")
            }
            (Ok(path), Err(error)) => {
                tracing::error!(path = %path.display(), error = format!("{error:#}"), "THE ANSWER IS NOT PROVEN");
            }
            (Err(error), _) => {
                tracing::error!(error = format!("{error:#}"), "the receipt could not be saved")
            }
        }
    }
}

/// Serves until the process is told to stop.
pub async fn serve(listen: SocketAddr, proxy: Proxy) -> Result<()> {
    let listener =
        tokio::net::TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("OpenAI API on http://{}/v1 (any API key)", listener.local_addr()?);
    let stop = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "cannot wait for an interrupt");
            std::future::pending::<()>().await;
        }
    };
    axum::serve(listener, router(proxy)).with_graceful_shutdown(stop).await?;
    Ok(())
}

/// The routes.
pub fn router(proxy: Proxy) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models))
        .fallback(|| async {
            refuse(&ApiError::not_found(
                "There is no such route; this proxy serves /v1/chat/completions, /v1/completions and /v1/models.",
            ))
        })
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(proxy)
}

async fn models(State(proxy): State<Proxy>) -> Response {
    match proxy.model_names().await {
        Ok(names) => Json(ModelList::new(names.into_iter().map(|name| ModelEntry::new(name, 0)).collect()))
            .into_response(),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the chain cannot be read");
            refuse(&ApiError::unavailable("The Starling node does not answer; try again later."))
        }
    }
}

async fn chat_completions(State(proxy): State<Proxy>, body: Bytes) -> Response {
    answer(proxy, AnyRequest::chat(&body), &body).await
}

async fn completions(State(proxy): State<Proxy>, body: Bytes) -> Response {
    answer(proxy, AnyRequest::completion(&body), &body).await
}

async fn answer(proxy: Proxy, request: Result<AnyRequest, ApiError>, body: &Bytes) -> Response {
    let answer = async {
        let request = Arc::new(request?);
        let asked = proxy.ask(&request, body).await?;
        Ok((request.model().to_owned(), asked))
    };
    match answer.await {
        Ok((model, asked)) if asked.stream => relay(proxy, model, asked),
        Ok((model, asked)) => whole(&proxy, &model, asked).await,
        Err(error) => refuse(&error),
    }
}

/// What an answer, or a piece of one, says to people: its text, or the calls of tools.
fn said(choice: &Value, message: &str) -> String {
    let text = [choice[message].get("content"), choice.get("text")].into_iter().flatten();
    let mut said: String = text.filter_map(Value::as_str).collect();
    for call in choice[message]["tool_calls"].as_array().into_iter().flatten() {
        said.push_str(&call["function"].to_string());
    }
    said
}

/// A plain answer: read, its receipt kept, and handed on as it is.
async fn whole(proxy: &Proxy, model: &str, asked: Asked) -> Response {
    let unreadable = || {
        refuse(&ApiError::new(
            502,
            "server_error",
            Some("bad_gateway"),
            None,
            "The host's answer was cut off.",
        ))
    };
    if asked.response.content_length().is_some_and(|length| length > MAX_ANSWER as u64) {
        return unreadable();
    }
    let Ok(bytes) = asked.response.bytes().await else { return unreadable() };
    let Ok(json) = serde_json::from_slice::<Value>(&bytes) else { return unreadable() };
    let text = said(&json["choices"][0], "message");
    proxy.keep_receipt(model, &asked.gateway, Tail::from_json(&json["starling"]), text);
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response()
}

/// A stream: each event handed on as it comes. When the client hangs up, dropping the response hangs up on the gateway.
fn relay(proxy: Proxy, model: String, asked: Asked) -> Response {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(32);
    tokio::spawn(async move {
        let gateway = asked.gateway.clone();
        let mut read = Read::default();
        let mut events = asked.response.bytes_stream().eventsource();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sender.closed() => return,
            };
            let data = match event {
                Some(Ok(event)) => event.data,
                Some(Err(_)) | None if read.done => break,
                Some(Err(_)) | None => {
                    json!({ "error": { "message": "The host's answer was cut off.", "type": "server_error", "code": "bad_gateway", "param": null } })
                        .to_string()
                }
            };
            let cut_off = !read.take(&data);
            if sender.send(Ok(Bytes::from(format!("data: {data}\n\n")))).await.is_err() || cut_off {
                break;
            }
        }
        proxy.keep_receipt(&model, &gateway, read.proof, read.text);
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Body::from_stream(ReceiverStream::new(receiver))).into_response()
}

/// What a stream has said so far.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Text of the answer.
    pub(crate) text: String,
    /// Its proof.
    pub(crate) proof: Option<Tail>,
    done: bool,
}

impl Read {
    /// Takes the data of one event; false when it is an error, which ends the stream.
    pub(crate) fn take(&mut self, data: &str) -> bool {
        if data == "[DONE]" {
            self.done = true;
            return true;
        }
        let Ok(chunk) = serde_json::from_str::<Value>(data) else { return true };
        self.text.push_str(&said(&chunk["choices"][0], "delta"));
        if let Some(proof) = Tail::from_json(&chunk["starling"]) {
            self.proof = Some(proof);
        }
        chunk.get("error").is_none()
    }
}

fn refuse(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(error.body())).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_text_and_proof_out_of_a_stream() {
        let mut read = Read::default();
        assert!(read.take(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#));
        assert!(read.take(r#"{"choices":[{"delta":{"content":"A dog"}}],"starling":{"window_hash":"0x00"}}"#));
        assert!(read.take(r#"{"choices":[{"delta":{"content":" barks"}}]}"#));
        assert!(read.take(r#"{"choices":[{"text":"."}]}"#));
        assert_eq!(read.proof, None);
        let id = format!("0x{}", "11".repeat(32));
        let tail = json!({ "choices": [], "starling": {
            "request_id": id, "receipt": "00", "header": "00", "transcript": "00", "prompt_tokens": [1, 2] } });
        assert!(read.take(&tail.to_string()));
        assert!(read.take("[DONE]"));
        assert_eq!(read.text, "A dog barks.");
        assert_eq!(read.proof.unwrap().prompt_tokens, [1, 2]);
        assert!(read.done);
    }

    #[test]
    fn an_error_event_ends_the_stream() {
        assert!(!Read::default().take(r#"{"error":{"message":"gone"}}"#));
    }
}
