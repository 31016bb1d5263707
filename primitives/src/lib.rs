//! Starling's shared vocabulary.
//!
//! Everything that is hashed, signed, stored on chain or sent between hosts is defined here, once, so that the
//! runtime, the host agent, the ML node and the client cannot disagree about a byte. The crate is `no_std`, knows
//! nothing of FRAME, storage or tensors, and contains no floating-point arithmetic.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(any(feature = "runtime-benchmarks", test))]
pub mod benchmarking;
mod bits;
pub mod constraint;
mod fixed;
pub mod fraud;
pub mod hashing;
pub mod ids;
pub mod merkle;
pub mod plant;
pub mod profile;
pub mod receipt;
pub mod records;
pub mod replay;
pub mod request;
pub mod sampler;
pub mod schedule;
pub mod sprint;
pub mod tape;
pub mod traits;
pub mod transcript;
pub mod verdict;
pub mod vrf;
mod window;

pub use ids::*;
