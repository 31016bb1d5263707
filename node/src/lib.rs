//! The Starling validator node: BABE, GRANDPA, libp2p, JSON-RPC and Prometheus around the runtime.
//!
//! With `--host-config FILE` the host agent runs in the same process.

// `sc_cli::Error` and `sc_service::Error` are the SDK's, and large; they are made once per process.
#![allow(clippy::result_large_err, reason = "the SDK's error types")]

pub mod cli;
mod command;
mod rpc;
pub mod service;

pub use command::run;
