//! A language model that costs nothing: what it would say at each position follows from the request alone.
//!
//! Everything around it is real: candidates are quantised and sampled by the protocol's integers, transcripts are built,
//! hashed, opened and replayed by `starling-primitives`, and the figures of a verdict are computed as the ML node does
//! (`mlnode/src/measure.rs`), from the log-probabilities of both sides. Only the log-probabilities are invented: eight
//! candidates a position, with gaps between the logits that are exponential with a log-normal scale, which gives the
//! mixture of certain and open positions that trained models show.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp1, LogNormal, Normal};
use starling_primitives::{
    request::SamplingParams,
    sampler::{sample_on, score_on, SCORE_UNIT},
    tape::Tape,
    transcript::{Candidate, TokenRecord, MAX_Q, MAX_TAIL_Q, Q_UNIT},
    verdict::{Figures, DISTANCE_CLIP, FIGURE_UNIT, MARGIN_CLIP},
    H256,
};

/// Candidates of a position, and of either side that the distance looks at.
const CANDIDATES: u32 = 8;
/// Median of the mean gap between neighbouring logits, in nats, and the spread of its logarithm.
const GAP: f64 = 1.2;
const GAP_SPREAD: f64 = 0.7;
/// The median of a normal distribution's absolute value, in standard deviations.
const MEDIAN_OF_NORMAL: f64 = 0.674_49;
/// Median of what batch, cache and thread count move a log-probability by within one numerics class, in nats.
pub const ROUNDING: f64 = 3e-6;

/// Sampling of all requests: temperature 1 without filters.
pub const SAMPLING: SamplingParams = SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };

/// Log-probabilities by token, the best first.
#[derive(Clone, Debug)]
pub struct Distribution(Vec<(u32, f64)>);

impl Distribution {
    /// What the true model says at a position of a request.
    pub fn at(request: &H256, position: u32) -> Self {
        let mut rng = ChaCha8Rng::from_seed(request.0);
        rng.set_stream(position.into());
        let scale = LogNormal::new(GAP.ln(), GAP_SPREAD).expect("a finite spread").sample(&mut rng);
        let first: u32 = rng.random_range(0..2_000);
        let mut logit = 0.0;
        let mut logits = Vec::new();
        for rank in 0..CANDIDATES {
            logits.push((first + 251 * rank, logit));
            let gap: f64 = Exp1.sample(&mut rng);
            logit -= scale * gap;
        }
        Self::of_logits(logits)
    }

    /// The same model with every logit moved by a normal error whose absolute value has this median, in nats.
    pub fn moved(&self, median: f64, rng: &mut ChaCha8Rng) -> Self {
        let error = Normal::new(0.0, median / MEDIAN_OF_NORMAL).expect("a finite deviation");
        Self::of_logits(self.0.iter().map(|(token, logit)| (*token, logit + error.sample(rng))).collect())
    }

    fn of_logits(mut logits: Vec<(u32, f64)>) -> Self {
        let total = logits.iter().map(|(_, logit)| logit.exp()).sum::<f64>().ln();
        logits.iter_mut().for_each(|(_, logit)| *logit -= total);
        logits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        Self(logits)
    }

    fn log_prob(&self, token: u32) -> f64 {
        let known = self.0.iter().find(|(known, _)| *known == token);
        known.map_or(log_prob(MAX_Q), |(_, log_prob)| *log_prob)
    }

    /// The candidates as they are committed.
    pub fn candidates(&self) -> Vec<Candidate> {
        let quantised =
            self.0.iter().map(|(token, log_prob)| Candidate { token: *token, q: quantise(*log_prob) });
        let mut candidates: Vec<_> = quantised
            .enumerate()
            .filter(|(rank, c)| *rank == 0 || c.q <= MAX_TAIL_Q)
            .map(|(_, c)| c)
            .collect();
        candidates.sort_unstable_by_key(|candidate| (candidate.q, candidate.token));
        candidates
    }

