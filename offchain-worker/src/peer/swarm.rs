//! The libp2p node: one task owns the swarm; everybody else holds a [`PeerNetwork`].

use super::{
    admission::Admission,
    protocol::{EXECUTE, SPRINT, TRANSCRIPT},
    streams::{self, Accepted},
    table::PeerTable,
};
use futures::StreamExt;
use libp2p::{
    identify, noise, ping,
    swarm::{
        dial_opts::{DialOpts, PeerCondition},
        DialError, NetworkBehaviour, SwarmEvent,
    },
    tcp, yamux, Multiaddr, PeerId, Stream, StreamProtocol, Swarm,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};

/// Commands that may wait for the swarm's task.
const COMMANDS: usize = 256;
/// How often hosts that are not connected are dialled, so that a request finds the connection open.
const RECONNECT_EVERY: Duration = Duration::from_secs(5);
/// Yamux streams of one connection at most.
const MAX_YAMUX_STREAMS: usize = 4_096;
/// Streams of a connection whose protocol is being negotiated at most.
const MAX_NEGOTIATING_STREAMS: usize = 1_024;
/// Accepted streams that wait to be served at most.
const MAX_ACCEPTED: usize = 1_024;

/// Why there is no stream to a peer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The host announced nothing that could be dialled.
    #[error("the host announced no usable peer id or address")]
    Unknown,
    /// It does not answer.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("the peer did not answer in time")]
    Timeout,
    /// It answers, but not this protocol, or it broke off.
    #[error("the peer broke off: {0}")]
    Broken(String),
    /// It has not got what was asked for.
    #[error("the peer does not have it")]
    NotFound,
    /// This host is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

/// The node cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerStartError {
    /// The transport cannot be made.
    #[error("cannot make the libp2p transport: {0}")]
    Transport(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why.
        reason: String,
    },
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    admission: Admission,
    streams: streams::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

enum Command {
    Connect { peer: PeerId, addresses: Vec<Multiaddr>, reply: oneshot::Sender<Result<(), PeerError>> },
    Open { peer: PeerId, protocol: StreamProtocol, reply: oneshot::Sender<Result<Stream, String>> },
}

/// A handle on the node.
#[derive(Clone)]
pub struct PeerNetwork {
    commands: mpsc::Sender<Command>,
    listeners: watch::Receiver<Vec<Multiaddr>>,
    connected: Arc<RwLock<HashSet<PeerId>>>,
    table: PeerTable,
    local: PeerId,
    connect_timeout: Duration,
}

impl std::fmt::Debug for PeerNetwork {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PeerNetwork").field("local", &self.local).finish_non_exhaustive()
    }
}

impl PeerNetwork {
    /// Who is who.
    pub fn table(&self) -> &PeerTable {
        &self.table
    }

    /// This node's peer id.
    pub fn local_peer(&self) -> PeerId {
        self.local
    }

    /// Number of connected hosts.
    pub fn connected_count(&self) -> usize {
        self.connected.read().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }

    /// Addresses that are listened on, as they come and go.
    pub fn watch_listeners(&self) -> watch::Receiver<Vec<Multiaddr>> {
        self.listeners.clone()
    }

    /// Addresses that are listened on; waits until there is one.
    pub async fn listeners(&self) -> Vec<Multiaddr> {
        let mut listeners = self.listeners.clone();
        let found = listeners.wait_for(|listeners| !listeners.is_empty()).await;
        found.map(|listeners| listeners.clone()).unwrap_or_default()
    }

    fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.read().unwrap_or_else(std::sync::PoisonError::into_inner).contains(peer)
    }

    /// Opens a stream, connecting first where that is needed.
    pub async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, PeerError> {
        tokio::time::timeout(self.connect_timeout, self.open_unbounded(peer, protocol))
            .await
            .unwrap_or(Err(PeerError::Timeout))
    }

    async fn open_unbounded(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, PeerError> {
        if !self.is_connected(&peer) {
            self.connect(peer).await?;
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Open { peer, protocol, reply }).await?;
        match answer.await {
            Ok(opened) => opened.map_err(PeerError::Broken),
            Err(_) => Err(PeerError::Unreachable("the connection ended".into())),
        }
    }

    async fn send(&self, command: Command) -> Result<(), PeerError> {
        self.commands.send(command).await.map_err(|_| PeerError::ShuttingDown)
    }

    async fn connect(&self, peer: PeerId) -> Result<(), PeerError> {
        let addresses = self.table.addresses_of(&peer);
        if addresses.is_empty() {
            return Err(PeerError::Unknown);
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Connect { peer, addresses, reply }).await?;
        answer.await.unwrap_or(Err(PeerError::ShuttingDown))
    }
}

/// The task's state.
pub(crate) struct Node {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    listeners: watch::Sender<Vec<Multiaddr>>,
    connected: Arc<RwLock<HashSet<PeerId>>>,
    waiting: HashMap<PeerId, Vec<oneshot::Sender<Result<(), PeerError>>>>,
    table: PeerTable,
}

