//! Executors that run something else than the profile, and commit to what that says.

use super::{Behaviour, Written};
use crate::answer::Task;
use rand_chacha::ChaCha8Rng;
use starling_primitives::profile::Profile;

/// Median by which another model of the same kind moves a logit, in nats: above the coarsest quantisation measured.
const OTHER: f64 = 3.0;

fn moved(task: &Task, median: f64, rng: &mut ChaCha8Rng) -> Written {
    let record = |position| task.says(position).moved(median, rng).record(&task.tape, position);
    Written::dishonest(task.positions().map(record).collect())
}

/// Serves other weights under the profile's name.
#[derive(Debug)]
pub struct OtherWeights;

impl Behaviour for OtherWeights {
    fn name(&self) -> String {
        "other weights".into()
    }

    fn write(&mut self, task: &Task, _: &Profile, rng: &mut ChaCha8Rng) -> Option<Written> {
        Some(moved(task, OTHER, rng))
    }
}

/// A cheaper form of the profile's weights, with the measured median of what it moves a log-probability by.
#[derive(Clone, Copy, Debug)]
pub enum Class {
    /// f16 weights, f32 arithmetic.
    F16,
    /// bf16 weights, f32 arithmetic.
    Bf16,
    /// int8 by rows.
    Int8,
    /// int8 weights and activations.
    Int8Dynamic,
    /// int4 in groups of 32.
    Int4,
}

impl Class {
    /// Median of the absolute change of a log-probability, in nats: the 0.6B shape against f32, over the five most
    /// probable tokens of 512 positions. Their 99th percentiles are 3.2 to 4.4 medians: a normal distribution has 3.8.
    pub fn median(self) -> f64 {
        match self {
            Self::F16 => 2.7e-3,
            Self::Bf16 => 2.1e-2,
            Self::Int8 => 9e-2,
            Self::Int8Dynamic => 0.29,
            Self::Int4 => 1.7,
        }
    }
}

/// Serves quantised weights.
#[derive(Debug)]
pub struct Quantised(
    /// Which.
    pub Class,
);

impl Behaviour for Quantised {
    fn name(&self) -> String {
        match self.0 {
            Class::F16 => "f16 weights",
            Class::Bf16 => "bf16 weights",
            Class::Int8 => "int8 weights",
            Class::Int8Dynamic => "int8 weights and activations",
            Class::Int4 => "int4 weights",
        }
        .into()
    }

    fn write(&mut self, task: &Task, _: &Profile, rng: &mut ChaCha8Rng) -> Option<Written> {
        Some(moved(task, self.0.median(), rng))
    }
}
