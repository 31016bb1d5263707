//! From sprint results to weights, and from weights to authorities.

use alloc::vec::Vec;
use starling_primitives::{
    profile::Profile, schedule::Schedule, sprint::SprintVerdict, traits::HostWeight, AccountId, Ppm, Work,
    MAX_WORK, PPM,
};

/// Work units of one sprint nonce of a profile, at least 1.
pub fn nonce_work(profile: &Profile, schedule: &Schedule) -> Work {
    let prompt = u64::from(profile.prompt_work).saturating_mul(schedule.sprint_prompt_tokens.into());
    let completion = u64::from(profile.completion_work).saturating_mul(schedule.sprint_decode_tokens.into());
    prompt.saturating_add(completion).clamp(1, MAX_WORK)
}

/// Work of `accepted` nonces, at most [`MAX_WORK`].
pub fn work(accepted: u32, nonce_work: Work) -> Work {
    nonce_work.saturating_mul(accepted.into()).min(MAX_WORK)
}

/// How many of `count` committed nonces are accepted.
///
/// * Nobody but the prover serves the profile (`eligible_weight` 0): all of them; there is no one to disagree.
/// * Somebody could vote and nobody did: none.
/// * Voters with more than half of the voting weight say *fabricated*: none.
/// * Else `count x (1 - upper bound of the failed fraction)`, rounded down. The fraction is the voters' mean by weight, each
///   voter's own taken to lie between the weighted median and its confidence bound (`failed_fraction`), so that liars of
///   less than half of the weight neither make good work bad nor bad work good. The bound is Wilson's at 95 %, one-sided,
///   over all samples checked; `tolerance` is taken off the fraction first.
pub fn accepted(
    count: u32,
    eligible_weight: Work,
    verdicts: &[(Work, SprintVerdict)],
    tolerance: Ppm,
) -> u32 {
    if eligible_weight == 0 {
        return count;
    }
    let sum = |value: &dyn Fn(&SprintVerdict) -> u64| {
        verdicts.iter().fold(0u128, |sum, (weight, verdict)| {
            sum.saturating_add(u128::from(*weight).saturating_mul(value(verdict).into()))
        })
    };
    let voted = sum(&|_| 1);
    let fabricated = sum(&|verdict| verdict.fabricated.into());
    let Some(fraction) = failed_fraction(verdicts) else { return 0 };
    if fabricated.saturating_mul(2) > voted {
        return 0;
    }
    let samples =
        verdicts.iter().fold(0u64, |samples, (_, verdict)| samples.saturating_add(verdict.checked.into()));
    let kept = u64::from(PPM.saturating_sub(upper_bound(fraction.saturating_sub(tolerance), samples)));
    let accepted = kept.saturating_mul(count.into()).checked_div(PPM.into()).unwrap_or(0);
    u32::try_from(accepted).unwrap_or(count).min(count)
}

/// Fraction of samples that failed, in ppm, rounded down: the mean over the voters by weight and samples. A voter below the
/// weighted median counts as the median, one above the median's 95 % bound as that. `None` when nothing was checked.
///
/// Honest voters draw samples of the same work, so few of them lie outside, and not far. What a liar says counts as at
/// most that, whatever it says, as long as the median is an honest voter's. The lower end is the median itself, because
/// who commits to a thousand times its work gains by each thousandth that is forgiven.
fn failed_fraction(verdicts: &[(Work, SprintVerdict)]) -> Option<Ppm> {
    let mut found: Vec<(Ppm, Work, u32)> = verdicts
        .iter()
        .filter_map(|(weight, SprintVerdict { checked, failed, .. })| {
            let failed = u64::from(*failed.min(checked)).saturating_mul(PPM.into());
            let fraction = failed.checked_div((*checked).into())?;
            Some((u32::try_from(fraction).unwrap_or(PPM), *weight, *checked))
        })
        .collect();
    found.sort_unstable();
    let total = found.iter().fold(0u128, |sum, (_, weight, _)| sum.saturating_add((*weight).into()));
    let mut below = 0u128;
    let (median, _, samples) = *found.iter().find(|(_, weight, _)| {
        below = below.saturating_add((*weight).into());
        below.saturating_mul(2) >= total
    })?;
    let highest = upper_bound(median, samples.into());
    let (mut failed, mut checked) = (0u128, 0u128);
    for (fraction, weight, samples) in found {
        let weighted = u128::from(weight).saturating_mul(samples.into());
        checked = checked.saturating_add(weighted);
        // The bound is rounded.
        let fraction = fraction.clamp(median, highest.max(median));
        failed = failed.saturating_add(weighted.saturating_mul(fraction.into()));
    }
    failed.checked_div(checked).and_then(|fraction| u32::try_from(fraction).ok())
}

