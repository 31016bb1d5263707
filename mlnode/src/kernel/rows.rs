//! Activations: rows of f32.

use super::tile::WIDTH;

/// Floats by which rows are pushed apart: rows that lie a multiple of 4 KiB apart would share one set of the first cache.
const SKEW: usize = 16;

/// Rows of equal width. Each has room for its width rounded up to a whole number of panels.
#[derive(Clone, Debug, Default)]
pub struct RowBuffer {
    data: Vec<f32>,
    rows: usize,
    width: usize,
    stride: usize,
}

impl RowBuffer {
    /// No rows yet.
    pub fn new(width: usize) -> Self {
        Self { data: Vec::new(), rows: 0, width, stride: width.next_multiple_of(WIDTH) + SKEW }
    }

    /// Makes it hold so many rows. Their content is whatever was there.
    pub fn resize(&mut self, rows: usize) {
        // Never given back: a buffer soon has the size of the largest step.
        if self.data.len() < rows * self.stride {
            self.data.resize(rows * self.stride, 0.0);
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

    /// Floats from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, index: usize) -> &[f32] {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        &self.data[index * self.stride..][..self.width]
    }

    /// One row, to write to.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        &mut self.data[index * self.stride..][..self.width]
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }
}
