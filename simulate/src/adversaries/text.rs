//! Executors that sell another text than the true model's draw, dressed up with its probabilities.

use super::{Behaviour, Written};
use crate::answer::Task;
use rand_chacha::ChaCha8Rng;
use starling_primitives::{
    profile::Profile,
    sampler::{score_on, SCORE_UNIT},
    transcript::{Candidate, TokenRecord, MAX_TAIL_Q, Q_UNIT},
};

/// Median by which the model that writes moves a logit, in nats.
const WRITER: f64 = 3.0;

/// The token that another model writes at a position.
fn written(task: &Task, position: u32, rng: &mut ChaCha8Rng) -> u32 {
    let record = task.says(position).moved(WRITER, rng).record(&task.tape, position);
    record.chosen().expect("a record of its own").token
}

fn choosing(candidates: Vec<Candidate>, token: u32) -> TokenRecord {
    let chosen = candidates.iter().position(|candidate| candidate.token == token).unwrap_or_default();
    TokenRecord { candidates, chosen: chosen as u8 }
}

/// Writes with another model and commits to what the true one says of each token.
#[derive(Debug)]
pub struct BackFilled;

impl Behaviour for BackFilled {
    fn name(&self) -> String {
        "back-filled".into()
    }

    fn write(&mut self, task: &Task, _: &Profile, rng: &mut ChaCha8Rng) -> Option<Written> {
        let record = |position| {
            let token = written(task, position, rng);
            choosing(task.says(position).candidates(), token)
        };
        Some(Written::dishonest(task.positions().map(record).collect()))
    }
}

/// Back-fills, and bends the probabilities by as little as makes the tape agree.
#[derive(Debug)]
pub struct Bent;

impl Behaviour for Bent {
    fn name(&self) -> String {
        "back-filled and bent to the tape".into()
    }

    fn write(&mut self, task: &Task, _: &Profile, rng: &mut ChaCha8Rng) -> Option<Written> {
        let record = |position| {
            let token = written(task, position, rng);
            bend(task, position, token)
        };
        Some(Written::dishonest(task.positions().map(record).collect()))
    }
}

/// The true candidates with the token made just probable enough to win.
fn bend(task: &Task, position: u32, token: u32) -> TokenRecord {
    let mut candidates = task.says(position).candidates();
    let score = |candidate: &Candidate| score_on(&task.tape, position, candidate, &task.header.sampling);
    let best = candidates.iter().filter(|c| c.token != token).map(score).max();
    let own = candidates.iter().find(|candidate| candidate.token == token).copied();
    let (Some(best), Some(own)) = (best, own) else { return choosing(candidates, token) };
    let behind = best.saturating_sub(score(&own)).max(-1) + 1;
    let steps = u16::try_from(behind / (SCORE_UNIT / i64::from(Q_UNIT)) + 1).unwrap_or(u16::MAX);
    // What the token cannot gain, because no probability is above 1, the others lose.
    let (gain, rest) = (steps.min(own.q), steps.saturating_sub(own.q));
    for candidate in &mut candidates {
        if candidate.token == token {
            candidate.q -= gain;
        } else {
            candidate.q = candidate.q.saturating_add(rest);
        }
    }
    candidates.retain(|candidate| candidate.token == token || candidate.q <= MAX_TAIL_Q);
    candidates.sort_unstable_by_key(|candidate| (candidate.q, candidate.token));
    choosing(candidates, token)
}

/// Sells the same answer to everybody: computed once, honestly, for the first who asked.
#[derive(Debug, Default)]
pub struct Canned(Option<Vec<TokenRecord>>);

impl Behaviour for Canned {
    fn name(&self) -> String {
        "canned answers".into()
    }

    fn write(&mut self, task: &Task, _: &Profile, _: &mut ChaCha8Rng) -> Option<Written> {
        if let Some(records) = &self.0 {
            return Some(Written::dishonest(records.clone()));
        }
        let first = Written::honest(task);
        self.0 = Some(first.records.clone());
        Some(first)
    }
}
