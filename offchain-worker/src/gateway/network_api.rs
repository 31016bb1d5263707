//! What anybody may know of the network: status, epochs, participants, inferences, models.
//!
//! Amounts are texts in the token's smallest unit: JSON numbers lose digits.

use super::{error::HttpError, GatewayState};
use axum::{
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    Json,
};
use serde_json::{json, Value};
use starling_chain_client::{ChainView, Endpoints, HostInfo, PlacedRecord, PlacedVerdict};
use starling_math::clock::{self, Phase};
use starling_primitives::{
    profile::Profile,
    records::{Delivery, InferenceState},
    traits::{HostWeight, Round},
    AccountId, EpochIndex, InferenceId, ProfileId, RequestId, H256, PPM,
};
use starling_prompt::{
    openai::{Model, ModelList},
    ApiError,
};

type Answer<T> = Result<T, HttpError>;

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Serving => "serving",
        Phase::Reveal => "reveal",
        Phase::Race => "race",
        Phase::Commit => "commit",
        Phase::Check => "check",
    }
}

/// `GET /v1/status`.
pub(super) async fn status(State(state): State<GatewayState>) -> Json<Value> {
    let view = state.network.view();
    let host = view.hosts.get(&state.context.host);
    let weight = view
        .current
        .as_ref()
        .and_then(|epoch| epoch.weights.iter().find(|entry| entry.host == state.context.host))
        .map_or(0, |entry| entry.weight);
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "genesis": state.context.genesis,
        "host": state.context.host.to_string(),
        "host_status": host.map(|info| info.status),
        "weight": weight,
        "peer_id": state.keys.peer_id().to_string(),
        "delegate": state.keys.delegate_account().to_string(),
        "block": { "number": view.number(), "hash": view.tick.hash },
        "epoch": view.tick.epoch.index,
        "phase": phase_name(view.tick.phase()),
        "models": served(&view).map(|(_, profile)| profile.name_lossy()).collect::<Vec<_>>(),
        "connected_hosts": state.peers.network().connected_count(),
        "requests_in_flight": state.metrics.in_flight.get(),
        "requests_not_on_chain_yet": state.ledger.pending(),
    }))
}

fn served(view: &crate::network::NetworkView) -> impl Iterator<Item = (ProfileId, &Profile)> {
    view.profiles
        .iter()
        .filter(|(id, _)| view.current.as_ref().is_some_and(|epoch| !epoch.hosts_of(**id).is_empty()))
        .map(|(id, profile)| (*id, profile))
}

/// `current`, or the number of an epoch.
fn parse_epoch(text: &str, current: EpochIndex) -> Answer<EpochIndex> {
    match text {
        "current" => Ok(current),
        text => text
            .parse()
            .map_err(|_| ApiError::invalid_value("epoch", "An epoch is a number, or 'current'.").into()),
    }
}

/// `GET /v1/epochs/{n|current}`.
pub(super) async fn epoch(
    State(state): State<GatewayState>,
    Path(epoch): Path<String>,
) -> Answer<Json<Value>> {
    let view = state.network.view();
    let current = view.tick.epoch;
    let index = parse_epoch(&epoch, current.index)?;
    if index > current.index {
        return Err(ApiError::not_found(format!("Epoch {index} has not begun.")).into());
    }
    let chain = state.context.chain.at(view.tick.hash);
    let weights = chain.weights(index).await?;
    let (seed, count, pot) = (
        chain.seed(Round::Epoch(index)).await?,
        chain.inference_count(index).await?,
        chain.pot(index).await?,
    );
    let clock = if index == current.index {
        Some(current)
    } else {
        chain.previous_epoch().await?.filter(|previous| previous.index == index)
    };
    Ok(Json(json!({
        "epoch": index,
        "current": index == current.index,
        "seed": seed,
        "start": clock.map(|clock| clock.start),
        "end": clock.map(|clock| clock::epoch_end(&clock)),
        "phase": (index == current.index).then(|| phase_name(view.tick.phase())),
        "block": view.number(),
        "sprint_cancelled": clock.map(|clock| clock.sprint_cancelled),
        "reveal_extension": clock.map(|clock| clock.extension),
        "schedule": clock.map(|clock| clock.schedule),
        "hosts": weights.len(),
        "total_weight": total(&weights).to_string(),
        "inferences": count,
        "pot": pot.map(|pot| json!({
            "emission": pot.emission.to_string(),
            "fees": pot.fees.to_string(),
            "claimed": pot.claimed.to_string(),
        })),
    })))
}

