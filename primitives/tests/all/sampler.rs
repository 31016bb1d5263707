//! The integer sampler: its laws, a slow reference, and its statistics.

use crate::common::{any_candidates, any_params, sorted, PLAIN};
use proptest::prelude::*;
use rand_chacha::{
    rand_core::{RngCore, SeedableRng},
    ChaCha8Rng,
};
use starling_primitives::{
    request::SamplingParams,
    sampler::{kept, sample, score, tempered_weight, SCORE_UNIT},
    tape::gumbel_of_bits,
    transcript::Candidate,
    H256,
};

/// Word for word what the protocol says, with no regard for speed; noise from the published generator.
fn reference(seed: &H256, position: u32, candidates: &[Candidate], params: &SamplingParams) -> Option<usize> {
    let best = candidates.iter().min_by_key(|candidate| (candidate.q, candidate.token))?;
    if params.temperature_milli == 0 {
        return candidates.iter().position(|candidate| candidate == best);
    }
    let mut left: Vec<&Candidate> = candidates.iter().collect();
    left.sort_by_key(|candidate| (candidate.q, candidate.token));
    if params.top_k > 0 {
        left.truncate(params.top_k.into());
    }
    let weight =
        |candidate: &Candidate| u128::from(tempered_weight(candidate.q - best.q, params.temperature_milli));
    let total: u128 = left.iter().map(|candidate| weight(candidate)).sum();
    if params.top_p < 10_000 {
        let mut mass = 0;
        let mut nucleus = Vec::new();
        for candidate in left {
            nucleus.push(candidate);
            mass += weight(candidate);
            if mass * 10_000 >= total * u128::from(params.top_p) {
                break;
            }
        }
        left = nucleus;
    }
    left.retain(|candidate| {
        *candidate == best || weight(candidate) * 10_000 >= weight(best) * u128::from(params.min_p)
    });
    let noisy = |candidate: &Candidate| {
        let mut rng = ChaCha8Rng::from_seed(seed.0);
        rng.set_stream(position.into());
        rng.set_word_pos(16 * u128::from(candidate.token));
        let noise = i128::from(gumbel_of_bits(rng.next_u64()));
        i128::from(params.temperature_milli) * noise - i128::from(candidate.q) * 1_000 * (65_536 / 128)
    };
    let winner =
        left.into_iter().max_by_key(|candidate| (noisy(candidate), std::cmp::Reverse(candidate.token)))?;
    candidates.iter().position(|candidate| candidate == winner)
}

fn frequencies(candidates: &[Candidate], params: &SamplingParams, draws: u32, seed: u8) -> Vec<u32> {
    let mut counts = vec![0; candidates.len()];
    for position in 0..draws {
        let chosen = sample(&H256::repeat_byte(seed), position, candidates, params).expect("valid");
        counts[chosen] += 1;
    }
    counts
}

/// Chi-square of the counts against the softmax of `-q / (128 T)` over the first `kept` candidates.
fn chi_square(candidates: &[Candidate], params: &SamplingParams, counts: &[u32], kept: usize) -> f64 {
    let temperature = f64::from(params.temperature_milli) / 1_000.0;
    let weights: Vec<f64> =
        candidates[..kept].iter().map(|c| (-f64::from(c.q) / 128.0 / temperature).exp()).collect();
    let (total, draws) = (weights.iter().sum::<f64>(), f64::from(counts.iter().sum::<u32>()));
    let of = |(weight, count): (&f64, &u32)| {
        let expected = draws * weight / total;
        assert!(expected > 5.0, "too few draws for chi-square");
        (f64::from(*count) - expected).powi(2) / expected
    };
    weights.iter().zip(counts).map(of).sum()
}

