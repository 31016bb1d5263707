//! Logarithm and exponential in integers, the same bits on every platform.
//!
//! Both are linear (or quadratic) interpolations of tables that the compiler computes with the integer series
//! below, so no generated file and no floating-point number is involved.

/// Fractional bits of the logarithm table.
const LN_BITS: u32 = 40;
/// log2 of the number of segments that `[1, 2)` is divided into.
const LN_SEGMENT_BITS: u32 = 10;
const LN_SEGMENTS: usize = 1 << LN_SEGMENT_BITS;
/// `ln(1 + i / LN_SEGMENTS)` in 1/2^40, for `i` in `0..=LN_SEGMENTS`.
static LN_TABLE: [u64; LN_SEGMENTS + 1] = ln_table();
/// ln 2 in 1/2^40.
const LN_2: u64 = 762_123_384_786;

/// Fractional bits of the exponential.
pub(crate) const EXP_BITS: u32 = 32;
/// `2^(-i / 256)` in 1/2^32.
static EXP2_TABLE: [u64; 256] = exp2_table();
/// 1 / ln 2 in 1/2^32.
const LOG2_E: u64 = 6_196_328_019;

/// Sums `ln((n + 1) / n) = 2 artanh(1 / (2n + 1))` for `n = LN_SEGMENTS..2 LN_SEGMENTS` with 62 fractional bits.
const fn ln_table() -> [u64; LN_SEGMENTS + 1] {
    let mut table = [0; LN_SEGMENTS + 1];
    let mut sum: u64 = 0;
    let mut i = 0;
    while i < LN_SEGMENTS {
        let denominator = (2 * (LN_SEGMENTS + i) + 1) as u64;
        let square = denominator * denominator;
        let mut power = (1u64 << 63) / denominator;
        let mut order = 1;
        while power > 0 {
            sum += power / order;
            power /= square;
            order += 2;
        }
        i += 1;
        table[i] = (sum + (1 << (61 - LN_BITS))) >> (62 - LN_BITS);
    }
    table
}

/// Powers of `2^(-1/256)`, which is 1/2 with eight square roots drawn, with 62 fractional bits.
const fn exp2_table() -> [u64; 256] {
    let mut root: u64 = 1 << 61;
    let mut i = 0;
    while i < 8 {
        root = ((root as u128) << 62).isqrt() as u64;
        i += 1;
    }
    let mut table = [0; 256];
    let mut power: u64 = 1 << 62;
    let mut i = 0;
    while i < 256 {
        table[i] = (power + (1 << (61 - EXP_BITS))) >> (62 - EXP_BITS);
        power = ((power as u128 * root as u128) >> 62) as u64;
        i += 1;
    }
    table
}

/// `ln(x)` in 1/2^40 for `x >= 1`, never decreasing in `x`; below the true value by at most 2^-22. `ln_int(0)` is 0.
///
/// Monotone by construction: the normalised bits below the segment's are cut off, and linear interpolation between
/// the increasing entries of a table is monotone whatever their rounding.
pub(crate) fn ln_int(x: u64) -> u64 {
    let Some(exponent) = x.checked_ilog2() else { return 0 };
    // The bits after the leading one, at the top of a word.
    let mantissa = (x << (63 - exponent)) << 1;
    let segment = (mantissa >> (64 - LN_SEGMENT_BITS)) as usize;
    let offset = (mantissa << LN_SEGMENT_BITS) >> 32;
    let (low, high) = match LN_TABLE.get(segment..segment + 2) {
        Some(&[low, high]) => (low, high),
        _ => (0, 0),
    };
    // The entries of a segment differ by less than 2^30, so the product fits.
    u64::from(exponent) * LN_2 + low + (((high - low) * offset) >> 32)
}

/// `exp(-d / 2^16)` in 1/2^32, in `0..=2^32`; relative error below 2^-22 where the result is above 2^-8.
pub(crate) fn exp_neg(d: u32) -> u64 {
    // Binary exponent in 1/2^32: d has 16 fractional bits, LOG2_E has 32.
    let exponent = (u128::from(d) * u128::from(LOG2_E)) >> 16;
    let exponent = exponent as u64;
    let shift = exponent >> 32;
    if shift > u64::from(EXP_BITS) {
        return 0;
    }
    let fraction = exponent as u32;
    let entry = EXP2_TABLE.get((fraction >> 24) as usize).copied().unwrap_or(0);
    // 2^-f = 1 - y + y^2/2 - ... with y = f ln 2 < 2^-8; the cubic term is below 2^-27.
    let y = (u64::from(fraction & 0x00ff_ffff) * (LN_2 >> 8)) >> 32;
    let factor = (1u64 << 32) - y + ((y * y) >> 33);
    ((u128::from(entry) * u128::from(factor)) >> 32) as u64 >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octaves_meet() {
        assert_eq!(LN_TABLE[LN_SEGMENTS], LN_2);
        assert!(LN_TABLE.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] < 1 << 31));
        assert!(EXP2_TABLE.windows(2).all(|pair| pair[0] > pair[1]));
        assert_eq!(EXP2_TABLE[128], 3_037_000_500);
    }

    #[test]
    fn ln_is_monotone_and_close() {
        let unit = (1u64 << 40) as f64;
        let mut previous = (0, 0);
        for exponent in 0..64 {
            for step in 0..5_000u64 {
                let x = (1u64 << exponent).saturating_add(((1u64 << exponent) / 5_000).saturating_mul(step));
                for x in [x, x | 1, x | 0xffff] {
                    let ln = ln_int(x);
                    if x >= previous.0 {
                        assert!(ln >= previous.1, "ln({x}) decreases");
                        previous = (x, ln);
                    }
                    let error = ln as f64 / unit - (x as f64).ln();
                    assert!((-2.4e-7..1e-10).contains(&error), "ln({x}) is off by {error}");
                }
            }
        }
        assert_eq!(ln_int(0), 0);
    }

    #[test]
    fn exp_is_monotone_and_close() {
        let unit = (1u64 << EXP_BITS) as f64;
        assert_eq!(exp_neg(0), 1 << EXP_BITS);
        let mut previous = u64::MAX;
        for d in (0..24 << 16).step_by(3) {
            let value = exp_neg(d);
            assert!(value <= previous, "exp(-{d}) increases");
            previous = value;
            let exact = (-f64::from(d) / 65_536.0).exp() * unit;
            assert!(
                (value as f64 - exact).abs() < 2.0 + exact * 2.0f64.powi(-26),
                "exp(-{d}): {value}, {exact}"
            );
        }
        for d in [24 << 16, 1 << 31, u32::MAX] {
            assert_eq!(exp_neg(d), 0);
        }
    }
}
