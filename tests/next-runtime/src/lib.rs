//! The runtime with the next version number, for the test of a live upgrade.
//!
//! Its build script is all there is: with `STARLING_NEXT_RUNTIME` set it builds the WASM, beside the runtime's own, as
//! `starling_next_runtime.wasm`. `scripts/next-runtime` sets it, and the end-to-end tests run that first.

#![no_std]
