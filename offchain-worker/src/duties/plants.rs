//! Plants: once an epoch, answer a request of this host's own badly, and say so when others have judged it.
//!
//! 1. *Commit*, early in the epoch: to a request for which this host is drawn, or to random bytes, which look the same.
//! 2. *Ask* a gateway, as clients do, and *answer* what it hands over; once the commitment is final: before, a reorganisation
//!    could put the record in front of it.
//! 3. *Reveal*: at once when somebody accuses, else when everybody who has to has looked. An answer that is never revealed
//!    is a bad answer like any other, and convicts.
//!
//! The plan is in the store before its commitment is sent, so a restart goes on where it was; an answer that a crash cut off
//! is given up, and the commitment was to nothing.

use super::{verdicts_end, with_sources, Duty, DutyError, URGENT_RETRY_BLOCKS};
use crate::{
    context::{AgentContext, HelperError, Planter, Planting, Question},
    store::{Payload, Plant, PlantPlan},
};
use futures::future::BoxFuture;
use rand::Rng;
use starling_chain_client::{BlockTick, ChainView, HostInfo, Item, Keypair, PlacedRecord, Ticks};
use starling_math::{
    clock,
    draw::{draw_weighted, DrawTable},
};
use starling_primitives::{
    plant::{commitment, Consent},
    request::{Authorization, SignedAuthorization, AUTHORIZED_BLOCKS},
    schedule::EpochState,
    traits::{HostWeight, Round},
    AccountId, BlockNumber, EpochIndex, MultiSignature, ProfileId, H256,
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::task::JoinSet;

/// Nonces that are tried until one has this host drawn: enough for a share of a thousandth.
const NONCES: u32 = 20_000;
/// Coverage windows that those whom a window assigned an answer have to look at it.
const VERDICT_WINDOWS: BlockNumber = 2;

pub(super) struct Plants {
    context: AgentContext,
    planter: Arc<dyn Planter>,
    /// None: this host only looks as if it planted.
    clients: Vec<Keypair>,
    /// Plans or answers, one at a time.
    working: JoinSet<Result<(), DutyError>>,
    /// Epoch whose commitment was queued by this process.
    committed: Option<EpochIndex>,
}

impl Plants {
    pub(super) fn new(context: AgentContext, planter: Arc<dyn Planter>, clients: Vec<Keypair>) -> Self {
        Self { context, planter, clients, working: JoinSet::new(), committed: None }
    }

    /// Whose turn it is: who has seen an account in one plant would know the next one by it.
    fn client(&self, epoch: EpochIndex) -> Option<&Keypair> {
        let place = usize::try_from(epoch).ok()?.checked_rem(self.clients.len())?;
        self.clients.get(place)
    }

    /// Takes the end of what was being done; says whether there is room for more.
    fn is_free(&mut self) -> bool {
        while let Some(ended) = self.working.try_join_next() {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(target: "duties::plants", error = %with_sources(&error), "tried again at the next block");
                }
                Err(error) => tracing::error!(target: "duties::plants", %error, "planting has stopped"),
            }
        }
        self.working.is_empty()
    }

    /// Plans what this host commits itself to in the running epoch.
    async fn plan(&mut self, view: ChainView, tick: BlockTick) -> Result<(), DutyError> {
        let epoch = tick.epoch.index;
        if !self.is_free() || weight_of(&view.weights(epoch).await?, &self.context.host) == 0 {
            return Ok(());
        }
        let client = self.client(epoch).filter(|_| is_early(tick)).cloned();
        let (context, planter) = (self.context.clone(), self.planter.clone());
        self.working.spawn(async move {
            let plant = match &client {
                Some(client) => {
                    let planning = Planning { context: &context, planter: &*planter, client, view: &view };
                    match planning.run(tick).await {
                        Ok(plant) => plant,
                        Err(DutyError::Helper(error)) if error.is_temporary() => {
                            tracing::debug!(target: "duties::plants", epoch, %error, "no question yet");
                            return Ok(());
                        }
                        Err(DutyError::Helper(error)) => {
                            tracing::warn!(target: "duties::plants", epoch, %error, "nothing is planted");
                            None
                        }
                        Err(error) => return Err(error),
                    }
                }
                None => None,
            };
            let commitment = match &plant {
                Some(plant) => commitment(plant.header.id(), plant.salt),
                None => H256(rand::random()),
            };
            let plan = context.store.put_plant(epoch, &PlantPlan { commitment, plant }).await?;
            commit(&context, tick, plan.commitment).await
        });
        Ok(())
    }

    /// Carries on with an epoch's plan.
    async fn pursue(
        &mut self,
        view: &ChainView,
        tick: BlockTick,
        epoch: EpochIndex,
        plan: PlantPlan,
    ) -> Result<(), DutyError> {
        let current = epoch == tick.epoch.index;
        if current && self.committed != Some(epoch) {
            commit(&self.context, tick, plan.commitment).await?;
            self.committed = Some(epoch);
        }
        let Some(plant) = plan.plant else { return Ok(()) };
        let request = plant.header.id();
        match view.inferences_of(&[request]).await?.pop().flatten() {
            Some(placed) => self.reveal_in_time(view, tick, &placed, plant).await,
            // It is on its way to the chain, or was forgotten by it.
            None if !current || self.context.store.transcript(&request).await?.is_some() => Ok(()),
            None if tick.number < plant.answer_from || !self.is_free() => Ok(()),
            None if !is_early(tick) => {
                tracing::warn!(target: "duties::plants", epoch, "too late to plant");
                Ok(self.context.store.give_up_plant(epoch).await?)
            }
            None => self.answer(view, tick, plan.commitment, plant).await,
        }
    }

    /// Answers the planned request, once the commitment to it is final.
    async fn answer(
        &mut self,
        view: &ChainView,
        tick: BlockTick,
        commitment: H256,
        plant: Plant,
    ) -> Result<(), DutyError> {
        let epoch = tick.epoch.index;
        let stands = self.context.chain.finalized()?.plant(epoch, &self.context.host).await?;
        if stands.is_none_or(|stands| stands.commitment != commitment) {
            return Ok(());
        }
        let Some(seed) = view.seed(Round::Epoch(epoch)).await? else { return Ok(()) };
        let Some(profile) = view.profile(plant.header.profile).await? else { return Ok(()) };
        let client = self.clients.iter().find(|client| client.account() == plant.consent.signer);
        let Some(client) = client else {
            tracing::warn!(target: "duties::plants", epoch, "the client that agreed to a plant is gone");
            return Ok(self.context.store.give_up_plant(epoch).await?);
        };
        let prompt_tokens = u32::try_from(plant.prompt_tokens.len()).unwrap_or(u32::MAX);
        let authorization = Authorization {
            client: client.account(),
            request_id: plant.header.id(),
            profile: plant.header.profile,
            max_price: profile.price(prompt_tokens, plant.header.max_tokens),
            gateway: plant.gateway,
            expires_at: tick.number.saturating_add(AUTHORIZED_BLOCKS),
        };
        let signature = client.sign(authorization.signing_hash(&self.context.genesis).as_bytes());
        let signer = authorization.client.clone();
        let authorization =
            SignedAuthorization { authorization, signer, signature: MultiSignature::Sr25519(signature) };
        let payload = Payload {
            authorization,
            epoch,
            epoch_seed: seed,
            attempt: 0,
            header: plant.header,
            prompt_tokens: plant.prompt_tokens,
            constraint: None,
        };
        let (store, planter) = (self.context.store.clone(), self.planter.clone());
        self.working.spawn(async move {
            let given_up = match planter.answer(payload, plant.body, plant.noise).await {
                Ok(Planting::Answered) => {
                    tracing::info!(target: "duties::plants", epoch, "planted");
                    return Ok(());
                }
                Err(error) if error.is_temporary() => return Err(error.into()),
                Ok(Planting::Dropped(reason)) => reason,
                Err(error) => error.to_string(),
            };
            tracing::warn!(target: "duties::plants", epoch, reason = given_up, "nothing is planted");
            Ok(store.give_up_plant(epoch).await?)
        });
        Ok(())
    }

    /// Reveals a plant when its verdicts are in.
    async fn reveal_in_time(
        &self,
        view: &ChainView,
        tick: BlockTick,
        placed: &PlacedRecord,
        plant: Plant,
    ) -> Result<(), DutyError> {
        let (id, host) = (placed.id, &self.context.host);
        let revealed = view.plant(id.epoch, host).await?.is_none_or(|plant| plant.revealed.is_some());
        if revealed || placed.record.executor != *host || !self.is_judged(view, tick, placed).await? {
            return Ok(());
        }
        let Plant { salt, consent, .. } = plant;
        let item = Item::RevealPlant { inference: id, salt, consent };
        let deadline = verdicts_end(id.epoch, tick);
        if self.context.outbox.enqueue_with_retry(&item, deadline, URGENT_RETRY_BLOCKS).await? {
            tracing::info!(target: "duties::plants", epoch = id.epoch, index = id.index, "revealing a plant");
        }
        Ok(())
    }

    /// Whether somebody accuses, or no duty can bring another verdict soon, or it is high time.
    async fn is_judged(
        &self,
        view: &ChainView,
        tick: BlockTick,
        placed: &PlacedRecord,
    ) -> Result<bool, DutyError> {
        let id = placed.id;
        if placed.record.result.is_none() {
            return Ok(false);
        }
        if view.dispute(id).await?.is_some_and(|dispute| dispute.status.is_open()) {
            return Ok(true);
        }
        let wait = tick.epoch.schedule.coverage_blocks.saturating_mul(VERDICT_WINDOWS);
        let marks = view.coverage_marks(id.epoch).await?;
        let closed = marks.iter().find(|mark| (mark.first..mark.end).contains(&id.index));
        let looked_at = closed.is_some_and(|mark| tick.number >= mark.closed_at.saturating_add(wait));
        Ok(looked_at || tick.number.saturating_add(wait) >= verdicts_end(id.epoch, tick))
    }
}

