//! Attention on the processor: of a key head of a sequence and a few of its rows at a time.
//!
//! Keys and values are kept as f32, or in the class `bf16` as pairs of bf16 ([`Kept`]); queries and the shares of the soft-max are
//! rounded to what they meet. The soft-max itself is f32.

use super::{
    kv::{Layout, BLOCK_TOKENS},
    ModelConfig,
};
use crate::kernel::{
    multiply, round_in_place, rows_max, share, Isa, Operand, Pair, Pool, RowBuffer, Shared, Tile, Vector,
    SHARED_ROWS, WIDTH,
};
use std::cell::RefCell;

/// How keys and values are kept.
pub(super) trait Kept: Operand<Input = Self> + Default {
    /// Numbers of an element: neighbours in a key, and the values of tokens that follow one another.
    const NUMBERS: usize;

    /// Keeps the key of a token.
    ///
    /// # Safety
    /// The panel has room for a block of such keys, and nobody else touches the token's slot.
    unsafe fn keep_key(panel: *mut Self, slot: usize, key: &[f32]);

    /// Keeps some of the values of a token.
    ///
    /// # Safety
    /// As [`Self::keep_key`].
    unsafe fn keep_value(panel: *mut Self, slot: usize, values: &[f32]);

    /// Makes of a row of shares, in its place, what meets values.
    fn narrow(isa: Isa, shares: &mut [f32]);
}

impl Kept for f32 {
    const NUMBERS: usize = 1;

    unsafe fn keep_key(panel: *mut Self, slot: usize, key: &[f32]) {
        for (i, x) in key.iter().enumerate() {
            // SAFETY: promised by the caller.
            unsafe { *panel.add(i * BLOCK_TOKENS + slot) = *x };
        }
    }

    unsafe fn keep_value(panel: *mut Self, slot: usize, values: &[f32]) {
        // SAFETY: promised by the caller.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), panel.add(slot * WIDTH), values.len()) };
    }

    fn narrow(_isa: Isa, _shares: &mut [f32]) {}
}

impl Kept for Pair {
    const NUMBERS: usize = 2;

    unsafe fn keep_key(panel: *mut Self, slot: usize, key: &[f32]) {
        for (i, pair) in key.chunks(2).enumerate() {
            // SAFETY: promised by the caller.
            unsafe { *panel.add(i * BLOCK_TOKENS + slot) = Pair::of(pair) };
        }
    }

    unsafe fn keep_value(panel: *mut Self, slot: usize, values: &[f32]) {
        for (lane, x) in values.iter().enumerate() {
            // SAFETY: promised by the caller; a token has its half of an element.
            unsafe { Pair::put(panel.add(slot / 2 * WIDTH + lane), slot % 2 == 1, *x) };
        }
    }

    fn narrow(isa: Isa, shares: &mut [f32]) {
        round_in_place(isa, shares);
    }
}

/// One sequence of a step.
pub(super) struct Place {
    /// Its first row.
    pub(super) first: usize,
    /// Its new tokens.
    pub(super) new: usize,
    /// Its stored tokens.
    pub(super) past: usize,
    /// Where its blocks lie: elements of 32 bits.
    pub(super) blocks: Vec<Shared<f32>>,
}

/// Some rows of one sequence with one key head.
#[derive(Clone, Copy)]
struct Part {
    sequence: usize,
    head: usize,
    from: usize,
    to: usize,
}

/// Attention of one layer in one step.
pub(super) struct Attention<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) layout: Layout,
    /// Which layer it is.
    pub(super) index: usize,
    pub(super) places: &'a [Place],
    pub(super) pool: &'a Pool,
}

