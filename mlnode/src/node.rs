//! A whole ML node: engine, model and both ports.

use crate::{
    config::{Config, ConfigError},
    engine::{Engine, LoadRefusal},
    loader::Loader,
    metrics::Metrics,
    server::{inference_app, management_app, AppState},
};
use axum::{serve::ListenerExt, Router};
use starling_primitives::profile::MAX_K;
use std::{future::Future, io, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Time that running answers get to end after the order to stop.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// Time that what runs the model gets to end after that.
const UNLOAD_DEADLINE: Duration = Duration::from_secs(15);

/// Why a node does not start or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The configuration is not complete.
    #[error("the configuration is not usable")]
    Config(#[from] ConfigError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The engine's thread cannot be started.
    #[error("cannot start the engine")]
    Engine(#[source] io::Error),
    /// The metrics cannot be set up.
    #[error("cannot set up the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The engine's thread or a server is gone.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
    /// The configured model cannot be loaded.
    #[error("cannot load the configured model")]
    Load(#[source] LoadRefusal),
}

/// A node that serves. Dropping it stops it at once; [`Node::run_until`] lets answers end first.
#[derive(Debug)]
pub struct Node {
    engine: Engine,
    inference: SocketAddr,
    management: SocketAddr,
    stop: CancellationToken,
    servers: JoinSet<io::Result<()>>,
}

impl Node {
    /// Listens on both ports, then loads the configured model; `/health` is the way to know from outside when it is
    /// there. The loader decides what runs: [`crate::loader::FolderLoader`] outside of tests.
    pub async fn start(config: &Config, loader: Box<dyn Loader>) -> Result<Self, NodeError> {
        let token = config.token.clone().ok_or(ConfigError::NoToken)?;
        let engine =
            Engine::start(loader, config.engine_limits(), Metrics::new()?).map_err(NodeError::Engine)?;
        let top_k = config.model.as_ref().map_or(MAX_K, |model| model.top_k);
        let state = AppState::new(engine.clone(), &token, config.models_dir.clone(), top_k);
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        let inference =
            listen(config.inference.listen, inference_app(state.clone()), &stop, &mut servers).await?;
        let management = listen(config.management.listen, management_app(state), &stop, &mut servers).await?;
        tracing::info!(%inference, %management, threads = config.thread_count(), "listening");
        if let Some(spec) = config.load_spec() {
            engine.load(spec).await.map_err(NodeError::Load)?;
        }
        Ok(Self { engine, inference, management, stop, servers })
    }

    /// Where the inference port is.
    pub fn inference_address(&self) -> SocketAddr {
        self.inference
    }

    /// Where the management port is.
    pub fn management_address(&self) -> SocketAddr {
        self.management
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Serves until `shutdown` is ready, then lets running answers end, for ten seconds at most.
    /// An error means that something ended by itself: the process should be started anew.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            () = self.engine.ended() => Err(NodeError::Ended("the engine")),
            _ = self.servers.join_next() => Err(NodeError::Ended("a server")),
        };
        self.stop.cancel();
        // Sprint work has no end of its own that is worth waiting for; results so far were sent.
        let _ = self.engine.stop_sprint().await;
        let drained = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_DEADLINE, drained).await.is_err() {
            tracing::warn!("answers were cut off by the shutdown");
        }
        // A server that runs the model ends with it.
        if let Some(model) = self.engine.model() {
            let unloaded = self.engine.unload(&model.info.model);
            if tokio::time::timeout(UNLOAD_DEADLINE, unloaded).await.is_err() {
                tracing::warn!("what runs the model did not end in time");
            }
        }
        outcome
    }
}

async fn listen(
    address: SocketAddr,
    app: Router,
    stop: &CancellationToken,
    servers: &mut JoinSet<io::Result<()>>,
) -> Result<SocketAddr, NodeError> {
    let failed = |source| NodeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    // A token is one small packet: it must not wait for the next one.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "set_nodelay failed");
        }
    });
    let stop = stop.clone();
    servers.spawn(
        async move { axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await },
    );
    Ok(bound)
}
