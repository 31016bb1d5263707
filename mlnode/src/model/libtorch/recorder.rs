//! Steps of one new token per sequence, recorded once and then played: the time to launch their kernels one by one is longer than
//! that of most of the kernels.

use super::{
    super::ModelError,
    attention::Attention,
    kernels::Best,
    native::Graph,
    ops::{vector, During},
    plan::{Numbers, Plan},
};
use std::collections::HashMap;
use tch::{Device, Tensor};

/// Recorded steps at most: each has activations of its own.
const STEPS_MAX: usize = 64;
/// Lengths up to this one share a step.
const LENGTH_MIN: u64 = 512;

/// What a step gives: normalised rows whose logits are wanted, these, and the best of each.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) wanted: Tensor,
    pub(super) logits: Tensor,
    pub(super) best: Best,
}

impl Found {
    fn again(&self) -> Self {
        let Self { wanted, logits, best: Best { found, totals } } = self;
        let best = Best { found: found.shallow_clone(), totals: totals.shallow_clone() };
        Self { wanted: wanted.shallow_clone(), logits: logits.shallow_clone(), best }
    }
}

/// The recorded steps.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    steps: HashMap<Key, Step>,
    /// Recording failed once: it would again.
    off: bool,
}

/// What is fixed in a recorded step: the sequences, and how many of the tokens of each are looked at, up to a power of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    rows: i64,
    length: i64,
}

#[derive(Debug)]
enum Step {
    /// Run once, kernel by kernel: what is made at the first use (work space, handles) must not be recorded.
    Seen,
    Recorded(Box<Recorded>),
}

#[derive(Debug)]
struct Recorded {
    graph: Graph,
    indices: Tensor,
    ranges: Tensor,
    found: Found,
}

impl Recorder {
    /// Plays the step of these sequences, after recording it when it comes for the second time. `None` when it is to be run
    /// kernel by kernel; nothing was done then.
    pub(super) fn play(
        &mut self,
        numbers: &Numbers,
        device: Device,
        run: impl FnOnce(Plan, &Attention) -> Result<Found, ModelError>,
    ) -> Result<Option<Found>, ModelError> {
        let [Some(ranges), None] = numbers.ranges() else { return Ok(None) };
        if self.off || !numbers.is_decoding() {
            return Ok(None);
        }
        let most = ranges.length_most.unsigned_abs().max(LENGTH_MIN);
        let key = Key { rows: numbers.rows, length: most.next_power_of_two() as i64 };
        match self.steps.get(&key) {
            None => {
                if self.steps.len() >= STEPS_MAX {
                    self.steps.clear();
                }
                self.steps.insert(key, Step::Seen);
                return Ok(None);
            }
            Some(Step::Seen) => {
                let copy = Numbers {
                    indices: numbers.indices.clone(),
                    rows: numbers.rows,
                    sequences: numbers.sequences.clone(),
                    single: numbers.single,
                };
                let inputs = (vector(&numbers.indices, device)?, vector(&ranges.all, device)?);
                let plan = Plan::over(copy, &inputs.0)?;
                let attention = Attention::together([Some(ranges.over(&inputs.1, key.length)?), None]);
                match Graph::record(|| run(plan, &attention)) {
                    Ok((graph, found)) => {
                        let (indices, ranges) = inputs;
                        let recorded = Recorded { graph, indices, ranges, found };
                        self.steps.insert(key, Step::Recorded(Box::new(recorded)));
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "steps cannot be recorded");
                        self.off = true;
                        return Ok(None);
                    }
                }
            }
            Some(Step::Recorded(_)) => {}
        }
        let Some(Step::Recorded(step)) = self.steps.get_mut(&key) else { return Ok(None) };
        let indices = vector(&numbers.indices, device)?;
        step.indices.f_copy_(&indices).during("copying an index")?;
        let ranges = vector(&ranges.all, device)?;
        step.ranges.f_copy_(&ranges).during("copying an index")?;
        step.graph.play()?;
        Ok(Some(step.found.again()))
    }
}
