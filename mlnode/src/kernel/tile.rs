//! The innermost product: a few rows times one panel of weights.
//!
//! A *panel* is [`WIDTH`] outputs, stored depth by depth: the weights that one input number meets lie side by side, so
//! a product reads memory in order, and every lane of a register is an output of its own.

use super::{isa::Isa, pair::Pair, slab::Plain};
use half::{bf16, f16};

/// Outputs of a panel.
pub(crate) const WIDTH: usize = 32;

/// Bytes by which reading ahead of a panel precedes its use.
#[cfg(target_arch = "x86_64")]
pub(super) const AHEAD: usize = 4096;

/// Operands of a tile: `rows x depth` inputs, `depth x WIDTH` weights, `rows x WIDTH` outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile<W: Operand> {
    /// First input of the first row.
    pub(crate) x: *const W::Input,
    /// Inputs from one row to the next.
    pub(crate) x_stride: usize,
    /// The weights.
    pub(crate) w: *const W,
    /// Length of the sums.
    pub(crate) depth: usize,
    /// First output of the first row.
    pub(crate) out: *mut f32,
    /// Floats from one row of outputs to the next.
    pub(crate) out_stride: usize,
    /// Whether the sums are added to what stands in the outputs, or replace it.
    pub(crate) add: bool,
}

/// What the inputs of a product meet.
pub(crate) trait Operand: Plain {
    /// What it meets.
    type Input: Plain;

    /// A sum with one more step of its chain.
    fn step(self, x: Self::Input, sum: f32) -> f32;

    /// [`multiply`] with AVX-512 and its dot products of bf16.
    ///
    /// # Safety
    /// As [`multiply`]; the processor has AVX-512 and them.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx512_bf16(rows: usize, tile: &Tile<Self>);

    /// [`multiply`] with AVX-512.
    ///
    /// # Safety
    /// As [`multiply`]; the processor has AVX-512.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx512(rows: usize, tile: &Tile<Self>);

    /// [`multiply`] with AVX2.
    ///
    /// # Safety
    /// As [`multiply`]; the processor has AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx2(rows: usize, tile: &Tile<Self>);
}

/// A weight that meets one f32, whatever it is stored as.
pub(crate) trait Weight: Operand<Input = f32> {
    /// Whether many of them are widened faster one by one, for later use, than again at every use.
    const WIDENS_IN_BULK: bool;

    /// Its value: exact, because every 16-bit float is an f32.
    fn widen(self) -> f32;
}

/// Rows that one tile takes at most: as many as there are registers for.
pub(crate) fn rows_max(isa: Isa) -> usize {
    match isa {
        Isa::Avx512Bf16 | Isa::Avx512 => 12,
        Isa::Avx2 => 3,
        Isa::Portable => 1,
    }
}

/// `out[r][n] (+)= sum over k of x[r][k] w[k][n]`, each sum a chain of [`Operand::step`]s from 0 in ascending `k`.
///
/// # Safety
/// `rows` is 1 to [`rows_max`], the processor has the instruction set, and the pointers of the tile lead to what its
/// documentation says, of which nobody else writes the inputs or touches the outputs meanwhile.
pub(crate) unsafe fn multiply<W: Operand>(isa: Isa, rows: usize, tile: &Tile<W>) {
    match isa {
        // SAFETY: promised by the caller.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => unsafe { W::avx512_bf16(rows, tile) },
        // SAFETY: promised by the caller.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { W::avx512(rows, tile) },
        // SAFETY: promised by the caller.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { W::avx2(rows, tile) },
        // SAFETY: promised by the caller.
        _ => unsafe { portable(rows, tile) },
    }
}

