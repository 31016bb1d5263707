//! Errors as OpenAI words them.

use crate::engine::{LoadRefusal, Refusal};
use axum::{
    body::Bytes,
    http::{header::RETRY_AFTER, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    Json,
};
use serde::de::DeserializeOwned;
use starling_prompt::ApiError;

/// Seconds after which a refused client may try again: about the time that a short answer takes.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A refusal on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError(ApiError);

impl From<ApiError> for HttpError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> Self {
        Self(match &refusal {
            Refusal::Overloaded => ApiError::overloaded("All slots of this node are taken. Try again later."),
            Refusal::ModelNotFound(model) => ApiError::model_not_found(model),
            Refusal::ContextLength { .. } => ApiError::context_length_exceeded(sentence(&refusal)),
            Refusal::Invalid { param, message } => ApiError::invalid_value(param, message.clone()),
            Refusal::Failed(_) => ApiError::internal("The engine failed."),
            Refusal::NotReady(reason) => ApiError::unavailable(reason.clone()),
            Refusal::Stopping => {
                ApiError::unavailable("The node is stopping or its model is being unloaded.")
            }
        })
    }
}

impl From<LoadRefusal> for HttpError {
    fn from(refusal: LoadRefusal) -> Self {
        match refusal {
            LoadRefusal::Refused(refusal) => refusal.into(),
            // The management port is the operator's: the reason is for them.
            other => {
                let mut message = sentence(&other);
                let mut source = std::error::Error::source(&other);
                while let Some(error) = source {
                    message = format!("{message} {}", sentence(error));
                    source = error.source();
                }
                let (status, code) = match other {
                    LoadRefusal::Occupied(_) => (409, "model_occupied"),
                    _ => (422, "model_unusable"),
                };
                Self(ApiError::new(status, "invalid_request_error", Some(code), Some("model"), message))
            }
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0.body())).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

/// An error as a sentence.
fn sentence(error: &(impl std::error::Error + ?Sized)) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

/// Reads a JSON body; whatever its content type says, like OpenAI's servers.
pub(super) fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, HttpError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid_body(format!("The body cannot be read: {error}.")).into())
}

/// 404 for unknown addresses.
pub(super) async fn not_found() -> HttpError {
    ApiError::not_found("There is nothing at this address.").into()
}

/// 405 for known addresses.
pub(super) async fn method_not_allowed() -> HttpError {
    ApiError::new(
        405,
        "invalid_request_error",
        Some("method_not_allowed"),
        None,
        "The method is not allowed here.",
    )
    .into()
}
