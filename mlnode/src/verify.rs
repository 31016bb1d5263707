//! What a verifier does before and after the model's pass.

use crate::{constraint::Constrained, source::Shape};
use codec::Decode;
use starling_mlnode_api::{VerifyItem, VerifyOutcome};
use starling_primitives::{
    constraint::check_bound,
    replay::{replay_alone, Checks},
    request::SamplingParams,
    tape::Tape,
    transcript::{TokenRecord, Transcript},
};
use starling_prompt::Tokenizer;
use std::sync::Arc;

/// A transcript that replays: what the teacher-forced pass needs.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Tokens to take in: the prompt and all of the completion but its last token.
    pub(crate) tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub(crate) prompt_len: usize,
    /// The completion.
    pub(crate) completion: Vec<u32>,
    /// What was committed, one per token of the completion.
    pub(crate) records: Vec<TokenRecord>,
    /// The noise.
    pub(crate) tape: Tape,
    /// Sampling parameters.
    pub(crate) params: SamplingParams,
    /// What the answer had to keep to.
    pub(crate) constraint: Option<Constrained>,
}

impl Ready {
    /// Tokens that its keys and values take.
    pub(crate) fn capacity(&self) -> u32 {
        self.tokens.len() as u32
    }
}

/// The check that needs no model: the transcript against itself, its header, its prompt, its constraint and its tape.
/// Whether the constraint was kept shows when the model's pass asks for what it allows.
/// It is compiled by [`compile_constraint`], which needs a tokenizer.
pub(crate) fn replay_item(item: &VerifyItem, shape: &Shape) -> Result<Ready, VerifyOutcome> {
    let failed = |reason: String| VerifyOutcome::ReplayFailed { reason };
    let transcript = Transcript::decode(&mut item.transcript.as_slice())
        .map_err(|_| failed("the transcript does not decode".into()))?;
    let completion_tokens = transcript
        .completion_tokens()
        .map_err(|error| failed(format!("the last window does not decode: {error}")))?;
    let (prompt_len, completion_len) = (item.prompt_tokens.len(), completion_tokens as usize);
    if prompt_len == 0 || completion_len == 0 {
        return Err(failed("prompt and completion must not be empty".into()));
    }
    if prompt_len.saturating_add(completion_len) > shape.max_context as usize {
        let reason = format!("{prompt_len} and {completion_len} tokens exceed this node's context");
        return Err(VerifyOutcome::Failed { reason });
    }
    if item.prompt_tokens.iter().any(|token| *token >= shape.vocab_size) {
        return Err(failed("the prompt has tokens outside the vocabulary".into()));
    }
    check_bound(item.constraint.as_ref(), &transcript.header, shape.vocab_size)
        .map_err(|error| failed(error.to_string()))?;
    let checks = Checks {
        prompt: Some(&item.prompt_tokens),
        vocab_size: Some(shape.vocab_size),
        top_k: Some(shape.top_k),
    };
    let replayed = replay_alone(&transcript, &item.tape_seed, completion_tokens, &checks)
        .map_err(|error| failed(error.to_string()))?;
    let completion = replayed.tokens;
    let taken = completion.split_last().map_or(&[][..], |(_, taken)| taken);
    Ok(Ready {
        tokens: [item.prompt_tokens.as_slice(), taken].concat(),
        prompt_len,
        completion,
        records: replayed.records,
        tape: Tape::new(&item.tape_seed),
        params: transcript.header.sampling,
        constraint: None,
    })
}

/// Makes what replayed ready for the model's pass.
pub(crate) fn compile_constraint(ready: Ready, item: &VerifyItem, tokenizer: &Arc<Tokenizer>) -> Ready {
    let constraint = item.constraint.as_ref().map(|constraint| Constrained::new(constraint, tokenizer));
    Ready { constraint, ..ready }
}

/// How metrics call an outcome.
pub(crate) fn label(outcome: &VerifyOutcome) -> &'static str {
    match outcome {
        VerifyOutcome::Figures(_) => "figures",
        VerifyOutcome::ReplayFailed { .. } => "replay_failed",
        VerifyOutcome::ConstraintBroken { .. } => "constraint_broken",
        VerifyOutcome::Failed { .. } => "failed",
    }
}
