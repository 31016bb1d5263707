//! libp2p between hosts: requests with their token streams, transcripts, sprint leaves.
//!
//! Connections are noise-encrypted and admitted by peer id: only hosts that announced themselves on chain get in.
//! Every frame has a limit, every exchange a deadline, every peer a bounded number of streams.

mod admission;
mod client;
pub mod frame;
pub mod protocol;
mod server;
mod streams;
mod swarm;
mod table;

pub use client::{Execution, PeerClient};
pub use server::{Archive, ArchiveError, ExecuteHandler};
pub use swarm::{PeerError, PeerNetwork, PeerStartError};
pub use table::{PeerEntry, PeerTable};

use crate::config::PeerConfig;
use crate::tasks::Tasks;
use libp2p::Multiaddr;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the peer node serves to others.
#[derive(Clone)]
pub struct Services {
    /// Runs requests.
    pub execute: Arc<dyn ExecuteHandler>,
    /// Reads what was promised to be kept.
    pub archive: Arc<dyn Archive>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Services").finish_non_exhaustive()
    }
}

/// A node that listens but does not run yet: the executor it will serve needs the client first.
pub struct Peer {
    network: PeerNetwork,
    node: swarm::Node,
    accepted: mpsc::Receiver<streams::Accepted>,
    config: PeerConfig,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Peer").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Peer {
    /// Makes the node and listens.
    pub fn bind(
        config: PeerConfig,
        keypair: libp2p::identity::Keypair,
        table: PeerTable,
    ) -> Result<Self, PeerStartError> {
        let listen: Vec<Multiaddr> =
            config.listen.iter().filter_map(|address| address.parse().ok()).collect();
        let timeout = Duration::from_millis(config.connect_timeout_ms);
        let (network, node, accepted) = swarm::build(keypair, &listen, table, timeout)?;
        Ok(Self { network, node, accepted, config })
    }

    /// A client on the node.
    pub fn client(&self) -> PeerClient {
        PeerClient::new(self.network.clone(), Duration::from_millis(self.config.exchange_timeout_ms))
    }

    /// Drives the node in `backbone` until that ends, and serves other hosts in `requests`; `accepting` ends the taking
    /// of new streams.
    pub fn spawn(self, services: Services, backbone: &Tasks, requests: &Tasks, accepting: CancellationToken) {
        let limits = server::Limits {
            exchange_timeout: Duration::from_millis(self.config.exchange_timeout_ms),
            max_streams_per_peer: self.config.max_streams_per_peer,
        };
        let server = server::Server::new(services, self.network.table().clone(), limits);
        backbone.spawn(server.run(self.accepted, requests.clone(), accepting));
        backbone.spawn(self.node.run());
    }
}
