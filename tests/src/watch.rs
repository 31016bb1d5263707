//! What several tests wait for on the chain.

use crate::{
    network::{Network, HOST_NAMES, PROFILE},
    poll,
};
use anyhow::{Context, Result};
use starling_chain_client::{BlockTick, ChainClient, ChainEvent, PlacedRecord};
use starling_math::draw;
use starling_primitives::{
    traits::{HostWeight, Round},
    AccountId, BlockNumber, EpochIndex, ProfileId, RequestId, H256,
};
use std::{ops::RangeInclusive, time::Duration};

/// Several epochs of the test preset, on a loaded machine.
pub const EPOCHS: Duration = Duration::from_secs(900);

/// Waits for the first blocks of an epoch in which all these hosts have weight.
pub async fn fresh_epoch(
    network: &Network,
    chain: &ChainClient,
    hosts: &[usize],
    first_blocks: BlockNumber,
) -> Result<BlockTick> {
    let accounts = hosts.iter().map(|host| network.account(*host)).collect::<Result<Vec<_>>>()?;
    poll::until("the beginning of an epoch with weights", EPOCHS, || async {
        let tick = chain.best_tick()?;
        let weights = chain.at(tick.hash).weights(tick.epoch.index).await?;
        let all = accounts.iter().all(|account| weights.iter().any(|entry| entry.host == *account));
        Ok((all && tick.number < tick.epoch.start + first_blocks).then_some(tick))
    })
    .await
}

/// Waits until the best chain has this block.
pub async fn block(chain: &ChainClient, number: BlockNumber) -> Result<BlockTick> {
    poll::until(&format!("block {number}"), EPOCHS, || async {
        let tick = chain.best_tick()?;
        Ok((tick.number >= number).then_some(tick))
    })
    .await
}

/// What an epoch's executors are drawn from.
#[derive(Clone, Debug)]
pub struct DrawnFrom {
    /// The epoch.
    pub epoch: EpochIndex,
    /// The profile.
    pub profile: ProfileId,
    seed: H256,
    weights: Vec<HostWeight>,
}

impl DrawnFrom {
    /// As it stands in a block.
    pub async fn at(chain: &ChainClient, tick: BlockTick) -> Result<Self> {
        let view = chain.at(tick.hash);
        let epoch = tick.epoch.index;
        let profiles = view.profiles().await?;
        let named = profiles.iter().find(|(_, profile)| profile.name.as_slice() == PROFILE.as_bytes());
        let profile = named.map(|(id, _)| *id).context("the demo profile")?;
        let seed = view.seed(Round::Epoch(epoch)).await?.context("the epoch's seed")?;
        Ok(Self { epoch, profile, seed, weights: view.weights_of_profile(epoch, profile).await? })
    }

    /// Who executes a request that a gateway took.
    pub fn executor(&self, request: &RequestId, gateway: &AccountId) -> Option<AccountId> {
        draw::executor(&self.seed, request, 0, &self.weights, gateway)
    }
}

/// Every inference of some epochs, in the latest finalised block.
pub async fn inferences(
    chain: &ChainClient,
    epochs: RangeInclusive<EpochIndex>,
) -> Result<Vec<PlacedRecord>> {
    let view = chain.finalized()?;
    let mut all = Vec::new();
    for epoch in epochs {
        let count = view.inference_count(epoch).await?;
        all.extend(view.inferences(epoch, &(0..count).collect::<Vec<_>>()).await?);
    }
    Ok(all)
}

/// Every event of the finalised blocks in a range.
pub async fn events(chain: &ChainClient, blocks: RangeInclusive<BlockNumber>) -> Result<Vec<ChainEvent>> {
    let mut all = Vec::new();
    for number in blocks {
        let hash = chain.block_hash(number).await?.with_context(|| format!("block {number}"))?;
        all.extend(chain.at(hash).events().await?.into_iter().map(|(_, event)| event));
    }
    Ok(all)
}

/// The accounts of all hosts.
pub fn all_hosts(network: &Network) -> Result<Vec<AccountId>> {
    (0..HOST_NAMES.len()).map(|host| network.account(host)).collect()
}
