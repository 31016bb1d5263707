//! Safetensors files of a model folder.

use super::{
    files::{map, read_small},
    memory,
    progress::Progress,
    quantised::WeightBlocks,
    ModelError,
};
use crate::kernel::{Fp8Packing, Fp8Row, Matrix, Packing, Pair, SCALE_MAX};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

/// Bytes of an index at most; that of a model of a trillion weights has some ten million.
const MAX_INDEX: u64 = 64 << 20;

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
    let text = read_small(&path, MAX_INDEX)?;
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

/// Refuses a folder whose weights are damaged or do not fit the memory that is free. Reads no weight.
pub fn check_room(folder: &Path) -> Result<(), ModelError> {
    Weights::open(folder)?.check_memory()
}

/// Number of weights in a folder, without the scales of 8-bit ones.
pub fn parameters(folder: &Path) -> Result<u64, ModelError> {
    let weights = Weights::open(folder)?;
    let tensors = weights.left.iter().filter(|(name, _)| !name.ends_with("_scale_inv"));
    Ok(tensors.map(|(_, stored)| stored.shape.iter().map(|size| *size as u64).product::<u64>()).sum())
}

/// The tensors of a model folder, taken one by one.
pub(crate) struct Weights {
    files: Vec<(PathBuf, Mmap)>,
    /// What was not taken yet, with its place.
    left: BTreeMap<String, Stored>,
    parameters: u64,
    /// Blocks of 8-bit weights, where the config says them.
    blocks: Option<WeightBlocks>,
    /// Whether matrices are packed for products of the class `bf16`.
    pairs: bool,
    progress: Progress,
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

/// A matrix of 8-bit weights as it lies in its file, checked: all weights and scales are sane numbers.
pub(crate) struct Fp8<'a> {
    bytes: &'a [u8],
    /// Row by row of blocks; see [`WeightBlocks`].
    scales: Vec<f32>,
    blocks: WeightBlocks,
    inputs: u32,
}