/// # Safety
/// As [`multiply`].
unsafe fn portable<W: Operand>(rows: usize, tile: &Tile<W>) {
    for row in 0..rows {
        let mut sums = [0f32; WIDTH];
        for k in 0..tile.depth {
            // SAFETY: `row < rows` and `k < depth`.
            let (x, w) = unsafe { (*tile.x.add(row * tile.x_stride + k), tile.w.add(k * WIDTH)) };
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `lane < WIDTH`.
                *sum = unsafe { *w.add(lane) }.step(x, *sum);
            }
        }
        for (lane, sum) in sums.into_iter().enumerate() {
            // SAFETY: `row < rows` and `lane < WIDTH`.
            unsafe {
                let out = tile.out.add(row * tile.out_stride + lane);
                *out = if tile.add { *out + sum } else { sum };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Pair, Tile, AHEAD, WIDTH};
    use half::{bf16, f16};
    use std::{arch::x86_64::*, mem::transmute};

    /// The upper half of a pair.
    const UPPER: i32 = 0xffff_0000_u32.cast_signed();

    /// Calls the kernel that is compiled for this number of rows.
    macro_rules! by_rows {
        ($kernel:ident, $rows:expr, $tile:expr, $($n:literal)*) => {
            match $rows {
                $($n => $kernel::<$n>($tile),)*
                other => unreachable!("a tile of {other} rows"),
            }
        };
    }

    /// Reads ahead as many bytes as one step uses. A hint: the address need not exist.
    macro_rules! read_ahead {
        ($w:expr, $weight:ty) => {
            for line in 0..WIDTH * size_of::<$weight>() / 64 {
                _mm_prefetch::<_MM_HINT_T0>($w.cast::<i8>().wrapping_add(AHEAD + 64 * line));
            }
        };
    }

    /// A kernel: `$load` takes sixteen weights, `$spread` one input, and `$step` adds what they give to a sum.
    macro_rules! avx512 {
        ($features:literal, $name:ident, $kernel:ident, $weight:ty, $load:expr, $spread:expr, $step:expr) => {
            /// # Safety
            /// As `multiply`; the processor has the instructions.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(rows: usize, tile: &Tile<$weight>) {
                // SAFETY: promised by the caller.
                unsafe { by_rows!($kernel, rows, tile, 1 2 3 4 5 6 7 8 9 10 11 12) }
            }

            #[target_feature(enable = $features)]
            unsafe fn $kernel<const ROWS: usize>(tile: &Tile<$weight>) {
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                let mut w = tile.w;
                for k in 0..tile.depth {
                    // SAFETY: `k < depth`, every row index is below `ROWS`.
                    unsafe {
                        let (low, high) = ($load(w), $load(w.add(16)));
                        read_ahead!(w, $weight);
                        let x = tile.x.add(k);
                        for row in 0..ROWS {
                            let x = $spread(*x.add(row * tile.x_stride));
                            sums[row][0] = $step(x, low, sums[row][0]);
                            sums[row][1] = $step(x, high, sums[row][1]);
                        }
                        w = w.add(WIDTH);
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
        };
    }

    macro_rules! avx512_f32 {
        ($name:ident, $kernel:ident, $weight:ty, $load:expr) => {
            avx512!(
                "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
                $name,
                $kernel,
                $weight,
                $load,
                |x: f32| _mm512_set1_ps(x),
                |x: __m512, w: __m512, sum: __m512| _mm512_fmadd_ps(x, w, sum)
            );
        };
    }

    avx512_f32!(avx512_f32, avx512_f32_rows, f32, |p: *const f32| _mm512_loadu_ps(p));
    avx512_f32!(avx512_bf16, avx512_bf16_rows, bf16, |p: *const bf16| _mm512_castsi512_ps(
        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))
    ));
    avx512_f32!(avx512_f16, avx512_f16_rows, f16, |p: *const f16| _mm512_cvtph_ps(_mm256_loadu_si256(
        p.cast()
    )));

    // The instruction takes the upper halves first, and rounds after each: the definition of `Pair::step`.
    avx512!(
        "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
        avx512_pairs_dot,
        avx512_pairs_dot_rows,
        Pair,
        |p: *const Pair| transmute::<__m512i, __m512bh>(_mm512_loadu_si512(p.cast())),
        |x: Pair| transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x.bits().cast_signed())),
        |x: __m512bh, w: __m512bh, sum: __m512| _mm512_dpbf16_ps(sum, x, w)
    );
    avx512!(
        "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
        avx512_pairs,
        avx512_pairs_rows,
        Pair,
        |p: *const Pair| avx512_halves(_mm512_loadu_si512(p.cast())),
        |x: Pair| avx512_halves(_mm512_set1_epi32(x.bits().cast_signed())),
        |x: [__m512; 2], w: [__m512; 2], sum: __m512| {
            _mm512_fmadd_ps(x[0], w[0], _mm512_fmadd_ps(x[1], w[1], sum))
        }
    );

    /// Lower and upper halves of pairs, as f32.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn avx512_halves(pairs: __m512i) -> [__m512; 2] {
        let upper = _mm512_and_si512(pairs, _mm512_set1_epi32(UPPER));
        [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(upper)]
    }

    macro_rules! avx2 {
        ($name:ident, $kernel:ident, $weight:ty, $load:expr, $spread:expr, $step:expr) => {
            /// # Safety
            /// As `multiply`; the processor has AVX2, FMA and F16C.
            #[target_feature(enable = "avx2,fma,f16c")]
            pub(super) unsafe fn $name(rows: usize, tile: &Tile<$weight>) {
                // SAFETY: promised by the caller.
                unsafe { by_rows!($kernel, rows, tile, 1 2 3) }
            }

            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn $kernel<const ROWS: usize>(tile: &Tile<$weight>) {
                let mut sums = [[_mm256_setzero_ps(); 4]; ROWS];
                let mut w = tile.w;
                for k in 0..tile.depth {
                    // SAFETY: `k < depth`, every row index is below `ROWS`.
                    unsafe {
                        read_ahead!(w, $weight);
                        let x = tile.x.add(k);
                        let mut xs = [$spread(*x); ROWS];
                        for row in 1..ROWS {
                            xs[row] = $spread(*x.add(row * tile.x_stride));
                        }
                        for part in 0..4 {
                            let weights = $load(w.add(8 * part));
                            for row in 0..ROWS {
                                sums[row][part] = $step(xs[row], weights, sums[row][part]);
                            }
                        }
                        w = w.add(WIDTH);
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
        };
    }

    macro_rules! avx2_f32 {
        ($name:ident, $kernel:ident, $weight:ty, $load:expr) => {
            avx2!(
                $name,
                $kernel,
                $weight,
                $load,
                |x: f32| _mm256_set1_ps(x),
                |x: __m256, w: __m256, sum: __m256| _mm256_fmadd_ps(x, w, sum)
            );
        };
    }

    avx2_f32!(avx2_f32, avx2_f32_rows, f32, |p: *const f32| _mm256_loadu_ps(p));
    avx2_f32!(avx2_bf16, avx2_bf16_rows, bf16, |p: *const bf16| _mm256_castsi256_ps(
        _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())))
    ));
    avx2_f32!(avx2_f16, avx2_f16_rows, f16, |p: *const f16| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())));
    avx2!(
        avx2_pairs,
        avx2_pairs_rows,
        Pair,
        |p: *const Pair| avx2_halves(_mm256_loadu_si256(p.cast())),
        |x: Pair| avx2_halves(_mm256_set1_epi32(x.bits().cast_signed())),
        |x: [__m256; 2], w: [__m256; 2], sum: __m256| {
            _mm256_fmadd_ps(x[0], w[0], _mm256_fmadd_ps(x[1], w[1], sum))
        }
    );

    /// Lower and upper halves of pairs, as f32.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn avx2_halves(pairs: __m256i) -> [__m256; 2] {
        let upper = _mm256_and_si256(pairs, _mm256_set1_epi32(UPPER));
        [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(upper)]
    }
}

