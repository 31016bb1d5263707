//! From executor to client: draws, forwards, checks, records. One task owns a request from its first attempt to its
//! last record; the HTTP side only reads what it sends.

use super::{auth::Authorized, error::HttpError, GatewayState};
use crate::{
    executor::HangUp,
    ledger::Promised,
    network::{EpochView, NetworkView},
    peer::{
        protocol::{short, ExecuteControl, ExecuteEvent, ExecuteRequest, FinishReason, Refusal},
        Execution, PeerError,
    },
};
use starling_chain_client::Item;
use starling_primitives::{
    constraint::Constraint,
    profile::Profile,
    receipt::SignedReceipt,
    records::{response_hash, Delivered, Started, MAX_ATTEMPT},
    transcript::{TokenRecord, Transcript, TranscriptBuilder},
    AccountId, Balance, H256,
};
use starling_prompt::ApiError;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// What the client side of a request gets.
#[derive(Debug)]
pub(super) enum Relayed {
    /// One token.
    Token { text: String, record: TokenRecord, token: u32, window_hash: H256 },
    /// The end, with everything that proves the answer.
    Done(Box<Proof>),
    /// There will be no answer, or no more of it.
    Error(HttpError),
}

/// The end of an answer.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) text: String,
    pub(super) finish_reason: FinishReason,
    pub(super) receipt: SignedReceipt,
    pub(super) transcript: Transcript,
}

/// A request that is to be run.
pub(super) struct Job {
    pub(super) state: GatewayState,
    pub(super) authorized: Authorized,
    pub(super) prompt_tokens: Vec<u32>,
    pub(super) stop: Vec<String>,
    pub(super) constraint: Option<Constraint>,
    pub(super) profile: Profile,
    pub(super) view: Arc<NetworkView>,
    pub(super) epoch: Arc<EpochView>,
    pub(super) promised: Promised,
    /// Maximum price, taken from the API key's limit.
    pub(super) spent: Balance,
    pub(super) received: Instant,
}

/// How one attempt ended without an answer.
enum Attempt {
    /// The next executor may do it.
    Next { error: HttpError, outcome: &'static str },
    /// No executor will, or the client has seen a part.
    Final(HttpError),
    /// The client is gone; it owes the executor this much, as far as this gateway has seen.
    HungUp { price: Balance },
}

/// An answer while it grows.
struct Growing {
    builder: TranscriptBuilder,
    tokens: Vec<u32>,
}

impl Job {
    /// Runs the request to its end. `cancel` says that the client is gone.
    pub(super) async fn run(mut self, out: mpsc::Sender<Relayed>, cancel: CancellationToken) {
        let price = match self.attempts(&out, &cancel).await {
            Ok(price) => price,
            Err(error) => {
                // A client that is gone needs no error.
                let _ = out.send(Relayed::Error(error)).await;
                0
            }
        };
        if let Some(key) = &self.authorized.key {
            if let Err(error) = self.state.db.give_back(key, self.spent.saturating_sub(price)).await {
                tracing::warn!(target: "starling::gateway", %error, "an API key keeps a promise that was not used");
            }
        }
        self.state.metrics.request_seconds.observe(self.received.elapsed().as_secs_f64());
    }

