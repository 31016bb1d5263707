//! The figures of the worst honest host that a calibration allows.

use rand::Rng;
use starling_primitives::{profile::Calibration, verdict::Figures};

/// What a calibration promises of honest answers, whatever went before: at most one in so many lies beyond so many
/// eighths of a limit (`starling_math::evidence`).
const TAILS: [(u64, u32); 3] = [(7, 256), (6, 64), (4, 8)];

/// Figures that exhaust every tail: each answer lies at the upper end of its stretch.
pub fn promised(tokens: u32, calibration: &Calibration, rng: &mut impl Rng) -> Figures {
    let draw = rng.random_range(0..256u32);
    let (mut end, mut share) = (8, 0);
    for (begin, one_in) in TAILS {
        share = 256 / one_in;
        if draw < share {
            break;
        }
        end = begin;
    }
    debug_assert!(share > 0);
    let allowed = |limit: u32| u64::from(limit) * u64::from(tokens) + u64::from(calibration.short_allowance);
    Figures {
        tokens,
        distance_sum: allowed(calibration.distance_limit) * end / 8,
        margin_sum: allowed(calibration.margin_limit) * end / 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use starling_math::{evidence, judge};

    #[test]
    fn it_passes_always_and_exhausts_the_tails() {
        let calibration = Calibration { distance_limit: 20, margin_limit: 20, short_allowance: 640 };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut expectation = 0.0;
        const DRAWS: u32 = 100_000;
        for _ in 0..DRAWS {
            let figures = promised(64, &calibration, &mut rng);
            assert!(judge::passes(&figures, &calibration));
            let bits = evidence::bits(&figures, &calibration).expect("it passes");
            expectation += 2f64.powf(f64::from(bits) / 256.0) / f64::from(DRAWS);
        }
        // The e-value's expectation is 0.984; its deviation over so many draws is below 0.01.
        assert!((0.95..1.0).contains(&expectation), "{expectation}");
    }
}
