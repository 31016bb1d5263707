//! Starling's decisions as pure functions.
//!
//! The chain and the host agent call the same function to compute a phase, a draw, a duty or a weight, so they cannot
//! disagree. The crate is `no_std`, has no state, performs no input or output and contains no floating-point
//! arithmetic. Each module states the rounding direction of what it divides.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod attendance;
pub mod clock;
pub mod complaint;
pub mod dispute;
pub mod draw;
pub mod duty;
pub mod emission;
pub mod evidence;
pub mod judge;
pub mod panel;
pub mod plant;
pub mod reputation;
pub mod room;
pub mod weights;
