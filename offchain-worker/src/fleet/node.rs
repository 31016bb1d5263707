//! One ML node: its client, its places, and what is known of its health.

use crate::config::{ModelSpec, NodeSpec, Secret};
use serde::Serialize;
use starling_mlnode_api::{ClientConfig, ClientError, LoadRequest, MlNode, MlNodeClient, ModelInfo};
use starling_primitives::profile::Profile;
use std::{
    fmt,
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Successful state checks between two proofs that a token can be produced.
const PROVE_EVERY: u32 = 15;

/// Whether an ML node can be given work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Health {
    /// Not asked yet.
    Unknown,
    /// Produces tokens.
    Healthy,
    /// Does not.
    Unhealthy {
        /// Why, for the operator.
        reason: String,
    },
}

/// What the last check found.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) health: Health,
    pub(crate) model: Option<ModelInfo>,
}

/// A registered ML node. Requests hold it by `Arc`, so that its removal takes nothing away from them.
#[derive(Debug)]
pub struct Node {
    pub(crate) spec: NodeSpec,
    pub(crate) client: MlNodeClient,
    places: Arc<Semaphore>,
    status: RwLock<Status>,
    /// Asks for a check now instead of at the next interval.
    check_now: Notify,
    /// Ends the health checks.
    pub(crate) retired: CancellationToken,
}

/// A place on an ML node, held as long as the request runs.
#[derive(Debug)]
pub struct Place {
    node: Arc<Node>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Node {
    /// Prepares the client; nothing is sent yet.
    pub(crate) fn new(
        spec: NodeSpec,
        token: &Secret,
        retired: CancellationToken,
    ) -> Result<Self, ClientError> {
        let config = ClientConfig::new(
            format!("http://{}:{}", spec.host, spec.inference_port),
            format!("http://{}:{}", spec.host, spec.poc_port),
            token.expose(),
        );
        Ok(Self {
            client: MlNodeClient::new(config)?,
            places: Arc::new(Semaphore::new(spec.max_concurrent.min(1 << 20) as usize)),
            status: RwLock::new(Status { health: Health::Unknown, model: None }),
            check_now: Notify::new(),
            retired,
            spec,
        })
    }

    /// Its registration.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    pub(crate) fn status(&self) -> Status {
        self.status.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn set_status(&self, status: Status) {
        let mut current = self.status.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.health != status.health {
            tracing::info!(target: "starling::fleet", node = %self.spec.id, health = ?status.health, "health changed");
        }
        *current = status;
    }

    /// Whether it is healthy and has this profile's model loaded.
    pub(crate) fn serves(&self, name: &str, profile: Option<&Profile>) -> bool {
        if self.retired.is_cancelled() || !self.spec.models.contains_key(name) {
            return false;
        }
        let status = self.status.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        status.health == Health::Healthy
            && status.model.as_ref().is_some_and(|model| {
                model.model == name && profile.is_none_or(|profile| misfit(model, profile).is_none())
            })
    }

    /// Requests running on it for this host.
    pub fn running(&self) -> u32 {
        self.spec
            .max_concurrent
            .saturating_sub(u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX))
    }

    /// Load in parts per thousand of its places.
    pub(crate) fn load(&self) -> u32 {
        self.running().saturating_mul(1_000) / self.spec.max_concurrent.max(1)
    }