fn total(weights: &[HostWeight]) -> u128 {
    weights.iter().map(|entry| u128::from(entry.weight)).sum()
}

fn endpoints_json(endpoints: Option<&Endpoints>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match endpoints {
        None => Value::Null,
        Some(endpoints) => json!({
            "peer_id": libp2p::PeerId::from_bytes(&endpoints.peer_id)
                .map_or_else(|_| text(&endpoints.peer_id), |peer| peer.to_string()),
            "multiaddrs": endpoints.multiaddrs.iter().map(|address| text(address)).collect::<Vec<_>>(),
            "gateway_url": text(&endpoints.gateway_url),
        }),
    }
}

fn participant_json(entry: &HostWeight, total: u128, info: Option<&HostInfo>) -> Value {
    let share = u128::from(entry.weight).saturating_mul(u128::from(PPM)).checked_div(total).unwrap_or(0);
    json!({
        "host": entry.host.to_string(),
        "weight": entry.weight,
        "share_ppm": share,
        "reputation_ppm": entry.reputation,
        "status": info.map(|info| info.status),
        "worker": info.map(|info| info.worker.to_string()),
        "profiles": info.map(|info| info.profiles.clone()),
        "endpoints": endpoints_json(info.and_then(|info| info.endpoints.as_ref())),
    })
}

/// `GET /v1/epochs/{n|current}/participants`.
pub(super) async fn participants(
    State(state): State<GatewayState>,
    Path(epoch): Path<String>,
) -> Answer<Json<Value>> {
    let view = state.network.view();
    let index = parse_epoch(&epoch, view.tick.epoch.index)?;
    let weights = state.context.chain.at(view.tick.hash).weights(index).await?;
    let total = total(&weights);
    let with_weight: Vec<Value> =
        weights.iter().map(|entry| participant_json(entry, total, view.hosts.get(&entry.host))).collect();
    let current = index == view.tick.epoch.index;
    let without =
        view.hosts.iter().filter(|(host, _)| current && !weights.iter().any(|entry| entry.host == **host));
    let without: Vec<Value> = without
        .map(|(host, info)| {
            let entry = HostWeight { host: host.clone(), weight: 0, reputation: 0 };
            participant_json(&entry, total, Some(info))
        })
        .collect();
    Ok(Json(json!({
        "epoch": index,
        "total_weight": total.to_string(),
        "participants": with_weight.into_iter().chain(without).collect::<Vec<_>>(),
    })))
}

enum InferenceKey {
    Request(RequestId),
    Place(InferenceId),
}

/// A request id in hex, or `EPOCH-INDEX`.
fn parse_inference(text: &str) -> Answer<InferenceKey> {
    let invalid = || {
        HttpError::from(ApiError::invalid_value(
            "id",
            "An inference is a request id (64 hex digits) or EPOCH-INDEX.",
        ))
    };
    if let Some((epoch, index)) = text.split_once('-') {
        let (epoch, index) = (epoch.parse().map_err(|_| invalid())?, index.parse().map_err(|_| invalid())?);
        return Ok(InferenceKey::Place(InferenceId { epoch, index }));
    }
    let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|_| invalid())?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| invalid())?;
    Ok(InferenceKey::Request(H256(bytes)))
}

/// `GET /v1/inferences/{id}`.
pub(super) async fn inference(
    State(state): State<GatewayState>,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let view = state.network.view();
    let chain = state.context.chain.at(view.tick.hash);
    let key = parse_inference(&id)?;
    let placed = match &key {
        InferenceKey::Request(request) => chain.inference_of(request).await?,
        InferenceKey::Place(id) => chain.inference(*id).await?.map(|record| PlacedRecord { id: *id, record }),
    };
    let Some(placed) = placed else {
        return match key {
            InferenceKey::Request(request) if state.ledger.is_pending(&request) => {
                Ok(Json(json!({ "request_id": request, "state": "Pending" })))
            }
            _ => Err(ApiError::not_found("The chain has no such inference (yet, or any more).").into()),
        };
    };
    let verdicts = verdicts(&chain, &placed, &view).await?;
    let profile = view.profiles.get(&placed.record.profile);
    Ok(Json(inference_json(&placed, &verdicts, profile)))
}

