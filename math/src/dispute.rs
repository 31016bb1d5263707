//! When a vote is decided.

use starling_primitives::Work;

/// Where a dispute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// Neither side has more than half of the eligible weight.
    Undecided,
    /// More than half says the answer is good.
    Valid,
    /// More than half says it is not.
    Invalid,
}

/// Counts `(weight, in favour)` votes against the weight of everybody who may vote. Silence is not a vote for either
/// side: only more than half of the *eligible* weight decides.
pub fn tally(votes: &[(Work, bool)], eligible_total: Work) -> Tally {
    let sum = |side: bool| {
        votes
            .iter()
            .filter(|(_, valid)| *valid == side)
            .fold(0u128, |sum, (weight, _)| sum.saturating_add((*weight).into()))
    };
    let decides = |weight: u128| weight.saturating_mul(2) > eligible_total.into();
    if decides(sum(false)) {
        Tally::Invalid
    } else if decides(sum(true)) {
        Tally::Valid
    } else {
        Tally::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn more_than_half_of_the_eligible_decides() {
        let check = |votes: &[(Work, bool)], expected| assert_eq!(tally(votes, 10), expected, "{votes:?}");
        check(&[], Tally::Undecided);
        check(&[(5, false)], Tally::Undecided);
        check(&[(6, false)], Tally::Invalid);
        check(&[(5, true), (5, false)], Tally::Undecided);
        check(&[(4, false), (6, true)], Tally::Valid);
    }

    proptest! {
        #[test]
        fn a_minority_never_decides(weights in prop::collection::vec((1u64..1 << 48, any::<bool>()), 1..20)) {
            let total: u64 = weights.iter().map(|(weight, _)| weight).sum();
            let against: u64 = weights.iter().filter(|(_, valid)| !valid).map(|(weight, _)| weight).sum();
            let expected = if 2 * against > total { Tally::Invalid } else if 2 * (total - against) > total { Tally::Valid } else { Tally::Undecided };
            prop_assert_eq!(tally(&weights, total), expected);
        }
    }
}
