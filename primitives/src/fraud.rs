//! Evidence that an executor lied, which anybody can judge without a model and without asking anybody.
//!
//! An honest executor signs one receipt for a request, puts the same on chain, and commits to windows that replay. So
//! each of these is proof, and nothing else is: a receipt that says otherwise than the chain, and a window that the
//! receipt commits to although it cannot be true.

use crate::{
    merkle::Proof,
    receipt::SignedReceipt,
    records::Finished,
    replay::{prove_fraud, replay_window, Checks, NoFraud, ReplayError},
    request::RequestHeader,
    transcript::{window_count, Transcript, WindowProof, MAX_WINDOW_BYTES},
    InferenceId, ProfileId, H256,
};
use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use sp_core::{bounded::BoundedVec, ConstU32};

/// Siblings in a Merkle proof at most: a tree has at most 2^32 leaves.
pub const MAX_SIBLINGS: u32 = 32;

/// A [`WindowProof`] of bounded size, as the chain takes it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct OpenedWindow {
    /// Number of the window, from 0.
    pub index: u32,
    /// Hash of the window before it; of the first one, the request id.
    pub previous: H256,
    /// The encoded window.
    pub bytes: BoundedVec<u8, ConstU32<MAX_WINDOW_BYTES>>,
    /// Siblings on the way from its hash to the root.
    pub siblings: BoundedVec<H256, ConstU32<MAX_SIBLINGS>>,
}

impl OpenedWindow {
    /// `None` when window or path are longer than any valid one. Such a window is a fraud that the chain cannot be shown:
    /// verdicts are for it.
    pub fn new(opened: WindowProof) -> Option<Self> {
        let WindowProof { index, previous, bytes, proof } = opened;
        let (bytes, siblings) = (bytes.try_into().ok()?, proof.siblings.try_into().ok()?);
        Some(Self { index, previous, bytes, siblings })
    }

    fn into_proof(self) -> WindowProof {
        let Self { index, previous, bytes, siblings } = self;
        let proof = Proof { siblings: siblings.into_inner() };
        WindowProof { index, previous, bytes: bytes.into_inner(), proof }
    }
}

/// What is shown beside the receipt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
#[allow(clippy::large_enum_variant, reason = "evidence comes one at a time")]
pub enum Evidence {
    /// Nothing: the receipt says otherwise than `Finished` on chain.
    Contradiction,
    /// A window of the transcript that the receipt commits to. It does not replay.
    Window {
        /// Header of the request.
        header: RequestHeader,
        /// The window.
        opened: OpenedWindow,
    },
}

/// An accusation with all that is needed to judge it. At most about 6 KB.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct FraudProof {
    /// The inference.
    pub inference: InferenceId,
    /// The executor's word on it.
    pub receipt: SignedReceipt,
    /// Why that cannot be true.
    pub evidence: Evidence,
}

/// What the executor did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum Fraud {
    /// It signed one answer and put another one on chain.
    Contradiction,
    /// It committed to a window that does not replay.
    Window(ReplayError),
}

/// Why evidence proves nothing.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum NoProof {
    /// The executor's worker key did not sign the receipt.
    NotSigned,
    /// There is nothing on chain that the receipt contradicts.
    NoContradiction,
    /// The header is not the request's.
    OtherHeader,
    /// The header names another profile than the client's permission: the executor should not have taken it, but did not
    /// lie.
    OtherProfile,
    /// The window is not part of the committed transcript.
    NotCommitted,
    /// The window replays.
    Replays,
}

impl From<NoFraud> for NoProof {
    fn from(reason: NoFraud) -> Self {
        match reason {
            NoFraud::OtherHeader => Self::OtherHeader,
            NoFraud::NotCommitted => Self::NotCommitted,
            NoFraud::Replays => Self::Replays,
        }
    }
}

/// What the chain knows of the accused inference.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Hash of block 0.
    pub genesis: &'a H256,
    /// Seed of the tape: of the epoch whose seed drew the executor, and the request.
    pub tape_seed: &'a H256,
    /// What the executor put on chain; `None` while it has not.
    pub finished: Option<&'a Finished>,
    /// The profile it was recorded with.
    pub profile: ProfileId,
    /// Token ids of the profile lie below.
    pub vocab_size: u32,
    /// The profile's K.
    pub top_k: u8,
}

impl Known<'_> {
    fn checks(&self) -> Checks<'static> {
        Checks { prompt: None, vocab_size: Some(self.vocab_size), top_k: Some(self.top_k) }
    }
}

/// Judges evidence. Whose receipt it is, and about which request, has been looked at by the caller; whether it was
/// signed has not.
pub fn judge(receipt: &SignedReceipt, evidence: Evidence, known: &Known<'_>) -> Result<Fraud, NoProof> {
    if !receipt.verify(known.genesis) {
        return Err(NoProof::NotSigned);
    }
    let signed = &receipt.receipt.finished;
    match evidence {
        Evidence::Contradiction => match known.finished {
            Some(finished) if finished != signed => Ok(Fraud::Contradiction),
            _ => Err(NoProof::NoContradiction),
        },
        Evidence::Window { header, opened } => {
            if header.profile != known.profile {
                return Err(NoProof::OtherProfile);
            }
            prove_fraud(&header, known.tape_seed, signed, &opened.into_proof(), &known.checks())
                .map(Fraud::Window)
                .map_err(NoProof::from)
        }
    }
}

/// Looks for evidence in what an executor gave out about an answer: its receipt and its transcript. What is found holds
/// by [`judge`]. `None` where nothing is wrong, and where what is wrong takes a verdict to say: the transcript is not the
/// one that the receipt commits to, or its lie does not fit into one window.
pub fn find(receipt: &SignedReceipt, transcript: &Transcript, known: &Known<'_>) -> Option<Evidence> {
    if judge(receipt, Evidence::Contradiction, known).is_ok() {
        return Some(Evidence::Contradiction);
    }
    let (header, tokens) = (&transcript.header, receipt.receipt.finished.completion_tokens);
    let checks = known.checks();
    let lies = |(index, bytes): &(u32, &Vec<u8>)| {
        replay_window(header, known.tape_seed, *index, bytes, tokens, &checks).is_err()
    };
    let lying = (0..window_count(tokens)).zip(&transcript.windows).find(lies);
    // The only window may replay and yet be another answer.
    let index = lying.map_or(0, |(index, _)| index);
    let opened = OpenedWindow::new(transcript.window_proof(index)?)?;
    let evidence = Evidence::Window { header: header.clone(), opened };
    judge(receipt, evidence.clone(), known).is_ok().then_some(evidence)
}
