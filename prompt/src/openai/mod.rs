//! Wire types of the OpenAI chat API, as its official clients send and read them.

mod error;
mod request;
mod response;

pub use error::{ApiError, ErrorBody, ErrorDetail, PlanError};
pub use request::{
    ChatCompletionRequest, ChatMessage, ContentPart, MessageContent, StopStrings, StreamOptions,
};
pub use response::{
    AssistantMessage, ChatCompletion, ChatCompletionChunk, Choice, ChoiceLogprobs, ChunkChoice, Delta,
    FinishReason, Model, ModelList, TokenLogprob, TopLogprob, Usage,
};
