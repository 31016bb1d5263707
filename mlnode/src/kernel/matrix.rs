//! Weights packed once, and their product with any number of rows.

use super::{
    fp8::{Fp8Packing, Fp8Panels},
    isa::Isa,
    pair::Pair,
    pool::{Pool, Shared},
    rows::RowBuffer,
    slab::{Plain, Slab},
    tile::{multiply, rows_max, Operand, Tile, Weight, WIDTH},
};
use half::{bf16, f16};
use std::{cell::RefCell, io, ops::Range};

/// Steps of a block sum, of one input each or of a pair: a block of a panel and of a tile's rows fit the first cache together.
/// Part of the fixed order of operations, so another value is another kernel class.
pub(super) const DEPTH: usize = 256;
/// Inputs whose rows stay in the second cache while all panels pass by, in numbers of 32 bits.
const ROWS_CACHE: usize = 1 << 18;
/// From so many rows on it pays to widen a block of 16-bit weights once instead of at every use.
const WIDEN_ROWS: usize = 24;
/// Parts that a product is cut into for each thread, so that one that is held up costs little.
const PARTS_PER_THREAD: usize = 4;

/// A weight matrix, packed for [`Matrix::product`].
#[derive(Debug)]
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    panels: Panels,
}

/// Panels of [`WIDTH`] outputs one after the other, the last one filled up with zeros.
#[derive(Debug)]
enum Panels {
    F32(Slab<f32>),
    Bf16(Slab<bf16>),
    F16(Slab<f16>),
    Fp8(Fp8Panels),
    /// bf16 that meets inputs rounded to bf16, two at a time.
    Pairs(Slab<Pair>),
}

thread_local! {
    /// Inputs rounded for a product: kept by the thread that asks for products, so that none allocates.
    static ROUNDED: RefCell<RowBuffer<Pair>> = RefCell::new(RowBuffer::default());
}

/// Some rows of a buffer, and the matrix that they meet.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The matrix.
    pub matrix: &'a Matrix,
    /// The rows.
    pub rows: Range<usize>,
}

/// A matrix being packed, output by output.
#[derive(Debug)]
pub struct Packing<W> {
    outputs: usize,
    inputs: usize,
    /// What [`Self::push`] takes for each output.
    steps: usize,
    packed: Slab<W>,
    filled: usize,
}

#[allow(private_bounds, reason = "the storage types are closed: f32, bf16 and f16")]
impl<W: Plain> Packing<W> {
    /// Room for a matrix of so many outputs, each a weighted sum of `inputs` numbers.
    pub fn new(outputs: usize, inputs: usize) -> io::Result<Self> {
        Self::with_steps(outputs, inputs, inputs)
    }

    fn with_steps(outputs: usize, inputs: usize, steps: usize) -> io::Result<Self> {
        let packed = Slab::zeroed(outputs.next_multiple_of(WIDTH) * steps)?;
        Ok(Self { outputs, inputs, steps, packed, filled: 0 })
    }

    /// Takes the weights of the next output.
    ///
    /// # Panics
    /// When all outputs were given, or there are not as many weights as inputs.
    pub fn push(&mut self, weights: impl ExactSizeIterator<Item = W>) {
        assert!(self.filled < self.outputs && weights.len() == self.steps, "the matrix has another shape");
        let first = self.filled / WIDTH * WIDTH * self.steps + self.filled % WIDTH;
        let places = self.packed.get_mut(first..).unwrap_or_default().iter_mut().step_by(WIDTH);
        for (place, weight) in places.zip(weights) {
            *place = weight;
        }
        self.filled += 1;
    }
}

impl Packing<Pair> {
    /// Room for a matrix whose products are of the class `bf16`: inputs are rounded to bf16, sums are f32.
    pub(crate) fn pairs(outputs: usize, inputs: usize) -> io::Result<Self> {
        Self::with_steps(outputs, inputs, inputs.div_ceil(2))
    }
}

macro_rules! from_packing {
    ($weight:ty, $variant:ident) => {
        impl From<Packing<$weight>> for Matrix {
            fn from(packing: Packing<$weight>) -> Self {
                let Packing { outputs, inputs, packed, filled, .. } = packing;
                assert_eq!(filled, outputs, "the matrix has another shape");
                Self { outputs, inputs, panels: Panels::$variant(packed) }
            }
        }
    };
}

from_packing!(f32, F32);
from_packing!(bf16, Bf16);
from_packing!(f16, F16);
from_packing!(Pair, Pairs);

