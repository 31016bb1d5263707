//! Weights packed once, and their product with any number of rows.

use super::{
    isa::Isa,
    pool::{Pool, Shared},
    rows::RowBuffer,
    slab::{Plain, Slab},
    tile::{multiply, rows_max, Tile, Weight, WIDTH},
};
use half::{bf16, f16};
use std::{io, ops::Range};

/// Inputs of a block sum: a block of a panel and of a tile's rows fit the first cache together. Part of the fixed order
/// of operations, so another value is another kernel class.
const DEPTH: usize = 256;
/// Inputs whose rows stay in the second cache while all panels pass by, in floats.
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
}

/// A matrix being packed, output by output.
#[derive(Debug)]
pub struct Packing<W> {
    outputs: usize,
    inputs: usize,
    packed: Slab<W>,
    filled: usize,
}

#[allow(private_bounds, reason = "the storage types are closed: f32, bf16 and f16")]
impl<W: Plain> Packing<W> {
    /// Room for a matrix of so many outputs, each a weighted sum of `inputs` numbers.
    pub fn new(outputs: usize, inputs: usize) -> io::Result<Self> {
        let packed = Slab::zeroed(outputs.next_multiple_of(WIDTH) * inputs)?;
        Ok(Self { outputs, inputs, packed, filled: 0 })
    }

    /// Takes the weights of the next output.
    ///
    /// # Panics
    /// When all outputs were given, or there are not as many weights as inputs.
    pub fn push(&mut self, weights: impl ExactSizeIterator<Item = W>) {
        assert!(self.filled < self.outputs && weights.len() == self.inputs, "the matrix has another shape");
        let first = self.filled / WIDTH * WIDTH * self.inputs + self.filled % WIDTH;
        let places = self.packed.get_mut(first..).unwrap_or_default().iter_mut().step_by(WIDTH);
        for (place, weight) in places.zip(weights) {
            *place = weight;
        }
        self.filled += 1;
    }
}

macro_rules! from_packing {
    ($weight:ty, $variant:ident) => {
        impl From<Packing<$weight>> for Matrix {
            fn from(packing: Packing<$weight>) -> Self {
                let Packing { outputs, inputs, packed, filled } = packing;
                assert_eq!(filled, outputs, "the matrix has another shape");
                Self { outputs, inputs, panels: Panels::$variant(packed) }
            }
        }
    };
}

from_packing!(f32, F32);
from_packing!(bf16, Bf16);
from_packing!(f16, F16);

impl Matrix {
    /// Numbers that a product gives for each row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Numbers that a product takes from each row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        let size = match &self.panels {
            Panels::F32(_) => 4,
            Panels::Bf16(_) | Panels::F16(_) => 2,
        };
        self.outputs * self.inputs * size
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
        }
    }

    /// Multiplies every row of `x` with the matrix; `out` gets as many rows.
    ///
    /// # Panics
    /// When the widths of `x` and `out` are not the inputs and outputs of the matrix.
    pub fn product(&self, pool: &Pool, x: &RowBuffer, out: &mut RowBuffer) {
        assert_eq!((x.width(), out.width()), (self.inputs, self.outputs), "the matrix has another shape");
        out.resize(x.rows());
        if x.rows() == 0 {
            return;
        }
        match &self.panels {
            Panels::F32(panels) => self.spread(pool, panels, x, out),
            Panels::Bf16(panels) => self.spread(pool, panels, x, out),
            Panels::F16(panels) => self.spread(pool, panels, x, out),
        }
    }

    fn spread<W: Weight>(&self, pool: &Pool, weights: &[W], x: &RowBuffer, out: &mut RowBuffer) {
        let panels = self.outputs.div_ceil(WIDTH);
        let parts = if pool.threads() == 1 { 1 } else { panels.min(pool.threads() * PARTS_PER_THREAD) };
        let out_stride = out.stride();
        let target = Shared::new(out.as_mut_ptr());
        let isa = pool.isa();
        pool.run(parts, &|part| {
            let range = part * panels / parts..(part + 1) * panels / parts;
            let product = Product { isa, weights, x, out: target.get(), out_stride };
            // SAFETY: `out` has the rows of `x`, each with room for whole panels; parts write different panels.
            unsafe { product.panels(range) };
        });
    }
}

