//! What the source knows of a sequence that vLLM runs.

use crate::distribution::Distribution;
use starling_primitives::{transcript::TokenRecord, verdict::Figures};
use std::collections::VecDeque;
use tokio::task::AbortHandle;

/// An open sequence.
#[derive(Debug)]
pub(super) struct Remote {
    /// Tokens of prompt and completion at most.
    pub(super) capacity: u32,
    /// Tokens taken in before anything was asked for.
    pub(super) taken: Vec<u32>,
    /// What vLLM does with it; nothing until something is asked for.
    pub(super) work: Option<Work>,
    /// Why it is of no more use.
    pub(super) failed: Option<String>,
}

/// A request to vLLM; dropping it ends the request.
#[derive(Debug)]
pub(super) struct Work {
    /// Names it to the sampler.
    pub(super) key: u64,
    pub(super) kind: Kind,
    pub(super) task: AbortHandle,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Tokens are drawn.
    Writing(Writing),
    /// Committed tokens are drawn again, to see what the model says of them.
    Following(Following),
    /// Log-probabilities of a whole text were asked for: each of the tokens behind the first.
    Reading(Option<Vec<Vec<(u32, f32)>>>),
}

/// Tokens that are drawn.
///
/// vLLM asks for a row's token also while only a part of the prompt was taken in, and throws it away: so a record is final
/// only when vLLM has passed its token on, or asks for the next one.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// The final tokens.
    drawn: Vec<u32>,
    /// The record of the token behind them, as drawn last.
    staged: Option<TokenRecord>,
    /// Final records that the engine has not got.
    ready: VecDeque<TokenRecord>,
    /// Final tokens that vLLM has passed on.
    passed_on: usize,
}

impl Writing {
    /// The final token at a place.
    pub(super) fn drawn(&self, position: u32) -> Option<u32> {
        self.drawn.get(position as usize).copied()
    }

    /// Whether the token behind the final ones can be drawn: the engine must know all before it.
    pub(super) fn is_at(&self, position: u32) -> bool {
        self.ready.is_empty() && self.drawn.len() == position as usize
    }

    /// Takes the record of the token behind the final ones.
    pub(super) fn stage(&mut self, record: TokenRecord) {
        self.staged = Some(record);
    }

    /// vLLM asks for the token at this place: the one before is final.
    pub(super) fn asked_for(&mut self, position: u32) -> Result<(), String> {
        let position = position as usize;
        if position == self.drawn.len() + 1 {
            self.settle();
        }
        if position <= self.drawn.len() {
            Ok(())
        } else {
            Err("vLLM went on without asking for a token; is the sampler in all of its processes?".into())
        }
    }

