//! The Starling host agent: gateway, peers, ML nodes and duties.
//!
//! [`run`] is the whole agent; the binary `starling-host` and the node's `--host-config` are thin shells over it.
//!
//! - [`gateway`]: public HTTP. Plans a request, draws its executor, forwards it, streams the answer back.
//! - [`executor`]: runs requests that gateways forward, on this host's ML nodes.
//! - [`peer`]: libp2p between hosts. [`fleet`]: ML nodes. [`admin`]: the operator's HTTP.
//! - [`duties`]: what the clock asks of a host. [`store`]: what it promised to keep.
//! - [`tokenizers`]: of the profiles, from wherever they can be had. [`planter`]: answers that are bad on purpose.
//! - [`network`] and [`ledger`]: the chain in memory, and the money that it does not know of yet.
//!
//! Nothing in the path of a request waits for a block; what the chain must learn goes through the durable outbox.

#![forbid(unsafe_code)]

pub mod admin;
mod agent;
mod archive;
pub mod config;
pub mod context;
pub mod duties;
pub mod executor;
pub mod fleet;
pub mod gateway;
pub mod keys;
pub mod ledger;
pub mod metrics;
pub mod network;
pub mod operator_db;
pub mod peer;
pub mod planter;
pub mod store;
pub mod tasks;
pub mod tokenizers;

pub use agent::{run, run_with, Agent, AgentError};
pub use config::{Config, ConfigError};
