//! Which inferences a host must verify.

use crate::clock;
use starling_primitives::{
    hashing::hash_of, schedule::EpochState, BlockNumber, EpochIndex, Ppm, RequestId, Work, H256, MAX_WORK,
    PPM,
};

/// Share of a host's inferences that the others verify when its reputation is full: 1 %.
pub const MIN_TARGET: Ppm = 10_000;

/// Expected number of verifications per inference, in ppm, of an executor with this reputation: 100 % at 0, falling
/// linearly to [`MIN_TARGET`] at full reputation. Rounds up.
pub fn target(reputation: Ppm) -> Ppm {
    let missing = u64::from(PPM.saturating_sub(reputation));
    let range = u64::from(PPM.saturating_sub(MIN_TARGET));
    let above = missing.saturating_mul(range).div_ceil(u64::from(PPM));
    MIN_TARGET.saturating_add(u32::try_from(above).unwrap_or(PPM)).min(PPM)
}

/// Whether a fall (a conviction at block `since`) changes who must verify the inferences of `epoch`. Who falls when its claims are
/// open changes nobody's duties any more: what a claim asks for does not depend on when one claims.
pub fn fall_counts(epoch: EpochIndex, since: BlockNumber, current: &EpochState) -> bool {
    current.index <= epoch || since < clock::claims_open(current)
}

/// Whether a host that coverage names leaves its turn to the next one: it had fallen when the window closed, or fell afterwards
/// without having looked.
pub fn passes_on(
    fell_at: Option<BlockNumber>,
    closed_at: BlockNumber,
    has_looked: impl FnOnce() -> bool,
) -> bool {
    fell_at.is_some_and(|since| since < closed_at || !has_looked())
}

/// Whether the host with this duty secret must verify the request:
/// `H(secret, request) < target x w / (W - w_executor)`, on 56 bits of the hash.
///
/// `weight`, `total` and `executor_weight` are of the request's profile in its epoch. The caller has made sure that the
/// host is not the executor.
pub fn is_duty(
    secret: &H256,
    request_id: &RequestId,
    target: Ppm,
    weight: Work,
    total: Work,
    executor_weight: Work,
) -> bool {
    const BITS: u32 = 56;
    let others = u128::from(total.saturating_sub(executor_weight));
    // 2^20 (ppm) x 2^48 (work) x 2^56 fits u128.
    let numerator =
        (u128::from(target.min(PPM)).saturating_mul(weight.min(MAX_WORK).into())).saturating_mul(1 << BITS);
    let Some(threshold) = numerator.checked_div(others.saturating_mul(PPM.into())) else { return false };
    let hash = hash_of(b"starling/duty", &(secret, request_id));
    let draw = hash.as_bytes().iter().take(7).fold(0u128, |value, &byte| (value << 8) | u128::from(byte));
    draw < threshold
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(n: u64) -> H256 {
        hash_of(b"test", &n)
    }

    #[test]
    fn target_falls_from_all_to_one_percent() {
        assert_eq!(target(0), PPM);
        assert_eq!(target(PPM), MIN_TARGET);
        assert_eq!(target(PPM / 2), 505_000);
    }

    #[test]
    fn at_zero_reputation_about_one_verdict_per_request() {
        let weights = [10u64, 20, 30, 40];
        let total = weights.iter().sum();
        let requests = 4_000;
        let mut verdicts = 0;
        for request in 0..requests {
            for (verifier, &weight) in weights.iter().enumerate().skip(1) {
                verdicts += u32::from(is_duty(
                    &hash(verifier as u64),
                    &hash(1_000 + request),
                    PPM,
                    weight,
                    total,
                    weights[0],
                ));
            }
        }
        // Mean 1 per request; five standard deviations of the sum are below 260.
        assert!(verdicts.abs_diff(requests as u32) < 260, "{verdicts}");
    }

    #[test]
    fn the_only_other_host_verifies_everything_at_zero_reputation() {
        assert!((0..100).all(|n| is_duty(&hash(1), &hash(n), PPM, 7, 10, 3)));
    }

    #[test]
    fn nobody_else_means_no_duty() {
        assert!(!is_duty(&hash(1), &hash(2), PPM, 0, 10, 10));
    }

    proptest! {
        #[test]
        fn target_is_monotone_and_bounded(a in 0..=PPM, b in 0..=PPM) {
            prop_assert!(target(a.min(b)) >= target(a.max(b)));
            prop_assert!((MIN_TARGET..=PPM).contains(&target(a)));
        }

        #[test]
        fn a_higher_target_only_adds_duties(n: u64, low in 0..=PPM, high in 0..=PPM, weight in 1..MAX_WORK, others in 0..MAX_WORK) {
            let total = weight + others;
            let (low, high) = (low.min(high), low.max(high));
            if is_duty(&hash(0), &hash(n), low, weight, total, 0) {
                prop_assert!(is_duty(&hash(0), &hash(n), high, weight, total, 0));
            }
        }
    }
}
