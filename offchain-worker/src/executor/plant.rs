//! An answer that is bad on purpose, to a request of this host's own.
//!
//! It is made and verified beforehand, as others will verify it: one that they could let pass is forgotten, for a host answers
//! for what it signs. When the gateway that was asked hands the request over, the answer goes the way of all answers, at the
//! pace at which the model wrote it.

use super::{
    check::{self, Checked},
    generation::{forgotten, Ended, Generation},
    Executor, HangUp,
};
use crate::{
    context::{Verifier, VerifyItem, VerifyOutcome},
    fleet::Place,
    peer::protocol::{ExecuteEvent, ExecuteRequest, FinishReason, Refusal},
};
use starling_math::judge::fabricated;
use starling_mlnode_api::Perturbation;
use starling_primitives::{
    tape::tape_seed,
    transcript::{TokenRecord, Transcript},
    EpochIndex, RequestId, H256,
};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// Events between the ML node and who keeps them.
const EVENT_BUFFER: usize = 32;

/// Standard deviations of the noise that are tried one after the other, in 1/1000 of a logit. With the first a text still reads
/// like one; how far that is from the limits depends on how sure the model is of itself.
const STRENGTHS_MILLI: [u32; 3] = [500, 1_000, 2_000];

/// Why there is no bad answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlant {
    /// Nothing was begun.
    Refused(Refusal),
    /// The model's answer cannot be used, for this reason.
    Unfit(String),
}

/// The answer that waits for its request, if one does.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Option<(RequestId, PreparedAnswer)>>);

impl Waiting {
    /// The answer to this request, if it is to be run in the epoch that the answer was made for: by another one's tape its tokens
    /// would be lies.
    pub(super) fn take(&self, request_id: &RequestId, epoch: EpochIndex) -> Option<PreparedAnswer> {
        self.remove(request_id).filter(|answer| answer.epoch == epoch)
    }

    fn remove(&self, request_id: &RequestId) -> Option<PreparedAnswer> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take_if(|(of, _)| of == request_id).map(|(_, answer)| answer)
    }

    fn holds(&self, request_id: &RequestId) -> bool {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_ref().is_some_and(|(of, _)| of == request_id)
    }

    /// In the place of an earlier one, whose request never came.
    fn put(&self, request_id: RequestId, answer: PreparedAnswer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((request_id, answer));
    }
}

/// One token as the ML node gave it.
#[derive(Debug)]
struct Piece {
    /// Time since the one before; since the beginning for the first.
    after: Duration,
    text: String,
    record: TokenRecord,
}

/// An answer with everything that a gateway is to hear of it.
#[derive(Debug)]
pub(super) struct PreparedAnswer {
    epoch: EpochIndex,
    pieces: Vec<Piece>,
    transcript: Transcript,
    tokens: Vec<u32>,
    text: String,
    finish_reason: FinishReason,
}

impl PreparedAnswer {
    /// Gives the answer as the ML node did, once the payload is durable. `_place` is held meanwhile, as for any answer.
    pub(super) async fn give(
        self,
        _place: Place,
        events: &mpsc::Sender<ExecuteEvent>,
        mut gate: watch::Receiver<bool>,
        mut hang_up: watch::Receiver<Option<HangUp>>,
        event_timeout: Duration,
    ) -> Ended {
        let mut due = Instant::now();
        for Piece { after, text, record } in self.pieces {
            due += after;
            tokio::select! {
                biased;
                () = forgotten(&mut hang_up) => return Ended::Abandoned,
                () = tokio::time::sleep_until(due) => {}
            }
            if gate.wait_for(|durable| *durable).await.is_err() {
                return Ended::Abandoned;
            }
            let sending = events.send(ExecuteEvent::Token { text, record });
            if !matches!(tokio::time::timeout(event_timeout, sending).await, Ok(Ok(()))) {
                return Ended::Abandoned;
            }
        }
        let Self { transcript, tokens, text, finish_reason, .. } = self;
        Ended::Complete { transcript, tokens, text, finish_reason }
    }
}

