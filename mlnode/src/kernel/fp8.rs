//! Weights of 8 bits (E4M3, without infinities) with a scale for each block, as FP8 checkpoints store them.
//!
//! A weight is the value of its byte times its block's scale, rounded once to f32: what dequantising the checkpoint to f32
//! gives. They stay 8 bits in memory and are widened while a product uses them, in registers for few rows and block by block
//! for many, so products have the bits of the dequantised weights.

use super::{
    isa::Isa,
    matrix::{Block, Blocks},
    slab::Slab,
    tile::{Tile, WIDTH},
    vector::Vector,
};
use std::io;

/// Value of a byte: sign, 4 bits of exponent with the bias 7, 3 bits of fraction. The two patterns that are no number (all
/// ones behind the sign) are refused when a checkpoint is read; here they are 480.
#[inline(always)]
pub(super) fn value(byte: u8) -> f32 {
    /// Between the exponents' biases, 127 and 7.
    const REBIAS: f32 = f32::from_bits((127 + 120) << 23);
    let bits = u32::from(byte);
    // Small bytes become subnormal f32 on the way; the product is exact all the same.
    f32::from_bits((bits & 0x80) << 24 | (bits & 0x7f) << 20) * REBIAS
}

/// Largest scale: its products with weights, and with the power of two that the kernels take out, are finite.
pub(crate) const SCALE_MAX: f32 = 1e30;

/// The weights of one output as a checkpoint stores them.
#[derive(Clone, Copy, Debug)]
pub struct Fp8Row<'a> {
    /// One byte for each input.
    pub weights: &'a [u8],
    /// The scale of each run of them; the last run may be shorter.
    pub scales: &'a [f32],
    /// Inputs that share a scale; at least 1.
    pub run: usize,
}

impl Fp8Row<'_> {
    /// What the bytes stand for, for as many inputs as `into` has places.
    pub fn widen(&self, into: &mut [f32]) {
        let runs = into.chunks_mut(self.run).zip(self.weights.chunks(self.run)).zip(self.scales);
        for ((into, weights), scale) in runs {
            for (into, weight) in into.iter_mut().zip(weights) {
                *into = value(*weight) * scale;
            }
        }
    }
}

/// Packed weights, laid out as those of other storages.
#[derive(Debug)]
pub(super) struct Fp8Panels {
    weights: Slab<u8>,
    /// For each panel and each run of inputs the scales of the panel's outputs.
    scales: Vec<[f32; WIDTH]>,
    /// Inputs that share a scale.
    run: usize,
    inputs: usize,
}

impl Fp8Panels {
    pub(super) fn scale_bytes(&self) -> usize {
        size_of_val(self.scales.as_slice())
    }

    fn scales(&self, panel: usize, run: usize) -> &[f32; WIDTH] {
        &self.scales[panel * self.inputs.div_ceil(self.run) + run]
    }

    /// Weights of a block that share scales, with them.
    fn runs(&self, block: Block) -> impl Iterator<Item = (&[u8], &[f32; WIDTH])> {
        let (mut left, mut input) = (&self.weights[block.weights()], block.start);
        std::iter::from_fn(move || {
            let count = (self.run - input % self.run).min(left.len() / WIDTH);
            let (weights, rest) = left.split_at(count * WIDTH);
            let scales = (count > 0).then(|| self.scales(block.panel, input / self.run))?;
            (left, input) = (rest, input + count);
            Some((weights, scales))
        })
    }

    /// The weights of one output.
    pub(super) fn output_weights(&self, output: usize, into: &mut [f32]) {
        let (panel, lane) = (output / WIDTH, output % WIDTH);
        let weights = self.weights[panel * self.inputs * WIDTH + lane..].iter().step_by(WIDTH);
        for (input, (into, weight)) in into.iter_mut().zip(weights).enumerate() {
            *into = value(*weight) * self.scales(panel, input / self.run)[lane];
        }
    }
}

impl Blocks for Fp8Panels {
    type Stored = f32;

    fn stored(&self, _block: Block, _rows: usize) -> Option<&[f32]> {
        None
    }

