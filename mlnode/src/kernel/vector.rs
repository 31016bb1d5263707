//! Operations on a row of numbers, compiled for each instruction set.
//!
//! Plain Rust without reordering: the compiler spreads it over whatever registers there are, and gets the same bits.
//! Sums have [`LANES`] partial sums, taken in turn, which one tree adds up at the end.

use super::{fp8, isa::Isa, pair::Pair, tile::WIDTH};

/// Partial sums of a reduction. Part of the fixed order of operations.
const LANES: usize = 16;

/// The operations with the instruction set that they use.
#[derive(Clone, Copy, Debug)]
pub struct Vector(Isa);

/// Declares methods of [`Vector`], each compiled for every instruction set.
macro_rules! compiled {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        impl Vector {
            $($(#[$doc])*
            #[allow(clippy::inline_always, reason = "the body must be compiled within each wrapper")]
            $vis fn $name(self, $($arg: $type),*) $(-> $result)? {
                #[inline(always)]
                fn body($($arg: $type),*) $(-> $result)? $body
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512($($arg: $type),*) $(-> $result)? { body($($arg),*) }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) $(-> $result)? { body($($arg),*) }
                match self.0 {
                    // SAFETY: `Vector::new` is given what the processor has.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512Bf16 | Isa::Avx512 => unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => unsafe { avx2($($arg),*) },
                    _ => body($($arg),*),
                }
            })*
        }
    };
}

impl Vector {
    /// With an instruction set that the processor has.
    ///
    /// # Panics
    /// When the processor does not have it.
    pub fn new(isa: Isa) -> Self {
        assert!(Isa::available().contains(&isa), "this processor has no {isa:?}");
        Self(isa)
    }

    /// With the instruction set of a pool, which has been checked.
    pub(super) fn of_pool(isa: Isa) -> Self {
        Self(isa)
    }
}

compiled! {
    /// `into = x / sqrt(mean(x^2) + eps) * weight`; all of the length of `x`.
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, into: &mut [f32]) {
        let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt();
        for ((into, x), weight) in into.iter_mut().zip(x).zip(weight) {
            *into = x * scale * weight;
        }
    }

    /// [`Self::rms_norm`] in place.
    pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
        let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt();
        for (x, weight) in x.iter_mut().zip(weight) {
            *x = *x * scale * weight;
        }
    }

    /// Rotates the pairs `(x[i], x[i + half])` by the angles of which `cos` and `sin` are given, `half` of each.
    pub fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (first, second) = x.split_at_mut(cos.len());
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            let (x, y) = (*a, *b);
            *a = x.mul_add(*cos, -(y * sin));
            *b = y.mul_add(*cos, x * sin);
        }
    }

    /// `x += y`.
    pub fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }

    /// `x += factor y`, each a fused multiply-add.
    pub fn add_scaled(x: &mut [f32], y: &[f32], factor: f32) {
        for (x, y) in x.iter_mut().zip(y) {
            *x = factor.mul_add(*y, *x);
        }
    }

    /// Rounds a row to bf16: as many pairs as it takes, the last one filled up with zero.
    pub(super) fn round_pairs(x: &[f32], into: &mut [Pair]) {
        let (pairs, rest) = x.as_chunks::<2>();
        for (into, [even, odd]) in into.iter_mut().zip(pairs) {
            *into = Pair::rounded(*even, *odd);
        }
        if let (Some(last), Some(into)) = (rest.first(), into.get_mut(pairs.len())) {
            *into = Pair::rounded(*last, 0.0);
        }
    }

    /// Values of 8-bit weights, of which those of one input stand side by side, times the scales of their outputs.
    pub fn widen_fp8(weights: &[u8], scales: &[f32; WIDTH], into: &mut [f32]) {
        let (weights, into) = (weights.as_chunks::<WIDTH>().0, into.as_chunks_mut::<WIDTH>().0);
        for (weights, into) in weights.iter().zip(into) {
            for ((into, weight), scale) in into.iter_mut().zip(weights).zip(scales) {
                *into = fp8::value(*weight) * scale;
            }
        }
    }

    /// `into = gate / (1 + exp(-gate)) * up`.
    pub fn gate(gate: &[f32], up: &[f32], into: &mut [f32]) {
        for ((into, gate), up) in into.iter_mut().zip(gate).zip(up) {
            *into = gate / (1.0 + exp(-gate)) * up;
        }
    }

    /// `x = exp(scale (x - max x)) / sum` over the first `len` numbers; the rest becomes 0. So many numbers more or
    /// fewer behind `len` change nothing.
    pub fn soft_max(x: &mut [f32], len: usize, scale: f32) {
        let max = max(&x[..len]);
        // As many more as fill a register: they give 0, and a sum is the same with it. Without them the last numbers would
        // be computed one by one, in the time of all others.
        let (padded, whole) = (len.next_multiple_of(LANES), x.len());
        let (x, rest) = x.split_at_mut(if padded <= whole { padded } else { len });
        x[len..].fill(f32::NEG_INFINITY);
        rest.fill(0.0);
        let mut sums = [0f32; LANES];
        let (chunks, tail) = x.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for (x, sum) in chunk.iter_mut().zip(&mut sums) {
                *x = exp(scale * (*x - max));
                *sum += *x;
            }
        }
        for (x, sum) in tail.iter_mut().zip(&mut sums) {
            *x = exp(scale * (*x - max));
            *sum += *x;
        }
        let inverse = 1.0 / tree(&sums);
        for x in x.iter_mut() {
            *x *= inverse;
        }
    }

    /// `ln sum exp x`; not finite when a number is NaN or infinitely large, or all are infinitely small.
    pub fn log_sum_exp(x: &[f32]) -> f32 {
        let max = max(x);
        if !max.is_finite() {
            return f32::NAN;
        }
        let mut sums = [0f32; LANES];
        // NaN stays NaN through a sum, while `exp` may take it for something else.
        let mut checks = [0f32; LANES];
        let (chunks, tail) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for ((x, sum), check) in chunk.iter().zip(&mut sums).zip(&mut checks) {
                *sum += exp(x - max);
                *check += if x.is_nan() { 1.0 } else { 0.0 };
            }
        }
        for ((x, sum), check) in tail.iter().zip(&mut sums).zip(&mut checks) {
            *sum += exp(x - max);
            *check += if x.is_nan() { 1.0 } else { 0.0 };
        }
        if tree(&checks) > 0.0 {
            return f32::NAN;
        }
        max + tree(&sums).ln()
    }

    /// Largest number; NaN is passed over. Minus infinity for none.
    pub fn max_of(x: &[f32]) -> f32 {
        max(x)
    }
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (x, sum) in chunk.iter().zip(&mut sums) {
            *sum = x.mul_add(*x, *sum);
        }
    }
    for (x, sum) in tail.iter().zip(&mut sums) {
        *sum = x.mul_add(*x, *sum);
    }
    tree(&sums)
}