thread_local! {
    /// Scores and outputs of a part. Per thread, so that parts do not allocate.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Attention<'_> {
    /// Normalises and rotates queries and keys in place, and writes keys and values to the blocks.
    pub(super) fn store<T: Kept>(
        &self,
        norms: Option<&(Vec<f32>, Vec<f32>)>,
        (cos, sin): (&RowBuffer, &RowBuffer),
        qkv: &mut RowBuffer,
    ) {
        let (heads, kv_heads) = (self.config.heads as usize, self.config.kv_heads as usize);
        let dim = self.config.head_dim as usize;
        let eps = self.config.rms_norm_eps as f32;
        let vector = Vector::new(self.pool.isa());
        let (stride, target) = (qkv.stride(), Shared::new(qkv.as_mut_ptr()));
        let rows: Vec<(&Place, usize)> =
            self.places.iter().flat_map(|place| (0..place.new).map(move |token| (place, token))).collect();
        let run = |(place, token): (&Place, usize)| {
            // SAFETY: the buffer has this row with `heads + 2 kv_heads` heads, and no other part has it.
            let row = unsafe {
                let start = target.get().add((place.first + token) * stride);
                std::slice::from_raw_parts_mut(start, (heads + 2 * kv_heads) * dim)
            };
            let position = place.past + token;
            let (cos, sin) = (cos.row(place.first + token), sin.row(place.first + token));
            let (queries, rest) = row.split_at_mut(heads * dim);
            let (keys, values) = rest.split_at_mut(kv_heads * dim);
            if let Some((query_norm, key_norm)) = norms {
                queries.chunks_exact_mut(dim).for_each(|x| vector.rms_norm_in_place(x, query_norm, eps));
                keys.chunks_exact_mut(dim).for_each(|x| vector.rms_norm_in_place(x, key_norm, eps));
            }
            for head in queries.chunks_exact_mut(dim).chain(keys.chunks_exact_mut(dim)) {
                vector.rotate(head, cos, sin);
            }
            let slot = position % BLOCK_TOKENS;
            let Some(block) = place.blocks.get(position / BLOCK_TOKENS) else { return };
            for (head, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate() {
                // SAFETY: the block was made for this layout, will be written to (`SequenceKv::reserve`), and the
                // slot is this token's.
                unsafe {
                    let block = block.get().cast::<T>();
                    T::keep_key(block.add(self.layout.keys(self.index, head)), slot, key);
                    for (panel, part) in value.chunks(WIDTH).enumerate() {
                        T::keep_value(block.add(self.layout.values(self.index, head, panel)), slot, part);
                    }
                }
            }
        };
        if rows.len() < SHARED_ROWS {
            return rows.into_iter().for_each(run);
        }
        let parts = self.pool.threads() * 2;
        self.pool.run(parts, &|part| {
            let range = part * rows.len() / parts..(part + 1) * rows.len() / parts;
            rows.get(range).unwrap_or_default().iter().copied().for_each(run);
        });
    }

    /// Attention of all new tokens over what their sequences have stored, into rows of `heads x dim`.
    pub(super) fn attend<T: Kept>(&self, queries: &RowBuffer<T>, out: &mut RowBuffer) {
        let most = rows_max(self.pool.isa());
        let mut parts = Vec::new();
        for (sequence, place) in self.places.iter().enumerate() {
            for head in 0..self.config.kv_heads as usize {
                let mut from = 0;
                while from < place.new {
                    let to = from + share(place.new - from, most);
                    parts.push(Part { sequence, head, from, to });
                    from = to;
                }
            }
        }
        let (stride, target) = (out.stride(), Shared::new(out.as_mut_ptr()));
        self.pool.run(parts.len(), &|index| {
            SCORES.with_borrow_mut(|scratch| {
                if let Some((part, place)) =
                    parts.get(index).and_then(|part| Some((part, self.places.get(part.sequence)?)))
                {
                    self.part(*part, place, queries, (target, stride), scratch);
                }
            });
        });
    }

    fn part<T: Kept>(
        &self,
        part: Part,
        place: &Place,
        queries: &RowBuffer<T>,
        (out, out_stride): (Shared<f32>, usize),
        scratch: &mut Vec<f32>,
    ) {
        let (dim, group) = (self.config.head_dim as usize, self.config.group() as usize);
        let first = place.first + part.from;
        let query = |head: usize| Queries {
            rows: part.to - part.from,
            // SAFETY: the buffer has this row and head.
            start: unsafe { queries.as_ptr().add(first * queries.stride() + head * dim / T::NUMBERS) },
            stride: queries.stride(),
        };
        let heads = part.head * group..(part.head + 1) * group;
        let position = place.past + part.from;
        if part.to - part.from > 1 {
            for head in heads {
                let found = self.scores(place, part.head, query(head), |row| position + row + 1, scratch);
                for (row, values) in found.chunks_exact(self.padded_dim()).enumerate() {
                    self.write(&values[..dim], (out, out_stride), first + row, head);
                }
            }
            return;
        }
        // The queries of a group look at the same keys: they stand as rows of one product.
        let mut heads = heads;
        while !heads.is_empty() {
            let count = share(heads.len(), rows_max(self.pool.isa()));
            let queries = Queries { rows: count, stride: dim / T::NUMBERS, ..query(heads.start) };
            let found = self.scores(place, part.head, queries, |_| position + 1, scratch);
            for (head, values) in heads.clone().zip(found.chunks_exact(self.padded_dim())) {
                self.write(&values[..dim], (out, out_stride), first, head);
            }
            heads.start += count;
        }
    }

    fn padded_dim(&self) -> usize {
        self.layout.value_panels() * WIDTH
    }

    fn write(&self, values: &[f32], (out, stride): (Shared<f32>, usize), row: usize, head: usize) {
        // SAFETY: the buffer has this row and head, which no other part has.
        unsafe {
            let to = out.get().add(row * stride + head * values.len());
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
        }
    }

    /// What the queries find: `padded_dim` numbers for each. `sees` says how many tokens a query looks at, never fewer
    /// than the one before it.
    fn scores<'s, T: Kept>(
        &self,
        place: &Place,
        head: usize,
        queries: Queries<T>,
        sees: impl Fn(usize) -> usize,
        scratch: &'s mut Vec<f32>,
    ) -> &'s [f32] {
        let (isa, dim) = (self.pool.isa(), self.config.head_dim as usize);
        let most = sees(queries.rows - 1);
        let blocks = most.div_ceil(BLOCK_TOKENS);
        // Rows apart from each other as in `RowBuffer`.
        let stride = blocks * BLOCK_TOKENS + 16;
        let width = self.padded_dim();
        let needed = queries.rows * (stride + width);
        if scratch.len() < needed {
            scratch.resize(needed.next_power_of_two(), 0.0);
        }
        let (scores, found) = scratch.split_at_mut(queries.rows * stride);
        for (index, block) in place.blocks.iter().take(blocks).enumerate() {
            // SAFETY: the block holds keys of this head, `dim` times `WIDTH`; a row of scores has room for all blocks.
            unsafe {
                let tile = Tile {
                    x: queries.start,
                    x_stride: queries.stride,
                    w: block.get().cast::<T>().add(self.layout.keys(self.index, head)).cast_const(),
                    depth: dim / T::NUMBERS,
                    out: scores.as_mut_ptr().add(index * BLOCK_TOKENS),
                    out_stride: stride,
                    add: false,
                };
                multiply(isa, queries.rows, &tile);
            }
        }
        let (vector, scale) = (Vector::new(isa), 1.0 / (dim as f32).sqrt());
        for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
            vector.soft_max(scores, sees(row), scale);
            T::narrow(isa, &mut scores[..blocks * BLOCK_TOKENS]);
        }
        for panel in 0..self.layout.value_panels() {
            for (index, block) in place.blocks.iter().take(blocks).enumerate() {
                // SAFETY: the block holds values of this head, `BLOCK_TOKENS` times `WIDTH` in a panel.
                unsafe {
                    let tile = Tile {
                        x: scores.as_ptr().cast::<T>().add(index * BLOCK_TOKENS / T::NUMBERS),
                        x_stride: stride,
                        w: block
                            .get()
                            .cast::<T>()
                            .add(self.layout.values(self.index, head, panel))
                            .cast_const(),
                        depth: BLOCK_TOKENS.min(most - index * BLOCK_TOKENS).div_ceil(T::NUMBERS),
                        out: found.as_mut_ptr().add(panel * WIDTH),
                        out_stride: width,
                        add: index > 0,
                    };
                    multiply(isa, queries.rows, &tile);
                }
            }
        }
        &found[..queries.rows * width]
    }
}

/// Queries as rows of a product.
struct Queries<T> {
    rows: usize,
    start: *const T,
    stride: usize,
}