impl From<Fp8Packing> for Matrix {
    fn from(packing: Fp8Packing) -> Self {
        let (outputs, inputs, panels) = packing.finish();
        Self { outputs, inputs, panels: Panels::Fp8(panels) }
    }
}

impl Matrix {
    /// Numbers that a product gives for each row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Numbers that a product takes from each row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes of its weights, scales of 8-bit ones included.
    pub fn bytes(&self) -> usize {
        let weights = self.outputs * self.inputs;
        match &self.panels {
            Panels::F32(_) => weights * 4,
            Panels::Bf16(_) | Panels::F16(_) => weights * 2,
            Panels::Pairs(_) => self.outputs * self.inputs.div_ceil(2) * 4,
            Panels::Fp8(panels) => weights + panels.scale_bytes(),
        }
    }

    /// The weights of one output.
    ///
    /// # Panics
    /// When there is no such output, or `into` is shorter than the inputs.
    pub fn output_weights(&self, output: usize, into: &mut [f32]) {
        assert!(output < self.outputs, "output {output} of {}", self.outputs);
        match &self.panels {
            Panels::F32(panels) => unpack(panels, output, self.inputs, into),
            Panels::Bf16(panels) => unpack(panels, output, self.inputs, into),
            Panels::F16(panels) => unpack(panels, output, self.inputs, into),
            Panels::Fp8(panels) => panels.output_weights(output, &mut into[..self.inputs]),
            Panels::Pairs(panels) => {
                let pairs = of_output(panels, output, self.inputs.div_ceil(2));
                for (places, pair) in into[..self.inputs].chunks_mut(2).zip(pairs) {
                    places.copy_from_slice(&pair.widen()[..places.len()]);
                }
            }
        }
    }

    /// Multiplies every row of `x` with the matrix; `out` gets as many rows.
    ///
    /// # Panics
    /// When the widths of `x` and `out` are not the inputs and outputs of the matrix.
    pub fn product(&self, pool: &Pool, x: &RowBuffer, out: &mut RowBuffer) {
        Self::products(pool, &[Group { matrix: self, rows: 0..x.rows() }], x, out);
    }

    /// Multiplies groups of the rows of `x`, each with a matrix of its own; `out` gets as many rows as `x`. Rows of no
    /// group are left as they are. A row's result is that of [`Self::product`], whatever the groups.
    ///
    /// # Panics
    /// When the widths of `x` and `out` are not the inputs and outputs of every matrix, or groups overlap or leave `x`.
    pub fn products(pool: &Pool, groups: &[Group<'_>], x: &RowBuffer, out: &mut RowBuffer) {
        let mut end = 0;
        for Group { matrix, rows } in groups {
            let shape = (matrix.inputs, matrix.outputs);
            assert_eq!((x.width(), out.width()), shape, "the matrix has another shape");
            // In order, so that no row is written to twice.
            assert!(rows.start >= end && rows.end >= rows.start && rows.end <= x.rows(), "rows {rows:?}");
            end = rows.end;
        }
        out.resize(x.rows());
        let panels = out.width().div_ceil(WIDTH);
        // Many groups are parts enough; few are cut.
        let cuts = match pool.threads() {
            1 => 1,
            threads => panels.min((threads * PARTS_PER_THREAD).div_ceil(groups.len().max(1))),
        };
        ROUNDED.with_borrow_mut(|rounded| {
            if groups.iter().any(|group| matches!(group.matrix.panels, Panels::Pairs(_))) {
                rounded.round(pool, x);
            }
            let (rounded, target, out_stride) = (&*rounded, Shared::new(out.as_mut_ptr()), out.stride());
            pool.run(groups.len() * cuts, &|part| {
                let (Some(group), cut) = (groups.get(part / cuts), part % cuts) else { return };
                let range = cut * panels / cuts..(cut + 1) * panels / cuts;
                let place =
                    Place { isa: pool.isa(), rows: group.rows.clone(), x, out: target.get(), out_stride };
                // SAFETY: `out` has the rows of `x`, each with room for whole panels; parts write other rows or panels.
                unsafe {
                    match &group.matrix.panels {
                        Panels::F32(weights) => place.product(&weights[..], range),
                        Panels::Bf16(weights) => place.product(&weights[..], range),
                        Panels::F16(weights) => place.product(&weights[..], range),
                        Panels::Fp8(panels) => place.product(panels, range),
                        Panels::Pairs(pairs) => place.of(rounded).product_of_pairs(pairs, range),
                    }
                }
            });
        });
    }
}

/// The packed weights of one output.
fn of_output<W>(panels: &[W], output: usize, steps: usize) -> impl Iterator<Item = &W> {
    let first = output / WIDTH * WIDTH * steps + output % WIDTH;
    panels.get(first..).unwrap_or_default().iter().step_by(WIDTH).take(steps)
}

fn unpack<W: Weight>(panels: &[W], output: usize, inputs: usize, into: &mut [f32]) {
    assert!(into.len() >= inputs, "the matrix has another shape");
    for (place, weight) in into.iter_mut().zip(of_output(panels, output, inputs)) {
        *place = weight.widen();
    }
}

/// Up to [`DEPTH`] steps of one panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) panel: usize,
    /// First step.
    pub(super) start: usize,
    /// Steps.
    pub(super) depth: usize,
    /// Steps of the matrix.
    pub(super) steps: usize,
}