    /// Takes a place if one is free.
    pub(crate) fn take_place(self: &Arc<Self>) -> Option<Place> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        Some(Place { node: self.clone(), _permit: permit })
    }

    /// A request failed on it: nothing new is sent until the next check says it is well.
    pub(crate) fn report_failure(&self, reason: &str) {
        let model = self.status().model;
        self.set_status(Status { health: Health::Unhealthy { reason: reason.to_owned() }, model });
        self.check_now.notify_one();
    }

    /// Checks its health again and again until it is retired. `changed` is told after each check.
    pub(crate) async fn watch(self: Arc<Self>, interval: Duration, timeout: Duration, changed: Arc<Notify>) {
        let mut since_proof = PROVE_EVERY;
        loop {
            let check = self.check(since_proof >= PROVE_EVERY || self.status().health != Health::Healthy);
            let status = tokio::select! {
                () = self.retired.cancelled() => return,
                status = tokio::time::timeout(timeout, check) => status,
            };
            let status = status.unwrap_or_else(|_| Ok((None, false)));
            match status {
                Ok((Some(model), proved)) => {
                    since_proof = if proved { 0 } else { since_proof.saturating_add(1) };
                    self.set_status(Status { health: Health::Healthy, model: Some(model) });
                }
                Ok((None, _)) => {
                    let reason = "no answer in time, or no model loaded".to_owned();
                    self.set_status(Status { health: Health::Unhealthy { reason }, model: None });
                }
                Err(error) => {
                    let reason = with_sources(&error);
                    self.set_status(Status { health: Health::Unhealthy { reason }, model: None });
                }
            }
            changed.notify_waiters();
            tokio::select! {
                () = self.retired.cancelled() => return,
                () = self.check_now.notified() => tokio::task::yield_now().await,
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// The loaded model, and whether a token was produced. Loads the registered model into an empty node.
    async fn check(&self, prove: bool) -> Result<(Option<ModelInfo>, bool), ClientError> {
        let state = self.client.state().await?;
        let model = match state.model {
            Some(model) => model,
            None => match self.spec.models.iter().next() {
                Some((name, spec)) => self.client.load(&load_request(name, spec)).await?,
                None => return Ok((None, false)),
            },
        };
        if prove {
            match self.client.health().await {
                Ok(_) => {}
                // A node whose places are all taken is producing tokens.
                Err(error) if error.is_overloaded() => {}
                Err(error) => return Err(error),
            }
        }
        Ok((Some(model), prove))
    }
}

/// In what the loaded model is not the one that the profile names, in words for the operator: anything else would be convicted.
pub(crate) fn misfit(model: &ModelInfo, profile: &Profile) -> Option<String> {
    let numerics = profile.numerics.name();
    let differ = |what: &str, found: &dyn fmt::Display, expected: &dyn fmt::Display| {
        Some(format!("{what} {found}, the profile says {expected}"))
    };
    if model.digest.weights_digest != profile.weights_digest {
        let (found, expected) = (model.digest.weights_digest, profile.weights_digest);
        return differ("the digest of its weights is", &format!("{found:?}"), &format!("{expected:?}"));
    }
    if model.digest.tokenizer_digest != profile.tokenizer_digest {
        let (found, expected) = (model.digest.tokenizer_digest, profile.tokenizer_digest);
        return differ("the digest of its tokenizer is", &format!("{found:?}"), &format!("{expected:?}"));
    }
    if model.top_k != profile.top_k {
        return differ("its candidates per token are", &model.top_k, &profile.top_k);
    }
    if model.numerics != numerics {
        let what = "it computes in the class (`precision` of the ML node)";
        return differ(what, &model.numerics, &numerics);
    }
    None
}

fn load_request(name: &str, spec: &ModelSpec) -> LoadRequest {
    let mut request = LoadRequest { model: name.to_owned(), folder: None, top_k: None, weights_digest: None };
    for arg in &spec.args {
        if let Some(folder) = arg.strip_prefix("--folder=") {
            request.folder = Some(folder.to_owned());
        } else if let Some(top_k) = arg.strip_prefix("--top-k=") {
            request.top_k = top_k.parse().ok();
        } else if !arg.starts_with('-') && request.folder.is_none() {
            request.folder = Some(arg.clone());
        }
    }
    request
}

/// An error with everything below it, for logs and for the operator.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_mlnode_api::ModelDigest;
    use starling_primitives::{
        profile::{Calibration, Numerics},
        H256,
    };

    #[test]
    fn what_does_not_fit_is_named() {
        let calibration = Calibration { distance_limit: 8, margin_limit: 8, short_allowance: 0 };
        let profile = Profile {
            name: b"demo".to_vec().try_into().unwrap(),
            weights_digest: H256::repeat_byte(1),
            tokenizer_digest: H256::repeat_byte(2),
            numerics: Numerics::Bf16,
            top_k: 20,
            max_context: 512,
            vocab_size: 4_096,
            prompt_price: 1,
            completion_price: 10,
            prompt_work: 1,
            completion_work: 4,
            sprint_tolerance: 0,
            calibration,
        };
        let digest = ModelDigest {
            weights_digest: profile.weights_digest,
            tokenizer_digest: profile.tokenizer_digest,
            vocab_size: 4_096,
            max_context: 512,
        };
        let (model, numerics) = ("demo".to_owned(), "bf16".to_owned());
        let model = ModelInfo { model, digest, top_k: 20, parameters: 1, numerics, load_ms: 0 };
        assert_eq!(misfit(&model, &profile), None);
        let check = |spoil: fn(&mut ModelInfo), named: &str| {
            let mut other = model.clone();
            spoil(&mut other);
            let found = misfit(&other, &profile).unwrap();
            assert!(found.contains(named), "{found}");
        };
        check(|model| model.digest.weights_digest = H256::zero(), "weights");
        check(|model| model.digest.tokenizer_digest = H256::zero(), "tokenizer");
        check(|model| model.top_k = 8, "candidates per token are 8, the profile says 20");
        check(|model| model.numerics = "f32".into(), "precision");
    }

    #[test]
    fn args_name_folder_and_candidates() {
        let check = |args: &[&str], folder: Option<&str>, top_k| {
            let spec = ModelSpec { args: args.iter().map(|arg| (*arg).to_owned()).collect() };
            let request = load_request("m", &spec);
            assert_eq!((request.folder.as_deref(), request.top_k), (folder, top_k), "{args:?}");
        };
        check(&[], None, None);
        check(&["demo"], Some("demo"), None);
        check(&["--top-k=8", "--folder=x"], Some("x"), Some(8));
        check(&["--unknown", "y"], Some("y"), None);
    }
}
