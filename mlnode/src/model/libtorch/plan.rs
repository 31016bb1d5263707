//! What is the same for all layers of a step.

use super::{
    super::{ModelError, Rows},
    native::Ranges,
    ops::{vector, During},
    store::LibtorchKv,
};
use std::ops::Range;
use tch::{Device, Tensor};

/// A step in numbers. Sequences with one new token come first, whatever their place in the batch: they are looked at together.
#[derive(Debug)]
pub(super) struct Numbers {
    /// New tokens, their positions, and their places in the store, one of each for every row; then the rows whose logits are
    /// wanted, in the order of the batch.
    pub(super) indices: Vec<i64>,
    /// Rows of all sequences.
    pub(super) rows: i64,
    /// The sequences in order of their rows.
    pub(super) sequences: Vec<Place>,
    /// How many of them have one new token.
    pub(super) single: usize,
}

/// Where the rows and the tokens of a sequence are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its first row.
    pub(super) row: i64,
    /// Its new tokens.
    pub(super) new: i64,
    /// Its stored tokens.
    pub(super) past: i64,
    /// Where it starts in the store.
    pub(super) start: i64,
}

/// [`Ranges`] in numbers: its three vectors one after the other.
#[derive(Debug)]
pub(super) struct RangeNumbers {
    pub(super) all: Vec<i32>,
    sequences: i64,
    query_most: i64,
    pub(super) length_most: i64,
}

/// A step on the device.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) numbers: Numbers,
    /// i64.
    pub(super) tokens: Tensor,
    pub(super) positions: Tensor,
    pub(super) places: Tensor,
    pub(super) wanted: Tensor,
}

impl Numbers {
    pub(super) fn new(batch: &[Rows<'_, LibtorchKv>]) -> Result<Self, ModelError> {
        let (single, longer): (Vec<usize>, Vec<usize>) =
            (0..batch.len()).partition(|index| batch.get(*index).is_some_and(|rows| rows.tokens.len() == 1));
        let singles = single.len();
        let mut sequences = Vec::with_capacity(batch.len());
        let (mut tokens, mut positions, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut wanted: Vec<Range<i64>> = vec![0..0; batch.len()];
        for index in single.into_iter().chain(longer) {
            let (Some(rows), Some(wanted)) = (batch.get(index), wanted.get_mut(index)) else { continue };
            let (row, new) = (tokens.len() as i64, rows.tokens.len() as i64);
            let (start, past) = (i64::from(rows.kv.reserve(new as u32)?), i64::from(rows.kv.length));
            sequences.push(Place { row, new, past, start });
            tokens.extend(rows.tokens.iter().map(|t| i64::from(*t)));
            positions.extend(past..past + new);
            places.extend(start + past..start + past + new);
            *wanted = row + new - i64::from(rows.logits).min(new)..row + new;
        }
        let rows = tokens.len() as i64;
        let mut indices = tokens;
        indices.extend(positions);
        indices.extend(places);
        indices.extend(wanted.into_iter().flatten());
        Ok(Self { indices, rows, sequences, single: singles })
    }

    /// Whether every sequence has one new token whose logits are wanted.
    pub(super) fn is_decoding(&self) -> bool {
        self.single == self.sequences.len() && self.indices.len() as i64 == 4 * self.rows
    }

    /// The sequences with one new token, and those with more, to be looked at together.
    pub(super) fn ranges(&self) -> [Option<RangeNumbers>; 2] {
        let (single, longer) = self.sequences.split_at(self.single.min(self.sequences.len()));
        [RangeNumbers::new(single), RangeNumbers::new(longer)]
    }
}

impl RangeNumbers {
    fn new(sequences: &[Place]) -> Option<Self> {
        let (first, last) = (sequences.first()?, sequences.last()?);
        let starts = sequences.iter().map(|s| s.row - first.row).chain([last.row + last.new - first.row]);
        let keys = sequences.iter().map(|s| s.start).chain([last.start]);
        let lengths = sequences.iter().map(|s| s.past + s.new);
        Some(Self {
            // All of them are bounded by the store, which has less than 2^31 tokens.
            all: starts.chain(keys).chain(lengths.clone()).map(|n| n as i32).collect(),
            sequences: sequences.len() as i64,
            query_most: sequences.iter().map(|s| s.new).max().unwrap_or_default(),
            length_most: lengths.max().unwrap_or_default(),
        })
    }

    /// With the numbers on the device; `length_most` may be more than needed.
    pub(super) fn over(&self, all: &Tensor, length_most: i64) -> Result<Ranges, ModelError> {
        let part = |start, length| all.f_narrow(0, start, length).during("splitting an index");
        let count = self.sequences;
        Ok(Ranges {
            query_starts: part(0, count + 1)?,
            key_starts: part(count + 1, count + 1)?,
            lengths: part(2 * (count + 1), count)?,
            query_most: self.query_most,
            length_most,
        })
    }

    pub(super) fn upload(&self, device: Device) -> Result<Ranges, ModelError> {
        self.over(&vector(&self.all, device)?, self.length_most)
    }
}

impl Plan {
    /// With the indices on the device.
    pub(super) fn over(numbers: Numbers, indices: &Tensor) -> Result<Self, ModelError> {
        let (rows, count) = (numbers.rows, numbers.indices.len() as i64);
        let part = |start, length| indices.f_narrow(0, start, length).during("splitting an index");
        Ok(Self {
            tokens: part(0, rows)?,
            positions: part(rows, rows)?,
            places: part(2 * rows, rows)?,
            wanted: part(3 * rows, count - 3 * rows)?,
            numbers,
        })
    }

    /// In one transfer.
    pub(super) fn upload(numbers: Numbers, device: Device) -> Result<Self, ModelError> {
        let indices = vector(&numbers.indices, device)?;
        Self::over(numbers, &indices)
    }
}
