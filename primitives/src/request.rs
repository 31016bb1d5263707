//! What a generation is bound to, and what a client signs.

use crate::{hashing::hash_of, AccountId, Balance, BlockNumber, MultiSignature, ProfileId, RequestId, H256};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// Sampling parameters as integers, so that they can be hashed and replayed exactly.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SamplingParams {
    /// Temperature in 1/1000; 0 is greedy. At most [`SamplingParams::MAX_TEMPERATURE`].
    pub temperature_milli: u16,
    /// Nucleus mass in 1/10000; 10000 switches the filter off. At least 1.
    pub top_p: u16,
    /// Minimum probability relative to the best candidate's, in 1/10000; 0 switches the filter off.
    pub min_p: u16,
    /// Candidates kept; 0 means the profile's K. Never above K.
    pub top_k: u8,
    /// OpenAI `frequency_penalty` in 1/1000, -2000..=2000. Applied to logits before the log-softmax.
    pub frequency_penalty_milli: i16,
    /// OpenAI `presence_penalty` in 1/1000, -2000..=2000. Applied to logits before the log-softmax.
    pub presence_penalty_milli: i16,
}

impl SamplingParams {
    /// Highest temperature: 2.0, as in the OpenAI API.
    pub const MAX_TEMPERATURE: u16 = 2_000;
    /// Always the most probable token.
    pub const GREEDY: Self = Self {
        temperature_milli: 0,
        top_p: 10_000,
        min_p: 0,
        top_k: 0,
        frequency_penalty_milli: 0,
        presence_penalty_milli: 0,
    };
}

/// Everything a generation is bound to. Its hash is the [`RequestId`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RequestHeader {
    /// The model with its numerics.
    pub profile: ProfileId,
    /// [`prompt_hash`] of the prompt's token ids.
    pub prompt_hash: H256,
    /// Sampling parameters.
    pub sampling: SamplingParams,
    /// Upper bound of generated tokens, at least 1.
    pub max_tokens: u32,
    /// Hash of the [`Constraint`](crate::constraint::Constraint) that the answer keeps to, if there is one.
    #[cfg_attr(feature = "serde", serde(default))]
    pub constraint: Option<H256>,
    /// The client's nonce: makes two equal requests different and the tape unpredictable to everybody else.
    pub nonce: [u8; 32],
}

impl RequestHeader {
    /// `blake2_256("starling/header" ++ SCALE(header))`.
    pub fn id(&self) -> RequestId {
        hash_of(b"starling/header", self)
    }
}

/// `blake2_256("starling/prompt" ++ SCALE(Vec<u32>))` of the prompt's token ids.
pub fn prompt_hash(tokens: &[u32]) -> H256 {
    hash_of(b"starling/prompt", &tokens)
}

/// Blocks for which clients let their authorizations stay valid. All alike, so that nobody is told apart by it.
pub const AUTHORIZED_BLOCKS: BlockNumber = 16;

/// What the client signs: it allows one gateway to have one request run, up to a price, until a block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Authorization {
    /// Account whose deposit pays.
    pub client: AccountId,
    /// The request.
    pub request_id: RequestId,
    /// Its profile (also inside the header; repeated because the chain sees only the hash).
    pub profile: ProfileId,
    /// Most that may be charged, prompt and completion together. This is what gets reserved.
    pub max_price: Balance,
    /// Host that may act as gateway for it.
    pub gateway: AccountId,
    /// Last block at which the request may be recorded as started.
    pub expires_at: BlockNumber,
}

impl Authorization {
    /// The 32 bytes that are signed: `blake2_256("starling/authorize" ++ SCALE((genesis hash, authorization)))`.
    pub fn signing_hash(&self, genesis: &H256) -> H256 {
        hash_of(b"starling/authorize", &(genesis, self))
    }
}

/// An [`Authorization`] with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SignedAuthorization {
    /// What is allowed.
    pub authorization: Authorization,
    /// Account of the signing key: the client itself, or a key it delegated spending to.
    pub signer: AccountId,
    /// sr25519, ed25519 or ecdsa signature over [`Authorization::signing_hash`].
    pub signature: MultiSignature,
}

impl SignedAuthorization {
    /// Whether the signature is `signer`'s over this authorization on the chain with this genesis hash.
    pub fn verify(&self, genesis: &H256) -> bool {
        use sp_runtime::traits::Verify;
        self.signature.verify(self.authorization.signing_hash(genesis).as_bytes(), &self.signer)
    }
}
