//! From log-probabilities to the integers that are committed to. The only place where floats become protocol data.

use starling_primitives::transcript::{Candidate, MAX_Q, MAX_TAIL_Q, Q_UNIT};

/// `min(MAX_Q, round(-Q_UNIT ln p))`; what is not a number counts as least probable.
pub fn quantise(log_prob: f32) -> u16 {
    let q = (-f32::from(Q_UNIT) * log_prob).round();
    if q.is_nan() {
        return MAX_Q;
    }
    // `as` saturates, and -0.0 becomes 0.
    (q as u16).min(MAX_Q)
}

/// The candidates of a token record, from the most probable tokens of the whole vocabulary: quantised, in canonical
/// order, without those below 2^-16 (the best always stays).
pub fn candidates(top: impl IntoIterator<Item = (u32, f32)>) -> Vec<Candidate> {
    let mut all: Vec<_> =
        top.into_iter().map(|(token, log_prob)| Candidate { token, q: quantise(log_prob) }).collect();
    all.sort_unstable_by_key(|c| (c.q, c.token));
    let kept = all.iter().take_while(|c| c.q <= MAX_TAIL_Q).count().max(1);
    all.truncate(kept);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_primitives::transcript::TokenRecord;

    #[test]
    fn quantisation_rounds_and_saturates() {
        for (log_prob, q) in [
            (0.0, 0),
            (-0.0, 0),
            (1e-7, 0),
            (-1.0 / 128.0, 1),
            (-0.49 / 128.0, 0),
            (-0.51 / 128.0, 1),
            (-10.0, 1_280),
            (-31.99, 4_095),
            (-1e9, 4_095),
            (f32::NEG_INFINITY, 4_095),
            (f32::NAN, 4_095),
        ] {
            assert_eq!(quantise(log_prob), q, "{log_prob}");
        }
    }

    #[test]
    fn ties_go_by_token_and_the_tail_is_cut() {
        let found = candidates([(9, -0.7), (3, -0.7), (5, -12.0), (6, -0.1)]);
        let expected = [(6, 13), (3, 90), (9, 90)].map(|(token, q)| Candidate { token, q });
        assert_eq!(found, expected);
        // A best candidate below 2^-16 stays, alone.
        assert_eq!(candidates([(1, -20.0), (2, -20.0)]), [Candidate { token: 1, q: 2_560 }]);
    }

    proptest! {
        #[test]
        fn records_are_valid(log_probs in proptest::collection::vec(-40f32..0.0, 1..=20)) {
            let found = candidates((0u32..).zip(log_probs));
            prop_assert_eq!(TokenRecord { candidates: found, chosen: 0 }.check(20), Ok(()));
        }
    }
}
