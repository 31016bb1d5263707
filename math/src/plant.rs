//! Planted transcripts: when those who approved one may contest it, and which panels judge that.

use crate::panel::PANELS;
use starling_primitives::verdict::PanelRound;

/// Whole coverage windows in which whoever approved a plant may contest it.
pub const CONTEST_WINDOWS: u32 = 2;

/// Round of the first panel on a contested plant: beyond what a dispute comes to that the plant ended.
pub const FIRST_ROUND: PanelRound = 2 * PANELS;

/// First boundary at which a plant that was revealed after `now` boundaries is contested no more. The window in which it was
/// revealed is not whole, and does not count.
pub fn over_at(now: u32) -> u32 {
    now.saturating_add(1).saturating_add(CONTEST_WINDOWS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel;

    #[test]
    fn a_contest_has_whole_windows_and_panels_of_its_own() {
        assert_eq!(over_at(7), 10);
        assert_eq!(over_at(u32::MAX), u32::MAX);
        assert!(over_at(0) <= panel::over_at(0), "nothing is due later than a panel's end");
        assert!(FIRST_ROUND > PANELS && panel::is_first(FIRST_ROUND), "a dispute counts to PANELS at most");
    }
}
