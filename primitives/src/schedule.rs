//! The schedule of an epoch: data, not constants.

use crate::{BlockNumber, Ppm};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// Stages of an epoch as block offsets from its first block, and the lengths that follow from them.
///
/// Validated by [`Schedule::check`] when proposed; takes effect at an epoch boundary only.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "camelCase"))]
pub struct Schedule {
    /// Blocks of an epoch.
    pub epoch_blocks: BlockNumber,
    /// First block of the reveal window.
    pub reveal_start: BlockNumber,
    /// The starting gun: the seed is final in this block, the race begins.
    pub race_start: BlockNumber,
    /// First block at which commitments are taken; the race is over.
    pub commit_start: BlockNumber,
    /// First block at which commitments are late; the challenge seed is drawn in it.
    pub check_start: BlockNumber,
    /// How often the reveal window may be extended by its own length, at most.
    pub max_extensions: u8,
    /// Blocks after which a started inference that has not finished expires.
    pub expiry_blocks: BlockNumber,
    /// Length of a coverage window.
    pub coverage_blocks: BlockNumber,
    /// Blocks of the next epoch during which records and verdicts of the last one still arrive before claims open.
    /// At least two coverage windows and one expiry.
    pub grace_blocks: BlockNumber,
    /// Blocks between two attempts to claim.
    pub claim_retry_blocks: BlockNumber,
    /// Tokens of a sprint prompt.
    pub sprint_prompt_tokens: u32,
    /// Tokens decoded per sprint nonce.
    pub sprint_decode_tokens: u32,
    /// Samples that one verifier checks of one commitment, at most.
    pub sprint_samples: u32,
    /// Inferences sampled to check a claim's duties, at most.
    pub claim_samples: u32,
    /// Most of the total weight that one host can have, in ppm (or 1/n when there are fewer than 1/share hosts).
    pub max_share: Ppm,
    /// Least share of the total weight that makes a host an authority, in ppm.
    pub min_authority_share: Ppm,
}

/// Why a schedule is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    /// The stages are not in order, or one of them is empty.
    StagesOutOfOrder,
    /// The grace must hold two coverage windows and one expiry, and end before the next reveal window.
    GraceOutOfRange,
    /// A length, count or share is zero or too large.
    ValueOutOfRange,
}

impl Schedule {
    /// The schedule of a real network: 17,280 blocks of 5 s.
    pub const MAIN: Self = Self {
        epoch_blocks: 17_280,
        reveal_start: 17_160,
        race_start: 17_180,
        commit_start: 17_240,
        check_start: 17_246,
        max_extensions: 3,
        expiry_blocks: 240,
        coverage_blocks: 360,
        grace_blocks: 960,
        claim_retry_blocks: 360,
        sprint_prompt_tokens: 256,
        sprint_decode_tokens: 64,
        sprint_samples: 200,
        claim_samples: 200,
        max_share: 250_000,
        min_authority_share: 1_000,
    };

    /// For one developer's chain: an epoch of three minutes at 2 s.
    pub const DEV: Self = Self {
        epoch_blocks: 90,
        reveal_start: 52,
        race_start: 60,
        commit_start: 68,
        check_start: 74,
        max_extensions: 2,
        expiry_blocks: 10,
        coverage_blocks: 8,
        grace_blocks: 26,
        claim_retry_blocks: 4,
        sprint_prompt_tokens: 16,
        sprint_decode_tokens: 32,
        sprint_samples: 8,
        claim_samples: 64,
        max_share: 500_000,
        min_authority_share: 1_000,
    };

    /// For end-to-end tests: an epoch of about two minutes at 2 s.
    pub const TEST: Self = Self {
        epoch_blocks: 60,
        reveal_start: 30,
        race_start: 36,
        commit_start: 42,
        check_start: 47,
        max_extensions: 2,
        expiry_blocks: 8,
        coverage_blocks: 5,
        grace_blocks: 18,
        claim_retry_blocks: 2,
        sprint_prompt_tokens: 16,
        sprint_decode_tokens: 32,
        sprint_samples: 6,
        claim_samples: 64,
        max_share: 500_000,
        min_authority_share: 1_000,
    };

    /// Refuses a schedule that cannot run.
    pub fn check(&self) -> Result<(), ScheduleError> {
        let ordered = 0 < self.reveal_start
            && self.reveal_start < self.race_start
            && self.race_start < self.commit_start
            && self.commit_start < self.check_start
            && self.check_start < self.epoch_blocks;
        if !ordered {
            return Err(ScheduleError::StagesOutOfOrder);
        }
        let in_range = self.epoch_blocks <= 1 << 24
            && self.max_extensions <= 16
            && self.expiry_blocks > 0
            && self.coverage_blocks > 0
            && self.claim_retry_blocks > 0
            && (1..=8_192).contains(&self.sprint_prompt_tokens)
            && (1..=1_024).contains(&self.sprint_decode_tokens)
            && (1..=1_000).contains(&self.sprint_samples)
            && (1..=1_000).contains(&self.claim_samples)
            && (1..=crate::PPM).contains(&self.max_share)
            && self.min_authority_share < self.max_share;
        if !in_range {
            return Err(ScheduleError::ValueOutOfRange);
        }
        let needed = self.coverage_blocks.saturating_mul(2).saturating_add(self.expiry_blocks);
        if self.grace_blocks < needed || self.grace_blocks >= self.reveal_start {
            return Err(ScheduleError::GraceOutOfRange);
        }
        Ok(())
    }

    /// Blocks of the reveal window, and of each extension of it.
    pub fn reveal_blocks(&self) -> BlockNumber {
        self.race_start.saturating_sub(self.reveal_start)
    }
}

/// Where the clock stands: everything that the phase of a block is a pure function of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EpochState {
    /// Number of the epoch.
    pub index: crate::EpochIndex,
    /// Its first block.
    pub start: BlockNumber,
    /// Blocks by which the reveal window was extended so far; shifts everything after it.
    pub extension: BlockNumber,
    /// Whether this epoch has no sprint, because the beacon did not get enough contributions.
    pub sprint_cancelled: bool,
    /// The schedule in force.
    pub schedule: Schedule,
}
