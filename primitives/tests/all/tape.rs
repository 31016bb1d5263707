//! The tape: ChaCha8 as `rand_chacha` has it, and the Gumbel variate against floating point.

use proptest::prelude::*;
use rand_chacha::{
    rand_core::{RngCore, SeedableRng},
    ChaCha8Rng,
};
use starling_primitives::{
    tape::{gumbel, gumbel_of_bits, tape_seed, Tape, GUMBEL_MAX, GUMBEL_MIN},
    H256,
};

/// The definition, by the published generator.
fn noise_bits(seed: &H256, position: u32, token: u32) -> u64 {
    let mut rng = ChaCha8Rng::from_seed(seed.0);
    rng.set_stream(position.into());
    rng.set_word_pos(16 * u128::from(token));
    rng.next_u64()
}

/// `-ln(-ln u)` without loss near 1, in 1/2^16 nat.
fn exact(bits: u64) -> f64 {
    let u = bits | 1;
    let energy = if u >> 63 == 1 {
        -(-(u.wrapping_neg() as f64) / 2f64.powi(64)).ln_1p()
    } else {
        -(u as f64 / 2f64.powi(64)).ln()
    };
    -energy.ln() * 65_536.0
}

/// Rounded down, so the value may lie one unit below, and a fraction of a unit of approximation beside that.
fn check(bits: u64) {
    let (value, exact) = (gumbel_of_bits(bits), exact(bits));
    let error = value as f64 - exact;
    assert!((-1.15..0.15).contains(&error), "{bits:#x}: {value}, exactly {exact}");
    assert!((GUMBEL_MIN..=GUMBEL_MAX).contains(&value));
}

#[test]
fn the_ends_are_the_documented_ones() {
    assert_eq!(gumbel_of_bits(0), GUMBEL_MIN);
    assert_eq!(gumbel_of_bits(u64::MAX), GUMBEL_MAX);
}

#[test]
fn close_and_monotone_around_every_power_of_two_and_seam() {
    let mut points = vec![0u64, u64::MAX];
    for exponent in 0..64 {
        for fraction in 0..=64u64 {
            let step = ((1u64 << exponent) / 64).saturating_mul(fraction);
            let point = (1u64 << exponent).saturating_add(step);
            points.extend([point, !point]);
        }
    }
    let mut points: Vec<u64> =
        points.into_iter().flat_map(|p| (0..7).map(move |i| p.saturating_sub(3).saturating_add(i))).collect();
    points.sort_unstable();
    let mut previous = i64::MIN;
    for bits in points {
        check(bits);
        let value = gumbel_of_bits(bits);
        assert!(value >= previous, "decreases at {bits:#x}");
        previous = value;
    }
}

#[test]
fn mean_and_variance_are_gumbels() {
    let seed = tape_seed(&H256::repeat_byte(1), &H256::repeat_byte(2));
    let tape = Tape::new(&seed);
    let count = 400_000u32;
    let (mut sum, mut squares) = (0f64, 0f64);
    for i in 0..count {
        let value = tape.gumbel(i / 1_000, i % 1_000) as f64 / 65_536.0;
        sum += value;
        squares += value * value;
    }
    let mean = sum / f64::from(count);
    let variance = squares / f64::from(count) - mean * mean;
    assert!((mean - 0.577_216).abs() < 0.008, "mean {mean}");
    assert!((variance - 1.644_934).abs() < 0.03, "variance {variance}");
}

proptest! {
    #[test]
    fn noise_is_rand_chachas(seed: [u8; 32], position: u32, token: u32) {
        let seed = H256(seed);
        prop_assert_eq!(gumbel(&seed, position, token), gumbel_of_bits(noise_bits(&seed, position, token)));
    }

    #[test]
    fn close_everywhere(bits: u64, shift in 0u32..64) {
        check(bits >> shift);
        check(!(bits >> shift));
    }

    #[test]
    fn monotone(a: u64, b: u64, shift in 0u32..64) {
        for (a, b) in [(a, b), (a, a.saturating_add(b >> shift)), (!(a >> shift), !(b >> shift))] {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(gumbel_of_bits(low) <= gumbel_of_bits(high));
        }
    }
}
