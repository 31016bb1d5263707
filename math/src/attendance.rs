//! The sequential test of whether a host answers what it is drawn for.
//!
//! Weight, and with it the emission, follows the race. Executors are drawn by weight too, so of the answers that an epoch
//! records a host's part should be its share. How far it falls behind is a bet against the host's honesty with an *e-value*,
//! whose expectation for an honest host is at most 1 ([`bits`]); the product over epochs, with restarts ([`step`]), is an
//! e-detector like the one over figures ([`crate::evidence`]).
//!
//! **What an honest host promises.** Whatever went before: of the requests that are drawn by its weight, at least half reach
//! it and are answered by it; and at most one in 512 of its answers is struck, because a panel cannot get its transcript.
//! A host that is busy or down for a while keeps that promise; so does one that some gateways avoid, as long as these have
//! less than half of the requests.
//!
//! **Error.** A recorded answer is worth `1/2` if it is the host's and stands, 16 if it is the host's and is struck, and 1 if
//! it is another's. With a probability of at least half of the share `s` it is the host's, whose mean is then at most
//! `511/512 / 2 + 16/512 < 0.531`; so the mean is at most `1 - 0.469 s/2 <= 2^(-0.338 s)`. Times `2^(86/256 s)` for each
//! recorded answer it is at most 1: the product since any fixed restart is a non-negative supermartingale that starts at
//! 1, and ever reaches `2^b` with a probability of at most `2^-b` (Ville). There is one restart an epoch at most: an honest
//! host is found absent within n epochs with a probability of at most `n x 2^-30`.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use starling_primitives::Work;

/// The running product at which a host counts as absent: 2^30, in 1/256 bit. It goes no higher, so that one epoch's good work
/// ends the absence.
pub const ABSENT: u32 = 30 * UNIT as u32;

/// Units of log2 of an e-value: 1/256 bit.
const UNIT: i64 = 256;
/// What each answer that a host was to give is worth against it, in 1/256 bit: below `0.469/2 x log2(e) = 0.338` bit.
const EXPECTED: u128 = 86;
/// What each of its answers is worth for it.
const ANSWERED: i64 = UNIT;
/// What each of its answers that was struck is worth against it.
const STRUCK: i64 = 4 * UNIT;

/// What a host has done with one profile in one epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Tally {
    /// Its answers that are recorded and stand.
    pub answered: u32,
    /// Its answers that were struck.
    pub struck: u32,
    /// Answers of others to requests that came through its gateway: it is never drawn for these.
    pub relayed: u32,
}

/// What a host was to do with one profile in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Answers that all hosts gave, struck ones included.
    pub answers: u32,
    /// The host's weight for the profile.
    pub weight: Work,
    /// Weight of all hosts that serve it.
    pub total: Work,
}

/// Log2 of the e-value of what a host has done, in 1/256 bit.
pub fn bits(share: &Share, tally: &Tally) -> i64 {
    let drawn = share.answers.saturating_sub(tally.relayed);
    let expected = u128::from(drawn).saturating_mul(share.weight.into()).saturating_mul(EXPECTED);
    let expected = expected.checked_div(share.total.into()).unwrap_or(0);
    i64::try_from(expected)
        .unwrap_or(i64::MAX)
        .saturating_sub(i64::from(tally.answered).saturating_mul(ANSWERED))
        .saturating_add(i64::from(tally.struck).saturating_mul(STRUCK))
}

