//! The integer sampler: which candidate a tape picks. Bit-exact everywhere.
//!
//! Gumbel-max: the candidate with the highest `temperature x noise - (-ln p)` among those that the filters leave is
//! a sample of the tempered distribution. Every step is integer arithmetic on committed data, so anyone can repeat it.
//!
//! The filters work on tempered weights `w_i = exp(-(q_i - q_0) / (128 T))` in 1/2^32, relative to the best candidate,
//! and since candidates are sorted each filter keeps a prefix:
//! 1. `top_k`: the first `top_k` candidates (all, when 0);
//! 2. `top_p`: the shortest prefix whose weight is at least `top_p / 10000` of what (1) left;
//! 3. `min_p`: those with `w_i >= min_p / 10000 x w_0`.
//!
//! The best candidate always stays. Temperature 0 takes it, whatever the filters.

use crate::{
    fixed::exp_neg,
    profile::MAX_K,
    request::SamplingParams,
    tape::{Tape, GUMBEL_BITS},
    transcript::{Candidate, Q_UNIT},
    H256,
};
use core::cmp::Reverse;

/// Units of a score per nat: the noise's 2^16 times the temperature's 1000.
pub const SCORE_UNIT: i64 = 1_000 << GUMBEL_BITS;
/// Units of a score per unit of `q`.
const SCORE_PER_Q: i64 = SCORE_UNIT / Q_UNIT as i64;

/// What Gumbel-max maximises, in 1/[`SCORE_UNIT`] nat: `temperature x noise - q / 128`. With temperature 0 this is `-q`
/// scaled. Margins are differences of scores at the same position.
pub fn score(tape_seed: &H256, position: u32, candidate: &Candidate, params: &SamplingParams) -> i64 {
    score_on(&Tape::new(tape_seed), position, candidate, params)
}

/// [`score`] on a tape whose key is already unpacked.
pub fn score_on(tape: &Tape, position: u32, candidate: &Candidate, params: &SamplingParams) -> i64 {
    let logit = -SCORE_PER_Q * i64::from(candidate.q);
    if params.temperature_milli == 0 {
        return logit;
    }
    logit + i64::from(params.temperature_milli) * tape.gumbel(position, candidate.token)
}

/// Index of the candidate that the tape picks, or `None` unless the candidates are 1..=[`MAX_K`] and strictly
/// ascending by (q, token).
pub fn sample(
    tape_seed: &H256,
    position: u32,
    candidates: &[Candidate],
    params: &SamplingParams,
) -> Option<usize> {
    sample_on(&Tape::new(tape_seed), position, candidates, params)
}

/// [`sample`] on a tape whose key is already unpacked.
pub fn sample_on(
    tape: &Tape,
    position: u32,
    candidates: &[Candidate],
    params: &SamplingParams,
) -> Option<usize> {
    let sorted = candidates.windows(2).all(|pair| matches!(pair, [a, b] if (a.q, a.token) < (b.q, b.token)));
    if !sorted {
        return None;
    }
    let kept = kept(candidates, params)?;
    if params.temperature_milli == 0 {
        return Some(0);
    }
    let ranked = candidates.iter().take(kept).enumerate().map(|(index, candidate)| {
        // At equal scores the lower token id wins.
        (score_on(tape, position, candidate, params), Reverse(candidate.token), index)
    });
    ranked.max().map(|(_, _, index)| index)
}

/// How many of the sorted candidates the filters keep, counted from the best: at least 1. `None` unless there are
/// 1..=[`MAX_K`] candidates.
pub fn kept(candidates: &[Candidate], params: &SamplingParams) -> Option<usize> {
    let best = candidates.first()?;
    if candidates.len() > usize::from(MAX_K) {
        return None;
    }
    let mut kept = candidates.len();
    if params.top_k > 0 {
        kept = kept.min(usize::from(params.top_k));
    }
    let filters_mass = params.top_p < 10_000 || params.min_p > 0;
    if params.temperature_milli == 0 || !filters_mass {
        return Some(kept);
    }
    let mut weights = [0u64; MAX_K as usize];
    for (weight, candidate) in weights.iter_mut().zip(candidates).take(kept) {
        *weight = tempered_weight(candidate.q.saturating_sub(best.q), params.temperature_milli);
    }
    // At most 20 weights of at most 2^32, times 10,000: far below 2^64.
    let total: u64 = weights.iter().sum();
    let mut before: u64 = 0;
    let mut prefix = 0;
    for weight in weights.iter().take(kept) {
        let mass_reached = params.top_p < 10_000 && before * 10_000 >= total * u64::from(params.top_p);
        let too_small = weight * 10_000 < u64::from(params.min_p) << crate::fixed::EXP_BITS;
        if prefix > 0 && (mass_reached || too_small) {
            break;
        }
        before += weight;
        prefix += 1;
    }
    Some(prefix)
}

/// Weight of a candidate relative to one whose q is smaller by `difference`, at a temperature above 0:
/// `exp(-difference / (128 T))` in 1/2^32.
pub fn tempered_weight(difference: u16, temperature_milli: u16) -> u64 {
    // In 1/2^16 nat; 65535 x 512,000 fits, and the division only shrinks it.
    let units_per_q = (1u64 << GUMBEL_BITS) / Q_UNIT as u64;
    let scaled = u64::from(difference) * units_per_q * 1_000 / u64::from(temperature_milli.max(1));
    exp_neg(u32::try_from(scaled).unwrap_or(u32::MAX))
}
