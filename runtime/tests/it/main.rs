//! The runtime as a whole: presets, blocks, the walk from a sprint to the authority sets.

mod answers;
mod authorities;
mod calls;
mod chain;
mod duties;
mod equivocations;
mod fraud;
mod fuzz;
mod genesis;
mod golden;
mod governance;
mod panels;
mod plants;
mod state;
mod upgrade;
mod weights;
