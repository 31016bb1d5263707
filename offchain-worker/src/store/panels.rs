//! What this host says as a member of panels.

use super::{read, Store, StoreError};
use codec::Encode;
use sqlx::Row;
use starling_primitives::{
    verdict::{Outcome, PanelReveal},
    EpochIndex, InferenceId,
};

impl Store {
    /// Keeps what this host will reveal to a panel. The first one stays, because a commitment to it may be on its way;
    /// returns it.
    pub async fn put_panel_vote(&self, vote: &PanelReveal) -> Result<PanelReveal, StoreError> {
        let id = vote.inference;
        sqlx::query(
            "INSERT INTO panel_votes (epoch, idx, round, reveal) VALUES (?, ?, ?, ?)
             ON CONFLICT (epoch, idx, round) DO NOTHING",
        )
        .bind(i64::from(id.epoch))
        .bind(i64::from(id.index))
        .bind(i64::from(vote.round))
        .bind(vote.encode())
        .execute(&self.pool)
        .await?;
        let row = sqlx::query("SELECT reveal FROM panel_votes WHERE epoch = ? AND idx = ? AND round = ?")
            .bind(i64::from(id.epoch))
            .bind(i64::from(id.index))
            .bind(i64::from(vote.round))
            .fetch_one(&self.pool)
            .await?;
        read("panel vote", row.try_get(0)?)
    }

    /// What this host says to panels on an epoch's inferences.
    pub async fn panel_votes(&self, epoch: EpochIndex) -> Result<Vec<PanelReveal>, StoreError> {
        let rows = sqlx::query("SELECT reveal FROM panel_votes WHERE epoch = ?")
            .bind(i64::from(epoch))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| read("panel vote", row.try_get(0)?)).collect()
    }

    /// What came of this host's own check of an inference, if there was one.
    pub async fn outcome(&self, id: InferenceId) -> Result<Option<Outcome>, StoreError> {
        let row = sqlx::query("SELECT outcome FROM verified WHERE epoch = ? AND idx = ?")
            .bind(i64::from(id.epoch))
            .bind(i64::from(id.index))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| read("outcome", row.try_get(0)?)).transpose()
    }
}
