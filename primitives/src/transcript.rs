//! The transcript of a generation: what was offered at each token and what was chosen, chained window by window.

pub use crate::window::{Window, WindowError};

use crate::{
    hashing::hash_of,
    merkle::{self, Proof},
    profile::MAX_K,
    request::RequestHeader,
    H256,
};
use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use core::fmt;
use scale_info::TypeInfo;

/// Tokens of a window; only the last one may have fewer.
pub const WINDOW_TOKENS: usize = 32;
/// Units of `q` per nat.
pub const Q_UNIT: u16 = 128;
/// Largest `q`; less probable tokens are written as this.
pub const MAX_Q: u16 = 4_095;
/// `q` of probability 2^-16: less probable candidates are dropped, except the best one.
pub const MAX_TAIL_Q: u16 = 1_420;

/// No valid window is longer. In bits: 19 of head; for each record 5 + 9, and 25 for the first q; for each candidate at
/// most 32 of id (the fixed code bounds the other) and 21 of q.
pub const MAX_WINDOW_BYTES: u32 = (19 + 32 * (5 + 9 + 25) + 640 * (32 + 21)) / 8 + 1;

/// A token with the integer `q = min(MAX_Q, round(-Q_UNIT ln p))` of its probability.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Candidate {
    /// Token id.
    pub token: u32,
    /// Negative log-probability in 1/128 nat.
    pub q: u16,
}

/// One generated token: the candidates, and which of them was taken.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TokenRecord {
    /// 1..=K candidates, strictly ascending by (q, token), token ids distinct, no q but the first above [`MAX_TAIL_Q`].
    pub candidates: Vec<Candidate>,
    /// Index of the chosen candidate.
    pub chosen: u8,
}

/// What is wrong with a record.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum RecordError {
    /// No candidates, or more than K.
    CandidateCount,
    /// A q above [`MAX_Q`], or above [`MAX_TAIL_Q`] after the first.
    OutOfRange,
    /// The candidates are not strictly ascending by (q, token).
    NotSorted,
    /// Two candidates have the same token id.
    DuplicateToken,
    /// The chosen index names no candidate.
    Chosen,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CandidateCount => "the number of candidates is out of range",
            Self::OutOfRange => "a candidate is too improbable to be listed",
            Self::NotSorted => "the candidates are not sorted",
            Self::DuplicateToken => "a token is listed twice",
            Self::Chosen => "the chosen index names no candidate",
        })
    }
}

impl core::error::Error for RecordError {}

impl TokenRecord {
    /// Whether the record is valid for at most `k` candidates (and never more than [`MAX_K`]).
    pub fn check(&self, k: u8) -> Result<(), RecordError> {
        let candidates = &self.candidates;
        if candidates.is_empty() || candidates.len() > usize::from(k.min(MAX_K)) {
            return Err(RecordError::CandidateCount);
        }
        for (index, candidate) in candidates.iter().enumerate() {
            if candidate.q > if index == 0 { MAX_Q } else { MAX_TAIL_Q } {
                return Err(RecordError::OutOfRange);
            }
            let earlier = candidates.get(..index).unwrap_or(&[]);
            if earlier.last().is_some_and(|last| (last.q, last.token) >= (candidate.q, candidate.token)) {
                return Err(RecordError::NotSorted);
            }
            if earlier.iter().any(|other| other.token == candidate.token) {
                return Err(RecordError::DuplicateToken);
            }
        }
        self.chosen().map(drop).ok_or(RecordError::Chosen)
    }

    /// The chosen candidate; `None` only in an invalid record.
    pub fn chosen(&self) -> Option<&Candidate> {
        self.candidates.get(usize::from(self.chosen))
    }
}

/// Hash of a window, chained to the one before; the first one's `previous` is the request id.
pub fn window_hash(previous: &H256, bytes: &[u8]) -> H256 {
    hash_of(b"starling/window", &(previous, bytes))
}

/// Windows of a transcript with this many tokens.
pub fn window_count(tokens: u32) -> u32 {
    tokens.div_ceil(WINDOW_TOKENS as u32)
}

/// Everything a generation leaves behind.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Transcript {
    /// What the generation is bound to.
    pub header: RequestHeader,
    /// The encoded windows, in order.
    pub windows: Vec<Vec<u8>>,
}

/// A window opened against a transcript root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WindowProof {
    /// Number of the window, from 0.
    pub index: u32,
    /// Hash of the window before it; of the first one, the request id.
    pub previous: H256,
    /// The encoded window.
    pub bytes: Vec<u8>,
    /// Proof of its hash as leaf `index + 1`; leaf 0 is the request id.
    pub proof: Proof,
}

