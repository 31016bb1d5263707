//! Puts the agent together, starts it, and takes it down in order.

use crate::{
    admin::{self, AdminState},
    config::{Config, ConfigError, Secret, ENV_PREFIX},
    context::{AgentContext, DutyHelpers},
    duties::{self, DutySettings},
    executor::{Executor, ExecutorParts, Fallback, FallbackError},
    fleet::{with_sources, Fleet, FleetError},
    gateway::{self, GatewayParts, GatewayState},
    keys::{self, HostKeys, KeyError},
    ledger::Ledger,
    metrics::Metrics,
    network::{self, Network, NetworkView},
    operator_db::{OperatorDb, OperatorDbError},
    peer::{Peer, PeerClient, PeerEntry, PeerStartError, PeerTable, Services},
    planter::FleetPlanter,
    store::{Store, StoreError},
    tasks::Tasks,
    tokenizers::{EndTokensOfProfiles, Tokenizers},
};
use axum::{serve::ListenerExt, Router};
use libp2p::{multiaddr::Protocol, Multiaddr};
use starling_chain_client::{ChainClient, ChainError, Endpoints, Keypair, Outbox, OutboxError};
use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

/// Time between two attempts to reach the node when the agent starts.
const CONNECT_EVERY: Duration = Duration::from_secs(1);
/// Addresses of a host that the chain keeps at most.
const MAX_ADDRESSES: usize = 8;
/// Time that the duties have to end: what they are writing to disk, they write.
const DUTIES_DEADLINE: Duration = Duration::from_secs(5);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The configuration is not usable.
    #[error("the configuration is not usable")]
    Config(#[from] ConfigError),
    /// The data folder cannot be made.
    #[error("the data folder cannot be made")]
    DataFolder(#[source] std::io::Error),
    /// A key is missing or malformed.
    #[error("a key cannot be used")]
    Key(#[from] KeyError),
    /// The chain is not one that this program knows.
    #[error("the chain cannot be used")]
    Chain(#[from] ChainError),
    /// The store does not open.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// The outbox does not open.
    #[error("the outbox cannot be opened")]
    Outbox(#[from] OutboxError),
    /// The operator's database does not open.
    #[error("the operator's database cannot be opened")]
    OperatorDb(#[from] OperatorDbError),
    /// The fallback's database does not open.
    #[error("the fallback's database cannot be opened")]
    Fallback(#[from] FallbackError),
    /// The registry of ML nodes does not load.
    #[error("the ML nodes cannot be loaded")]
    Fleet(#[from] FleetError),
    /// libp2p does not start.
    #[error("libp2p cannot start")]
    Peer(#[from] PeerStartError),
    /// An address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An HTTP client or the metrics cannot be made.
    #[error("the agent cannot be set up: {0}")]
    SetUp(String),
}

/// Reads the configuration and runs the agent until `shutdown` resolves; returns when everything has ended.
///
/// Dropping the future ends the agent as well, without giving requests time to end.
pub async fn run(config: PathBuf, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    run_with(Config::load(&config)?, shutdown).await
}

/// [`run`] with a configuration that was read already.
pub async fn run_with(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    tokio::pin!(shutdown);
    let agent = tokio::select! {
        () = &mut shutdown => return Ok(()),
        agent = Agent::start(config) => agent?,
    };
    shutdown.await;
    agent.stop().await;
    Ok(())
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    gateway: SocketAddr,
    admin: SocketAddr,
    peers: PeerClient,
    deadline: Duration,
    /// Requests and HTTP servers: they get time to end.
    requests: Tasks,
    fleet: Fleet,
    /// Duties and outbox: they end by themselves when told to.
    duties: Tasks,
    /// What both stand on; does not end by itself.
    backbone: Tasks,
    accepting: CancellationToken,
    end_duties: CancellationToken,
}

/// Databases and keys: what must be there before anything else.
struct Ground {
    keys: HostKeys,
    fleet_token: Secret,
    admin_token: Secret,
    db: OperatorDb,
    fallback: Fallback,
    context: AgentContext,
}

impl Agent {
    /// Waits for the node, then starts everything.
    pub async fn start(config: Config) -> Result<Self, AgentError> {
        // Whatever is wrong with the keys should show before a node is needed.
        HostKeys::load(&config)?;
        keys::plants_clients(&config)?;
        let chain = connect(&config.chain.url).await?;
        Self::start_on(config, chain).await
    }

    /// Starts everything on a chain that is connected already.
    pub async fn start_on(config: Config, chain: ChainClient) -> Result<Self, AgentError> {
        std::fs::create_dir_all(&config.host.data_dir).map_err(AgentError::DataFolder)?;
        let gateway_listener = bind(config.gateway.listen).await?;
        let admin_listener = bind(config.admin.listen).await?;
        let ground = lay_ground(&config, chain).await?;
        let (requests, duties, backbone) = (Tasks::default(), Tasks::default(), Tasks::default());
        let (accepting, end_duties) = (CancellationToken::new(), CancellationToken::new());
        let parts = connect_parts(&config, &ground, &requests, &backbone, &accepting).await?;
        let Parts { network, fleet, peers, gateway: state, helpers } = parts;
        let admin_state = AdminState {
            token: Arc::new(ground.admin_token),
            fleet: fleet.clone(),
            db: ground.db,
            keys: ground.keys.clone(),
            host: ground.context.host.clone(),
            network,
            outbox: ground.context.outbox.clone(),
        };
        let gateway = serve(gateway_listener, gateway::router(state), &requests, accepting.clone())?;
        let admin = serve(admin_listener, admin::router(admin_state), &requests, accepting.clone())?;
        tracing::info!(target: "starling::agent", %gateway, %admin, host = %ground.context.host, "serving");
        let plants = keys::plants_clients(&config)?.into_iter().map(Keypair::from).collect();
        spawn_duties(&config, ground.context, helpers, &peers, (&ground.keys, plants), &duties, &end_duties);
        let deadline = config.shutdown_deadline();
        Ok(Self { gateway, admin, peers, fleet, deadline, requests, duties, backbone, accepting, end_duties })
    }

    /// Address of the gateway.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// Address of the operator's HTTP.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The libp2p side.
    pub fn peers(&self) -> &PeerClient {
        &self.peers
    }

    /// The ML nodes.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Takes nothing new, lets what runs end within the deadline, then stops the rest.
    pub async fn stop(self) {
        tracing::info!(target: "starling::agent", tasks = self.requests.len(), "stopping");
        // First no new work from anywhere, while everything that running requests need still stands.
        self.accepting.cancel();
        let in_time = self.requests.end(self.deadline).await;
        if !in_time {
            tracing::warn!(target: "starling::agent", "requests were cut off at the deadline");
        }
        // The outbox and the duties resume from disk at the next start.
        self.end_duties.cancel();
        self.duties.end(DUTIES_DEADLINE).await;
        self.backbone.end(Duration::ZERO).await;
        tracing::info!(target: "starling::agent", "stopped");
    }
}

impl Drop for Agent {
    /// Nothing that the agent spawned outlives it.
    fn drop(&mut self) {
        self.accepting.cancel();
        self.end_duties.cancel();
        for tasks in [&self.requests, &self.duties, &self.backbone] {
            tasks.stop();
        }
    }
}

/// What stands between the databases and the HTTP servers.
struct Parts {
    network: Network,
    fleet: Fleet,
    peers: PeerClient,
    gateway: GatewayState,
    helpers: DutyHelpers,
}

/// Starts network view, fleet, peers and executor, and puts the gateway on top of them.
async fn connect_parts(
    config: &Config,
    ground: &Ground,
    requests: &Tasks,
    backbone: &Tasks,
    accepting: &CancellationToken,
) -> Result<Parts, AgentError> {
    let context = ground.context.clone();
    let metrics = Metrics::new().map_err(|error| AgentError::SetUp(error.to_string()))?;
    let (network, follow) = network::follow(context.chain.clone()).await?;
    backbone.spawn(follow);
    let (token, db) = (ground.fleet_token.clone(), ground.db.clone());
    let fleet = Fleet::start(config.fleet.clone(), token, db, backbone.clone()).await?;
    let table = PeerTable::default();
    let ledger = Ledger::new(context.chain.clone());
    apply_view(&network.view(), &table, &fleet);
    let peer = Peer::bind(config.peer.clone(), ground.keys.peer().clone(), table.clone())?;
    let peers = peer.client();
    let executor = Executor::new(ExecutorParts {
        context: context.clone(),
        keys: ground.keys.clone(),
        network: network.clone(),
        fleet: fleet.clone(),
        ledger: ledger.clone(),
        fallback: ground.fallback.clone(),
        metrics: metrics.clone(),
        event_timeout: Duration::from_millis(config.gateway.token_timeout_ms),
    });
    let services = Services { execute: Arc::new(executor.clone()), archive: Arc::new(context.store.clone()) };
    peer.spawn(services, backbone, requests, accepting.clone());
    let fallback = ground.fallback.clone();
    backbone.spawn(keep_up(network.clone(), table, fleet.clone(), ledger.clone(), fallback, context.clone()));
    let tokenizers = Tokenizers::new(fleet.clone(), config.data_file("tokenizers"), context.host.clone())
        .map_err(|error| AgentError::SetUp(with_sources(&error)))?;
    let gateway = GatewayState::new(GatewayParts {
        config: config.gateway.clone(),
        context,
        keys: ground.keys.clone(),
        network: network.clone(),
        fleet: fleet.clone(),
        ledger,
        db: ground.db.clone(),
        peers: peers.clone(),
        executor: executor.clone(),
        metrics,
        tokenizers: tokenizers.clone(),
        tasks: requests.clone(),
    });
    let planter = FleetPlanter::new(executor, fleet.clone(), tokenizers.clone(), network.clone())
        .map_err(|error| AgentError::SetUp(with_sources(&error)))?;
    let end_tokens = Arc::new(EndTokensOfProfiles { tokenizers, network: network.clone() });
    let fleet_helper = Arc::new(fleet.clone());
    let helpers = DutyHelpers {
        sprint: fleet_helper.clone(),
        verifier: fleet_helper,
        peers: Arc::new(peers.clone()),
        end_tokens,
        planter: Arc::new(planter),
    };
    Ok(Parts { network, fleet, peers, gateway, helpers })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AgentError> {
    TcpListener::bind(address).await.map_err(|source| AgentError::Listen { address, source })
}

async fn lay_ground(config: &Config, chain: ChainClient) -> Result<Ground, AgentError> {
    let host_keys = HostKeys::load(config)?;
    let fleet_token =
        keys::given("fleet.token", config.fleet.token.as_ref(), config.fleet.token_file.as_deref())?
            .ok_or_else(|| KeyError::Missing {
                field: "fleet.token",
                variable: format!("{ENV_PREFIX}FLEET__TOKEN"),
            })?;
    let admin_token =
        keys::given("admin.token", config.admin.token.as_ref(), config.admin.token_file.as_deref())?;
    let admin_token = match admin_token {
        Some(token) => token,
        None => keys::read_or_make(&config.data_file("admin.token"))?,
    };
    let db = OperatorDb::open(&config.data_file("operator.sqlite")).await?;
    let fallback = Fallback::open(&config.data_file("fallback.sqlite")).await?;
    let store = Store::open(&config.data_file("store.sqlite")).await?;
    let outbox = Outbox::open(&config.data_file("outbox.sqlite")).await?;
    // What one chain was promised must not be sent to another.
    store.bind(&chain.genesis()).await?;
    outbox.bind(&chain.genesis()).await?;
    let context = AgentContext {
        genesis: chain.genesis(),
        chain,
        outbox,
        store,
        worker: Keypair::from(host_keys.worker().clone()),
        host: config.host.account.clone(),
    };
    Ok(Ground { keys: host_keys, fleet_token, admin_token, db, fallback, context })
}

/// Waits for the node: it may be starting beside us, in this very process.
async fn connect(url: &str) -> Result<ChainClient, AgentError> {
    let mut said = false;
    loop {
        match ChainClient::connect(url).await {
            Ok(chain) => return Ok(chain),
            Err(error) if error.is_temporary() => {
                if !said {
                    let error = with_sources(&error);
                    tracing::info!(target: "starling::agent", url, %error, "waiting for the node");
                    said = true;
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(CONNECT_EVERY).await;
    }
}

fn serve(
    listener: TcpListener,
    router: Router,
    requests: &Tasks,
    accepting: CancellationToken,
) -> Result<SocketAddr, AgentError> {
    let address = listener.local_addr().map_err(|error| AgentError::SetUp(error.to_string()))?;
    // Nagle's algorithm would hold back single tokens.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(target: "starling::http", %error, "TCP_NODELAY");
        }
    });
    requests.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(accepting.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(target: "starling::http", %error, "the HTTP server has stopped");
        }
    });
    Ok(address)
}

/// Tells everybody who keeps a part of the chain in memory.
fn apply_view(view: &NetworkView, table: &PeerTable, fleet: &Fleet) {
    table.replace(view.hosts.iter().filter_map(|(account, info)| {
        let endpoints = info.endpoints.as_ref()?;
        PeerEntry::parse(account.clone(), &endpoints.peer_id, &endpoints.multiaddrs)
    }));
    fleet.set_profiles(view.profiles.as_ref().clone());
}

/// Follows the views: peers, profiles, money, and `Started` records that a gateway left out.
async fn keep_up(
    network: Network,
    table: PeerTable,
    fleet: Fleet,
    ledger: Ledger,
    fallback: Fallback,
    context: AgentContext,
) {
    let mut views = network.subscribe();
    while views.changed().await.is_ok() {
        let view = views.borrow_and_update().clone();
        apply_view(&view, &table, &fleet);
        if let Err(error) = ledger.advance(view.tick.hash, view.number()).await {
            tracing::warn!(target: "starling::agent", error = %with_sources(&error), "the ledger stays a block behind");
        }
        match fallback.pass(&context, &view).await {
            Ok(0) => {}
            Ok(records) => {
                tracing::info!(target: "starling::agent", records, "recording what gateways left out")
            }
            Err(error) => {
                tracing::warn!(target: "starling::agent", error = %with_sources(&error), "tried again at the next block");
            }
        }
    }
}

fn spawn_duties(
    config: &Config,
    context: AgentContext,
    helpers: DutyHelpers,
    peers: &PeerClient,
    (keys, plants): (&HostKeys, Vec<Keypair>),
    tasks: &Tasks,
    token: &CancellationToken,
) {
    if !config.duties.enabled {
        tracing::warn!(target: "starling::agent", "duties are switched off");
        let outbox = context.outbox.clone();
        tasks.spawn(outbox.run(context.chain, context.worker, context.host, token.clone()));
        return;
    }
    let (sender, endpoints) = watch::channel(None);
    tasks.spawn(publish_endpoints(config.clone(), peers.clone(), keys.peer_id(), sender, token.clone()));
    let verify_concurrency = config.duties.max_parallel_verifications;
    let settings = DutySettings { verify_concurrency, endpoints, plants };
    tasks.spawn(duties::run(context, helpers, settings, token.clone()));
}

/// Says where this host is reached, and again when that changes.
async fn publish_endpoints(
    config: Config,
    peers: PeerClient,
    peer_id: libp2p::PeerId,
    sender: watch::Sender<Option<Endpoints>>,
    token: CancellationToken,
) {
    let mut listeners = peers.network().watch_listeners();
    loop {
        let multiaddrs: Vec<String> = match config.peer.public_addresses.as_slice() {
            [] => {
                let bound = listeners.borrow_and_update().clone();
                bound.iter().filter(|address| is_public(address)).map(ToString::to_string).collect()
            }
            configured => configured.to_vec(),
        };
        if !multiaddrs.is_empty() {
            let endpoints = Endpoints {
                peer_id: peer_id.to_bytes(),
                multiaddrs: multiaddrs.into_iter().take(MAX_ADDRESSES).map(String::into_bytes).collect(),
                gateway_url: config.gateway.public_url.clone().into_bytes(),
            };
            sender.send_if_modified(|current| current.replace(endpoints.clone()) != Some(endpoints));
        }
        tokio::select! {
            () = token.cancelled() => return,
            changed = listeners.changed() => if changed.is_err() {
                // Whoever reads the endpoints must not find their channel closed.
                return token.cancelled().await;
            },
        }
    }
}

/// Whether an address can be dialled: it names a host. Loopback is fine: local networks live there.
fn is_public(address: &Multiaddr) -> bool {
    !address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_unspecified(),
        Protocol::Ip6(ip) => ip.is_unspecified(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_can_be_spawned_inside_another_program() {
        fn assert_spawnable(_: &(impl Send + 'static)) {}
        assert_spawnable(&run(PathBuf::new(), std::future::pending()));
    }

    #[test]
    fn wildcard_addresses_are_not_published() {
        let check = |address: &str, public: bool| assert_eq!(is_public(&address.parse().unwrap()), public);
        check("/ip4/0.0.0.0/tcp/4001", false);
        check("/ip6/::/tcp/4001", false);
        check("/ip4/127.0.0.1/tcp/4001", true);
        check("/dns4/host.example/tcp/4001", true);
    }
}