/// Wilson's upper bound (95 %, one-sided) of a proportion observed as `fraction` ppm in `samples` trials, in ppm,
/// rounded down. (E. B. Wilson, *Probable inference*, JASA 22, 1927.)
pub fn upper_bound(fraction: Ppm, samples: u64) -> Ppm {
    const Z: u128 = 1_644_854; // The 95 % quantile of the normal distribution, in 10^-6.
    const Z_SQUARED: u128 = 2_705_543;
    let one = u128::from(PPM);
    let fraction = u128::from(fraction.min(PPM));
    let samples = u128::from(samples.min(1 << 32));
    // Everything is at most 2^20 x 2^20 x 2^32, far inside u128; units are given in powers of 10^-6.
    let variance = fraction.saturating_mul(one.saturating_sub(fraction)).saturating_mul(samples); // 10^-12
    let root = variance.saturating_add(Z_SQUARED.saturating_mul(one).div_euclid(4)).isqrt(); // 10^-6
    let numerator = fraction
        .saturating_mul(samples)
        .saturating_add(Z_SQUARED.div_euclid(2))
        .saturating_add(Z.saturating_mul(root).div_euclid(one)); // 10^-6
    let denominator = samples.saturating_mul(one).saturating_add(Z_SQUARED); // 10^-6
    let bound = numerator.saturating_mul(one).checked_div(denominator).unwrap_or(one);
    u32::try_from(bound).unwrap_or(PPM).min(PPM)
}

/// Caps every weight so that none is above `max_share` of the sum of the capped weights (or above 1/n of it, when n
/// hosts cannot satisfy the share). Keeps the order of weights; a weight that is not 0 stays above 0.
///
/// With the k largest capped to C and the others summing to `rest`, `C = share x (k C + rest)`, so
/// `C = share x rest / (1 - k share)`, rounded down; k is the smallest number for which the next weight is at most C.
pub fn cap(weights: &mut [(AccountId, Work)], max_share: Ppm) {
    let mut sorted: Vec<Work> =
        weights.iter().map(|(_, weight)| *weight).filter(|weight| *weight > 0).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let hosts = sorted.len() as u128;
    let share = if u128::from(max_share).saturating_mul(hosts) < PPM.into() {
        (1, hosts)
    } else {
        (u128::from(max_share), u128::from(PPM))
    };
    let Some(limit) = limit(&sorted, share) else { return };
    for (_, weight) in weights.iter_mut() {
        *weight = (*weight).min(limit);
    }
}

/// The C of [`cap`]; `None` when nothing has to be capped. `sorted` descends; `share` is (numerator, denominator).
fn limit(sorted: &[Work], (numerator, denominator): (u128, u128)) -> Option<Work> {
    let mut rest = sorted.iter().fold(0u128, |sum, weight| sum.saturating_add((*weight).into()));
    let mut left = denominator;
    for (capped, &weight) in sorted.iter().enumerate() {
        let limit = rest.saturating_mul(numerator).checked_div(left)?;
        if u128::from(weight) <= limit {
            return (capped > 0).then(|| Work::try_from(limit).unwrap_or(Work::MAX).max(1));
        }
        rest = rest.saturating_sub(weight.into());
        left = left.checked_sub(numerator)?;
    }
    // Only rounding leads here: the smallest weight alone is above its share of itself.
    sorted.last().copied()
}

