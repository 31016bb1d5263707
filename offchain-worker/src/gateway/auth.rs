//! Who asks, and who pays: a request signed by the client, or an API key of this gateway.

use super::{error::HttpError, GatewayState};
use crate::{network::NetworkView, operator_db::ApiKey};
use axum::http::{header::AUTHORIZATION, HeaderMap};
use codec::DecodeAll;
use starling_primitives::{
    hashing::hash_of,
    profile::Profile,
    request::{Authorization, RequestHeader, SignedAuthorization},
    Balance, ProfileId, H256,
};
use starling_prompt::{ApiError, Planned};

/// Header with the SCALE encoding of the request header, in hex.
pub const HEADER_HEADER: &str = "x-starling-header";
/// Header with the SCALE encoding of the signed authorization, in hex.
pub const AUTHORIZATION_HEADER: &str = "x-starling-authorization";
/// What API keys begin with.
pub const KEY_PREFIX: &str = "sk-starling-";

/// What a request came with.
#[derive(Debug)]
pub(super) enum Credentials {
    /// Header and authorization signed by the client or a key of its own.
    Signed { header: RequestHeader, authorization: SignedAuthorization },
    /// A key that this gateway's operator issued.
    Key(ApiKey),
}

/// Hash under which an API key is stored.
pub(crate) fn key_hash(key: &str) -> H256 {
    hash_of(b"starling/api-key", &key.as_bytes())
}

/// Reads the credentials. What they allow is checked later, against the planned request.
pub(super) async fn credentials(state: &GatewayState, headers: &HeaderMap) -> Result<Credentials, HttpError> {
    match (headers.get(HEADER_HEADER), headers.get(AUTHORIZATION_HEADER)) {
        (Some(header), Some(authorization)) => Ok(Credentials::Signed {
            header: decode(HEADER_HEADER, header)?,
            authorization: decode(AUTHORIZATION_HEADER, authorization)?,
        }),
        (None, None) => api_key(state, headers).await.map(Credentials::Key),
        _ => Err(HttpError::bad_signature(
            AUTHORIZATION_HEADER,
            format!("A signed request carries both {HEADER_HEADER} and {AUTHORIZATION_HEADER}."),
        )),
    }
}

fn decode<T: DecodeAll>(name: &str, value: &axum::http::HeaderValue) -> Result<T, HttpError> {
    let malformed = || HttpError::bad_signature(name, format!("The header {name} is malformed."));
    let text = value.to_str().map_err(|_| malformed())?;
    let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|_| malformed())?;
    T::decode_all(&mut bytes.as_slice()).map_err(|_| malformed())
}

async fn api_key(state: &GatewayState, headers: &HeaderMap) -> Result<ApiKey, HttpError> {
    let refused = |message: &str| HttpError::from(ApiError::unauthorized(message));
    let value = headers.get(AUTHORIZATION).ok_or_else(|| {
        refused("No API key and no signature: send 'Authorization: Bearer sk-...', or sign the request.")
    })?;
    let key = value
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("bearer ")))
        .map(str::trim)
        .filter(|key| key.starts_with(KEY_PREFIX))
        .ok_or_else(|| refused("Incorrect API key provided."))?;
    let found = state.db.key_by_hash(&key_hash(key)).await.map_err(|error| {
        HttpError::from(ApiError::internal("The API key cannot be checked at the moment.")).because(&error)
    })?;
    found.ok_or_else(|| refused("Incorrect API key provided."))
}

/// A request with the permission to run it.
#[derive(Debug)]
pub(super) struct Authorized {
    pub(super) header: RequestHeader,
    pub(super) authorization: SignedAuthorization,
    /// Id of the API key that pays, for its limit.
    pub(super) key: Option<String>,
}

/// Turns credentials into an authorization for the planned request.
pub(super) fn authorize(
    state: &GatewayState,
    credentials: Credentials,
    planned: &Planned,
    profile: (ProfileId, &Profile),
    view: &NetworkView,
) -> Result<Authorized, HttpError> {
    let price = profile.1.price(planned.prompt_len(), planned.max_tokens);
    match credentials {
        Credentials::Signed { header, authorization } => {
            check_signed(state, &header, &authorization, planned, profile.0, price, view)?;
            Ok(Authorized { header, authorization, key: None })
        }
        Credentials::Key(key) => {
            let header = planned.header(profile.0, rand::random());
            let authorization = Authorization {
                client: key.account,
                request_id: header.id(),
                profile: profile.0,
                max_price: price,
                gateway: state.context.host.clone(),
                expires_at: view.number().saturating_add(state.config.authorization_blocks),
            };
            let authorization = state.keys.authorize(&state.context.genesis, authorization);
            Ok(Authorized { header, authorization, key: Some(key.id) })
        }
    }
}

fn check_signed(
    state: &GatewayState,
    header: &RequestHeader,
    signed: &SignedAuthorization,
    planned: &Planned,
    profile: ProfileId,
    price: Balance,
    view: &NetworkView,
) -> Result<(), HttpError> {
    let authorization = &signed.authorization;
    if *header != planned.header(profile, header.nonce) {
        return Err(HttpError::bad_signature(
            HEADER_HEADER,
            "The signed header is not the one that this body amounts to: profile, prompt, sampling parameters or \
             max_tokens differ.",
        ));
    }
    if authorization.request_id != header.id() || authorization.profile != profile {
        return Err(HttpError::bad_signature(
            AUTHORIZATION_HEADER,
            "The authorization is for another request.",
        ));
    }
    if authorization.gateway != state.context.host {
        return Err(HttpError::bad_signature(
            AUTHORIZATION_HEADER,
            "The authorization is for another gateway.",
        ));
    }
    let latest = view.number().saturating_add(view.tick.epoch.schedule.epoch_blocks);
    if authorization.expires_at <= view.number() || authorization.expires_at > latest {
        return Err(HttpError::bad_signature(
            AUTHORIZATION_HEADER,
            format!("The authorization must expire after block {} and by block {latest}.", view.number()),
        ));
    }
    if authorization.max_price < price {
        return Err(HttpError::payment(format!(
            "The request may cost {price}, more than the authorization's max_price of {}.",
            authorization.max_price
        )));
    }
    if !signed.verify(&state.context.genesis) {
        return Err(ApiError::unauthorized("The authorization's signature does not hold.").into());
    }
    Ok(())
}