#[test]
fn frequencies_follow_the_tempered_softmax() {
    // 99.99 % quantiles of chi-square with 19 and 4 degrees of freedom. The seeds are fixed, so nothing is flaky.
    let (limit_19, limit_4) = (53.0, 23.6);
    let tail = sorted((0..20u32).map(|i| (i * 7_919 % 151_936, (60.0 + 30.0 * f64::from(i)) as u16)));
    for (seed, temperature_milli) in [(1, 500), (2, 700), (3, 1_000), (4, 1_500), (5, 2_000)] {
        let params = SamplingParams { temperature_milli, ..PLAIN };
        let counts = frequencies(&tail, &params, 400_000, seed);
        let chi = chi_square(&tail, &params, &counts, 20);
        println!("temperature {temperature_milli}: chi-square {chi:.1}, 19 degrees of freedom");
        assert!(chi < limit_19, "temperature {temperature_milli}: {chi}, {counts:?}");
        let params = SamplingParams { top_k: 5, ..params };
        let counts = frequencies(&tail, &params, 100_000, seed + 100);
        assert!(counts[5..].iter().all(|count| *count == 0));
        let chi = chi_square(&tail, &params, &counts[..5], 5);
        assert!(chi < limit_4, "temperature {temperature_milli}, top 5: {chi}, {counts:?}");
    }
}

#[test]
fn a_chi_square_of_another_temperature_is_caught() {
    let tail = sorted((0..20u32).map(|i| (i, 60 + 30 * i as u16)));
    let counts = frequencies(&tail, &SamplingParams { temperature_milli: 950, ..PLAIN }, 400_000, 9);
    assert!(chi_square(&tail, &PLAIN, &counts, 20) > 500.0);
}

#[test]
fn noise_of_a_token_does_not_depend_on_its_neighbours() {
    let all = sorted((0..20).map(|i| (i, 10 * i as u16)));
    let seed = H256::repeat_byte(4);
    for position in 0..1_000 {
        let chosen = sample(&seed, position, &all, &PLAIN).expect("valid");
        let mut fewer = all.clone();
        let removed = fewer.remove((chosen + 1) % 20);
        let again = sample(&seed, position, &fewer, &PLAIN).expect("valid");
        assert_eq!(fewer[again], all[chosen], "without {removed:?}");
    }
}

#[test]
fn candidates_out_of_order_or_number_are_refused() {
    let candidate = |token, q| Candidate { token, q };
    assert_eq!(sample(&H256::zero(), 0, &[], &PLAIN), None);
    assert_eq!(sample(&H256::zero(), 0, &[candidate(1, 2), candidate(2, 1)], &PLAIN), None);
    assert_eq!(sample(&H256::zero(), 0, &[candidate(2, 1), candidate(1, 1)], &PLAIN), None);
    assert_eq!(sample(&H256::zero(), 0, &[candidate(1, 1), candidate(1, 1)], &PLAIN), None);
    let many = sorted((0..21).map(|token| (token, 5)));
    assert_eq!(sample(&H256::zero(), 0, &many, &PLAIN), None);
    assert_eq!(sample(&H256::zero(), 0, &[candidate(1, 65_535)], &PLAIN), Some(0));
}

#[test]
fn ties_go_to_the_lower_id() {
    // With temperature 0 equal q compete; the list is sorted, so the first has the lower id.
    let equal = sorted([(9, 50), (4, 50), (7, 50)]);
    assert_eq!(sample(&H256::zero(), 3, &equal, &SamplingParams::GREEDY), Some(0));
    assert_eq!(equal[0].token, 4);
}

