//! What an answer must look like: a bias on tokens, and the text that may be written at all.
//!
//! A [`RequestHeader`] holds the hash of its constraint; the constraint itself travels beside the prompt. Executor and
//! verifier apply it to the model's logits before the best candidates are taken, so what is committed to are the
//! candidates that it leaves. That is why replay, and with it the chain, need no constraint: the header's hash binds it,
//! and whether it was obeyed is for verifiers to say, who hold the model's tokenizer.

use crate::{hashing::hash_of, request::RequestHeader, H256};
use alloc::{string::String, vec::Vec};
use codec::{Decode, DecodeWithMemTracking, Encode};
use core::fmt;

/// Tokens with a bias at most, as in the OpenAI API.
pub const MAX_BIASED_TOKENS: usize = 300;
/// Largest bias, in 1/1000 of a logit: 100, as in the OpenAI API.
pub const MAX_BIAS_MILLI: i32 = 100_000;
/// Bytes of a grammar's texts together at most.
pub const MAX_GRAMMAR_BYTES: usize = 32 << 10;

/// What is added to one token's logit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TokenBias {
    /// Token id.
    pub token: u32,
    /// In 1/1000, at most [`MAX_BIAS_MILLI`] either way. Added after the penalties.
    pub milli: i32,
}

/// The texts that may be written: `before`, a JSON value that the schema describes, `after`. With texts around it, one
/// schema serves both for answers in JSON and for calls of tools.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Grammar {
    /// Text in front of the value; may be empty.
    pub before: String,
    /// JSON Schema of the value, as the text of a JSON object.
    pub schema: String,
    /// Text behind the value; may be empty.
    pub after: String,
}

/// Bias and grammar of a request; at least one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Constraint {
    /// At most [`MAX_BIASED_TOKENS`], strictly ascending by token, none of them 0.
    pub logit_bias: Vec<TokenBias>,
    /// At most [`MAX_GRAMMAR_BYTES`]; any text when absent.
    pub grammar: Option<Grammar>,
}

/// What is wrong with a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConstraintError {
    /// It constrains nothing: then there must be none.
    Empty,
    /// Too many tokens have a bias.
    BiasCount,
    /// A bias is 0 or too large.
    BiasRange,
    /// The biased tokens are not strictly ascending.
    BiasOrder,
    /// A biased token is not in the vocabulary.
    BiasToken,
    /// The grammar is too long.
    GrammarLength,
    /// The header names another constraint, or one where there is none.
    OtherHash,
}

impl fmt::Display for ConstraintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the constraint is empty",
            Self::BiasCount => "too many tokens have a bias",
            Self::BiasRange => "a bias is zero or out of range",
            Self::BiasOrder => "the biased tokens are not strictly ascending",
            Self::BiasToken => "a biased token is not in the vocabulary",
            Self::GrammarLength => "the grammar is too long",
            Self::OtherHash => "the constraint is not the one in the header",
        })
    }
}

impl core::error::Error for ConstraintError {}

impl Constraint {
    /// What [`RequestHeader::constraint`] holds: `blake2_256("starling/constraint" ++ SCALE(constraint))`.
    pub fn hash(&self) -> H256 {
        hash_of(b"starling/constraint", self)
    }

    /// Whether it keeps to the bounds. A grammar within them may still be one that nobody can follow.
    pub fn check(&self, vocab_size: u32) -> Result<(), ConstraintError> {
        let bias = &self.logit_bias;
        if bias.is_empty() && self.grammar.is_none() {
            return Err(ConstraintError::Empty);
        }
        if bias.len() > MAX_BIASED_TOKENS {
            return Err(ConstraintError::BiasCount);
        }
        if bias.iter().any(|b| b.milli == 0 || b.milli.unsigned_abs() > MAX_BIAS_MILLI.unsigned_abs()) {
            return Err(ConstraintError::BiasRange);
        }
        if !bias.is_sorted_by(|a, b| a.token < b.token) {
            return Err(ConstraintError::BiasOrder);
        }
        if bias.last().is_some_and(|b| b.token >= vocab_size) {
            return Err(ConstraintError::BiasToken);
        }
        let length =
            |g: &Grammar| g.before.len().saturating_add(g.schema.len()).saturating_add(g.after.len());
        if self.grammar.as_ref().is_some_and(|g| length(g) > MAX_GRAMMAR_BYTES) {
            return Err(ConstraintError::GrammarLength);
        }
        Ok(())
    }
}

/// Whether this is what a header is bound to: its constraint, within the bounds, or none where it names none.
pub fn check_bound(
    constraint: Option<&Constraint>,
    header: &RequestHeader,
    vocab_size: u32,
) -> Result<(), ConstraintError> {
    if let Some(constraint) = constraint {
        // The bounds first: they bound the work of hashing.
        constraint.check(vocab_size)?;
    }
    if constraint.map(Constraint::hash) == header.constraint {
        Ok(())
    } else {
        Err(ConstraintError::OtherHash)
    }
}
