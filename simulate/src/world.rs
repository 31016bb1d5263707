//! The simulated network: hosts and clients around a chain, driven block by block through its epochs.

use crate::{
    adversaries::Behaviour,
    answer::{Answer, Task},
    books::Books,
    chain,
    client::Client,
    host::{Fate, Host, Keys},
    plants::{self, Plant},
    votes::{self, Fallen},
};
use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sp_core::storage::Storage;
use starling_math::clock::{self, Phase};
use starling_primitives::{
    hashing::hash_of,
    profile::Profile,
    traits::{Beacon as _, HostWeight, Round, Weights},
    verdict::{Outcome, PanelReveal, PanelRound},
    AccountId, BlockNumber, EpochIndex, InferenceId, RequestId, H256, PPM,
};
use starling_runtime::{genesis, Beacon, RuntimeEvent, Sprint, System};
use std::collections::{BTreeMap, BTreeSet};

/// Clients of every network.
const CLIENTS: u32 = 4;

/// Size and length of a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Hosts.
    pub hosts: u32,
    /// Epochs, the first one without weights included.
    pub epochs: u32,
    /// Requests an epoch.
    pub requests: u32,
    /// Tokens of each completion.
    pub tokens: u32,
    /// Everything that is random follows from it.
    pub seed: u64,
}

/// Hosts of one kind.
#[derive(Debug)]
pub struct Member {
    /// What it does.
    pub behaviour: Box<dyn Behaviour>,
    /// Sprint nonces that its hardware does in a race.
    pub capacity: u32,
    /// Operator that it shares with others.
    pub gang: Option<u32>,
}

/// What goes on beside what hosts do by themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tricks {
    /// A client denies that it got anything.
    pub clients_deny: bool,
    /// Hosts plant bad answers, each one an epoch.
    pub plants: bool,
}

/// A request that is on chain.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) executor: usize,
    pub(crate) client: usize,
    pub(crate) task: Task,
    pub(crate) seed: H256,
    pub(crate) answer: Option<Answer>,
    /// Block in which it started.
    pub(crate) at: BlockNumber,
}

/// Seed, weights and duty secrets of an epoch.
#[derive(Debug, Default)]
pub(crate) struct EpochView {
    pub(crate) seed: H256,
    pub(crate) weights: Vec<HostWeight>,
    /// By host; `None` for those without weight.
    pub(crate) secrets: Vec<Option<H256>>,
}

/// Hosts and clients around a chain.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) size: Size,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) by_account: BTreeMap<AccountId, usize>,
    pub(crate) clients: Vec<Client>,
    pub(crate) profile: Profile,
    pub(crate) asked: BTreeMap<InferenceId, Asked>,
    pub(crate) views: BTreeMap<EpochIndex, EpochView>,
    /// Verdicts that wait for the next block, by host.
    pub(crate) ballots: BTreeMap<usize, Vec<(InferenceId, Outcome)>>,
    /// Who has judged what.
    pub(crate) judged: BTreeSet<(InferenceId, usize)>,
    /// Answers whose drawn verifiers have not looked yet.
    pub(crate) fresh: Vec<InferenceId>,
    /// Answers that are disputed.
    pub(crate) disputes: Vec<InferenceId>,
    /// What members of panels have committed themselves to.
    pub(crate) sealed: BTreeMap<(InferenceId, PanelRound, usize), PanelReveal>,
    pub(crate) requests: u64,
    /// Whether hosts plant.
    planting: bool,
    /// Plants of this epoch that are not revealed.
    pub(crate) plants: Vec<Plant>,
    /// Plants that can be contested.
    pub(crate) revealed: Vec<InferenceId>,
    /// Requests that planters have tried.
    pub(crate) tries: u64,
    books: Books,
}

/// A simulation with its chain.
pub struct Simulation {
    storage: Storage,
    world: World,
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.world.fmt(f)
    }
}

