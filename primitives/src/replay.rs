//! Replay: the check of a transcript that needs no model and tolerates nothing.
//!
//! Hashes, header and the integer sampler are repeated over every token. Whoever holds the transcript can do it; a
//! single window with its Merkle proof is enough to show a fraud ([`prove_fraud`]), so the runtime can do it too.

use crate::{
    records::{response_hash, Finished},
    request::{prompt_hash, RequestHeader},
    sampler::sample_on,
    sprint::SprintTask,
    tape::Tape,
    transcript::{window_count, TokenRecord, Transcript, Window, WindowError, WindowProof, WINDOW_TOKENS},
    H256,
};
use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode};
use core::fmt;
use scale_info::TypeInfo;

/// What else the replay is held against, where it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checks<'a> {
    /// Token ids of the prompt.
    pub prompt: Option<&'a [u32]>,
    /// Token ids must lie below.
    pub vocab_size: Option<u32>,
    /// The profile's K; [`crate::profile::MAX_K`] otherwise.
    pub top_k: Option<u8>,
}

/// A transcript that replays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The generated tokens.
    pub tokens: Vec<u32>,
    /// The records they come from.
    pub records: Vec<TokenRecord>,
}

/// What disagrees, and where. Positions count generated tokens from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum ReplayError {
    /// The header is not the one that was asked for.
    RequestId {
        /// Id of the header found.
        found: H256,
        /// Id that was asked for.
        expected: H256,
    },
    /// The prompt is not the one in the header.
    PromptHash {
        /// Hash of the prompt given.
        found: H256,
        /// Hash in the header.
        expected: H256,
    },
    /// The number of prompt tokens differs.
    PromptCount {
        /// Tokens of the prompt given.
        found: u32,
        /// Tokens claimed.
        expected: u32,
    },
    /// More tokens are claimed than the header allows.
    AboveMaxTokens {
        /// Tokens claimed.
        found: u32,
        /// The header's limit.
        limit: u32,
    },
    /// The number of windows does not fit the number of tokens.
    WindowCount {
        /// Windows in the transcript.
        found: u32,
        /// Windows that the claimed tokens fill.
        expected: u32,
    },
    /// The transcript is not the one committed to.
    Root {
        /// Root of the transcript found.
        found: H256,
        /// Root committed to.
        expected: H256,
    },
    /// The first window does not continue the request id.
    Unchained {
        /// Hash it continues.
        found: H256,
        /// The request id.
        expected: H256,
    },
    /// The bytes of a window do not decode.
    Window {
        /// The window.
        index: u32,
        /// Why.
        error: WindowError,
    },
    /// A window holds the wrong number of tokens.
    WindowLength {
        /// The window.
        index: u32,
        /// Tokens in it.
        found: u32,
        /// Tokens that belong there.
        expected: u32,
    },
    /// A candidate lies outside the vocabulary.
    OutsideVocabulary {
        /// Where.
        position: u32,
        /// The token id.
        token: u32,
    },
    /// The sampler picks another candidate.
    Chosen {
        /// Where.
        position: u32,
        /// The token that the record says.
        found: u32,
        /// The token that the sampler picks.
        expected: u32,
    },
    /// The tokens are not those of the answer.
    ResponseHash {
        /// Hash of the tokens found.
        found: H256,
        /// Hash committed to.
        expected: H256,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestId { found, expected } => {
                write!(f, "request id is {found:?}, expected {expected:?}")
            }
            Self::PromptHash { found, expected } => {
                write!(f, "prompt hash is {found:?}, expected {expected:?}")
            }
            Self::PromptCount { found, expected } => {
                write!(f, "prompt has {found} tokens, {expected} claimed")
            }
            Self::AboveMaxTokens { found, limit } => {
                write!(f, "{found} tokens claimed, at most {limit} allowed")
            }
            Self::WindowCount { found, expected } => write!(f, "{found} windows, expected {expected}"),
            Self::Root { found, expected } => {
                write!(f, "transcript root is {found:?}, expected {expected:?}")
            }
            Self::Unchained { found, expected } => {
                write!(f, "the first window continues {found:?}, expected {expected:?}")
            }
            Self::Window { index, .. } => write!(f, "window {index} does not decode"),
            Self::WindowLength { index, found, expected } => {
                write!(f, "window {index} holds {found} tokens, expected {expected}")
            }
            Self::OutsideVocabulary { position, token } => {
                write!(f, "token {token} offered at position {position} lies outside the vocabulary")
            }
            Self::Chosen { position, found, expected } => {
                write!(f, "token {found} was chosen at position {position}, the tape picks {expected}")
            }
            Self::ResponseHash { found, expected } => {
                write!(f, "response hash is {found:?}, expected {expected:?}")
            }
        }
    }
}