    /// The record that the tape makes of these candidates.
    pub fn record(&self, tape: &Tape, position: u32) -> TokenRecord {
        let candidates = self.candidates();
        let chosen = sample_on(tape, position, &candidates, &SAMPLING).expect("sorted, and not empty");
        TokenRecord { candidates, chosen: chosen as u8 }
    }
}

/// What a verifier with the true model finds over all records.
pub fn measure(request: &H256, tape: &Tape, records: &[TokenRecord]) -> Figures {
    let mut figures = Figures { tokens: records.len() as u32, ..Figures::default() };
    for (position, record) in (0..).zip(records) {
        let own = Distribution::at(request, position);
        figures.distance_sum += u64::from(distance(record, &own));
        figures.margin_sum += u64::from(margin(record, &own, tape, position));
    }
    figures
}

/// Mean difference of log-probabilities over the union of both lists, weighted by the mean of both probabilities.
fn distance(record: &TokenRecord, own: &Distribution) -> u32 {
    let clip = f64::from(DISTANCE_CLIP / FIGURE_UNIT);
    let (mut sum, mut weights) = (0.0, 0.0);
    let mut add = |theirs: f64, ours: f64| {
        let weight = (theirs.exp() + ours.exp()) / 2.0;
        sum += weight * (theirs - ours).abs().min(clip);
        weights += weight;
    };
    for candidate in &record.candidates {
        add(log_prob(candidate.q), own.log_prob(candidate.token));
    }
    for (token, ours) in &own.0 {
        if record.candidates.iter().all(|candidate| candidate.token != *token) {
            // Lists are never full here: a token that is missing has at most 2^-16.
            add(log_prob(MAX_TAIL_Q).min(*ours), *ours);
        }
    }
    ((sum / weights * f64::from(FIGURE_UNIT)).round() as u32).min(DISTANCE_CLIP)
}

/// By how much the chosen token's score stays behind the best of the own candidates.
fn margin(record: &TokenRecord, own: &Distribution, tape: &Tape, position: u32) -> u32 {
    let Some(chosen) = record.chosen() else { return MARGIN_CLIP };
    let score = |candidate: &Candidate| score_on(tape, position, candidate, &SAMPLING);
    let best = own.candidates().iter().map(score).max().unwrap_or_default();
    let chosen = score(&Candidate { token: chosen.token, q: quantise(own.log_prob(chosen.token)) });
    let units = best.saturating_sub(chosen).max(0).saturating_mul(FIGURE_UNIT.into()) / SCORE_UNIT;
    u32::try_from(units).unwrap_or(MARGIN_CLIP).min(MARGIN_CLIP)
}

fn quantise(log_prob: f64) -> u16 {
    ((-log_prob * f64::from(Q_UNIT)).round() as u16).min(MAX_Q)
}

fn log_prob(q: u16) -> f64 {
    -f64::from(q) / f64::from(Q_UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(median: f64) -> Figures {
        let (request, tape) = (H256::repeat_byte(5), Tape::new(&H256::repeat_byte(6)));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let records: Vec<_> = (0..512)
            .map(|position| {
                Distribution::at(&request, position).moved(median, &mut rng).record(&tape, position)
            })
            .collect();
        measure(&request, &tape, &records)
    }

    #[test]
    fn records_are_valid() {
        let tape = Tape::new(&H256::zero());
        for position in 0..200 {
            let record = Distribution::at(&H256::repeat_byte(1), position).record(&tape, position);
            assert_eq!(record.check(20), Ok(()));
        }
    }

    #[test]
    fn within_a_class_only_the_quantisation_is_seen() {
        let honest = figures(ROUNDING);
        let mean = honest.distance_sum / u64::from(honest.tokens);
        assert!((1..=3).contains(&mean), "{honest:?}");
        assert!(honest.margin_sum < u64::from(honest.tokens), "{honest:?}");
    }

    #[test]
    fn figures_grow_with_the_error() {
        let found = [ROUNDING, 2.1e-2, 9e-2, 0.29, 1.7].map(figures);
        assert!(found.windows(2).all(|pair| pair[0].distance_sum < pair[1].distance_sum), "{found:?}");
        assert!(found[4].margin_sum > 20 * u64::from(found[4].tokens), "{found:?}");
    }
}