    fn widen(&self, isa: Isa, block: Block, into: &mut [f32]) {
        let vector = Vector::of_pool(isa);
        let mut rest = into;
        for (weights, scales) in self.runs(block) {
            let (part, next) = rest.split_at_mut(weights.len());
            vector.widen_fp8(weights, scales, part);
            rest = next;
        }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn multiply(&self, isa: Isa, rows: usize, block: Block, tile: &Tile<f32>) -> bool {
        match isa {
            // SAFETY: promised by the caller.
            Isa::Avx512Bf16 | Isa::Avx512 => unsafe { x86::avx512(rows, tile, self.runs(block)) },
            // SAFETY: promised by the caller.
            Isa::Avx2 => unsafe { x86::avx2(rows, tile, self.runs(block)) },
            Isa::Portable => return false,
        }
        true
    }
}

/// Products of few rows, the weights widened in registers.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "registers go by number: the loops are unrolled")]
mod x86 {
    use super::{
        super::tile::AHEAD,
        {Tile, WIDTH},
    };
    use std::arch::x86_64::*;

    /// A byte as f16 has this share of its value, for subnormals too, because both formats number their exponents from
    /// another bias.
    const SHARE: f32 = 1.0 / 256.0;
    /// What is left of a byte that was shifted to its place in an f16 with two copies of the sign before it.
    const F16_BITS: i16 = 0xbf80_u16.cast_signed();

    macro_rules! by_rows {
        ($kernel:ident, $rows:expr, $tile:expr, $runs:expr, $($n:literal)*) => {
            match $rows {
                $($n => $kernel::<$n>($tile, $runs),)*
                other => unreachable!("a tile of {other} rows"),
            }
        };
    }

    type Run<'a> = (&'a [u8], &'a [f32; WIDTH]);

    /// # Safety
    /// As `multiply` of tiles; the processor has AVX-512, and the runs have as many weights as the tile is deep.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(super) unsafe fn avx512<'a>(rows: usize, tile: &Tile<f32>, runs: impl Iterator<Item = Run<'a>>) {
        // SAFETY: promised by the caller.
        unsafe { by_rows!(avx512_rows, rows, tile, runs, 1 2 3 4 5 6 7 8 9 10 11 12) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn avx512_rows<'a, const ROWS: usize>(tile: &Tile<f32>, runs: impl Iterator<Item = Run<'a>>) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        let (mut x, bits) = (tile.x, _mm256_set1_epi16(F16_BITS));
        for (weights, scales) in runs {
            // SAFETY: there are `WIDTH` scales.
            let scales = unsafe {
                let whole = _mm512_set1_ps(1.0 / SHARE);
                [0, 16].map(|lane| _mm512_mul_ps(_mm512_loadu_ps(scales.as_ptr().add(lane)), whole))
            };
            for weights in weights.as_chunks::<WIDTH>().0 {
                let w = weights.as_ptr();
                _mm_prefetch::<_MM_HINT_T0>(w.cast::<i8>().wrapping_add(AHEAD));
                // SAFETY: there are `WIDTH` weights, `depth` inputs, and every row index is below `ROWS`.
                unsafe {
                    let wide = [0, 1].map(|half| {
                        let bytes = _mm_loadu_si128(w.add(16 * half).cast());
                        let halves = _mm256_slli_epi16::<7>(_mm256_cvtepi8_epi16(bytes));
                        _mm512_mul_ps(_mm512_cvtph_ps(_mm256_and_si256(halves, bits)), scales[half])
                    });
                    for row in 0..ROWS {
                        let x = _mm512_set1_ps(*x.add(row * tile.x_stride));
                        sums[row][0] = _mm512_fmadd_ps(x, wide[0], sums[row][0]);
                        sums[row][1] = _mm512_fmadd_ps(x, wide[1], sums[row][1]);
                    }
                    x = x.add(1);
                }
            }
        }
        for row in 0..ROWS {
            for half in 0..2 {
                // SAFETY: a row of outputs has `WIDTH` places.
                unsafe {
                    let out = tile.out.add(row * tile.out_stride + 16 * half);
                    let mut sum = sums[row][half];
                    if tile.add {
                        sum = _mm512_add_ps(_mm512_loadu_ps(out), sum);
                    }
                    _mm512_storeu_ps(out, sum);
                }
            }
        }
    }

