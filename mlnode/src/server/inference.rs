//! The inference port, apart from chat.

use super::{
    error::{json, HttpError},
    stream, AppState,
};
use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
    Json,
};
use starling_mlnode_api::{
    DetokenizeRequest, DetokenizeResponse, GenerateRequest, ModelEntry, ModelsResponse, TokenizeRequest,
    TokenizeResponse,
};
use starling_prompt::{ApiError, TokenizerBundle};
use std::time::UNIX_EPOCH;
use tokio_stream::wrappers::ReceiverStream;

/// `POST /v1/generate`
pub(super) async fn generate(State(state): State<AppState>, body: Bytes) -> Result<Response, HttpError> {
    let request: GenerateRequest = json(&body)?;
    let events = state.engine.admit(request).await?;
    Ok(stream::json_events(ReceiverStream::new(events)))
}

/// `GET /v1/models`
pub(super) async fn models(State(state): State<AppState>) -> Json<ModelsResponse> {
    let data = state
        .engine
        .model()
        .map(|model| ModelEntry {
            id: model.info.model.clone(),
            object: "model".into(),
            created: model.loaded_at.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            owned_by: "starling".into(),
        })
        .into_iter()
        .collect();
    Json(ModelsResponse { object: "list".into(), data })
}

/// `GET /v1/models/{model}/tokenizer`
pub(super) async fn tokenizer(
    State(state): State<AppState>,
    Path(model): Path<String>,
) -> Result<Json<TokenizerBundle>, HttpError> {
    let model = state.engine.model_named(&model)?;
    Ok(Json(model.tokenizer.bundle().clone()))
}

/// `POST /v1/tokenize`
pub(super) async fn tokenize(
    State(state): State<AppState>,
    body: Bytes,
) -> Result<Json<TokenizeResponse>, HttpError> {
    let TokenizeRequest { model, text } = json(&body)?;
    let model = state.engine.model_named(&model)?;
    let failed = || ApiError::internal("The text could not be tokenized.");
    let tokens = tokio::task::spawn_blocking(move || model.tokenizer.encode(&text))
        .await
        .map_err(|_| failed())?
        .map_err(|_| failed())?;
    Ok(Json(TokenizeResponse { tokens }))
}

/// `POST /v1/detokenize`
pub(super) async fn detokenize(
    State(state): State<AppState>,
    body: Bytes,
) -> Result<Json<DetokenizeResponse>, HttpError> {
    let DetokenizeRequest { model, tokens } = json(&body)?;
    let model = state.engine.model_named(&model)?;
    let text = tokio::task::spawn_blocking(move || model.tokenizer.decode(&tokens))
        .await
        .map_err(|_| ApiError::internal("The tokens could not be turned into text."))?;
    Ok(Json(DetokenizeResponse { text }))
}
