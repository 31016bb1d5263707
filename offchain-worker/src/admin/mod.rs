//! The operator's HTTP: ML nodes, API keys, status. On a port of its own, behind a token.

use crate::{
    config::{NodeSpec, Secret},
    fleet::{Fleet, FleetError, NodeReport},
    gateway::{auth::key_hash, HttpError, KEY_PREFIX},
    keys::HostKeys,
    network::Network,
    operator_db::{ApiKey, OperatorDb, OperatorDbError},
};
use axum::{
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{header::AUTHORIZATION, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get},
    Router,
};
use bytes::Bytes;
use serde::{de::DeserializeOwned, Deserialize};
use serde_json::{json, Value};
use starling_chain_client::Outbox;
use starling_primitives::{AccountId, Balance};
use starling_prompt::ApiError;
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Size of a request's body at most, in bytes.
const MAX_BODY_BYTES: usize = 256 << 10;

/// Shared by all handlers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The token that every request carries.
    pub token: Arc<Secret>,
    /// ML nodes.
    pub fleet: Fleet,
    /// API keys.
    pub db: OperatorDb,
    /// The host's public keys are shown.
    pub keys: HostKeys,
    /// The host's account.
    pub host: AccountId,
    /// The chain in memory.
    pub network: Network,
    /// What waits for the chain.
    pub outbox: Outbox,
}

/// All routes of the operator's port.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/admin/v1/nodes", get(nodes).post(put_node))
        .route("/admin/v1/nodes/{id}", get(node).delete(remove_node))
        .route("/admin/v1/keys", get(keys).post(issue_key))
        .route("/admin/v1/keys/{id}", delete(revoke_key))
        .route("/admin/v1/status", get(status))
        .fallback(|| async { HttpError::from(ApiError::not_found("Unknown request URL.")) })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.token.clone(), require_token))
        .with_state(state)
}

async fn require_token(State(token): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if given.is_some_and(|given| token.matches(given.trim())) {
        return next.run(request).await;
    }
    HttpError::from(ApiError::unauthorized("Send 'Authorization: Bearer TOKEN' with the operator's token."))
        .into_response()
}

type Answer = Result<Response, HttpError>;

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, axum::Json(body)).into_response()
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, HttpError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid_body(format!("Invalid body: {error}.")).into())
}

fn fleet_error(error: FleetError) -> HttpError {
    match &error {
        FleetError::Invalid(reason) => ApiError::invalid_body(format!("Invalid node: {reason}.")).into(),
        FleetError::NotFound(id) => ApiError::not_found(format!("No ML node is called {id}.")).into(),
        _ => HttpError::from(ApiError::internal("The registry of ML nodes failed.")).because(&error),
    }
}

fn db_error(error: OperatorDbError) -> HttpError {
    HttpError::from(ApiError::internal("The operator's database failed.")).because(&error)
}

async fn nodes(State(state): State<AdminState>) -> Response {
    json_response(StatusCode::OK, &json!({ "nodes": state.fleet.report() }))
}

fn find(fleet: &Fleet, id: &str) -> Result<NodeReport, HttpError> {
    let found = fleet.report().into_iter().find(|node| node.spec.id == id);
    found.ok_or_else(|| fleet_error(FleetError::NotFound(id.to_owned())))
}

async fn node(State(state): State<AdminState>, Path(id): Path<String>) -> Answer {
    Ok(json_response(StatusCode::OK, &json!(find(&state.fleet, &id)?)))
}

async fn put_node(State(state): State<AdminState>, body: Bytes) -> Answer {
    let spec: NodeSpec = read(&body)?;
    let id = spec.id.clone();
    state.fleet.put(spec).await.map_err(fleet_error)?;
    Ok(json_response(StatusCode::CREATED, &json!(find(&state.fleet, &id)?)))
}

async fn remove_node(State(state): State<AdminState>, Path(id): Path<String>) -> Answer {
    state.fleet.remove(&id).await.map_err(fleet_error)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What the operator says of a new API key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    /// Account that pays.
    account: AccountId,
    /// Most that the key may spend in all, in the smallest unit, as text; none when absent.
    #[serde(default)]
    limit: Option<String>,
    /// What to call it.
    #[serde(default)]
    label: String,
}

fn key_json(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "label": key.label,
        "account": key.account.to_string(),
        "limit": key.limit.map(|limit| limit.to_string()),
        "spent": key.spent.to_string(),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    })
}

async fn keys(State(state): State<AdminState>) -> Answer {
    let keys = state.db.keys().await.map_err(db_error)?;
    let keys: Vec<Value> = keys.iter().map(key_json).collect();
    Ok(json_response(
        StatusCode::OK,
        &json!({ "delegate": state.keys.delegate_account().to_string(), "keys": keys }),
    ))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The only answer that ever shows the key itself.
async fn issue_key(State(state): State<AdminState>, body: Bytes) -> Answer {
    let new: NewKey = read(&body)?;
    let limit = new.limit.as_deref().map(str::parse::<Balance>).transpose().map_err(|_| {
        HttpError::from(ApiError::invalid_value("limit", "The limit is a number of smallest units, as text."))
    })?;
    if new.label.len() > 128 {
        return Err(ApiError::invalid_value("label", "The label has 128 bytes at most.").into());
    }
    let text = format!("{KEY_PREFIX}{}", hex::encode(rand::random::<[u8; 24]>()));
    let key = ApiKey {
        id: format!("key-{}", uuid::Uuid::new_v4().simple()),
        label: new.label,
        account: new.account,
        limit,
        spent: 0,
        created_at: now(),
        revoked_at: None,
    };
    state.db.put_key(&key_hash(&text), &key).await.map_err(db_error)?;
    let mut body = key_json(&key);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("key".into(), text.into());
        fields.insert("delegate".into(), state.keys.delegate_account().to_string().into());
    }
    Ok(json_response(StatusCode::CREATED, &body))
}

async fn revoke_key(State(state): State<AdminState>, Path(id): Path<String>) -> Answer {
    match state.db.revoke_key(&id, now()).await.map_err(db_error)? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(ApiError::not_found("No such key, or it was revoked before.").into()),
    }
}

async fn status(State(state): State<AdminState>) -> Answer {
    let view = state.network.view();
    let outbox =
        state.outbox.counts().await.map_err(|error| {
            HttpError::from(ApiError::internal("The outbox cannot be read.")).because(&error)
        })?;
    let outbox: serde_json::Map<String, Value> = outbox
        .into_iter()
        .map(|(kind, (pending, done, dropped))| {
            (kind.name().to_owned(), json!({ "pending": pending, "done": done, "dropped": dropped }))
        })
        .collect();
    Ok(json_response(
        StatusCode::OK,
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "host": state.host.to_string(),
            "host_status": view.hosts.get(&state.host).map(|info| info.status),
            "worker": state.keys.worker_account().to_string(),
            "delegate": state.keys.delegate_account().to_string(),
            "peer_id": state.keys.peer_id().to_string(),
            "block": view.number(),
            "epoch": view.tick.epoch.index,
            "nodes": state.fleet.report(),
            "outbox": outbox,
        }),
    ))
}
