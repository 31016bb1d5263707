//! The executor's side of a request: check, make durable, generate, sign.
//!
//! What was promised survives `kill -9`: the payload is durable before [`ExecuteEvent::Accepted`] and before any token
//! leaves, the transcript and the records for the chain before [`ExecuteEvent::Done`].

mod check;
mod fallback;
mod generation;
mod plant;

pub use fallback::{Fallback, FallbackError};
pub use plant::NoPlant;

use crate::{
    context::AgentContext,
    fleet::{Fleet, NoPlace, Place},
    keys::HostKeys,
    ledger::{Ledger, NotCovered, Promised},
    metrics::Metrics,
    network::Network,
    peer::protocol::{short, ExecuteControl, ExecuteEvent, ExecuteRequest, FinishReason, Refusal},
    store::Payload,
};
use check::Checked;
use generation::{Ended, Generation};
use starling_chain_client::Item;
use starling_primitives::{
    receipt::{Receipt, SignedReceipt},
    records::{response_hash, Finished, FinishedIn, Started},
    tape::tape_seed,
    transcript::Transcript,
    BlockNumber, RequestId,
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// Time to wait for a block when the gateway is in the next epoch already.
const EPOCH_WAIT: Duration = Duration::from_secs(3);
/// Seconds after which a gateway may ask again when all places are taken.
const RETRY_AFTER_S: u32 = 1;

/// How the gateway's interest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// It said so.
    Said(ExecuteControl),
    /// Its stream is gone.
    Lost,
}

/// Runs requests on this host's ML nodes. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    context: AgentContext,
    keys: HostKeys,
    network: Network,
    fleet: Fleet,
    ledger: Ledger,
    fallback: Fallback,
    metrics: Metrics,
    event_timeout: Duration,
    running: Mutex<HashSet<RequestId>>,
    /// A plant that was made beforehand.
    waiting: plant::Waiting,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Executor").finish_non_exhaustive()
    }
}

/// What an executor works with.
#[derive(Debug)]
pub struct ExecutorParts {
    /// Chain, outbox, store.
    pub context: AgentContext,
    /// Signs receipts.
    pub keys: HostKeys,
    /// The chain in memory.
    pub network: Network,
    /// ML nodes.
    pub fleet: Fleet,
    /// Money promised.
    pub ledger: Ledger,
    /// `Started` records that the gateway may leave out.
    pub fallback: Fallback,
    /// Counters.
    pub metrics: Metrics,
    /// Time that a gateway may take to read one event.
    pub event_timeout: Duration,
}

/// Marks a request as running; the mark goes with it.
struct RunningMark {
    inner: Arc<Inner>,
    request_id: RequestId,
}

impl Drop for RunningMark {
    fn drop(&mut self) {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.request_id);
    }
}

/// A request that was taken, with everything that is held for it.
struct Taken {
    checked: Checked,
    promised: Promised,
    place: Place,
    _mark: RunningMark,
}

impl Executor {
    /// Makes an executor.
    pub fn new(parts: ExecutorParts) -> Self {
        let ExecutorParts { context, keys, network, fleet, ledger, fallback, metrics, event_timeout } = parts;
        Self {
            inner: Arc::new(Inner {
                context,
                keys,
                network,
                fleet,
                ledger,
                fallback,
                metrics,
                event_timeout,
                running: Mutex::default(),
                waiting: plant::Waiting::default(),
            }),
        }
    }

    /// Runs one request to its end. Everything that the gateway learns goes through `events`; `hang_up` says when it
    /// is no longer interested.
    pub async fn execute(
        &self,
        request: ExecuteRequest,
        events: mpsc::Sender<ExecuteEvent>,
        hang_up: watch::Receiver<Option<HangUp>>,
    ) {
        let request_id = request.header.id();
        let taken = match self.take(&request, &request_id).await {
            Ok(taken) => taken,
            Err(refusal) => {
                tracing::debug!(target: "starling::executor", request = %short(&request_id), ?refusal, "refused");
                self.inner.metrics.executed.with_label_values(&["refused"]).inc();
                // A gateway that is gone needs no answer.
                let _ = events.send(ExecuteEvent::Refused(refusal)).await;
                return;
            }
        };
        let outcome = self.run(&request, &request_id, taken, &events, hang_up).await;
        self.inner.metrics.executed.with_label_values(&[outcome]).inc();
        tracing::info!(target: "starling::executor", request = %short(&request_id), outcome, "ended");
    }

