//! Keys and values of sequences, in blocks of tokens that sequences can share.

use crate::kernel::WIDTH;
use starling_primitives::profile::Numerics;
use std::sync::Arc;

use super::{ModelConfig, ModelError};

/// Tokens of a block. The width of a panel: the keys of a block, and its values, are panels for
/// `crate::kernel::multiply`.
pub const BLOCK_TOKENS: usize = WIDTH;

/// How a block is laid out: per layer and key head, first the keys as one panel (head width times [`BLOCK_TOKENS`]),
/// then the values as panels of [`WIDTH`] of the head's numbers ([`BLOCK_TOKENS`] times [`WIDTH`] each). Elements have 32 bits: a
/// number of f32, or two of bf16, which belong to neighbours of the head in keys, and to tokens that follow one another in values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    heads: usize,
    dim: usize,
    layers: usize,
    /// Numbers of an element.
    numbers: usize,
}

impl Layout {
    pub(super) fn new(config: &ModelConfig, numerics: Numerics) -> Self {
        let size = |n: u32| n as usize;
        let numbers = if numerics == Numerics::Bf16 { 2 } else { 1 };
        Self {
            heads: size(config.kv_heads),
            dim: size(config.head_dim),
            layers: size(config.layers),
            numbers,
        }
    }

    /// Panels of values of a head.
    pub(super) fn value_panels(self) -> usize {
        self.dim.div_ceil(WIDTH)
    }

    fn head_elements(self) -> usize {
        self.key_elements() + self.value_panels() * self.panel_elements()
    }

    /// Elements of the keys of a head. Its width is even.
    fn key_elements(self) -> usize {
        self.dim / self.numbers * BLOCK_TOKENS
    }

    /// Elements of a panel of values.
    fn panel_elements(self) -> usize {
        WIDTH * BLOCK_TOKENS / self.numbers
    }

    fn block_elements(self) -> usize {
        self.layers * self.heads * self.head_elements()
    }

    /// Bytes for each token, where blocks are full.
    pub(super) fn token_bytes(self) -> u64 {
        (self.block_elements() * size_of::<f32>() / BLOCK_TOKENS) as u64
    }

    /// First element of the keys of a head.
    pub(super) fn keys(self, layer: usize, head: usize) -> usize {
        (layer * self.heads + head) * self.head_elements()
    }

    /// First element of a panel of values of a head.
    pub(super) fn values(self, layer: usize, head: usize, panel: usize) -> usize {
        self.keys(layer, head) + self.key_elements() + panel * self.panel_elements()
    }
}

/// Keys and values of [`BLOCK_TOKENS`] tokens in all layers. Shared only once it is full, and never changed then.
#[derive(Debug)]
pub struct KvBlock(Box<[f32]>);

/// Keys and values of one sequence.
#[derive(Debug)]
pub struct SequenceKv {
    blocks: Vec<Arc<KvBlock>>,
    length: u32,
    capacity: u32,
}

impl SequenceKv {
    /// Nothing stored yet; takes memory as it grows.
    pub(super) fn new(capacity: u32) -> Self {
        Self { blocks: Vec::new(), length: 0, capacity }
    }

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

    /// A block, if it is full.
    pub fn full_block(&self, index: usize) -> Option<Arc<KvBlock>> {
        let full = self.length as usize / BLOCK_TOKENS;
        self.blocks.get(..full)?.get(index).map(Arc::clone)
    }

    /// Starts an empty sequence with full blocks of another one of the same model. Returns false, and does nothing, when
    /// it is not empty or they do not fit.
    pub fn adopt(&mut self, blocks: Vec<Arc<KvBlock>>) -> bool {
        let tokens = blocks.len() * BLOCK_TOKENS;
        if !self.is_empty() || tokens > self.capacity as usize {
            return false;
        }
        self.length = tokens as u32;
        self.blocks = blocks;
        true
    }

    /// Makes room for `new` more tokens, and returns where the blocks lie. Those that will be written to are nobody
    /// else's.
    pub(super) fn reserve(&mut self, layout: Layout, new: u32) -> Result<Vec<*mut f32>, ModelError> {
        let tokens = self.length.saturating_add(new);
        if tokens > self.capacity {
            return Err(ModelError::CacheFull { tokens, capacity: self.capacity });
        }
        while self.blocks.len() * BLOCK_TOKENS < tokens as usize {
            let elements = vec![0f32; layout.block_elements()];
            self.blocks.push(Arc::new(KvBlock(elements.into_boxed_slice())));
        }
        let first_open = self.length as usize / BLOCK_TOKENS;
        self.blocks
            .iter_mut()
            .enumerate()
            .map(|(index, block)| {
                if index < first_open {
                    // Only read.
                    return Ok(block.0.as_ptr().cast_mut());
                }
                let open = Arc::get_mut(block);
                open.map(|block| block.0.as_mut_ptr()).ok_or(ModelError::SharedBlock)
            })
            .collect()
    }

    /// Counts tokens whose keys and values were written.
    pub(super) fn advance(&mut self, new: u32) {
        self.length += new;
    }
}
