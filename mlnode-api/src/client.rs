//! The client.

use crate::{
    DetokenizeRequest, DetokenizeResponse, ErrorBody, ErrorDetail, GenerateEvent, GenerateRequest, Health,
    LoadRequest, ModelInfo, ModelsResponse, NodeState, SprintEvent, SprintRunRequest, SprintStatus,
    TokenizeRequest, TokenizeResponse, UnloadRequest, VerifyRequest, VerifyResponse,
};
use async_trait::async_trait;
use eventsource_stream::Eventsource;
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::{header::RETRY_AFTER, Method, RequestBuilder, Response, StatusCode};
use serde::{de::DeserializeOwned, Serialize};
use std::{fmt, pin::Pin, time::Duration};

/// Most that is read of an error's body.
const MAX_ERROR_BYTES: usize = 64 * 1_024;

/// Events of one request. Dropping it closes the connection, which makes the node stop within one step.
pub type EventStream<T> = Pin<Box<dyn Stream<Item = Result<T, ClientError>> + Send>>;

/// What the host agent needs of an ML node.
#[async_trait]
pub trait MlNode: Send + Sync + fmt::Debug {
    /// Runs a generation.
    async fn generate(&self, request: &GenerateRequest) -> Result<EventStream<GenerateEvent>, ClientError>;
    /// Runs a chunk of a sprint.
    async fn sprint_run(&self, request: &SprintRunRequest) -> Result<EventStream<SprintEvent>, ClientError>;
    /// Stops all sprint work.
    async fn sprint_stop(&self) -> Result<SprintStatus, ClientError>;
    /// Says how far sprint work is.
    async fn sprint_status(&self) -> Result<SprintStatus, ClientError>;
    /// Checks transcripts.
    async fn verify(&self, request: &VerifyRequest) -> Result<VerifyResponse, ClientError>;
    /// State and load.
    async fn state(&self) -> Result<NodeState, ClientError>;
    /// Proves that a token can be produced.
    async fn health(&self) -> Result<Health, ClientError>;
    /// Loads a model.
    async fn load(&self, request: &LoadRequest) -> Result<ModelInfo, ClientError>;
    /// Unloads a model.
    async fn unload(&self, request: &UnloadRequest) -> Result<(), ClientError>;
}

/// How to reach an ML node.
#[derive(Clone)]
pub struct ClientConfig {
    /// Base URL of the inference port, such as `http://127.0.0.1:5050`.
    pub inference_url: String,
    /// Base URL of the management port, such as `http://127.0.0.1:8080`.
    pub management_url: String,
    /// The bearer token of both ports.
    pub token: String,
    /// Time within which a connection must stand.
    pub connect_timeout: Duration,
    /// Time within which the next bytes of an answer must arrive.
    pub read_timeout: Duration,
}

impl ClientConfig {
    /// With a connection time of 5 seconds and a read time of 120 seconds.
    pub fn new(
        inference_url: impl Into<String>,
        management_url: impl Into<String>,
        token: impl Into<String>,
    ) -> Self {
        Self {
            inference_url: inference_url.into(),
            management_url: management_url.into(),
            token: token.into(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(120),
        }
    }
}

/// Without the token.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("inference_url", &self.inference_url)
            .field("management_url", &self.management_url)
            .finish_non_exhaustive()
    }
}

/// Why a call to an ML node failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The node cannot be reached, or the connection broke.
    #[error("the ML node cannot be reached")]
    Transport(#[source] reqwest::Error),
    /// The node refused.
    #[error("the ML node answered {status}: {}", detail.message)]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        detail: ErrorDetail,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the API promises.
    #[error("the ML node's answer cannot be read: {0}")]
    Decode(String),
}

impl ClientError {
    /// Whether the node is full: another node, or the same one later, may take the request.
    pub fn is_overloaded(&self) -> bool {
        matches!(self, Self::Refused { status: 429, .. })
    }

    /// Whether the same request may succeed later or on another node.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Decode(_) => false,
        }
    }
}

/// Talks to one ML node. Cheap to clone; keeps connections open.
#[derive(Clone)]
pub struct MlNodeClient {
    http: reqwest::Client,
    config: ClientConfig,
}

impl fmt::Debug for MlNodeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MlNodeClient").field(&self.config).finish()
    }
}

