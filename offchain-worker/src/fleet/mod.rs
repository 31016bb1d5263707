//! ML nodes of this host: registry, health, places, dispatch.
//!
//! The fleet knows models by the name of their profile. It is told the profiles of the chain
//! ([`Fleet::set_profiles`]), so that a node with other weights under a profile's name gets no work.

mod duties;
mod node;

pub(crate) use node::with_sources;
pub use node::{Health, Node, Place};

use crate::tasks::Tasks;
use crate::{
    config::{FleetConfig, NodeSpec, Secret},
    operator_db::{OperatorDb, OperatorDbError},
};
use serde::Serialize;
use starling_mlnode_api::ClientError;
use starling_primitives::{profile::Profile, ProfileId};
use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The fleet did not do what the operator wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The registration is not valid.
    #[error("{0}")]
    Invalid(String),
    /// No node has this id.
    #[error("no ML node is called {0}")]
    NotFound(String),
    /// The registry failed.
    #[error("the registry failed")]
    Registry(#[from] OperatorDbError),
    /// The client of a node cannot be made.
    #[error("the client of the ML node cannot be made")]
    Client(#[source] ClientError),
}

/// Why there is no place for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// Healthy nodes serve the model, but all their places are taken.
    #[error("all places are taken")]
    Busy,
    /// No healthy node serves the model.
    #[error("no healthy ML node serves the model")]
    NoModel,
}

/// An ML node as the operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// Its registration.
    #[serde(flatten)]
    pub spec: NodeSpec,
    /// Its health.
    pub health: Health,
    /// Name of the loaded model.
    pub loaded: Option<String>,
    /// Whether the loaded model is what the chain's profile of that name says; `null` when the chain has none.
    pub fits_profile: Option<bool>,
    /// In what it is not, for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub misfit: Option<String>,
    /// Requests running on it.
    pub running: u32,
}

/// The ML nodes of this host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: FleetConfig,
    token: Secret,
    db: OperatorDb,
    nodes: RwLock<BTreeMap<String, Arc<Node>>>,
    profiles: RwLock<BTreeMap<ProfileId, Profile>>,
    tasks: Tasks,
    changed: Arc<Notify>,
}

impl Fleet {
    /// Loads the registry, merges the nodes of the configuration into it, and begins to check them.
    pub async fn start(
        config: FleetConfig,
        token: Secret,
        db: OperatorDb,
        tasks: Tasks,
    ) -> Result<Self, FleetError> {
        let fleet = Self {
            inner: Arc::new(Inner {
                token,
                db,
                nodes: RwLock::default(),
                profiles: RwLock::default(),
                tasks,
                changed: Arc::new(Notify::new()),
                config,
            }),
        };
        for spec in &fleet.inner.config.nodes {
            fleet.inner.db.put_node(spec).await?;
        }
        for spec in fleet.inner.db.nodes().await? {
            fleet.install(spec)?;
        }
        Ok(fleet)
    }

    /// Adds or replaces a node. Requests running on the one it replaces go on.
    pub async fn put(&self, spec: NodeSpec) -> Result<(), FleetError> {
        spec.check().map_err(FleetError::Invalid)?;
        self.inner.db.put_node(&spec).await?;
        self.install(spec)
    }

    /// Removes a node: nothing new is sent to it, what runs on it ends in peace.
    pub async fn remove(&self, id: &str) -> Result<(), FleetError> {
        let node = self.write_nodes().remove(id).ok_or_else(|| FleetError::NotFound(id.to_owned()))?;
        node.retired.cancel();
        self.inner.db.delete_node(id).await?;
        Ok(())
    }

    fn install(&self, spec: NodeSpec) -> Result<(), FleetError> {
        let inner = &self.inner;
        let node = Node::new(spec, &inner.token, CancellationToken::new())
            .map(Arc::new)
            .map_err(FleetError::Client)?;
        let interval = Duration::from_millis(inner.config.health_interval_ms);
        let timeout = Duration::from_millis(inner.config.health_timeout_ms);
        inner.tasks.spawn(node.clone().watch(interval, timeout, inner.changed.clone()));
        if let Some(replaced) = self.write_nodes().insert(node.spec.id.clone(), node) {
            replaced.retired.cancel();
        }
        Ok(())
    }

    /// Tells the fleet what the chain says of profiles.
    pub fn set_profiles(&self, profiles: BTreeMap<ProfileId, Profile>) {
        *self.inner.profiles.write().unwrap_or_else(std::sync::PoisonError::into_inner) = profiles;
    }

    fn profile(&self, id: ProfileId) -> Option<Profile> {
        self.inner.profiles.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id).cloned()
    }

    fn required_fit<'a>(&self, profile: &'a Profile) -> Option<&'a Profile> {
        self.inner.config.check_digests.then_some(profile)
    }

    /// Healthy nodes that serve the profile.
    pub fn serving(&self, profile: &Profile) -> Vec<Arc<Node>> {
        let name = profile.name_lossy();
        let required = self.required_fit(profile);
        self.read_nodes().values().filter(|node| node.serves(&name, required)).cloned().collect()
    }

    /// Takes a place on the least loaded node that serves the profile and is not in `except`.
    pub fn take_place(&self, profile: &Profile, except: &[String]) -> Result<Place, NoPlace> {
        let mut nodes = self.serving(profile);
        nodes.retain(|node| !except.contains(&node.spec.id));
        if nodes.is_empty() {
            return Err(NoPlace::NoModel);
        }
        nodes.sort_by_key(|node| node.load());
        nodes.iter().find_map(Node::take_place).ok_or(NoPlace::Busy)
    }

    /// What the operator sees, by id.
    pub fn report(&self) -> Vec<NodeReport> {
        let profiles = self.inner.profiles.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.read_nodes()
            .values()
            .map(|node| {
                let status = node.status();
                let loaded = status.model.as_ref().map(|model| model.model.clone());
                let profile = profiles.values().rev().find(|profile| Some(profile.name_lossy()) == loaded);
                NodeReport {
                    spec: node.spec.clone(),
                    misfit: status
                        .model
                        .as_ref()
                        .zip(profile)
                        .and_then(|(model, profile)| node::misfit(model, profile)),
                    fits_profile: profile.map(|profile| node.serves(&profile.name_lossy(), Some(profile))),
                    health: status.health,
                    loaded,
                    running: node.running(),
                }
            })
            .collect()
    }

    /// Waits until some node of the fleet was checked again.
    pub async fn checked(&self) {
        self.inner.changed.notified().await;
    }

    fn read_nodes(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Node>>> {
        self.inner.nodes.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write_nodes(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<Node>>> {
        self.inner.nodes.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
