//! Hosts that are not there when it matters.

use super::{Behaviour, OtherWeights, Seen, Written};
use crate::answer::Task;
use rand_chacha::ChaCha8Rng;
use starling_primitives::{
    profile::Profile,
    verdict::{Figures, Outcome},
};

/// Serves other weights, and no transcript to anybody.
#[derive(Debug)]
pub struct Withholder;

impl Behaviour for Withholder {
    fn name(&self) -> String {
        "withholds transcripts".into()
    }

    fn write(&mut self, task: &Task, profile: &Profile, rng: &mut ChaCha8Rng) -> Option<Written> {
        OtherWeights.write(task, profile, rng)
    }

    fn serves(&self) -> bool {
        false
    }
}

/// Rents hardware for the race, answers nobody, and approves what it must verify without looking.
#[derive(Debug)]
pub struct Renter {
    /// How much faster than its own hardware it races.
    pub factor: u32,
}

impl Behaviour for Renter {
    fn name(&self) -> String {
        format!("rents {} times its hardware for the race", self.factor)
    }

    fn write(&mut self, _: &Task, _: &Profile, _: &mut ChaCha8Rng) -> Option<Written> {
        None
    }

    fn judge(&mut self, seen: Seen) -> Outcome {
        Outcome::Measured(Figures { tokens: seen.tokens, distance_sum: 0, margin_sum: 0 })
    }

    fn proves(&self, _: bool) -> bool {
        false
    }

    fn races(&self, capacity: u32) -> u32 {
        capacity.saturating_mul(self.factor)
    }
}