impl core::error::Error for ReplayError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Window { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Replays a transcript against what its executor put on chain.
pub fn replay(
    transcript: &Transcript,
    tape_seed: &H256,
    expected: &Finished,
) -> Result<Replayed, ReplayError> {
    replay_with(transcript, tape_seed, expected, &Checks::default())
}

/// [`replay`], held against the prompt and the profile as well.
pub fn replay_with(
    transcript: &Transcript,
    tape_seed: &H256,
    expected: &Finished,
    checks: &Checks<'_>,
) -> Result<Replayed, ReplayError> {
    let header = &transcript.header;
    equal(header.id(), expected.request_id)
        .map_err(|(found, expected)| ReplayError::RequestId { found, expected })?;
    if let Some(prompt) = checks.prompt {
        let (found, expected) = (prompt.len() as u32, expected.prompt_tokens);
        if found != expected {
            return Err(ReplayError::PromptCount { found, expected });
        }
    }
    check_prompt(header, checks)?;
    check_root(transcript, &expected.transcript_root, expected.completion_tokens)?;
    let replayed = replay_windows(transcript, tape_seed, expected.completion_tokens, checks)?;
    equal(response_hash(&replayed.tokens), expected.response_hash)
        .map_err(|(found, expected)| ReplayError::ResponseHash { found, expected })?;
    Ok(replayed)
}

/// Replays a transcript of which nothing else is known: that it is what somebody committed to, its root and the hash of its
/// tokens, is for the caller to say. `completion_tokens` is [`Transcript::completion_tokens`].
pub fn replay_alone(
    transcript: &Transcript,
    tape_seed: &H256,
    completion_tokens: u32,
    checks: &Checks<'_>,
) -> Result<Replayed, ReplayError> {
    check_prompt(&transcript.header, checks)?;
    check_window_count(transcript, completion_tokens)?;
    replay_windows(transcript, tape_seed, completion_tokens, checks)
}

/// Replays the transcript of one sprint nonce against the leaf that was committed to.
pub fn replay_sprint(
    transcript: &Transcript,
    task: &SprintTask,
    nonce: u32,
    leaf: &H256,
    top_k: u8,
) -> Result<Replayed, ReplayError> {
    equal(transcript.header.id(), task.header(nonce).id())
        .map_err(|(found, expected)| ReplayError::RequestId { found, expected })?;
    check_root(transcript, leaf, task.decode_tokens)?;
    let checks = Checks { prompt: None, vocab_size: Some(task.vocab_size), top_k: Some(top_k) };
    replay_windows(transcript, &task.tape_seed(nonce), task.decode_tokens, &checks)
}

/// Replays one window of a transcript with `completion_tokens` tokens; returns its records.
pub fn replay_window(
    header: &RequestHeader,
    tape_seed: &H256,
    window_index: u32,
    bytes: &[u8],
    completion_tokens: u32,
    checks: &Checks<'_>,
) -> Result<Vec<TokenRecord>, ReplayError> {
    replay_window_on(header, &Tape::new(tape_seed), window_index, bytes, completion_tokens, checks)
}

/// Why a fraud proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFraud {
    /// The header is not the request's.
    OtherHeader,
    /// The window is not part of the committed transcript.
    NotCommitted,
    /// The window replays.
    Replays,
}

impl fmt::Display for NoFraud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherHeader => "the header is not the request's",
            Self::NotCommitted => "the window is not part of the committed transcript",
            Self::Replays => "the window replays",
        })
    }
}

impl core::error::Error for NoFraud {}

/// Judges a fraud proof: `Ok` says what the executor committed to although it cannot be true.
///
/// Only what the executor committed to counts against it: a header or window of the accuser's making is refused. One
/// window shows what it holds, that the first one continues the request id and, when it is the only one, that the
/// answer is another one; a chain that breaks later and an answer of several windows take the whole transcript
/// ([`replay`]).
pub fn prove_fraud(
    header: &RequestHeader,
    tape_seed: &H256,
    commitment: &Finished,
    opened: &WindowProof,
    checks: &Checks<'_>,
) -> Result<ReplayError, NoFraud> {
    if header.id() != commitment.request_id {
        return Err(NoFraud::OtherHeader);
    }
    if !opened.opens(&commitment.transcript_root, commitment.completion_tokens) {
        return Err(NoFraud::NotCommitted);
    }
    match replay_opened(header, tape_seed, commitment, opened, checks) {
        Ok(()) => Err(NoFraud::Replays),
        Err(fraud) => Ok(fraud),
    }
}

