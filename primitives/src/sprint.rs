//! The sprint: a miniature of serving whose result is a transcript per nonce.

use crate::{
    hashing::hash_of,
    request::{prompt_hash, RequestHeader, SamplingParams},
    AccountId, EpochIndex, ProfileId, H256,
};
use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use rand_chacha::{
    rand_core::{RngCore, SeedableRng},
    ChaCha8Rng,
};
use scale_info::TypeInfo;

/// What a host commits to before the deadline: leaf `i` of the Merkle tree is the transcript root of nonce `i`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SprintCommitment {
    /// [`crate::merkle::root`] over the transcript roots of nonces `0..count`.
    pub root: H256,
    /// Number of nonces done, 1..=[`MAX_SPRINT_COUNT`].
    pub count: u32,
}

/// Verifiers whose verdicts on one commitment count at most: those with the highest scores of all that vote.
pub const MAX_SPRINT_VERIFIERS: u32 = 32;

/// Nonces that one commitment can hold at most.
pub const MAX_SPRINT_COUNT: u32 = 1 << 24;

/// The sprint task of one host for one profile in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SprintTask {
    /// The seed that started the race.
    pub seed: H256,
    /// Epoch at whose end the race is run.
    pub epoch: EpochIndex,
    /// The host that races.
    pub host: AccountId,
    /// The profile it races with.
    pub profile: ProfileId,
    /// Entries of the profile's vocabulary.
    pub vocab_size: u32,
    /// Tokens of each prompt.
    pub prompt_tokens: u32,
    /// Tokens decoded for each nonce.
    pub decode_tokens: u32,
}

impl SprintTask {
    /// Temperature 1.0 without filters: every token is drawn from the tape.
    pub const SAMPLING: SamplingParams =
        SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };

    fn nonce_hash(&self, nonce: u32) -> H256 {
        hash_of(b"starling/sprint", &(&self.seed, self.epoch, &self.host, self.profile, nonce))
    }

    /// Prompt of a nonce: token ids drawn from a PRF keyed with (seed, epoch, host, profile, nonce).
    pub fn prompt(&self, nonce: u32) -> Vec<u32> {
        let mut rng = ChaCha8Rng::from_seed(self.nonce_hash(nonce).0);
        let vocab = u64::from(self.vocab_size.max(1));
        // Multiply-shift maps 32 random bits to 0..vocab; its bias is below vocab / 2^32.
        (0..self.prompt_tokens).map(|_| ((u64::from(rng.next_u32()) * vocab) >> 32) as u32).collect()
    }

    /// Header of a nonce's transcript.
    pub fn header(&self, nonce: u32) -> RequestHeader {
        RequestHeader {
            profile: self.profile,
            prompt_hash: prompt_hash(&self.prompt(nonce)),
            sampling: Self::SAMPLING,
            max_tokens: self.decode_tokens,
            constraint: None,
            nonce: self.nonce_hash(nonce).0,
        }
    }

    /// Tape seed of a nonce's transcript; the sprint seed stands where an inference has the epoch seed.
    pub fn tape_seed(&self, nonce: u32) -> H256 {
        crate::tape::tape_seed(&self.seed, &self.header(nonce).id())
    }
}

/// One verifier's result over its samples of one commitment.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SprintVerdict {
    /// Samples that the challenge gave this verifier.
    pub checked: u32,
    /// Samples that failed: missing, wrong header, or beyond the limits. At most `checked`.
    pub failed: u32,
    /// At least one sample failed the replay check, or lies where no honest device lies.
    pub fabricated: bool,
}
