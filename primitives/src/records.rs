//! What the chain keeps of a request.

use crate::{
    request::SignedAuthorization, AccountId, Balance, BlockNumber, EpochIndex, ProfileId, RequestId, H256,
};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// Sent by the gateway (or, if it keeps silent, by the executor): the request runs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Started {
    /// The client's permission; its signature is checked on chain.
    pub authorization: SignedAuthorization,
    /// Epoch whose seed and weights drew the executor: the current one, or the one before within the grace blocks.
    pub epoch: EpochIndex,
    /// 0 for the first draw; one more for each executor that did not answer. At most [`MAX_ATTEMPT`].
    pub attempt: u8,
    /// The host drawn by (epoch seed, request id, attempt); checked on chain.
    pub executor: AccountId,
}

/// Highest attempt number: a request is drawn at most eight times.
pub const MAX_ATTEMPT: u8 = 7;

/// Sent by the executor: the answer is complete.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Finished {
    /// The request.
    pub request_id: RequestId,
    /// [`response_hash`] of the completion's token ids.
    pub response_hash: H256,
    /// Merkle root over header and window hashes.
    pub transcript_root: H256,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
}

/// [`Finished`] as it is sent to the chain: with the epoch whose tape the answer was made with.
///
/// The executor knows it from the gateway. Were the gateway to record another one, honest tokens would not replay: the chain
/// refuses such an answer, and nobody judges it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FinishedIn {
    /// Epoch whose seed made the tape.
    pub epoch: EpochIndex,
    /// The answer.
    pub finished: Finished,
}

/// Sent by the gateway: the client has the answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Delivered {
    /// The request.
    pub request_id: RequestId,
    /// Hash of what reached the client.
    pub response_hash: H256,
}

/// `blake2_256("starling/response" ++ SCALE(Vec<u32>))` of the completion's token ids.
pub fn response_hash(tokens: &[u32]) -> H256 {
    crate::hashing::hash_of(b"starling/response", &tokens)
}

/// Life of an inference.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum InferenceState {
    /// Runs; its maximum price is reserved.
    Started,
    /// Paid into the epoch's pot.
    Finished,
    /// The gateway says the client has it.
    Delivered,
    /// A verdict beyond the limits is being voted on.
    Disputed,
    /// A dispute ended in the executor's favour.
    Valid,
    /// A dispute ended against it; the client has its money back.
    Invalid,
    /// Not finished in time; the client has its money back.
    Expired,
    /// Bad on purpose, as its executor has said; the client has its money back.
    Planted,
}

/// One inference as stored on chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InferenceRecord {
    /// The request.
    pub request_id: RequestId,
    /// Who pays.
    pub client: AccountId,
    /// Key that signed for the client, when it was not the client itself: its limit is charged.
    pub delegate: Option<AccountId>,
    /// Last block at which the authorization was good; the record outlives it, so that it cannot be used twice.
    pub expires_at: BlockNumber,
    /// Host that took the request.
    pub gateway: AccountId,
    /// Host that runs it.
    pub executor: AccountId,
    /// Model with numerics.
    pub profile: ProfileId,
    /// Attempt the executor was drawn with.
    pub attempt: u8,
    /// Where it stands.
    pub state: InferenceState,
    /// Block of `Started`.
    pub started_at: BlockNumber,
    /// Reserved while `Started`; the price afterwards; 0 once refunded.
    pub amount: Balance,
    /// Set by `Finished`.
    pub result: Option<InferenceResult>,
    /// Whether the gateway delivered, and whether its hash agreed.
    pub delivery: Delivery,
    /// Block of the first verdict of another host, if there is one.
    pub first_verdict_at: Option<BlockNumber>,
}

/// What `Finished` said.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InferenceResult {
    /// Hash of the completion's token ids.
    pub response_hash: H256,
    /// Merkle root of the transcript.
    pub transcript_root: H256,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Block of `Finished`.
    pub finished_at: BlockNumber,
}

/// What the gateway said about delivery.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Delivery {
    /// Nothing yet.
    Pending,
    /// Delivered what the executor committed to.
    Matched,
    /// Delivered something whose hash differs.
    Mismatched,
}
