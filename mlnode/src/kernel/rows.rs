//! Activations: rows of numbers.

use super::{
    pair::{round_row, Pair},
    pool::{Pool, Shared},
    slab::Plain,
    tile::WIDTH,
};
use std::ops::Range;

/// Elements (all have 32 bits) by which rows are pushed apart: a multiple of 4 KiB apart they would share one set of the first
/// cache.
const SKEW: usize = 16;

/// Rows from which on threads share the small operations.
pub(crate) const SHARED_ROWS: usize = 8;

/// Rows of equal width. Each has room for its width rounded up to a whole number of panels.
#[derive(Clone, Debug, Default)]
pub struct RowBuffer<T = f32> {
    data: Vec<T>,
    rows: usize,
    width: usize,
    stride: usize,
}

#[allow(private_bounds, reason = "rows are of f32; pairs of bf16 stay within the kernels")]
impl<T: Plain + Default> RowBuffer<T> {
    /// No rows yet.
    pub fn new(width: usize) -> Self {
        Self { data: Vec::new(), rows: 0, width, stride: width.next_multiple_of(WIDTH) + SKEW }
    }

    /// Makes it hold so many rows. Their content is whatever was there.
    pub fn resize(&mut self, rows: usize) {
        // Never given back: a buffer soon has the size of the largest step.
        if self.data.len() < rows * self.stride {
            self.data.resize(rows * self.stride, T::default());
        }
        self.rows = rows;
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Elements from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, index: usize) -> &[T] {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        &self.data[index * self.stride..][..self.width]
    }

    /// One row, to write to.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_mut(&mut self, index: usize) -> &mut [T] {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        &mut self.data[index * self.stride..][..self.width]
    }

    /// Copies rows to others, from `to` on.
    ///
    /// # Panics
    /// When there are no such rows.
    pub(crate) fn move_rows(&mut self, rows: Range<usize>, to: usize) {
        assert!(rows.end.max(to + rows.len()) <= self.rows, "rows {rows:?} and {to} of {}", self.rows);
        self.data.copy_within(rows.start * self.stride..rows.end * self.stride, to * self.stride);
    }

    /// Runs an operation on every row, on all threads where that pays.
    pub(crate) fn for_each(&mut self, pool: &Pool, run: impl Fn(usize, &mut [T]) + Sync) {
        let (rows, stride, width) = (self.rows, self.stride, self.width);
        if rows < SHARED_ROWS {
            return (0..rows).for_each(|row| run(row, self.row_mut(row)));
        }
        let target = Shared::new(self.as_mut_ptr());
        let parts = pool.threads() * 2;
        pool.run(parts, &|part| {
            for row in part * rows / parts..(part + 1) * rows / parts {
                // SAFETY: the buffer has this row, and no other part has it.
                run(row, unsafe { std::slice::from_raw_parts_mut(target.get().add(row * stride), width) });
            }
        });
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_mut_ptr()
    }
}

impl RowBuffer<Pair> {
    /// Takes the rows of another buffer, rounded to bf16.
    pub(crate) fn round(&mut self, pool: &Pool, x: &RowBuffer) {
        let data = std::mem::take(&mut self.data);
        *self = Self { data, ..Self::new(x.width().div_ceil(2)) };
        self.resize(x.rows());
        self.for_each(pool, |row, pairs| round_row(pool.isa(), x.row(row), pairs));
    }
}