impl Fp8<'_> {
    /// The weights, E4M3, one output after the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The scales of the blocks, and their size.
    pub(crate) fn scales(&self) -> (&[f32], WeightBlocks) {
        (&self.scales, self.blocks)
    }

    /// Weights and scales of each output.
    fn rows(&self) -> impl Iterator<Item = Fp8Row<'_>> {
        let (runs, height) =
            (self.inputs.div_ceil(self.blocks.inputs) as usize, self.blocks.outputs as usize);
        self.bytes.chunks_exact(self.inputs as usize).enumerate().map(move |(row, weights)| {
            let block = row / height * runs;
            let scales = self.scales.get(block..block + runs).unwrap_or_default();
            Fp8Row { weights, scales, run: self.blocks.inputs as usize }
        })
    }
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
        let progress = Progress::new("loading weights");
        let (files, left) = (Vec::new(), BTreeMap::new());
        let mut weights = Self { files, left, parameters: 0, blocks: None, pairs: false, progress };
        for name in weight_files(folder)? {
            let path = folder.join(name);
            let map = map(&path)?;
            weights.list(&path, &map)?;
            weights.progress.expect(map.len() as u64);
            weights.files.push((path, map));
        }
        Ok(weights)
    }

    /// The same, with 8-bit weights in these blocks.
    pub(crate) fn with_blocks(self, blocks: Option<WeightBlocks>) -> Self {
        Self { blocks, ..self }
    }

    /// The same, with matrices packed for products of the class `bf16`: weights that are wider are rounded.
    pub(crate) fn with_pairs(self, pairs: bool) -> Self {
        Self { pairs, ..self }
    }

    /// Whether there is a tensor of this name, stored as bf16.
    pub(crate) fn is_bf16(&self, name: &str) -> bool {
        self.is_stored_as(name, Dtype::BF16)
    }

    /// Whether there is a tensor of this name, stored with 8 bits.
    pub(crate) fn is_fp8(&self, name: &str) -> bool {
        self.is_stored_as(name, Dtype::F8_E4M3)
    }

    fn is_stored_as(&self, name: &str, kind: Dtype) -> bool {
        self.left.get(name).is_some_and(|stored| stored.kind == kind)
    }

    fn list(&mut self, path: &Path, map: &Mmap) -> Result<(), ModelError> {
        let failed = |source| ModelError::Safetensors { path: path.into(), source };
        for (name, view) in SafeTensors::deserialize(map).map_err(failed)?.tensors() {
            // The data of a view lies within the map.
            let start = view.data().as_ptr().addr() - map.as_ptr().addr();
            let bytes = start..start + view.data().len();
            let shape = view.shape().to_vec();
            let stored = Stored { file: self.files.len(), bytes, shape, kind: view.dtype() };
            if self.left.insert(name.clone(), stored).is_some() {
                return Err(ModelError::Unsupported(format!("two files have the tensor {name}")));
            }
        }
        Ok(())
    }

    /// Refuses weights that do not fit the memory, before any of it is taken.
    pub(crate) fn check_memory(&self) -> Result<(), ModelError> {
        // Packed for the class `bf16` everything has its width; the vectors are too small to count.
        let bytes = |stored: &Stored| match self.pairs {
            true => stored.shape.iter().map(|size| *size as u64).product::<u64>() * size_of::<bf16>() as u64,
            false => stored.bytes.len() as u64,
        };
        memory::check(self.left.values().map(bytes).sum())
    }

    /// Whether there is a tensor of this name that was not taken yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// Where a tensor lies, if it has this shape.
    fn stored(&self, name: &str, shape: &[u32]) -> Result<&Stored, ModelError> {
        let stored = self.left.get(name).ok_or_else(|| ModelError::MissingTensor(name.into()))?;
        let expected: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
        if stored.shape != expected {
            let sizes = |shape: &[usize]| shape.iter().map(|n| *n as i64).collect();
            let (found, expected) = (sizes(&stored.shape), sizes(&expected));
            return Err(ModelError::Shape { name: name.into(), found, expected });
        }
        Ok(stored)
    }

    /// The tensor of this name, which must have this shape.
    pub(crate) fn take(&mut self, name: &str, shape: &[u32]) -> Result<Raw<'_>, ModelError> {
        let kind = match self.stored(name, shape)?.kind {
            Dtype::F32 => Kind::F32,
            Dtype::F16 => Kind::F16,
            Dtype::BF16 => Kind::Bf16,
            other => return Err(ModelError::Unsupported(format!("{name} is stored as {other:?}"))),
        };
        self.parameters += elements(shape);
        Ok(Raw { kind, bytes: self.take_bytes(name)? })
    }

    fn take_bytes(&mut self, name: &str) -> Result<&[u8], ModelError> {
        let missing = || ModelError::MissingTensor(name.into());
        let stored = self.left.remove(name).ok_or_else(missing)?;
        self.progress.advance(stored.bytes.len() as u64);
        let (_, map) = self.files.get(stored.file).ok_or_else(missing)?;
        map.get(stored.bytes).ok_or_else(missing)
    }

    /// A vector, as f32.
    pub(crate) fn vector(&mut self, name: &str, length: u32) -> Result<Vec<f32>, ModelError> {
        Ok(self.take(name, &[length])?.widened())
    }

    /// Matrices of so many rows each, one below the other, packed as they are stored; as f32 where that differs.
    pub(crate) fn matrix(&mut self, parts: &[(String, u32)], inputs: u32) -> Result<Matrix, ModelError> {
        // Before there is any memory for them: a config may claim what it likes.
        let kinds: Vec<Dtype> = parts
            .iter()
            .map(|(name, rows)| Ok(self.stored(name, &[*rows, inputs])?.kind))
            .collect::<Result<_, ModelError>>()?;
        let kind = kinds.first().copied().filter(|first| kinds.iter().all(|kind| kind == first));
        let outputs: usize = parts.iter().map(|(_, rows)| *rows as usize).sum();
        let shape = (outputs, inputs);
        if self.pairs {
            return self.pack_pairs(parts, shape);
        }
        match kind {
            Some(Dtype::BF16) => self.pack(parts, shape, |raw| bf16s(raw.bytes).collect()),
            Some(Dtype::F16) => self.pack(parts, shape, |raw| f16s(raw.bytes).collect()),
            Some(Dtype::F8_E4M3) => self.pack_fp8(parts, shape),
            _ if kinds.contains(&Dtype::F8_E4M3) => Err(ModelError::Unsupported(format!(
                "{} and others of its layer are stored differently, some with 8 bits",
                parts.first().map_or("", |(name, _)| name)
            ))),
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
        let mut packing = Packing::new(outputs, inputs as usize).map_err(no_memory)?;
        for (name, rows) in parts {
            push_all(&mut packing, self.take(name, &[*rows, inputs])?, inputs, &read);
        }
        Ok(packing.into())
    }

    fn pack_pairs(
        &mut self,
        parts: &[(String, u32)],
        (outputs, inputs): (usize, u32),
    ) -> Result<Matrix, ModelError> {
        let mut packing = Packing::pairs(outputs, inputs as usize).map_err(no_memory)?;
        for (name, rows) in parts {
            let shape = [*rows, inputs];
            if self.is_fp8(name) {
                let mut row = vec![0.0; inputs as usize];
                for weights in self.take_fp8(name, shape)?.rows() {
                    weights.widen(&mut row);
                    packing.push(row.chunks(2).map(Pair::of));
                }
            } else {
                push_pairs(&mut packing, self.take(name, &shape)?, inputs);
            }
        }
        Ok(packing.into())
    }

    fn pack_fp8(
        &mut self,
        parts: &[(String, u32)],
        (outputs, inputs): (usize, u32),
    ) -> Result<Matrix, ModelError> {
        let run = self.blocks.map_or(inputs, |blocks| blocks.inputs);
        let mut packing = Fp8Packing::new(outputs, inputs as usize, run as usize).map_err(no_memory)?;
        for (name, rows) in parts {
            self.take_fp8(name, [*rows, inputs])?.rows().for_each(|row| packing.push(row));
        }
        Ok(packing.into())
    }

    /// A matrix of 8-bit weights, which must have this shape, with its scales.
    pub(crate) fn take_fp8(&mut self, name: &str, [rows, inputs]: [u32; 2]) -> Result<Fp8<'_>, ModelError> {
        let refuse = |what: String| Err(ModelError::Unsupported(what));
        let Some(blocks) = self.blocks else {
            return refuse(format!("{name} has 8 bits, and no quantization_config"));
        };
        self.stored(name, &[rows, inputs])?;
        let scale_name = format!("{name}_scale_inv");
        let runs = [rows.div_ceil(blocks.outputs), inputs.div_ceil(blocks.inputs)];
        let scales = self.take(&scale_name, &runs)?.widened();
        if !scales.iter().all(|scale| scale.abs() <= SCALE_MAX) {
            return refuse(format!("{scale_name} has a scale that is absurd"));
        }
        // Scales are not weights.
        self.parameters -= scales.len() as u64;
        self.parameters += elements(&[rows, inputs]);
        let bytes = self.take_bytes(name)?;
        if bytes.iter().any(|byte| byte & 0x7f == 0x7f) {
            return refuse(format!("{name} has a weight that is no number"));
        }
        Ok(Fp8 { bytes, scales, blocks, inputs })
    }

    /// Matrices of one shape that are stored as one tensor, one behind the other.
    pub(crate) fn stack(
        &mut self,
        name: &str,
        count: u32,
        outputs: u32,
        inputs: u32,
    ) -> Result<Vec<Matrix>, ModelError> {
        let pairs = self.pairs;
        let raw = self.take(name, &[count, outputs, inputs])?;
        let size = raw.kind.size() * outputs as usize * inputs as usize;
        let one = |bytes| {
            let (raw, shape) = (Raw { kind: raw.kind, bytes }, (outputs as usize, inputs as usize));
            if pairs {
                let mut packing = Packing::pairs(shape.0, shape.1).map_err(no_memory)?;
                push_pairs(&mut packing, raw, inputs);
                return Ok(packing.into());
            }
            match raw.kind {
                Kind::F32 => pack_one(raw, shape, |raw| f32s(raw.bytes).collect()),
                Kind::Bf16 => pack_one(raw, shape, |raw| bf16s(raw.bytes).collect()),
                Kind::F16 => pack_one(raw, shape, |raw| f16s(raw.bytes).collect()),
            }
        };
        raw.bytes.chunks_exact(size).map(one).collect()
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

#[allow(private_bounds, reason = "the storage types are closed: f32, bf16 and f16")]
fn pack_one<W: crate::kernel::Plain>(
    raw: Raw<'_>,
    (outputs, inputs): (usize, usize),
    read: impl Fn(Raw<'_>) -> Vec<W>,
) -> Result<Matrix, ModelError>
where
    Matrix: From<Packing<W>>,
{
    let mut packing = Packing::new(outputs, inputs).map_err(no_memory)?;
    push_all(&mut packing, raw, inputs as u32, &read);
    Ok(packing.into())
}

/// Packs the rows of a tensor.
fn push_all<W: crate::kernel::Plain>(
    packing: &mut Packing<W>,
    raw: Raw<'_>,
    inputs: u32,
    read: &impl Fn(Raw<'_>) -> Vec<W>,
) {
    for bytes in raw.bytes.chunks_exact(raw.kind.size() * inputs as usize) {
        packing.push(read(Raw { kind: raw.kind, bytes }).into_iter());
    }
}

/// Packs the rows of a tensor, rounded to bf16.
fn push_pairs(packing: &mut Packing<Pair>, raw: Raw<'_>, inputs: u32) {
    for bytes in raw.bytes.chunks_exact(raw.kind.size() * inputs as usize) {
        packing.push(Raw { kind: raw.kind, bytes }.widened().chunks(2).map(Pair::of));
    }
}

fn no_memory(source: std::io::Error) -> ModelError {
    ModelError::Memory { source }
}

fn elements(shape: &[u32]) -> u64 {
    shape.iter().map(|n| u64::from(*n)).product()
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}
