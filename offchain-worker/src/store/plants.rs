//! What this host plants.

use super::{read, Store, StoreError};
use codec::{Decode, Encode};
use sqlx::Row;
use starling_primitives::{plant::Consent, request::RequestHeader, AccountId, BlockNumber, EpochIndex, H256};

/// What a host committed itself to in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PlantPlan {
    /// [`starling_primitives::plant::commitment`], or random bytes.
    pub commitment: H256,
    /// What it commits to; `None` when to nothing, or when that was given up.
    pub plant: Option<Plant>,
}

/// A bad answer that a host is going to give itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Plant {
    /// The request. Its nonce has this host drawn as executor.
    pub header: RequestHeader,
    /// Token ids of its prompt.
    pub prompt_tokens: Vec<u32>,
    /// The same as the gateway takes it.
    pub body: String,
    /// Host whose gateway is asked.
    pub gateway: AccountId,
    /// Opens the commitment.
    pub salt: H256,
    /// That the client agrees. Signed beforehand: with another key in the configuration a reveal would be refused.
    pub consent: Consent,
    /// What the noise on the answer follows from.
    pub noise: H256,
    /// Block from which on it is answered: some time after the commitment, or everybody would know when to look.
    pub answer_from: BlockNumber,
}

impl Store {
    /// Keeps what this host commits itself to. The first plan of an epoch stays, because its commitment may be on its way;
    /// returns it.
    pub async fn put_plant(&self, epoch: EpochIndex, plan: &PlantPlan) -> Result<PlantPlan, StoreError> {
        sqlx::query("INSERT INTO plants (epoch, plan) VALUES (?, ?) ON CONFLICT (epoch) DO NOTHING")
            .bind(i64::from(epoch))
            .bind(plan.encode())
            .execute(&self.pool)
            .await?;
        Ok(self.plant(epoch).await?.unwrap_or_else(|| plan.clone()))
    }

    /// What this host committed itself to in an epoch.
    pub async fn plant(&self, epoch: EpochIndex) -> Result<Option<PlantPlan>, StoreError> {
        let row = sqlx::query("SELECT plan FROM plants WHERE epoch = ?")
            .bind(i64::from(epoch))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| read("plan of a plant", row.try_get(0)?)).transpose()
    }

    /// Gives a plant up that is not recorded. The commitment stays.
    pub async fn give_up_plant(&self, epoch: EpochIndex) -> Result<(), StoreError> {
        let Some(plan) = self.plant(epoch).await? else { return Ok(()) };
        sqlx::query("UPDATE plants SET plan = ? WHERE epoch = ?")
            .bind(PlantPlan { plant: None, ..plan }.encode())
            .bind(i64::from(epoch))
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