impl Duty for Plants {
    const NAME: &'static str = "plants";

    /// Best blocks: a panel that judges an accused plant does not wait for finality either.
    fn ticks(&self) -> Ticks {
        self.context.chain.subscribe_best()
    }

    fn on_block(&mut self, tick: BlockTick) -> BoxFuture<'_, Result<(), DutyError>> {
        Box::pin(async move {
            let view = self.context.chain.at(tick.hash);
            for epoch in tick.epoch.index.saturating_sub(1)..=tick.epoch.index {
                match self.context.store.plant(epoch).await? {
                    Some(plan) => self.pursue(&view, tick, epoch, plan).await?,
                    None if epoch == tick.epoch.index => self.plan(view.clone(), tick).await?,
                    None => {}
                }
            }
            Ok(())
        })
    }
}

/// First block at which there may be too little time for an answer, its verdicts, a contest and a panel on that.
fn late(epoch: &EpochState) -> BlockNumber {
    epoch.start.saturating_add(clock::race_start(epoch).saturating_sub(epoch.start) / 2)
}

fn is_early(tick: BlockTick) -> bool {
    tick.number < late(&tick.epoch)
}

/// Some block before it is late, with time for the commitment to become final.
fn pick_block(tick: BlockTick) -> BlockNumber {
    let left = late(&tick.epoch).saturating_sub(tick.number);
    tick.number.saturating_add(rand::rng().random_range(0..=left / 2))
}

