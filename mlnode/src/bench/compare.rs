//! How far a device's numbers are from those of the engine's own kernels, on the same tokens.

use super::{BenchError, Measurement};
use crate::{
    distribution::Distribution,
    kernel::{Isa, Pool, Vector},
    loader::LibtorchLoader,
    model::{Decoder, Libtorch, Model, ModelError, Precision, Question, Rows},
};
use starling_primitives::profile::MAX_K;
use std::{path::Path, sync::Arc};

/// What the comparison runs.
#[derive(Clone, Debug)]
pub struct Lengths {
    /// Tokens that each sequence takes in before it goes on token by token, as decoding does, beside the others.
    pub prompts: Vec<u32>,
    /// Tokens of each after that.
    pub decoded: u32,
    /// Tokens of a sequence in one step, until its prompt is taken in.
    pub chunk: u32,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { prompts: vec![5, 64, 131, 300], decoded: 16, chunk: 100 }
    }
}

/// Compares the distributions of every position: prompts in chunks of which some stand beside single tokens of others, then
/// all sequences token by token together, against each sequence alone and in one piece on the processor, which computes with
/// `reference`.
pub fn compare_device(
    folder: &Path,
    threads: u32,
    device: &LibtorchLoader,
    reference: Precision,
    lengths: &Lengths,
) -> Result<Vec<Measurement>, BenchError> {
    let mut kernels = Decoder::load(folder, reference)?;
    kernels.set_pool(Arc::new(Pool::new(threads.max(1) as usize)));
    let vocab_size = kernels.config().vocab_size;
    let sequences: Vec<Vec<u32>> = (0u32..)
        .zip(&lengths.prompts)
        .map(|(index, prompt)| {
            super::prompt(prompt + lengths.decoded, vocab_size)
                .into_iter()
                .map(|token| (token + index) % vocab_size)
                .collect()
        })
        .collect();
    let mut expected = Vec::new();
    for sequence in &sequences {
        expected.push(alone(&mut kernels, sequence)?);
    }
    drop(kernels);
    let mut model = Libtorch::load(folder, device.device, device.precision)?;
    let room = sequences.iter().map(|s| crate::kv::in_blocks(s.len() as u32)).fold(0, u32::saturating_add);
    model.reserve(room)?;
    let found = together(&mut model, &sequences, &expected, lengths)?;
    Ok(differences(&expected, &found))
}

/// Distributions of all positions of one sequence.
fn alone(model: &mut Decoder, tokens: &[u32]) -> Result<Vec<Distribution>, ModelError> {
    let count = tokens.len();
    let mut kv = model.new_sequence(count as u32)?;
    model.forward(&mut [Rows { kv: &mut kv, tokens, logits: count as u32 }])?;
    let vector = Vector::new(Isa::detect());
    let mut all = Vec::with_capacity(count);
    for row in 0..count {
        let logits = model.logits(row..row + 1)?;
        let found = Distribution::new(vector, logits.row(0), usize::from(MAX_K), std::iter::empty());
        all.push(found.ok_or(ModelError::NotFinite)?);
    }
    Ok(all)
}

/// The same positions on the device, which is asked for the tokens that the kernels find best.
fn together(
    model: &mut Libtorch,
    sequences: &[Vec<u32>],
    expected: &[Vec<Distribution>],
    lengths: &Lengths,
) -> Result<Vec<Vec<Distribution>>, ModelError> {
    let open = |sequence: &Vec<u32>| model.new_sequence(sequence.len() as u32);
    let mut kvs = sequences.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut found: Vec<Vec<Distribution>> = sequences.iter().map(|_| Vec::new()).collect();
    loop {
        let (mut batch, mut questions, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (kv, tokens)) in kvs.iter_mut().zip(sequences).enumerate() {
            let (past, prompt) = (kv.len() as usize, tokens.len() - lengths.decoded as usize);
            let end = if past < prompt { prompt.min(past + lengths.chunk as usize) } else { past + 1 };
            let Some(new) = tokens.get(past..end).filter(|new| !new.is_empty()) else { continue };
            let rows = expected.get(index).and_then(|rows| rows.get(past..end)).unwrap_or_default();
            questions.extend(rows.iter().map(|row| Question {
                asked: row.top.iter().map(|(token, _)| *token).collect(),
                ..Question::default()
            }));
            taken.push((index, new.len()));
            batch.push(Rows { kv, tokens: new, logits: new.len() as u32 });
        }
        if batch.is_empty() {
            return Ok(found);
        }
        model.forward(&mut batch)?;
        let mut rows = model.distributions(usize::from(MAX_K), &questions)?.0.into_iter();
        for (index, count) in taken {
            if let Some(found) = found.get_mut(index) {
                found.extend(rows.by_ref().take(count));
            }
        }
    }
}

/// Whether the device's list of the best is not what it says about the tokens that it was asked for.
fn contradicts(asked: &Distribution, found: &Distribution) -> bool {
    let worst = found.top.last().map_or(f32::NEG_INFINITY, |(_, log_prob)| *log_prob);
    let unordered = found.top.windows(2).any(|pair| pair.first().map(|a| a.1) < pair.last().map(|b| b.1));
    unordered
        || asked.top.iter().zip(&found.asked).any(|((token, _), log_prob)| {
            match found.top.iter().find(|(other, _)| other == token) {
                Some((_, listed)) => (listed - log_prob).abs() > 1e-4,
                None => *log_prob > worst + 1e-4,
            }
        })
}

fn differences(expected: &[Vec<Distribution>], found: &[Vec<Distribution>]) -> Vec<Measurement> {
    let (mut rows, mut same_best, mut contradictions) = (0u32, 0u32, 0u32);
    let mut all = Vec::new();
    for (expected, found) in expected.iter().flatten().zip(found.iter().flatten()) {
        rows += 1;
        let best = |distribution: &Distribution| distribution.top.first().map(|(token, _)| *token);
        same_best += u32::from(best(expected) == best(found));
        contradictions += u32::from(contradicts(expected, found));
        all.extend(expected.top.iter().zip(&found.asked).map(|((_, a), b)| f64::from((a - b).abs())));
    }
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    let list = [
        ("positions", f64::from(rows), "positions"),
        ("log_prob_difference_mean", mean, "nat"),
        ("log_prob_difference_max", all.iter().copied().fold(0.0, f64::max), "nat"),
        ("contradictions", f64::from(contradictions), "positions"),
        ("same_best", f64::from(same_best) / f64::from(rows.max(1)), "ratio"),
    ];
    list.map(|(name, value, unit)| Measurement { name: name.into(), value, unit }).into()
}