impl Simulation {
    /// A new chain with these hosts. `name` separates the randomness of simulations of one seed.
    pub fn new(name: &str, size: Size, members: Vec<Member>, tricks: Tricks) -> Self {
        let keys: Vec<Keys> = (0..members.len() as u32).map(Keys::of_host).collect();
        let clients: Vec<Client> =
            (0..CLIENTS).map(|n| Client::new(n, tricks.clients_deny && n == 0)).collect();
        let accounts: Vec<AccountId> = clients.iter().map(Client::account).collect();
        let mut storage = chain::new(&keys, &accounts);
        let by_account = keys.iter().enumerate().map(|(n, keys)| (keys.account.clone(), n)).collect();
        let hosts = keys.into_iter().zip(members).map(|(keys, member)| Host {
            keys,
            capacity: member.capacity,
            behaviour: member.behaviour,
            gang: member.gang,
            fate: Fate::default(),
        });
        let world = World {
            size,
            rng: ChaCha8Rng::from_seed(hash_of(b"starling/simulate", &(name, size.seed)).0),
            hosts: hosts.collect(),
            by_account,
            clients,
            profile: genesis::demo_profile(),
            asked: BTreeMap::new(),
            views: BTreeMap::new(),
            ballots: BTreeMap::new(),
            judged: BTreeSet::new(),
            fresh: Vec::new(),
            disputes: Vec::new(),
            sealed: BTreeMap::new(),
            requests: 0,
            planting: tricks.plants,
            plants: Vec::new(),
            revealed: Vec::new(),
            tries: 0,
            books: chain::run(&mut storage, Books::open),
        };
        Self { storage, world }
    }

    /// Runs all epochs; the books are checked at the end of each.
    pub fn run(&mut self) -> Result<()> {
        for epoch in 0..self.world.size.epochs {
            let Self { storage, world } = self;
            // Epoch by epoch: what was deleted in one is no burden to the next.
            chain::run(storage, || world.epoch()).with_context(|| format!("epoch {epoch}"))?;
        }
        Ok(())
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.world.hosts
    }

    /// The clients.
    pub fn clients(&self) -> &[Client] {
        &self.world.clients
    }

    /// Requests that were asked.
    pub fn requests(&self) -> u64 {
        self.world.requests
    }
}

impl World {
    /// Makes blocks up to the first one of the next epoch.
    fn epoch(&mut self) -> Result<()> {
        let epoch = chain::epoch().index;
        self.begin(epoch);
        while chain::epoch().index == epoch {
            self.block()?;
        }
        self.books.check()
    }

    /// Notes who has weight, and forgets what nobody can judge any more.
    fn begin(&mut self, epoch: EpochIndex) {
        let weights = Sprint::hosts(epoch);
        let total: u64 = weights.iter().map(|entry| entry.weight).sum();
        for entry in &weights {
            let fate = &mut self.hosts[self.by_account[&entry.host]].fate;
            fate.weight_since.get_or_insert(epoch);
            fate.epochs_with_weight += 1;
            fate.share_ppm_sum += entry.weight * u64::from(PPM) / total.max(1);
        }
        let oldest = InferenceId { epoch: epoch.saturating_sub(1), index: 0 };
        self.asked = self.asked.split_off(&oldest);
        self.judged = self.judged.split_off(&(oldest, 0));
        self.views.retain(|known, _| known + 1 >= epoch);
        let Some(seed) = Beacon::seed(Round::Epoch(epoch)) else { return };
        let mut secrets = vec![None; self.hosts.len()];
        for entry in &weights {
            let host = self.by_account[&entry.host];
            secrets[host] = Some(self.hosts[host].duty(epoch, seed).1);
        }
        let weights = Sprint::of_profile(epoch, 0);
        self.views.insert(epoch, EpochView { seed, weights, secrets });
    }

    /// One block with what everybody does in it.
    fn block(&mut self) -> Result<()> {
        let state = chain::epoch();
        let next = System::block_number() + 1;
        let ends = next >= clock::epoch_end(&state);
        let (result, events) = chain::block(|| if ends { Ok(()) } else { self.act(next) });
        self.note(&events);
        result
    }

