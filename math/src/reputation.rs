//! How reputation grows and falls. Parts per million; 0 is unknown or convicted, 1,000,000 is full trust.

use starling_primitives::{Ppm, PPM};

/// Clean epochs from nothing to full trust.
pub const CLEAN_EPOCHS: u32 = 30;
/// One missed inference costs this share of the reputation, in ppm.
pub const MISS_COST: Ppm = 20_000;

/// After an epoch claimed with all duties done. Rounds up, so that [`CLEAN_EPOCHS`] of them suffice.
pub fn after_clean_epoch(reputation: Ppm) -> Ppm {
    reputation.saturating_add(PPM.div_ceil(CLEAN_EPOCHS)).min(PPM)
}

/// After one missed inference: expired, or its transcript unavailable. Rounds down, so that it always costs something.
pub fn after_miss(reputation: Ppm) -> Ppm {
    let kept = u64::from(reputation).saturating_mul(u64::from(PPM.saturating_sub(MISS_COST)));
    kept.checked_div(u64::from(PPM)).and_then(|kept| u32::try_from(kept).ok()).unwrap_or(0)
}

/// After a conviction.
pub fn after_conviction() -> Ppm {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thirty_clean_epochs_make_full_trust() {
        let after = |epochs| (0..epochs).fold(0, |reputation, _| after_clean_epoch(reputation));
        assert!(after(29) < PPM);
        assert_eq!(after(30), PPM);
        assert_eq!(after(31), PPM);
    }

    proptest! {
        #[test]
        fn a_miss_costs_and_a_clean_epoch_never_does(reputation in 1..=PPM) {
            prop_assert!(after_miss(reputation) < reputation);
            prop_assert!(after_clean_epoch(reputation) >= reputation);
            prop_assert!(after_clean_epoch(reputation) <= PPM);
        }
    }
}
