//! Sprint and verification work for the duties.

use super::{with_sources, Fleet, Node};
use crate::context::{HelperError, SprintResult, SprintRunner, Verifier, VerifyItem, VerifyOutcome};
use async_trait::async_trait;
use codec::{DecodeAll, Encode};
use futures::StreamExt;
use starling_mlnode_api as api;
use starling_mlnode_api::MlNode;
use starling_primitives::{profile::Profile, sprint::SprintTask, transcript::Transcript, ProfileId};
use std::{ops::Range, sync::Arc};
use tokio::sync::mpsc;

fn unavailable(error: &api::ClientError) -> HelperError {
    HelperError::Unavailable(with_sources(error))
}

impl Fleet {
    fn known_profile(&self, id: ProfileId) -> Result<Profile, HelperError> {
        self.profile(id).ok_or_else(|| HelperError::Unavailable(format!("profile {id} is not known")))
    }

    fn serving_by_id(&self, id: ProfileId) -> Vec<Arc<Node>> {
        self.profile(id).map(|profile| self.serving(&profile)).unwrap_or_default()
    }
}

#[async_trait]
impl SprintRunner for Fleet {
    async fn nodes(&self, profile: ProfileId) -> Vec<String> {
        self.serving_by_id(profile).iter().map(|node| node.spec.id.clone()).collect()
    }

    async fn chunk_size(&self, _node: &str, _profile: ProfileId) -> u32 {
        self.inner.config.sprint_chunk.min(api::NonceRange::MAX_LEN)
    }

    async fn run(
        &self,
        node: &str,
        task: &SprintTask,
        nonces: Range<u32>,
        results: mpsc::Sender<SprintResult>,
    ) -> Result<(), HelperError> {
        let profile = self.known_profile(task.profile)?;
        let node = self
            .read_nodes()
            .get(node)
            .cloned()
            .ok_or_else(|| HelperError::Unavailable(format!("the ML node {node} was removed")))?;
        let request = api::SprintRunRequest {
            task: task.clone(),
            model: profile.name_lossy(),
            nonces: api::NonceRange { from: nonces.start, to: nonces.end },
        };
        let mut events = node.client.sprint_run(&request).await.map_err(|error| unavailable(&error))?;
        while let Some(event) = events.next().await {
            match event.map_err(|error| unavailable(&error))? {
                api::SprintEvent::Result { nonce, transcript, .. } => {
                    let transcript = decode_result(&nonces, nonce, &transcript)?;
                    if results.send(SprintResult { nonce, transcript }).await.is_err() {
                        return Ok(());
                    }
                }
                api::SprintEvent::Done { .. } => return Ok(()),
                api::SprintEvent::Error(detail) => return Err(HelperError::Unavailable(detail.message)),
            }
        }
        Err(HelperError::Unavailable("the ML node broke off".into()))
    }
}

fn decode_result(nonces: &Range<u32>, nonce: u32, transcript: &[u8]) -> Result<Transcript, HelperError> {
    if !nonces.contains(&nonce) {
        return Err(HelperError::Refused(format!("the ML node did nonce {nonce}, which nobody asked for")));
    }
    Transcript::decode_all(&mut &*transcript)
        .map_err(|error| HelperError::Refused(format!("the ML node's transcript does not decode: {error}")))
}

#[async_trait]
impl Verifier for Fleet {
    async fn serves(&self, profile: ProfileId) -> bool {
        !self.serving_by_id(profile).is_empty()
    }

    async fn verify(
        &self,
        profile: ProfileId,
        items: Vec<VerifyItem>,
    ) -> Result<Vec<VerifyOutcome>, HelperError> {
        let model = self.known_profile(profile)?.name_lossy();
        let mut outcomes = Vec::with_capacity(items.len());
        for chunk in items.chunks(api::MAX_VERIFY_ITEMS) {
            // Asked again for each chunk: the least loaded node may have become another one, or have died.
            let node =
                self.serving_by_id(profile).into_iter().min_by_key(|node| node.load()).ok_or_else(|| {
                    HelperError::Unavailable("no healthy ML node serves the profile".into())
                })?;
            let request =
                api::VerifyRequest { model: model.clone(), items: chunk.iter().map(wire_item).collect() };
            let response = node.client.verify(&request).await.map_err(|error| unavailable(&error))?;
            if response.outcomes.len() != chunk.len() {
                return Err(HelperError::Unavailable(
                    "the ML node answered for another number of items".into(),
                ));
            }
            for outcome in response.outcomes {
                outcomes.push(read_outcome(outcome)?);
            }
        }
        Ok(outcomes)
    }
}

fn wire_item(item: &VerifyItem) -> api::VerifyItem {
    api::VerifyItem {
        transcript: item.transcript.encode(),
        prompt_tokens: item.prompt_tokens.clone(),
        tape_seed: item.tape_seed,
        constraint: item.constraint.clone(),
    }
}

fn read_outcome(outcome: api::VerifyOutcome) -> Result<VerifyOutcome, HelperError> {
    match outcome {
        api::VerifyOutcome::Figures(figures) => Ok(VerifyOutcome::Measured(figures)),
        api::VerifyOutcome::ReplayFailed { reason } => Ok(VerifyOutcome::ReplayFailed(reason)),
        api::VerifyOutcome::ConstraintBroken { reason } => Ok(VerifyOutcome::ConstraintBroken(reason)),
        api::VerifyOutcome::Failed { reason } => Err(HelperError::Unavailable(reason)),
    }
}