    /// Price of the answer (or of its part, when the client hung up), or an error for the client.
    async fn attempts(
        &mut self,
        out: &mpsc::Sender<Relayed>,
        cancel: &CancellationToken,
    ) -> Result<Balance, HttpError> {
        let deadline = self.received + Duration::from_millis(self.state.config.first_token_timeout_ms);
        let mut last = None;
        for attempt in 0..self.state.config.max_attempts.min(MAX_ATTEMPT + 1) {
            let Some(executor) = self.draw(attempt) else {
                return Err(last.unwrap_or_else(|| {
                    ApiError::unavailable("No host has weight for this model in the running epoch.").into()
                }));
            };
            match self.attempt(attempt, &executor, deadline, out, cancel).await {
                Ok(price) => {
                    self.count("answered");
                    return Ok(price);
                }
                Err(Attempt::Next { error, outcome }) => {
                    self.count(outcome);
                    tracing::info!(
                        target: "starling::gateway",
                        request = %short(&self.authorized.header.id()), attempt, %executor, outcome, "next attempt"
                    );
                    last = Some(better(last, error));
                }
                Err(Attempt::Final(error)) => {
                    self.count("failed");
                    return Err(error);
                }
                Err(Attempt::HungUp { price }) => {
                    self.count("hung_up");
                    return Ok(price);
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(last.unwrap_or_else(|| HttpError::timeout("No executor answered in time.")))
    }

    fn count(&self, outcome: &str) {
        self.state.metrics.attempts.with_label_values(&[outcome]).inc();
    }

    fn draw(&self, attempt: u8) -> Option<AccountId> {
        let header = &self.authorized.header;
        self.epoch.executor(header.profile, &header.id(), attempt, &self.state.context.host)
    }

    async fn attempt(
        &mut self,
        attempt: u8,
        executor: &AccountId,
        deadline: Instant,
        out: &mpsc::Sender<Relayed>,
        cancel: &CancellationToken,
    ) -> Result<Balance, Attempt> {
        let request = ExecuteRequest {
            authorization: self.authorized.authorization.clone(),
            epoch: self.epoch.index,
            attempt,
            header: self.authorized.header.clone(),
            prompt_tokens: self.prompt_tokens.clone(),
            stop: self.stop.clone(),
            constraint: self.constraint.clone(),
        };
        let opened = tokio::select! {
            () = cancel.cancelled() => return Err(Attempt::HungUp { price: 0 }),
            opened = tokio::time::timeout_at(deadline, self.open(executor, request)) => opened,
        };
        let (first, execution) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                let external = HttpError::bad_upstream("The executor cannot be reached.").because(&error);
                return Err(Attempt::Next { error: external, outcome: "unreachable" });
            }
            Err(_) => {
                return Err(Attempt::Next {
                    error: HttpError::timeout("No executor answered in time."),
                    outcome: "timeout",
                })
            }
        };
        match first {
            ExecuteEvent::Accepted => {}
            ExecuteEvent::Refused(refusal) => return Err(refused(refusal)),
            _ => {
                let error = HttpError::bad_upstream("The executor broke the protocol.");
                return Err(Attempt::Next { error, outcome: "broken" });
            }
        }
        self.record_started(attempt, executor);
        self.relay(executor, execution, deadline, out, cancel).await
    }

    /// Forwards to another host, or to this one when it is the only one.
    async fn open(
        &self,
        executor: &AccountId,
        request: ExecuteRequest,
    ) -> Result<(ExecuteEvent, Execution), PeerError> {
        if *executor != self.state.context.host {
            return self.state.peers.execute(executor, &request).await;
        }
        let (sender, mut events) = mpsc::channel(self.state.config.stream_buffer);
        let (control, said) = oneshot::channel();
        let (hang_up, interest) = watch::channel(None);
        let handler = self.state.executor.clone();
        self.state.tasks.spawn(async move { handler.execute(request, sender, interest).await });
        // Ends when the execution is dropped or through: then its control is gone too.
        self.state.tasks.spawn(async move {
            let said = said.await.map_or(HangUp::Lost, HangUp::Said);
            hang_up.send_replace(Some(said));
        });
        let first = events.recv().await.ok_or(PeerError::Broken("no answer".into()))?;
        Ok((first, Execution::new(events, control)))
    }

    /// Puts `Started` into the outbox, beside the answer and not before it.
    fn record_started(&mut self, attempt: u8, executor: &AccountId) {
        let started = Started {
            authorization: self.authorized.authorization.clone(),
            epoch: self.epoch.index,
            attempt,
            executor: executor.clone(),
        };
        let deadline = started.authorization.authorization.expires_at;
        self.promised.keep(deadline);
        let outbox = self.state.context.outbox.clone();
        self.state.tasks.spawn(async move {
            if let Err(error) = outbox.enqueue(&Item::Start(started), deadline).await {
                // The executor sends its own when this one does not appear.
                tracing::error!(target: "starling::gateway", %error, "Started cannot be queued");
            }
        });
    }

    async fn relay(
        &self,
        executor: &AccountId,
        mut execution: Execution,
        deadline: Instant,
        out: &mpsc::Sender<Relayed>,
        cancel: &CancellationToken,
    ) -> Result<Balance, Attempt> {
        let token_timeout = Duration::from_millis(self.state.config.token_timeout_ms);
        let attempts = u32::from(self.state.config.max_attempts.max(1));
        let share = Duration::from_millis(self.state.config.first_token_timeout_ms) / attempts;
        let mut growing =
            Growing { builder: TranscriptBuilder::new(self.authorized.header.clone()), tokens: Vec::new() };
        loop {
            // Before the first token an executor has its share of the time; afterwards each token has its own.
            let until = match growing.tokens.is_empty() {
                true => deadline.min(Instant::now() + share),
                false => Instant::now() + token_timeout,
            };
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    return Err(self.hung_up(execution, &growing));
                }
                event = tokio::time::timeout_at(until, execution.events.recv()) => event,
            };
            match event {
                Ok(Some(ExecuteEvent::Token { text, record })) => {
                    let relayed = match self.grow(&mut growing, text, record) {
                        Ok(relayed) => relayed,
                        Err(reason) => {
                            return Err(broken_off(execution, &growing, "broken", reason));
                        }
                    };
                    if !self.deliver(relayed, out, cancel, token_timeout).await {
                        return Err(self.hung_up(execution, &growing));
                    }
                }
                Ok(Some(ExecuteEvent::Done { text, finish_reason, receipt })) => {
                    return self.done(executor, growing, text, finish_reason, *receipt, out).await;
                }
                Ok(Some(ExecuteEvent::Failed)) => {
                    return Err(broken_off(execution, &growing, "failed", "the executor failed"));
                }
                // Its ML nodes were fuller than it knew when it accepted.
                Ok(Some(ExecuteEvent::Refused(refusal))) if growing.tokens.is_empty() => {
                    execution.end(ExecuteControl::Reassigned);
                    return Err(refused(refusal));
                }
                Ok(Some(ExecuteEvent::Accepted | ExecuteEvent::Refused(_))) => {
                    return Err(broken_off(execution, &growing, "broken", "an event out of order"));
                }
                Ok(None) => return Err(broken_off(execution, &growing, "broken", "the connection broke")),
                Err(_) => return Err(broken_off(execution, &growing, "timeout", "no token in time")),
            }
        }
    }