/// The running log2 product after one more epoch: never below 0, where it begins anew, and never above [`ABSENT`].
pub fn step(sum: u32, bits: i64) -> u32 {
    let next = i64::from(sum).saturating_add(bits).clamp(0, ABSENT.into());
    // Within the clamp it fits.
    u32::try_from(next).unwrap_or(ABSENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::{
        rand_core::{RngCore, SeedableRng},
        ChaCha8Rng,
    };

    /// A tenth of the weight, in an epoch of so many answers.
    fn tenth(answers: u32) -> Share {
        Share { answers, weight: 10, total: 100 }
    }

    fn answered(answered: u32) -> Tally {
        Tally { answered, ..Default::default() }
    }

    /// Epochs until a host that does the same in each is absent, at most 100.
    fn caught_after(share: &Share, tally: &Tally) -> u32 {
        let mut sum = 0;
        for epoch in 1..=100 {
            sum = step(sum, bits(share, tally));
            if sum >= ABSENT {
                return epoch;
            }
        }
        100
    }

    #[test]
    fn the_expectation_of_an_honest_epoch_is_at_most_one() {
        let value = |bits: i64| 2f64.powf(bits as f64 / UNIT as f64);
        // The host's own answers at their worst, drawn as seldom as promised.
        let own = 511.0 / 512.0 * value(-ANSWERED) + value(STRUCK) / 512.0;
        for share in [1e-4, 0.01, 0.1, 0.5, 1.0] {
            let mean = 1.0 - share / 2.0 + share / 2.0 * own;
            let all = mean * 2f64.powf(share * EXPECTED as f64 / UNIT as f64);
            assert!(all <= 1.0, "{share}: {all}");
        }
        // The bet is not idle.
        assert!((1.0 - own) / 2.0 * std::f64::consts::LOG2_E * 256.0 - (EXPECTED as f64) < 1.5);
    }

    #[test]
    fn who_answers_nothing_is_absent_after_ninety_answers_and_who_does_half_never() {
        assert_eq!(caught_after(&tenth(1_000), &answered(0)), 1);
        assert_eq!(caught_after(&tenth(890), &answered(0)), 2);
        assert_eq!(caught_after(&tenth(100), &answered(0)), 9);
        // A quarter of its share: four times the hardware for the race.
        assert_eq!(caught_after(&tenth(1_000), &answered(25)), 4);
        for done in [34, 50, 100, 200] {
            assert_eq!(caught_after(&tenth(1_000), &answered(done)), 100, "{done}");
        }
    }

    #[test]
    fn who_hides_its_transcripts_is_absent_after_eight() {
        let hidden = |struck| Tally { struck, ..Default::default() };
        assert_eq!(step(0, bits(&tenth(0), &hidden(8))), ABSENT);
        assert!(step(0, bits(&tenth(0), &hidden(7))) < ABSENT);
        // Two that could not be had among what it should do are forgiven.
        assert_eq!(step(0, bits(&tenth(1_000), &Tally { answered: 98, struck: 2, relayed: 0 })), 0);
    }

    #[test]
    fn a_gateway_is_not_asked_for_what_it_is_never_drawn_for() {
        let gateway = Tally { relayed: 1_000, ..Default::default() };
        assert_eq!(bits(&tenth(1_000), &gateway), 0);
        assert_eq!(bits(&tenth(900), &gateway), 0);
    }

    #[test]
    fn one_good_epoch_ends_an_absence() {
        assert_eq!(step(ABSENT, i64::MAX), ABSENT);
        assert!(step(ABSENT, bits(&tenth(1_000), &answered(100))) < ABSENT);
    }

    #[test]
    fn a_million_honest_host_epochs_are_never_absent() {
        // Half of what is drawn for it, and every promise used up.
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (mut sum, mut highest) = (0, 0);
        for _ in 0..1_000_000u32 {
            let mut tally = Tally::default();
            for _ in 0..40 {
                let random = rng.next_u32();
                if random % 20 == 0 {
                    let struck = random / 20 % 512 == 0;
                    tally.struck += u32::from(struck);
                    tally.answered += u32::from(!struck);
                }
            }
            sum = step(sum, bits(&tenth(40), &tally));
            highest = highest.max(sum);
        }
        assert!(highest < ABSENT, "{highest}");
        assert!(highest > 8 * UNIT as u32, "the test must be able to move: {highest}");
    }

    proptest! {
        #[test]
        fn more_work_never_hurts_and_more_strikes_never_help(
            answers: u32, weight: u64, rest: u64, answered: u32, struck: u32, relayed: u32, more in 1u32..1_000,
        ) {
            let share = Share { answers, weight, total: weight.saturating_add(rest) };
            let tally = Tally { answered, struck, relayed };
            let base = bits(&share, &tally);
            let worked = bits(&share, &Tally { answered: answered.saturating_add(more), ..tally });
            prop_assert!(worked <= base);
            let gateway = bits(&share, &Tally { relayed: relayed.saturating_add(more), ..tally });
            prop_assert!(gateway <= base);
            let hidden = bits(&share, &Tally { struck: struck.saturating_add(more), ..tally });
            prop_assert!(hidden >= base);
            let more_to_do = bits(&Share { answers: answers.saturating_add(more), ..share }, &tally);
            prop_assert!(more_to_do >= base);
        }

        #[test]
        fn the_running_product_stays_within_its_bounds(bets in prop::collection::vec(any::<i64>(), 0..100)) {
            let mut sum = 0;
            for bet in bets {
                sum = step(sum, bet);
                prop_assert!(sum <= ABSENT);
            }
        }
    }
}
