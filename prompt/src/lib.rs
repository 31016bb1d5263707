//! What a chat request means: OpenAI request to tokens, sampling parameters and stops.
//!
//! Client, gateway and ML node must agree on every token of a prompt and on every sampling parameter, because both
//! are hashed into the request id. This crate is the one place where a request in OpenAI's words becomes those
//! numbers, and where generated tokens become OpenAI's answers again:
//!
//! - [`openai`]: the wire types.
//! - [`TokenizerBundle`]: tokenizer, chat template and defaults of a model as one value with a digest.
//! - [`Tokenizer`]: text to tokens, messages to tokens, tokens to text.
//! - [`plan`]: request to [`Planned`], or an [`ApiError`] as OpenAI words it; [`AnyRequest`] for either form of the API.
//! - [`GrammarState`]: the tokens that a request's grammar allows next.
//! - [`Detokenizer`] and [`StopMatcher`]: tokens to text while they arrive.
//! - [`Answer`]: tokens to chunks and to the final body.
//!
//! Everything is a pure function of its arguments: no clock, no random numbers, no network.

#![forbid(unsafe_code)]

mod answer;
mod bundle;
mod constraint;
mod detokenizer;
mod grammar;
pub mod openai;
mod plan;
mod stop;
mod template;
mod tokenizer;
mod tool_calls;
mod tools;

pub use answer::{Answer, AnswerMeta};
pub use bundle::{BundleError, GenerationDefaults, TokenizerBundle};
pub use detokenizer::Detokenizer;
pub use grammar::{GrammarState, TokenSet};
pub use openai::{ApiError, PlanError};
pub use plan::{
    parse_completion, parse_request, plan, plan_completion, AnyRequest, Limits, Planned, MAX_STOP_BYTES,
    MAX_STOP_STRINGS,
};
pub use stop::StopMatcher;
pub use tokenizer::{Tokenizer, TokenizerError};
pub use tool_calls::ToolFormat;

#[cfg(test)]
mod test_support;