macro_rules! operand {
    ($weight:ty, $input:ty, $step:expr, $avx512_bf16:ident, $avx512:ident, $avx2:ident) => {
        impl Operand for $weight {
            type Input = $input;

            #[inline(always)]
            fn step(self, x: $input, sum: f32) -> f32 {
                $step(self, x, sum)
            }

            #[cfg(target_arch = "x86_64")]
            #[inline]
            unsafe fn avx512_bf16(rows: usize, tile: &Tile<Self>) {
                // SAFETY: promised by the caller.
                unsafe { x86::$avx512_bf16(rows, tile) }
            }

            #[cfg(target_arch = "x86_64")]
            #[inline]
            unsafe fn avx512(rows: usize, tile: &Tile<Self>) {
                // SAFETY: promised by the caller.
                unsafe { x86::$avx512(rows, tile) }
            }

            #[cfg(target_arch = "x86_64")]
            #[inline]
            unsafe fn avx2(rows: usize, tile: &Tile<Self>) {
                // SAFETY: promised by the caller.
                unsafe { x86::$avx2(rows, tile) }
            }
        }
    };
}

macro_rules! weight {
    ($weight:ty, $bulk:literal, $widen:expr, $avx512:ident, $avx2:ident) => {
        operand!($weight, f32, |w: $weight, x: f32, sum| x.mul_add(w.widen(), sum), $avx512, $avx512, $avx2);

        impl Weight for $weight {
            const WIDENS_IN_BULK: bool = $bulk;

            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self)
            }
        }
    };
}

weight!(f32, false, |x: f32| x, avx512_f32, avx2_f32);
weight!(bf16, true, |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16), avx512_bf16, avx2_bf16);
weight!(f16, false, f16::to_f32, avx512_f16, avx2_f16);
operand!(Pair, Pair, Pair::step, avx512_pairs_dot, avx512_pairs, avx2_pairs);