impl Executor {
    /// Makes the answer to a request of this host's own with noise on the model, which follows from `noise`, and keeps it until
    /// the request comes. Does nothing when it waits already.
    pub async fn prepare_plant(&self, request: &ExecuteRequest, noise: H256) -> Result<(), NoPlant> {
        let inner = &self.inner;
        let request_id = request.header.id();
        if inner.waiting.holds(&request_id) {
            return Ok(());
        }
        let view = inner.network.view();
        let checked = check::check(request, &view, &inner.context.genesis, &inner.context.host)
            .map_err(NoPlant::Refused)?;
        let mut reason = String::new();
        for strength_milli in STRENGTHS_MILLI {
            let place = inner.fleet.take_place(&checked.profile, &[]);
            let place = place.map_err(|none| NoPlant::Refused(super::refusal_of(none)))?;
            let perturbation = Perturbation { seed: noise, strength_milli };
            let answer =
                self.perturbed(request, &checked, place, perturbation).await.map_err(NoPlant::Unfit)?;
            match self.is_bad(request, &checked, &answer.transcript).await {
                Ok(()) => {
                    inner.waiting.put(request_id, answer);
                    return Ok(());
                }
                Err(why_not) => reason = why_not,
            }
        }
        Err(NoPlant::Unfit(reason))
    }

    /// Forgets an answer whose request did not come; says whether there was one.
    pub fn forget_plant(&self, request_id: &RequestId) -> bool {
        self.inner.waiting.remove(request_id).is_some()
    }

    /// An answer with noise, or why there is none.
    async fn perturbed(
        &self,
        request: &ExecuteRequest,
        checked: &Checked,
        place: Place,
        perturbation: Perturbation,
    ) -> Result<PreparedAnswer, String> {
        let (events, mut given) = mpsc::channel(EVENT_BUFFER);
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
        let mut pieces = Vec::new();
        let mut last = Instant::now();
        let mut keep = |event| {
            let now = Instant::now();
            if let ExecuteEvent::Token { text, record } = event {
                pieces.push(Piece { after: now.saturating_duration_since(last), text, record });
                last = now;
            }
        };
        let generating = generation.run(place, hang_up);
        tokio::pin!(generating);
        let ended = loop {
            tokio::select! {
                Some(event) = given.recv() => keep(event),
                ended = &mut generating => break ended,
            }
        };
        while let Ok(event) = given.try_recv() {
            keep(event);
        }
        match ended {
            Ended::Complete { transcript, tokens, text, finish_reason } => {
                let epoch = checked.epoch.index;
                Ok(PreparedAnswer { epoch, pieces, transcript, tokens, text, finish_reason })
            }
            Ended::Failed { reason } => Err(reason),
            Ended::Busy => Err("every ML node is full".into()),
            Ended::Abandoned => Err("the generation was cut off".into()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use starling_primitives::{
        request::{RequestHeader, SamplingParams},
        transcript::TranscriptBuilder,
    };

    fn answer(epoch: EpochIndex) -> (RequestId, PreparedAnswer) {
        let header = RequestHeader {
            profile: 0,
            prompt_hash: H256::zero(),
            sampling: SamplingParams::GREEDY,
            max_tokens: 1,
            constraint: None,
            nonce: [1; 32],
        };
        let request = header.id();
        let (transcript, _) = TranscriptBuilder::new(header).finish();
        let answer = PreparedAnswer {
            epoch,
            pieces: Vec::new(),
            transcript,
            tokens: Vec::new(),
            text: String::new(),
            finish_reason: FinishReason::Stop,
        };
        (request, answer)
    }

    #[test]
    fn an_answer_waits_for_its_request_in_its_epoch() {
        let waiting = Waiting::default();
        let (request, prepared) = answer(4);
        waiting.put(request, prepared);
        assert!(waiting.take(&H256::repeat_byte(9), 4).is_none() && waiting.holds(&request));
        assert!(waiting.take(&request, 4).is_some() && !waiting.holds(&request));
        // A gateway that hands it over as one of another epoch gets an answer of the model's.
        waiting.put(request, answer(4).1);
        assert!(waiting.take(&request, 3).is_none() && !waiting.holds(&request));
    }
}
