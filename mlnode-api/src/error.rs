//! Errors as both ports send them: in OpenAI's shape.

use serde::{Deserialize, Serialize};

/// Stable values of [`ErrorDetail::code`] that programs may match on.
pub mod codes {
    /// Every slot is taken; the answer carries `Retry-After`.
    pub const OVERLOADED: &str = "rate_limit_exceeded";
    /// The named model is not loaded.
    pub const MODEL_NOT_FOUND: &str = "model_not_found";
    /// Prompt and completion do not fit the context.
    pub const CONTEXT_LENGTH: &str = "context_length_exceeded";
    /// The request contradicts itself or a limit.
    pub const INVALID: &str = "invalid_value";
    /// The token is missing or wrong.
    pub const UNAUTHORIZED: &str = "invalid_api_key";
    /// The engine failed; the request may be tried elsewhere.
    pub const INTERNAL: &str = "internal_error";
    /// The node is going down, or its model is being unloaded.
    pub const STOPPING: &str = "service_unavailable";
    /// A sprint run was stopped by `/api/v1/sprint/stop`.
    pub const STOPPED: &str = "sprint_stopped";
}

/// `{"error": {..}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// Inside of an [`ErrorBody`], and what a stream ends with when it fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For humans.
    pub message: String,
    /// Family of the error, for instance `invalid_request_error`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Parameter at fault.
    #[serde(default)]
    pub param: Option<String>,
    /// For programs: one of [`codes`].
    #[serde(default)]
    pub code: Option<String>,
}

/// An error as a variant of a tagged event: nested, because both have a field `type`.
pub(crate) mod nested {
    use super::{ErrorBody, ErrorDetail};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(detail: &ErrorDetail, serializer: S) -> Result<S::Ok, S::Error> {
        ErrorBody { error: detail.clone() }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorDetail, D::Error> {
        ErrorBody::deserialize(deserializer).map(|body| body.error)
    }
}
