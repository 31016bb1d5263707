//! What an executor checks before it takes a request: a gateway is trusted in nothing.

use crate::{
    network::{EpochView, NetworkView},
    peer::protocol::{ExecuteRequest, Refusal},
};
use starling_primitives::{
    constraint::check_bound, profile::Profile, records::MAX_ATTEMPT, request::prompt_hash,
    request::SamplingParams, AccountId, H256,
};
use std::sync::Arc;

/// Most texts that end a generation, and bytes of each; as the gateway allows them.
const MAX_STOPS: usize = starling_prompt::MAX_STOP_STRINGS;

/// A request that was checked.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) epoch: Arc<EpochView>,
    pub(super) profile: Profile,
}

/// Checks signature, draw, expiry, profile, header and price against one view of the chain.
pub(super) fn check(
    request: &ExecuteRequest,
    view: &NetworkView,
    genesis: &H256,
    host: &AccountId,
) -> Result<Checked, Refusal> {
    let authorization = &request.authorization.authorization;
    let header = &request.header;
    let request_id = header.id();
    let profile = view.profiles.get(&header.profile).ok_or(Refusal::NoModel)?;
    if authorization.request_id != request_id || authorization.profile != header.profile {
        return Err(Refusal::NotAuthorized);
    }
    check_content(request, profile)?;
    let epoch = view.usable_epoch(request.epoch).ok_or(Refusal::NotDrawn)?;
    let drawn = (request.attempt <= MAX_ATTEMPT)
        .then(|| epoch.executor(header.profile, &request_id, request.attempt, &authorization.gateway))
        .flatten();
    if drawn.as_ref() != Some(host) {
        return Err(Refusal::NotDrawn);
    }
    let latest = view.number().saturating_add(view.tick.epoch.schedule.epoch_blocks);
    if authorization.expires_at <= view.number() || authorization.expires_at > latest {
        return Err(Refusal::NotAuthorized);
    }
    let prompt_tokens = u32::try_from(request.prompt_tokens.len()).map_err(|_| Refusal::Invalid)?;
    // A lower limit would make the host work for less than the profile's price.
    if authorization.max_price < profile.price(prompt_tokens, header.max_tokens) {
        return Err(Refusal::NotAuthorized);
    }
    // Last, because it costs the most.
    if !request.authorization.verify(genesis) {
        return Err(Refusal::NotAuthorized);
    }
    Ok(Checked { epoch: epoch.clone(), profile: profile.clone() })
}

fn check_content(request: &ExecuteRequest, profile: &Profile) -> Result<(), Refusal> {
    let header = &request.header;
    let sampling = &header.sampling;
    let length = u64::try_from(request.prompt_tokens.len()).map_err(|_| Refusal::Invalid)?;
    let penalty = -2_000..=2_000;
    let fits = header.max_tokens >= 1
        && !request.prompt_tokens.is_empty()
        && length.saturating_add(header.max_tokens.into()) <= profile.max_context.into()
        && request.prompt_tokens.iter().all(|token| *token < profile.vocab_size)
        && header.prompt_hash == prompt_hash(&request.prompt_tokens)
        && check_bound(request.constraint.as_ref(), header, profile.vocab_size).is_ok()
        && sampling.temperature_milli <= SamplingParams::MAX_TEMPERATURE
        && (1..=10_000).contains(&sampling.top_p)
        && sampling.min_p <= 10_000
        && sampling.top_k <= profile.top_k
        && penalty.contains(&sampling.frequency_penalty_milli)
        && penalty.contains(&sampling.presence_penalty_milli)
        && request.stop.len() <= MAX_STOPS
        && request.stop.iter().all(|stop| !stop.is_empty() && stop.len() <= starling_prompt::MAX_STOP_BYTES);
    fits.then_some(()).ok_or(Refusal::Invalid)
}
