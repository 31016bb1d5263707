//! Whether an item's effect stands in a block. State only: what happened to transactions does not matter.

use super::{database::Stored, item::Item};
use crate::{
    entries,
    types::{Dispute, DisputeStatus, PlacedRecord, VerdictRecord},
    ChainError, ChainView,
};
use starling_math::panel::Stage;
use starling_primitives::{
    fraud::FraudProof,
    records::{Delivery, InferenceState},
    traits::Round,
    verdict::{Outcome, PanelCommit, PanelReveal, PanelRound, Verdict},
    AccountId, EpochIndex, InferenceId, RequestId,
};

/// What a block says about an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Its effect is there.
    Done,
    /// Not yet.
    Absent,
    /// Not yet, and it cannot be: the record that it follows is not there. Sending it would only have it refused.
    Early,
    /// It can never have an effect.
    Void(&'static str),
}

/// The effects of several items of one kind, in order.
pub(super) async fn effects(
    view: &ChainView,
    host: &AccountId,
    items: &[Stored],
) -> Result<Vec<Effect>, ChainError> {
    let requests: Vec<RequestId> = items.iter().filter_map(|stored| stored.item.request()).collect();
    if requests.len() == items.len() {
        let records = view.inferences_of(&requests).await?;
        return Ok(items
            .iter()
            .zip(records)
            .map(|(stored, record)| of_record(&stored.item, record))
            .collect());
    }
    let verdicts: Vec<&Verdict> = items.iter().filter_map(|stored| stored.item.verdict()).collect();
    if verdicts.len() == items.len() {
        let key = |verdict: &&Verdict| (verdict.inference.epoch, (verdict.inference.index, host.clone()));
        let keys: Vec<_> = verdicts.iter().map(key).collect();
        let found = view.get_many(&entries::VERDICTS, &keys).await?;
        let keys: Vec<_> =
            verdicts.iter().map(|verdict| (verdict.inference.epoch, verdict.inference.index)).collect();
        let disputes = view.get_many(&entries::DISPUTES, &keys).await?;
        let of_each = |((waiting, found), dispute): ((&&Verdict, _), _)| of_verdict(waiting, found, dispute);
        return Ok(verdicts.iter().zip(found).zip(disputes).map(of_each).collect());
    }
    let mut effects = Vec::with_capacity(items.len());
    for stored in items {
        effects.push(of_duty(view, host, &stored.item).await?);
    }
    Ok(effects)
}

fn of_record(item: &Item, placed: Option<PlacedRecord>) -> Effect {
    let Some(PlacedRecord { record, .. }) = placed else {
        return if matches!(item, Item::Start(_)) { Effect::Absent } else { Effect::Early };
    };
    use InferenceState::{Expired, Invalid, Planted};
    let over = matches!(record.state, Expired | Invalid | Planted);
    let done = match item {
        Item::Start(started) => record.attempt >= started.attempt || record.state != InferenceState::Started,
        Item::Finish(_) => record.result.is_some(),
        Item::Deliver(_) => record.delivery != Delivery::Pending,
        Item::Expire(_) => record.state != InferenceState::Started,
        _ => false,
    };
    match done {
        true => Effect::Done,
        false if over => Effect::Void("the request has expired"),
        false if matches!(item, Item::Deliver(_)) && record.result.is_none() => Effect::Early,
        false => Effect::Absent,
    }
}

async fn of_duty(view: &ChainView, host: &AccountId, item: &Item) -> Result<Effect, ChainError> {
    let done = match item {
        Item::CommitVerdict(commit) => return of_commit(view, host, commit).await,
        Item::RevealVerdict(reveal) => return of_reveal(view, host, reveal).await,
        Item::ProveFraud(proof) => return of_proof(view, proof).await,
        Item::CommitPlant { epoch, .. } => return of_commitment(view, host, *epoch).await,
        Item::RevealPlant { inference, .. } => {
            view.plant(inference.epoch, host).await?.is_some_and(|plant| plant.revealed.is_some())
        }
        // Whoever contests first does so for all.
        Item::ContestPlant(id) => {
            view.dispute(*id).await?.is_some_and(|dispute| dispute.status != DisputeStatus::Planted)
        }
        Item::Contribute { epoch, .. } => {
            view.has_contributed(*epoch, host).await?
                || view.seed(Round::Epoch(epoch.saturating_add(1))).await?.is_some()
        }
        Item::Commit { epoch, profile, commitment } => {
            view.commitment(*epoch, *profile, host).await?.as_ref() == Some(commitment)
        }
        Item::SprintVerdict { epoch, profile, prover, .. } => {
            view.sprint_verdict(*epoch, *profile, prover, host).await?.is_some()
        }
        Item::Claim { epoch, .. } => view.has_claimed(*epoch, host).await?,
        Item::Announce(endpoints) => {
            view.host(host).await?.is_some_and(|info| info.endpoints.as_ref() == Some(endpoints))
        }
        // Asked for many at a time, above.
        Item::Start(_) | Item::Finish(_) | Item::Deliver(_) | Item::Expire(_) | Item::Verdict(_) => false,
    };
    Ok(if done { Effect::Done } else { Effect::Absent })
}