    async fn take(&self, request: &ExecuteRequest, request_id: &RequestId) -> Result<Taken, Refusal> {
        let inner = &self.inner;
        let mut view = inner.network.view();
        if request.epoch > view.tick.epoch.index {
            // The gateway has seen a block that is still on its way to us.
            let seen =
                inner.network.wait_for(EPOCH_WAIT, |view| view.tick.epoch.index >= request.epoch).await;
            view = seen.ok_or(Refusal::NotDrawn)?;
        }
        let checked = check::check(request, &view, &inner.context.genesis, &inner.context.host)?;
        let mark = self.mark(request_id).ok_or(Refusal::Duplicate)?;
        let place = inner.fleet.take_place(&checked.profile, &[]).map_err(refusal_of)?;
        let authorization = &request.authorization;
        let promised =
            inner.ledger.promise(&authorization.authorization, &authorization.signer).await.map_err(
                |error| match error {
                    NotCovered::Deposit { .. } | NotCovered::Delegation { .. } => Refusal::NotFunded,
                    // The gateway of this very host promised it already.
                    NotCovered::Running => Refusal::Duplicate,
                    NotCovered::Chain(_) => Refusal::Unavailable,
                },
            );
        let own_gateway = authorization.authorization.gateway == inner.context.host;
        let promised = match promised {
            Err(Refusal::Duplicate) if own_gateway => inner.ledger.shared(request_id),
            other => other?,
        };
        Ok(Taken { checked, promised, place, _mark: mark })
    }

    fn mark(&self, request_id: &RequestId) -> Option<RunningMark> {
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .insert(*request_id)
            .then(|| RunningMark { inner: self.inner.clone(), request_id: *request_id })
    }

    /// Makes the payload durable and says so.
    async fn announce(
        &self,
        request: &ExecuteRequest,
        checked: &Checked,
        events: &mpsc::Sender<ExecuteEvent>,
    ) -> Result<(), Refusal> {
        let payload = Payload {
            authorization: request.authorization.clone(),
            epoch: request.epoch,
            epoch_seed: checked.epoch.seed,
            attempt: request.attempt,
            header: request.header.clone(),
            prompt_tokens: request.prompt_tokens.clone(),
            constraint: request.constraint.clone(),
        };
        match self.inner.context.store.put_payload(&payload).await {
            // A gateway that is gone shows in its stream.
            Ok(true) => events.send(ExecuteEvent::Accepted).await.or(Ok(())),
            Ok(false) => Err(Refusal::Duplicate),
            Err(error) => {
                tracing::error!(target: "starling::executor", error = %loggable(error), "the payload cannot be stored");
                Err(Refusal::Unavailable)
            }
        }
    }

