//! Copies of a model folder with other weights: what a cheat would run to save memory or time, or by mistake.

use crate::model::{map, weight_files, ModelError};
use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{tensor::TensorView, Dtype, SafeTensors};
use serde_json::Value;
use std::{collections::BTreeMap, io, path::Path};

/// Weights that share a scale when they are quantised.
const GROUP: usize = 32;
/// Ends of the names of the matrices that are quantised; embeddings and norms stay, as is usual.
const QUANTISED: &str = "_proj.weight";
/// A relative change below half a step of bf16, so that rounding to bf16 takes it back.
const BELOW_BF16: f32 = 1.0 / 600.0;

/// How the weights differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Edit {
    /// Each is moved by at most this share of its size: another checkpoint of the same training.
    Moved(f32),
    /// The last layer is left out.
    WithoutLastLayer,
    /// Symmetric integers of so many bits, 32 weights to a scale.
    Integers(u32),
    /// Rounded to bf16.
    Bf16,
    /// f32 weights that bf16 cannot express, within half a step of what was there.
    Finer,
}

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The folder is not a model's.
    #[error("the model folder cannot be read")]
    Model(#[from] ModelError),
    /// A file cannot be copied or written.
    #[error("the changed model cannot be written")]
    Write(#[from] io::Error),
    /// The config is not JSON.
    #[error("config.json cannot be changed")]
    Config(#[from] serde_json::Error),
    /// The weights cannot be read or written.
    #[error("the weights cannot be changed")]
    Weights(#[from] safetensors::SafeTensorError),
    /// Nothing to leave out, or nothing that is known.
    #[error("the model does not allow it: {0}")]
    Impossible(String),
}

/// Writes the changed model into the folder `to`, which exists; its weights in one file, each as it was stored, but for edits
/// that are about the storage: those give f32.
pub fn write_model(from: &Path, to: &Path, edit: Edit) -> Result<(), EditError> {
    let weights = weight_files(from)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let of_weights = name.to_string_lossy().contains(".safetensors");
        if entry.file_type()?.is_file() && !of_weights {
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    let last = match edit {
        Edit::WithoutLastLayer => Some(drop_layer(&to.join("config.json"))?),
        _ => None,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for file in weights {
        let bytes = map(&from.join(file))?;
        let read = SafeTensors::deserialize(&bytes)?;
        let mut names = read.names();
        // Noise follows the order.
        names.sort_unstable();
        for name in names {
            if last.as_ref().is_some_and(|last| name.starts_with(last)) {
                continue;
            }
            let view = read.tensor(name)?;
            let mut numbers = widened(name, &view)?;
            let width = view.shape().last().copied().unwrap_or(1).max(1);
            change(edit, name, &mut numbers, width, &mut rng);
            let kind = if matches!(edit, Edit::Bf16 | Edit::Finer) { Dtype::F32 } else { view.dtype() };
            tensors.insert(name.to_owned(), (kind, view.shape().to_vec(), narrowed(kind, &numbers)));
        }
    }
    let views = tensors
        .iter()
        .map(|(name, (kind, shape, bytes))| Ok((name, TensorView::new(*kind, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(safetensors::serialize_to_file(views, None, &to.join("model.safetensors"))?)
}

/// Takes the last layer out of a config; returns how the names of its tensors begin.
fn drop_layer(path: &Path) -> Result<String, EditError> {
    let mut config: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let layers = config["num_hidden_layers"].as_u64().unwrap_or(0);
    if layers < 2 {
        return Err(EditError::Impossible(format!("it has {layers} layers")));
    }
    config["num_hidden_layers"] = (layers - 1).into();
    if let Some(types) = config["layer_types"].as_array_mut() {
        types.pop();
    }
    std::fs::write(path, serde_json::to_vec(&config)?)?;
    Ok(format!("model.layers.{}.", layers - 1))
}

fn widened(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, EditError> {
    let bytes = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|x| bf16::from_le_bytes(*x).to_f32()).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|x| f16::from_le_bytes(*x).to_f32()).collect(),
        other => return Err(EditError::Impossible(format!("{name} is stored as {other:?}"))),
    })
}

/// As a tensor is stored.
fn narrowed(kind: Dtype, numbers: &[f32]) -> Vec<u8> {
    match kind {
        Dtype::BF16 => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        Dtype::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

fn change(edit: Edit, name: &str, numbers: &mut [f32], width: usize, rng: &mut ChaCha8Rng) {
    match edit {
        Edit::Moved(share) => move_by(numbers, share, rng),
        Edit::Finer => move_by(numbers, BELOW_BF16, rng),
        Edit::Bf16 => numbers.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        Edit::Integers(bits) if name.ends_with(QUANTISED) => {
            for row in numbers.chunks_mut(width) {
                row.chunks_mut(GROUP).for_each(|group| quantise(group, bits));
            }
        }
        Edit::Integers(_) | Edit::WithoutLastLayer => {}
    }
}

fn move_by(numbers: &mut [f32], share: f32, rng: &mut ChaCha8Rng) {
    for x in numbers {
        *x *= 1.0 + share * rng.random_range(-1.0f32..1.0);
    }
}

/// To integers of so many bits with one scale, and back.
fn quantise(group: &mut [f32], bits: u32) {
    let levels = ((1i32 << (bits.clamp(2, 16) - 1)) - 1) as f32;
    let scale = group.iter().fold(0.0f32, |most, x| most.max(x.abs())) / levels;
    if scale > 0.0 {
        group.iter_mut().for_each(|x| *x = (*x / scale).round().clamp(-levels, levels) * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_rounded_to_their_scale() {
        let mut group = [7.0, -3.4, 0.2, 0.0];
        quantise(&mut group, 4);
        assert_eq!(group, [7.0, -3.0, 0.0, 0.0]);
        let mut zeros = [0.0; 4];
        quantise(&mut zeros, 8);
        assert_eq!(zeros, [0.0; 4]);
    }

    #[test]
    fn finer_weights_come_back_from_bf16() {
        let stored: Vec<f32> = (1..2_000).map(|i| bf16::from_f32(i as f32 / 37.0).to_f32()).collect();
        let (mut finer, mut rng) = (stored.clone(), ChaCha8Rng::seed_from_u64(3));
        change(Edit::Finer, "w", &mut finer, 1, &mut rng);
        assert_ne!(finer, stored);
        change(Edit::Bf16, "w", &mut finer, 1, &mut rng);
        assert_eq!(finer, stored);
    }
}
