//! This host's own sprint work.

use super::{hash, key, number, read, Store, StoreError};
use crate::context::{SprintLeaf, SprintResult};
use codec::Encode;
use sqlx::Row;
use starling_primitives::{
    merkle::Tree, sprint::SprintCommitment, transcript::Transcript, EpochIndex, ProfileId, H256,
};

impl Store {
    /// Keeps results, in one transaction. A nonce that is known keeps its first result.
    pub async fn put_sprint_results(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
        results: &[SprintResult],
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for result in results {
            sqlx::query(
                "INSERT INTO sprint_results (epoch, profile, nonce, root, transcript) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (epoch, profile, nonce) DO NOTHING",
            )
            .bind(i64::from(epoch))
            .bind(i64::from(profile))
            .bind(i64::from(result.nonce))
            .bind(key(&result.transcript.root()))
            .bind(result.transcript.encode())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The nonces that are done, ascending.
    pub async fn sprint_nonces(&self, epoch: EpochIndex, profile: ProfileId) -> Result<Vec<u32>, StoreError> {
        let rows =
            sqlx::query("SELECT nonce FROM sprint_results WHERE epoch = ? AND profile = ? ORDER BY nonce")
                .bind(i64::from(epoch))
                .bind(i64::from(profile))
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(|row| Ok(number(row.try_get(0)?))).collect()
    }

    /// Roots of nonces `0..limit`, up to the first one that is missing: the leaves of a commitment.
    pub async fn sprint_roots(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
        limit: u32,
    ) -> Result<Vec<H256>, StoreError> {
        let rows = sqlx::query(
            "SELECT nonce, root FROM sprint_results WHERE epoch = ? AND profile = ? AND nonce < ? ORDER BY nonce",
        )
        .bind(i64::from(epoch))
        .bind(i64::from(profile))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        let mut roots = Vec::with_capacity(rows.len());
        for row in &rows {
            if usize::try_from(row.try_get::<i64, _>(0)?) != Ok(roots.len()) {
                break;
            }
            roots.push(hash("root", row.try_get(1)?)?);
        }
        Ok(roots)
    }

    /// Writes down what is about to be committed to. What was written first stays, and is returned.
    pub async fn put_sprint_commitment(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
        commitment: SprintCommitment,
    ) -> Result<SprintCommitment, StoreError> {
        sqlx::query(
            "INSERT INTO sprint_commitments (epoch, profile, root, count) VALUES (?, ?, ?, ?)
             ON CONFLICT (epoch, profile) DO NOTHING",
        )
        .bind(i64::from(epoch))
        .bind(i64::from(profile))
        .bind(key(&commitment.root))
        .bind(i64::from(commitment.count))
        .execute(&self.pool)
        .await?;
        Ok(self.sprint_commitment(epoch, profile).await?.unwrap_or(commitment))
    }

    /// What this host committed to.
    pub async fn sprint_commitment(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
    ) -> Result<Option<SprintCommitment>, StoreError> {
        let row = sqlx::query("SELECT root, count FROM sprint_commitments WHERE epoch = ? AND profile = ?")
            .bind(i64::from(epoch))
            .bind(i64::from(profile))
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(SprintCommitment { root: hash("root", row.try_get(0)?)?, count: number(row.try_get(1)?) }))
    }

    /// Leaves of this host's commitment with their proofs, for a verifier. `None` when it has not committed; nonces
    /// that it does not have are left out.
    pub async fn sprint_leaves(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
        nonces: &[u32],
    ) -> Result<Option<Vec<SprintLeaf>>, StoreError> {
        let Some(commitment) = self.sprint_commitment(epoch, profile).await? else { return Ok(None) };
        let tree = Tree::new(&self.sprint_roots(epoch, profile, commitment.count).await?);
        let mut leaves = Vec::with_capacity(nonces.len());
        for &nonce in nonces.iter().filter(|nonce| **nonce < commitment.count) {
            if let Some(transcript) = self.sprint_transcript(epoch, profile, nonce).await? {
                leaves.push(SprintLeaf { nonce, transcript, proof: tree.proof(nonce) });
            }
        }
        Ok(Some(leaves))
    }

    async fn sprint_transcript(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
        nonce: u32,
    ) -> Result<Option<Transcript>, StoreError> {
        let row = sqlx::query(
            "SELECT transcript FROM sprint_results WHERE epoch = ? AND profile = ? AND nonce = ?",
        )
        .bind(i64::from(epoch))
        .bind(i64::from(profile))
        .bind(i64::from(nonce))
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| read("transcript", row.try_get(0)?)).transpose()
    }
}
