//! All families of decoders through libtorch: the same models as [`super::Decoder`] by other arithmetic, on any device that
//! libtorch has kernels for.
//!
//! Rows of all sequences of a step go through the linear layers together. Keys and values of all sequences lie in one store,
//! each sequence in one piece, so that attention of a step is one call for the sequences that decode and one for those that
//! take in more: on CUDA in 16 bits. Elsewhere it is a call for each.
//!
//! Sums are in whatever order libtorch's kernels take for the shape at hand: results depend on the batch in the last bits.
//! With 16-bit weights on CUDA, activations have 16 bits between operations; sums, norms, rotations, soft-max and logits are
//! f32. Weights of 8 bits are dequantised when they are loaded.

mod attention;
mod experts;
mod kernels;
mod layer;
mod native;
mod ops;
mod plan;
mod recorder;
mod regions;
mod sampling;
mod store;
#[cfg(test)]
mod tests;

pub use store::LibtorchKv;

use self::{
    attention::{is_together, Attention},
    kernels::{Best, Kernels, Turning},
    layer::{elements, place, take, take_stored, FeedForward, Layer, Target},
    native::Stream,
    ops::{add_linear, linear, linear_f32, rms_norm, During},
    plan::{Numbers, Plan},
    recorder::{Found, Recorder},
    store::Store,
};
use super::{
    rope::{frequencies, turn},
    weights::Weights,
    Model, ModelConfig, ModelError, Precision, Question, Rates, Rows, BLOCK_TOKENS,
};
use crate::{
    distribution::Distribution,
    kernel::{Pool, RowBuffer},
    kv::in_blocks,
};
use starling_primitives::profile::{Numerics, MAX_K};
use std::{
    collections::HashMap,
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tch::{Device, Kind, Tensor};

/// Rows whose distribution over the vocabulary is computed at once: bounds the memory of a large vocabulary.
const ROWS_MAX: usize = 256;
/// Bytes that reading is measured with, far more than any cache holds; and how wide a square product.
const RATE_BYTES: i64 = 1 << 32;
const RATE_WIDTH: i64 = 8_192;
/// Of so many tries the fastest counts.
const RATE_TRIES: u32 = 10;

/// A model ready to run.
#[derive(Debug)]
pub struct Libtorch {
    config: ModelConfig,
    target: Target,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    /// The output layer; absent when it is the embedding.
    head: Option<Tensor>,
    parameters: u64,
    /// On CUDA in 16 bits, where they can be compiled.
    kernels: Option<Kernels>,
    store: Option<Store>,
    /// Rotations by position, f32: (positions, 2, head dim), cosines and sines; those of the first half with the sign that
    /// `x cos + roll(x, half) sin` asks for.
    rotations: Option<Tensor>,
    /// Normalised rows whose logits are wanted.
    wanted: Option<Tensor>,
    /// Their logits and the best of these, where the step made them too.
    ready: Option<(Tensor, Best)>,
    /// How long it takes to find the best of so many rows, where a recorded step does it.
    best_times: HashMap<usize, Duration>,
    recorder: Recorder,
    logits: RowBuffer,
}

impl Libtorch {
    /// Loads a model folder onto a device. There is no room for sequences yet: [`Model::reserve`].
    pub fn load(folder: &Path, device: Device, precision: Precision) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let config = ModelConfig::load(folder)?;
        // Everything of this model goes through one stream, the loading too.
        let stream = match device {
            Device::Cuda(number) => Some(Stream::take(number)?),
            _ => None,
        };
        let mut weights = Weights::open(folder)?.with_blocks(config.weight_blocks);
        let hidden = config.hidden_size;
        let embedding = take_stored(&mut weights, "model.embed_tokens.weight", &[config.vocab_size, hidden])?;
        let kind = match (device, precision) {
            (_, Precision::F32) => Kind::Float,
            // The engine's kernels have no products of f16, and this is to be of their class.
            (Device::Cuda(_), Precision::Stored) => embedding.kind(),
            (_, Precision::Stored) if embedding.kind() == Kind::BFloat16 => Kind::BFloat16,
            (_, Precision::Stored) => Kind::Float,
        };
        let target = Target { device, kind };
        let embedding = place(&embedding, target)?;
        let layers = (0..config.layers)
            .map(|index| Layer::load(index, &config, &mut weights, target))
            .collect::<Result<_, _>>()?;
        let norm = take(&mut weights, "model.norm.weight", &[hidden], target)?;
        let head = if config.tied_embeddings {
            // Some exports store the shared weight twice.
            weights.skip("lm_head.weight");
            None
        } else {
            Some(take(&mut weights, "lm_head.weight", &[config.vocab_size, hidden], target)?)
        };
        let parameters = weights.finish()?;
        let kernels = compiled(&config, target, stream);
        let logits = RowBuffer::new(config.vocab_size as usize);
        let (store, rotations, wanted, ready) = (None, None, None, None);
        let (recorder, best_times) = (Recorder::default(), HashMap::new());
        Ok(Self {
            config,
            target,
            embedding,
            layers,
            norm,
            head,
            parameters,
            kernels,
            store,
            rotations,
            wanted,
            ready,
            best_times,
            recorder,
            logits,
        })
    }

    fn output_layer(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Normalises and rotates queries and keys of (rows, heads + 2 key heads, dim), the queries in place, and keeps keys and
    /// values in a layer of the store.
    fn rotate_and_keep(
        &self,
        layer: &Layer,
        qkv: &Tensor,
        kept: &Tensor,
        plan: &Plan,
        turns: &Turns<'_>,
    ) -> Result<(), ModelError> {
        let turns = match (turns, &self.kernels) {
            (Turns::InKernel(turning), Some(kernels)) => {
                return kernels.rotate_and_keep(layer, qkv, kept, turning)
            }
            (Turns::InKernel(_), None) => return Ok(()),
            (Turns::Rows(cos, sin), _) => (cos, sin),
        };
        self.rotate(layer, qkv, turns)?;
        let (heads, new) = (i64::from(self.config.heads), 2 * i64::from(self.config.kv_heads));
        let new = qkv.f_narrow(1, heads, new).during("splitting heads")?;
        let _ =
            kept.shallow_clone().f_index_copy_(0, &plan.places, &new).during("keeping keys and values")?;
        Ok(())
    }

    /// Normalises and rotates queries and keys in place.
    fn rotate(&self, layer: &Layer, qkv: &Tensor, (cos, sin): (&Tensor, &Tensor)) -> Result<(), ModelError> {
        let heads = i64::from(self.config.heads + self.config.kv_heads);
        let half = i64::from(self.config.head_dim / 2);
        let qk = qkv.f_narrow(1, 0, heads).during("splitting heads")?;
        let normed = match &layer.head_norms {
            // All heads: a norm of a part would copy it first.
            Some(weights) => rms_norm(qkv, None, self.config.rms_norm_eps)?
                .f_narrow(1, 0, heads)
                .and_then(|normed| normed.f_mul(weights))
                .during("scaling heads")?,
            None => qk.shallow_clone(),
        };
        let rolled = normed.f_roll([half], [2]).during("rotating heads")?;
        let turned = normed.f_mul(cos).during("rotating heads")?;
        let _ = turned.f_addcmul_out(&qk, &rolled, sin).during("rotating heads")?;
        Ok(())
    }

    /// Adds what the feed-forward part of a layer says about rows to the residual stream.
    fn add_feed_forward(&self, layer: &Layer, x: &Tensor, hidden: &mut Tensor) -> Result<(), ModelError> {
        match &layer.feed_forward {
            FeedForward::Dense { gate_up, down } => {
                let gated = self.gate(&linear(x, gate_up)?)?;
                add_linear(hidden, &gated, down)
            }
            FeedForward::Mixture(mixture) => {
                let said = mixture.run(x, |both| self.gate(both))?;
                let _ = hidden.f_add_(&said).during("adding experts")?;
                Ok(())
            }
        }
    }

    /// From gate and up projections, side by side, to what the last product takes.
    fn gate(&self, both: &Tensor) -> Result<Tensor, ModelError> {
        if let Some(kernels) = &self.kernels {
            return kernels.gate(both);
        }
        let width = both.size().last().copied().unwrap_or_default() / 2;
        let gate = both.f_narrow(1, 0, width).during("gating")?;
        let up = both.f_narrow(1, width, width).during("gating")?;
        let mut gated = gate.f_silu().during("gating")?;
        gated.f_mul_(&up).during("gating")
    }

    fn turns<'a>(&self, rotations: &'a Tensor, plan: &'a Plan) -> Result<Turns<'a>, ModelError> {
        let c = &self.config;
        if self.kernels.is_some() {
            return Ok(Turns::InKernel(Turning {
                rotations,
                positions: &plan.positions,
                places: &plan.places,
                heads: c.heads,
                kv_heads: c.kv_heads,
                head_dim: c.head_dim,
                eps: c.rms_norm_eps as f32,
            }));
        }
        let rows = rotations.f_index_select(0, &plan.positions).during("selecting rotations")?;
        let part = |index| rows.f_narrow(1, index, 1).during("selecting rotations");
        Ok(Turns::Rows(part(0)?, part(1)?))
    }

    /// The residual stream behind all layers, of the rows whose logits are wanted.
    fn through_layers(&self, plan: &Plan, attention: &Attention) -> Result<Tensor, ModelError> {
        let (Some(store), Some(rotations)) = (&self.store, &self.rotations) else {
            return Err(ModelError::NoKvRoom { tokens: 1, free: 0 });
        };
        let c = &self.config;
        let (heads, kv_heads, dim) = (i64::from(c.heads), i64::from(c.kv_heads), i64::from(c.head_dim));
        let turns = self.turns(rotations, plan)?;
        let mut hidden = self.embedding.f_index_select(0, &plan.tokens).during("embedding")?;
        for (layer, index) in self.layers.iter().zip(0..) {
            let normed = rms_norm(&hidden, Some(&layer.attention_norm), c.rms_norm_eps)?;
            let qkv = linear(&normed, &layer.qkv)?
                .f_view([plan.numbers.rows, heads + 2 * kv_heads, dim])
                .during("splitting heads")?;
            let Some(kept) = store.layer(index) else { continue };
            self.rotate_and_keep(layer, &qkv, kept, plan, &turns)?;
            let query = qkv.f_narrow(1, 0, heads).during("splitting heads")?;
            let found = attention.run(&query, kept)?;
            let mut found = found.f_reshape([plan.numbers.rows, heads * dim]).during("joining heads")?;
            // Behind the last keys and values no row is of use to another.
            if index + 1 == self.layers.len() && !plan.numbers.is_decoding() {
                let wanted = |rows: &Tensor| rows.f_index_select(0, &plan.wanted).during("selecting rows");
                (hidden, found) = (wanted(&hidden)?, wanted(&found)?);
                if found.numel() == 0 {
                    break;
                }
            }
            add_linear(&mut hidden, &found, &layer.output)?;

            let normed = rms_norm(&hidden, Some(&layer.feed_forward_norm), c.rms_norm_eps)?;
            self.add_feed_forward(layer, &normed, &mut hidden)?;
        }
        Ok(hidden)
    }

    /// The wanted rows, normalised.
    fn wanted_rows(&self, plan: &Plan, attention: &Attention) -> Result<Tensor, ModelError> {
        let hidden = self.through_layers(plan, attention)?;
        rms_norm(&hidden, Some(&self.norm), self.config.rms_norm_eps)
    }

    /// Logits of some of the wanted rows, f32, on the device.
    fn device_logits(&self, rows: Range<usize>) -> Result<Option<Tensor>, ModelError> {
        let Some(wanted) = &self.wanted else { return Ok(None) };
        if let Some((logits, _)) = &self.ready {
            let asked = logits.f_narrow(0, rows.start as i64, rows.len() as i64).during("selecting rows")?;
            return Ok(Some(asked));
        }
        let asked = wanted.f_narrow(0, rows.start as i64, rows.len() as i64).during("selecting rows")?;
        linear_f32(&asked, self.output_layer()).map(Some)
    }

    /// Waits until a tensor is there.
    fn wait_for(&self, tensor: &Tensor) -> Result<(), ModelError> {
        if matches!(self.target.device, Device::Cuda(_)) {
            let first = tensor.f_view([-1]).and_then(|t| t.f_narrow(0, 0, 1)).during("waiting")?;
            first.f_copy_data(&mut [0f32], 1).during("waiting")?;
        }
        Ok(())
    }

    /// The time of a recorded step that goes into finding the best: taken once, by doing it again.
    fn time_of_best(&mut self, logits: &Tensor) -> Result<Duration, ModelError> {
        let rows = logits.size().first().map_or(0, |rows| *rows as usize);
        let (None, Some(kernels)) = (self.best_times.get(&rows), &self.kernels) else {
            return Ok(self.best_times.get(&rows).copied().unwrap_or_default());
        };
        let k = i64::from(MAX_K).min(i64::from(self.config.vocab_size));
        let started = Instant::now();
        self.wait_for(&kernels.best(logits, k)?.totals)?;
        let time = started.elapsed();
        self.best_times.insert(rows, time);
        Ok(time)
    }

    fn fastest(&self, run: impl Fn() -> Result<Tensor, tch::TchError>) -> Result<f64, ModelError> {
        let mut best = f64::INFINITY;
        for _ in 0..RATE_TRIES {
            let started = Instant::now();
            let done = run().and_then(|t| t.f_to_kind(Kind::Float)).during("measuring")?;
            self.wait_for(&done)?;
            best = best.min(started.elapsed().as_secs_f64());
        }
        Ok(best)
    }
}

impl Model for Libtorch {
    type Kv = LibtorchKv;

    const DISTRIBUTES: bool = true;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn parameters(&self) -> u64 {
        self.parameters
    }

    fn parameters_per_token(&self) -> u64 {
        self.parameters - self.layers.iter().map(|layer| layer.feed_forward.idle_weights()).sum::<u64>()
    }

    fn weight_bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(Layer::step_weights).sum();
        (layers + elements(&[self.output_layer()])) * self.target.kind.elt_size_in_bytes() as u64
    }

    fn numerics(&self) -> &'static str {
        let numerics = match self.target.kind {
            Kind::BFloat16 => Numerics::Bf16,
            Kind::Half => Numerics::F16,
            _ => Numerics::F32,
        };
        numerics.name()
    }

    /// Of the pool only the number of threads is used: libtorch has its own.
    fn set_pool(&mut self, pool: Arc<Pool>) {
        // libtorch keeps the number of threads per thread that calls it.
        tch::set_num_threads(i32::try_from(pool.threads()).unwrap_or(1));
    }

    /// Takes the memory at once. A block more than asked for is there for the probe, which runs beside all that is
    /// admitted.
    fn reserve(&mut self, tokens: u32) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        let tokens = in_blocks(tokens.saturating_add(BLOCK_TOKENS as u32)).min(i32::MAX.unsigned_abs());
        // What was recorded reads and writes the old one.
        (self.store, self.recorder) = (None, Recorder::default());
        self.store = Some(Store::new(&self.config, tokens, (self.target.kind, self.target.device))?);
        let positions = tokens.min(self.config.max_context);
        self.rotations = Some(rotations(&self.config, positions, self.target.device)?);
        Ok(())
    }

    fn new_sequence(&self, capacity: u32) -> Result<LibtorchKv, ModelError> {
        let capacity = capacity.min(self.config.max_context);
        let store = self.store.as_ref().ok_or(ModelError::NoKvRoom { tokens: capacity, free: 0 })?;
        store.open(capacity)
    }

    fn forward(&mut self, batch: &mut [Rows<'_, LibtorchKv>]) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        (self.wanted, self.ready) = (None, None);
        let here = |rows: &Rows<'_, LibtorchKv>| self.store.as_ref().is_some_and(|s| s.has(rows.kv));
        if !batch.iter().all(here) {
            return Err(ModelError::Unsupported("a sequence of another store".into()));
        }
        let numbers = Numbers::new(batch)?;
        let Target { kind, device } = self.target;
        let mut found = None;
        // Cards without grouped products wait for the host in a mixture, which cannot be recorded.
        if let (Some(kernels), None) = (&self.kernels, &self.config.experts) {
            let k = i64::from(MAX_K).min(i64::from(self.config.vocab_size));
            let mut recorder = std::mem::take(&mut self.recorder);
            found = recorder.play(&numbers, device, |plan, attention| {
                let wanted = self.wanted_rows(&plan, attention)?;
                let logits = linear_f32(&wanted, self.output_layer())?;
                let best = kernels.best(&logits, k)?;
                Ok(Found { wanted, logits, best })
            })?;
            self.recorder = recorder;
        }
        match found {
            Some(Found { wanted, logits, best }) => {
                (self.wanted, self.ready) = (Some(wanted), Some((logits, best)));
            }
            None => {
                let attention = Attention::new(&self.config, &numbers, (kind, device))?;
                let plan = Plan::upload(numbers, device)?;
                self.wanted = Some(self.wanted_rows(&plan, &attention)?);
            }
        }
        for rows in batch.iter_mut() {
            rows.kv.length += rows.tokens.len() as u32;
        }
        Ok(())
    }

    fn logits(&mut self, rows: Range<usize>) -> Result<&mut RowBuffer, ModelError> {
        let _no_grad = tch::no_grad_guard();
        self.logits.resize(0);
        if let Some(logits) = self.device_logits(rows.clone())? {
            let logits = logits.f_to(Device::Cpu).during("reading logits")?;
            self.logits.resize(rows.len());
            for row in 0..rows.len() {
                let to = self.logits.row_mut(row);
                let from = logits.f_get(row as i64).during("reading logits")?;
                from.f_copy_data(to, to.len()).during("reading logits")?;
            }
        }
        Ok(&mut self.logits)
    }

    fn distributions(
        &mut self,
        k: usize,
        questions: &[Question],
    ) -> Result<(Vec<Distribution>, Duration), ModelError> {
        let _no_grad = tch::no_grad_guard();
        let mut all = Vec::with_capacity(questions.len());
        let mut time = Duration::ZERO;
        for (index, block) in questions.chunks(ROWS_MAX).enumerate() {
            let first = index * ROWS_MAX;
            let Some(logits) = self.device_logits(first..first + block.len())? else { break };
            // The model's time ends here.
            self.wait_for(&logits)?;
            let started = Instant::now();
            // A step with one row per sequence, of all of which this is the first and only block.
            let ready = self.ready.as_ref().filter(|_| block.len() == questions.len()).map(|(_, best)| best);
            all.extend(sampling::distributions(&logits, k, block, self.kernels.as_ref(), ready)?);
            time += started.elapsed();
            if ready.is_some() {
                time += self.time_of_best(&logits)?;
            }
        }
        Ok((all, time))
    }

    /// Of a CUDA device; the processor is measured with the engine's own kernels.
    fn rates(&self) -> Option<Result<Rates, ModelError>> {
        let Device::Cuda(_) = self.target.device else { return None };
        let measure = || {
            let _no_grad = tch::no_grad_guard();
            let options = (self.target.kind, self.target.device);
            let count = RATE_BYTES / options.0.elt_size_in_bytes() as i64;
            // Sums in f32: of random numbers, since zeros may be read faster.
            let numbers = Tensor::f_randn([count], options).during("measuring")?;
            let read = self.fastest(|| numbers.f_sum(Kind::Float))?;
            drop(numbers);
            let square = Tensor::f_randn([RATE_WIDTH, RATE_WIDTH], options).during("measuring")?;
            let product = self.fastest(|| square.f_mm(&square)?.f_narrow(0, 0, 1))?;
            Ok(Rates {
                read_bandwidth: RATE_BYTES as f64 / read,
                product_rate: 2.0 * (RATE_WIDTH as f64).powi(3) / product,
            })
        };
        Some(measure())
    }
}