impl Block {
    /// Where its weights lie among the packed ones.
    pub(super) fn weights(&self) -> Range<usize> {
        let first = (self.panel * self.steps + self.start) * WIDTH;
        first..first + self.depth * WIDTH
    }
}

/// Packed weights of any storage.
pub(super) trait Blocks {
    /// How they are stored.
    type Stored: Weight;

    /// A block as it is stored, where a product with so many rows takes it so.
    fn stored(&self, block: Block, rows: usize) -> Option<&[Self::Stored]>;

    /// A block as f32: `depth` times [`WIDTH`].
    fn widen(&self, isa: Isa, block: Block, into: &mut [f32]);

    /// Multiplies a tile of so many rows with a block that is widened in registers. False, and nothing done, where there
    /// is no kernel for that. The weights of `tile` are not looked at.
    ///
    /// # Safety
    /// As [`multiply`].
    unsafe fn multiply(&self, _isa: Isa, _rows: usize, _block: Block, _tile: &Tile<Self::Stored>) -> bool {
        false
    }
}

impl<W: Weight> Blocks for [W] {
    type Stored = W;

    fn stored(&self, block: Block, rows: usize) -> Option<&[W]> {
        (rows < WIDEN_ROWS || !W::WIDENS_IN_BULK).then(|| &self[block.weights()])
    }

    fn widen(&self, _isa: Isa, block: Block, into: &mut [f32]) {
        for (wide, weight) in into.iter_mut().zip(&self[block.weights()]) {
            *wide = weight.widen();
        }
    }
}

/// Where a product on one thread takes its rows from, and writes to.
struct Place<'a, X = f32> {
    isa: Isa,
    rows: Range<usize>,
    x: &'a RowBuffer<X>,
    out: *mut f32,
    out_stride: usize,
}

impl Place<'_> {
    /// The same place for rounded rows.
    fn of(self, x: &RowBuffer<Pair>) -> Place<'_, Pair> {
        Place { isa: self.isa, rows: self.rows, x, out: self.out, out_stride: self.out_stride }
    }

    /// # Safety
    /// `out` has the rows, each with room for these panels, which nobody else touches.
    unsafe fn product<B: Blocks + ?Sized>(&self, weights: &B, panels: Range<usize>) {
        let mut widened = [0f32; DEPTH * WIDTH];
        self.for_each_block(panels, |rows, block| {
            let count = rows.len();
            // SAFETY: promised by the caller; the block has `depth` times `WIDTH` weights.
            unsafe {
                if let Some(stored) = weights.stored(block, count) {
                    self.block(rows, block, stored);
                } else if count > rows_max(self.isa)
                    || !weights.multiply(self.isa, count, block, &self.tile(rows.start, block, &[]))
                {
                    let widened = &mut widened[..block.depth * WIDTH];
                    weights.widen(self.isa, block, widened);
                    self.block(rows, block, widened);
                }
            }
        });
    }
}

impl Place<'_, Pair> {
    /// # Safety
    /// As [`Place::product`].
    unsafe fn product_of_pairs(&self, weights: &[Pair], panels: Range<usize>) {
        // SAFETY: promised by the caller; the block has `depth` times `WIDTH` weights.
        self.for_each_block(panels, |rows, block| unsafe {
            self.block(rows, block, &weights[block.weights()])
        });
    }
}

