//! Results of checking a transcript.

use crate::{hashing::hash_of, AccountId, InferenceId, H256};
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

/// Which panel on an inference: 0 is the first, 1 the second.
pub type PanelRound = u8;

/// A panel member's promise of a verdict that it does not say yet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PanelCommit {
    /// The disputed inference.
    pub inference: InferenceId,
    /// Which of its panels.
    pub round: PanelRound,
    /// The [`PanelReveal::commitment`] that will follow.
    pub commitment: H256,
}

/// A panel member's verdict, and what opens its commitment.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PanelReveal {
    /// The disputed inference.
    pub inference: InferenceId,
    /// Which of its panels.
    pub round: PanelRound,
    /// What came of the check.
    pub outcome: Outcome,
    /// Random, and told to nobody before: few outcomes are so rare that they could not be guessed.
    pub salt: H256,
}

impl PanelReveal {
    /// What `host` commits itself to. Bound to inference, panel and host, so that nobody can commit to another member's
    /// verdict without knowing it.
    pub fn commitment(&self, host: &AccountId) -> H256 {
        hash_of(b"starling/panel", &(self, host))
    }
}
