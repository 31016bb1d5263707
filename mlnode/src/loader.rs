//! From a model folder to something that runs.

use crate::{
    device::DeviceChoice,
    digest::{folder_digest, DigestError},
    model::{check_room, Decoder, Libtorch, Model, ModelError, Precision},
    readiness::Readiness,
    source::{ModelSource, SourceError, TokenSource},
};
use starling_mlnode_api::ModelDigest;
use starling_primitives::H256;
use starling_prompt::{Tokenizer, TokenizerError};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadSpec {
    /// Name to serve it under.
    pub name: String,
    /// The model folder.
    pub folder: PathBuf,
    /// Candidates per token.
    pub top_k: u8,
    /// Longest context to serve; the model's own when that is shorter.
    pub max_context: u32,
    /// Refuse weights with another digest.
    pub weights_digest: Option<H256>,
}

/// A model that is ready to run.
pub struct Loaded {
    /// Where its tokens come from.
    pub source: Box<dyn TokenSource>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// What it is.
    pub digest: ModelDigest,
    /// Whether work can be taken now.
    pub readiness: Readiness,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The weights are not the ones that were asked for.
    #[error("the weights have the digest {found:?}, expected {expected:?}")]
    OtherWeights {
        /// Digest of the folder.
        found: H256,
        /// Digest asked for.
        expected: H256,
    },
    /// The tokenizer has tokens that the model has not.
    #[error("the tokenizer has {tokenizer} tokens, the model only {model}")]
    Vocabulary {
        /// Entries of the tokenizer.
        tokenizer: u32,
        /// Entries of the model.
        model: u32,
    },
    /// The folder has no digest.
    #[error("the model folder is not usable")]
    Digest(#[from] DigestError),
    /// The tokenizer cannot be used.
    #[error("the tokenizer is not usable")]
    Tokenizer(#[from] TokenizerError),
    /// The weights cannot be used.
    #[error("the model is not usable")]
    Model(#[from] ModelError),
    /// There is no memory for what it is to run.
    #[error("the device has not the memory that the limits ask for")]
    Reserve(#[source] SourceError),
    /// A loader's own reason.
    #[error("{0}")]
    Other(String),
}

/// Makes what the engine runs. Called on the engine's thread, on which the source then stays.
pub trait Loader: Send + 'static {
    /// Loads a model.
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError>;
}

/// Loads Hugging Face folders, to be run by the engine's own kernels.
#[derive(Clone, Copy, Debug, Default)]
pub struct FolderLoader {
    /// What they compute with.
    pub precision: Precision,
}

impl Loader for FolderLoader {
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError> {
        // Before hours are spent on a digest.
        check_room(&spec.folder)?;
        load_as(spec, |folder| Decoder::load(folder, self.precision))
    }
}

/// Loads Hugging Face folders, to be run by libtorch.
#[derive(Clone, Copy, Debug)]
pub struct LibtorchLoader {
    /// Where they run.
    pub device: tch::Device,
    /// What they compute with.
    pub precision: Precision,
}

impl LibtorchLoader {
    /// On the processor, in the class that the engine's own kernels have with this precision.
    pub fn processor(precision: Precision) -> Self {
        Self { device: tch::Device::Cpu, precision }
    }
}

impl Loader for LibtorchLoader {
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError> {
        load_as(spec, |folder| Libtorch::load(folder, self.device, self.precision))
    }
}

/// Loads for a device: libtorch on CUDA, the engine's own kernels on the processor.
pub fn device_loader(
    device: DeviceChoice,
    cuda_library: Option<&Path>,
    precision: Precision,
) -> Result<Box<dyn Loader>, ModelError> {
    Ok(match device.resolve(cuda_library)? {
        Some(number) => Box::new(LibtorchLoader { device: tch::Device::Cuda(number), precision }),
        None => Box::new(FolderLoader { precision }),
    })
}

impl Loader for Box<dyn Loader> {
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError> {
        self.as_ref().load(spec)
    }
}

fn load_as<M: Model + 'static>(
    spec: &LoadSpec,
    load: impl Fn(&Path) -> Result<M, ModelError>,
) -> Result<Loaded, LoadError> {
    let (digest, tokenizer) = check_folder(spec)?;
    let source = ModelSource::new(load(&spec.folder)?, spec.top_k, spec.max_context, digest.weights_digest);
    Ok(Loaded { source: Box::new(source), tokenizer, digest, readiness: Readiness::default() })
}

/// What a folder holds beside the weights, if it is what was asked for.
pub(crate) fn check_folder(spec: &LoadSpec) -> Result<(ModelDigest, Arc<Tokenizer>), LoadError> {
    let digest = folder_digest(&spec.folder)?;
    if let Some(expected) = spec.weights_digest.filter(|expected| *expected != digest.weights_digest) {
        return Err(LoadError::OtherWeights { found: digest.weights_digest, expected });
    }
    let tokenizer = Tokenizer::load_from_folder(&spec.folder)?;
    if tokenizer.vocab_size() > digest.vocab_size {
        let (tokenizer, model) = (tokenizer.vocab_size(), digest.vocab_size);
        return Err(LoadError::Vocabulary { tokenizer, model });
    }
    Ok((digest, Arc::new(tokenizer)))
}
