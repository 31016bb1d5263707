//! A profile: a model and its numerics.

use crate::{Balance, Ppm, H256};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use sp_core::{bounded::BoundedVec, ConstU32};

/// Candidates per token that the protocol allows at most.
pub const MAX_K: u8 = 20;
/// Bytes of a profile's name at most.
pub const MAX_NAME: u32 = 64;

/// Kernel class: the arithmetic a host must reproduce.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Numerics {
    /// f32 weights and arithmetic.
    F32,
    /// bf16 weights, f32 accumulation.
    Bf16,
    /// f16 weights, f32 accumulation.
    F16,
    /// FP8 block-scaled weights.
    Fp8,
}

impl Numerics {
    /// As ML nodes name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Fp8 => "fp8",
        }
    }
}

/// How far an honest transcript may be from the verifier's own pass. All in the units of
/// [`crate::verdict::Figures`]: 1/1024 nat, mean per token.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Calibration {
    /// Limit of the mean distance per token, for sequences of at least 64 tokens.
    pub distance_limit: u32,
    /// Limit of the mean margin per token, for sequences of at least 64 tokens.
    pub margin_limit: u32,
    /// Added to both limits, divided by the number of tokens: short sequences scatter more.
    pub short_allowance: u32,
}

/// A model and its numerics, as registered on chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Profile {
    /// Name that clients use as `model`. UTF-8.
    pub name: BoundedVec<u8, ConstU32<MAX_NAME>>,
    /// Digest of the weights: blake2_256 over the model folder's manifest (see `starling-mlnode digest`).
    pub weights_digest: H256,
    /// Digest of tokenizer and chat template.
    pub tokenizer_digest: H256,
    /// Kernel class.
    pub numerics: Numerics,
    /// Candidates kept per token, 1..=[`MAX_K`].
    pub top_k: u8,
    /// Tokens of prompt and completion together at most.
    pub max_context: u32,
    /// Entries of the vocabulary; token ids lie below.
    pub vocab_size: u32,
    /// Price of one prompt token.
    pub prompt_price: Balance,
    /// Price of one completion token.
    pub completion_price: Balance,
    /// Work units of one prompt token.
    pub prompt_work: u32,
    /// Work units of one completion token.
    pub completion_work: u32,
    /// Share of verified tokens' failures tolerated in a sprint before the confidence bound, in ppm.
    pub sprint_tolerance: Ppm,
    /// Limits of the tolerant checks.
    pub calibration: Calibration,
}

impl Profile {
    /// The name as text; bytes that are not UTF-8 are replaced.
    pub fn name_lossy(&self) -> alloc::string::String {
        alloc::string::String::from_utf8_lossy(&self.name).into_owned()
    }

    /// Whether every field lies in its documented range.
    pub fn is_valid(&self) -> bool {
        !self.name.is_empty()
            && core::str::from_utf8(&self.name).is_ok()
            && (1..=MAX_K).contains(&self.top_k)
            && self.max_context > 1
            && self.vocab_size > 1
            && self.completion_work > 0
    }

    /// `tokens x price`, saturating: the most a request of this size costs.
    pub fn price(&self, prompt_tokens: u32, completion_tokens: u32) -> Balance {
        self.prompt_price
            .saturating_mul(prompt_tokens.into())
            .saturating_add(self.completion_price.saturating_mul(completion_tokens.into()))
    }
}