fn replay_opened(
    header: &RequestHeader,
    tape_seed: &H256,
    commitment: &Finished,
    opened: &WindowProof,
    checks: &Checks<'_>,
) -> Result<(), ReplayError> {
    let (index, tokens) = (opened.index, commitment.completion_tokens);
    if index == 0 && opened.previous != commitment.request_id {
        return Err(ReplayError::Unchained { found: opened.previous, expected: commitment.request_id });
    }
    let records = replay_window(header, tape_seed, index, &opened.bytes, tokens, checks)?;
    if window_count(tokens) > 1 {
        return Ok(());
    }
    let answer: Vec<u32> =
        records.iter().filter_map(TokenRecord::chosen).map(|candidate| candidate.token).collect();
    equal(response_hash(&answer), commitment.response_hash)
        .map_err(|(found, expected)| ReplayError::ResponseHash { found, expected })
}

fn equal(found: H256, expected: H256) -> Result<(), (H256, H256)> {
    if found == expected {
        Ok(())
    } else {
        Err((found, expected))
    }
}

fn check_prompt(header: &RequestHeader, checks: &Checks<'_>) -> Result<(), ReplayError> {
    let Some(prompt) = checks.prompt else { return Ok(()) };
    equal(prompt_hash(prompt), header.prompt_hash)
        .map_err(|(found, expected)| ReplayError::PromptHash { found, expected })
}

fn check_root(transcript: &Transcript, root: &H256, completion_tokens: u32) -> Result<(), ReplayError> {
    check_window_count(transcript, completion_tokens)?;
    equal(transcript.root(), *root).map_err(|(found, expected)| ReplayError::Root { found, expected })
}

fn check_window_count(transcript: &Transcript, completion_tokens: u32) -> Result<(), ReplayError> {
    let (found, expected) = (transcript.windows.len() as u32, window_count(completion_tokens));
    match found == expected {
        true => Ok(()),
        false => Err(ReplayError::WindowCount { found, expected }),
    }
}

fn replay_windows(
    transcript: &Transcript,
    tape_seed: &H256,
    completion_tokens: u32,
    checks: &Checks<'_>,
) -> Result<Replayed, ReplayError> {
    let tape = Tape::new(tape_seed);
    let mut replayed = Replayed { tokens: Vec::new(), records: Vec::new() };
    for (index, bytes) in (0..).zip(&transcript.windows) {
        let header = &transcript.header;
        let mut records = replay_window_on(header, &tape, index, bytes, completion_tokens, checks)?;
        let chosen = records.iter().filter_map(TokenRecord::chosen);
        replayed.tokens.extend(chosen.map(|candidate| candidate.token));
        replayed.records.append(&mut records);
    }
    Ok(replayed)
}

fn replay_window_on(
    header: &RequestHeader,
    tape: &Tape,
    index: u32,
    bytes: &[u8],
    completion_tokens: u32,
    checks: &Checks<'_>,
) -> Result<Vec<TokenRecord>, ReplayError> {
    if completion_tokens > header.max_tokens {
        return Err(ReplayError::AboveMaxTokens { found: completion_tokens, limit: header.max_tokens });
    }
    let k = checks.top_k.unwrap_or(crate::profile::MAX_K);
    let window = Window::decode(bytes, k).map_err(|error| ReplayError::Window { index, error })?;
    let first_position = index.saturating_mul(WINDOW_TOKENS as u32);
    let expected = completion_tokens.saturating_sub(first_position).min(WINDOW_TOKENS as u32);
    let found = window.records.len() as u32;
    if found != expected {
        return Err(ReplayError::WindowLength { index, found, expected });
    }
    // In this order the range is never asked for a position after the last record's, which may be the last one of all.
    for (record, position) in window.records.iter().zip(first_position..) {
        replay_record(header, tape, position, record, checks)?;
    }
    Ok(window.records)
}

/// The record is valid already: it came out of the decoder.
fn replay_record(
    header: &RequestHeader,
    tape: &Tape,
    position: u32,
    record: &TokenRecord,
    checks: &Checks<'_>,
) -> Result<(), ReplayError> {
    if let Some(vocab_size) = checks.vocab_size {
        if let Some(outside) = record.candidates.iter().find(|candidate| candidate.token >= vocab_size) {
            return Err(ReplayError::OutsideVocabulary { position, token: outside.token });
        }
    }
    let sampled = sample_on(tape, position, &record.candidates, &header.sampling);
    if sampled == Some(usize::from(record.chosen)) {
        return Ok(());
    }
    let token = |index: Option<usize>| {
        index.and_then(|index| record.candidates.get(index)).map_or(0, |candidate| candidate.token)
    };
    let (found, expected) = (token(Some(record.chosen.into())), token(sampled));
    Err(ReplayError::Chosen { position, found, expected })
}