/// Makes the node and starts to listen. The returned [`Node`] does nothing until it is run.
pub(crate) fn build(
    keypair: libp2p::identity::Keypair,
    listen: &[Multiaddr],
    table: PeerTable,
    connect_timeout: Duration,
) -> Result<(PeerNetwork, Node, mpsc::Receiver<Accepted>), PeerStartError> {
    let local = keypair.public().to_peer_id();
    let transport = |error: &dyn std::fmt::Display| PeerStartError::Transport(error.to_string());
    let yamux = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_YAMUX_STREAMS);
        config
    };
    let admitted = table.clone();
    let (accepting, accepted) = streams::Behaviour::new(&[EXECUTE, TRANSCRIPT, SPRINT], MAX_ACCEPTED);
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        // Nagle's algorithm would hold back single tokens.
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux)
        .map_err(|error| transport(&error))?
        .with_dns()
        .map_err(|error| transport(&error))?
        .with_behaviour(move |keypair| Behaviour {
            admission: Admission::new(admitted),
            streams: accepting,
            identify: identify::Behaviour::new(
                identify::Config::new("/starling/1".into(), keypair.public()).with_cache_size(0),
            ),
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(Duration::from_secs(10))
                    .with_timeout(Duration::from_secs(10)),
            ),
        })
        .map_err(|error| transport(&error))?
        // Hosts keep their connections: a request must not pay for a handshake.
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(Duration::from_secs(u64::from(u32::MAX)))
                .with_max_negotiating_inbound_streams(MAX_NEGOTIATING_STREAMS)
        })
        .build();
    for address in listen {
        swarm.listen_on(address.clone()).map_err(|error| PeerStartError::Listen {
            address: address.clone(),
            reason: error.to_string(),
        })?;
    }
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let connected = Arc::new(RwLock::new(HashSet::new()));
    let (bound, listeners) = watch::channel(Vec::new());
    let network = PeerNetwork {
        commands,
        listeners,
        connected: connected.clone(),
        table: table.clone(),
        local,
        connect_timeout,
    };
    let node =
        Node { swarm, commands: receiver, listeners: bound, connected, waiting: HashMap::new(), table };
    Ok((network, node, accepted))
}

impl Node {
    /// Drives the swarm; ends when it is dropped.
    pub(crate) async fn run(mut self) {
        let mut reconnect = tokio::time::interval(RECONNECT_EVERY);
        reconnect.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                _ = reconnect.tick() => self.reconnect(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Connect { peer, addresses, reply } => {
                if self.swarm.is_connected(&peer) {
                    // Nobody waits for the answer any more when this fails.
                    let _ = reply.send(Ok(()));
                    return;
                }
                self.waiting.entry(peer).or_default().push(reply);
                self.dial(peer, addresses);
            }
            Command::Open { peer, protocol, reply } => {
                self.swarm.behaviour_mut().streams.open(peer, protocol, reply);
            }
        }
    }

    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .build();
        match self.swarm.dial(options) {
            // Either condition ends in an event that answers those who wait.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.answer(&peer, &Err(PeerError::Unreachable(error.to_string()))),
        }
    }

    fn reconnect(&mut self) {
        for peer in self.table.peers() {
            let addresses = self.table.addresses_of(&peer);
            if peer != *self.swarm.local_peer_id() && !addresses.is_empty() && !self.swarm.is_connected(&peer)
            {
                self.dial(peer, addresses);
            }
        }
        // A host that left the registry is no longer a peer.
        let strangers: Vec<PeerId> =
            self.swarm.connected_peers().filter(|peer| !self.table.knows(peer)).copied().collect();
        for peer in strangers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn answer(&mut self, peer: &PeerId, result: &Result<(), PeerError>) {
        for reply in self.waiting.remove(peer).unwrap_or_default() {
            let _ = reply.send(result.clone());
        }
    }

    fn connected(&self) -> std::sync::RwLockWriteGuard<'_, HashSet<PeerId>> {
        self.connected.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(target: "starling::peer", %address, "listening");
                self.listeners.send_replace(self.swarm.listeners().cloned().collect());
            }
            SwarmEvent::ExpiredListenAddr { .. } => {
                self.listeners.send_replace(self.swarm.listeners().cloned().collect());
            }
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                self.connected().insert(peer_id);
                self.answer(&peer_id, &Ok(()));
                tracing::debug!(target: "starling::peer", peer = %peer_id, "connected");
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                self.connected().remove(&peer_id);
                tracing::debug!(target: "starling::peer", peer = %peer_id, ?cause, "disconnected");
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(target: "starling::peer", %peer, %error, "cannot connect");
                if !self.swarm.is_connected(&peer) {
                    self.answer(&peer, &Err(PeerError::Unreachable(error.to_string())));
                }
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(target: "starling::peer", %error, "refused a connection");
            }
            // A peer that stopped answering may leave its TCP connection open for hours.
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                connection,
                result: Err(ping::Failure::Timeout | ping::Failure::Other { .. }),
                ..
            })) => {
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }
}
