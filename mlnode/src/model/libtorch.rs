//! The Qwen3 dense family in f32 through libtorch: the same model as [`super::Decoder`] by other arithmetic, which the
//! tests compare it with, and the way to devices that libtorch has kernels for.
//!
//! Rows of all sequences of a step go through the linear layers together; only attention looks at one sequence at a
//! time, with its own keys and values ([`LibtorchKv`]), so sequences of any length mix freely. Sums are in whatever order
//! libtorch's kernels take for the shape at hand: results depend on the batch in the last bits.

mod ops;

use self::ops::{empty, indices, linear, rms_norm, During};
use super::{
    rope::frequencies,
    weights::{Kind as Storage, Weights},
    Family, Model, ModelConfig, ModelError, Rows,
};
use crate::kernel::{Pool, RowBuffer};
use std::{ops::Range, path::Path, sync::Arc};
use tch::{Kind, Tensor};

/// A model ready to run.
#[derive(Debug)]
pub struct Libtorch {
    config: ModelConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    /// The output layer; absent when it is the embedding.
    head: Option<Tensor>,
    rope: Rope,
    parameters: u64,
    /// Normalised rows whose logits are wanted.
    wanted: Option<Tensor>,
    logits: RowBuffer,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    /// Query, key and value projections, stacked.
    qkv: Tensor,
    /// Weights of the query and key norms, one row per head.
    qk_norm: Tensor,
    output: Tensor,
    feed_forward_norm: Tensor,
    /// Gate and up projections, stacked.
    gate_up: Tensor,
    down: Tensor,
}

/// Rotations by position: `x cos + roll(x, half) sin` with the sign of the first half in `sin`.
#[derive(Debug)]
struct Rope {
    cos: Tensor,
    sin: Tensor,
}

/// Keys and values of one sequence, for all layers.
#[derive(Debug)]
pub struct LibtorchKv {
    /// Per layer keys and values, each (kv heads, capacity, head dim).
    layers: Vec<(Tensor, Tensor)>,
    length: u32,
    capacity: u32,
}

impl LibtorchKv {
    /// Tokens stored.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
}

