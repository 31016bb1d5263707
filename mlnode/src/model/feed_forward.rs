//! The part of a layer that looks at each row alone: a gated product, of the whole layer or of a few experts.

use super::{
    experts::{Mixture, MixtureScratch},
    weights::Weights,
    ModelConfig, ModelError,
};
use crate::kernel::{Matrix, Pool, RowBuffer, Vector};

/// The feed-forward part of a layer.
#[derive(Debug)]
pub(super) enum FeedForward {
    /// One for all rows.
    Dense(Gated),
    /// Some of many experts for each row.
    Mixture(Mixture),
}

/// `down (silu(gate x) * up x)`.
#[derive(Debug)]
pub(super) struct Gated {
    /// Gate and up projections, one below the other.
    pub(super) gate_up: Matrix,
    pub(super) down: Matrix,
}

/// Activations, kept so that no step allocates them.
#[derive(Debug)]
pub(super) struct FeedForwardScratch {
    dense: GatedScratch,
    mixture: Option<MixtureScratch>,
}

/// Activations between the two products.
#[derive(Debug)]
pub(super) struct GatedScratch {
    pub(super) gate_up: RowBuffer,
    pub(super) gated: RowBuffer,
}

impl FeedForwardScratch {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let mixture = config.experts.as_ref().map(|experts| MixtureScratch::new(config.hidden_size, experts));
        Self { dense: GatedScratch::new(config.intermediate_size), mixture }
    }
}

impl GatedScratch {
    pub(super) fn new(width: u32) -> Self {
        Self { gate_up: RowBuffer::new(2 * width as usize), gated: RowBuffer::new(width as usize) }
    }

    /// From gate and up projections to what the last product takes.
    pub(super) fn gate(&mut self, pool: &Pool) {
        let (gate_up, vector) = (&self.gate_up, Vector::new(pool.isa()));
        self.gated.resize(gate_up.rows());
        self.gated.for_each(pool, |row, gated| {
            let (gate, up) = gate_up.row(row).split_at(gated.len());
            vector.gate(gate, up, gated);
        });
    }
}

impl FeedForward {
    pub(super) fn load(layer: u32, config: &ModelConfig, weights: &mut Weights) -> Result<Self, ModelError> {
        let name = format!("model.layers.{layer}.mlp");
        match config.experts_of(layer) {
            Some(experts) => Ok(Self::Mixture(Mixture::load(&name, config.hidden_size, experts, weights)?)),
            None => {
                let gated = Gated::load(&name, config.hidden_size, config.intermediate_size, weights)?;
                Ok(Self::Dense(gated))
            }
        }
    }

    /// What it says about each row.
    pub(super) fn run(&self, pool: &Pool, x: &RowBuffer, s: &mut FeedForwardScratch, out: &mut RowBuffer) {
        match (self, &mut s.mixture) {
            (Self::Dense(gated), _) => {
                gated.gate_up.product(pool, x, &mut s.dense.gate_up);
                s.dense.gate(pool);
                gated.down.product(pool, &s.dense.gated, out);
            }
            (Self::Mixture(mixture), Some(scratch)) => mixture.run(pool, x, scratch, out),
            (Self::Mixture(_), None) => unreachable!("only a config with experts makes a mixture"),
        }
    }

    /// Bytes of all its weights.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Dense(gated) => gated.bytes(),
            Self::Mixture(mixture) => mixture.bytes(),
        }
    }

    /// Bytes of weights that a step of one token reads.
    pub(super) fn step_bytes(&self) -> usize {
        match self {
            Self::Dense(gated) => gated.bytes(),
            Self::Mixture(mixture) => mixture.step_bytes(),
        }
    }

    /// Weights that a token does not meet.
    pub(super) fn idle_parameters(&self) -> u64 {
        match self {
            Self::Dense(_) => 0,
            Self::Mixture(mixture) => mixture.idle_parameters(),
        }
    }
}

impl Gated {
    /// `name` without the projections' own.
    pub(super) fn load(
        name: &str,
        hidden: u32,
        inner: u32,
        weights: &mut Weights,
    ) -> Result<Self, ModelError> {
        let part = |part: &str, rows| (format!("{name}.{part}_proj.weight"), rows);
        Ok(Self {
            gate_up: weights.matrix(&[part("gate", inner), part("up", inner)], hidden)?,
            down: weights.matrix(&[part("down", hidden)], inner)?,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.gate_up.bytes() + self.down.bytes()
    }

    pub(super) fn parameters(&self) -> u64 {
        [&self.gate_up, &self.down].map(|m| (m.inputs() * m.outputs()) as u64).iter().sum()
    }
}
