//! What hosts do. A host is honest in everything that its behaviour does not override.

mod absent;
mod gateway;
mod plants;
mod sprint;
mod text;
mod verifiers;
mod weights;

pub use absent::{Renter, Withholder};
pub use gateway::{Gateway, Starver};
pub use plants::FalsePlanter;
pub use sprint::Fabricator;
pub use text::{BackFilled, Bent, Canned};
pub use verifiers::{Lazy, Liar, Shielding};
pub use weights::{Class, OtherWeights, Quantised};

use crate::{
    answer::{Task, Written},
    calibrated::promised,
};
use rand_chacha::ChaCha8Rng;
use starling_primitives::{profile::Profile, sprint::SprintVerdict, verdict::Outcome, AccountId};
use std::fmt;

/// What a verifier has before it when it judges.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What an honest check finds.
    pub found: Outcome,
    /// Whether the executor has the same operator.
    pub friend: bool,
    /// Tokens of the answer, as the chain knows them.
    pub tokens: u32,
}

/// A leaf of a sprint commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// A transcript that replays and lies within the limits.
    Good,
    /// Something that does not replay.
    Fabricated,
    /// Nothing.
    Missing,
}

/// What a gateway does with a request whose executor was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Forwards and records it.
    Forward,
    /// Records the next attempt, as if the executor were down.
    Skip,
    /// Records it, and never forwards it.
    Swallow,
}

/// What a host does at each occasion.
pub trait Behaviour: fmt::Debug {
    /// What the tables call it.
    fn name(&self) -> String;

    /// Whether a conviction would be a false one.
    fn is_honest(&self) -> bool {
        false
    }

    /// Executor: the answer. `None`: does not answer.
    fn write(&mut self, task: &Task, _profile: &Profile, _rng: &mut ChaCha8Rng) -> Option<Written> {
        Some(Written::honest(task))
    }

    /// Executor: whether verifiers get its transcripts.
    fn serves(&self) -> bool {
        true
    }

    /// Verifier: the verdict.
    fn judge(&mut self, seen: Seen) -> Outcome {
        seen.found
    }

    /// Verifier: whether it shows a transcript that does not replay to the chain.
    fn proves(&self, _friend: bool) -> bool {
        true
    }

    /// Gateway: what it does with a request for this executor.
    fn route(&self, _executor: &AccountId) -> Route {
        Route::Forward
    }

    /// Planter: who answers its plants; `None`: it plants nothing.
    fn plants(&self) -> Option<Box<dyn Behaviour>> {
        Some(Box::new(OtherWeights))
    }

    /// Verifier: whether it contests a plant that it approved, given whether the answer was good.
    fn contests(&self, is_good: bool) -> bool {
        is_good
    }

    /// Sprint: nonces it commits to, given what its own hardware does.
    fn races(&self, capacity: u32) -> u32 {
        capacity
    }

    /// Sprint: what it has for a nonce.
    fn leaf(&self, _nonce: u32) -> Leaf {
        Leaf::Good
    }

    /// Sprint: its verdict on another's commitment.
    fn judge_sprint(&mut self, _friend: bool, found: SprintVerdict) -> SprintVerdict {
        found
    }
}

/// Does everything right.
#[derive(Debug)]
pub struct Honest;

impl Behaviour for Honest {
    fn name(&self) -> String {
        "honest".into()
    }

    fn is_honest(&self) -> bool {
        true
    }
}

/// Honest on the noisiest device that the calibration allows: its figures exhaust every promised tail.
#[derive(Debug)]
pub struct Noisy;

impl Behaviour for Noisy {
    fn name(&self) -> String {
        "honest, promised worst".into()
    }

    fn is_honest(&self) -> bool {
        true
    }

    fn write(&mut self, task: &Task, profile: &Profile, rng: &mut ChaCha8Rng) -> Option<Written> {
        let figures = promised(task.header.max_tokens, &profile.calibration, rng);
        Some(Written { figures: Some(figures), ..Written::honest(task) })
    }
}