impl Libtorch {
    /// Loads a model folder.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let config = ModelConfig::load(folder)?;
        if config.family != Family::Qwen3 || config.weight_blocks.is_some() {
            let message = "only dense Qwen3 of 16 or 32 bits runs with libtorch".into();
            return Err(ModelError::Unsupported(message));
        }
        let mut weights = Weights::open(folder)?;
        let hidden = config.hidden_size;
        let embedding = take(&mut weights, "model.embed_tokens.weight", &[config.vocab_size, hidden])?;
        let layers =
            (0..config.layers).map(|i| Layer::load(i, &config, &mut weights)).collect::<Result<_, _>>()?;
        let norm = take(&mut weights, "model.norm.weight", &[hidden])?;
        let head = if config.tied_embeddings {
            // Some exports store the shared weight twice.
            weights.skip("lm_head.weight");
            None
        } else {
            Some(take(&mut weights, "lm_head.weight", &[config.vocab_size, hidden])?)
        };
        let parameters = weights.finish()?;
        let rope = Rope::new(&config)?;
        let logits = RowBuffer::new(config.vocab_size as usize);
        Ok(Self { config, embedding, layers, norm, head, rope, parameters, wanted: None, logits })
    }

    fn attend(
        &self,
        index: usize,
        layer: &Layer,
        x: &Tensor,
        (cos, sin): (&Tensor, &Tensor),
        batch: &mut [Rows<'_, LibtorchKv>],
        plan: &Plan,
    ) -> Result<Tensor, ModelError> {
        let c = &self.config;
        let (heads, kv_heads, dim) = (i64::from(c.heads), i64::from(c.kv_heads), i64::from(c.head_dim));
        let rows = plan.rows;
        let qkv =
            linear(x, &layer.qkv)?.f_view([rows, heads + 2 * kv_heads, dim]).during("splitting heads")?;
        // Queries and keys get the same treatment, so they get it together.
        let qk = qkv.f_narrow(1, 0, heads + kv_heads).during("splitting heads")?;
        let normed = rms_norm(&qk, None, c.rms_norm_eps)?.f_mul(&layer.qk_norm).during("scaling heads")?;
        let rolled = normed.f_roll([dim / 2], [2]).during("rotating heads")?;
        let mut rotated = normed.f_mul(cos).during("rotating heads")?;
        let rotated = rotated.f_addcmul_(&rolled, sin).during("rotating heads")?;
        let value = qkv.f_narrow(1, heads + kv_heads, kv_heads).during("splitting heads")?;
        let mut outputs = Vec::with_capacity(batch.len());
        let mut start = 0;
        for (rows, mask) in batch.iter_mut().zip(&plan.masks) {
            let n = rows.tokens.len() as i64;
            let part = |t: &Tensor, from, count| {
                t.f_narrow(0, start, n).and_then(|t| t.f_narrow(1, from, count)).during("taking a sequence")
            };
            let query = part(&rotated, 0, heads)?;
            let key = part(&rotated, heads, kv_heads)?;
            let value = part(&value, 0, kv_heads)?;
            outputs.push(self.attend_one(index, rows, &query, &key, &value, mask.as_ref())?);
            start += n;
        }
        let joined = match outputs.as_slice() {
            [one] => one.shallow_clone(),
            several => Tensor::f_cat(several, 0).during("joining sequences")?,
        };
        linear(&joined, &layer.output)
    }

    /// Attention of one sequence's new tokens over everything it has stored. Returns (n, heads x dim).
    fn attend_one(
        &self,
        index: usize,
        rows: &mut Rows<'_, LibtorchKv>,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Tensor, ModelError> {
        let c = &self.config;
        let (heads, dim) = (i64::from(c.heads), i64::from(c.head_dim));
        let (n, past) = (rows.tokens.len() as i64, i64::from(rows.kv.length));
        let Some((keys, values)) = rows.kv.layers.get(index) else {
            return Err(ModelError::Unsupported("a cache of another model".into()));
        };
        store(keys, past, key)?;
        store(values, past, value)?;
        let all = |t: &Tensor| t.f_narrow(1, 0, past + n)?.f_unsqueeze(0);
        let (keys, values) =
            (all(keys).during("reading the cache")?, all(values).during("reading the cache")?);
        let out = if n == 1 {
            // The queries of a group look at the same keys: they stand as rows of one head.
            let shape = [1, i64::from(c.kv_heads), i64::from(c.group()), dim];
            let query = query.f_reshape(shape).during("grouping queries")?;
            attention(&query, &keys, &values, None, false, false)?
        } else {
            let query = query.f_transpose(0, 1).and_then(|q| q.f_unsqueeze(0)).during("grouping queries")?;
            let out = attention(&query, &keys, &values, mask, past == 0, c.group() > 1)?;
            out.f_transpose(1, 2).during("ungrouping queries")?
        };
        out.f_reshape([n, heads * dim]).during("joining heads")
    }

    fn feed_forward(&self, layer: &Layer, x: &Tensor) -> Result<Tensor, ModelError> {
        let width = i64::from(self.config.intermediate_size);
        let both = linear(x, &layer.gate_up)?;
        let gate = both.f_narrow(1, 0, width).during("gating")?;
        let up = both.f_narrow(1, width, width).during("gating")?;
        let mut gated = gate.f_silu().during("gating")?;
        let gated = gated.f_mul_(&up).during("gating")?;
        linear(&gated, &layer.down)
    }
}

impl Model for Libtorch {
    type Kv = LibtorchKv;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn parameters(&self) -> u64 {
        self.parameters
    }

    fn weight_bytes(&self) -> u64 {
        let size = size_of::<f32>() as u64;
        let embedding = u64::from(self.config.vocab_size) * u64::from(self.config.hidden_size);
        let unread = if self.head.is_some() { embedding } else { 0 };
        (self.parameters - unread) * size
    }

    /// Of the pool only the number of threads is used: libtorch has its own.
    fn set_pool(&mut self, pool: Arc<Pool>) {
        // libtorch keeps the number of threads per thread that calls it.
        tch::set_num_threads(i32::try_from(pool.threads()).unwrap_or(1));
    }