    /// # Safety
    /// As `multiply` of tiles; the processor has AVX2, FMA and F16C, and the runs have as many weights as the tile is deep.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn avx2<'a>(rows: usize, tile: &Tile<f32>, runs: impl Iterator<Item = Run<'a>>) {
        // SAFETY: promised by the caller.
        unsafe { by_rows!(avx2_rows, rows, tile, runs, 1 2 3) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2_rows<'a, const ROWS: usize>(tile: &Tile<f32>, runs: impl Iterator<Item = Run<'a>>) {
        let mut sums = [[_mm256_setzero_ps(); 4]; ROWS];
        let (mut x, bits) = (tile.x, _mm_set1_epi16(F16_BITS));
        for (weights, scales) in runs {
            // A power of two changes no rounding: the products are those of the definition.
            let scales = scales.map(|scale| scale / SHARE);
            for weights in weights.as_chunks::<WIDTH>().0 {
                let w = weights.as_ptr();
                _mm_prefetch::<_MM_HINT_T0>(w.cast::<i8>().wrapping_add(AHEAD));
                // SAFETY: there are `WIDTH` weights and scales, `depth` inputs, and every row index is below `ROWS`.
                unsafe {
                    let mut xs = [_mm256_setzero_ps(); ROWS];
                    for row in 0..ROWS {
                        xs[row] = _mm256_set1_ps(*x.add(row * tile.x_stride));
                    }
                    for part in 0..4 {
                        let bytes = _mm_loadl_epi64(w.add(8 * part).cast());
                        let halves = _mm_slli_epi16::<7>(_mm_cvtepi8_epi16(bytes));
                        let scale = _mm256_loadu_ps(scales.as_ptr().add(8 * part));
                        let wide = _mm256_mul_ps(_mm256_cvtph_ps(_mm_and_si128(halves, bits)), scale);
                        for row in 0..ROWS {
                            sums[row][part] = _mm256_fmadd_ps(xs[row], wide, sums[row][part]);
                        }
                    }
                    x = x.add(1);
                }
            }
        }
        for row in 0..ROWS {
            for part in 0..4 {
                // SAFETY: a row of outputs has `WIDTH` places.
                unsafe {
                    let out = tile.out.add(row * tile.out_stride + 8 * part);
                    let mut sum = sums[row][part];
                    if tile.add {
                        sum = _mm256_add_ps(_mm256_loadu_ps(out), sum);
                    }
                    _mm256_storeu_ps(out, sum);
                }
            }
        }
    }
}

/// A matrix of 8-bit weights being packed, output by output.
#[derive(Debug)]
pub struct Fp8Packing {
    outputs: usize,
    panels: Fp8Panels,
    filled: usize,
}

impl Fp8Packing {
    /// Room for a matrix of so many outputs, each a weighted sum of `inputs` numbers, of which `run` at a time share a
    /// scale.
    ///
    /// # Panics
    /// When `run` is 0.
    pub fn new(outputs: usize, inputs: usize, run: usize) -> io::Result<Self> {
        assert!(run > 0, "no input has a scale");
        let weights = Slab::zeroed(outputs.next_multiple_of(WIDTH) * inputs)?;
        let scales = vec![[0.0; WIDTH]; outputs.div_ceil(WIDTH) * inputs.div_ceil(run)];
        Ok(Self { outputs, panels: Fp8Panels { weights, scales, run, inputs }, filled: 0 })
    }

    /// Takes the weights of the next output.
    ///
    /// # Panics
    /// When all outputs were given, or the row is of another shape.
    pub fn push(&mut self, row: Fp8Row<'_>) {
        let Fp8Row { weights, scales, run: length } = row;
        let Fp8Panels { weights: packed, scales: all, run, inputs } = &mut self.panels;
        let runs = inputs.div_ceil(*run);
        let shape = (weights.len(), length, scales.len());
        assert!(self.filled < self.outputs && shape == (*inputs, *run, runs), "the matrix has another shape");
        let (panel, lane) = (self.filled / WIDTH, self.filled % WIDTH);
        let places = packed[panel * *inputs * WIDTH + lane..].iter_mut().step_by(WIDTH);
        for (place, weight) in places.zip(weights) {
            *place = *weight;
        }
        for (place, scale) in all[panel * runs..].iter_mut().zip(scales) {
            place[lane] = *scale;
        }
        self.filled += 1;
    }

