//! From logits to log-probabilities, as far as they are of interest.

use crate::kernel::Vector;

/// Logits looked at together: a block whose largest is not large enough is passed over.
const BLOCK: usize = 64;

/// Log-probabilities of one position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The most probable tokens, the best first; at equal probability the lower token id.
    pub top: Vec<(u32, f32)>,
    /// Of the tokens that were asked for, in that order.
    pub asked: Vec<f32>,
}

impl Distribution {
    /// Over the whole of `logits`: the best `k`, and those of the tokens asked for (which must be among the logits;
    /// others count as the last token). `None` when the logits are no numbers.
    pub fn new(vector: Vector, logits: &[f32], k: usize, asked: impl Iterator<Item = u32>) -> Option<Self> {
        let total = vector.log_sum_exp(logits);
        if !total.is_finite() {
            return None;
        }
        let mut top = best(vector, logits, k);
        for (_, logit) in &mut top {
            *logit -= total;
        }
        let last = logits.len().saturating_sub(1);
        let log_prob = |token: u32| logits.get((token as usize).min(last)).map_or(f32::NAN, |l| l - total);
        Some(Self { top, asked: asked.map(log_prob).collect() })
    }
}

/// The largest `k`, the largest first, at equal size the earlier first.
fn best(vector: Vector, logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    // Sorted; an insertion moves at most `k` pairs, and becomes rare soon.
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(k + 1);
    let mut bar = f32::NEG_INFINITY;
    for (block, first) in logits.chunks(BLOCK).zip((0u32..).step_by(BLOCK)) {
        if top.len() == k && vector.max_of(block) <= bar {
            continue;
        }
        for (logit, token) in block.iter().zip(first..) {
            if top.len() == k && *logit <= bar {
                continue;
            }
            let place = top.partition_point(|(_, other)| other >= logit);
            top.insert(place, (token, *logit));
            top.truncate(k);
            bar = top.last().map_or(bar, |(_, logit)| *logit);
        }
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Isa;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_found_and_add_up(
            logits in proptest::collection::vec((-40i8..40).prop_map(|x| f32::from(x) / 4.0), 1..400),
            k in 1usize..25,
        ) {
            let vector = Vector::new(Isa::detect());
            let found = Distribution::new(vector, &logits, k, 0..logits.len() as u32).unwrap();
            let mut expected: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            expected.truncate(k);
            let tokens = |list: &[(u32, f32)]| list.iter().map(|(token, _)| *token).collect::<Vec<_>>();
            prop_assert_eq!(tokens(&found.top), tokens(&expected));
            for (token, log_prob) in &found.top {
                prop_assert_eq!(*log_prob, found.asked[*token as usize]);
            }
            let sum: f64 = found.asked.iter().map(|l| f64::from(*l).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "{}", sum);
        }
    }

    #[test]
    fn what_is_no_number_is_no_distribution() {
        let vector = Vector::new(Isa::detect());
        assert_eq!(Distribution::new(vector, &[0.0, f32::NAN], 1, 0..0), None);
        assert_eq!(Distribution::new(vector, &[f32::NEG_INFINITY; 3], 1, 0..0), None);
        assert_eq!(Distribution::new(vector, &[], 1, 0..0), None);
    }
}
