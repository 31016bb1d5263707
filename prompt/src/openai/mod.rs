//! Wire types of the OpenAI chat API, as its official clients send and read them.

mod completion;
mod error;
mod request;
mod response;

pub use completion::{
    CompletionPrompt, CompletionRequest, TextChoice, TextCompletion, TextForm, TextLogprobs,
};
pub use error::{ApiError, ErrorBody, ErrorDetail, PlanError};
pub use request::{
    ChatCompletionRequest, ChatMessage, ContentPart, MessageContent, StopStrings, StreamOptions,
};
pub use response::{
    AssistantMessage, ChatCompletion, ChatCompletionChunk, Choice, ChoiceLogprobs, ChunkChoice, Delta,
    FinishReason, FunctionCall, Model, ModelList, PromptTokensDetails, TokenLogprob, ToolCall, TopLogprob,
    Usage,
};
