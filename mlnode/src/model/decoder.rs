//! Decoders on the processor: grouped-query attention with rotary positions (its queries and keys normalised in Qwen3), and
//! feed-forward layers ([`super::feed_forward`]).
//!
//! Rows of all sequences of a step go through the matrices together, so sequences of any length mix freely; attention
//! takes a key head of a sequence and a few of its rows at a time. Everything is computed by [`crate::kernel`], so a
//! row's numbers do not depend on what else is in the step: decoding, prefill in chunks of any size, and verification
//! give the same bits.

use super::{
    attention::{Attention, Place},
    feed_forward::{FeedForward, FeedForwardScratch},
    kv::{KvBlock, Layout, SequenceKv},
    rope::{frequencies, turn},
    weights::Weights,
    Family, Model, ModelConfig, ModelError, Precision, Rows,
};
use crate::kernel::{Matrix, Pair, Pool, RowBuffer, Shared, Vector};
use starling_primitives::profile::Numerics;
use std::{ops::Range, path::Path, sync::Arc};

/// Name of the embedding among the weights.
const EMBEDDING: &str = "model.embed_tokens.weight";

/// A model ready to run.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    numerics: Numerics,
    layout: Layout,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    /// The output layer; absent when it is the embedding.
    head: Option<Matrix>,
    /// Radians per token of each pair of a head.
    frequencies: Vec<f32>,
    parameters: u64,
    pool: Arc<Pool>,
    scratch: Scratch,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Vec<f32>,
    /// Query, key and value projections, one below the other.
    qkv: Matrix,
    /// Weights of the norms of queries and keys, in families that have them.
    head_norms: Option<(Vec<f32>, Vec<f32>)>,
    output: Matrix,
    feed_forward_norm: Vec<f32>,
    feed_forward: FeedForward,
}

/// Activations of a step, kept so that no step allocates them.
#[derive(Debug)]
struct Scratch {
    /// Cosines and sines of each row's position.
    cos: RowBuffer,
    sin: RowBuffer,
    /// The residual stream.
    hidden: RowBuffer,
    normed: RowBuffer,
    qkv: RowBuffer,
    /// The same, rounded to bf16, in that class.
    rounded: RowBuffer<Pair>,
    attended: RowBuffer,
    /// What a sub-layer adds to the residual stream.
    added: RowBuffer,
    feed_forward: FeedForwardScratch,
    /// Normalised rows whose logits are wanted.
    wanted: RowBuffer,
    /// Some of them, and their logits.
    asked: RowBuffer,
    logits: RowBuffer,
}

impl Scratch {
    fn new(config: &ModelConfig) -> Self {
        let rows = |width: u32| RowBuffer::new(width as usize);
        let heads = config.heads * config.head_dim;
        Self {
            cos: rows(config.head_dim / 2),
            sin: rows(config.head_dim / 2),
            hidden: rows(config.hidden_size),
            normed: rows(config.hidden_size),
            qkv: rows(heads + 2 * config.kv_heads * config.head_dim),
            rounded: RowBuffer::default(),
            attended: rows(heads),
            added: rows(config.hidden_size),
            feed_forward: FeedForwardScratch::new(config),
            wanted: rows(config.hidden_size),
            asked: rows(config.hidden_size),
            logits: rows(config.vocab_size),
        }
    }
}

impl Decoder {
    /// Loads a model folder. Weights stay as wide as they are stored; `precision` says what they meet.
    pub fn load(folder: &Path, precision: Precision) -> Result<Self, ModelError> {
        let config = ModelConfig::load(folder)?;
        let mut weights = Weights::open(folder)?.with_blocks(config.weight_blocks);
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        // As on other devices, the embedding tells the width: checkpoints of 8 bits keep theirs in bf16.
        let pairs = precision == Precision::Stored && weights.is_bf16(EMBEDDING);
        weights = weights.with_pairs(pairs);
        weights.check_memory()?;
        let embedding = weights.matrix(&[(EMBEDDING.into(), vocab)], hidden)?;
        let layers =
            (0..config.layers).map(|i| Layer::load(i, &config, &mut weights)).collect::<Result<_, _>>()?;
        let norm = weights.vector("model.norm.weight", hidden)?;
        let head = if config.tied_embeddings {
            // Some exports store the shared weight twice.
            weights.skip("lm_head.weight");
            None
        } else {
            Some(weights.matrix(&[("lm_head.weight".into(), vocab)], hidden)?)
        };
        let parameters = weights.finish()?;
        let frequencies = frequencies(&config);
        let pool = Arc::new(Pool::new(1));
        let numerics = if pairs { Numerics::Bf16 } else { Numerics::F32 };
        let (layout, scratch) = (Layout::new(&config, numerics), Scratch::new(&config));
        Ok(Self {
            config,
            numerics,
            layout,
            embedding,
            layers,
            norm,
            head,
            frequencies,
            parameters,
            pool,
            scratch,
        })
    }