impl WindowProof {
    /// Whether this is window `index` of the transcript with this root and this many tokens.
    pub fn opens(&self, root: &H256, completion_tokens: u32) -> bool {
        let count = window_count(completion_tokens);
        if self.index >= count {
            return false;
        }
        let hash = window_hash(&self.previous, &self.bytes);
        merkle::verify(root, &hash, self.index.saturating_add(1), count.saturating_add(1), &self.proof)
    }
}

impl Transcript {
    /// The root: [`merkle::root`] over the request id and the window hashes.
    pub fn root(&self) -> H256 {
        merkle::root(&self.leaves())
    }

    /// Chained hashes of the windows.
    pub fn window_hashes(&self) -> Vec<H256> {
        let mut hashes = self.leaves();
        hashes.remove(0);
        hashes
    }

    /// Request id and window hashes.
    fn leaves(&self) -> Vec<H256> {
        let mut previous = self.header.id();
        let mut leaves = Vec::with_capacity(self.windows.len() + 1);
        leaves.push(previous);
        for bytes in &self.windows {
            previous = window_hash(&previous, bytes);
            leaves.push(previous);
        }
        leaves
    }

    /// All records, decoded; at most [`MAX_K`] candidates each.
    pub fn records(&self) -> Result<Vec<TokenRecord>, WindowError> {
        let mut records = Vec::new();
        for bytes in &self.windows {
            records.append(&mut Window::decode(bytes, MAX_K)?.records);
        }
        Ok(records)
    }

    /// The chosen tokens.
    pub fn tokens(&self) -> Result<Vec<u32>, WindowError> {
        Ok(self.records()?.iter().filter_map(|record| record.chosen().map(|chosen| chosen.token)).collect())
    }

    /// Tokens of the completion, if all windows but the last are full, as replaying demands: only the last is decoded.
    pub fn completion_tokens(&self) -> Result<u32, WindowError> {
        let Some((last, full)) = self.windows.split_last() else { return Ok(0) };
        let full = u32::try_from(full.len()).unwrap_or(u32::MAX).saturating_mul(WINDOW_TOKENS as u32);
        Ok(full.saturating_add(Window::decode(last, MAX_K)?.records.len() as u32))
    }

    /// Bytes of the SCALE encoding: what storing and sending it takes.
    pub fn encoded_len(&self) -> usize {
        self.encoded_size()
    }

    /// Opens one window; `None` when there is no such window.
    pub fn window_proof(&self, index: u32) -> Option<WindowProof> {
        let bytes = self.windows.get(index as usize)?.clone();
        let leaves = self.leaves();
        let previous = *leaves.get(index as usize)?;
        Some(WindowProof { index, previous, bytes, proof: merkle::proof(&leaves, index + 1) })
    }
}

/// A window that has just been closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ClosedWindow {
    /// Its number, from 0.
    pub index: u32,
    /// Its encoding.
    pub bytes: Vec<u8>,
    /// Its chained hash.
    pub hash: H256,
}

/// Builds a transcript token by token.
#[derive(Clone, Debug)]
pub struct TranscriptBuilder {
    transcript: Transcript,
    running_hash: H256,
    open: Vec<TokenRecord>,
}

impl TranscriptBuilder {
    /// Nothing generated yet.
    pub fn new(header: RequestHeader) -> Self {
        let running_hash = header.id();
        let open = Vec::with_capacity(WINDOW_TOKENS);
        Self { transcript: Transcript { header, windows: Vec::new() }, running_hash, open }
    }

    /// Appends a record, which must be valid ([`TokenRecord::check`]); returns the window that it closes.
    pub fn push(&mut self, record: TokenRecord) -> Option<ClosedWindow> {
        self.open.push(record);
        if self.open.len() < WINDOW_TOKENS {
            return None;
        }
        self.close()
    }

    /// Hash of the last closed window; before the first one, the request id.
    pub fn running_hash(&self) -> H256 {
        self.running_hash
    }

    /// The request header.
    pub fn header(&self) -> &RequestHeader {
        &self.transcript.header
    }

    /// Records pushed so far.
    pub fn token_count(&self) -> u32 {
        (self.transcript.windows.len() * WINDOW_TOKENS + self.open.len()) as u32
    }

    /// Closes the last window, if one is open.
    pub fn finish(mut self) -> (Transcript, Option<ClosedWindow>) {
        let last = self.close();
        (self.transcript, last)
    }

    fn close(&mut self) -> Option<ClosedWindow> {
        if self.open.is_empty() {
            return None;
        }
        let records = core::mem::replace(&mut self.open, Vec::with_capacity(WINDOW_TOKENS));
        let bytes = Window { records }.encode();
        let hash = window_hash(&self.running_hash, &bytes);
        let index = self.transcript.windows.len() as u32;
        self.running_hash = hash;
        self.transcript.windows.push(bytes.clone());
        Some(ClosedWindow { index, bytes, hash })
    }
}
