//! Results of checking a transcript.

use crate::InferenceId;
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// Units of [`Figures`] per nat.
pub const FIGURE_UNIT: u32 = 1_024;
/// A token's distance is clipped at 2 nats.
pub const DISTANCE_CLIP: u32 = 2 * FIGURE_UNIT;
/// A token's margin is clipped at 4 nats.
pub const MARGIN_CLIP: u32 = 4 * FIGURE_UNIT;

/// Sums over the tokens of a transcript, so that anyone can judge again. Units: 1/1024 nat.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Figures {
    /// Tokens summed over.
    pub tokens: u32,
    /// Sum of the clipped distances.
    pub distance_sum: u64,
    /// Sum of the clipped margins.
    pub margin_sum: u64,
}

/// One verifier's result.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome {
    /// The transcript replays; the figures are judged against the profile's calibration.
    Measured(Figures),
    /// Hashes, header, token counts or the sampler replay disagree with what is on chain.
    ReplayFailed,
    /// The executor did not serve transcript or payload in time.
    Unavailable,
}

/// A verdict as submitted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Verdict {
    /// What was checked.
    pub inference: InferenceId,
    /// What came of it.
    pub outcome: Outcome,
}