    /// Bytes of keys and values for each token of a sequence, where blocks are full.
    pub fn kv_bytes_per_token(&self) -> u64 {
        self.layout.token_bytes()
    }

    /// Bytes of all matrices, those of experts that a step does not use included.
    pub fn memory_bytes(&self) -> u64 {
        let layer = |l: &Layer| l.qkv.bytes() + l.output.bytes() + l.feed_forward.bytes();
        let ends = [Some(&self.embedding), self.head.as_ref()].into_iter().flatten().map(Matrix::bytes);
        (ends.sum::<usize>() + self.layers.iter().map(layer).sum::<usize>()) as u64
    }

    fn vector(&self) -> Vector {
        Vector::new(self.pool.isa())
    }

    fn embed(&mut self, batch: &[Rows<'_, SequenceKv>]) {
        let tokens = batch.iter().flat_map(|rows| rows.tokens);
        for (row, token) in tokens.enumerate() {
            // A token outside of the vocabulary was refused long before; this guards the memory.
            let token = (*token as usize).min(self.embedding.outputs() - 1);
            self.embedding.output_weights(token, self.scratch.hidden.row_mut(row));
        }
    }

    /// Computes queries, and keeps keys and values.
    fn project(&mut self, index: usize, places: &[Place]) {
        let (Some(layer), vector) = (self.layers.get(index), self.vector()) else { return };
        let eps = self.config.rms_norm_eps as f32;
        let (pool, s) = (self.pool.as_ref(), &mut self.scratch);

        let hidden = &s.hidden;
        s.normed.for_each(pool, |row, normed| {
            vector.rms_norm(hidden.row(row), &layer.attention_norm, eps, normed);
        });
        layer.qkv.product(pool, &s.normed, &mut s.qkv);
        let attention = Attention { config: &self.config, layout: self.layout, index, places, pool };
        let (norms, turns) = (layer.head_norms.as_ref(), (&s.cos, &s.sin));
        match self.numerics {
            Numerics::Bf16 => attention.store::<Pair>(norms, turns, &mut s.qkv),
            _ => attention.store::<f32>(norms, turns, &mut s.qkv),
        }
    }

    /// Adds what attention and feed-forward say to the residual stream.
    fn add(&mut self, index: usize, places: &[Place]) {
        let (Some(layer), vector) = (self.layers.get(index), self.vector()) else { return };
        let eps = self.config.rms_norm_eps as f32;
        let (pool, s) = (self.pool.as_ref(), &mut self.scratch);

        let attention = Attention { config: &self.config, layout: self.layout, index, places, pool };
        if self.numerics == Numerics::Bf16 {
            s.rounded.round(pool, &s.qkv);
            attention.attend(&s.rounded, &mut s.attended);
        } else {
            attention.attend(&s.qkv, &mut s.attended);
        }
        let (hidden, added) = (&mut s.hidden, &mut s.added);
        layer.output.product(pool, &s.attended, added);
        hidden.for_each(pool, |row, x| vector.add(x, added.row(row)));

        s.normed.for_each(pool, |row, normed| {
            vector.rms_norm(hidden.row(row), &layer.feed_forward_norm, eps, normed);
        });
        layer.feed_forward.run(pool, &s.normed, &mut s.feed_forward, added);
        hidden.for_each(pool, |row, x| vector.add(x, added.row(row)));
    }

    /// Leaves nothing but the rows whose logits are wanted in the residual stream and among the queries. Returns where they are.
    fn keep_wanted(&mut self, batch: &[Rows<'_, SequenceKv>], places: Vec<Place>) -> Vec<Place> {
        if batch.iter().all(|rows| rows.logits as usize >= rows.tokens.len()) {
            return places;
        }
        let s = &mut self.scratch;
        let mut kept = 0;
        let mut keep = |(rows, place): (&Rows<'_, SequenceKv>, Place)| {
            let new = (rows.logits as usize).min(place.new);
            let left = place.new - new;
            s.hidden.move_rows(place.first + left..place.first + place.new, kept);
            s.qkv.move_rows(place.first + left..place.first + place.new, kept);
            let first = kept;
            kept += new;
            Place { first, new, past: place.past + left, blocks: place.blocks }
        };
        let places = batch.iter().zip(places).map(&mut keep).collect();
        self.resize(kept);
        self.scratch.qkv.resize(kept);
        places
    }

    /// Normalises what left the last layer.
    fn norm_wanted(&mut self) {
        let (pool, vector, s) = (self.pool.as_ref(), Vector::new(self.pool.isa()), &mut self.scratch);
        let (hidden, norm, eps) = (&s.hidden, &self.norm, self.config.rms_norm_eps as f32);
        s.wanted.resize(hidden.rows());
        s.wanted.for_each(pool, |row, normed| vector.rms_norm(hidden.row(row), norm, eps, normed));
    }

    /// Makes the buffers of activations hold so many rows.
    fn resize(&mut self, rows: usize) {
        let s = &mut self.scratch;
        for buffer in [&mut s.hidden, &mut s.normed, &mut s.attended] {
            buffer.resize(rows);
        }
    }
}

impl Model for Decoder {
    type Kv = SequenceKv;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn parameters(&self) -> u64 {
        self.parameters
    }

    fn parameters_per_token(&self) -> u64 {
        self.parameters - self.layers.iter().map(|layer| layer.feed_forward.idle_parameters()).sum::<u64>()
    }

    fn weight_bytes(&self) -> u64 {
        let layer = |l: &Layer| l.qkv.bytes() + l.output.bytes() + l.feed_forward.step_bytes();
        let head = self.head.as_ref().unwrap_or(&self.embedding).bytes();
        (head + self.layers.iter().map(layer).sum::<usize>()) as u64
    }

    fn numerics(&self) -> &'static str {
        self.numerics.name()
    }

    fn set_pool(&mut self, pool: Arc<Pool>) {
        self.pool = pool;
    }

    fn new_sequence(&self, capacity: u32) -> Result<SequenceKv, ModelError> {
        Ok(SequenceKv::new(capacity.min(self.config.max_context)))
    }

    fn forward(&mut self, batch: &mut [Rows<'_, SequenceKv>]) -> Result<(), ModelError> {
        let mut places = Vec::with_capacity(batch.len());
        let mut first = 0;
        for rows in batch.iter_mut() {
            let new = rows.tokens.len();
            let past = rows.kv.len() as usize;
            let blocks = rows.kv.reserve(self.layout, new as u32)?.into_iter().map(Shared::new).collect();
            places.push(Place { first, new, past, blocks });
            first += new;
        }
        let s = &mut self.scratch;
        s.cos.resize(first);
        s.sin.resize(first);
        for place in &places {
            for token in 0..place.new {
                let (cos, sin) = (s.cos.row_mut(place.first + token), s.sin.row_mut(place.first + token));
                turn(&self.frequencies, place.past + token, cos, sin);
            }
        }
        self.resize(first);
        self.embed(batch);
        let last = self.layers.len() - 1;
        for index in 0..last {
            self.project(index, &places);
            self.add(index, &places);
        }
        // Behind the last keys and values no row is of use to another.
        self.project(last, &places);
        let places = self.keep_wanted(batch, places);
        if self.scratch.hidden.rows() > 0 {
            self.add(last, &places);
        }
        self.norm_wanted();
        for rows in batch.iter_mut() {
            rows.kv.advance(rows.tokens.len() as u32);
        }
        Ok(())
    }

    fn logits(&mut self, rows: Range<usize>) -> Result<&mut RowBuffer, ModelError> {
        let s = &mut self.scratch;
        s.asked.resize(rows.len());
        for (place, row) in rows.enumerate() {
            s.asked.row_mut(place).copy_from_slice(s.wanted.row(row));
        }
        self.head.as_ref().unwrap_or(&self.embedding).product(&self.pool, &s.asked, &mut s.logits);
        Ok(&mut s.logits)
    }

    fn full_block(kv: &SequenceKv, index: usize) -> Option<Arc<KvBlock>> {
        kv.full_block(index)
    }

    fn adopt(kv: &mut SequenceKv, blocks: Vec<Arc<KvBlock>>) -> bool {
        kv.adopt(blocks)
    }
}

impl Layer {
    fn load(index: u32, config: &ModelConfig, weights: &mut Weights) -> Result<Self, ModelError> {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let (q_rows, kv_rows) = (config.heads * dim, config.kv_heads * dim);
        let qkv = [
            (name("self_attn.q_proj"), q_rows),
            (name("self_attn.k_proj"), kv_rows),
            (name("self_attn.v_proj"), kv_rows),
        ];
        Ok(Self {
            attention_norm: weights.vector(&name("input_layernorm"), hidden)?,
            qkv: weights.matrix(&qkv, hidden)?,
            head_norms: match config.family {
                Family::Qwen3 | Family::Qwen3Moe => Some((
                    weights.vector(&name("self_attn.q_norm"), dim)?,
                    weights.vector(&name("self_attn.k_norm"), dim)?,
                )),
                Family::Llama => None,
            },
            output: weights.matrix(&[(name("self_attn.o_proj"), hidden)], q_rows)?,
            feed_forward_norm: weights.vector(&name("post_attention_layernorm"), hidden)?,
            feed_forward: FeedForward::load(index, config, weights)?,
        })
    }
}
