//! Arithmetic on the processor: packed matrices, a product for any number of rows, and the small operations of a
//! transformer.
//!
//! One property holds throughout: **every number is computed in one fixed order of operations**, whatever the number of
//! rows in the batch, the number of threads and the instruction set. A row of a prompt of 500 tokens, the same row alone
//! in a decode step, and the same row in somebody else's verification are equal bit for bit. What makes it so:
//!
//! - An element of a product is a sum of block sums in ascending order; a block sum is a chain of fused multiply-adds
//!   in ascending order (`tile`), or of steps of two products of bf16 (`pair`), each addition rounded. Vector registers
//!   hold *different* elements, so their width does not matter.
//! - Reductions over a row (norms, soft-max) use sixteen partial sums and one tree, in plain Rust (`vector`); the
//!   compiler may use wider or narrower registers for them, but may not reorder them.
//! - Fused multiply-add is exact on every processor that has it, and `f32::mul_add` is the same in software.
//! - Threads share out whole elements, never parts of a sum (`pool`).

mod fp8;
mod isa;
mod matrix;
mod pair;
mod pool;
mod rows;
mod slab;
mod tile;
mod vector;

pub(crate) use fp8::SCALE_MAX;
pub use fp8::{Fp8Packing, Fp8Row};
pub use isa::Isa;
pub(crate) use matrix::share;
pub use matrix::{Group, Matrix, Packing};
pub(crate) use pair::{round_in_place, Pair};
pub use pool::Pool;
pub(crate) use pool::Shared;
pub use rows::RowBuffer;
pub(crate) use rows::SHARED_ROWS;
pub(crate) use slab::{Plain, Slab};
pub(crate) use tile::{multiply, rows_max, Operand, Tile, WIDTH};
pub use vector::Vector;
