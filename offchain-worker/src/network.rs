//! The chain as requests need it: hosts, profiles, weights and seeds of the latest best block, in memory.
//!
//! A request must not wait for the node. One task follows the best block and replaces the view as a whole; readers
//! hold an `Arc` of it for as long as a request lasts.

use starling_chain_client::{BlockTick, ChainClient, ChainError, ChainView, HostInfo};
use starling_math::{clock, draw};
use starling_primitives::{
    profile::Profile,
    traits::{HostWeight, Round},
    AccountId, BlockNumber, EpochIndex, ProfileId, RequestId, H256,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// What is fixed for an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochView {
    /// Number of the epoch.
    pub index: EpochIndex,
    /// Its seed: draws executors, makes tapes.
    pub seed: H256,
    /// Weights over all profiles, sorted by account.
    pub weights: Vec<HostWeight>,
    /// Weights by profile, each sorted by account.
    pub by_profile: BTreeMap<ProfileId, Vec<HostWeight>>,
}

impl EpochView {
    /// Hosts with weight for a profile.
    pub fn hosts_of(&self, profile: ProfileId) -> &[HostWeight] {
        self.by_profile.get(&profile).map(Vec::as_slice).unwrap_or_default()
    }

    /// The executor of a request, as the chain draws it.
    pub fn executor(
        &self,
        profile: ProfileId,
        request_id: &RequestId,
        attempt: u8,
        gateway: &AccountId,
    ) -> Option<AccountId> {
        draw::executor(&self.seed, request_id, attempt, self.hosts_of(profile), gateway)
    }
}

/// The chain at one best block.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// The block.
    pub tick: BlockTick,
    /// The running epoch; `None` before it has a seed.
    pub current: Option<Arc<EpochView>>,
    /// The epoch before.
    pub previous: Option<Arc<EpochView>>,
    /// All registered hosts.
    pub hosts: Arc<BTreeMap<AccountId, HostInfo>>,
    /// All registered profiles.
    pub profiles: Arc<BTreeMap<ProfileId, Profile>>,
}

impl NetworkView {
    /// The profile that clients mean by a name: the latest of that name, preferably one that some host has weight for.
    pub fn profile_by_name(&self, name: &str) -> Option<(ProfileId, &Profile)> {
        let served =
            |id: ProfileId| self.current.as_ref().is_some_and(|epoch| !epoch.hosts_of(id).is_empty());
        let named =
            || self.profiles.iter().rev().filter(|(_, profile)| profile.name.as_slice() == name.as_bytes());
        let found = named().find(|(id, _)| served(**id)).or_else(|| named().next());
        found.map(|(id, profile)| (*id, profile))
    }

    /// The epoch with this number, if requests drawn in it are still taken at this block.
    pub fn usable_epoch(&self, index: EpochIndex) -> Option<&Arc<EpochView>> {
        if index == self.tick.epoch.index {
            return self.current.as_ref();
        }
        let in_grace = clock::in_grace(&self.tick.epoch, self.tick.number);
        self.previous.as_ref().filter(|epoch| in_grace && epoch.index == index)
    }

    /// Height of the block.
    pub fn number(&self) -> BlockNumber {
        self.tick.number
    }
}

/// Follows the chain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    view: watch::Receiver<Arc<NetworkView>>,
}

impl Network {
    /// The latest view.
    pub fn view(&self) -> Arc<NetworkView> {
        self.view.borrow().clone()
    }

    /// Waits for a view that satisfies a condition, at most `timeout`.
    pub async fn wait_for(
        &self,
        timeout: Duration,
        condition: impl Fn(&NetworkView) -> bool,
    ) -> Option<Arc<NetworkView>> {
        let mut view = self.view.clone();
        let wait = view.wait_for(|view| condition(view));
        let found = tokio::time::timeout(timeout, wait).await.ok()?.ok()?;
        Some(found.clone())
    }

    /// Views as they come, the current one first.
    pub fn subscribe(&self) -> watch::Receiver<Arc<NetworkView>> {
        let mut view = self.view.clone();
        view.mark_changed();
        view
    }

    /// A view that never changes; for tests of what stands on it.
    pub fn fixed(view: NetworkView) -> Self {
        // The receiver keeps the last value after its sender is gone.
        Self { view: watch::channel(Arc::new(view)).1 }
    }
}

/// Reads the first view and returns it with the task that keeps it up to date.
pub async fn follow(
    chain: ChainClient,
) -> Result<(Network, impl std::future::Future<Output = ()>), ChainError> {
    let first = Arc::new(read(&chain, chain.best_tick()?, None).await?);
    let (sender, view) = watch::channel(first);
    let task = async move {
        let mut ticks = chain.subscribe_best();
        loop {
            let Some(tick) = ticks.next().await else { return };
            let known = sender.borrow().clone();
            if tick.hash == known.tick.hash {
                continue;
            }
            match read(&chain, tick, Some(&known)).await {
                Ok(view) => {
                    sender.send_replace(Arc::new(view));
                }
                // The next block tries again; meanwhile the last view is the best there is.
                Err(error) => {
                    tracing::warn!(target: "starling::network", block = tick.number, %error, "no view")
                }
            }
        }
    };
    Ok((Network { view }, task))
}

async fn read(
    chain: &ChainClient,
    tick: BlockTick,
    known: Option<&NetworkView>,
) -> Result<NetworkView, ChainError> {
    let state = chain.at(tick.hash);
    let hosts = state.hosts().await?.into_iter().collect();
    let profiles: BTreeMap<_, _> = state.profiles().await?.into_iter().collect();
    let index = tick.epoch.index;
    // Fixed once known; before, it is asked for again with each block.
    let reuse = |index: EpochIndex| {
        let views = known.into_iter().flat_map(|view| [&view.current, &view.previous]);
        views.flatten().find(|epoch| epoch.index == index && !epoch.weights.is_empty()).cloned()
    };
    let current = match reuse(index) {
        Some(epoch) => Some(epoch),
        None => read_epoch(&state, index, &profiles).await?,
    };
    let previous = match index.checked_sub(1) {
        None => None,
        Some(before) => match reuse(before) {
            Some(epoch) => Some(epoch),
            None => read_epoch(&state, before, &profiles).await?,
        },
    };
    Ok(NetworkView { tick, current, previous, hosts: Arc::new(hosts), profiles: Arc::new(profiles) })
}

async fn read_epoch(
    state: &ChainView,
    index: EpochIndex,
    profiles: &BTreeMap<ProfileId, Profile>,
) -> Result<Option<Arc<EpochView>>, ChainError> {
    let Some(seed) = state.seed(Round::Epoch(index)).await? else { return Ok(None) };
    let weights = state.weights(index).await?;
    let mut by_profile = BTreeMap::new();
    for id in profiles.keys() {
        by_profile.insert(*id, state.weights_of_profile(index, *id).await?);
    }
    Ok(Some(Arc::new(EpochView { index, seed, weights, by_profile })))
}