#[inline(always)]
fn tree(sums: &[f32; LANES]) -> f32 {
    let mut sums = *sums;
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// The order does not matter for a maximum.
#[inline(always)]
fn max(x: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (x, best) in chunk.iter().zip(&mut best) {
            *best = if *x > *best { *x } else { *best };
        }
    }
    for (x, best) in tail.iter().zip(&mut best) {
        *best = if *x > *best { *x } else { *best };
    }
    best.iter().fold(f32::NEG_INFINITY, |best, x| if *x > best { *x } else { best })
}

/// `e^x` to within about one unit in the last place; 0 below -87.3, infinitely large above 88.7.
///
/// `2^n e^r` with `n` the nearest integer to `x / ln 2` and a polynomial for `e^r`, `|r| < 0.35` (the coefficients of
/// Cephes' `expf`). No table and no branch, so it runs in every lane alike.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let inside = if x > 88.7 { 88.7 } else { x };
    let inside = if inside > -87.3 { inside } else { -87.3 };
    let rounded = inside.mul_add(std::f32::consts::LOG2_E, ROUND);
    let (n, whole) = (rounded - ROUND, rounded.to_bits().cast_signed() - ROUND.to_bits().cast_signed());
    let r = n.mul_add(-LN2_HIGH, inside);
    let r = n.mul_add(-LN2_LOW, r);
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    // In two steps: 2^128 is not a number, and n may be 128.
    let half = whole >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let value = p * power(half) * power(whole - half);
    let value = if x > 88.7 { f32::INFINITY } else { value };
    if x > -87.3 {
        value
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exponentials_are_near_the_true_ones() {
        let mut worst = 0f64;
        for step in -870_000..=880_000 {
            let x = step as f32 / 10_000.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            worst = worst.max((found / expected - 1.0).abs());
        }
        assert!(worst < 1.5e-7, "{worst:e}");
        assert_eq!((exp(0.0), exp(-1e9), exp(f32::NEG_INFINITY), exp(1e9)), (1.0, 0.0, 0.0, f32::INFINITY));
    }

    /// Runs an operation with every instruction set; the bits must agree.
    fn everywhere(run: impl Fn(Vector) -> Vec<f32>) -> Vec<f32> {
        let mut results = Isa::available().into_iter().map(|isa| run(Vector::new(isa)));
        let first = results.next().unwrap();
        for other in results {
            assert_eq!(
                first.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                other.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            );
        }
        first
    }

    fn near(found: &[f32], expected: impl IntoIterator<Item = f64>) {
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() <= 2e-5 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_same_bits(
            x in proptest::collection::vec(-20f32..20.0, 2..200),
            eps in 1e-7f32..1e-3,
            scale in 0.01f32..2.0,
        ) {
            let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let n = x.len();
            let weight: Vec<f32> = x.iter().rev().copied().collect();
            let square: f64 = wide.iter().map(|x| x * x).sum::<f64>() / n as f64;
            let normed = everywhere(|v| {
                let (mut out, mut in_place) = (vec![0.0; n], x.clone());
                v.rms_norm(&x, &weight, eps, &mut out);
                v.rms_norm_in_place(&mut in_place, &weight, eps);
                assert_eq!(out, in_place);
                out
            });
            let root = (square + f64::from(eps)).sqrt();
            near(&normed, wide.iter().zip(wide.iter().rev()).map(|(x, w)| x / root * w));

            let gated = everywhere(|v| { let mut out = vec![0.0; n]; v.gate(&x, &weight, &mut out); out });
            near(&gated, wide.iter().zip(wide.iter().rev()).map(|(x, up)| x / (1.0 + (-x).exp()) * up));

            let len = n / 2 + 1;
            let soft = everywhere(|v| { let mut out = x.clone(); v.soft_max(&mut out, len, scale); out });
            let short = everywhere(|v| { let mut out = x[..len].to_vec(); v.soft_max(&mut out, len, scale); out });
            prop_assert_eq!(&soft[..len], &short[..]);
            prop_assert!(soft[len..].iter().all(|p| *p == 0.0));
            let max = wide[..len].iter().copied().fold(f64::MIN, f64::max);
            let exps: Vec<f64> = wide[..len].iter().map(|x| (f64::from(scale) * (x - max)).exp()).collect();
            let sum: f64 = exps.iter().sum();
            near(&soft, exps.iter().map(|e| e / sum));

            let log = everywhere(|v| vec![v.log_sum_exp(&x), v.max_of(&x)]);
            let max = wide.iter().copied().fold(f64::MIN, f64::max);
            near(&log, [max + wide.iter().map(|x| (x - max).exp()).sum::<f64>().ln(), max]);

            let added = everywhere(|v| { let mut out = x.clone(); v.add_scaled(&mut out, &weight, scale); out });
            near(&added, wide.iter().zip(wide.iter().rev()).map(|(x, y)| x + f64::from(scale) * y));

            let half = n / 2;
            let rotated = everywhere(|v| {
                let mut out = x[..2 * half].to_vec();
                let angles: Vec<f32> = (0..half).map(|i| i as f32).collect();
                let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
                v.rotate(&mut out, &cos, &sin);
                v.add(&mut out, &x);
                out
            });
            near(&rotated, (0..2 * half).map(|i| {
                let angle = (i % half.max(1)) as f64;
                let turned = if i < half {
                    wide[i] * angle.cos() - wide[i + half] * angle.sin()
                } else {
                    wide[i] * angle.cos() + wide[i - half] * angle.sin()
                };
                turned + wide[i]
            }));
        }
    }

    #[test]
    fn what_is_not_a_number_is_noticed() {
        for bad in [f32::NAN, f32::INFINITY] {
            for place in [0, 15, 16, 20] {
                let mut x = vec![0.0; 21];
                x[place] = bad;
                assert!(everywhere(|v| vec![f32::from(u8::from(v.log_sum_exp(&x).is_nan()))]) == [1.0]);
            }
        }
        // A mask is no fault.
        let v = Vector::new(Isa::detect());
        assert_eq!(v.log_sum_exp(&[f32::NEG_INFINITY, 0.5]), 0.5);
        assert!(v.log_sum_exp(&[f32::NEG_INFINITY]).is_nan());
    }
}
