//! Weights of a layer, as tensors on the device.

use super::{
    super::{
        weights::{Fp8, Kind as Storage, Weights},
        Family, ModelConfig, ModelError,
    },
    experts::Mixture,
    ops::During,
};
use tch::{Device, Kind, Tensor};

/// Where weights go, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) device: Device,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Tensor,
    /// Query, key and value projections, one below the other.
    pub(super) qkv: Tensor,
    /// Weights of the norms of queries and keys, one row per head, in families that have them.
    pub(super) head_norms: Option<Tensor>,
    pub(super) output: Tensor,
    pub(super) feed_forward_norm: Tensor,
    pub(super) feed_forward: FeedForward,
}

/// The feed-forward part of a layer.
#[derive(Debug)]
pub(super) enum FeedForward {
    /// One for all rows.
    Dense {
        /// Gate and up projections, one below the other.
        gate_up: Tensor,
        down: Tensor,
    },
    /// Some of many experts for each row.
    Mixture(Mixture),
}

/// The kind of a tensor that was not taken yet.
pub(super) fn stored_kind(kind: Storage) -> Kind {
    match kind {
        Storage::F32 => Kind::Float,
        Storage::Bf16 => Kind::BFloat16,
        Storage::F16 => Kind::Half,
    }
}

/// A tensor as it is stored, on the processor.
pub(super) fn take_stored(weights: &mut Weights, name: &str, shape: &[u32]) -> Result<Tensor, ModelError> {
    let raw = weights.take(name, shape)?;
    let shape: Vec<i64> = shape.iter().map(|n| i64::from(*n)).collect();
    Tensor::f_from_data_size(raw.bytes(), &shape, stored_kind(raw.kind())).during("reading weights")
}

/// A tensor on its way to where it is computed with; 8-bit weights as what they stand for.
pub(super) fn take(
    weights: &mut Weights,
    name: &str,
    shape: &[u32],
    target: Target,
) -> Result<Tensor, ModelError> {
    match shape {
        [outputs, inputs] if weights.is_fp8(name) => {
            let stored = weights.take_fp8(name, [*outputs, *inputs])?;
            place(&dequantised(&stored, [*outputs, *inputs], target.device)?, target)
        }
        _ => place(&take_stored(weights, name, shape)?, target),
    }
}

/// Weights times the scales of their blocks, f32, on a device.
fn dequantised(stored: &Fp8<'_>, shape: [u32; 2], device: Device) -> Result<Tensor, ModelError> {
    let during = "dequantising weights";
    let [outputs, inputs] = shape.map(i64::from);
    let (scales, blocks) = stored.scales();
    // A block may be larger than the matrix.
    let (height, width) = (i64::from(blocks.outputs).min(outputs), i64::from(blocks.inputs).min(inputs));
    let count = [shape[0].div_ceil(blocks.outputs), shape[1].div_ceil(blocks.inputs)].map(i64::from);
    let scales = Tensor::f_from_slice(scales)
        .and_then(|t| t.f_view(count))
        .and_then(|t| t.f_to(device))
        .and_then(|t| t.f_repeat_interleave_self_int(height, 0, None)?.f_narrow(0, 0, outputs))
        .and_then(|t| t.f_repeat_interleave_self_int(width, 1, None)?.f_narrow(1, 0, inputs))
        .during(during)?;
    Tensor::f_from_data_size(stored.bytes(), &[outputs, inputs], Kind::Float8e4m3fn)
        .and_then(|t| t.f_to(device)?.f_to_kind(Kind::Float)?.f_mul(&scales))
        .during(during)
}

pub(super) fn place(stored: &Tensor, target: Target) -> Result<Tensor, ModelError> {
    stored.f_to(target.device).and_then(|t| t.f_to_kind(target.kind)).during("placing weights")
}

impl Layer {
    pub(super) fn load(
        index: u32,
        config: &ModelConfig,
        weights: &mut Weights,
        target: Target,
    ) -> Result<Self, ModelError> {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let (q_rows, kv_rows) = (config.heads * dim, config.kv_heads * dim);
        let feed_forward = FeedForward::load(index, config, weights, target)?;
        let mut take = |part: &str, shape: &[u32]| take(weights, &name(part), shape, target);
        let per_head = |norm: &Tensor, heads: u32| {
            norm.f_unsqueeze(0).and_then(|n| n.f_repeat([i64::from(heads), 1])).during("stacking norms")
        };
        Ok(Self {
            attention_norm: take("input_layernorm", &[hidden])?,
            qkv: stack(&[
                take("self_attn.q_proj", &[q_rows, hidden])?,
                take("self_attn.k_proj", &[kv_rows, hidden])?,
                take("self_attn.v_proj", &[kv_rows, hidden])?,
            ])?,
            head_norms: match config.family {
                Family::Qwen3 | Family::Qwen3Moe => Some(stack(&[
                    per_head(&take("self_attn.q_norm", &[dim])?, config.heads)?,
                    per_head(&take("self_attn.k_norm", &[dim])?, config.kv_heads)?,
                ])?),
                Family::Llama => None,
            },
            output: take("self_attn.o_proj", &[hidden, q_rows])?,
            feed_forward_norm: take("post_attention_layernorm", &[hidden])?,
            feed_forward,
        })
    }

    /// Weights of the matrices that a step of one token reads.
    pub(super) fn step_weights(&self) -> u64 {
        elements(&[&self.qkv, &self.output]) + self.feed_forward.step_weights()
    }
}

impl FeedForward {
    fn load(
        layer: u32,
        config: &ModelConfig,
        weights: &mut Weights,
        target: Target,
    ) -> Result<Self, ModelError> {
        let name = format!("model.layers.{layer}.mlp");
        let hidden = config.hidden_size;
        match config.experts_of(layer) {
            Some(experts) => Ok(Self::Mixture(Mixture::load(&name, hidden, experts, weights, target)?)),
            None => {
                let (gate_up, down) = take_gated(weights, &name, [hidden, config.intermediate_size], target)?;
                Ok(Self::Dense { gate_up, down })
            }
        }
    }

    fn step_weights(&self) -> u64 {
        match self {
            Self::Dense { gate_up, down } => elements(&[gate_up, down]),
            Self::Mixture(mixture) => mixture.step_weights(),
        }
    }

    /// Weights that a token does not meet.
    pub(super) fn idle_weights(&self) -> u64 {
        match self {
            Self::Dense { .. } => 0,
            Self::Mixture(mixture) => mixture.idle_weights(),
        }
    }
}

/// Gate and up projections, one below the other, and the one behind them.
pub(super) fn take_gated(
    weights: &mut Weights,
    name: &str,
    [hidden, inner]: [u32; 2],
    target: Target,
) -> Result<(Tensor, Tensor), ModelError> {
    let mut part =
        |part: &str, shape: [u32; 2]| take(weights, &format!("{name}.{part}_proj.weight"), &shape, target);
    let gate_up = stack(&[part("gate", [inner, hidden])?, part("up", [inner, hidden])?])?;
    Ok((gate_up, part("down", [hidden, inner])?))
}

fn stack(parts: &[Tensor]) -> Result<Tensor, ModelError> {
    Tensor::f_cat(parts, 0).during("stacking weights")
}

pub(super) fn elements(tensors: &[&Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.numel() as u64).sum()
}