    /// What everybody does in this block of an epoch; the clock has moved already.
    fn act(&mut self, now: BlockNumber) -> Result<()> {
        let epoch = chain::epoch();
        let offset = now - epoch.start;
        if offset == 1 {
            self.settle_in();
        }
        if self.planting {
            self.plant(epoch.index, offset);
        }
        self.judge_disputes();
        self.verify_fresh();
        self.vote();
        if offset + 2 == epoch.schedule.grace_blocks {
            // The last windows of the epoch before have closed.
            self.catch_up(epoch.index.checked_sub(1));
        }
        if now > clock::claims_open(&epoch) {
            let last_try = now + 1 == clock::epoch_end(&epoch);
            self.claim(epoch.index.checked_sub(1), last_try)?;
        }
        match clock::phase(&epoch, now) {
            Phase::Serving if now < clock::reveal_start(&epoch) => self.serve(epoch.index)?,
            Phase::Reveal if now == clock::reveal_start(&epoch) => {
                self.contribute(epoch.index);
                self.catch_up(Some(epoch.index));
            }
            Phase::Commit if now == clock::commit_start(&epoch) => self.commit(),
            Phase::Check if now == clock::check_start(&epoch) => self.check_sprint(epoch.index),
            _ => {}
        }
        self.expire(now);
        Ok(())
    }

    /// What planters, and those who approved a plant, do in this block of an epoch.
    fn plant(&mut self, epoch: EpochIndex, offset: BlockNumber) {
        match offset {
            plants::COMMITTED => self.commit_plants(epoch),
            offset if offset == plants::COMMITTED + 1 => self.answer_plants(epoch),
            offset => self.reveal_plants(offset >= plants::REVEALED),
        }
        self.contest_plants();
    }

    /// Takes in what happened.
    fn note(&mut self, events: &[RuntimeEvent]) {
        let epoch = chain::epoch().index;
        for event in events {
            self.books.note(event);
            match event {
                RuntimeEvent::Rewards(pallet_rewards::Event::Claimed { host, emission, fees, .. }) => {
                    self.fate(host).earned += emission + fees;
                }
                RuntimeEvent::Hosts(pallet_hosts::Event::BondSlashed { host, amount, .. })
                | RuntimeEvent::Hosts(pallet_hosts::Event::BondBurned { host, amount }) => {
                    self.fate(host).bond_lost += amount;
                }
                RuntimeEvent::Inference(pallet_inference::Event::Expired { executor, .. }) => {
                    self.fate(executor).expired += 1;
                }
                RuntimeEvent::Verification(pallet_verification::Event::PlantRevealed { planter, .. }) => {
                    self.fate(planter).plants += 1;
                }
                _ => {}
            }
        }
        for fallen in votes::fallen(events) {
            match fallen {
                Fallen::Convicted(host) => {
                    let fate = self.fate(&host);
                    fate.convicted_in.get_or_insert(epoch);
                    fate.convictions += 1;
                }
                Fallen::Accused(host) => {
                    self.fate(&host).accused_in.get_or_insert(epoch);
                }
                Fallen::Negligent(host) => {
                    let fate = self.fate(&host);
                    fate.negligent_in.get_or_insert(epoch);
                    fate.negligences += 1;
                }
            }
        }
        self.disputes.extend(votes::disputes(events));
    }

    fn fate(&mut self, host: &AccountId) -> &mut Fate {
        &mut self.hosts[self.by_account[host]].fate
    }

    /// How many of `all` things that are spread over so many blocks are done in this one.
    pub(crate) fn share(&mut self, all: u32, blocks: u32) -> u32 {
        let rest = all % blocks;
        all / blocks + u32::from(self.rng.random_range(0..blocks) < rest)
    }

    /// Has what was not answered in time expire.
    fn expire(&mut self, now: BlockNumber) {
        let expiry = chain::SCHEDULE.expiry_blocks;
        let mut due: BTreeMap<usize, Vec<RequestId>> = BTreeMap::new();
        for asked in
            self.asked.values().filter(|asked| asked.answer.is_none() && asked.at + expiry + 1 == now)
        {
            due.entry(asked.client).or_default().push(asked.task.request);
        }
        for (client, requests) in due {
            // A request that its gateway gave to another executor has an answer by now.
            let _ = self.clients[client].expire(requests);
        }
    }
}