    /// The executor ends the answer where it is; that part is paid for.
    fn hung_up(&self, execution: Execution, growing: &Growing) -> Attempt {
        execution.end(ExecuteControl::Cancelled);
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let tokens = count(growing.tokens.len()).max(1);
        Attempt::HungUp { price: self.profile.price(count(self.prompt_tokens.len()), tokens) }
    }

    fn grow(
        &self,
        growing: &mut Growing,
        text: String,
        record: TokenRecord,
    ) -> Result<Relayed, &'static str> {
        record.check(self.profile.top_k).map_err(|_| "an invalid record")?;
        if growing.tokens.len() >= self.authorized.header.max_tokens as usize {
            return Err("more tokens than were asked for");
        }
        let token = record.chosen().map(|chosen| chosen.token).ok_or("an invalid record")?;
        if growing.tokens.is_empty() {
            self.state.metrics.first_token_seconds.observe(self.received.elapsed().as_secs_f64());
        }
        growing.builder.push(record.clone());
        growing.tokens.push(token);
        Ok(Relayed::Token { text, record, token, window_hash: growing.builder.running_hash() })
    }

    /// False when the client is gone, or does not read for so long that it might as well be.
    async fn deliver(
        &self,
        relayed: Relayed,
        out: &mpsc::Sender<Relayed>,
        cancel: &CancellationToken,
        timeout: Duration,
    ) -> bool {
        tokio::select! {
            () = cancel.cancelled() => false,
            sent = tokio::time::timeout(timeout, out.send(relayed)) => matches!(sent, Ok(Ok(()))),
        }
    }

    async fn done(
        &self,
        executor: &AccountId,
        growing: Growing,
        text: String,
        finish_reason: FinishReason,
        receipt: SignedReceipt,
        out: &mpsc::Sender<Relayed>,
    ) -> Result<Balance, Attempt> {
        let (transcript, _) = growing.builder.finish();
        if let Err(reason) = self.check_receipt(executor, &receipt, &transcript, &growing.tokens) {
            let error = HttpError::bad_upstream("The executor's receipt does not hold.").because_of(reason);
            return Err(Attempt::Final(error));
        }
        let finished = receipt.receipt.finished.clone();
        let price = self.profile.price(finished.prompt_tokens, finished.completion_tokens);
        let proof = Proof { text, finish_reason, receipt: receipt.clone(), transcript };
        if out.send(Relayed::Done(Box::new(proof))).await.is_err() {
            return Err(Attempt::HungUp { price });
        }
        self.state.metrics.delivered_tokens.inc_by(finished.completion_tokens.into());
        if let Err(error) = self.state.context.store.put_receipt(&receipt).await {
            // The client has its own copy.
            tracing::error!(target: "starling::gateway", %error, "a receipt cannot be stored");
        }
        let delivered =
            Delivered { request_id: finished.request_id, response_hash: response_hash(&growing.tokens) };
        let schedule = &self.view.tick.epoch.schedule;
        let deadline = self.view.number().saturating_add(schedule.expiry_blocks.saturating_mul(2));
        if let Err(error) = self.state.context.outbox.enqueue(&Item::Deliver(delivered), deadline).await {
            tracing::error!(target: "starling::gateway", %error, "Delivered cannot be queued");
        }
        Ok(price)
    }

    fn check_receipt(
        &self,
        executor: &AccountId,
        signed: &SignedReceipt,
        transcript: &Transcript,
        tokens: &[u32],
    ) -> Result<(), &'static str> {
        let receipt = &signed.receipt;
        let finished = &receipt.finished;
        let worker = self.view.hosts.get(executor).map(|info| &info.worker);
        let same_count =
            |count: u32, length: usize| usize::try_from(count).is_ok_and(|count| count == length);
        if worker != Some(&AccountId::from(signed.worker)) {
            return Err("it is signed by another key");
        }
        if receipt.executor != *executor
            || receipt.epoch != self.epoch.index
            || receipt.epoch_seed != self.epoch.seed
        {
            return Err("it names another executor, epoch or seed");
        }
        if finished.request_id != transcript.header.id()
            || finished.transcript_root != transcript.root()
            || finished.response_hash != response_hash(tokens)
            || !same_count(finished.prompt_tokens, self.prompt_tokens.len())
            || !same_count(finished.completion_tokens, tokens.len())
        {
            return Err("it is about another answer");
        }
        signed.verify(&self.state.context.genesis).then_some(()).ok_or("its signature does not hold")
    }
}

