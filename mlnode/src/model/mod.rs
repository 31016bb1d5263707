//! Models: weights and arithmetic. Nothing here knows of requests, tapes or transcripts.

mod config;
mod ops;
mod qwen3;
mod weights;

pub use config::ModelConfig;
pub(crate) use ops::{indices, to_f32, to_i64, During};
pub use qwen3::{Qwen3, Rows, SequenceKv};
pub(crate) use weights::map;
pub use weights::weight_files;

use std::path::PathBuf;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file is missing or cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not the JSON that it should be.
    #[error("cannot parse {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A weight file is damaged.
    #[error("cannot parse {}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// The model is of a kind that the engine does not implement.
    #[error("the model is not supported: {0}")]
    Unsupported(String),
    /// A weight is missing.
    #[error("the weights lack the tensor {0}")]
    MissingTensor(String),
    /// A weight has no place in the model.
    #[error("the weights have a tensor that the model has no place for: {0}")]
    UnknownTensor(String),
    /// A weight has another shape than the config says.
    #[error("the tensor {name} has the shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<i64>,
        /// The shape that the config asks for.
        expected: Vec<i64>,
    },
    /// libtorch failed.
    #[error("libtorch failed while {operation}")]
    Tensor {
        /// What was being done.
        operation: &'static str,
        /// libtorch's words.
        #[source]
        source: tch::TchError,
    },
    /// More tokens than the cache was made for.
    #[error("{tokens} tokens do not fit a cache of {capacity}")]
    CacheFull {
        /// Tokens that were to be stored.
        tokens: u32,
        /// What the cache holds.
        capacity: u32,
    },
    /// The model gave numbers that are none.
    #[error("the model's output is not finite")]
    NotFinite,
}
