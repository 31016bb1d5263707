//! Numbers of bf16, two at a time: what products of the class `bf16` are made of.

use super::{isa::Isa, slab::Plain, vector::Vector};

/// Two bf16 numbers that stand side by side in a row: the one with the even index in the lower half.
///
/// None of them is subnormal: the instructions for them take subnormal numbers for zero, f32 too, so everything here does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Pair(u32);

impl Plain for Pair {}

impl Pair {
    /// The two, each rounded to the nearest bf16, of two equally near ones to the even one.
    #[inline(always)]
    pub(crate) fn rounded(even: f32, odd: f32) -> Self {
        Self(round(even) >> 16 | round(odd) & 0xffff_0000)
    }

    /// One or two numbers of a row that is taken two by two; a row of odd length is filled up with zero.
    pub(crate) fn of(x: &[f32]) -> Self {
        let at = |index: usize| x.get(index).copied().unwrap_or(0.0);
        Self::rounded(at(0), at(1))
    }

    /// Puts a number into one half of a pair, and leaves the other half alone, which another thread may be writing to.
    ///
    /// # Safety
    /// `pair` leads to a pair, of which nobody else touches this half.
    #[inline(always)]
    pub(crate) unsafe fn put(pair: *mut Self, odd: bool, x: f32) {
        let upper = odd == cfg!(target_endian = "little");
        // SAFETY: promised by the caller; a pair is two numbers of 16 bits.
        unsafe { *pair.cast::<u16>().add(usize::from(upper)) = (round(x) >> 16) as u16 };
    }

    /// As the instructions take it.
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// The one with the even index and the one with the odd index.
    #[inline(always)]
    pub(crate) fn widen(self) -> [f32; 2] {
        [f32::from_bits(self.0 << 16), f32::from_bits(self.0 & 0xffff_0000)]
    }

    /// A sum with the products of both: that of the odd indices is added first, and each addition rounded. The products are
    /// exact in f32, so it makes no difference whether an addition is fused with them.
    #[inline(always)]
    pub(crate) fn step(self, x: Self, sum: f32) -> f32 {
        let ([even, odd], [x_even, x_odd]) = (self.widen(), x.widen());
        x_even.mul_add(even, x_odd.mul_add(odd, sum))
    }
}

/// Rounds a row: as many pairs as it takes, the last one filled up with zero.
pub(super) fn round_row(isa: Isa, x: &[f32], into: &mut [Pair]) {
    assert_eq!(into.len(), x.len().div_ceil(2), "pairs of a row");
    match isa {
        // SAFETY: the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => unsafe { x86::round_row(x, into) },
        _ => Vector::of_pool(isa).round_pairs(x, into),
    }
}

/// Numbers that are rounded at a time in their place.
const AT_ONCE: usize = 32;