    /// Generates and ends; returns the outcome's name for the metrics.
    ///
    /// The ML node begins at once, while the payload is being written; nothing leaves the host before it is durable.
    async fn run(
        &self,
        request: &ExecuteRequest,
        request_id: &RequestId,
        taken: Taken,
        events: &mpsc::Sender<ExecuteEvent>,
        hang_up: watch::Receiver<Option<HangUp>>,
    ) -> &'static str {
        let Taken { checked, mut promised, place, _mark } = taken;
        let (durable, gate) = watch::channel(false);
        let generation = Generation {
            fleet: &self.inner.fleet,
            request,
            profile: &checked.profile,
            tape_seed: tape_seed(&checked.epoch.seed, request_id),
            events,
            gate,
            event_timeout: self.inner.event_timeout,
            perturbation: None,
        };
        let generating = async {
            match self.inner.waiting.take(request_id, checked.epoch.index) {
                Some(plant) => {
                    let Generation { gate, event_timeout, .. } = generation;
                    plant.give(place, events, gate, hang_up, event_timeout).await
                }
                None => generation.run(place, hang_up).await,
            }
        };
        let announcing = self.announce(request, &checked, events);
        tokio::pin!(generating, announcing);
        let mut ended = None;
        let announced = loop {
            tokio::select! {
                biased;
                announced = &mut announcing => break announced,
                early = &mut generating, if ended.is_none() => ended = Some(early),
            }
        };
        if let Err(refusal) = announced {
            let _ = events.send(ExecuteEvent::Refused(refusal)).await;
            return "refused";
        }
        durable.send_replace(true);
        let ended = match ended {
            Some(ended) => ended,
            None => generating.await,
        };
        match ended {
            Ended::Complete { transcript, tokens, text, finish_reason } => {
                let finished = self.finish(request, &checked, &mut promised, &transcript, &tokens).await;
                let Some((receipt, item, deadline)) = finished else {
                    let _ = events.send(ExecuteEvent::Failed).await;
                    return "failed";
                };
                let done = ExecuteEvent::Done { text, finish_reason, receipt: Box::new(receipt) };
                let _ = events.send(done).await;
                if let Err(error) = self.inner.context.outbox.enqueue(&item, deadline).await {
                    // The fallback hands it over again in a block or two.
                    tracing::error!(target: "starling::executor", error = %loggable(error), "Finished cannot be queued");
                }
                match finish_reason {
                    FinishReason::Cancelled => "cancelled",
                    FinishReason::Stop | FinishReason::Length => "finished",
                }
            }
            Ended::Abandoned => "abandoned",
            Ended::Busy => {
                let refusal = Refusal::Busy { retry_after_s: RETRY_AFTER_S };
                let _ = events.send(ExecuteEvent::Refused(refusal)).await;
                "refused"
            }
            Ended::Failed { reason } => {
                tracing::warn!(target: "starling::executor", request = %short(request_id), %reason, "failed");
                let _ = events.send(ExecuteEvent::Failed).await;
                "failed"
            }
        }
    }

    /// Signs, and makes the transcript with that receipt durable, and the records with their fallback. Nothing is announced
    /// when that fails. Returns the record for the outbox, whose slower way to the disk nobody has to wait for.
    async fn finish(
        &self,
        request: &ExecuteRequest,
        checked: &Checked,
        promised: &mut Promised,
        transcript: &Transcript,
        tokens: &[u32],
    ) -> Option<(SignedReceipt, Item, BlockNumber)> {
        let inner = &self.inner;
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let finished = Finished {
            request_id: transcript.header.id(),
            response_hash: response_hash(tokens),
            transcript_root: transcript.root(),
            prompt_tokens: count(request.prompt_tokens.len()),
            completion_tokens: count(tokens.len()),
        };
        let started = Started {
            authorization: request.authorization.clone(),
            epoch: request.epoch,
            attempt: request.attempt,
            executor: inner.context.host.clone(),
        };
        let view = inner.network.view();
        let deadline = fallback::finish_deadline(&view);
        let receipt = Receipt {
            epoch: checked.epoch.index,
            epoch_seed: checked.epoch.seed,
            executor: inner.context.host.clone(),
            finished: finished.clone(),
        };
        let receipt = inner.keys.sign_receipt(&inner.context.genesis, receipt);
        let stored = tokio::try_join!(
            async { inner.context.store.put_answer(transcript, &receipt).await.map_err(loggable) },
            async { inner.fallback.remember(&started, &finished, view.number()).await.map_err(loggable) },
        );
        match stored {
            Ok((true, ())) => {}
            Ok((false, ())) => {
                tracing::error!(target: "starling::executor", "the payload of an answer is gone");
                return None;
            }
            Err(error) => {
                tracing::error!(target: "starling::executor", %error, "an answer cannot be stored");
                return None;
            }
        }
        promised.keep(request.authorization.authorization.expires_at);
        let record = FinishedIn { epoch: checked.epoch.index, finished };
        Some((receipt, Item::Finish(record), deadline))
    }
}

fn loggable(error: impl std::error::Error) -> String {
    crate::fleet::with_sources(&error)
}

fn refusal_of(no_place: NoPlace) -> Refusal {
    match no_place {
        NoPlace::Busy => Refusal::Busy { retry_after_s: RETRY_AFTER_S },
        NoPlace::NoModel => Refusal::NoModel,
    }
}
