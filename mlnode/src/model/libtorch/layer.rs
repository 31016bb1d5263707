//! Weights of a layer, as tensors on the device.

use super::{
    super::{
        weights::{Kind as Storage, Weights},
        Family, ModelConfig, ModelError,
    },
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
    /// Gate and up projections, one below the other.
    pub(super) gate_up: Tensor,
    pub(super) down: Tensor,
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

/// A tensor on its way to where it is computed with.
pub(super) fn take(
    weights: &mut Weights,
    name: &str,
    shape: &[u32],
    target: Target,
) -> Result<Tensor, ModelError> {
    place(&take_stored(weights, name, shape)?, target)
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
        let (hidden, dim, inner) = (config.hidden_size, config.head_dim, config.intermediate_size);
        let (q_rows, kv_rows) = (config.heads * dim, config.kv_heads * dim);
        let mut take = |part: &str, shape: &[u32]| take(weights, &name(part), shape, target);
        let stack = |parts: &[Tensor]| Tensor::f_cat(parts, 0).during("stacking weights");
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
            gate_up: stack(&[
                take("mlp.gate_proj", &[inner, hidden])?,
                take("mlp.up_proj", &[inner, hidden])?,
            ])?,
            down: take("mlp.down_proj", &[hidden, inner])?,
        })
    }

    /// The matrices: what a step reads.
    pub(super) fn matrices(&self) -> [&Tensor; 4] {
        [&self.qkv, &self.output, &self.gate_up, &self.down]
    }
}
