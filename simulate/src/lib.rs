//! Starling simulated: the real rules and the real pallets, over hundreds of epochs, with honest hosts and adversaries.
//!
//! * [`scenario`]: who is on the network, and what must come of it. Start here.
//! * [`world`]: the network: hosts and clients around a chain, driven block by block ([`chain`]).
//! * [`adversaries`]: what hosts do, one type each.
//! * [`votes`]: the seam through which verdicts reach the chain.
//! * [`model`], [`answer`]: answers with real transcripts of an invented model.
//! * [`books`]: the books, checked at the end of every epoch.
//! * `plants`: bad answers on purpose, and who approves them.
//! * [`crowd`]: a thousand hosts under the rules alone.
//! * [`tables`]: what it came to.
//!
//! Nothing here depends on time or on the order of a hash map: the same seed gives the same tables.

#![forbid(unsafe_code)]

pub mod adversaries;
pub mod answer;
pub mod books;
pub mod calibrated;
pub mod chain;
pub mod client;
pub mod crowd;
mod duties;
pub mod host;
pub mod model;
mod plants;
mod race;
pub mod scenario;
mod serving;
pub mod tables;
pub mod votes;
pub mod world;
