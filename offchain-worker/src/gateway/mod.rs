//! Public HTTP: OpenAI's API, and what anybody may know of the network.

pub(crate) mod auth;
mod chat;
mod error;
mod network_api;
mod relay;

pub use auth::{AUTHORIZATION_HEADER, HEADER_HEADER, KEY_PREFIX};
pub use chat::REQUEST_ID_HEADER;
pub use error::HttpError;

use crate::{
    config::GatewayConfig, context::AgentContext, executor::Executor, fleet::Fleet, keys::HostKeys,
    ledger::Ledger, metrics::Metrics, network::Network, operator_db::OperatorDb, peer::PeerClient,
    tasks::Tasks, tokenizers::Tokenizers,
};
use axum::{
    http::{HeaderValue, Method, Uri},
    routing::{get, post},
    Router,
};
use starling_prompt::ApiError;
use std::{ops::Deref, sync::Arc};
use tokio::sync::Semaphore;
use tower_http::{
    cors::{AllowOrigin, Any, CorsLayer},
    trace::TraceLayer,
};

/// What the gateway works with.
#[derive(Debug)]
pub struct GatewayParts {
    /// Its section of the configuration.
    pub config: GatewayConfig,
    /// Chain, outbox, store.
    pub context: AgentContext,
    /// The delegate key signs for API keys.
    pub keys: HostKeys,
    /// The chain in memory.
    pub network: Network,
    /// ML nodes; their state is shown.
    pub fleet: Fleet,
    /// Money promised.
    pub ledger: Ledger,
    /// API keys.
    pub db: OperatorDb,
    /// Other hosts.
    pub peers: PeerClient,
    /// This host as executor, for the case that it is the only one.
    pub executor: Executor,
    /// Counters.
    pub metrics: Metrics,
    /// Tokenizers of the profiles.
    pub tokenizers: Tokenizers,
    /// Owner of the requests' tasks.
    pub tasks: Tasks,
}

/// Shared by all handlers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GatewayState {
    inner: Arc<Inner>,
}

/// What the handlers see of the state.
#[derive(Debug)]
pub struct Inner {
    pub(crate) config: GatewayConfig,
    pub(crate) context: AgentContext,
    pub(crate) keys: HostKeys,
    pub(crate) network: Network,
    pub(crate) fleet: Fleet,
    pub(crate) ledger: Ledger,
    pub(crate) db: OperatorDb,
    pub(crate) peers: PeerClient,
    pub(crate) executor: Executor,
    pub(crate) metrics: Metrics,
    pub(crate) tokenizers: Tokenizers,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) tasks: Tasks,
}

impl Deref for GatewayState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl GatewayState {
    /// Puts the parts together.
    pub fn new(parts: GatewayParts) -> Self {
        let inner = Inner {
            in_flight: Arc::new(Semaphore::new(parts.config.max_in_flight)),
            tokenizers: parts.tokenizers,
            config: parts.config,
            context: parts.context,
            keys: parts.keys,
            network: parts.network,
            fleet: parts.fleet,
            ledger: parts.ledger,
            db: parts.db,
            peers: parts.peers,
            executor: parts.executor,
            metrics: parts.metrics,
            tasks: parts.tasks,
        };
        Self { inner: Arc::new(inner) }
    }
}

/// All routes of the public port.
pub fn router(state: GatewayState) -> Router {
    let cors = cors(&state.config.cors_origins);
    let router = Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(chat::completions))
        .route("/v1/models", get(network_api::models))
        .route("/v1/models/{name}", get(network_api::model))
        .route("/v1/models/{name}/tokenizer", get(network_api::tokenizer))
        .route("/v1/status", get(network_api::status))
        .route("/v1/epochs/{epoch}", get(network_api::epoch))
        .route("/v1/epochs/{epoch}/participants", get(network_api::participants))
        .route("/v1/inferences/{id}", get(network_api::inference))
        .route("/metrics", get(network_api::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(TraceLayer::new_for_http())
        .with_state(state);
    match cors {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

async fn no_route(method: Method, uri: Uri) -> HttpError {
    ApiError::new(
        404,
        "invalid_request_error",
        Some("unknown_url"),
        None,
        format!("Unknown request URL: {method} {}.", uri.path()),
    )
    .into()
}

async fn no_method(method: Method, uri: Uri) -> HttpError {
    ApiError::new(
        405,
        "invalid_request_error",
        Some("method_not_supported"),
        None,
        format!("Not allowed to {method} {}.", uri.path()),
    )
    .into()
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let exposed = [REQUEST_ID_HEADER];
    Some(CorsLayer::new().allow_origin(origin).allow_methods(Any).allow_headers(Any).expose_headers(exposed))
}