/// The error that tells the client more: that everybody is full, rather than that somebody was down.
fn better(last: Option<HttpError>, new: HttpError) -> HttpError {
    match last {
        Some(last) if last.external().status == 429 => last,
        _ => new,
    }
}

/// What a refusal means: another attempt, or an answer for the client.
fn refused(refusal: Refusal) -> Attempt {
    let error = match refusal {
        Refusal::Busy { retry_after_s } => {
            HttpError::full("All executors are busy.", retry_after_s.clamp(1, 60))
        }
        Refusal::NoModel | Refusal::NotDrawn | Refusal::Unavailable => {
            ApiError::unavailable("The executor does not serve at the moment.").into()
        }
        Refusal::NotFunded => {
            HttpError::payment("The deposit or the key's limit does not cover the request.")
        }
        Refusal::Duplicate => HttpError::conflict("The request id was used before; sign a new nonce."),
        Refusal::NotAuthorized | Refusal::Invalid => {
            HttpError::bad_upstream("The executor refused the request.")
        }
    };
    let error = error.because_of(format!("{refusal:?}"));
    if refusal.is_worth_another() {
        Attempt::Next { error, outcome: "refused" }
    } else {
        Attempt::Final(error)
    }
}

/// Before the first token another executor takes over; afterwards the client gets an error: what it has seen cannot be
/// taken back, and another executor's tokens would not continue it.
fn broken_off(execution: Execution, growing: &Growing, outcome: &'static str, reason: &str) -> Attempt {
    let error = HttpError::bad_upstream("The executor broke off.").because_of(reason);
    if growing.tokens.is_empty() {
        execution.end(ExecuteControl::Reassigned);
        Attempt::Next { error, outcome }
    } else {
        Attempt::Final(error)
    }
}
