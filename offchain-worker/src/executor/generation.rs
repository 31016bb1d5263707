//! One generation: from the ML node's events to the gateway's, and to the transcript.

use super::HangUp;
use crate::{
    fleet::{with_sources, Fleet, Place},
    peer::protocol::{ExecuteControl, ExecuteEvent, ExecuteRequest, FinishReason},
};
use codec::Decode;
use futures::StreamExt;
use starling_mlnode_api::{self as api, EventStream, GenerateEvent, GenerateRequest, MlNode, Perturbation};
use starling_primitives::{
    profile::Profile,
    transcript::{Candidate, TokenRecord, Transcript, TranscriptBuilder},
    H256,
};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How a generation ended.
pub(super) enum Ended {
    /// There is an answer, if only the part that came before the client hung up.
    Complete { transcript: Transcript, tokens: Vec<u32>, text: String, finish_reason: FinishReason },
    /// Another executor took over, or the gateway vanished before it had a token.
    Abandoned,
    /// The ML nodes broke off.
    Failed { reason: String },
    /// Every ML node is full, whatever this host has counted; there is no token yet.
    Busy,
}

/// What a generation needs.
pub(super) struct Generation<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) request: &'a ExecuteRequest,
    pub(super) profile: &'a Profile,
    pub(super) tape_seed: H256,
    pub(super) events: &'a mpsc::Sender<ExecuteEvent>,
    /// True once the payload is durable: before, no token leaves.
    pub(super) gate: watch::Receiver<bool>,
    pub(super) event_timeout: Duration,
    /// Noise on the model, for a plant.
    pub(super) perturbation: Option<Perturbation>,
}

/// What has been generated so far.
struct Progress {
    builder: TranscriptBuilder,
    tokens: Vec<u32>,
    /// Tokens that reached the gateway's stream.
    sent: usize,
}

impl Progress {
    fn complete(self, text: String, finish_reason: FinishReason) -> Ended {
        let (transcript, _) = self.builder.finish();
        Ended::Complete { transcript, tokens: self.tokens, text, finish_reason }
    }
}

