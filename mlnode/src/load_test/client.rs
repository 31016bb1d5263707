//! Clients of many manners.

use super::node::MODEL;
use crate::calibrate::Question;
use futures::StreamExt;
use starling_mlnode_api::{
    ClientError, GenerateEvent, GenerateRequest, MlNode, MlNodeClient, Perturbation, VerifyItem,
    VerifyOutcome, VerifyRequest,
};
use starling_primitives::{verdict::Figures, H256};
use std::time::{Duration, Instant};

/// Pause of a slow reader before each event.
const SLOW: Duration = Duration::from_millis(20);
/// Events that a slow reader takes slowly.
const SLOW_EVENTS: usize = 30;

/// Strength of the noise in answers that are to be wrong.
const NOISE_MILLI: u32 = 2_000;

/// How a client takes its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As fast as it comes.
    Reads,
    /// Slowly.
    ReadsSlowly,
    /// Hangs up after so many tokens.
    HangsUp(usize),
    /// Has it verified.
    Verifies,
    /// Asks for a wrong one, as hosts do to test verifiers, and has it verified.
    Plants,
}

impl Manner {
    /// Of sixteen one reads slowly, one hangs up (at once, or after some tokens), one has its answer verified, and one asks
    /// for a wrong answer and has that verified.
    pub(super) fn of(number: u32) -> Self {
        match number % 16 {
            3 => Self::ReadsSlowly,
            9 => Self::HangsUp((number / 16 % 24) as usize),
            6 => Self::Verifies,
            13 => Self::Plants,
            _ => Self::Reads,
        }
    }
}

/// What came of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    /// Seconds until the first token; of those who read at their best only.
    pub(super) first_token: Option<f64>,
    /// Seconds between tokens; likewise.
    pub(super) gaps: Vec<f64>,
    pub(super) tokens: u64,
    pub(super) hung_up: bool,
    /// Refusals before it was taken.
    pub(super) refused: u32,
    /// What verification said of an honest answer.
    pub(super) honest: Option<Figures>,
    /// What it said of a wrong one.
    pub(super) planted: Option<Figures>,
}

/// Asks, waiting as long as it is told whenever it is refused, and takes the answer. An error is what no client should see.
pub(super) async fn ask(
    client: &MlNodeClient,
    question: Question,
    manner: Manner,
) -> Result<Answered, String> {
    let noise = Perturbation { seed: H256(question.header.nonce), strength_milli: NOISE_MILLI };
    let request = GenerateRequest {
        model: MODEL.into(),
        header: question.header,
        prompt_tokens: question.prompt,
        tape_seed: question.tape_seed,
        constraint: None,
        stop: Vec::new(),
        logprobs: false,
        perturbation: (manner == Manner::Plants).then_some(noise),
    };
    let mut answered = Answered::default();
    let (mut events, mut before) = loop {
        let sent = Instant::now();
        match client.generate(&request).await {
            Ok(events) => break (events, sent),
            Err(ClientError::Refused { status: 429, retry_after: Some(wait), .. }) => {
                answered.refused += 1;
                tokio::time::sleep(wait).await;
            }
            Err(error) => return Err(describe(&error)),
        }
    };
    let mut taken = 0;
    loop {
        if manner == Manner::HangsUp(answered.tokens as usize) {
            answered.hung_up = true;
            return Ok(answered);
        }
        if manner == Manner::ReadsSlowly && taken < SLOW_EVENTS {
            tokio::time::sleep(SLOW).await;
        }
        taken += 1;
        match events.next().await {
            Some(Ok(GenerateEvent::Token { .. })) => {
                let now = Instant::now();
                let seconds = now.duration_since(before).as_secs_f64();
                before = now;
                answered.tokens += 1;
                match (manner, answered.tokens) {
                    (Manner::ReadsSlowly, _) => {}
                    (_, 1) => answered.first_token = Some(seconds),
                    _ => answered.gaps.push(seconds),
                }
            }
            Some(Ok(GenerateEvent::Window { .. })) => {}
            Some(Ok(GenerateEvent::Done(done))) => {
                if u64::from(done.completion_tokens) != answered.tokens {
                    return Err("tokens were lost".into());
                }
                match manner {
                    Manner::Verifies => {
                        answered.honest = Some(verify(client, request, done.transcript).await?)
                    }
                    Manner::Plants => {
                        answered.planted = Some(verify(client, request, done.transcript).await?)
                    }
                    Manner::Reads | Manner::ReadsSlowly | Manner::HangsUp(_) => {}
                }
                return Ok(answered);
            }
            Some(Ok(GenerateEvent::Error(detail))) => return Err(format!("{detail:?}")),
            Some(Err(error)) => return Err(describe(&error)),
            None => return Err("the stream was cut off".into()),
        }
    }
}

/// Has an answer verified by the node that gave it; every answer must replay.
async fn verify(
    client: &MlNodeClient,
    request: GenerateRequest,
    transcript: Vec<u8>,
) -> Result<Figures, String> {
    let GenerateRequest { prompt_tokens, tape_seed, constraint, .. } = request;
    let item = VerifyItem { transcript, prompt_tokens, tape_seed, constraint };
    let request = VerifyRequest { model: MODEL.into(), items: vec![item] };
    let response = client.verify(&request).await.map_err(|error| describe(&error))?;
    match response.outcomes.as_slice() {
        [VerifyOutcome::Figures(figures)] => Ok(*figures),
        other => Err(format!("an answer was not measured: {other:?}")),
    }
}

/// An error with its sources.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
