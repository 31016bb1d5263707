//! From logits on the device to the few numbers that a transcript needs: only these are copied to the host.

use super::{
    super::{ModelError, Question},
    kernels::{Best, Kernels},
    ops::{vector, During},
};
use crate::distribution::Distribution;
use tch::{Kind, Tensor};

/// Distributions of the rows of `logits` (rows, vocabulary), f32, which the questions' changes are added to. `ready` has the best
/// of the rows as they are; it is used where the questions change nothing.
pub(super) fn distributions(
    logits: &Tensor,
    k: usize,
    questions: &[Question],
    kernels: Option<&Kernels>,
    ready: Option<&Best>,
) -> Result<Vec<Distribution>, ModelError> {
    let vocabulary = logits.size().last().copied().unwrap_or_default();
    let k = (k as i64).min(vocabulary);
    let changed = change(logits, vocabulary, questions)?;
    let made;
    let best = match ready {
        Some(ready) if !changed && ready.found.size().last().is_some_and(|have| *have >= k) => ready,
        _ => {
            made = match kernels {
                Some(kernels) => kernels.best(logits, k)?,
                None => best(logits, k)?,
            };
            &made
        }
    };
    let list = |part| {
        let list = best.found.f_select(1, part).and_then(|list| list.f_narrow(1, 0, k));
        list.during("taking the best")
    };
    let mut parts = vec![list(0)?, list(1)?];
    let asked = questions.iter().map(|question| question.asked.len()).max().unwrap_or_default();
    if asked > 0 {
        let last = vocabulary - 1;
        let padded = |question: &Question| {
            let tokens = question.asked.iter().map(move |token| i64::from(*token).min(last));
            tokens.chain(std::iter::repeat(0)).take(asked).collect::<Vec<_>>()
        };
        let all: Vec<i64> = questions.iter().flat_map(padded).collect();
        let index = vector(&all, logits.device())?.f_view([-1, asked as i64]).during("asking for tokens")?;
        let asked = logits.f_gather(1, &index, false).during("asking for tokens")?;
        let totals = best.totals.f_unsqueeze(1).during("asking for tokens")?;
        parts.push(asked.f_sub(&totals).during("asking for tokens")?);
    }
    let (k, width) = (k as usize, 2 * k as usize + asked);
    let mut found = vec![0f32; questions.len() * width];
    let count = found.len();
    Tensor::f_cat(&parts, 1).and_then(|all| all.f_copy_data(&mut found, count)).during("reading the best")?;
    questions
        .iter()
        .zip(found.chunks_exact(width))
        .map(|(question, row)| {
            let (best, rest) = row.split_at(k);
            let (tokens, asked) = rest.split_at(k);
            distribution(best, tokens, asked.get(..question.asked.len()).unwrap_or_default())
        })
        .collect()
}

/// The best by libtorch's own operations.
fn best(logits: &Tensor, k: i64) -> Result<Best, ModelError> {
    let totals = logits.f_logsumexp([-1], false).during("adding up")?;
    let (best, tokens) = logits.f_topk(k, 1, true, true).during("taking the best")?;
    let best = totals.f_unsqueeze(1).and_then(|totals| best.f_sub(&totals)).during("taking the best")?;
    // Exact: a vocabulary has at most 2^24 tokens.
    let tokens = tokens.f_to_kind(Kind::Float).during("taking the best")?;
    Ok(Best { found: Tensor::f_stack(&[best, tokens], 1).during("taking the best")?, totals })
}

/// Adds what the questions say to the logits; whether that was anything.
fn change(logits: &Tensor, vocabulary: i64, questions: &[Question]) -> Result<bool, ModelError> {
    let (mut places, mut changes) = (Vec::new(), Vec::new());
    for (row, question) in (0..).zip(questions) {
        for (token, change) in &question.changes {
            if i64::from(*token) < vocabulary {
                places.push(row * vocabulary + i64::from(*token));
                changes.push(*change);
            }
        }
    }
    if places.is_empty() {
        return Ok(false);
    }
    let (places, changes) = (vector(&places, logits.device())?, vector(&changes, logits.device())?);
    let mut flat = logits.f_view([-1]).during("changing logits")?;
    let _ = flat.f_index_add_(0, &places, &changes).during("changing logits")?;
    Ok(true)
}

fn distribution(best: &[f32], tokens: &[f32], asked: &[f32]) -> Result<Distribution, ModelError> {
    let mut top: Vec<(u32, f32)> =
        tokens.iter().map(|token| *token as u32).zip(best.iter().copied()).collect();
    // What is no number comes first.
    if !top.first().is_some_and(|(_, log_prob)| log_prob.is_finite()) {
        return Err(ModelError::NotFinite);
    }
    // Among equals libtorch takes any order.
    top.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Ok(Distribution { top, asked: asked.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Isa, Vector};
    use proptest::prelude::*;

    proptest! {
        /// As the engine's own kernels have it.
        #[test]
        fn the_same_as_on_the_host(
            (rows, vocabulary, numbers) in (1usize..4, 1usize..300).prop_flat_map(|(rows, vocabulary)| {
                (Just(rows), Just(vocabulary), proptest::collection::vec(-20f32..20.0, rows * vocabulary))
            }),
            k in 1usize..25,
            asked in proptest::collection::vec(0u32..400, 0..6),
            changes in proptest::collection::btree_map(0u32..400, -3f32..3.0, 0..6),
        ) {
            let mut numbers = numbers;
            let logits = Tensor::from_slice(&numbers).view([rows as i64, vocabulary as i64]);
            let plain = Question::default();
            let question = Question { changes: changes.iter().map(|(t, c)| (*t, *c)).collect(), asked };
            // The last row's is another one than those before it.
            let questions: Vec<_> =
                (0..rows).map(|row| if row + 1 == rows { question.clone() } else { plain.clone() }).collect();
            let found = distributions(&logits, k, &questions, None, None).unwrap();
            let last = (rows - 1) * vocabulary;
            for (token, change) in changes {
                if (token as usize) < vocabulary {
                    numbers[last + token as usize] += change;
                }
            }
            let vector = Vector::new(Isa::detect());
            for ((row, found), question) in numbers.chunks(vocabulary).zip(found).zip(questions) {
                let expected = Distribution::new(vector, row, k, question.asked.iter().copied()).unwrap();
                let pairs = expected.top.iter().zip(&found.top);
                prop_assert_eq!(found.top.len(), expected.top.len());
                for ((_, a), (_, b)) in pairs {
                    prop_assert!((a - b).abs() < 1e-4, "{} {}", a, b);
                }
                prop_assert_eq!(found.asked.len(), expected.asked.len());
                for (a, b) in expected.asked.iter().zip(&found.asked) {
                    prop_assert!((a - b).abs() < 1e-4, "{} {}", a, b);
                }
                for (token, log_prob) in &found.top {
                    let other = Distribution::new(vector, row, 1, [*token].into_iter()).unwrap();
                    prop_assert!((other.asked[0] - log_prob).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_is_no_distribution() {
        for bad in [[0.0, f32::NAN], [f32::NEG_INFINITY; 2], [f32::INFINITY, 0.0]] {
            let logits = Tensor::from_slice(&bad).view([1, 2]);
            let found = distributions(&logits, 1, &[Question::default()], None, None);
            assert!(matches!(found, Err(ModelError::NotFinite)), "{found:?}");
        }
    }
}