/// How the rows of a step are rotated.
enum Turns<'a> {
    /// By cosines and sines, each (rows, 1, head dim).
    Rows(Tensor, Tensor),
    /// By the kernel, which looks them up.
    InKernel(Turning<'a>),
}

/// The kernels for a target, if they are of use there. Without them everything runs, more slowly.
fn compiled(config: &ModelConfig, target: Target, stream: Option<Stream>) -> Option<Kernels> {
    let even = config.intermediate_size.is_multiple_of(2);
    if !is_together(target.device, target.kind, config.head_dim) || !even {
        return None;
    }
    let (Device::Cuda(number), Some(stream)) = (target.device, stream) else { return None };
    let kernels = Kernels::compile(target.kind, number, stream);
    if let Err(reason) = &kernels {
        tracing::warn!(%reason, "no kernels of the engine's own: libtorch's are used instead");
    }
    kernels.ok()
}

/// Rotations of the first positions; see [`Libtorch::rotations`].
fn rotations(config: &ModelConfig, positions: u32, device: Device) -> Result<Tensor, ModelError> {
    let frequencies = frequencies(config);
    let half = frequencies.len();
    let mut all = vec![0f32; positions as usize * 4 * half];
    let (mut cos, mut sin) = (vec![0f32; half], vec![0f32; half]);
    for (position, row) in all.chunks_exact_mut(4 * half).enumerate() {
        turn(&frequencies, position, &mut cos, &mut sin);
        for (i, (cos, sin)) in cos.iter().zip(&sin).enumerate() {
            for (place, number) in [(0, *cos), (half, *cos), (2 * half, -*sin), (3 * half, *sin)] {
                if let Some(to) = row.get_mut(place + i) {
                    *to = number;
                }
            }
        }
    }
    let shape = [i64::from(positions), 2, i64::from(config.head_dim)];
    let table = Tensor::f_from_slice(&all).and_then(|t| t.f_view(shape)).during("making rotations")?;
    table.f_to(device).during("making rotations")
}
