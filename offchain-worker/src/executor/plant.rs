//! An answer that is bad on purpose, to a request of this host's own.
//!
//! It goes the way of all answers but for three things: the model has noise on it, nobody listens, and before it is signed
//! this host verifies it as others will. One that the others could let pass is forgotten: a host answers for what it signs.

use super::{check, loggable, Ended, Executor, Generation, Taken};
use crate::{
    context::{Planting, Verifier, VerifyItem, VerifyOutcome},
    peer::protocol::{ExecuteRequest, Refusal},
};
use starling_chain_client::Item;
use starling_math::judge::fabricated;
use starling_mlnode_api::Perturbation;
use starling_primitives::{records::Started, tape::tape_seed, transcript::Transcript};
use tokio::sync::{mpsc, watch};

/// Events between the ML node and nobody.
const EVENT_BUFFER: usize = 32;

impl Executor {
    /// Answers the request with noise on the model. Refused before anything was begun, if at all.
    pub async fn plant(
        &self,
        request: ExecuteRequest,
        perturbation: Perturbation,
    ) -> Result<Planting, Refusal> {
        let request_id = request.header.id();
        let Taken { checked, mut promised, place, _mark } = self.take(&request, &request_id).await?;
        let (events, mut unheard) = mpsc::channel(EVENT_BUFFER);
        self.announce(&request, &checked, &events).await?;
        let dropped = |reason: &str| Ok(Planting::Dropped(reason.into()));
        // Both ends stay open: nobody hangs up.
        let (_gateway, hang_up) = watch::channel(None);
        let (_durable, gate) = watch::channel(true);
        let generation = Generation {
            fleet: &self.inner.fleet,
            request: &request,
            profile: &checked.profile,
            tape_seed: tape_seed(&checked.epoch.seed, &request_id),
            events: &events,
            gate,
            event_timeout: self.inner.event_timeout,
            perturbation: Some(perturbation),
        };
        let unheard = async { while unheard.recv().await.is_some() {} };
        let ended = tokio::select! {
            ended = generation.run(place, hang_up) => ended,
            () = unheard => return dropped("the generation was cut off"),
        };
        let (transcript, tokens) = match ended {
            Ended::Complete { transcript, tokens, .. } => (transcript, tokens),
            Ended::Failed { reason } => return dropped(&reason),
            Ended::Busy => return dropped("every ML node is full"),
            Ended::Abandoned => return dropped("the generation was cut off"),
        };
        if let Err(reason) = self.is_bad(&request, &checked, &transcript).await {
            return Ok(Planting::Dropped(reason));
        }
        let started = Started {
            authorization: request.authorization.clone(),
            epoch: request.epoch,
            attempt: request.attempt,
            executor: self.inner.context.host.clone(),
        };
        let finished = self.finish(&request, &checked, &mut promised, &transcript, &tokens).await;
        let Some((_, finished, deadline)) = finished else { return dropped("it cannot be stored") };
        // No gateway records it. What cannot be queued now the fallback hands over in a block or two.
        let until = request.authorization.authorization.expires_at;
        for (item, until) in [(Item::Start(started), until), (finished, deadline)] {
            if let Err(error) = self.inner.context.outbox.enqueue(&item, until).await {
                tracing::error!(target: "starling::executor", error = %loggable(error), "a record cannot be queued");
            }
        }
        Ok(Planting::Recorded)
    }

    /// Whether no honest verifier can take the transcript for a good one; says why not.
    async fn is_bad(
        &self,
        request: &ExecuteRequest,
        checked: &check::Checked,
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
