//! When a vote is decided.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use starling_primitives::{verdict::Outcome, Work};

/// Weight of the votes that were cast, by what they say.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Votes {
    /// Measured, and within the limits.
    pub passed: Work,
    /// Measured beyond the limits, or not replayable.
    pub failed: Work,
    /// Could not get the transcript.
    pub unavailable: Work,
}

impl Votes {
    /// With a vote of this weight added; `passed` says whether its figures lie within the limits.
    pub fn with(mut self, outcome: &Outcome, passed: bool, weight: Work) -> Self {
        let side = match outcome {
            Outcome::Unavailable => &mut self.unavailable,
            _ if passed => &mut self.passed,
            _ => &mut self.failed,
        };
        *side = side.saturating_add(weight);
        self
    }
}

/// What the votes come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No side has more than half of the weight that may vote.
    Undecided,
    /// More than half says that the answer is good.
    Valid,
    /// More than half says that it is not, but not that they have seen so: the executor hides the evidence.
    Hidden,
    /// More than half has seen that it is not.
    Invalid,
}

/// Counts votes against the weight of everybody who may vote. Silence is not a vote for either side. Not to get the
/// transcript speaks against the answer, since an executor must not gain by hiding it; but it convicts nobody. Therefore
/// `Hidden` is found only when those who have not voted yet cannot make it `Invalid`, or when the vote `is_over`.
pub fn finding(votes: &Votes, eligible: Work, is_over: bool) -> Finding {
    let against = votes.failed.saturating_add(votes.unavailable);
    let outstanding = if is_over { 0 } else { eligible.saturating_sub(against).saturating_sub(votes.passed) };
    let may_convict = is_majority(votes.failed.saturating_add(outstanding), eligible);
    if is_majority(votes.failed, eligible) {
        Finding::Invalid
    } else if is_majority(votes.passed, eligible) {
        Finding::Valid
    } else if is_majority(against, eligible) && !may_convict {
        Finding::Hidden
    } else {
        Finding::Undecided
    }
}

/// Whether this is more than half of the eligible weight.
pub fn is_majority(weight: Work, eligible: Work) -> bool {
    u128::from(weight).saturating_mul(2) > eligible.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn more_than_half_of_the_eligible_decides() {
        let check = |passed, failed, unavailable, expected| {
            let votes = Votes { passed, failed, unavailable };
            assert_eq!(finding(&votes, 10, true), expected, "{votes:?}");
        };
        check(0, 0, 0, Finding::Undecided);
        check(0, 5, 0, Finding::Undecided);
        check(0, 6, 0, Finding::Invalid);
        check(5, 5, 0, Finding::Undecided);
        check(6, 4, 0, Finding::Valid);
        check(4, 5, 1, Finding::Hidden);
        check(4, 0, 6, Finding::Hidden);
        check(0, 6, 4, Finding::Invalid);
    }

    #[test]
    fn hiding_is_found_when_nobody_can_convict_any_more() {
        let check = |failed, unavailable, expected| {
            let votes = Votes { passed: 0, failed, unavailable };
            assert_eq!(finding(&votes, 10, false), expected, "{votes:?}");
            assert_eq!(finding(&votes, 10, true), Finding::Hidden, "{votes:?}");
        };
        check(4, 2, Finding::Undecided);
        check(4, 4, Finding::Undecided);
        check(4, 5, Finding::Hidden);
        check(0, 6, Finding::Hidden);
    }

    proptest! {
        #[test]
        fn a_minority_never_decides(weights in prop::collection::vec((1u64..1 << 48, 0u8..3), 1..20), silent in 0u64..1 << 50) {
            let sides = |wanted: u8| weights.iter().filter(|(_, side)| *side == wanted).map(|(weight, _)| weight).sum::<u64>();
            let votes = weights.iter().fold(Votes::default(), |votes, (weight, side)| {
                let outcome = [Outcome::Measured(Default::default()), Outcome::ReplayFailed, Outcome::Unavailable][usize::from(*side)];
                votes.with(&outcome, *side == 0, *weight)
            });
            prop_assert_eq!(votes, Votes { passed: sides(0), failed: sides(1), unavailable: sides(2) });
            let total = sides(0) + sides(1) + sides(2) + silent;
            let expected = match (2 * sides(1) > total, 2 * (sides(1) + sides(2)) > total, 2 * sides(0) > total) {
                (true, ..) => Finding::Invalid,
                (_, true, _) => Finding::Hidden,
                (.., true) => Finding::Valid,
                _ => Finding::Undecided,
            };
            prop_assert_eq!(finding(&votes, total, true), expected);
            // What is found before the end is what is found then, whatever the others say.
            let early = finding(&votes, total, false);
            if early != Finding::Undecided {
                for outcome in [Outcome::Unavailable, Outcome::ReplayFailed] {
                    prop_assert_eq!(finding(&votes.with(&outcome, false, silent), total, true), early);
                }
                let figures = Outcome::Measured(Default::default());
                prop_assert_eq!(finding(&votes.with(&figures, true, silent), total, true), early);
            }
        }
    }
}
