//! The management port.

use super::{
    error::{json, HttpError},
    stream, AppState,
};
use crate::{
    config::{folder_below, stays_below},
    loader::LoadSpec,
};
use axum::{
    body::Bytes,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    Json,
};
use starling_mlnode_api::{
    Health, LoadRequest, Mode, ModelInfo, NodeState, Numbers, SprintRunRequest, SprintStatus, UnloadRequest,
    VerifyRequest, VerifyResponse, MAX_VERIFY_ITEMS,
};
use starling_primitives::profile::MAX_K;
use starling_prompt::ApiError;
use std::time::{Duration, Instant};
use tokio_stream::wrappers::ReceiverStream;

/// A node that cannot produce a token within this time is not healthy.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// `GET /health`
pub(super) async fn health(State(state): State<AppState>) -> Result<Json<Health>, HttpError> {
    let model = state.engine.model().ok_or_else(|| ApiError::unavailable("No model is loaded."))?;
    let started = Instant::now();
    let token = tokio::time::timeout(HEALTH_TIMEOUT, state.engine.probe())
        .await
        .map_err(|_| ApiError::unavailable("No token was produced in time."))??;
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(Json(Health { model: model.info.model.clone(), token, micros }))
}

/// `GET /metrics`
pub(super) async fn metrics(State(state): State<AppState>) -> Result<Response, HttpError> {
    let model = state.engine.model();
    let text = state
        .engine
        .metrics()
        .render(model.as_ref().map(|model| model.info.model.as_str()))
        .map_err(|_| ApiError::internal("The metrics could not be written."))?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

/// `GET /api/v1/state`
pub(super) async fn state(State(state): State<AppState>) -> Json<NodeState> {
    let engine = &state.engine;
    let metrics = engine.metrics();
    let sprint = engine.sprint_status();
    let model = engine.model().map(|model| model.info.clone());
    let mode = match &model {
        None => Mode::Empty,
        Some(_) if sprint.running > 0 || sprint.queued > 0 => Mode::Sprint,
        Some(_) => Mode::Serving,
    };
    let verified = |result: &str| metrics.verified.with_label_values(&[result]).get();
    let numbers = Numbers {
        requests_running: engine.requests_running(),
        requests_max: engine.limits().requests_max,
        kv_tokens: engine.kv_tokens(),
        sprint_running: sprint.running,
        prompt_tokens_total: metrics.prompt_tokens.get(),
        completion_tokens_total: metrics.generation_tokens.get() + metrics.sprint_tokens.get(),
        verified_total: verified("figures") + verified("replay_failed"),
        uptime_seconds: metrics.started.elapsed().as_secs(),
    };
    Json(NodeState { version: env!("CARGO_PKG_VERSION").into(), mode, model, numbers })
}

/// `POST /api/v1/models/load`
pub(super) async fn load(State(state): State<AppState>, body: Bytes) -> Result<Json<ModelInfo>, HttpError> {
    let LoadRequest { model, folder, top_k, weights_digest } = json(&body)?;
    if let Some(loaded) = state.engine.model().filter(|loaded| loaded.info.model == model) {
        return check_loaded(&loaded.info, top_k, weights_digest.as_ref());
    }
    let top_k = top_k.unwrap_or(state.default_top_k);
    if !(1..=MAX_K).contains(&top_k) {
        return Err(ApiError::invalid_value("top_k", format!("It must be 1 to {MAX_K}.")).into());
    }
    if model.is_empty() || model.contains('/') {
        return Err(ApiError::invalid_value("model", "The name must not be empty or contain a slash.").into());
    }
    let models_dir = state
        .models_dir
        .as_deref()
        .ok_or_else(|| ApiError::invalid_value("model", "This node has no models_dir to load from."))?;
    let folder = folder_below(models_dir, folder.as_deref().unwrap_or(&model))
        .ok_or_else(|| ApiError::invalid_value("folder", "It must lie below models_dir."))?;
    // A folder that cannot be looked at is refused by the loader, with the reason.
    if stays_below(models_dir, &folder).is_ok_and(|below| !below) {
        return Err(ApiError::invalid_value("folder", "It has links that lead out of models_dir.").into());
    }
    let spec = LoadSpec { name: model, folder, top_k, max_context: u32::MAX, weights_digest };
    let served = state.engine.load(spec).await?;
    Ok(Json(served.info.clone()))
}

/// Loading a loaded model does nothing, if it is what was asked for.
fn check_loaded(
    info: &ModelInfo,
    top_k: Option<u8>,
    weights_digest: Option<&starling_primitives::H256>,
) -> Result<Json<ModelInfo>, HttpError> {
    let same = top_k.is_none_or(|k| k == info.top_k)
        && weights_digest.is_none_or(|digest| *digest == info.digest.weights_digest);
    if same {
        return Ok(Json(info.clone()));
    }
    let message = "A model of this name is loaded with another top_k or other weights; unload it first.";
    Err(ApiError::new(409, "invalid_request_error", Some("model_occupied"), Some("model"), message).into())
}

/// `POST /api/v1/models/unload`
pub(super) async fn unload(
    State(state): State<AppState>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, HttpError> {
    let UnloadRequest { model } = json(&body)?;
    state.engine.unload(&model).await?;
    Ok(Json(serde_json::json!({})))
}

/// `POST /api/v1/sprint/run`
pub(super) async fn sprint_run(State(state): State<AppState>, body: Bytes) -> Result<Response, HttpError> {
    let request: SprintRunRequest = json(&body)?;
    let events = state.engine.sprint(request)?;
    Ok(stream::json_events(ReceiverStream::new(events)))
}

/// `POST /api/v1/sprint/stop`
pub(super) async fn sprint_stop(State(state): State<AppState>) -> Result<Json<SprintStatus>, HttpError> {
    Ok(Json(state.engine.stop_sprint().await?))
}

/// `GET /api/v1/sprint/status`
pub(super) async fn sprint_status(State(state): State<AppState>) -> Json<SprintStatus> {
    Json(state.engine.sprint_status())
}

/// `POST /api/v1/verify`
pub(super) async fn verify(
    State(state): State<AppState>,
    body: Bytes,
) -> Result<Json<VerifyResponse>, HttpError> {
    let VerifyRequest { model, items } = json(&body)?;
    if items.len() > MAX_VERIFY_ITEMS {
        return Err(ApiError::invalid_value("items", format!("At most {MAX_VERIFY_ITEMS} items.")).into());
    }
    let outcomes = state.engine.verify(&model, items).await?;
    Ok(Json(VerifyResponse { outcomes }))
}