/// Rounds a row of even length in its place: its pairs stand in the first half of it, as bits.
pub(crate) fn round_in_place(isa: Isa, row: &mut [f32]) {
    let mut pairs = [Pair::default(); AT_ONCE / 2];
    for start in (0..row.len()).step_by(AT_ONCE) {
        let end = row.len().min(start + AT_ONCE);
        let pairs = &mut pairs[..(end - start) / 2];
        round_row(isa, &row[start..end], pairs);
        // Never ahead of what was read.
        for (place, pair) in row[start / 2..].iter_mut().zip(pairs) {
            *place = f32::from_bits(pair.bits());
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Pair;
    use std::arch::x86_64::*;

    /// Numbers that an instruction rounds.
    const WHOLE: usize = 32;

    /// # Safety
    /// The processor has AVX-512 and its conversions to bf16.
    #[target_feature(enable = "avx512bf16,avx512f")]
    pub(super) unsafe fn round_row(x: &[f32], into: &mut [Pair]) {
        let (x, rest) = x.as_chunks::<WHOLE>();
        let (pairs, places) = into.split_at_mut(x.len() * WHOLE / 2);
        for (x, pairs) in x.iter().zip(pairs.chunks_exact_mut(WHOLE / 2)) {
            // SAFETY: there are 32 numbers, and 16 pairs of 32 bits.
            unsafe {
                let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
                let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(pairs.as_mut_ptr().cast(), rounded);
            }
        }
        for (pair, x) in places.iter_mut().zip(rest.chunks(2)) {
            *pair = Pair::of(x);
        }
    }
}

/// The nearest bf16 in the upper half; the lower half is of no meaning.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if x.is_nan() {
        f32::NAN.to_bits()
    } else if bits & 0x7f80_0000 == 0 {
        bits & 0x8000_0000
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_is_that_of_bf16(bits: u32, other: u32) {
            let x = f32::from_bits(bits);
            let expected = bf16::from_f32(x).to_f32();
            let [found, beside] = Pair::rounded(x, f32::from_bits(other)).widen();
            let [_, second] = Pair::rounded(0.0, f32::from_bits(other)).widen();
            prop_assert_eq!(beside.to_bits(), second.to_bits());
            if expected.is_nan() {
                prop_assert!(found.is_nan());
            } else if x.is_subnormal() {
                prop_assert_eq!(found.to_bits(), 0f32.copysign(x).to_bits());
            } else {
                prop_assert_eq!(found.to_bits(), expected.to_bits());
            }
        }
    }

    #[test]
    fn a_row_is_rounded_in_its_place() {
        let row: Vec<f32> = (0..160).map(|i| i as f32 * 1.37 - 40.0).collect();
        for isa in Isa::available() {
            for length in [0, 2, 32, 34, 96, 160] {
                let (mut found, mut expected) = (row[..length].to_vec(), vec![Pair::default(); length / 2]);
                round_in_place(isa, &mut found);
                round_row(isa, &row[..length], &mut expected);
                let bits: Vec<u32> = found[..length / 2].iter().map(|x| x.to_bits()).collect();
                assert_eq!(bits, expected.iter().map(|pair| pair.bits()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn one_of_two_changes() {
        let mut pair = Pair::rounded(1.5, -2.0);
        // SAFETY: nobody else knows of it.
        unsafe { Pair::put(&raw mut pair, false, 7.0) };
        assert_eq!(pair.widen(), [7.0, -2.0]);
        // SAFETY: as above.
        unsafe { Pair::put(&raw mut pair, true, 8.0) };
        assert_eq!(pair.widen(), [7.0, 8.0]);
    }

    #[test]
    fn every_instruction_set_rounds_alike() {
        let bits = (0u32..70_000).map(|i| f32::from_bits(i.wrapping_mul(61_681) ^ i << 16));
        let special = [0x8000, 0x7f_ffff, 0x7f_8000, 0x80_0000, 0x7f80_0000, 0xff80_0000, 0x8000_0001];
        let x: Vec<f32> =
            bits.chain(special.map(f32::from_bits)).map(|x| if x.is_nan() { 1.5 } else { x }).collect();
        for length in [0, 1, 31, 32, 33, 95, x.len()] {
            let mut found = Isa::available().into_iter().map(|isa| {
                let mut pairs = vec![Pair::default(); length.div_ceil(2)];
                round_row(isa, &x[x.len() - length..], &mut pairs);
                pairs
            });
            let first = found.next().unwrap();
            found.for_each(|other| assert!(other == first, "{length}"));
        }
    }

    #[test]
    fn rounding_goes_to_even_and_keeps_what_is_no_number() {
        let half = f32::from_bits(0x3f80_8000);
        let odd = f32::from_bits(0x3f81_8000);
        assert_eq!(Pair::rounded(half, odd).widen(), [1.0, f32::from_bits(0x3f82_0000)]);
        assert_eq!(Pair::rounded(f32::MAX, -f32::MAX).widen(), [f32::INFINITY, f32::NEG_INFINITY]);
        assert!(Pair::rounded(f32::from_bits(0x7fff_ffff), f32::from_bits(0xffff_ffff))
            .widen()
            .iter()
            .all(|x| x.is_nan()));
    }

    #[test]
    fn a_step_adds_the_odd_product_first() {
        let (ones, large) = (Pair::rounded(1.0, 1.0), 2f32.powi(30));
        assert_eq!(ones.step(Pair::rounded(1.0, -large), large), 1.0);
        assert_eq!(ones.step(Pair::rounded(-large, 1.0), large), 0.0, "1 is lost beside 2^30");
    }
}