/// The hosts that become authorities, with their authority weights: those with at least `min_share` ppm of the total.
/// Order is kept; a weight is never 0, because BABE asserts that.
pub fn authorities(hosts: &[HostWeight], min_share: Ppm) -> Vec<(AccountId, u64)> {
    let total = u128::from(crate::draw::total(hosts));
    let least = total.saturating_mul(min_share.into());
    hosts
        .iter()
        .filter(|host| host.weight > 0 && u128::from(host.weight).saturating_mul(PPM.into()) >= least)
        .map(|host| (host.host.clone(), host.weight))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict(checked: u32, failed: u32, fabricated: bool) -> SprintVerdict {
        SprintVerdict { checked, failed, fabricated }
    }

    fn capped(weights: &[Work], max_share: Ppm) -> Vec<Work> {
        let mut hosts: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(id, &weight)| (AccountId::new([id as u8; 32]), weight))
            .collect();
        cap(&mut hosts, max_share);
        hosts.into_iter().map(|(_, weight)| weight).collect()
    }

    #[test]
    fn accepts_by_the_votes_that_were_cast() {
        let check =
            |eligible, verdicts: &[_], expected| assert_eq!(accepted(1_000, eligible, verdicts, 0), expected);
        check(0, &[], 1_000);
        check(10, &[], 0);
        check(10, &[(1, verdict(0, 0, false))], 0);
        // 200 clean samples: Wilson's bound is z^2 / (n + z^2) = 1.33 %.
        check(10, &[(1, verdict(200, 0, false))], 986);
        check(10, &[(1, verdict(200, 1, true))], 0);
        check(10, &[(1, verdict(200, 100, false))], 442);
        // The majority of the voting weight decides on fabrication, and keeps what a minority says within its bounds.
        check(10, &[(1, verdict(100, 100, true)), (9, verdict(100, 0, false))], 981);
        check(10, &[(5, verdict(100, 100, true)), (5, verdict(100, 0, false))], 965);
        check(10, &[(6, verdict(100, 100, true)), (5, verdict(100, 0, false))], 0);
    }

    #[test]
    fn a_minority_of_liars_moves_little() {
        let accepts = |honest: SprintVerdict, lie: SprintVerdict| {
            accepted(100_000, 99, &[(22, honest), (22, honest), (22, honest), (33, lie)], 0)
        };
        let (clean, nothing) = (verdict(200, 0, false), verdict(200, 200, true));
        // Good work of which a third says that all of it failed, and a commitment of which nine tenths are not there
        // although a third says that they are.
        assert!(accepts(clean, nothing) > 98_500, "{}", accepts(clean, nothing));
        let missing = verdict(200, 180, false);
        assert!(accepts(missing, clean) < 10_000, "{}", accepts(missing, clean));
        assert_eq!(accepts(verdict(200, 200, false), clean), 0);
    }

    #[test]
    fn bound_agrees_with_the_formula() {
        for (fraction, samples) in
            [(0u32, 1u64), (0, 200), (10_000, 200), (500_000, 50), (1_000_000, 10), (123_456, 7)]
        {
            let (p, n, z) = (f64::from(fraction) / 1e6, samples as f64, 1.644854f64);
            let exact = (p + z * z / (2.0 * n) + z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt())
                / (1.0 + z * z / n);
            let bound = f64::from(upper_bound(fraction, samples)) / 1e6;
            assert!((bound - exact).abs() < 3e-6, "{fraction} {samples}: {bound} {exact}");
        }
    }

    #[test]
    fn cap_examples() {
        assert_eq!(capped(&[1, 1, 1, 1], 250_000), [1, 1, 1, 1]);
        assert_eq!(capped(&[8, 4, 4, 4], 250_000), [4, 4, 4, 4]);
        assert_eq!(capped(&[8, 4, 4, 4], 500_000), [8, 4, 4, 4]);
        assert_eq!(capped(&[100, 1, 1, 1, 1], 250_000), [1, 1, 1, 1, 1]);
        assert_eq!(capped(&[100, 20, 20, 20, 20], 250_000), [26, 20, 20, 20, 20]);
        assert_eq!(capped(&[9, 3], 250_000), [3, 3]);
        assert_eq!(capped(&[9], 250_000), [9]);
        assert_eq!(capped(&[0, 9, 0], 250_000), [0, 9, 0]);
        assert_eq!(capped(&[], 250_000), [] as [Work; 0]);
    }

    proptest! {
        #[test]
        fn nobody_is_above_the_cap(weights in prop::collection::vec(1..=MAX_WORK, 1..60), max_share in 1..=PPM) {
            let after = capped(&weights, max_share);
            let total: u128 = after.iter().map(|&weight| u128::from(weight)).sum();
            let hosts = weights.len() as u128;
            for (&before, &now) in weights.iter().zip(&after) {
                prop_assert!(now <= before && now > 0);
                let share = u128::from(now) * 1_000_000;
                prop_assert!(share <= total * u128::from(max_share) || u128::from(now) * hosts <= total || now == 1);
            }
            for (i, &a) in weights.iter().enumerate() {
                for (j, &b) in weights.iter().enumerate() {
                    prop_assert!(a < b || after[i] >= after[j]);
                }
            }
            prop_assert_eq!(capped(&after, max_share), after.clone(), "capping again changes nothing");
        }

        #[test]
        fn more_failures_never_accept_more(count: u32, checked in 1u32..1_000, a in 0u32..1_000, b in 0u32..1_000) {
            let few = accepted(count, 1, &[(1, verdict(checked, a.min(b), false))], 0);
            let many = accepted(count, 1, &[(1, verdict(checked, a.max(b), false))], 0);
            prop_assert!(many <= few && few <= count);
        }

        #[test]
        fn no_minority_leaves_the_bounds_of_the_majority(
            checked in 1u32..1_000, honest in 0u32..1_000, lies in prop::collection::vec((0u64..10, 0u32..1_000), 0..5),
        ) {
            let honest = verdict(checked, honest.min(checked), false);
            let weight = 1 + lies.iter().map(|(weight, _)| weight).sum::<u64>();
            let mut verdicts = vec![(weight, honest)];
            verdicts.extend(lies.iter().map(|(weight, failed)| (*weight, verdict(1_000, *failed, false))));
            let (said, alone) = (failed_fraction(&verdicts).unwrap(), failed_fraction(&verdicts[..1]).unwrap());
            prop_assert!(said <= upper_bound(alone, checked.into()).max(alone));
            prop_assert!(said >= alone);
        }

        #[test]
        fn authorities_have_weight_and_share(weights in prop::collection::vec(0..=MAX_WORK, 0..40), min_share in 0..PPM) {
            let hosts: Vec<_> = weights.iter().enumerate()
                .map(|(id, &weight)| HostWeight { host: AccountId::new([id as u8; 32]), weight, reputation: 0 }).collect();
            let chosen = authorities(&hosts, min_share);
            prop_assert!(chosen.iter().all(|(_, weight)| *weight > 0));
            let heaviest = weights.iter().max().copied().unwrap_or(0);
            let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
            if heaviest > 0 && u128::from(heaviest) * 1_000_000 >= total * u128::from(min_share) {
                prop_assert!(!chosen.is_empty());
            }
        }
    }
}
