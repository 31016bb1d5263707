//! Errors of the HTTP APIs: status, stable code and external text for the client; internal text for the log only.

use crate::fleet::with_sources;
use axum::{
    http::{header::RETRY_AFTER, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    Json,
};
use starling_chain_client::ChainError;
use starling_prompt::ApiError;

/// A refusal or failure.
#[derive(Debug)]
pub struct HttpError {
    // Boxed: an error travels through many functions, mostly as a possibility.
    external: Box<ApiError>,
    internal: Option<String>,
    retry_after_s: Option<u32>,
}

impl HttpError {
    /// Adds what only the log may know.
    pub(crate) fn because(mut self, error: &dyn std::error::Error) -> Self {
        self.internal = Some(with_sources(error));
        self
    }

    /// Adds what only the log may know, as text.
    pub(crate) fn because_of(mut self, text: impl Into<String>) -> Self {
        self.internal = Some(text.into());
        self
    }

    /// 429: full; try again after so many seconds.
    pub(crate) fn full(message: &str, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..ApiError::overloaded(message).into() }
    }

    /// 402: the money does not cover it.
    pub(crate) fn payment(message: impl Into<String>) -> Self {
        ApiError::payment_required(message).into()
    }

    /// 502: an executor answered nonsense or broke off.
    pub(crate) fn bad_upstream(message: &str) -> Self {
        ApiError::new(502, "server_error", Some("executor_failed"), None, message).into()
    }

    /// 504: no token in time.
    pub(crate) fn timeout(message: &str) -> Self {
        ApiError::new(504, "server_error", Some("timeout"), None, message).into()
    }

    /// 409: the request id was used before.
    pub(crate) fn conflict(message: &str) -> Self {
        ApiError::new(409, "invalid_request_error", Some("request_id_used"), None, message).into()
    }

    /// 400: the signed header or authorization does not hold.
    pub(crate) fn bad_signature(param: &str, message: impl Into<String>) -> Self {
        ApiError::new(400, "invalid_request_error", Some("invalid_authorization"), Some(param), message)
            .into()
    }

    /// What the client may see.
    pub fn external(&self) -> &ApiError {
        &self.external
    }

    /// Writes the internal text to the log.
    pub(crate) fn log(&self) {
        let (status, code) = (self.external.status, self.external.code.as_deref());
        let internal = self.internal.as_deref();
        if status >= 500 {
            tracing::warn!(target: "starling::http", status, code, internal, message = %self.external.message);
        } else {
            tracing::debug!(target: "starling::http", status, code, internal, message = %self.external.message);
        }
    }
}

impl From<ApiError> for HttpError {
    fn from(external: ApiError) -> Self {
        let retry_after_s = (external.status == 429).then_some(1);
        Self { external: Box::new(external), internal: None, retry_after_s }
    }
}

impl From<ChainError> for HttpError {
    fn from(error: ChainError) -> Self {
        Self::from(ApiError::unavailable("The chain cannot be read at the moment.")).because(&error)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        self.log();
        let status = StatusCode::from_u16(self.external.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.external.body())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
