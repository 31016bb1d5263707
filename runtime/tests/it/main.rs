//! The runtime as a whole: presets, blocks, the walk from a sprint to the authority sets.

mod authorities;
mod chain;
mod duties;
mod genesis;
