//! How far a committed token is from what this node's own pass says: the tolerant checks of a verifier.
//!
//! - *Distance*: over the union of the committed and the own eight best tokens, the mean of the difference of
//!   log-probabilities (clipped at 2 nats), weighted by the mean of both probabilities. A token that was not committed
//!   counts as having at most the probability of the last candidate (or 2^-16 when the list is not full), so it adds
//!   to the distance only if the own pass finds it more probable than that.
//! - *Margin*: by how much the chosen token's tempered score, with its noise from the tape, stays behind the best score
//!   of the own candidates that the filters leave (clipped at 4 nats).
//!
//! Both are 0 up to rounding for an honest transcript of the same numerics. Units: 1/1024 nat.

use crate::candidates::{candidates, quantise};
use starling_primitives::{
    request::SamplingParams,
    sampler::{kept, score_on, SCORE_UNIT},
    tape::Tape,
    transcript::{Candidate, TokenRecord, MAX_TAIL_Q, Q_UNIT},
    verdict::{DISTANCE_CLIP, FIGURE_UNIT, MARGIN_CLIP},
};

/// Best tokens of either side that the distance looks at.
pub const DISTANCE_TOP: usize = 8;

/// What the own pass says about one position.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The most probable tokens with their log-probabilities, the best first; K of them.
    pub top: &'a [(u32, f32)],
    /// Log-probabilities of the committed candidates, in their order.
    pub committed: &'a [f32],
}

/// The distance of one record.
pub fn distance(record: &TokenRecord, own: &Own<'_>, top_k: u8) -> u32 {
    let clip = f64::from(DISTANCE_CLIP / FIGURE_UNIT);
    let (mut sum, mut weights) = (0.0, 0.0);
    let mut add = |theirs: f64, ours: f64| {
        let weight = (theirs.exp() + ours.exp()) / 2.0;
        sum += weight * (theirs - ours).abs().min(clip);
        weights += weight;
    };
    let first = record.candidates.get(..DISTANCE_TOP).unwrap_or(&record.candidates);
    for (candidate, ours) in first.iter().zip(own.committed) {
        add(log_prob(candidate.q), f64::from(*ours));
    }
    let full = record.candidates.len() >= usize::from(top_k);
    let last_q = record.candidates.last().filter(|_| full).map_or(MAX_TAIL_Q, |last| last.q);
    for (token, ours) in own.top.iter().take(DISTANCE_TOP) {
        if first.iter().any(|c| c.token == *token) {
            continue;
        }
        let ours = f64::from(*ours);
        let listed = record.candidates.iter().find(|c| c.token == *token);
        add(listed.map_or(log_prob(last_q).min(ours), |c| log_prob(c.q)), ours);
    }
    if weights <= 0.0 {
        return 0;
    }
    in_units(sum / weights).min(DISTANCE_CLIP)
}

/// The margin of one record at `position` of the completion.
pub fn margin(
    record: &TokenRecord,
    own: &Own<'_>,
    tape: &Tape,
    position: u32,
    params: &SamplingParams,
) -> u32 {
    let chosen =
        record.candidates.get(usize::from(record.chosen)).zip(own.committed.get(usize::from(record.chosen)));
    let Some((chosen, ours)) = chosen else { return MARGIN_CLIP };
    let score = |candidate: &Candidate| score_on(tape, position, candidate, params);
    let own_candidates = candidates(own.top.iter().copied());
    let left = kept(&own_candidates, params).unwrap_or(1);
    let best = own_candidates.iter().take(left).map(score).max();
    let chosen = score(&Candidate { token: chosen.token, q: quantise(*ours) });
    let behind = best.unwrap_or(chosen).saturating_sub(chosen).max(0);
    let units = behind.saturating_mul(i64::from(FIGURE_UNIT)) / SCORE_UNIT;
    u32::try_from(units).unwrap_or(MARGIN_CLIP).min(MARGIN_CLIP)
}

fn log_prob(q: u16) -> f64 {
    -f64::from(q) / f64::from(Q_UNIT)
}

