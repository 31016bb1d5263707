//! Safetensors files of a model folder.

use super::{ops::During, ModelError};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Component, Path, PathBuf},
};
use tch::{Kind, Tensor};

/// Names of the safetensors files of a folder, sorted: those that the index names, or the only one.
pub fn weight_files(folder: &Path) -> Result<Vec<String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = folder.join("model.safetensors.index.json");
    if !path.exists() {
        return Ok(vec!["model.safetensors".into()]);
    }
    let text =
        std::fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
    let index: Index =
        serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.clone(), source })?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    for name in &names {
        // The index is part of a download: it must not lead out of the folder.
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(ModelError::Unsupported(format!("{} names the file {name:?}", path.display())));
        }
    }
    Ok(names.into_iter().collect())
}

/// Maps a file into memory.
pub(crate) fn map(path: &Path) -> Result<Mmap, ModelError> {
    let failed = |source| ModelError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is only read. Somebody who truncates a model file while it is read can kill the process, as with
    // every program that maps its weights; a changed byte is a wrong weight, which the digest is there to notice.
    #[allow(unsafe_code, reason = "mapping a file is unsafe by nature; see above")]
    unsafe { Mmap::map(&file) }.map_err(failed)
}

/// The tensors of a model folder, taken one by one.
pub(crate) struct Weights {
    files: Vec<(PathBuf, Mmap)>,
    /// File and shape of what was not taken yet.
    left: BTreeMap<String, usize>,
    parameters: u64,
}

impl Weights {
    pub(crate) fn open(folder: &Path) -> Result<Self, ModelError> {
        let mut weights = Self { files: Vec::new(), left: BTreeMap::new(), parameters: 0 };
        for name in weight_files(folder)? {
            let path = folder.join(name);
            let map = map(&path)?;
            let tensors = parse(&path, &map)?;
            for tensor in tensors.names() {
                weights.left.insert(tensor.into(), weights.files.len());
            }
            weights.files.push((path, map));
        }
        Ok(weights)
    }

    /// The tensor of this name as f32. It must have this shape.
    pub(crate) fn take(&mut self, name: &str, shape: &[u32]) -> Result<Tensor, ModelError> {
        let missing = || ModelError::MissingTensor(name.into());
        let file = self.left.remove(name).ok_or_else(missing)?;
        let (path, map) = self.files.get(file).ok_or_else(missing)?;
        let tensors = parse(path, map)?;
        let view =
            tensors.tensor(name).map_err(|source| ModelError::Safetensors { path: path.clone(), source })?;
        let found: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
        let expected: Vec<i64> = shape.iter().map(|n| i64::from(*n)).collect();
        if found != expected {
            return Err(ModelError::Shape { name: name.into(), found, expected });
        }
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => return Err(ModelError::Unsupported(format!("{name} is stored as {other:?}"))),
        };
        self.parameters += found.iter().product::<i64>() as u64;
        let stored = Tensor::f_from_data_size(view.data(), &found, kind).during("reading weights")?;
        stored.f_to_kind(Kind::Float).during("widening weights")
    }

    /// Forgets a tensor that is not needed.
    pub(crate) fn skip(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// Ends the loading: a tensor that nobody took means that the model is not what its config says.
    pub(crate) fn finish(self) -> Result<u64, ModelError> {
        match self.left.keys().find(|name| !name.ends_with("rotary_emb.inv_freq")) {
            Some(name) => Err(ModelError::UnknownTensor(name.clone())),
            None => Ok(self.parameters),
        }
    }
}

fn parse<'a>(path: &Path, map: &'a Mmap) -> Result<SafeTensors<'a>, ModelError> {
    SafeTensors::deserialize(map).map_err(|source| ModelError::Safetensors { path: path.into(), source })
}