fn unpack<W: Weight>(panels: &[W], output: usize, inputs: usize, into: &mut [f32]) {
    let first = output / WIDTH * WIDTH * inputs + output % WIDTH;
    let weights = panels.get(first..).unwrap_or_default().iter().step_by(WIDTH).take(inputs);
    assert!(into.len() >= inputs, "the matrix has another shape");
    for (place, weight) in into.iter_mut().zip(weights) {
        *place = weight.widen();
    }
}

/// A product on one thread.
struct Product<'a, W> {
    isa: Isa,
    weights: &'a [W],
    x: &'a RowBuffer,
    out: *mut f32,
    out_stride: usize,
}

impl<W: Weight> Product<'_, W> {
    /// # Safety
    /// `out` has the rows of `x`, each with room for these panels, which nobody else touches.
    unsafe fn panels(&self, panels: Range<usize>) {
        let (rows, inputs) = (self.x.rows(), self.x.width());
        let most = (ROWS_CACHE / inputs.max(1)).max(rows_max(self.isa));
        let mut widened = [0f32; DEPTH * WIDTH];
        let mut first = 0;
        while first < rows {
            let count = share(rows - first, most);
            for panel in panels.clone() {
                for start in (0..inputs).step_by(DEPTH) {
                    let depth = DEPTH.min(inputs - start);
                    let block = &self.weights[(panel * inputs + start) * WIDTH..][..depth * WIDTH];
                    // SAFETY: promised by the caller; the block has `depth` times `WIDTH` weights.
                    unsafe {
                        if count >= WIDEN_ROWS && W::WIDENS_IN_BULK {
                            for (wide, weight) in widened.iter_mut().zip(block) {
                                *wide = weight.widen();
                            }
                            self.block(first..first + count, panel, start, &widened[..depth * WIDTH]);
                        } else {
                            self.block(first..first + count, panel, start, block);
                        }
                    }
                }
            }
            first += count;
        }
    }

    /// # Safety
    /// As [`Self::panels`].
    unsafe fn block<V: Weight>(&self, rows: Range<usize>, panel: usize, start: usize, weights: &[V]) {
        let mut row = rows.start;
        while row < rows.end {
            let count = share(rows.end - row, rows_max(self.isa));
            // SAFETY: promised by the caller.
            unsafe {
                let tile = Tile {
                    x: self.x.as_ptr().add(row * self.x.stride() + start),
                    x_stride: self.x.stride(),
                    w: weights.as_ptr(),
                    depth: weights.len() / WIDTH,
                    out: self.out.add(row * self.out_stride + panel * WIDTH),
                    out_stride: self.out_stride,
                    add: start > 0,
                };
                multiply(self.isa, count, &tile);
            }
            row += count;
        }
    }
}

/// The next share of `left`, of at most `most`, so that all shares are about equal.
pub(crate) fn share(left: usize, most: usize) -> usize {
    left.div_ceil(left.div_ceil(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u32) -> impl Iterator<Item = f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
    }

    fn rows(count: usize, width: usize, seed: u32) -> RowBuffer {
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

    fn bits(rows: &RowBuffer) -> Vec<Vec<u32>> {
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

    fn check<W: Weight>(outputs: usize, inputs: usize, count: usize, narrow: impl Fn(f32) -> W)
    where
        Matrix: From<Packing<W>>,
    {
        let (matrix, plain) = matrix(outputs, inputs, narrow);
        let x = rows(count, inputs, 3);
        let expected: Vec<Vec<u32>> = (0..count)
            .map(|row| plain.chunks(inputs).map(|w| expected(x.row(row), w).to_bits()).collect())
            .collect();
        for isa in Isa::available() {
            for threads in [1, 3] {
                let mut out = RowBuffer::new(outputs);
                matrix.product(&Pool::with_isa(threads, isa), &x, &mut out);
                assert_eq!(
                    bits(&out),
                    expected,
                    "{isa:?}, {threads} threads, {outputs} x {inputs}, {count} rows"
                );
            }
        }
        let mut weights = vec![0.0; inputs];
        matrix.output_weights(outputs - 1, &mut weights);
        assert_eq!(weights, plain[(outputs - 1) * inputs..]);
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
    fn no_rows_are_no_work() {
        let (matrix, _) = matrix(5, 5, |x| x);
        let mut out = RowBuffer::new(5);
        matrix.product(&Pool::new(1), &rows(0, 5, 1), &mut out);
        assert_eq!(out.rows(), 0);
    }
}