    fn new_sequence(&self, capacity: u32) -> Result<LibtorchKv, ModelError> {
        let shape = [self.config.kv_heads, capacity, self.config.head_dim].map(i64::from);
        let layers = (0..self.config.layers)
            .map(|_| Ok((empty(&shape)?, empty(&shape)?)))
            .collect::<Result<_, ModelError>>()?;
        Ok(LibtorchKv { layers, length: 0, capacity })
    }

    fn forward(&mut self, batch: &mut [Rows<'_, LibtorchKv>]) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        let plan = Plan::new(batch)?;
        let (cos, sin) = self.rope.at(&plan.positions)?;
        let mut hidden = self.embedding.f_index_select(0, &plan.tokens).during("embedding")?;
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = rms_norm(&hidden, Some(&layer.attention_norm), self.config.rms_norm_eps)?;
            let attended = self.attend(index, layer, &normed, (&cos, &sin), batch, &plan)?;
            let _ = hidden.f_add_(&attended).during("adding attention")?;
            let normed = rms_norm(&hidden, Some(&layer.feed_forward_norm), self.config.rms_norm_eps)?;
            let fed = self.feed_forward(layer, &normed)?;
            let _ = hidden.f_add_(&fed).during("adding feed-forward")?;
        }
        for rows in batch.iter_mut() {
            rows.kv.length += rows.tokens.len() as u32;
        }
        let wanted = hidden.f_index_select(0, &plan.wanted).during("selecting rows")?;
        self.wanted = Some(rms_norm(&wanted, Some(&self.norm), self.config.rms_norm_eps)?);
        Ok(())
    }

    fn logits(&mut self, rows: Range<usize>) -> Result<&mut RowBuffer, ModelError> {
        let _no_grad = tch::no_grad_guard();
        self.logits.resize(0);
        if let Some(wanted) = &self.wanted {
            let asked = wanted.f_narrow(0, rows.start as i64, rows.len() as i64).during("selecting rows")?;
            let logits = linear(&asked, self.head.as_ref().unwrap_or(&self.embedding))?;
            self.logits.resize(rows.len());
            for row in 0..rows.len() {
                let to = self.logits.row_mut(row);
                let from = logits.f_get(row as i64).during("reading logits")?;
                from.f_copy_data(to, to.len()).during("reading logits")?;
            }
        }
        Ok(&mut self.logits)
    }
}

/// A tensor as f32.
fn take(weights: &mut Weights, name: &str, shape: &[u32]) -> Result<Tensor, ModelError> {
    let raw = weights.take(name, shape)?;
    let kind = match raw.kind() {
        Storage::F32 => Kind::Float,
        Storage::Bf16 => Kind::BFloat16,
        Storage::F16 => Kind::Half,
    };
    let shape: Vec<i64> = shape.iter().map(|n| i64::from(*n)).collect();
    let stored = Tensor::f_from_data_size(raw.bytes(), &shape, kind).during("reading weights")?;
    stored.f_to_kind(Kind::Float).during("widening weights")
}

/// Writes rows (n, kv heads, dim) into a cache (kv heads, capacity, dim) behind `past` tokens.
fn store(cache: &Tensor, past: i64, rows: &Tensor) -> Result<(), ModelError> {
    let n = rows.size().first().copied().unwrap_or_default();
    let mut place = cache.f_narrow(1, past, n).during("writing the cache")?;
    let rows = rows.f_transpose(0, 1).during("writing the cache")?;
    place.f_copy_(&rows).during("writing the cache")
}

fn attention(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
    grouped: bool,
) -> Result<Tensor, ModelError> {
    Tensor::f_scaled_dot_product_attention(query, keys, values, mask, 0.0, causal, None, grouped)
        .during("attention")
}

/// What is the same for all layers of a step.
struct Plan {
    rows: i64,
    tokens: Tensor,
    positions: Tensor,
    /// Rows whose logits are wanted.
    wanted: Tensor,
    /// Per sequence, what its new tokens must not see; only where several tokens follow stored ones.
    masks: Vec<Option<Tensor>>,
}

