//! What an epoch mints and what of it a host is due.

use starling_primitives::{Balance, EpochIndex, Work, TOKEN};

/// Emission of epoch 0.
pub const INITIAL: Balance = 285_000 * TOKEN;
/// Each epoch mints this much less than the one before, in ppm.
pub const DECAY_PPM: u64 = 475;

/// `INITIAL x (1 - DECAY)^epoch`, rounded down; the power is taken by squaring in 64-bit fixed point, each product
/// rounded down, so that the result is at most 2^-57 of itself below the exact value.
pub fn epoch_emission(epoch: EpochIndex) -> Balance {
    const ONE: u128 = 1 << 64;
    const FACTOR: u128 = ONE * (1_000_000 - DECAY_PPM as u128) / 1_000_000;
    let multiply = |a: u128, b: u128| a.checked_mul(b).map_or(u128::from(u64::MAX), |product| product >> 64);
    let mut power = ONE;
    let mut square = FACTOR;
    let mut exponent = epoch;
    while exponent > 0 {
        if exponent & 1 == 1 {
            // `power` is ONE only before the first factor; ONE x square would not fit 128 bits.
            power = if power == ONE { square } else { multiply(power, square) };
        }
        square = multiply(square, square);
        exponent >>= 1;
    }
    INITIAL.checked_mul(power).map_or(0, |product| product >> 64)
}

/// `emission x weight / total`, rounded down: the dues of all hosts never exceed the emission; the dust stays in the pot
/// and burns. 0 when `total` is 0.
pub fn due(emission: Balance, weight: Work, total: Work) -> Balance {
    // An emission is below 2^59 and a weight at most 2^48, so the product fits; a larger one pays nothing rather than wraps.
    emission
        .checked_mul(weight.min(total).into())
        .and_then(|product| product.checked_div(total.into()))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_primitives::MAX_WORK;

    #[test]
    fn starts_at_285_000_and_shrinks_by_475_ppm() {
        assert_eq!(epoch_emission(0), 285_000 * TOKEN);
        let expected = 285_000.0 * 1e12 * (1.0f64 - 475e-6).powi(1_459);
        let relative = (epoch_emission(1_459) as f64 - expected).abs() / expected;
        assert!(relative < 1e-9, "{relative}");
        // 1,459 epochs halve it.
        assert!(epoch_emission(1_459) < INITIAL / 2 + INITIAL / 1_000);
        assert_eq!(epoch_emission(u32::MAX), 0);
    }

    proptest! {
        #[test]
        fn never_grows(epoch in 0u32..100_000) {
            prop_assert!(epoch_emission(epoch + 1) <= epoch_emission(epoch));
        }

        #[test]
        fn each_epoch_is_the_last_one_less_475_ppm(epoch in 0u32..10_000) {
            let expected = epoch_emission(epoch) * (1_000_000 - u128::from(DECAY_PPM)) / 1_000_000;
            prop_assert!(epoch_emission(epoch + 1).abs_diff(expected) <= 2);
        }

        #[test]
        fn dues_never_exceed_the_emission(epoch in 0u32..5_000, weights in prop::collection::vec(1u64..=MAX_WORK, 1..100)) {
            let emission = epoch_emission(epoch);
            let total = weights.iter().sum();
            let paid: Balance = weights.iter().map(|&weight| due(emission, weight, total)).sum();
            prop_assert!(paid <= emission);
            prop_assert!(emission - paid < weights.len() as u128);
        }
    }
}