    /// Outputs, inputs and the packed weights.
    pub(super) fn finish(self) -> (usize, usize, Fp8Panels) {
        assert_eq!(self.filled, self.outputs, "the matrix has another shape");
        (self.outputs, self.panels.inputs, self.panels)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{
            matrix::{
                tests::{bits, rows},
                Matrix, Packing,
            },
            pool::Pool,
            rows::RowBuffer,
        },
        *,
    };

    /// A matrix of 8-bit weights with blocks of 128 outputs.
    pub(in crate::kernel) fn fp8_matrix(outputs: usize, inputs: usize, run: usize) -> Matrix {
        let mut packing = Fp8Packing::new(outputs, inputs, run).unwrap();
        for output in 0..outputs {
            let (weights, scales) = fp8_row(output, inputs, run);
            packing.push(Fp8Row { weights: &weights, scales: &scales, run });
        }
        packing.into()
    }

    /// Weights of every kind that is a number, and scales of their blocks.
    fn fp8_row(output: usize, inputs: usize, run: usize) -> (Vec<u8>, Vec<f32>) {
        let weights = (0..inputs).map(|input| {
            let byte = (output * 37 + input * 11) as u8;
            if byte & 0x7f == 0x7f {
                0
            } else {
                byte
            }
        });
        let scales = (0..inputs.div_ceil(run)).map(|block| 1e-3 + (output / 128 * 7 + block) as f32 * 3e-4);
        (weights.collect(), scales.collect())
    }

    #[test]
    fn every_byte_has_the_value_of_its_definition() {
        for byte in 0..=255u8 {
            let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
            let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
            let expected = if exponent == 0 {
                fraction * 2f32.powi(-6)
            } else {
                (1.0 + fraction) * 2f32.powi(exponent - 7)
            };
            assert_eq!(value(byte).to_bits(), (sign * expected).to_bits(), "{byte:#x}");
        }
        assert_eq!(value(0x7e), 448.0);
    }

    #[test]
    fn eight_bits_give_the_bits_of_their_values() {
        let single = Pool::new(1);
        let isas = Isa::available().into_iter();
        let pools: Vec<Pool> = isas.flat_map(|isa| [1, 3].map(|n| Pool::with_isa(n, isa))).collect();
        for (outputs, inputs, run) in [(70, 300, 128), (33, 515, 64), (129, 31, 128), (64, 256, 100)] {
            let mut packing = Packing::<f32>::new(outputs, inputs).unwrap();
            for output in 0..outputs {
                let (weights, scales) = fp8_row(output, inputs, run);
                let values = weights.iter().enumerate();
                let values: Vec<f32> =
                    values.map(|(input, byte)| value(*byte) * scales[input / run]).collect();
                let mut widened = vec![0.0; inputs];
                Fp8Row { weights: &weights, scales: &scales, run }.widen(&mut widened);
                assert_eq!(widened, values);
                packing.push(values.into_iter());
            }
            let (wide, narrow) = (Matrix::from(packing), fp8_matrix(outputs, inputs, run));
            assert!(narrow.bytes() * 3 < wide.bytes());
            for count in [1, 2, 3, 12, 25, 40] {
                let x = rows(count, inputs, 3);
                let mut expected = RowBuffer::new(outputs);
                wide.product(&single, &x, &mut expected);
                for pool in &pools {
                    let mut out = RowBuffer::new(outputs);
                    narrow.product(pool, &x, &mut out);
                    assert_eq!(bits(&out), bits(&expected), "{pool:?}, {count} rows");
                }
            }
            for output in [0, outputs - 1] {
                let (mut found, mut expected) = (vec![0.0; inputs], vec![0.0; inputs]);
                narrow.output_weights(output, &mut found);
                wide.output_weights(output, &mut expected);
                assert_eq!(found, expected);
            }
        }
    }
}
