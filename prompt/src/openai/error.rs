//! Errors in OpenAI's shape.

use serde::{Deserialize, Serialize};

/// An error as an OpenAI client sees it: an HTTP status and a body.
///
/// The message is meant for the client; nothing internal belongs into it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// OpenAI's `type`, such as `invalid_request_error`.
    pub kind: String,
    /// OpenAI's `code`, such as `context_length_exceeded`.
    pub code: Option<String>,
    /// The parameter at fault, such as `messages[0].content`.
    pub param: Option<String>,
    /// What went wrong and what to do, in English.
    pub message: String,
}

/// What [`crate::plan`] refuses with.
pub type PlanError = ApiError;

const INVALID: &str = "invalid_request_error";

impl ApiError {
    /// Any error; the named constructors below are preferred.
    pub fn new(
        status: u16,
        kind: &str,
        code: Option<&str>,
        param: Option<&str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind: kind.into(),
            code: code.map(Into::into),
            param: param.map(Into::into),
            message: message.into(),
        }
    }

    /// 400: the request is malformed as a whole (for instance not JSON).
    pub fn invalid_body(message: impl Into<String>) -> Self {
        Self::new(400, INVALID, None, None, message)
    }

    /// 400: a parameter has a value outside its range.
    pub fn invalid_value(param: &str, message: impl Into<String>) -> Self {
        Self::new(400, INVALID, Some("invalid_value"), Some(param), message)
    }

    /// 400: a parameter has the wrong type.
    pub fn invalid_type(param: &str, message: impl Into<String>) -> Self {
        Self::new(400, INVALID, Some("invalid_type"), Some(param), message)
    }

    /// 400: a required parameter is missing.
    pub fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::new(400, INVALID, Some("missing_required_parameter"), Some(param), message)
    }

    /// 400: a parameter is known, but what it asks for cannot be done here.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::new(400, INVALID, Some("unsupported_parameter"), Some(param), message)
    }

    /// 400: prompt and completion do not fit the model's context.
    pub fn context_length_exceeded(message: impl Into<String>) -> Self {
        Self::new(400, INVALID, Some("context_length_exceeded"), Some("messages"), message)
    }

    /// 401: no credentials, or wrong ones.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, INVALID, Some("invalid_api_key"), None, message)
    }

    /// 402: the paying account's deposit or the key's limit does not cover the request.
    pub fn payment_required(message: impl Into<String>) -> Self {
        Self::new(402, "insufficient_quota", Some("insufficient_quota"), None, message)
    }

    /// 404: no such model.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!("The model '{model}' does not exist or no host serves it.");
        Self::new(404, INVALID, Some("model_not_found"), Some("model"), message)
    }

    /// 404: no such thing at this address.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, INVALID, Some("not_found"), None, message)
    }

    /// 429: every slot is taken; try again later.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(429, "rate_limit_error", Some("rate_limit_exceeded"), None, message)
    }

    /// 500: something failed that the client cannot mend.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "server_error", Some("internal_error"), None, message)
    }

    /// 503: nobody can serve this right now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "server_error", Some("service_unavailable"), None, message)
    }

    /// Whether the same request may succeed later or elsewhere.
    pub fn is_retryable(&self) -> bool {
        matches!(self.status, 408 | 409 | 429 | 500..)
    }

    /// The JSON body.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                message: self.message.clone(),
                kind: self.kind.clone(),
                param: self.param.clone(),
                code: self.code.clone(),
            },
        }
    }

    /// The error that another server's body and status say.
    pub fn from_body(status: u16, body: ErrorBody) -> Self {
        let ErrorDetail { message, kind, param, code } = body.error;
        Self { status, kind, code, param, message }
    }
}

/// `{"error": {...}}`; also what an event stream carries when it fails after its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// Inside of an [`ErrorBody`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For humans.
    pub message: String,
    /// Family of the error.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Parameter at fault.
    #[serde(default)]
    pub param: Option<String>,
    /// For programs.
    #[serde(default)]
    pub code: Option<String>,
}