impl<X: Plain + Default> Place<'_, X> {
    /// Some rows and a block of weights at a time, in an order in which both stay in their caches.
    fn for_each_block(&self, panels: Range<usize>, mut run: impl FnMut(Range<usize>, Block)) {
        let steps = self.x.width();
        let most = (ROWS_CACHE / steps.max(1)).max(rows_max(self.isa));
        let mut first = self.rows.start;
        while first < self.rows.end {
            let count = share(self.rows.end - first, most);
            for panel in panels.clone() {
                for start in (0..steps).step_by(DEPTH) {
                    run(first..first + count, Block { panel, start, depth: DEPTH.min(steps - start), steps });
                }
            }
            first += count;
        }
    }

    /// # Safety
    /// As [`Place::product`].
    unsafe fn block<V: Operand<Input = X>>(&self, rows: Range<usize>, block: Block, weights: &[V]) {
        let mut row = rows.start;
        while row < rows.end {
            let count = share(rows.end - row, rows_max(self.isa));
            // SAFETY: promised by the caller.
            unsafe { multiply(self.isa, count, &self.tile(row, block, weights)) };
            row += count;
        }
    }

    /// # Safety
    /// As [`Place::product`], and there is such a row.
    unsafe fn tile<V: Operand<Input = X>>(&self, row: usize, block: Block, weights: &[V]) -> Tile<V> {
        // SAFETY: promised by the caller.
        let (x, out) = unsafe {
            (
                self.x.as_ptr().add(row * self.x.stride() + block.start),
                self.out.add(row * self.out_stride + block.panel * WIDTH),
            )
        };
        Tile {
            x,
            x_stride: self.x.stride(),
            w: weights.as_ptr(),
            depth: block.depth,
            out,
            out_stride: self.out_stride,
            add: block.start > 0,
        }
    }
}

