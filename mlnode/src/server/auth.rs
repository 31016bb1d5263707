//! The bearer token of both ports.

use super::{AppState, HttpError};
use axum::{
    extract::{Request, State},
    http::{header::AUTHORIZATION, HeaderMap},
    middleware::Next,
    response::Response,
};
use sp_crypto_hashing::blake2_256;
use starling_prompt::ApiError;
use std::fmt;
use subtle::ConstantTimeEq;

/// A token by its hash: comparing hashes takes the same time whatever was sent, its length included.
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn new(token: &str) -> Self {
        Self(blake2_256(token.as_bytes()))
    }

    fn is(&self, other: &str) -> bool {
        bool::from(self.0.ct_eq(&blake2_256(other.as_bytes())))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Lets a request pass that brings the token.
pub(super) async fn require_token(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    match bearer(request.headers()) {
        Some(token) if state.token.is(token) => Ok(next.run(request).await),
        Some(_) => Err(ApiError::unauthorized("The token is wrong.").into()),
        None => Err(ApiError::unauthorized("A bearer token is required.").into()),
    }
}

/// The scheme's name is not case-sensitive (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