fn in_units(nats: f64) -> u32 {
    (nats * f64::from(FIGURE_UNIT)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        distribution::Distribution,
        kernel::{Isa, Vector},
    };
    use proptest::prelude::*;
    use starling_primitives::H256;

    const PARAMS: SamplingParams = SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };

    fn record(list: &[(u32, f32)], chosen: u8) -> TokenRecord {
        TokenRecord { candidates: candidates(list.iter().copied()), chosen }
    }

    fn ln(p: f32) -> f32 {
        p.ln()
    }

    #[test]
    fn an_honest_record_is_near() {
        let top = [(4, ln(0.6)), (7, ln(0.3)), (1, ln(0.1))];
        let own = Own { top: &top, committed: &[ln(0.6), ln(0.3), ln(0.1)] };
        assert!(distance(&record(&top, 0), &own, 3) <= 4);
        let tape = Tape::new(&H256::repeat_byte(3));
        for position in 0..50 {
            let list = candidates(top);
            let best =
                (0..3u8).max_by_key(|i| score_on(&tape, position, &list[usize::from(*i)], &PARAMS)).unwrap();
            assert_eq!(margin(&record(&top, best), &own, &tape, position, &PARAMS), 0);
        }
    }

    #[test]
    fn other_probabilities_are_far_and_clipped() {
        let theirs = [(4, ln(0.98)), (7, ln(0.01)), (1, ln(0.01))];
        let top = [(1, ln(0.98)), (7, ln(0.01)), (4, ln(0.01))];
        let own = Own { top: &top, committed: &[ln(0.01), ln(0.01), ln(0.98)] };
        let found = distance(&record(&theirs, 0), &own, 3);
        assert!(found > 1_900 && found <= DISTANCE_CLIP, "{found}");
        let greedy = margin(&record(&theirs, 0), &own, &Tape::new(&H256::zero()), 0, &SamplingParams::GREEDY);
        assert_eq!(greedy, MARGIN_CLIP);
    }

    #[test]
    fn a_missing_token_counts_only_above_what_the_list_allows() {
        let theirs = [(4, ln(0.5)), (7, ln(0.4))];
        // Not full: the third token may have had at most 2^-16.
        let top = [(4, ln(0.5)), (7, ln(0.4)), (9, ln(0.1))];
        let own = Own { top: &top, committed: &[ln(0.5), ln(0.4)] };
        assert!(distance(&record(&theirs, 0), &own, 3) > 90);
        // Full: it may have had as much as the last one.
        assert!(distance(&record(&theirs, 0), &own, 2) <= 4);
    }

    #[test]
    fn a_token_other_than_the_tapes_has_a_margin() {
        let top = [(4, ln(0.6)), (7, ln(0.4))];
        let own = Own { top: &top, committed: &[ln(0.6), ln(0.4)] };
        let tape = Tape::new(&H256::repeat_byte(9));
        let list = candidates(top);
        let worst = (0..2u8).min_by_key(|i| score_on(&tape, 0, &list[usize::from(*i)], &PARAMS)).unwrap();
        assert!(margin(&record(&top, worst), &own, &tape, 0, &PARAMS) > 0);
        assert_eq!(margin(&record(&top, 9), &own, &tape, 0, &PARAMS), MARGIN_CLIP);
    }

    proptest! {
        /// What `calibrate` builds on: whatever the prompt, rounding to 1/128 nat moves no token by more than 4 of 1024.
        #[test]
        fn rounding_alone_stays_within_half_a_step(
            logits in proptest::collection::vec(-12f32..4.0, 1..300),
            scale in 0.05f32..6.0,
        ) {
            let logits: Vec<f32> = logits.iter().map(|x| x * scale).collect();
            let vector = Vector::new(Isa::detect());
            let top = Distribution::new(vector, &logits, 20, std::iter::empty()).unwrap().top;
            let record = TokenRecord { candidates: candidates(top.iter().copied()), chosen: 0 };
            let asked = record.candidates.iter().map(|candidate| candidate.token);
            let own = Distribution::new(vector, &logits, 20, asked).unwrap();
            let own = Own { top: &own.top, committed: &own.asked };
            prop_assert!(distance(&record, &own, 20) <= FIGURE_UNIT / u32::from(Q_UNIT) / 2);
            let tape = Tape::new(&H256::zero());
            prop_assert_eq!(margin(&record, &own, &tape, 0, &SamplingParams::GREEDY), 0);
        }
    }
}