/// The next share of `left`, of at most `most`, so that all shares are about equal.
pub(crate) fn share(left: usize, most: usize) -> usize {
    left.div_ceil(left.div_ceil(most))
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::fp8::tests::fp8_matrix, *};
    use proptest::prelude::*;

    fn noise(seed: u32) -> impl Iterator<Item = f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
    }

    pub(in crate::kernel) fn rows(count: usize, width: usize, seed: u32) -> RowBuffer {
        let mut rows = RowBuffer::new(width);
        rows.resize(count);
        let mut noise = noise(seed);
        for row in 0..count {
            rows.row_mut(row).fill_with(|| noise.next().unwrap());
        }
        rows
    }

    fn matrix<W: Weight>(outputs: usize, inputs: usize, narrow: impl Fn(f32) -> W) -> (Matrix, Vec<f32>)
    where
        Matrix: From<Packing<W>>,
    {
        let plain: Vec<W> = noise(7).take(outputs * inputs).map(narrow).collect();
        let mut packing = Packing::new(outputs, inputs).unwrap();
        for row in plain.chunks(inputs) {
            packing.push(row.iter().copied());
        }
        (packing.into(), plain.iter().map(|w| w.widen()).collect())
    }

    pub(in crate::kernel) fn bits(rows: &RowBuffer) -> Vec<Vec<u32>> {
        (0..rows.rows()).map(|row| rows.row(row).iter().map(|x| x.to_bits()).collect()).collect()
    }

    /// The definition, in the order that the module promises.
    fn expected(x: &[f32], weights: &[f32]) -> f32 {
        let blocks = x.chunks(DEPTH).zip(weights.chunks(DEPTH));
        blocks
            .map(|(x, w)| x.iter().zip(w).fold(0f32, |sum, (x, w)| x.mul_add(*w, sum)))
            .reduce(|sum, block| sum + block)
            .unwrap()
    }

    /// The same bits with every instruction set, on one thread and on several.
    fn assert_products(matrix: &Matrix, x: &RowBuffer, expected: &[Vec<u32>]) {
        let (outputs, inputs, count) = (matrix.outputs(), matrix.inputs(), x.rows());
        for isa in Isa::available() {
            for threads in [1, 3] {
                let mut out = RowBuffer::new(outputs);
                matrix.product(&Pool::with_isa(threads, isa), x, &mut out);
                assert_eq!(
                    bits(&out),
                    expected,
                    "{isa:?}, {threads} threads, {outputs} x {inputs}, {count} rows"
                );
            }
        }
    }

    fn check<W: Weight>(outputs: usize, inputs: usize, count: usize, narrow: impl Fn(f32) -> W)
    where
        Matrix: From<Packing<W>>,
    {
        let (matrix, plain) = matrix(outputs, inputs, narrow);
        let x = rows(count, inputs, 3);
        let expected: Vec<Vec<u32>> = (0..count)
            .map(|row| plain.chunks(inputs).map(|w| expected(x.row(row), w).to_bits()).collect())
            .collect();
        assert_products(&matrix, &x, &expected);
        let mut weights = vec![0.0; inputs];
        matrix.output_weights(outputs - 1, &mut weights);
        assert_eq!(weights, plain[(outputs - 1) * inputs..]);
    }

    /// Pairs of a row or of the weights of an output.
    fn pairs(x: &[f32]) -> Vec<Pair> {
        x.chunks(2).map(Pair::of).collect()
    }

    fn pair_matrix(outputs: usize, inputs: usize) -> (Matrix, Vec<Vec<Pair>>) {
        let plain: Vec<f32> = noise(7).take(outputs * inputs).collect();
        let rows: Vec<Vec<Pair>> = plain.chunks(inputs).map(pairs).collect();
        let mut packing = Packing::pairs(outputs, inputs).unwrap();
        for row in &rows {
            packing.push(row.iter().copied());
        }
        (packing.into(), rows)
    }

    fn check_pairs(outputs: usize, inputs: usize, count: usize) {
        let (matrix, weights) = pair_matrix(outputs, inputs);
        let x = rows(count, inputs, 3);
        let expected = |x: &[f32], weights: &[Pair]| {
            let x = pairs(x);
            let blocks = x.chunks(DEPTH).zip(weights.chunks(DEPTH));
            let sum = |(x, w): (&[Pair], &[Pair])| x.iter().zip(w).fold(0f32, |sum, (x, w)| w.step(*x, sum));
            blocks.map(sum).reduce(|sum, block| sum + block).unwrap()
        };
        let expected: Vec<Vec<u32>> = (0..count)
            .map(|row| weights.iter().map(|w| expected(x.row(row), w).to_bits()).collect())
            .collect();
        assert_products(&matrix, &x, &expected);
        let mut found = vec![0.0; inputs];
        matrix.output_weights(outputs - 1, &mut found);
        assert_eq!(pairs(&found), weights[outputs - 1]);
    }

    #[test]
    fn products_of_pairs_are_exact_to_the_bit() {
        for (count, inputs) in [(1, 300), (2, 31), (7, 1), (12, 1030), (13, 515), (40, 300)] {
            check_pairs(70, inputs, count);
        }
    }

    #[test]
    fn products_of_every_storage_are_exact_to_the_bit() {
        for count in [1, 2, 3, 7, 12, 13, 25, 40] {
            check(70, 300, count, |x| x);
            check(33, 515, count, bf16::from_f32);
            check(64, 31, count, f16::from_f32);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn shapes_do_not_matter(outputs in 1usize..100, inputs in 1usize..600, count in 1usize..30) {
            check(outputs, inputs, count, |x| x);
            check_pairs(outputs, inputs, count);
        }

        #[test]
        fn shares_add_up(left in 1usize..1_000, most in 1usize..50) {
            let (mut rest, mut parts) = (left, 0);
            while rest > 0 {
                let part = share(rest, most);
                prop_assert!(part >= 1 && part <= most);
                rest -= part;
                parts += 1;
            }
            prop_assert_eq!(parts, left.div_ceil(most));
        }
    }

    #[test]
    fn groups_of_rows_meet_their_own_matrices() {
        let (first, _) = matrix(70, 300, |x| x);
        let (second, _) = matrix(70, 300, |x: f32| bf16::from_f32(-x));
        let third = fp8_matrix(70, 300, 128);
        let (fourth, _) = pair_matrix(70, 300);
        let x = rows(50, 300, 5);
        let whole = |matrix: &Matrix| {
            let mut out = RowBuffer::new(70);
            matrix.product(&Pool::new(1), &x, &mut out);
            bits(&out)
        };
        let alone = [whole(&first), whole(&second), whole(&third), whole(&fourth)];
        let groups = [(&first, 0..1), (&second, 2..2), (&second, 3..30), (&third, 30..32), (&fourth, 32..50)];
        let groups = groups.map(|(matrix, rows)| Group { matrix, rows });
        for isa in Isa::available() {
            for threads in [1, 3] {
                let mut out = RowBuffer::new(70);
                Matrix::products(&Pool::with_isa(threads, isa), &groups, &x, &mut out);
                let found = bits(&out);
                for (rows, matrix) in [(0..1, 0), (3..30, 1), (30..32, 2), (32..50, 3)] {
                    assert_eq!(found[rows.clone()], alone[matrix][rows], "{isa:?}, {threads} threads");
                }
            }
        }
    }

    #[test]
    fn no_rows_are_no_work() {
        let (matrix, _) = matrix(5, 5, |x| x);
        let mut out = RowBuffer::new(5);
        matrix.product(&Pool::new(1), &rows(0, 5, 1), &mut out);
        assert_eq!(out.rows(), 0);
    }
}
