//! Tests of the primitives from outside, in one binary.

mod codec;
mod common;
mod constraint;
mod foreign;
mod golden;
mod merkle_vrf;
mod plant;
mod replay;
mod sampler;
mod tape;
