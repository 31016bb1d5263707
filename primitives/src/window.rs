//! The bytes of a window: bit-packed, and exactly one encoding for each content.
//!
//! Bits, most significant first:
//!
//! | bits | content |
//! |---|---|
//! | 5 | number of records - 1 |
//! | 1 + 5 | how token ids are coded: 0 and their width - 1, or 1 and an Exp-Golomb order |
//! | 4 | Exp-Golomb order of each record's first q |
//! | 4 | Exp-Golomb order of the differences between a record's following q |
//!
//! then for each record: number of candidates - 1 (5 bits), index of the chosen one (Exp-Golomb, order 0), and the
//! candidates: q (the first one, then the difference to the one before), token id. The last byte is filled up with
//! zeros.
//!
//! The parameters are a function of the content ([`Layout::of`]): an order is one less than the median bit length of
//! what it codes, which minimises the code's length but for a rounding; ids take the shorter of their two codes. The
//! decoder computes them again and refuses others, so bytes that decode encode to themselves.

use crate::{
    bits::{exp_golomb_bits, BitReader, BitWriter},
    profile::MAX_K,
    transcript::{Candidate, RecordError, TokenRecord, MAX_Q, WINDOW_TOKENS},
};
use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode};
use core::fmt;
use scale_info::TypeInfo;

/// Records of up to [`WINDOW_TOKENS`] successive tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Window {
    /// 1..=[`WINDOW_TOKENS`] valid records ([`TokenRecord::check`]).
    pub records: Vec<TokenRecord>,
}

/// Why bytes are no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum WindowError {
    /// The bytes end too early, or code a number out of range.
    Malformed,
    /// The parameters are not those of the content.
    Layout,
    /// Something other than the filling of the last byte follows.
    Trailing,
    /// A record is invalid.
    Record {
        /// Its place in the window.
        index: u8,
        /// What is wrong with it.
        error: RecordError,
    },
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the bytes end too early or code a number out of range"),
            Self::Layout => f.write_str("the coding parameters are not those of the content"),
            Self::Trailing => f.write_str("bits follow the last record"),
            Self::Record { index, error } => write!(f, "record {index} of the window: {error}"),
        }
    }
}

impl core::error::Error for WindowError {}

impl Window {
    /// The canonical bytes. The records must be valid: anything else gives bytes that [`Window::decode`] refuses.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.check(MAX_K).is_ok(), "only valid records are encoded: {:?}", self.check(MAX_K));
        encode_records(&self.records, &Layout::of(&self.records))
    }

    /// Whether there are 1..=[`WINDOW_TOKENS`] records, all valid with at most `k` candidates.
    pub fn check(&self, k: u8) -> Result<(), WindowError> {
        if self.records.is_empty() || self.records.len() > WINDOW_TOKENS {
            return Err(WindowError::Malformed);
        }
        for (index, record) in self.records.iter().enumerate() {
            record.check(k).map_err(|error| WindowError::Record { index: index as u8, error })?;
        }
        Ok(())
    }

    /// Decodes the bytes of a window whose records have at most `k` candidates (and never more than [`MAX_K`]).
    /// Whatever is accepted encodes to the same bytes.
    pub fn decode(bytes: &[u8], k: u8) -> Result<Self, WindowError> {
        let mut reader = BitReader::new(bytes);
        let (count, layout) = read_head(&mut reader).ok_or(WindowError::Malformed)?;
        let mut window = Self { records: Vec::with_capacity(count) };
        for _ in 0..count {
            window.records.push(read_record(&mut reader, &layout).ok_or(WindowError::Malformed)?);
        }
        if !reader.is_at_padding() {
            return Err(WindowError::Trailing);
        }
        window.check(k)?;
        if Layout::of(&window.records) != layout {
            return Err(WindowError::Layout);
        }
        Ok(window)
    }
}

/// How token ids are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdCode {
    /// All with the width of the largest, 1..=32 bits.
    Fixed(u32),
    /// Exp-Golomb of an order in 0..32: shorter where small ids are frequent, as tokenizers order them.
    ExpGolomb(u32),
}

/// The parameters at the head of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    ids: IdCode,
    first_order: u32,
    difference_order: u32,
}

impl Layout {
    fn of(records: &[TokenRecord]) -> Self {
        let mut id_lengths = Lengths::default();
        let mut first_lengths = Lengths::default();
        let mut difference_lengths = Lengths::default();
        for record in records {
            let mut before = None;
            for candidate in &record.candidates {
                id_lengths.add(candidate.token);
                match before {
                    None => first_lengths.add(candidate.q.into()),
                    Some(q) => difference_lengths.add(candidate.q.saturating_sub(q).into()),
                }
                before = Some(candidate.q);
            }
        }
        let order = id_lengths.order();
        let width = id_lengths.longest.max(1);
        let candidates = records.iter().flat_map(|record| &record.candidates);
        let exp_golomb: u32 = candidates.map(|candidate| exp_golomb_bits(candidate.token, order)).sum();
        let ids = if exp_golomb < width.saturating_mul(id_lengths.total) {
            IdCode::ExpGolomb(order)
        } else {
            IdCode::Fixed(width)
        };
        Self { ids, first_order: first_lengths.order(), difference_order: difference_lengths.order() }
    }
}

