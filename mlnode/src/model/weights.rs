//! Safetensors files of a model folder.

use super::ModelError;
use crate::kernel::{Matrix, Packing};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Component, Path, PathBuf},
};

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
    /// What was not taken yet, with its place.
    left: BTreeMap<String, Stored>,
    parameters: u64,
}

/// Where a tensor lies, and as what.
#[derive(Clone)]
struct Stored {
    file: usize,
    bytes: std::ops::Range<usize>,
    shape: Vec<usize>,
    kind: Dtype,
}

/// A tensor as it lies in its file.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a> {
    kind: Kind,
    bytes: &'a [u8],
}

/// Storage that the engine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    Bf16,
    F16,
}

impl Raw<'_> {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The numbers as f32.
    pub(crate) fn widened(&self) -> Vec<f32> {
        match self.kind {
            Kind::F32 => f32s(self.bytes).collect(),
            Kind::Bf16 => bf16s(self.bytes).map(bf16::to_f32).collect(),
            Kind::F16 => f16s(self.bytes).map(f16::to_f32).collect(),
        }
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl ExactSizeIterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn f32s(bytes: &[u8]) -> impl ExactSizeIterator<Item = f32> + '_ {
    words(bytes).map(f32::from_le_bytes)
}

fn bf16s(bytes: &[u8]) -> impl ExactSizeIterator<Item = bf16> + '_ {
    words(bytes).map(bf16::from_le_bytes)
}

fn f16s(bytes: &[u8]) -> impl ExactSizeIterator<Item = f16> + '_ {
    words(bytes).map(f16::from_le_bytes)
}

impl Weights {
    pub(crate) fn open(folder: &Path) -> Result<Self, ModelError> {
        let mut weights = Self { files: Vec::new(), left: BTreeMap::new(), parameters: 0 };
        for name in weight_files(folder)? {
            let path = folder.join(name);
            let map = map(&path)?;
            weights.list(&path, &map)?;
            weights.files.push((path, map));
        }
        Ok(weights)
    }

    fn list(&mut self, path: &Path, map: &Mmap) -> Result<(), ModelError> {
        let failed = |source| ModelError::Safetensors { path: path.into(), source };
        for (name, view) in SafeTensors::deserialize(map).map_err(failed)?.tensors() {
            // The data of a view lies within the map.
            let start = view.data().as_ptr().addr() - map.as_ptr().addr();
            let bytes = start..start + view.data().len();
            let shape = view.shape().to_vec();
            self.left.insert(name, Stored { file: self.files.len(), bytes, shape, kind: view.dtype() });
        }
        Ok(())
    }

    /// The tensor of this name, which must have this shape.
    pub(crate) fn take(&mut self, name: &str, shape: &[u32]) -> Result<Raw<'_>, ModelError> {
        let missing = || ModelError::MissingTensor(name.into());
        let stored = self.left.remove(name).ok_or_else(missing)?;
        let expected: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
        if stored.shape != expected {
            let sizes = |shape: &[usize]| shape.iter().map(|n| *n as i64).collect();
            let (found, expected) = (sizes(&stored.shape), sizes(&expected));
            return Err(ModelError::Shape { name: name.into(), found, expected });
        }
        let kind = match stored.kind {
            Dtype::F32 => Kind::F32,
            Dtype::F16 => Kind::F16,
            Dtype::BF16 => Kind::Bf16,
            other => return Err(ModelError::Unsupported(format!("{name} is stored as {other:?}"))),
        };
        self.parameters += expected.iter().product::<usize>() as u64;
        let (_, map) = self.files.get(stored.file).ok_or_else(missing)?;
        Ok(Raw { kind, bytes: map.get(stored.bytes).ok_or_else(missing)? })
    }

    /// A vector, as f32.
    pub(crate) fn vector(&mut self, name: &str, length: u32) -> Result<Vec<f32>, ModelError> {
        Ok(self.take(name, &[length])?.widened())
    }

    /// Matrices of so many rows each, one below the other, packed as they are stored; as f32 where that differs.
    pub(crate) fn matrix(&mut self, parts: &[(String, u32)], inputs: u32) -> Result<Matrix, ModelError> {
        let outputs: usize = parts.iter().map(|(_, rows)| *rows as usize).sum();
        let kinds: Vec<_> = parts.iter().filter_map(|(name, _)| Some(self.left.get(name)?.kind)).collect();
        let kind = kinds.first().copied().filter(|first| kinds.iter().all(|kind| kind == first));
        let shape = (outputs, inputs);
        match kind {
            Some(Dtype::BF16) => self.pack(parts, shape, |raw| bf16s(raw.bytes).collect()),
            Some(Dtype::F16) => self.pack(parts, shape, |raw| f16s(raw.bytes).collect()),
            _ => self.pack(parts, shape, |raw| raw.widened()),
        }
    }

    #[allow(private_bounds, reason = "the storage types are closed: f32, bf16 and f16")]
    fn pack<W: crate::kernel::Plain>(
        &mut self,
        parts: &[(String, u32)],
        (outputs, inputs): (usize, u32),
        read: impl Fn(Raw<'_>) -> Vec<W>,
    ) -> Result<Matrix, ModelError>
    where
        Matrix: From<Packing<W>>,
    {
        let width = inputs as usize;
        let mut packing = Packing::new(outputs, width).map_err(|source| ModelError::Memory { source })?;
        for (name, rows) in parts {
            let raw = self.take(name, &[*rows, inputs])?;
            let size = size_of_kind(raw.kind) * width;
            for bytes in raw.bytes.chunks_exact(size) {
                packing.push(read(Raw { kind: raw.kind, bytes }).into_iter());
            }
        }
        Ok(packing.into())
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

fn size_of_kind(kind: Kind) -> usize {
    match kind {
        Kind::F32 => 4,
        Kind::Bf16 | Kind::F16 => 2,
    }
}
