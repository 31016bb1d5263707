//! Whether the figures of a transcript are those of an honest host.

use starling_primitives::{profile::Calibration, verdict::Figures};

/// Beyond this multiple of the limits no honest device lies: the transcript is fabricated.
pub const FABRICATED_FACTOR: u64 = 8;

/// Whether both sums stay within the profile's limits: `sum <= limit x tokens + allowance`.
pub fn passes(figures: &Figures, calibration: &Calibration) -> bool {
    within(figures, calibration, 1)
}

/// Whether a sum lies beyond [`FABRICATED_FACTOR`] times its limit.
pub fn fabricated(figures: &Figures, calibration: &Calibration) -> bool {
    !within(figures, calibration, FABRICATED_FACTOR)
}

/// The largest sum that is within a limit: `limit x tokens + allowance`.
pub(crate) fn allowed(limit: u32, figures: &Figures, calibration: &Calibration) -> u64 {
    u64::from(limit).saturating_mul(figures.tokens.into()).saturating_add(calibration.short_allowance.into())
}

fn within(figures: &Figures, calibration: &Calibration, factor: u64) -> bool {
    let allowed = |limit: u32| allowed(limit, figures, calibration).saturating_mul(factor);
    figures.distance_sum <= allowed(calibration.distance_limit)
        && figures.margin_sum <= allowed(calibration.margin_limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALIBRATION: Calibration =
        Calibration { distance_limit: 10, margin_limit: 20, short_allowance: 100 };

    fn figures(tokens: u32, distance_sum: u64, margin_sum: u64) -> Figures {
        Figures { tokens, distance_sum, margin_sum }
    }

    #[test]
    fn limits_are_inclusive() {
        let check = |figures, expected| assert_eq!(passes(&figures, &CALIBRATION), expected, "{figures:?}");
        check(figures(0, 0, 0), true);
        check(figures(10, 200, 300), true);
        check(figures(10, 201, 300), false);
        check(figures(10, 200, 301), false);
        check(figures(u32::MAX, u64::MAX, 0), false);
    }

    #[test]
    fn fabricated_is_far_beyond_failing() {
        assert!(!fabricated(&figures(10, 1_600, 0), &CALIBRATION));
        assert!(fabricated(&figures(10, 1_601, 0), &CALIBRATION));
    }
}