/// How many of the numbers have which bit length.
struct Lengths {
    counts: [u32; 33],
    total: u32,
    longest: u32,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { counts: [0; 33], total: 0, longest: 0 }
    }
}

impl Lengths {
    fn add(&mut self, value: u32) {
        let length = u32::BITS - value.leading_zeros();
        if let Some(count) = self.counts.get_mut(length as usize) {
            *count += 1;
        }
        self.total += 1;
        self.longest = self.longest.max(length);
    }

    /// The lower median of the lengths, less one; 0 of nothing.
    fn order(&self) -> u32 {
        let mut below = 0;
        for (length, count) in (0u32..).zip(self.counts) {
            below += count;
            if below * 2 >= self.total {
                return length.saturating_sub(1);
            }
        }
        0
    }
}

fn encode_records(records: &[TokenRecord], layout: &Layout) -> Vec<u8> {
    let mut writer = BitWriter::with_capacity(records.len() * 40);
    writer.write((records.len() as u32).wrapping_sub(1), 5);
    match layout.ids {
        IdCode::Fixed(width) => {
            writer.write(0, 1);
            writer.write(width - 1, 5);
        }
        IdCode::ExpGolomb(order) => {
            writer.write(1, 1);
            writer.write(order, 5);
        }
    }
    writer.write(layout.first_order, 4);
    writer.write(layout.difference_order, 4);
    for record in records {
        write_record(&mut writer, layout, record);
    }
    writer.finish()
}

fn write_record(writer: &mut BitWriter, layout: &Layout, record: &TokenRecord) {
    writer.write((record.candidates.len() as u32).wrapping_sub(1), 5);
    writer.write_exp_golomb(record.chosen.into(), 0);
    let mut before: Option<u16> = None;
    for candidate in &record.candidates {
        match before {
            None => writer.write_exp_golomb(candidate.q.into(), layout.first_order),
            Some(q) => {
                writer.write_exp_golomb(candidate.q.saturating_sub(q).into(), layout.difference_order);
            }
        }
        match layout.ids {
            IdCode::Fixed(width) => writer.write(candidate.token, width),
            IdCode::ExpGolomb(order) => writer.write_exp_golomb(candidate.token, order),
        }
        before = Some(candidate.q);
    }
}

fn read_head(reader: &mut BitReader<'_>) -> Option<(usize, Layout)> {
    let count = reader.read(5)? as usize + 1;
    let is_exp_golomb = reader.read(1)? == 1;
    let parameter = reader.read(5)?;
    let ids = if is_exp_golomb { IdCode::ExpGolomb(parameter) } else { IdCode::Fixed(parameter + 1) };
    let (first_order, difference_order) = (reader.read(4)?, reader.read(4)?);
    Some((count, Layout { ids, first_order, difference_order }))
}

fn read_record(reader: &mut BitReader<'_>, layout: &Layout) -> Option<TokenRecord> {
    let count = reader.read(5)? as usize + 1;
    if count > usize::from(MAX_K) {
        return None;
    }
    let chosen = u8::try_from(reader.read_exp_golomb(0)?).ok()?;
    let mut candidates = Vec::with_capacity(count);
    let mut q: u32 = 0;
    for index in 0..count {
        let order = if index == 0 { layout.first_order } else { layout.difference_order };
        q = q.checked_add(reader.read_exp_golomb(order)?)?;
        if q > u32::from(MAX_Q) {
            return None;
        }
        let token = match layout.ids {
            IdCode::Fixed(width) => reader.read(width)?,
            IdCode::ExpGolomb(order) => reader.read_exp_golomb(order)?,
        };
        candidates.push(Candidate { token, q: q as u16 });
    }
    Some(TokenRecord { candidates, chosen })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_layout_of_the_content_decodes() {
        let record = |ids: [u32; 3], q: [u16; 3]| TokenRecord {
            candidates: ids.into_iter().zip(q).map(|(token, q)| Candidate { token, q }).collect(),
            chosen: 1,
        };
        let window =
            Window { records: vec![record([7, 90, 4_000], [3, 300, 302]), record([1, 2, 3], [9, 9, 9])] };
        let canonical = Layout::of(&window.records);
        assert_eq!(Window::decode(&window.encode(), 3), Ok(window.clone()));
        let mut others = 0;
        for ids in (12..=32).map(IdCode::Fixed).chain((0..32).map(IdCode::ExpGolomb)) {
            for first_order in 0..16 {
                for difference_order in 0..16 {
                    let layout = Layout { ids, first_order, difference_order };
                    let decoded = Window::decode(&encode_records(&window.records, &layout), 3);
                    if layout == canonical {
                        assert_eq!(decoded, Ok(window.clone()));
                    } else {
                        assert_eq!(decoded, Err(WindowError::Layout));
                        others += 1;
                    }
                }
            }
        }
        assert_eq!(others, (21 + 32) * 256 - 1);
    }
}
