//! How much of a block one host's duty calls may take.

use starling_primitives::Work;

/// A host without weight among hosts that have some gets this part of a block.
const LEAST: u64 = 64;
/// Every host gets this part while none has weight.
const WITHOUT_WEIGHTS: u64 = 8;
/// A host with weight gets so many times its share: work is not spread over the blocks as evenly as weight.
const SLACK: u128 = 2;

/// The part of `block` that a host of weight `weight` out of `total` may fill with duty calls, in `block`'s unit. Never
/// above `block`, never below a 64th of it; rounded down.
pub fn allowance(block: u64, weight: Work, total: Work) -> u64 {
    if total == 0 {
        return block / WITHOUT_WEIGHTS;
    }
    let share = u128::from(block).saturating_mul(SLACK).saturating_mul(weight.into()) / u128::from(total);
    // Not above `block`, so it fits.
    let share = u64::try_from(share.min(block.into())).unwrap_or(block);
    share.max(block / LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn twice_the_share_within_bounds() {
        let check =
            |weight, total, expected| assert_eq!(allowance(6_400, weight, total), expected, "{weight}");
        check(0, 0, 800);
        check(0, 100, 100);
        check(1, 1_000, 100);
        check(25, 100, 3_200);
        check(50, 100, 6_400);
        check(100, 100, 6_400);
        check(Work::MAX, Work::MAX, 6_400);
    }

    proptest! {
        #[test]
        fn more_weight_is_never_less_room(block: u64, low: Work, more: Work, rest: Work) {
            let high = low.saturating_add(more);
            let total = high.saturating_add(rest).max(1);
            let (less, room) = (allowance(block, low, total), allowance(block, high, total));
            prop_assert!(less <= room && room <= block && less >= block / LEAST);
        }
    }
}
