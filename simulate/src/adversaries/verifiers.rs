//! Verifiers that do not verify.

use super::{Behaviour, Leaf, Route, Seen, Written};
use crate::answer::Task;
use rand_chacha::ChaCha8Rng;
use starling_primitives::{
    profile::Profile,
    sprint::SprintVerdict,
    verdict::{Figures, Outcome, DISTANCE_CLIP, MARGIN_CLIP},
    AccountId,
};

/// A verdict that looks like that of a perfect answer.
fn approval(tokens: u32) -> Outcome {
    Outcome::Measured(Figures { tokens, distance_sum: 2 * u64::from(tokens), margin_sum: 0 })
}

/// The worst verdict that the chain takes.
fn rejection(tokens: u32) -> Outcome {
    let all = |clip: u32| u64::from(clip) * u64::from(tokens);
    Outcome::Measured(Figures { tokens, distance_sum: all(DISTANCE_CLIP), margin_sum: all(MARGIN_CLIP) })
}

fn clean(found: SprintVerdict) -> SprintVerdict {
    SprintVerdict { failed: 0, fabricated: false, ..found }
}

/// Approves everything without looking.
#[derive(Debug)]
pub struct Lazy;

impl Behaviour for Lazy {
    fn name(&self) -> String {
        "lazy verifier".into()
    }

    fn judge(&mut self, seen: Seen) -> Outcome {
        approval(seen.tokens)
    }

    /// Planting is work.
    fn plants(&self) -> Option<Box<dyn Behaviour>> {
        None
    }

    /// To know when to would be work, too.
    fn contests(&self, _: bool) -> bool {
        false
    }

    fn proves(&self, _: bool) -> bool {
        false
    }

    fn judge_sprint(&mut self, _: bool, found: SprintVerdict) -> SprintVerdict {
        clean(found)
    }
}

/// Rejects what strangers do and approves what friends do.
#[derive(Debug)]
pub struct Liar;

impl Behaviour for Liar {
    fn name(&self) -> String {
        "lying verifier".into()
    }

    fn judge(&mut self, seen: Seen) -> Outcome {
        if seen.friend {
            approval(seen.tokens)
        } else {
            rejection(seen.tokens)
        }
    }

    fn proves(&self, _: bool) -> bool {
        false
    }

    fn judge_sprint(&mut self, friend: bool, found: SprintVerdict) -> SprintVerdict {
        if friend {
            clean(found)
        } else {
            SprintVerdict { failed: found.checked, fabricated: true, ..found }
        }
    }
}

/// Cheats as the inner behaviour does, and approves what friends do; honest towards strangers.
#[derive(Debug)]
pub struct Shielding(
    /// How it cheats.
    pub Box<dyn Behaviour>,
);

impl Behaviour for Shielding {
    fn name(&self) -> String {
        format!("{}, shielding friends", self.0.name())
    }

    fn write(&mut self, task: &Task, profile: &Profile, rng: &mut ChaCha8Rng) -> Option<Written> {
        self.0.write(task, profile, rng)
    }

    fn serves(&self) -> bool {
        self.0.serves()
    }

    fn judge(&mut self, seen: Seen) -> Outcome {
        if seen.friend {
            approval(seen.tokens)
        } else {
            self.0.judge(seen)
        }
    }

    fn proves(&self, friend: bool) -> bool {
        !friend && self.0.proves(friend)
    }

    fn route(&self, executor: &AccountId) -> Route {
        self.0.route(executor)
    }

    fn races(&self, capacity: u32) -> u32 {
        self.0.races(capacity)
    }

    fn leaf(&self, nonce: u32) -> Leaf {
        self.0.leaf(nonce)
    }

    fn judge_sprint(&mut self, friend: bool, found: SprintVerdict) -> SprintVerdict {
        if friend {
            clean(found)
        } else {
            self.0.judge_sprint(friend, found)
        }
    }
}
