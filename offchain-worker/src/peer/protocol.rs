//! What hosts say to each other. SCALE, one enum per direction; a new version is a new protocol name.

use codec::{Decode, Encode};
use libp2p::StreamProtocol;
use starling_primitives::{
    constraint::Constraint,
    merkle::Proof,
    receipt::SignedReceipt,
    request::{RequestHeader, SignedAuthorization},
    transcript::TokenRecord,
    EpochIndex, ProfileId, RequestId, H256,
};

/// Gateway to executor: run this request, and stream its tokens back.
pub const EXECUTE: StreamProtocol = StreamProtocol::new("/starling/execute/1");
/// Verifier to executor: the transcript and the payload of an inference, with the executor's receipt.
pub const TRANSCRIPT: StreamProtocol = StreamProtocol::new("/starling/transcript/2");
/// Verifier to prover: leaves of a sprint commitment with their proofs.
pub const SPRINT: StreamProtocol = StreamProtocol::new("/starling/sprint/1");

/// Longest execute request: the prompt of the longest context, stops and bias.
pub const MAX_EXECUTE_REQUEST: u32 = 4 << 20;
/// Longest control message.
pub const MAX_CONTROL: u32 = 16;
/// Longest event of an execution: one token with its record, or the receipt.
pub const MAX_EXECUTE_EVENT: u32 = 64 << 10;
/// Longest request for a transcript or for leaves.
pub const MAX_QUERY: u32 = 64 << 10;
/// Longest answer to such a request.
pub const MAX_ANSWER: u32 = 32 << 20;
/// Leaves that one request may ask for.
pub const MAX_LEAVES: usize = 256;

/// A request as the gateway forwards it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExecuteRequest {
    /// The client's permission.
    pub authorization: SignedAuthorization,
    /// Epoch whose seed and weights drew the executor.
    pub epoch: EpochIndex,
    /// Attempt it was drawn with.
    pub attempt: u8,
    /// What the generation is bound to.
    pub header: RequestHeader,
    /// Token ids of the prompt.
    pub prompt_tokens: Vec<u32>,
    /// Texts that end the generation.
    pub stop: Vec<String>,
    /// What the answer keeps to.
    pub constraint: Option<Constraint>,
}

/// Why an executor does not take a request. Each has one meaning for the gateway: try the next, or give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// No free place; after this many seconds there may be one.
    Busy {
        /// Seconds.
        retry_after_s: u32,
    },
    /// No ML node serves the profile now.
    NoModel,
    /// The draw names another host, or the epoch is not one that may be used now.
    NotDrawn,
    /// Signature, expiry, profile or price of the authorization do not hold.
    NotAuthorized,
    /// The request is known here already.
    Duplicate,
    /// The request contradicts itself (header and prompt, limits of the profile).
    Invalid,
    /// The client's deposit, or the limit of the key it was signed with, does not cover the price.
    NotFunded,
    /// The host is shutting down, or cannot store what it must.
    Unavailable,
}

impl Refusal {
    /// Whether another executor could take the request.
    pub fn is_worth_another(self) -> bool {
        matches!(self, Self::Busy { .. } | Self::NoModel | Self::NotDrawn | Self::Unavailable)
    }
}

/// Said by the gateway while the executor streams, before it closes the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ExecuteControl {
    /// The client hung up: finish with what there is. It is paid for.
    Cancelled,
    /// Another executor was drawn: forget it.
    Reassigned,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FinishReason {
    /// The model ended it, or a stop text matched.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// The client hung up.
    Cancelled,
}

/// What the executor streams back.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ExecuteEvent {
    /// It is taken: the payload is durable and a place is reserved.
    Accepted,
    /// It is not taken. Nothing follows. After [`Self::Accepted`] only before the first token: the ML nodes were fuller
    /// than the host knew.
    Refused(Refusal),
    /// One token. `text` may be empty (an unfinished UTF-8 sequence, or a possible beginning of a stop text).
    Token {
        /// What the client sees of it.
        text: String,
        /// The token's entry in the transcript.
        record: TokenRecord,
    },
    /// The answer is complete, its transcript durable. Nothing follows.
    Done {
        /// Text that was held back until now.
        text: String,
        /// Why it ended.
        finish_reason: FinishReason,
        /// The executor's word.
        receipt: Box<SignedReceipt>,
    },
    /// The generation broke off; there will be no `Finished`. Nothing follows.
    Failed,
}

/// Asks for what an inference was computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TranscriptQuery {
    /// The request.
    pub request_id: RequestId,
}

/// Transcript and payload of an inference.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ServedTranscript {
    /// SCALE of [`starling_primitives::transcript::Transcript`], which holds the header.
    pub transcript: Vec<u8>,
    /// Token ids of the prompt.
    pub prompt_tokens: Vec<u32>,
    /// What the answer had to keep to.
    pub constraint: Option<Constraint>,
    /// The executor's word on it, as it signed it when it answered. An executor can refuse it: that spares it a proof, and
    /// neither a verdict nor a panel.
    pub receipt: Option<SignedReceipt>,
}

/// Asks for leaves of the host's commitment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SprintQuery {
    /// Epoch at whose end the race was run.
    pub epoch: EpochIndex,
    /// Profile of the commitment.
    pub profile: ProfileId,
    /// Nonces, at most [`MAX_LEAVES`].
    pub nonces: Vec<u32>,
}

/// One leaf of a commitment.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct SprintLeaf {
    /// The nonce, which is the leaf's index.
    pub nonce: u32,
    /// SCALE of the transcript; its root is the leaf.
    pub transcript: Vec<u8>,
    /// Proves the leaf against the committed root.
    pub proof: Proof,
}

/// Digest that names a request in logs: the id's first bytes.
pub fn short(id: &H256) -> String {
    hex::encode(&id.as_bytes()[..6])
}
