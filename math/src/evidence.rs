//! The sequential test over the verdicts of one verifier on one host: small deviations that no single verdict shows.
//!
//! A verdict beyond the limits is disputed at once. A host that runs other weights, or a coarser quantisation, and stays
//! within them leaves a trace in how *often* its figures come close. Each verdict within the limits is a bet against the
//! host's honesty with an *e-value*, whose expectation for an honest host is at most 1 ([`bits`]); their running product
//! with restarts ([`step`]) is an e-detector.
//!
//! **Error.** A profile's calibration promises for honest answers, whatever went before: at most 1/8 of them lie beyond
//! half of a limit, 1/64 beyond three quarters, 1/256 beyond seven eighths. Then the product since any fixed restart is
//! a non-negative supermartingale that starts at 1, so it ever reaches `2^b` with a probability of at most `2^-b`
//! (Ville). A run of n verdicts has at most n restarts: an honest host is accused by an honest verifier within n
//! verdicts with a probability of at most `n x 2^-40`, wherever one stops to look.

use crate::judge::allowed;
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use starling_primitives::{profile::Calibration, verdict::Figures, Work};

/// Units of log2 of an e-value: 1/256 bit.
pub const UNIT: i32 = 256;
/// The running product at which a verifier's own verdicts accuse the host: 2^40.
pub const ACCUSES: u32 = 40 * UNIT as u32;

/// What a profile's calibration promises of honest answers, whatever went before: beyond so many eighths of a limit lies at
/// most one in so many.
pub const PROMISED: [(u64, u32); 3] = [(4, 8), (6, 64), (7, 256)];

/// What a figure's place below its limit is worth, for the larger of the two: eighths of the limit at most, log2 of the
/// e-value in 1/256 bit. 2^(-107/256) < 0.7486, so that with the promised tails
/// `0.7486 + (2 - 0.7486)/8 + (4 - 2)/64 + (16 - 4)/256 < 0.984 <= 1`.
const BETS: [(u64, i32); 4] = [(4, -107), (6, UNIT), (7, 2 * UNIT), (8, 4 * UNIT)];

/// Log2 of the e-value of a verdict, in 1/256 bit. `None` when it lies beyond the limits, which a dispute decides.
pub fn bits(figures: &Figures, calibration: &Calibration) -> Option<i32> {
    let within = |eighths: u64| {
        let within = |sum: u64, limit: u32| {
            let allowed = u128::from(allowed(limit, figures, calibration));
            u128::from(sum).saturating_mul(8) <= allowed.saturating_mul(eighths.into())
        };
        within(figures.distance_sum, calibration.distance_limit)
            && within(figures.margin_sum, calibration.margin_limit)
    };
    BETS.iter().find(|(eighths, _)| within(*eighths)).map(|(_, bits)| *bits)
}

/// The running log2 product after one more bet, never below 0: there it begins anew. In 1/256 bit.
pub fn step(sum: u32, bits: i32) -> u32 {
    sum.saturating_add_signed(bits)
}

/// What the accusations against a host come to.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub enum Standing {
    /// A verifier accuses: everything the host does is looked at.
    Watched,
    /// More than a third of the weight accuses: it takes part in no sprint, and so gets no new work.
    Stopped,
    /// More than half does: it is convicted.
    Convicted,
}