/// A host commits itself to one plant an epoch, in that epoch.
async fn of_commitment(view: &ChainView, host: &AccountId, epoch: EpochIndex) -> Result<Effect, ChainError> {
    if view.plant(epoch, host).await?.is_some() {
        return Ok(Effect::Done);
    }
    let over = view.epoch().await?.index > epoch;
    Ok(if over { Effect::Void("the epoch is over") } else { Effect::Absent })
}

/// A commitment is taken as long as members commit, and for good.
async fn of_commit(view: &ChainView, host: &AccountId, commit: &PanelCommit) -> Result<Effect, ChainError> {
    let (id, round) = (commit.inference, commit.round);
    if view.seat(id, round, host).await?.is_some() {
        return Ok(Effect::Done);
    }
    at_stage(view, host, (id, round), Stage::Commit).await
}

/// What was committed to waits for its time.
async fn of_reveal(view: &ChainView, host: &AccountId, reveal: &PanelReveal) -> Result<Effect, ChainError> {
    let (id, round) = (reveal.inference, reveal.round);
    match view.seat(id, round, host).await? {
        None => Ok(Effect::Early),
        Some(seat) if seat.verdict.is_some() => Ok(Effect::Done),
        Some(_) => at_stage(view, host, (id, round), Stage::Reveal).await,
    }
}

/// A proof wants the answer to fall, by whomever. The chain is asked each time before it is sent: it may not know the
/// record in this block, or the executor may have another key by now.
async fn of_proof(view: &ChainView, proof: &FraudProof) -> Result<Effect, ChainError> {
    let dispute = view.dispute(proof.inference).await?;
    if dispute.is_some_and(|dispute| dispute.status == DisputeStatus::Invalid) {
        return Ok(Effect::Done);
    }
    Ok(if view.fraud(proof).await?.is_some() { Effect::Absent } else { Effect::Early })
}

async fn at_stage(
    view: &ChainView,
    host: &AccountId,
    (id, round): (InferenceId, PanelRound),
    stage: Stage,
) -> Result<Effect, ChainError> {
    let Some(panel) = view.panel(id, round).await?.filter(|panel| panel.has(host)) else {
        return Ok(Effect::Early);
    };
    let tally = view.panel_tally(id, round).await?;
    let now = panel.stage(view.last_boundary().await?, &tally);
    Ok(if now == stage { Effect::Absent } else { Effect::Early })
}

/// A verdict on chain leaves nothing to say, unless it is `Unavailable` and the waiting one is more. While a panel judges,
/// nothing is said.
fn of_verdict(waiting: &Verdict, found: Option<VerdictRecord>, dispute: Option<Dispute>) -> Effect {
    let said = found.is_some_and(|found| {
        found.outcome != Outcome::Unavailable || waiting.outcome == Outcome::Unavailable
    });
    if said {
        Effect::Done
    } else if dispute.is_some_and(|dispute| dispute.status.is_open()) {
        Effect::Early
    } else {
        Effect::Absent
    }
}

/// What the chain's refusal of a record means for its item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What it wanted is the case.
    Done,
    /// It may be taken later.
    Later,
    /// It will never be taken.
    Never,
}

/// Reads a refusal by its name in the runtime. An unknown reason is tried again until the deadline: no harm is done.
pub(super) fn read_refusal(item: &Item, reason: &str) -> Answer {
    let expires = matches!(item, Item::Expire(_));
    match reason {
        "Duplicate" => Answer::Done,
        // Whoever else settled the request did what this item wanted.
        "TooLate" | "NotRunning" if expires => Answer::Done,
        "UnknownRequest" if expires => Answer::Never,
        // The record before this one is still on its way, or the time has not come.
        "UnknownRequest" | "UnknownInference" | "NotFinished" | "NotExpired" | "Internal" | "Disputed"
        | "NotHeardYet" => Answer::Later,
        "TermsChanged"
        | "NotRunning"
        | "NotInvolved"
        | "UnknownGateway"
        | "EpochClosed"
        | "AttemptTooHigh"
        | "AuthorizationOutOfRange"
        | "UnknownProfile"
        | "WrongExecutor"
        | "BadSignature"
        | "NotDelegated"
        | "LimitExceeded"
        | "DepositTooLow"
        | "TooLate"
        | "TokensOutOfRange"
        | "OwnInference"
        | "NotServing"
        | "BadFigures"
        | "Planted" => Answer::Never,
        _ => Answer::Later,
    }
}
