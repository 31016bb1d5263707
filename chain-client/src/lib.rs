//! The only crate that knows runtime metadata: typed calls, events and the transaction outbox.
//!
//! [`ChainClient`] follows a node over its RPC endpoint, reconnects by itself, and hands out [`ChainView`]s: typed
//! reads at one block. [`Outbox`] brings duty calls to the chain and survives `kill -9`. Nothing of subxt shows in
//! the public surface; names of pallets, calls and events are resolved against the metadata of the running chain,
//! and [`shape`] refuses a runtime whose types differ from those of `starling-primitives`.

pub mod backend;
pub mod call;
mod client;
pub mod entries;
mod error;
pub mod event;
mod execute;
pub mod fake;
mod keys;
mod node;
pub mod outbox;
pub mod shape;
mod types;
mod view;

pub use backend::{Backend, Head};
pub use call::Call;
pub use client::{ChainClient, Ticks};
pub use error::{ChainError, SubmitError};
pub use event::{ChainEvent, RawEvent};
pub use keys::{KeyError, Keypair};
pub use node::Connection;
pub use outbox::{Item, Outbox, OutboxError};
pub use types::*;
pub use view::ChainView;