impl MlNodeClient {
    /// Makes a client; nothing is sent yet.
    pub fn new(mut config: ClientConfig) -> Result<Self, ClientError> {
        for url in [&mut config.inference_url, &mut config.management_url] {
            url.truncate(url.trim_end_matches('/').len());
        }
        let http = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.read_timeout)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .map_err(ClientError::Transport)?;
        Ok(Self { http, config })
    }

    /// Where it connects to.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// `GET /v1/models`.
    pub async fn models(&self) -> Result<ModelsResponse, ClientError> {
        self.get(&self.config.inference_url, "/v1/models").await
    }

    /// `GET /v1/models/{model}/tokenizer`: a `starling_prompt::TokenizerBundle`.
    pub async fn tokenizer<T: DeserializeOwned>(&self, model: &str) -> Result<T, ClientError> {
        self.get(&self.config.inference_url, &format!("/v1/models/{model}/tokenizer")).await
    }

    /// `POST /v1/tokenize`.
    pub async fn tokenize(&self, request: &TokenizeRequest) -> Result<TokenizeResponse, ClientError> {
        self.post(&self.config.inference_url, "/v1/tokenize", request).await
    }

    /// `POST /v1/detokenize`.
    pub async fn detokenize(&self, request: &DetokenizeRequest) -> Result<DetokenizeResponse, ClientError> {
        self.post(&self.config.inference_url, "/v1/detokenize", request).await
    }

    /// `POST /v1/chat/completions`: the raw answer, streamed or not, as the node words it.
    pub async fn chat_completions(&self, body: &impl Serialize) -> Result<Response, ClientError> {
        let url = format!("{}/v1/chat/completions", self.config.inference_url);
        self.send(self.http.request(Method::POST, url).json(body)).await
    }

    /// `GET /metrics`: text of the Prometheus exposition format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let url = format!("{}/metrics", self.config.management_url);
        self.send(self.http.get(url)).await?.text().await.map_err(ClientError::Transport)
    }

    async fn get<T: DeserializeOwned>(&self, base: &str, path: &str) -> Result<T, ClientError> {
        let response = self.send(self.http.get(format!("{base}{path}"))).await?;
        decode(response).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        base: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let response = self.send(self.http.post(format!("{base}{path}")).json(body)).await?;
        decode(response).await
    }

    async fn events<T: DeserializeOwned + 'static>(
        &self,
        base: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<EventStream<T>, ClientError> {
        let response = self.send(self.http.post(format!("{base}{path}")).json(body)).await?;
        Ok(parse_events(response))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response =
            request.bearer_auth(&self.config.token).send().await.map_err(ClientError::Transport)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }
}

#[async_trait]
impl MlNode for MlNodeClient {
    async fn generate(&self, request: &GenerateRequest) -> Result<EventStream<GenerateEvent>, ClientError> {
        self.events(&self.config.inference_url, "/v1/generate", request).await
    }

    async fn sprint_run(&self, request: &SprintRunRequest) -> Result<EventStream<SprintEvent>, ClientError> {
        self.events(&self.config.management_url, "/api/v1/sprint/run", request).await
    }

    async fn sprint_stop(&self) -> Result<SprintStatus, ClientError> {
        self.post(&self.config.management_url, "/api/v1/sprint/stop", &()).await
    }

    async fn sprint_status(&self) -> Result<SprintStatus, ClientError> {
        self.get(&self.config.management_url, "/api/v1/sprint/status").await
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<VerifyResponse, ClientError> {
        self.post(&self.config.management_url, "/api/v1/verify", request).await
    }

    async fn state(&self) -> Result<NodeState, ClientError> {
        self.get(&self.config.management_url, "/api/v1/state").await
    }

    async fn health(&self) -> Result<Health, ClientError> {
        self.get(&self.config.management_url, "/health").await
    }

    async fn load(&self, request: &LoadRequest) -> Result<ModelInfo, ClientError> {
        self.post(&self.config.management_url, "/api/v1/models/load", request).await
    }

    async fn unload(&self, request: &UnloadRequest) -> Result<(), ClientError> {
        let _: serde_json::Value =
            self.post(&self.config.management_url, "/api/v1/models/unload", request).await?;
        Ok(())
    }
}

async fn decode<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let bytes = response.bytes().await.map_err(ClientError::Transport)?;
    serde_json::from_slice(&bytes).map_err(|error| ClientError::Decode(error.to_string()))
}

fn parse_events<T: DeserializeOwned + 'static>(response: Response) -> EventStream<T> {
    let events = response.bytes_stream().eventsource().map(|event| match event {
        Ok(event) => {
            serde_json::from_str(&event.data).map_err(|error| ClientError::Decode(error.to_string()))
        }
        Err(eventsource_stream::EventStreamError::Transport(error)) => Err(ClientError::Transport(error)),
        Err(error) => Err(ClientError::Decode(error.to_string())),
    });
    Box::pin(events)
}

/// Reads a refusal; what is not in the API's shape keeps its status.
async fn refusal(response: Response) -> ClientError {
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = seconds.map(Duration::from_secs);
    let body = bounded_body(response).await;
    let detail = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => body.error,
        Err(_) => {
            ErrorDetail { message: reason(status).into(), kind: String::new(), param: None, code: None }
        }
    };
    ClientError::Refused { status: status.as_u16(), detail, retry_after }
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("no reason given")
}

async fn bounded_body(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Ok(Some(chunk)) = chunks.try_next().await {
        if body.len() + chunk.len() > MAX_ERROR_BYTES {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    body
}