impl Generation<'_> {
    /// Generates on the node of `place`; on another one when that fails before its first token.
    pub(super) async fn run(&self, place: Place, mut hang_up: watch::Receiver<Option<HangUp>>) -> Ended {
        let request = GenerateRequest {
            model: self.profile.name_lossy(),
            header: self.request.header.clone(),
            prompt_tokens: self.request.prompt_tokens.clone(),
            tape_seed: self.tape_seed,
            constraint: self.request.constraint.clone(),
            stop: self.request.stop.clone(),
            logprobs: true,
            perturbation: self.perturbation,
        };
        let mut tried = Vec::new();
        let mut place = place;
        loop {
            let node = place.node().clone();
            let mut progress = Progress {
                builder: TranscriptBuilder::new(self.request.header.clone()),
                tokens: Vec::new(),
                sent: 0,
            };
            let beginning = tokio::select! {
                biased;
                () = forgotten(&mut hang_up) => return Ended::Abandoned,
                beginning = node.client.generate(&request) => beginning,
            };
            let mut full = false;
            let reason = match beginning {
                Ok(stream) => match self.relay(stream, &mut progress, hang_up.clone()).await {
                    Relayed::Ended { text, finish_reason } => return progress.complete(text, finish_reason),
                    Relayed::Abandoned => return Ended::Abandoned,
                    Relayed::Broken(reason) => reason,
                },
                Err(error) => {
                    if !error.is_retryable() {
                        return Ended::Failed { reason: with_sources(&error) };
                    }
                    full = error.is_overloaded();
                    if !full {
                        node.report_failure(&with_sources(&error));
                    }
                    with_sources(&error)
                }
            };
            if !progress.tokens.is_empty() {
                // Another node's numbers may differ in the last bit: what was streamed could not be continued.
                return Ended::Failed { reason };
            }
            tried.push(node.spec().id.clone());
            place = match self.fleet.take_place(self.profile, &tried) {
                Ok(next) => next,
                Err(_) if full => return Ended::Busy,
                Err(_) => return Ended::Failed { reason },
            };
        }
    }

    async fn relay(
        &self,
        mut stream: EventStream<GenerateEvent>,
        progress: &mut Progress,
        mut hang_up: watch::Receiver<Option<HangUp>>,
    ) -> Relayed {
        let mut cancelled = false;
        loop {
            let event = tokio::select! {
                biased;
                ended = interest(&mut hang_up), if !cancelled => {
                    match ended {
                        HangUp::Said(ExecuteControl::Reassigned) => return Relayed::Abandoned,
                        // Whether the gateway takes another executor now, nobody can say: it has no token of ours.
                        HangUp::Lost if progress.sent == 0 => return Relayed::Abandoned,
                        HangUp::Said(ExecuteControl::Cancelled) | HangUp::Lost => cancelled = true,
                    }
                    if !progress.tokens.is_empty() {
                        return Relayed::cancelled();
                    }
                    // An answer has at least one token: wait for the first, then stop.
                    continue;
                }
                event = stream.next() => event,
                // Nobody waits for that token but the host itself.
                () = tokio::time::sleep(self.event_timeout), if cancelled => return Relayed::Abandoned,
            };
            match event {
                Some(Ok(GenerateEvent::Token { token, text, candidates, .. })) => {
                    let record = match self.record(token, &candidates) {
                        Ok(record) => record,
                        Err(reason) => return Relayed::Broken(reason),
                    };
                    progress.builder.push(record.clone());
                    progress.tokens.push(token);
                    if cancelled {
                        return Relayed::cancelled();
                    }
                    if progress.sent == 0 && self.gate.clone().wait_for(|durable| *durable).await.is_err() {
                        return Relayed::Abandoned;
                    }
                    // A gateway that does not read for so long is gone, or its client is.
                    let sending = self.events.send(ExecuteEvent::Token { text, record });
                    match tokio::time::timeout(self.event_timeout, sending).await {
                        Ok(Ok(())) => progress.sent += 1,
                        Ok(Err(_)) | Err(_) if progress.sent == 0 => return Relayed::Abandoned,
                        Ok(Err(_)) | Err(_) => return Relayed::cancelled(),
                    }
                }
                Some(Ok(GenerateEvent::Window { .. })) => {}
                Some(Ok(GenerateEvent::Done(done))) => return self.done(progress, done),
                Some(Ok(GenerateEvent::Error(detail))) => return Relayed::Broken(detail.message),
                Some(Err(error)) => return Relayed::Broken(with_sources(&error)),
                None => return Relayed::Broken("the ML node broke off".into()),
            }
        }
    }

    /// The record of a token, checked: the builder takes valid ones only.
    fn record(&self, token: u32, candidates: &[(u32, u16)]) -> Result<TokenRecord, String> {
        let candidates: Vec<_> =
            candidates.iter().map(|(token, q)| Candidate { token: *token, q: *q }).collect();
        let chosen = candidates
            .iter()
            .position(|candidate| candidate.token == token)
            .and_then(|index| u8::try_from(index).ok())
            .ok_or("the ML node chose a token that is no candidate")?;
        let record = TokenRecord { candidates, chosen };
        record
            .check(self.profile.top_k)
            .map_err(|error| format!("the ML node's record is invalid: {error}"))?;
        Ok(record)
    }

    /// The node's transcript must be the one that its events amount to: the host answers for it with its bond.
    fn done(&self, progress: &Progress, done: api::Done) -> Relayed {
        let (ours, _) = progress.builder.clone().finish();
        let root = ours.root();
        let theirs = Transcript::decode(&mut done.transcript.as_slice()).map(|transcript| transcript.root());
        if done.transcript_root != root || theirs != Ok(root) {
            return Relayed::Broken("the ML node's transcript is not what it streamed".into());
        }
        let finish_reason = match done.finish_reason {
            api::FinishReason::Stop => FinishReason::Stop,
            api::FinishReason::Length => FinishReason::Length,
        };
        Relayed::Ended { text: done.text, finish_reason }
    }
}

enum Relayed {
    Ended { text: String, finish_reason: FinishReason },
    Abandoned,
    Broken(String),
}

impl Relayed {
    fn cancelled() -> Self {
        Self::Ended { text: String::new(), finish_reason: FinishReason::Cancelled }
    }
}

/// Resolves when nobody will ever want this answer: there is no token yet, and another executor may take over.
pub(super) async fn forgotten(hang_up: &mut watch::Receiver<Option<HangUp>>) {
    let said = |ended: &Option<HangUp>| {
        matches!(ended, Some(HangUp::Lost | HangUp::Said(ExecuteControl::Reassigned)))
    };
    // A gateway whose handle is gone without a word is lost as well.
    let _ = hang_up.wait_for(said).await;
}

/// Resolves when the gateway's interest ends.
async fn interest(hang_up: &mut watch::Receiver<Option<HangUp>>) -> HangUp {
    match hang_up.wait_for(Option::is_some).await {
        Ok(ended) => ended.unwrap_or(HangUp::Lost),
        Err(_) => HangUp::Lost,
    }
}