#[test]
fn score_is_the_documented_sum() {
    let candidate = Candidate { token: 5, q: 128 };
    assert_eq!(score(&H256::zero(), 0, &candidate, &SamplingParams::GREEDY), -SCORE_UNIT);
    let noise = starling_primitives::tape::gumbel(&H256::zero(), 8, 5);
    let params = SamplingParams { temperature_milli: 2_000, ..PLAIN };
    assert_eq!(score(&H256::zero(), 8, &candidate, &params), 2_000 * noise - SCORE_UNIT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn equals_the_reference(seed: [u8; 32], position: u32, candidates in any_candidates(), params in any_params()) {
        let seed = H256(seed);
        let chosen = sample(&seed, position, &candidates, &params);
        prop_assert_eq!(chosen, reference(&seed, position, &candidates, &params));
        // A pure function: the same again.
        prop_assert_eq!(chosen, sample(&seed, position, &candidates, &params));
    }

    #[test]
    fn the_chosen_one_is_kept_and_has_the_highest_score(
        seed: [u8; 32], position: u32, candidates in any_candidates(), params in any_params(),
    ) {
        let seed = H256(seed);
        let chosen = sample(&seed, position, &candidates, &params).expect("valid");
        let kept = kept(&candidates, &params).expect("valid");
        prop_assert!(chosen < kept && kept <= candidates.len());
        let best = score(&seed, position, &candidates[chosen], &params);
        for candidate in &candidates[..kept] {
            prop_assert!(score(&seed, position, candidate, &params) <= best);
        }
        if params.temperature_milli == 0 {
            prop_assert_eq!(chosen, 0);
        }
    }

    #[test]
    fn filters_keep_what_they_should(candidates in any_candidates(), params in any_params()) {
        let kept_with = |params: SamplingParams| kept(&candidates, &params).expect("valid");
        let now = kept_with(params);
        prop_assert!((1..=candidates.len()).contains(&now));
        if params.top_k > 0 {
            prop_assert!(now <= usize::from(params.top_k));
        }
        // Wider filters keep no fewer.
        let wider = [
            SamplingParams { top_p: 10_000, ..params },
            SamplingParams { top_p: params.top_p.saturating_add(500).min(10_000), ..params },
            SamplingParams { min_p: params.min_p / 2, ..params },
        ];
        for wider in wider {
            prop_assert!(kept_with(wider) >= now, "{:?} keeps fewer", wider);
        }
        // No filter keeps all.
        let off = SamplingParams { top_p: 10_000, min_p: 0, top_k: 0, ..params };
        prop_assert_eq!(kept_with(off), candidates.len());
        if params.temperature_milli == 0 {
            return Ok(());
        }
        let weights: Vec<u64> = candidates
            .iter()
            .map(|candidate| tempered_weight(candidate.q - candidates[0].q, params.temperature_milli))
            .collect();
        prop_assert!(weights.windows(2).all(|pair| pair[0] >= pair[1]));
        // top_p alone: enough mass, and not without the last one.
        let nucleus = kept_with(SamplingParams { top_p: params.top_p, ..off });
        let total = u128::from(weights.iter().sum::<u64>()) * u128::from(params.top_p);
        let mass = |n: usize| u128::from(weights[..n].iter().sum::<u64>()) * 10_000;
        prop_assert!(mass(nucleus) >= total);
        if params.top_p < 10_000 && nucleus > 1 {
            prop_assert!(mass(nucleus - 1) < total);
        }
        // min_p alone: exactly those that are large enough.
        let relative = kept_with(SamplingParams { min_p: params.min_p, ..off });
        let large = weights.iter().filter(|w| **w * 10_000 >= weights[0] * u64::from(params.min_p)).count();
        prop_assert_eq!(relative, large.max(1));
    }

    #[test]
    fn tempered_weights_are_exponentials(difference in 0u16..=4_095, temperature in 1u16..=2_000) {
        let exact = (-f64::from(difference) * 1_000.0 / 128.0 / f64::from(temperature)).exp();
        let weight = tempered_weight(difference, temperature) as f64 / 2f64.powi(32);
        // The exponent is cut at 1/2^16 nat.
        prop_assert!((weight - exact).abs() <= exact * 2e-5 + 1e-9, "{} {}", weight, exact);
    }

    #[test]
    fn any_input_is_survived(
        seed: [u8; 32], position: u32,
        candidates in prop::collection::vec((any::<u32>(), any::<u16>()), 0..30),
        temperature_milli: u16, top_p: u16, min_p: u16, top_k: u8,
    ) {
        let params = SamplingParams { temperature_milli, top_p, min_p, top_k, ..PLAIN };
        let listed: Vec<_> = candidates.iter().map(|&(token, q)| Candidate { token, q }).collect();
        let _ = sample(&H256(seed), position, &listed, &params);
        let listed = sorted(candidates);
        let chosen = sample(&H256(seed), position, &listed, &params);
        prop_assert_eq!(chosen.is_some(), (1..=20).contains(&listed.len()));
    }
}
