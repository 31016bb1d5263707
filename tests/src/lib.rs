//! Whole networks of real processes on this machine, for tests and for `scripts/localnet`.

pub mod cheat;
pub mod clients;
pub mod key;
pub mod ml_node;
pub mod network;
pub mod paths;
pub mod poll;
pub mod ports;
pub mod process;
pub mod slow;
pub mod watch;
