//! An answer that is bad on purpose, to a request of this host's own.
//!
//! It goes the way of all answers but for three things: the model has noise on it, nobody listens, and before it is signed
//! this host verifies it as others will. One that the others could let pass is forgotten: a host answers for what it signs.

use super::{loggable, Checked, Ended, Executor, Generation, Taken};
use crate::{
    context::{Planting, Verifier, VerifyItem, VerifyOutcome},
    fleet::Place,
    ledger::Promised,
    peer::protocol::{ExecuteRequest, Refusal},
};
use starling_chain_client::Item;
use starling_math::judge::fabricated;
use starling_mlnode_api::Perturbation;
use starling_primitives::{records::Started, tape::tape_seed, transcript::Transcript, H256};
use tokio::sync::{mpsc, watch};

/// Events between the ML node and nobody.
const EVENT_BUFFER: usize = 32;

/// Standard deviations of the noise that are tried one after the other, in 1/1000 of a logit. With the first a text still reads
/// like one; how far that is from the limits depends on how sure the model is of itself.
const STRENGTHS_MILLI: [u32; 3] = [500, 1_000, 2_000];

impl Executor {
    /// Answers the request with noise on the model, which follows from `noise`. Refused before anything was begun, if at all.
    pub async fn plant(&self, request: ExecuteRequest, noise: H256) -> Result<Planting, Refusal> {
        let request_id = request.header.id();
        let Taken { checked, mut promised, place, _mark } = self.take(&request, &request_id).await?;
        let (events, _unheard) = mpsc::channel(1);
        self.announce(&request, &checked, &events).await?;
        let mut place = Some(place);
        let mut reason = String::new();
        for strength_milli in STRENGTHS_MILLI {
            let free = place.take().map_or_else(|| self.inner.fleet.take_place(&checked.profile, &[]), Ok);
            let Ok(free) = free else { return Ok(Planting::Dropped("every ML node is full".into())) };
            let perturbation = Perturbation { seed: noise, strength_milli };
            let (transcript, tokens) = match self.perturbed(&request, &checked, free, perturbation).await {
                Ok(answer) => answer,
                Err(reason) => return Ok(Planting::Dropped(reason)),
            };
            match self.is_bad(&request, &checked, &transcript).await {
                Ok(()) => {
                    return Ok(self.record(&request, &checked, &mut promised, &transcript, &tokens).await)
                }
                Err(why_not) => reason = why_not,
            }
        }
        Ok(Planting::Dropped(reason))
    }

    /// An answer with noise, or why there is none.
    async fn perturbed(
        &self,
        request: &ExecuteRequest,
        checked: &Checked,
        place: Place,
        perturbation: Perturbation,
    ) -> Result<(Transcript, Vec<u32>), String> {
        let (events, mut unheard) = mpsc::channel(EVENT_BUFFER);
        // Both ends stay open: nobody hangs up.
        let (_gateway, hang_up) = watch::channel(None);
        let (_durable, gate) = watch::channel(true);
        let generation = Generation {
            fleet: &self.inner.fleet,
            request,
            profile: &checked.profile,
            tape_seed: tape_seed(&checked.epoch.seed, &request.header.id()),
            events: &events,
            gate,
            event_timeout: self.inner.event_timeout,
            perturbation: Some(perturbation),
        };
        let unheard = async { while unheard.recv().await.is_some() {} };
        let ended = tokio::select! {
            ended = generation.run(place, hang_up) => ended,
            () = unheard => Ended::Abandoned,
        };
        match ended {
            Ended::Complete { transcript, tokens, .. } => Ok((transcript, tokens)),
            Ended::Failed { reason } => Err(reason),
            Ended::Busy => Err("every ML node is full".into()),
            Ended::Abandoned => Err("the generation was cut off".into()),
        }
    }

    /// Signs and keeps the answer, and queues both of its records: no gateway sends any.
    async fn record(
        &self,
        request: &ExecuteRequest,
        checked: &Checked,
        promised: &mut Promised,
        transcript: &Transcript,
        tokens: &[u32],
    ) -> Planting {
        let finished = self.finish(request, checked, promised, transcript, tokens).await;
        let Some((_, finished, deadline)) = finished else {
            return Planting::Dropped("it cannot be stored".into());
        };
        let started = Started {
            authorization: request.authorization.clone(),
            epoch: request.epoch,
            attempt: request.attempt,
            executor: self.inner.context.host.clone(),
        };
        let until = request.authorization.authorization.expires_at;
        for (item, until) in [(Item::Start(started), until), (finished, deadline)] {
            if let Err(error) = self.inner.context.outbox.enqueue(&item, until).await {
                // The fallback hands it over again in a block or two.
                tracing::error!(target: "starling::executor", error = %loggable(error), "a record cannot be queued");
            }
        }
        Planting::Recorded
    }

    /// Whether no honest verifier can take the transcript for a good one; says why not.
    async fn is_bad(
        &self,
        request: &ExecuteRequest,
        checked: &Checked,
        transcript: &Transcript,
    ) -> Result<(), String> {
        let item = VerifyItem {
            transcript: transcript.clone(),
            prompt_tokens: request.prompt_tokens.clone(),
            tape_seed: tape_seed(&checked.epoch.seed, &request.header.id()),
            constraint: request.constraint.clone(),
        };
        let outcomes = self.inner.fleet.verify(request.header.profile, vec![item]).await;
        match outcomes.map_err(|error| error.to_string())?.pop() {
            Some(VerifyOutcome::Measured(figures)) => {
                match fabricated(&figures, &checked.profile.calibration) {
                    true => Ok(()),
                    false => Err(format!("it is too good: {figures:?}")),
                }
            }
            other => Err(format!("it could not be measured: {other:?}")),
        }
    }
}