    /// vLLM has passed on these tokens.
    pub(super) fn passed_on(&mut self, tokens: &[u32]) -> Result<(), String> {
        for token in tokens {
            if self.passed_on == self.drawn.len() {
                self.settle();
            }
            match self.drawn.get(self.passed_on) {
                Some(drawn) if drawn == token => self.passed_on += 1,
                Some(drawn) => {
                    return Err(format!("vLLM wrote token {token} in place of {drawn}, which was drawn"))
                }
                None => {
                    return Err("vLLM wrote a token that nobody drew; does it run with the sampler?".into())
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        let Some(record) = self.staged.take() else { return };
        let Some(chosen) = record.chosen() else { return };
        self.drawn.push(chosen.token);
        self.ready.push_back(record);
    }

    /// The next final record.
    pub(super) fn take_ready(&mut self) -> Option<TokenRecord> {
        self.ready.pop_front()
    }
}

/// Committed tokens that are drawn again.
#[derive(Debug)]
pub(super) struct Following {
    /// What was found for each.
    found: Vec<Option<Figures>>,
    /// Tokens that vLLM has passed on.
    passed_on: usize,
}

impl Following {
    /// Nothing found yet for so many tokens.
    pub(super) fn new(tokens: usize) -> Self {
        Self { found: vec![None; tokens], passed_on: 0 }
    }

    /// Takes what was found for a token; what comes last counts.
    pub(super) fn found(&mut self, position: u32, figures: Figures) {
        if let Some(place) = self.found.get_mut(position as usize) {
            *place = Some(figures);
        }
    }

    /// vLLM has passed on so many tokens more.
    pub(super) fn passed_on(&mut self, tokens: usize) {
        self.passed_on += tokens;
    }

    /// The sum, once vLLM has passed on all tokens.
    pub(super) fn sum(&self) -> Option<Result<Figures, String>> {
        if self.passed_on < self.found.len() {
            return None;
        }
        let mut sum = Figures::default();
        for figures in &self.found {
            let Some(figures) = figures else {
                return Some(
                    Err("vLLM wrote a token that nobody drew; does it run with the sampler?".into()),
                );
            };
            sum.tokens += figures.tokens;
            sum.distance_sum += figures.distance_sum;
            sum.margin_sum += figures.margin_sum;
        }
        Some(Ok(sum))
    }
}

/// What a row says, with the tokens asked for looked up in its list. One that is not listed is at most as probable as the last
/// that is: it counts as that, in favour of who committed to it.
pub(super) fn look_up(row: Vec<(u32, f32)>, asked: impl Iterator<Item = u32>) -> Distribution {
    let last = row.last().map_or(f32::NEG_INFINITY, |(_, log_prob)| *log_prob);
    let find =
        |token| row.iter().find(|(listed, _)| *listed == token).map_or(last, |(_, log_prob)| *log_prob);
    let asked = asked.map(find).collect();
    Distribution { top: row, asked }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_primitives::transcript::Candidate;

    fn record(token: u32) -> TokenRecord {
        TokenRecord { candidates: vec![Candidate { token, q: 0 }], chosen: 0 }
    }

    fn ready(writing: &mut Writing) -> Vec<u32> {
        std::iter::from_fn(|| writing.take_ready()).filter_map(|r| Some(r.chosen()?.token)).collect()
    }

    #[test]
    fn what_is_drawn_for_part_of_a_prompt_is_thrown_away() {
        let mut writing = Writing::default();
        writing.asked_for(0).unwrap();
        writing.stage(record(5));
        writing.asked_for(0).unwrap();
        writing.stage(record(6));
        assert!(ready(&mut writing).is_empty());
        writing.passed_on(&[6]).unwrap();
        assert!(!writing.is_at(1), "the engine does not know it yet");
        assert_eq!(ready(&mut writing), [6]);
        assert!(writing.is_at(1));
        assert_eq!((writing.drawn(0), writing.drawn(1)), (Some(6), None));
    }

    #[test]
    fn the_next_question_makes_a_token_final_too() {
        let mut writing = Writing::default();
        for (position, token) in [(0, 7), (1, 8)] {
            writing.asked_for(position).unwrap();
            ready(&mut writing);
            assert!(writing.is_at(position));
            writing.stage(record(token));
        }
        // A process that lags behind asks again.
        writing.asked_for(0).unwrap();
        writing.passed_on(&[7, 8]).unwrap();
        assert_eq!(ready(&mut writing), [8]);
    }

    #[test]
    fn tokens_that_nobody_drew_are_noticed() {
        assert!(Writing::default().passed_on(&[1]).unwrap_err().contains("nobody drew"));
        assert!(Writing::default().asked_for(1).unwrap_err().contains("without asking"));
        let mut writing = Writing::default();
        writing.stage(record(3));
        assert!(writing.passed_on(&[4]).unwrap_err().contains("in place of 3"));
    }

    #[test]
    fn figures_are_summed_when_all_is_passed_on() {
        let figures = |n| Figures { tokens: 1, distance_sum: n, margin_sum: 1 };
        let mut following = Following::new(2);
        following.found(0, figures(50));
        following.found(0, figures(3));
        following.passed_on(1);
        assert_eq!(following.sum(), None);
        following.passed_on(1);
        assert!(following.sum().unwrap().is_err());
        following.found(1, figures(4));
        assert_eq!(following.sum(), Some(Ok(Figures { tokens: 2, distance_sum: 7, margin_sum: 2 })));
    }

    #[test]
    fn a_token_that_is_not_listed_counts_as_the_last() {
        let found = look_up(vec![(4, -0.1), (9, -3.0)], [9, 5, 4].into_iter());
        assert_eq!(found.asked, [-3.0, -3.0, -0.1]);
    }
}