impl Plan {
    fn new(batch: &[Rows<'_, LibtorchKv>]) -> Result<Self, ModelError> {
        let (mut tokens, mut positions, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        let mut masks = Vec::with_capacity(batch.len());
        for rows in batch {
            let (past, new) = (rows.kv.length, rows.tokens.len() as u32);
            if new > rows.kv.capacity.saturating_sub(past) {
                return Err(ModelError::CacheFull {
                    tokens: past.saturating_add(new),
                    capacity: rows.kv.capacity,
                });
            }
            tokens.extend(rows.tokens.iter().map(|t| i64::from(*t)));
            positions.extend((past..past + new).map(i64::from));
            let end = tokens.len() as i64;
            wanted.extend(end - i64::from(rows.logits.min(new))..end);
            masks.push(if past > 0 && new > 1 { Some(causal_mask(past, new)?) } else { None });
        }
        Ok(Self {
            rows: tokens.len() as i64,
            tokens: indices(&tokens)?,
            positions: indices(&positions)?,
            wanted: indices(&wanted)?,
            masks,
        })
    }
}

/// (new, past + new), true where a token may look.
fn causal_mask(past: u32, new: u32) -> Result<Tensor, ModelError> {
    let shape = [i64::from(new), i64::from(past + new)];
    Tensor::f_ones(shape, (Kind::Bool, tch::Device::Cpu))
        .and_then(|ones| ones.f_tril(i64::from(past)))
        .during("making a mask")
}

impl Layer {
    fn load(index: u32, config: &ModelConfig, weights: &mut Weights) -> Result<Self, ModelError> {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let (q_rows, kv_rows) = (config.heads * dim, config.kv_heads * dim);
        let stack = |parts: [Tensor; 3]| Tensor::f_cat(&parts, 0).during("stacking weights");
        let qkv = stack([
            take(weights, &name("self_attn.q_proj"), &[q_rows, hidden])?,
            take(weights, &name("self_attn.k_proj"), &[kv_rows, hidden])?,
            take(weights, &name("self_attn.v_proj"), &[kv_rows, hidden])?,
        ])?;
        let per_head = |norm: Tensor, heads: u32| {
            norm.f_unsqueeze(0).and_then(|n| n.f_repeat([i64::from(heads), 1])).during("stacking norms")
        };
        let q_norm = per_head(take(weights, &name("self_attn.q_norm"), &[dim])?, config.heads)?;
        let k_norm = per_head(take(weights, &name("self_attn.k_norm"), &[dim])?, config.kv_heads)?;
        let gate = take(weights, &name("mlp.gate_proj"), &[config.intermediate_size, hidden])?;
        let up = take(weights, &name("mlp.up_proj"), &[config.intermediate_size, hidden])?;
        Ok(Self {
            attention_norm: take(weights, &name("input_layernorm"), &[hidden])?,
            qkv,
            qk_norm: Tensor::f_cat(&[q_norm, k_norm], 0).during("stacking norms")?,
            output: take(weights, &name("self_attn.o_proj"), &[hidden, q_rows])?,
            feed_forward_norm: take(weights, &name("post_attention_layernorm"), &[hidden])?,
            gate_up: Tensor::f_cat(&[gate, up], 0).during("stacking weights")?,
            down: take(weights, &name("mlp.down_proj"), &[hidden, config.intermediate_size])?,
        })
    }
}

impl Rope {
    fn new(config: &ModelConfig) -> Result<Self, ModelError> {
        let (frequencies, positions) = (frequencies(config), config.max_context);
        let positions: Vec<f32> = (0..positions).map(|p| p as f32).collect();
        let frequencies = Tensor::f_from_slice(&frequencies).during("making rotations")?;
        let positions = Tensor::f_from_slice(&positions).during("making rotations")?;
        let angles = positions.f_outer(&frequencies).during("making rotations")?;
        let cos = angles.f_cos().during("making rotations")?;
        let sin = angles.f_sin().during("making rotations")?;
        let negative = sin.f_neg().during("making rotations")?;
        Ok(Self {
            cos: Tensor::f_cat(&[&cos, &cos], 1).during("making rotations")?,
            sin: Tensor::f_cat(&[&negative, &sin], 1).during("making rotations")?,
        })
    }

    /// Rotations of these positions, each (rows, 1, head dim).
    fn at(&self, positions: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
        let rows = |table: &Tensor| {
            table.f_index_select(0, positions).and_then(|t| t.f_unsqueeze(1)).during("selecting rotations")
        };
        Ok((rows(&self.cos)?, rows(&self.sin)?))
    }
}
