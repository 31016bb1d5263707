//! The store as other hosts see it.

use crate::{
    peer::{
        protocol::{ServedTranscript, SprintLeaf},
        Archive, ArchiveError,
    },
    store::{Store, StoreError},
};
use async_trait::async_trait;
use codec::Encode;
use starling_primitives::{EpochIndex, ProfileId, RequestId};

fn unreadable(error: StoreError) -> ArchiveError {
    ArchiveError(crate::fleet::with_sources(&error))
}

#[async_trait]
impl Archive for Store {
    async fn transcript(&self, request: &RequestId) -> Result<Option<ServedTranscript>, ArchiveError> {
        let found = Store::transcript(self, request).await.map_err(unreadable)?;
        let Some((transcript, payload)) = found else { return Ok(None) };
        Ok(Some(ServedTranscript {
            transcript: transcript.encode(),
            prompt_tokens: payload.prompt_tokens,
            constraint: payload.constraint,
            receipt: self.receipt(request).await.map_err(unreadable)?,
        }))
    }

    async fn sprint_leaves(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
        nonces: &[u32],
    ) -> Result<Vec<SprintLeaf>, ArchiveError> {
        let found = Store::sprint_leaves(self, epoch, profile, nonces).await.map_err(unreadable)?;
        Ok(found
            .unwrap_or_default()
            .into_iter()
            .map(|leaf| SprintLeaf {
                nonce: leaf.nonce,
                transcript: leaf.transcript.encode(),
                proof: leaf.proof,
            })
            .collect())
    }
}
