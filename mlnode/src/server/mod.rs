//! Two HTTP ports on top of the engine. Handlers are thin: they translate, the engine decides.

mod auth;
mod chat;
mod error;
mod inference;
mod management;
mod stream;

pub use error::HttpError;

use crate::{config::Secret, engine::Engine};
use axum::{
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
    Router,
};
use std::{path::PathBuf, sync::Arc};
use tower_http::trace::TraceLayer;

/// Bytes of a request's body at most: a prompt of a million tokens as JSON.
const INFERENCE_BODY_MAX: usize = 16 << 20;
/// Bytes of a management request's body at most: a batch of transcripts with their prompts.
const MANAGEMENT_BODY_MAX: usize = 64 << 20;

/// What handlers share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState {
    engine: Engine,
    token: Arc<auth::Token>,
    models_dir: Option<Arc<PathBuf>>,
    default_top_k: u8,
}

impl AppState {
    /// `models_dir` is where models may be loaded from by request.
    pub fn new(engine: Engine, token: &Secret, models_dir: Option<PathBuf>, default_top_k: u8) -> Self {
        let token = Arc::new(auth::Token::new(token.expose()));
        Self { engine, token, models_dir: models_dir.map(Arc::new), default_top_k }
    }
}

/// Routes of the inference port.
pub fn inference_app(state: AppState) -> Router {
    let routes = Router::new()
        .route("/v1/generate", post(inference::generate))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(chat::completions))
        .route("/v1/models", get(inference::models))
        .route("/v1/models/{model}/tokenizer", get(inference::tokenizer))
        .route("/v1/tokenize", post(inference::tokenize))
        .route("/v1/detokenize", post(inference::detokenize))
        .layer(DefaultBodyLimit::max(INFERENCE_BODY_MAX));
    finish(routes, state)
}

/// Routes of the management port.
pub fn management_app(state: AppState) -> Router {
    let routes = Router::new()
        .route("/health", get(management::health))
        .route("/metrics", get(management::metrics))
        .route("/api/v1/state", get(management::state))
        .route("/api/v1/models/load", post(management::load))
        .route("/api/v1/models/unload", post(management::unload))
        .route("/api/v1/sprint/run", post(management::sprint_run))
        .route("/api/v1/sprint/stop", post(management::sprint_stop))
        .route("/api/v1/sprint/status", get(management::sprint_status))
        .route("/api/v1/verify", post(management::verify))
        .layer(DefaultBodyLimit::max(MANAGEMENT_BODY_MAX));
    finish(routes, state)
}

fn finish(routes: Router<AppState>, state: AppState) -> Router {
    routes
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), auth::require_token))
        .layer(TraceLayer::new_for_http())
        .with_state(state)
}