async fn verdicts(
    chain: &ChainView,
    placed: &PlacedRecord,
    view: &crate::network::NetworkView,
) -> Answer<Vec<PlacedVerdict>> {
    let mut verifiers: Vec<AccountId> = view.hosts.keys().cloned().collect();
    verifiers.retain(|host| *host != placed.record.executor);
    Ok(chain.verdicts(placed.id, &verifiers).await?)
}

fn inference_json(placed: &PlacedRecord, verdicts: &[PlacedVerdict], profile: Option<&Profile>) -> Value {
    let PlacedRecord { id, record } = placed;
    use InferenceState::{Expired, Invalid, Planted};
    let refunded = matches!(record.state, Invalid | Expired | Planted);
    // The record's amount is zero after a refund; what the answer would have cost follows from its counts.
    let price = match (&record.result, refunded) {
        (Some(result), true) => {
            profile.map(|profile| profile.price(result.prompt_tokens, result.completion_tokens))
        }
        (Some(_), false) => Some(record.amount),
        (None, _) => None,
    };
    json!({
        "request_id": record.request_id,
        "id": format!("{}-{}", id.epoch, id.index),
        "epoch": id.epoch,
        "index": id.index,
        "state": record.state,
        "model": profile.map(Profile::name_lossy),
        "profile": record.profile,
        "client": record.client.to_string(),
        "delegate": record.delegate.as_ref().map(ToString::to_string),
        "gateway": record.gateway.to_string(),
        "executor": record.executor.to_string(),
        "attempt": record.attempt,
        "started_at": record.started_at,
        "reserved": (record.state == InferenceState::Started).then(|| record.amount.to_string()),
        "price": price.map(|price| price.to_string()),
        "refunded": refunded,
        "delivered": record.delivery != Delivery::Pending,
        "delivery": record.delivery,
        "result": record.result,
        "first_verdict_at": record.first_verdict_at,
        "verdicts": verdicts.iter().map(|placed| json!({
            "verifier": placed.verifier.to_string(),
            "passed": placed.verdict.passed,
            "outcome": placed.verdict.outcome,
            "at": placed.verdict.at,
        })).collect::<Vec<_>>(),
    })
}

/// `GET /v1/models`.
pub(super) async fn models(State(state): State<GatewayState>) -> Json<ModelList> {
    let view = state.network.view();
    Json(ModelList::new(served(&view).map(|(_, profile)| Model::new(profile.name_lossy(), 0)).collect()))
}

/// `GET /v1/models/{name}`.
pub(super) async fn model(
    State(state): State<GatewayState>,
    Path(name): Path<String>,
) -> Answer<Json<Model>> {
    let view = state.network.view();
    view.profile_by_name(&name).ok_or_else(|| ApiError::model_not_found(&name))?;
    Ok(Json(Model::new(name, 0)))
}

/// `GET /v1/models/{name}/tokenizer`.
pub(super) async fn tokenizer(
    State(state): State<GatewayState>,
    Path(name): Path<String>,
) -> Answer<Response> {
    let view = state.network.view();
    let (_, profile) = view.profile_by_name(&name).ok_or_else(|| ApiError::model_not_found(&name))?;
    let tokenizer = state.tokenizers.get(profile, &view).await.map_err(|error| {
        HttpError::from(ApiError::unavailable("The model's tokenizer is not available at the moment."))
            .because(&error)
    })?;
    Ok(Json(tokenizer.bundle()).into_response())
}

/// `GET /metrics`.
pub(super) async fn metrics(State(state): State<GatewayState>) -> Answer<Response> {
    state
        .metrics
        .connected_peers
        .set(i64::try_from(state.peers.network().connected_count()).unwrap_or(i64::MAX));
    state.metrics.best_block.set(state.network.view().number().into());
    // A node that was removed shows no more.
    state.metrics.node_running.reset();
    for node in state.fleet.report() {
        state.metrics.node_running.with_label_values(&[&node.spec.id]).set(node.running.into());
    }
    if let Ok(counts) = state.context.outbox.counts().await {
        for (kind, (pending, ..)) in counts {
            let pending = i64::try_from(pending).unwrap_or(i64::MAX);
            state.metrics.outbox_pending.with_label_values(&[kind.name()]).set(pending);
        }
    }
    let text = state.metrics.render().map_err(|error| {
        HttpError::from(ApiError::internal("The metrics cannot be written.")).because(&error)
    })?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