fn weight_of(weights: &[HostWeight], host: &AccountId) -> u64 {
    let place = weights.binary_search_by(|entry| entry.host.cmp(host)).ok();
    place.and_then(|place| weights.get(place)).map_or(0, |entry| entry.weight)
}

async fn commit(context: &AgentContext, tick: BlockTick, commitment: H256) -> Result<(), DutyError> {
    let item = Item::CommitPlant { epoch: tick.epoch.index, commitment };
    context.outbox.enqueue(&item, clock::epoch_end(&tick.epoch).saturating_sub(1)).await?;
    Ok(())
}

/// Finds a request that has this host drawn.
struct Planning<'a> {
    context: &'a AgentContext,
    planter: &'a dyn Planter,
    client: &'a Keypair,
    view: &'a ChainView,
}

impl Planning<'_> {
    /// `None` when this host is drawn for nothing.
    async fn run(&self, tick: BlockTick) -> Result<Option<Plant>, DutyError> {
        let epoch = tick.epoch.index;
        let Some(seed) = self.view.seed(Round::Epoch(epoch)).await? else { return Ok(None) };
        let Some((profile, weights)) = self.pick_profile(epoch).await? else { return Ok(None) };
        let gateway = self.pick_gateway(&weights).await?;
        let Question { mut header, prompt_tokens, body } = self.planter.question(profile).await?;
        let table = DrawTable::new(&weights);
        let drawn = (0..NONCES).find_map(|_| {
            header.nonce = rand::random();
            let executor = table.executor(&seed, &header.id(), 0, &gateway)?;
            (*executor == self.context.host).then(|| header.clone())
        });
        let Some(header) = drawn else { return Ok(None) };
        let client = self.client;
        let signature = client.sign(Consent::signing_hash(&self.context.genesis, &header.id()).as_bytes());
        let consent = Consent { signer: client.account(), signature: MultiSignature::Sr25519(signature) };
        Ok(Some(Plant {
            header,
            prompt_tokens,
            body,
            gateway,
            salt: H256(rand::random()),
            consent,
            noise: H256(rand::random()),
            answer_from: pick_block(tick),
        }))
    }

    /// One of the profiles that this host and others have weight for.
    async fn pick_profile(
        &self,
        epoch: EpochIndex,
    ) -> Result<Option<(ProfileId, Vec<HostWeight>)>, DutyError> {
        let host = &self.context.host;
        let served = self.view.host(host).await?.map(|info| info.profiles).unwrap_or_default();
        let mut found = Vec::new();
        for profile in served {
            let weights = self.view.weights_of_profile(epoch, profile).await?;
            if weights.len() > 1 && weight_of(&weights, host) > 0 {
                found.push((profile, weights));
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let place = rand::rng().random_range(0..found.len());
        Ok(Some(found.swap_remove(place)))
    }

    /// By weight, among the others that have a gateway.
    async fn pick_gateway(&self, weights: &[HostWeight]) -> Result<AccountId, DutyError> {
        let known: BTreeMap<AccountId, HostInfo> = self.view.hosts().await?.into_iter().collect();
        let has_gateway = |host: &AccountId| {
            let endpoints = known.get(host).and_then(|info| info.endpoints.as_ref());
            endpoints.is_some_and(|endpoints| endpoints.gateway().is_some())
        };
        let others: Vec<HostWeight> = weights
            .iter()
            .filter(|entry| entry.host != self.context.host && has_gateway(&entry.host))
            .cloned()
            .collect();
        let drawn = draw_weighted(&H256(rand::random()), &others);
        let none = || HelperError::Unavailable("no other host announces a gateway".into());
        Ok(drawn.ok_or_else(none)?.host.clone())
    }
}