/// Standing of a host that verifiers of weight `accusing` accuse, out of `eligible`, the weight of all that may verify
/// its work. Fewer than a third can neither stop nor convict it, and fewer than half cannot shield it.
pub fn standing(accusing: Work, eligible: Work) -> Standing {
    let (accusing, eligible) = (u128::from(accusing), u128::from(eligible));
    if accusing.saturating_mul(2) > eligible {
        Standing::Convicted
    } else if accusing.saturating_mul(3) > eligible {
        Standing::Stopped
    } else {
        Standing::Watched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::{
        rand_core::{RngCore, SeedableRng},
        ChaCha8Rng,
    };

    const CALIBRATION: Calibration =
        Calibration { distance_limit: 10, margin_limit: 20, short_allowance: 80 };

    fn figures(distance_sum: u64, margin_sum: u64) -> Figures {
        Figures { tokens: 100, distance_sum, margin_sum }
    }

    #[test]
    fn a_bet_follows_the_worse_figure() {
        // Allowed: 1,080 and 2,080.
        let check = |distance, margin, expected| {
            assert_eq!(bits(&figures(distance, margin), &CALIBRATION), expected, "{distance} {margin}");
        };
        check(0, 0, Some(-107));
        check(540, 1_040, Some(-107));
        check(541, 0, Some(256));
        check(0, 1_041, Some(256));
        check(810, 1_560, Some(256));
        check(811, 0, Some(512));
        check(945, 1_820, Some(512));
        check(0, 1_821, Some(1_024));
        check(1_080, 2_080, Some(1_024));
        check(1_081, 0, None);
        check(0, 2_081, None);
        check(u64::MAX, u64::MAX, None);
    }

    #[test]
    fn the_expectation_of_an_honest_bet_is_at_most_one() {
        // Tails are worst when they are exhausted: every value may lie at the upper end of its bet.
        let value = |bits: i32| 2f64.powf(f64::from(bits) / 256.0);
        let mut expectation = value(BETS[0].1);
        for ((end, share), pair) in PROMISED.iter().zip(BETS.windows(2)) {
            assert_eq!(*end, pair[0].0, "a tail begins where a bet ends");
            assert!(pair[0].1 < pair[1].1, "worse figures are worth more");
            expectation += (value(pair[1].1) - value(pair[0].1)) / f64::from(*share);
        }
        assert!(expectation <= 1.0 && expectation > 0.9, "{expectation}");
    }

    /// A figure drawn from the worst distribution that the calibration allows: log2 of its e-value.
    fn worst_honest(rng: &mut ChaCha8Rng) -> i32 {
        match rng.next_u32() % 256 {
            0 => 1_024,
            1..=3 => 512,
            4..=31 => 256,
            _ => -107,
        }
    }

    /// Verdicts until the running product reaches `2^level`, at most `limit`.
    fn run_length(rng: &mut ChaCha8Rng, level: u32, limit: u32, draw: fn(&mut ChaCha8Rng) -> i32) -> u32 {
        let mut sum = 0;
        for n in 1..=limit {
            sum = step(sum, draw(rng));
            if sum >= level {
                return n;
            }
        }
        limit
    }

    #[test]
    fn false_alarms_stay_below_their_bound() {
        // At levels low enough to be seen: of `RUNS` honest hosts with `N` verdicts each, no more than `N x 2^-bits` are
        // accused, and the bound is not idle.
        const RUNS: u32 = 20_000;
        const N: u32 = 64;
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for level_bits in [8u32, 10, 12] {
            let level = level_bits * UNIT as u32;
            let alarms =
                (0..RUNS).filter(|_| run_length(&mut rng, level, N + 1, worst_honest) <= N).count() as u32;
            let bound = (RUNS * N) >> level_bits;
            assert!(alarms <= bound, "{alarms} of {RUNS} at 2^{level_bits}: more than {bound}");
        }
    }

    #[test]
    fn a_million_honest_host_epochs_convict_nobody() {
        // One verifier's test on one host, ten verdicts an epoch: ten million verdicts on the worst honest host.
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let (mut sum, mut highest) = (0, 0);
        for _ in 0..10_000_000u32 {
            sum = step(sum, worst_honest(&mut rng));
            highest = highest.max(sum);
        }
        assert!(highest < ACCUSES, "{highest}");
        assert!(highest > 8 * UNIT as u32, "the test must be able to move: {highest}");
    }

    #[test]
    fn a_drift_within_the_limits_is_accused_soon() {
        // Half of the figures lie between one half and three quarters of the limit, a tenth above.
        let drifting = |rng: &mut ChaCha8Rng| match rng.next_u32() % 10 {
            0 => 512,
            1..=5 => 256,
            _ => -107,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut lengths: Vec<u32> =
            (0..1_000).map(|_| run_length(&mut rng, ACCUSES, 10_000, drifting)).collect();
        lengths.sort_unstable();
        // 0.53 bits a verdict: about 75 of them.
        assert!((60..90).contains(&lengths[500]), "median {}", lengths[500]);
        assert!(lengths[999] < 200, "the slowest {}", lengths[999]);
    }

    #[test]
    fn a_third_cannot_stop_and_half_cannot_convict() {
        assert_eq!(standing(1, 100), Standing::Watched);
        assert_eq!(standing(33, 99), Standing::Watched);
        assert_eq!(standing(34, 99), Standing::Stopped);
        assert_eq!(standing(50, 100), Standing::Stopped);
        assert_eq!(standing(51, 100), Standing::Convicted);
    }

    proptest! {
        #[test]
        fn what_passes_is_a_bet_and_what_fails_is_not(tokens in 1u32..5_000, distance: u64, margin: u64, scale in 0u32..50) {
            let figures = Figures { tokens, distance_sum: distance >> scale, margin_sum: margin >> scale };
            let passes = crate::judge::passes(&figures, &CALIBRATION);
            prop_assert_eq!(bits(&figures, &CALIBRATION).is_some(), passes);
        }

        #[test]
        fn worse_figures_never_help_the_host(distance in 0u64..1_100, margin in 0u64..2_100, more in 0u64..500) {
            let worth = |figures: Figures| bits(&figures, &CALIBRATION).unwrap_or(i32::MAX);
            let base = worth(figures(distance, margin));
            prop_assert!(worth(figures(distance + more, margin)) >= base);
            prop_assert!(worth(figures(distance, margin + more)) >= base);
        }

        #[test]
        fn the_running_product_never_falls_below_one(bets in prop::collection::vec(any::<i32>(), 0..100)) {
            let mut sum = 0u32;
            for bet in bets {
                let next = step(sum, bet);
                let moved = next.cmp(&sum);
                prop_assert!(moved.is_eq() || moved.is_gt() == (bet > 0));
                sum = next;
            }
        }

        #[test]
        fn standing_is_monotone(accusing: u64, more: u64, eligible: u64) {
            let higher = accusing.saturating_add(more);
            prop_assert!(standing(accusing, eligible) <= standing(higher, eligible));
        }
    }
}
