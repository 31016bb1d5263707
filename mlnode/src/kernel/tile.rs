//! The innermost product: a few rows times one panel of weights.
//!
//! A *panel* is [`WIDTH`] outputs, stored depth by depth: the weights that one input number meets lie side by side, so
//! a product reads memory in order, and every lane of a register is an output of its own.

use super::{isa::Isa, slab::Plain};
use half::{bf16, f16};

/// Outputs of a panel.
pub(crate) const WIDTH: usize = 32;

/// Bytes by which reading ahead of a panel precedes its use.
#[cfg(target_arch = "x86_64")]
pub(super) const AHEAD: usize = 4096;

/// Operands of a tile: `rows x depth` inputs, `depth x WIDTH` weights, `rows x WIDTH` outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile<W> {
    /// First input of the first row.
    pub(crate) x: *const f32,
    /// Floats from one row of inputs to the next.
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

/// How a weight is stored.
pub(crate) trait Weight: Plain {
    /// Whether many of them are widened faster one by one, for later use, than again at every use.
    const WIDENS_IN_BULK: bool;

    /// Its value: exact, because every 16-bit float is an f32.
    fn widen(self) -> f32;

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

/// Rows that one tile takes at most: as many as there are registers for.
pub(crate) fn rows_max(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 12,
        Isa::Avx2 => 3,
        Isa::Portable => 1,
    }
}

/// `out[r][n] (+)= sum over k of x[r][k] w[k][n]`, each sum a chain of fused multiply-adds from 0 in ascending `k`.
///
/// # Safety
/// `rows` is 1 to [`rows_max`], the processor has the instruction set, and the pointers of the tile lead to what its
/// documentation says, of which nobody else writes the inputs or touches the outputs meanwhile.
pub(crate) unsafe fn multiply<W: Weight>(isa: Isa, rows: usize, tile: &Tile<W>) {
    match isa {
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
unsafe fn portable<W: Weight>(rows: usize, tile: &Tile<W>) {
    for row in 0..rows {
        let mut sums = [0f32; WIDTH];
        for k in 0..tile.depth {
            // SAFETY: `row < rows` and `k < depth`.
            let (x, w) = unsafe { (*tile.x.add(row * tile.x_stride + k), tile.w.add(k * WIDTH)) };
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `lane < WIDTH`.
                *sum = x.mul_add(unsafe { *w.add(lane) }.widen(), *sum);
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
    use super::{Tile, AHEAD, WIDTH};
    use half::{bf16, f16};
    use std::arch::x86_64::*;

    /// Calls the kernel that is compiled for this number of rows.
    macro_rules! by_rows {
        ($kernel:ident, $rows:expr, $tile:expr, $($n:literal)*) => {
            match $rows {
                $($n => $kernel::<$n>($tile),)*
                other => unreachable!("a tile of {other} rows"),
            }
        };
    }

    /// Reads ahead one line for 16-bit weights, two for f32. A hint: the address need not exist.
    macro_rules! read_ahead {
        ($w:expr, $weight:ty) => {
            for line in 0..WIDTH * size_of::<$weight>() / 64 {
                _mm_prefetch::<_MM_HINT_T0>($w.cast::<i8>().wrapping_add(AHEAD + 64 * line));
            }
        };
    }

    macro_rules! avx512 {
        ($name:ident, $kernel:ident, $weight:ty, $load:expr) => {
            /// # Safety
            /// As `multiply`; the processor has AVX-512.
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            pub(super) unsafe fn $name(rows: usize, tile: &Tile<$weight>) {
                // SAFETY: promised by the caller.
                unsafe { by_rows!($kernel, rows, tile, 1 2 3 4 5 6 7 8 9 10 11 12) }
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
                            let x = _mm512_set1_ps(*x.add(row * tile.x_stride));
                            sums[row][0] = _mm512_fmadd_ps(x, low, sums[row][0]);
                            sums[row][1] = _mm512_fmadd_ps(x, high, sums[row][1]);
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

    avx512!(avx512_f32, avx512_f32_rows, f32, |p: *const f32| _mm512_loadu_ps(p));
    avx512!(avx512_bf16, avx512_bf16_rows, bf16, |p: *const bf16| _mm512_castsi512_ps(
        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))
    ));
    avx512!(avx512_f16, avx512_f16_rows, f16, |p: *const f16| _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())));

    macro_rules! avx2 {
        ($name:ident, $kernel:ident, $weight:ty, $load:expr) => {
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
                        let mut xs = [_mm256_setzero_ps(); ROWS];
                        for row in 0..ROWS {
                            xs[row] = _mm256_set1_ps(*tile.x.add(row * tile.x_stride + k));
                        }
                        for part in 0..4 {
                            let weights = $load(w.add(8 * part));
                            for row in 0..ROWS {
                                sums[row][part] = _mm256_fmadd_ps(xs[row], weights, sums[row][part]);
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

    avx2!(avx2_f32, avx2_f32_rows, f32, |p: *const f32| _mm256_loadu_ps(p));
    avx2!(avx2_bf16, avx2_bf16_rows, bf16, |p: *const bf16| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(
        _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))
    )));
    avx2!(avx2_f16, avx2_f16_rows, f16, |p: *const f16| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())));
}

macro_rules! weight {
    ($weight:ty, $bulk:literal, $widen:expr, $avx512:ident, $avx2:ident) => {
        impl Weight for $weight {
            const WIDENS_IN_BULK: bool = $bulk;

            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self)
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

weight!(f32, false, |x: f32| x, avx512_f32, avx2_f32);
weight!(bf16, true, |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16), avx512_bf16, avx2_bf16);
weight!(f16, false, f16::to_f32, avx512_f16, avx2_f16);
