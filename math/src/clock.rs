//! The phase of a block: a pure function of (block, epoch start, schedule, reveal extension).

use starling_primitives::{
    schedule::{EpochState, Schedule},
    BlockNumber,
};

/// What an epoch is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Phase {
    /// Inference and verification.
    Serving,
    /// Hosts contribute to the beacon; serving goes on.
    Reveal,
    /// Everyone works on the sprint task.
    Race,
    /// Commitments are taken.
    Commit,
    /// Samples are checked and verdicts taken.
    Check,
}

/// Phase of `block`. Blocks before the epoch count as its first one, blocks after its end as its last stage.
pub fn phase(epoch: &EpochState, block: BlockNumber) -> Phase {
    if block < reveal_start(epoch) {
        Phase::Serving
    } else if block < race_start(epoch) {
        Phase::Reveal
    } else if epoch.sprint_cancelled {
        Phase::Serving
    } else if block < commit_start(epoch) {
        Phase::Race
    } else if block < check_start(epoch) {
        Phase::Commit
    } else {
        Phase::Check
    }
}

/// First block of the reveal window.
pub fn reveal_start(epoch: &EpochState) -> BlockNumber {
    epoch.start.saturating_add(epoch.schedule.reveal_start)
}

/// The starting gun. An extension of the reveal window moves it and everything after it.
pub fn race_start(epoch: &EpochState) -> BlockNumber {
    after_reveal(epoch, epoch.schedule.race_start)
}

/// First block that takes commitments.
pub fn commit_start(epoch: &EpochState) -> BlockNumber {
    after_reveal(epoch, epoch.schedule.commit_start)
}

/// First block that takes no commitments any more.
pub fn check_start(epoch: &EpochState) -> BlockNumber {
    after_reveal(epoch, epoch.schedule.check_start)
}

/// First block of the next epoch.
pub fn epoch_end(epoch: &EpochState) -> BlockNumber {
    after_reveal(epoch, epoch.schedule.epoch_blocks)
}

/// First block in which the epoch *before* `current` may be claimed.
pub fn claims_open(current: &EpochState) -> BlockNumber {
    current.start.saturating_add(current.schedule.grace_blocks)
}

/// Whether the epoch before `current` may be claimed in `block`.
pub fn may_claim_previous(current: &EpochState, block: BlockNumber) -> bool {
    (claims_open(current)..epoch_end(current)).contains(&block)
}

/// Whether records of the epoch before `current` are still taken in `block`.
pub fn in_grace(current: &EpochState, block: BlockNumber) -> bool {
    block < claims_open(current)
}

/// Number of the coverage window that an offset inside an epoch lies in.
pub fn coverage_window(schedule: &Schedule, offset: BlockNumber) -> u32 {
    offset.checked_div(schedule.coverage_blocks).unwrap_or(0)
}

fn after_reveal(epoch: &EpochState, offset: BlockNumber) -> BlockNumber {
    epoch.start.saturating_add(offset).saturating_add(epoch.extension)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch(extension: u32, sprint_cancelled: bool) -> EpochState {
        EpochState { index: 3, start: 1_000, extension, sprint_cancelled, schedule: Schedule::MAIN }
    }

    #[test]
    fn main_schedule_has_the_stages_of_the_protocol() {
        let check =
            |offset: u32, expected| assert_eq!(phase(&epoch(0, false), 1_000 + offset), expected, "{offset}");
        check(0, Phase::Serving);
        check(17_159, Phase::Serving);
        check(17_160, Phase::Reveal);
        check(17_179, Phase::Reveal);
        check(17_180, Phase::Race);
        check(17_239, Phase::Race);
        check(17_240, Phase::Commit);
        check(17_245, Phase::Commit);
        check(17_246, Phase::Check);
        check(17_279, Phase::Check);
    }

    #[test]
    fn extension_shifts_everything_after_the_reveal() {
        let extended = epoch(20, false);
        assert_eq!(phase(&extended, 1_000 + 17_160), Phase::Reveal);
        assert_eq!(phase(&extended, 1_000 + 17_199), Phase::Reveal);
        assert_eq!(phase(&extended, 1_000 + 17_200), Phase::Race);
        assert_eq!(epoch_end(&extended), 1_000 + 17_300);
    }

    #[test]
    fn cancelled_sprint_serves_to_the_end() {
        assert_eq!(phase(&epoch(0, true), 1_000 + 17_200), Phase::Serving);
        assert_eq!(phase(&epoch(0, true), 1_000 + 17_279), Phase::Serving);
    }

    #[test]
    fn presets_are_valid() {
        for schedule in [Schedule::MAIN, Schedule::DEV, Schedule::TEST] {
            assert_eq!(schedule.check(), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn phases_never_go_back(start in 0u32..1_000_000, extension in 0u32..100, a in 0u32..20_000, b in 0u32..20_000) {
            let state = EpochState { start, extension, ..epoch(0, false) };
            let (first, second) = (a.min(b), a.max(b));
            prop_assert!(phase(&state, start + first) <= phase(&state, start + second));
        }
    }
}
