//! Models: weights and arithmetic. Nothing here knows of requests, tapes or transcripts.

mod attention;
mod config;
mod decoder;
mod experts;
mod feed_forward;
mod files;
mod kv;
mod libtorch;
mod memory;
mod precision;
mod progress;
mod quantised;
mod rope;
mod weights;

pub use config::{Experts, Family, ModelConfig};
pub use decoder::Decoder;
pub(crate) use files::map;
pub use kv::{KvBlock, SequenceKv, BLOCK_TOKENS};
pub use libtorch::{Libtorch, LibtorchKv};
pub use memory::{available, Memory};
pub use precision::{BadPrecision, Precision};
pub(crate) use progress::Progress;
pub use quantised::WeightBlocks;
pub use rope::RopeScaling;
pub use weights::{check_room, parameters, weight_files};

use crate::{
    distribution::Distribution,
    kernel::{Pool, RowBuffer},
};
use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

/// New tokens of one sequence.
#[derive(Debug)]
pub struct Rows<'a, Kv = SequenceKv> {
    /// Where the sequence's keys and values are kept.
    pub kv: &'a mut Kv,
    /// The tokens that follow what is stored; at least one.
    pub tokens: &'a [u32],
    /// Which of these tokens' rows the caller wants logits for: so many of the last.
    pub logits: u32,
}

/// What is asked about the distribution of a wanted row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// What is added to logits first, by token; each token once.
    pub changes: Vec<(u32, f32)>,
    /// Tokens whose log-probabilities are wanted beside those of the best.
    pub asked: Vec<u32>,
}

/// What bounds every engine on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bytes read per second.
    pub read_bandwidth: f64,
    /// Floating-point operations of a large product per second.
    pub product_rate: f64,
}

/// What runs sequences of tokens.
pub trait Model {
    /// Keys and values of one sequence.
    type Kv;

    /// Whether it answers [`Self::distributions`].
    const DISTRIBUTES: bool = false;

    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// Number of weights, those of all experts included.
    fn parameters(&self) -> u64;

    /// Number of weights that each token meets: all but those of the experts that it does not use.
    fn parameters_per_token(&self) -> u64 {
        self.parameters()
    }

    /// Bytes of weights that a step of one token reads, of the experts those that it uses: what bounds decoding.
    fn weight_bytes(&self) -> u64;

    /// Name of the class of its numerics, as in a profile.
    fn numerics(&self) -> &'static str;

    /// Runs on these threads from now on.
    fn set_pool(&mut self, pool: Arc<Pool>);

    /// Makes room for the keys and values of so many tokens, all sequences together, where that must be done beforehand.
    fn reserve(&mut self, _tokens: u32) -> Result<(), ModelError> {
        Ok(())
    }

    /// An empty cache for a sequence of at most `capacity` tokens.
    fn new_sequence(&self, capacity: u32) -> Result<Self::Kv, ModelError>;

    /// Runs new tokens of several sequences and stores their keys and values. The wanted rows, in the order of `batch`,
    /// can then be asked for ([`Self::logits`]). After an error the sequences of the batch are of no more use.
    fn forward(&mut self, batch: &mut [Rows<'_, Self::Kv>]) -> Result<(), ModelError>;

    /// Logits of some of the wanted rows of the last [`Self::forward`], to be changed at will.
    fn logits(&mut self, rows: Range<usize>) -> Result<&mut RowBuffer, ModelError>;

    /// Distributions of all wanted rows of the last [`Self::forward`], one question each: the best `k` and what was asked for;
    /// and the time that it took from logits to these. Only of models that compute them where the logits are
    /// ([`Self::DISTRIBUTES`]); [`Distribution::new`] does it with the logits of others.
    fn distributions(
        &mut self,
        _k: usize,
        _questions: &[Question],
    ) -> Result<(Vec<Distribution>, Duration), ModelError> {
        Ok((Vec::new(), Duration::ZERO))
    }

    /// Measures the device. `None` where it is the processor.
    fn rates(&self) -> Option<Result<Rates, ModelError>> {
        None
    }

    /// A full block of a sequence's keys and values, to be given to others ([`Self::adopt`]). `None` where the block is
    /// not full, or blocks cannot be shared.
    fn full_block(_kv: &Self::Kv, _index: usize) -> Option<Arc<KvBlock>> {
        None
    }

    /// Starts an empty sequence with the blocks of another one's first tokens. False, and nothing done, where that is
    /// not possible.
    fn adopt(_kv: &mut Self::Kv, _blocks: Vec<Arc<KvBlock>>) -> bool {
        false
    }
}

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
    /// A file is larger than any real one.
    #[error("{} has more than {most} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it may have.
        most: u64,
    },
    /// The weights are larger than the memory that is free.
    #[error("the weights take {} MiB, and {} MiB of memory are free", needed >> 20, free >> 20)]
    NoRoom {
        /// Bytes of the weights.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// There is no memory for the weights.
    #[error("there is no memory for the weights")]
    Memory {
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// There is no memory for keys and values.
    #[error(
        "the device has no memory for the keys and values of {tokens} tokens ({} MiB): lower limits.kv_tokens",
        bytes >> 20
    )]
    KvMemory {
        /// Tokens that there was to be room for.
        tokens: u32,
        /// Bytes that they take.
        bytes: u64,
        /// libtorch's words.
        #[source]
        source: tch::TchError,
    },
    /// All room for keys and values is taken.
    #[error("a sequence of {tokens} tokens finds room for only {free}")]
    NoKvRoom {
        /// Tokens of the sequence, in blocks.
        tokens: u32,
        /// Tokens of nobody.
        free: u32,
    },
    /// A device was asked for that is not there.
    #[error("there is no device {device}: {reason}")]
    NoDevice {
        /// What was asked for.
        device: String,
        /// What is there, or what went wrong.
        reason: String,
    },
    /// A block of keys and values that is not full is shared: a defect of the engine.
    #[error("a block of keys and values that is still written to is shared")]
    SharedBlock,
    /// The model gave numbers that are none.
    #[error("the model's output is not finite")]
    NotFinite,
}
