//! Duties against a chain in memory, with helpers that do what a test tells them.

mod fraud;
mod plants;

use super::*;
use crate::{
    context::{
        EndTokens, Peers, Planter, Planting, Question, ServedTranscript, SprintLeaf, SprintResult,
        SprintRunner, Verifier, VerifyItem, VerifyOutcome,
    },
    store::{Payload, Store},
};
use async_trait::async_trait;
use codec::Encode;
use starling_chain_client::{
    entries, fake::FakeChain, outbox::Kind, Boundary, ChainClient, Conviction, CoverageMark, Dispute,
    DisputeStatus, HostInfo, HostStatus, Item, Keypair, Member, Outbox, Panel,
};
use starling_primitives::{
    hashing::hash_of,
    merkle,
    profile::{Calibration, Numerics, Profile},
    records::{response_hash, Delivery, InferenceRecord, InferenceResult, InferenceState},
    request::{prompt_hash, RequestHeader, SamplingParams},
    sampler::sample,
    schedule::{EpochState, Schedule},
    sprint::{SprintCommitment, SprintTask},
    tape::tape_seed,
    traits::{HostWeight, Round},
    transcript::{Candidate, TokenRecord, Transcript, TranscriptBuilder},
    verdict::{Figures, Outcome, PanelCommit},
    AccountId, EpochIndex, InferenceId, ProfileId, RequestId, H256,
};
use std::{
    collections::HashMap,
    future::Future,
    ops::Range,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

const PROMPT: [u32; 3] = [4, 5, 6];

fn account(id: u8) -> AccountId {
    AccountId::new([id; 32])
}

fn seed(n: u64) -> H256 {
    hash_of(b"test", &n)
}

fn profile() -> Profile {
    Profile {
        name: b"demo".to_vec().try_into().unwrap(),
        weights_digest: H256::zero(),
        tokenizer_digest: H256::zero(),
        numerics: Numerics::F32,
        top_k: 20,
        max_context: 128,
        vocab_size: 64,
        prompt_price: 1,
        completion_price: 1,
        prompt_work: 1,
        completion_work: 1,
        sprint_tolerance: 0,
        calibration: Calibration { distance_limit: 10, margin_limit: 10, short_allowance: 0 },
    }
}

/// A transcript that replays.
fn transcript(header: RequestHeader, tape: H256, tokens: u32) -> Transcript {
    let mut builder = TranscriptBuilder::new(header.clone());
    for position in 0..tokens {
        let candidates =
            vec![Candidate { token: position % 60, q: 60 }, Candidate { token: position % 60 + 1, q: 120 }];
        let chosen = sample(&tape, position, &candidates, &header.sampling).unwrap() as u8;
        builder.push(TokenRecord { candidates, chosen });
    }
    builder.finish().0
}

fn header(nonce: u8) -> RequestHeader {
    RequestHeader {
        profile: 0,
        prompt_hash: prompt_hash(&PROMPT),
        sampling: SamplingParams { temperature_milli: 900, ..SamplingParams::GREEDY },
        max_tokens: 40,
        constraint: None,
        nonce: [nonce; 32],
    }
}

fn sprint_transcript(task: &SprintTask, nonce: u32) -> Transcript {
    transcript(task.header(nonce), task.tape_seed(nonce), task.decode_tokens)
}

/// Helpers of a world of honest hosts, unless told otherwise.
#[derive(Default)]
struct Fakes {
    served: Mutex<HashMap<RequestId, ServedTranscript>>,
    leaves: Mutex<HashMap<AccountId, Vec<SprintLeaf>>>,
    figures: Mutex<Figures>,
    nodes: Mutex<Vec<String>>,
    done: Mutex<Vec<u32>>,
    /// ML nodes at work on a chunk.
    racing: watch::Sender<usize>,
    verified: Mutex<u32>,
    end_tokens: Mutex<Vec<u32>>,
    /// What was to be answered badly.
    planted: Mutex<Vec<Payload>>,
    /// Why the answers are given up; `None` while they are not.
    given_up: Mutex<Option<String>>,
    /// Where the others are kept.
    store: OnceLock<Store>,
}

/// An ML node at work, until it is dropped.
struct Racing<'a>(&'a watch::Sender<usize>);

impl<'a> Racing<'a> {
    fn new(racing: &'a watch::Sender<usize>) -> Self {
        racing.send_modify(|nodes| *nodes += 1);
        Self(racing)
    }
}

impl Drop for Racing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|nodes| *nodes -= 1);
    }
}

#[async_trait]
impl SprintRunner for Fakes {
    async fn nodes(&self, _: ProfileId) -> Vec<String> {
        self.nodes.lock().unwrap().clone()
    }

    async fn chunk_size(&self, _: &str, _: ProfileId) -> u32 {
        4
    }

    async fn run(
        &self,
        _: &str,
        task: &SprintTask,
        nonces: Range<u32>,
        results: mpsc::Sender<SprintResult>,
    ) -> Result<(), HelperError> {
        let _racing = Racing::new(&self.racing);
        // Not more than a test needs: then the node hangs, as a busy one does, until it is stopped.
        if nonces.start >= 40 {
            std::future::pending::<()>().await;
        }
        for nonce in nonces {
            self.done.lock().unwrap().push(nonce);
            let result = SprintResult { nonce, transcript: sprint_transcript(task, nonce) };
            results.send(result).await.map_err(|_| HelperError::Unavailable("stopped".into()))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Verifier for Fakes {
    async fn serves(&self, _: ProfileId) -> bool {
        true
    }

    async fn verify(&self, _: ProfileId, items: Vec<VerifyItem>) -> Result<Vec<VerifyOutcome>, HelperError> {
        *self.verified.lock().unwrap() += items.len() as u32;
        let figures = *self.figures.lock().unwrap();
        Ok(items
            .iter()
            .map(|item| {
                let tokens = item.transcript.tokens().unwrap().len() as u32;
                VerifyOutcome::Measured(Figures { tokens, ..figures })
            })
            .collect())
    }
}

#[async_trait]
impl Peers for Fakes {
    async fn fetch_transcript(
        &self,
        _: &AccountId,
        request: RequestId,
    ) -> Result<ServedTranscript, HelperError> {
        let served = self.served.lock().unwrap().get(&request).cloned();
        served.ok_or_else(|| HelperError::Unavailable("nobody answers".into()))
    }

    async fn fetch_sprint_leaves(
        &self,
        host: &AccountId,
        _: EpochIndex,
        _: ProfileId,
        nonces: Vec<u32>,
    ) -> Result<Vec<SprintLeaf>, HelperError> {
        let leaves = self.leaves.lock().unwrap().get(host).cloned();
        let leaves = leaves.ok_or_else(|| HelperError::Unavailable("nobody answers".into()))?;
        Ok(leaves.into_iter().filter(|leaf| nonces.contains(&leaf.nonce)).collect())
    }
}

#[async_trait]
impl EndTokens for Fakes {
    async fn end_tokens(&self, _: &Profile) -> Result<Vec<u32>, HelperError> {
        Ok(self.end_tokens.lock().unwrap().clone())
    }
}

#[async_trait]
impl Planter for Fakes {
    async fn question(&self, _: ProfileId) -> Result<Question, HelperError> {
        Ok(Question { header: header(0), prompt_tokens: PROMPT.to_vec() })
    }

    async fn answer(&self, payload: Payload, _: H256) -> Result<Planting, HelperError> {
        self.planted.lock().unwrap().push(payload.clone());
        if let Some(reason) = self.given_up.lock().unwrap().clone() {
            return Ok(Planting::Dropped(reason));
        }
        let (answer, receipt) = plants::answer(&payload);
        let store = self.store.get().unwrap();
        assert!(store.put_payload(&payload).await.unwrap());
        assert!(store.put_answer(&answer, &receipt).await.unwrap());
        Ok(Planting::Recorded)
    }
}

struct World {
    _folder: tempfile::TempDir,
    fake: Arc<FakeChain>,
    context: AgentContext,
    fakes: Arc<Fakes>,
    shutdown: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
    endpoints: watch::Sender<Option<Endpoints>>,
    plants: Option<PlantSettings>,
}

impl World {
    /// Host 1 of three with equal weight, in epoch 4.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Arc::new(FakeChain::new(Schedule::TEST));
        let context = AgentContext {
            chain: ChainClient::new(fake.clone()),
            outbox: Outbox::open(&folder.path().join("outbox.sqlite")).await.unwrap(),
            store: Store::open(&folder.path().join("store.sqlite")).await.unwrap(),
            worker: Keypair::from_suri("//One//worker").unwrap(),
            host: account(1),
            genesis: H256::repeat_byte(0xee),
        };
        fake.write(|state| {
            for id in 1..=3 {
                let info = HostInfo {
                    worker: account(100 + id),
                    worker_since: 0,
                    endpoints: None,
                    profiles: vec![0],
                    status: HostStatus::Active,
                    bond: 0,
                    registered_at: 0,
                    convictions: 0,
                };
                state.put(&entries::HOSTS, (account(id),), &info);
            }
            state.put(&entries::PROFILES, (0,), &profile());
            for epoch in 3..=5 {
                state.put(&entries::SEEDS, (Round::Epoch(epoch),), &seed(epoch.into()));
                let weights: Vec<HostWeight> =
                    (1..=3).map(|id| HostWeight { host: account(id), weight: 10, reputation: 0 }).collect();
                state.put(&entries::EPOCH_WEIGHTS, (epoch,), &weights);
                state.put(&entries::PROFILE_WEIGHTS, (epoch, 0), &weights);
            }
            let epoch = EpochState {
                index: 4,
                start: 1,
                extension: 0,
                sprint_cancelled: false,
                schedule: Schedule::TEST,
            };
            state.put(&entries::EPOCH, (), &epoch);
        });
        fake.advance();
        fake.finalize();
        let store = OnceLock::from(context.store.clone());
        Self {
            _folder: folder,
            fake,
            context,
            fakes: Arc::new(Fakes { store, ..Fakes::default() }),
            shutdown: CancellationToken::new(),
            running: None,
            endpoints: watch::Sender::new(None),
            plants: None,
        }
    }

    /// Starts the duties, without the outbox's runner: what it holds is what is looked at.
    fn start(&mut self) {
        self.shutdown = CancellationToken::new();
        let helpers = DutyHelpers {
            sprint: self.fakes.clone(),
            verifier: self.fakes.clone(),
            peers: self.fakes.clone(),
            end_tokens: self.fakes.clone(),
            planter: self.fakes.clone(),
        };
        let endpoints = self.endpoints.subscribe();
        let settings = DutySettings { verify_concurrency: 2, endpoints, plants: self.plants.clone() };
        let (context, shutdown) = (self.context.clone(), self.shutdown.clone());
        self.running = Some(tokio::spawn(run_without_outbox(context, helpers, settings, shutdown)));
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
    }

    fn to_block(&self, number: u32) {
        self.fake.advance_to(number);
        self.fake.finalize();
    }

    async fn queued(&self, kind: Kind) -> Vec<Item> {
        self.context.outbox.pending(kind, 1_000).await.unwrap()
    }

    /// A finished inference of `executor`, with what it serves.
    fn finished(&self, index: u32, executor: u8) -> RequestId {
        let header = header(index as u8);
        let request_id = header.id();
        let served = transcript(header, tape_seed(&seed(4), &request_id), 40);
        let record = InferenceRecord {
            request_id,
            client: account(9),
            delegate: None,
            expires_at: 50,
            gateway: account(1),
            executor: account(executor),
            profile: 0,
            attempt: 0,
            state: InferenceState::Finished,
            started_at: 1,
            amount: 1,
            result: Some(InferenceResult {
                response_hash: response_hash(&served.tokens().unwrap()),
                transcript_root: served.root(),
                prompt_tokens: PROMPT.len() as u32,
                completion_tokens: 40,
                finished_at: 2,
            }),
            delivery: Delivery::Pending,
            first_verdict_at: None,
        };
        self.put_record(index, &record);
        let answer = ServedTranscript {
            transcript: served,
            prompt_tokens: PROMPT.to_vec(),
            constraint: None,
            receipt: None,
        };
        self.fakes.served.lock().unwrap().insert(request_id, answer);
        request_id
    }

    fn put_record(&self, index: u32, record: &InferenceRecord) {
        self.fake.write(|state| {
            state.put(&entries::INFERENCES, (4, index), record);
            state.put(&entries::REQUEST_INDEX, (record.request_id,), &InferenceId { epoch: 4, index });
            let count = state.get(&entries::COUNTS, (4,)).unwrap_or_default();
            state.put(&entries::COUNTS, (4,), &count.max(index + 1));
        });
    }

    /// Assigns everything so far to verifiers by coverage.
    fn close_window(&self, end: u32) {
        self.fake.write(|state| {
            let mark = CoverageMark { first: 0, end, closed_at: state.number, seed_epoch: 4, seed_window: 1 };
            state.put(&entries::COVERAGE_MARKS, (4, 1), &mark);
            state.put(&entries::SEEDS, (Round::Coverage(4, 1),), &seed(77));
        });
    }

    async fn verdicts(&self) -> Vec<(u32, Outcome)> {
        let items = self.queued(Kind::Verdict).await;
        let verdict = |item: &Item| match item {
            Item::Verdict(verdict) => Some((verdict.inference.index, verdict.outcome)),
            _ => None,
        };
        items.iter().filter_map(verdict).collect()
    }
}

async fn run_without_outbox(
    context: AgentContext,
    helpers: DutyHelpers,
    settings: DutySettings,
    shutdown: CancellationToken,
) {
    let mut tasks = spawn_duties(context, helpers, settings, shutdown);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Waits for a condition, not for a time.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "{what}");
}

#[tokio::test]
async fn the_beacon_gets_one_contribution_per_window() {
    let mut world = World::new().await;
    world.start();
    world.to_block(20);
    world.to_block(31);
    until("a contribution", || async { world.queued(Kind::Contribute).await.len() == 1 }).await;
    let items = world.queued(Kind::Contribute).await;
    let [Item::Contribute { epoch: 4, proof }] = items.as_slice() else { panic!("{items:?}") };
    let input = starling_primitives::vrf::VrfInput::Beacon(world.context.genesis, 4);
    assert!(starling_primitives::vrf::verify(&world.context.worker.public(), &input, proof).is_some());
    world.stop().await;
}

#[tokio::test]
async fn a_race_survives_a_restart_and_ends_in_a_commitment_that_can_be_served() {
    let mut world = World::new().await;
    *world.fakes.nodes.lock().unwrap() = vec!["a".into(), "b".into()];
    world.start();
    world.to_block(37);
    until("half of the results", || async {
        world.context.store.sprint_nonces(4, 0).await.unwrap().len() >= 20
    })
    .await;
    world.stop().await;
    let before = world.context.store.sprint_nonces(4, 0).await.unwrap().len();
    world.start();
    world.to_block(40);
    until("all results", || async { world.context.store.sprint_nonces(4, 0).await.unwrap().len() >= 40 })
        .await;
    world.to_block(43);
    until("a commitment", || async { world.queued(Kind::Commit).await.len() == 1 }).await;
    let items = world.queued(Kind::Commit).await;
    let [Item::Commit { epoch: 4, profile: 0, commitment }] = items.as_slice() else { panic!("{items:?}") };
    assert!(before <= 40 && commitment.count >= 40, "{before} {commitment:?}");
    let leaves = world.context.store.sprint_leaves(4, 0, &[0, 39]).await.unwrap().unwrap();
    for leaf in &leaves {
        let root = leaf.transcript.root();
        assert!(merkle::verify(&commitment.root, &root, leaf.nonce, commitment.count, &leaf.proof));
    }
    assert_eq!(leaves.len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn the_clock_ends_a_race_that_no_block_ends() {
    let mut world = World::new().await;
    *world.fakes.nodes.lock().unwrap() = vec!["a".into()];
    world.fake.write(|state| state.put(&entries::SLOT_DURATION, (), &50));
    world.start();
    world.to_block(37);
    until("all results", || async { world.context.store.sprint_nonces(4, 0).await.unwrap().len() >= 40 })
        .await;
    // The host is cut off from here on.
    let mut racing = world.fakes.racing.subscribe();
    let over = tokio::time::timeout(Duration::from_secs(20), racing.wait_for(|nodes| *nodes == 0)).await;
    assert!(over.is_ok(), "it races on");
    world.to_block(43);
    until("a commitment", || async { world.queued(Kind::Commit).await.len() == 1 }).await;
    world.stop().await;
}

#[tokio::test]
async fn drawn_and_assigned_inferences_get_a_verdict_and_own_ones_do_not() {
    let mut world = World::new().await;
    for index in 0..12 {
        world.finished(index, 2);
    }
    world.finished(12, 1);
    world.start();
    world.to_block(3);
    world.close_window(13);
    world.to_block(6);
    // Of twelve inferences, those that the secret or the window gives to this host; the others are host 3's.
    let weights: Vec<HostWeight> =
        (1..=3).map(|id| HostWeight { host: account(id), weight: 10, reputation: 0 }).collect();
    let input = starling_primitives::vrf::VrfInput::Duty(world.context.genesis, 4, seed(4));
    let (_, secret) = world.context.worker.vrf(&input);
    let expected: Vec<u32> = (0..12)
        .filter(|index| {
            let id = header(*index as u8).id();
            let drawn = starling_math::duty::is_duty(&secret, &id, 1_000_000, 10, 30, 10);
            let assigned = starling_math::draw::coverage_verifier(&seed(77), &id, &weights, &account(2), &[]);
            drawn || assigned == Some(account(1))
        })
        .collect();
    assert!(!expected.is_empty() && expected.len() < 12);
    until("all verdicts", || async { world.verdicts().await.len() == expected.len() }).await;
    let mut found: Vec<u32> = world.verdicts().await.iter().map(|(index, _)| *index).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert!(world
        .verdicts()
        .await
        .iter()
        .all(|(_, outcome)| matches!(outcome, Outcome::Measured(f) if f.tokens == 40)));
    // A restart does not check them again.
    world.stop().await;
    let checked = *world.fakes.verified.lock().unwrap();
    world.start();
    world.to_block(8);
    world.to_block(9);
    until("a look at block 9", || async {
        world.context.store.progress("verification.block").await.unwrap() == Some(9)
    })
    .await;
    world.stop().await;
    assert_eq!(*world.fakes.verified.lock().unwrap(), checked);
}

#[tokio::test]
async fn what_a_fallen_host_would_have_been_assigned_falls_to_the_others() {
    let mut world = World::new().await;
    for index in 0..12 {
        world.finished(index, 2);
    }
    world.fake.write(|state| {
        state.put(&entries::CONVICTIONS, (4, account(3)), &Conviction { since: 1, answers: 1 });
    });
    world.start();
    world.to_block(3);
    world.close_window(12);
    world.to_block(6);
    until("a verdict on everything", || async { world.verdicts().await.len() == 12 }).await;
    world.stop().await;
}

/// Index of an inference that this host's secret draws.
fn drawn(world: &World) -> u32 {
    let input = starling_primitives::vrf::VrfInput::Duty(world.context.genesis, 4, seed(4));
    let (_, secret) = world.context.worker.vrf(&input);
    let is_drawn = |index: &u32| {
        starling_math::duty::is_duty(&secret, &header(*index as u8).id(), 1_000_000, 10, 30, 10)
    };
    (0..100).find(is_drawn).expect("half of them are drawn")
}

/// A panel makes an inference this host's duty, whatever the draws say.
fn seat(world: &World, index: u32) {
    world.fake.write(|state| {
        let dispute = Dispute {
            opened_at: 1,
            accuser: Some(account(3)),
            panels: 1,
            due: 7,
            status: DisputeStatus::Judging,
        };
        state.put(&entries::DISPUTES, (4, index), &dispute);
        let member = |id| Member { host: account(id), weight: 10 };
        let panel = Panel { drawn: 3, drawn_at: 1, members: vec![member(1), member(8)] };
        state.put(&entries::PANELS, (4, (index, 0)), &panel);
        state.put(&entries::LAST_BOUNDARY, (), &Boundary { count: 3, epoch: 4, window: 2 });
    });
}

/// What this host says to panels, by inference. Each vote has its commitment.
async fn votes(world: &World) -> Vec<(u32, Outcome)> {
    let (commits, reveals) =
        (world.queued(Kind::CommitVerdict).await, world.queued(Kind::RevealVerdict).await);
    let mut votes = Vec::new();
    for item in reveals {
        let Item::RevealVerdict(reveal) = item else { panic!("{item:?}") };
        let commitment = reveal.commitment(&world.context.host);
        let commit = PanelCommit { inference: reveal.inference, round: reveal.round, commitment };
        assert!(commits.contains(&Item::CommitVerdict(commit)), "{commits:?}");
        votes.push((reveal.inference.index, reveal.outcome));
    }
    votes
}

#[tokio::test]
async fn a_member_of_a_panel_says_what_it_found_and_says_the_same_after_a_crash() {
    let mut world = World::new().await;
    world.finished(0, 2);
    seat(&world, 0);
    world.start();
    world.to_block(3);
    until("a vote", || async { votes(&world).await.len() == 1 }).await;
    let said = votes(&world).await;
    assert!(matches!(said.as_slice(), [(0, Outcome::Measured(figures))] if figures.tokens == 40));
    let stored = world.context.store.panel_votes(4).await.unwrap();
    assert_eq!(world.queued(Kind::RevealVerdict).await, [Item::RevealVerdict(stored[0])]);
    assert_eq!(*world.fakes.verified.lock().unwrap(), 1);
    world.stop().await;
    // The outbox is lost with what it held; the store is not.
    world.context.outbox = Outbox::open(&world._folder.path().join("new.sqlite")).await.unwrap();
    world.start();
    world.to_block(5);
    until("the same vote", || async { votes(&world).await == said }).await;
    assert_eq!(world.queued(Kind::RevealVerdict).await, [Item::RevealVerdict(stored[0])]);
    // A second panel hears what was found before; the transcript is not looked at again.
    world.fake.write(|state| {
        let dispute: Dispute = state.get(&entries::DISPUTES, (4, 0)).unwrap();
        state.put(&entries::DISPUTES, (4, 0), &Dispute { panels: 2, due: 12, ..dispute });
        let panel: Panel = state.get(&entries::PANELS, (4, (0, 0))).unwrap();
        state.put(&entries::PANELS, (4, (0, 1)), &Panel { drawn: 8, ..panel });
        state.put(&entries::LAST_BOUNDARY, (), &Boundary { count: 8, epoch: 4, window: 7 });
    });
    world.to_block(7);
    until("a second vote", || async { votes(&world).await.len() == 2 }).await;
    world.stop().await;
    assert_eq!(*world.fakes.verified.lock().unwrap(), 1);
    let stored = world.context.store.panel_votes(4).await.unwrap();
    assert_eq!(stored[0].outcome, stored[1].outcome);
    assert_ne!(stored[0].salt, stored[1].salt);
}

#[tokio::test]
async fn who_does_not_sit_on_a_panel_or_comes_too_late_does_not_vote() {
    let mut world = World::new().await;
    for index in 0..2 {
        world.finished(index, 2);
        seat(&world, index);
    }
    world.fake.write(|state| {
        let others = vec![Member { host: account(3), weight: 10 }];
        state.put(&entries::PANELS, (4, (0, 0)), &Panel { drawn: 3, drawn_at: 1, members: others });
        let panel: Panel = state.get(&entries::PANELS, (4, (1, 0))).unwrap();
        state.put(&entries::PANELS, (4, (1, 0)), &Panel { drawn: 1, ..panel });
    });
    world.start();
    world.to_block(4);
    until("a look", || async {
        world.context.store.progress("verification.block").await.unwrap() == Some(4)
    })
    .await;
    world.stop().await;
    assert!(votes(&world).await.is_empty());
}

#[tokio::test]
async fn a_panel_is_told_in_time_that_nobody_serves_the_transcript() {
    let mut world = World::new().await;
    let request = world.finished(0, 2);
    seat(&world, 0);
    world.fakes.served.lock().unwrap().remove(&request).unwrap();
    world.start();
    let first = world.fake.advance().number;
    world.fake.finalize();
    until("a vote", || async {
        if votes(&world).await == [(0, Outcome::Unavailable)] {
            return true;
        }
        if world.context.store.progress("verification.block").await.unwrap() == Some(last_number(&world)) {
            world.fake.advance();
            world.fake.finalize();
        }
        false
    })
    .await;
    let last = last_number(&world);
    // Two coverage windows are there for the commitment; it needs a block or two to get on chain.
    assert!(last < first + Schedule::TEST.coverage_blocks, "after {} blocks", last - first);
    world.stop().await;
}

fn last_number(world: &World) -> u32 {
    world.context.chain.best_tick().unwrap().number
}

#[tokio::test]
async fn an_answer_that_goes_on_after_its_end_is_refused() {
    let mut world = World::new().await;
    for (index, position) in [(0, 20), (1, 39)] {
        world.fakes.end_tokens.lock().unwrap().clear();
        let request = world.finished(index, 2);
        seat(&world, index);
        let tokens = world.fakes.served.lock().unwrap()[&request].transcript.tokens().unwrap();
        // Each token occurs once: at its position, or one before.
        world.fakes.end_tokens.lock().unwrap().push(tokens[position]);
        world.start();
        world.to_block(3 + index);
        // The last token may be the end; one before it must not be followed.
        let expected = |outcome: &Outcome| match position {
            39 => matches!(outcome, Outcome::Measured(_)),
            _ => *outcome == Outcome::ReplayFailed,
        };
        until("a verdict", || async {
            world.verdicts().await.iter().any(|(of, outcome)| *of == index && expected(outcome))
        })
        .await;
        world.stop().await;
    }
}

#[tokio::test]
async fn a_transcript_that_does_not_replay_is_said_so() {
    let mut world = World::new().await;
    let request = world.finished(0, 2);
    seat(&world, 0);
    {
        let mut served = world.fakes.served.lock().unwrap();
        let served = served.get_mut(&request).unwrap();
        let mut builder = TranscriptBuilder::new(served.transcript.header.clone());
        for mut record in served.transcript.records().unwrap() {
            record.chosen = 1 - record.chosen;
            builder.push(record);
        }
        served.transcript = builder.finish().0;
    }
    world.start();
    world.to_block(3);
    until("a verdict", || async { world.verdicts().await == [(0, Outcome::ReplayFailed)] }).await;
    assert_eq!(votes(&world).await, [(0, Outcome::ReplayFailed)]);
    world.stop().await;
}

#[tokio::test]
async fn an_executor_that_keeps_silent_is_unavailable_until_it_speaks() {
    let mut world = World::new().await;
    let index = drawn(&world);
    let request = world.finished(index, 2);
    let answer = world.fakes.served.lock().unwrap().remove(&request).unwrap();
    world.start();
    let step = || async {
        let tick = world.fake.advance();
        world.fake.finalize();
        until("the block is looked at", || async {
            world.context.store.progress("verification.block").await.unwrap() == Some(tick.number)
        })
        .await;
        tokio::task::yield_now().await;
    };
    for _ in 0..4 {
        step().await;
    }
    assert_eq!(world.verdicts().await, [], "it has time to answer");
    until("unavailable", || async {
        step().await;
        world.verdicts().await == [(index, Outcome::Unavailable)]
    })
    .await;
    world.fakes.served.lock().unwrap().insert(request, answer);
    until("measured", || async {
        step().await;
        world.verdicts().await.iter().any(|(_, outcome)| matches!(outcome, Outcome::Measured(_)))
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn own_requests_that_nobody_finished_expire() {
    let mut world = World::new().await;
    world.finished(0, 2);
    world.to_block(2);
    let place = InferenceId { epoch: 4, index: 0 };
    let template = world.context.chain.best().unwrap().inference(place).await.unwrap().unwrap();
    for (index, gateway) in [(1, 1), (2, 3)] {
        let record = InferenceRecord {
            request_id: header(index as u8).id(),
            gateway: account(gateway),
            state: InferenceState::Started,
            result: None,
            started_at: 2,
            ..template.clone()
        };
        world.put_record(index, &record);
    }
    world.start();
    world.to_block(9);
    until("a look", || async {
        world.context.store.progress("verification.block").await.unwrap() == Some(9)
    })
    .await;
    assert!(world.queued(Kind::Expire).await.is_empty());
    world.to_block(2 + Schedule::TEST.expiry_blocks + 1);
    until("an expiry", || async { world.queued(Kind::Expire).await == [Item::Expire(header(1).id())] }).await;
    world.stop().await;
}

#[tokio::test]
async fn a_claim_waits_for_its_duties() {
    let mut world = World::new().await;
    world.finished(0, 2);
    let undone = Arc::new(Mutex::new(vec![0u32]));
    let answer = undone.clone();
    world.fake.on_api(move |function, _| match function {
        "StarlingApi_claimable" => Some((5u128, 6u128).encode()),
        "StarlingApi_undone_duties" => Some(answer.lock().unwrap().encode()),
        _ => None,
    });
    let mut epoch =
        EpochState { index: 5, start: 1, extension: 0, sprint_cancelled: false, schedule: Schedule::TEST };
    epoch.schedule.claim_retry_blocks = 1;
    world.fake.write(|state| state.put(&entries::EPOCH, (), &epoch));
    world.start();
    world.to_block(3);
    world.to_block(20);
    // The claim hands the undone duty over; its verdict is queued although neither draw nor window asked for it.
    until("the missing verdict", || async { world.verdicts().await.len() == 1 }).await;
    assert!(world.queued(Kind::Claim).await.is_empty());
    undone.lock().unwrap().clear();
    world.to_block(22);
    until("a claim", || async {
        matches!(world.queued(Kind::Claim).await.as_slice(), [Item::Claim { epoch: 4, .. }])
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn an_announcement_follows_what_is_known_here() {
    let mut world = World::new().await;
    world.start();
    world.to_block(3);
    let endpoints = Endpoints { gateway_url: b"http://here".to_vec(), ..Default::default() };
    world.endpoints.send_replace(Some(endpoints.clone()));
    world.to_block(4);
    until("an announcement", || async {
        world.queued(Kind::Announce).await == [Item::Announce(endpoints.clone())]
    })
    .await;
    world.stop().await;
}

/// What each of two provers did, and what the verdict says.
struct Prover {
    count: u32,
    served: Vec<u32>,
    forged: Vec<u32>,
}

async fn sprint_verdict_on(prover: Prover, figures: Figures) -> starling_primitives::sprint::SprintVerdict {
    let mut world = World::new().await;
    *world.fakes.figures.lock().unwrap() = figures;
    let task = SprintTask {
        seed: seed(5),
        epoch: 4,
        host: account(2),
        profile: 0,
        vocab_size: 64,
        prompt_tokens: Schedule::TEST.sprint_prompt_tokens,
        decode_tokens: Schedule::TEST.sprint_decode_tokens,
    };
    let transcripts: Vec<Transcript> = (0..prover.count)
        .map(|nonce| match prover.forged.contains(&nonce) {
            true => transcript(task.header(nonce), H256::zero(), task.decode_tokens),
            false => sprint_transcript(&task, nonce),
        })
        .collect();
    let roots: Vec<H256> = transcripts.iter().map(Transcript::root).collect();
    let tree = merkle::Tree::new(&roots);
    let commitment = SprintCommitment { root: tree.root(), count: prover.count };
    let leaf = |&nonce: &u32| SprintLeaf {
        nonce,
        transcript: transcripts[nonce as usize].clone(),
        proof: tree.proof(nonce),
    };
    world.fakes.leaves.lock().unwrap().insert(account(2), prover.served.iter().map(leaf).collect());
    world.fake.write(|state| {
        state.put(&entries::COMMITMENTS, (4, (0, account(2))), &commitment);
        state.put(&entries::SEEDS, (Round::Challenge(4),), &seed(9));
    });
    world.start();
    world.to_block(49);
    until("a sprint verdict", || async { world.queued(Kind::SprintVerdict).await.len() == 1 }).await;
    let items = world.queued(Kind::SprintVerdict).await;
    world.stop().await;
    match items.as_slice() {
        [Item::SprintVerdict { epoch: 4, profile: 0, verdict, .. }] => *verdict,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_honest_sprint_passes() {
    let prover = Prover { count: 5, served: (0..5).collect(), forged: vec![] };
    let verdict = sprint_verdict_on(prover, Figures::default()).await;
    assert_eq!((verdict.checked, verdict.failed, verdict.fabricated), (5, 0, false));
}

#[tokio::test]
async fn missing_samples_fail_and_forged_ones_convict() {
    let prover = Prover { count: 5, served: vec![0, 1, 2, 3], forged: vec![] };
    let verdict = sprint_verdict_on(prover, Figures::default()).await;
    assert_eq!((verdict.checked, verdict.failed, verdict.fabricated), (5, 1, false));
    let prover = Prover { count: 5, served: (0..5).collect(), forged: vec![2] };
    let verdict = sprint_verdict_on(prover, Figures::default()).await;
    assert_eq!((verdict.checked, verdict.failed, verdict.fabricated), (5, 1, true));
}

#[tokio::test]
async fn figures_are_judged_by_the_profiles_calibration() {
    let limit = u64::from(Schedule::TEST.sprint_decode_tokens) * 10;
    for (sum, expected) in [(limit, (0, false)), (limit + 1, (5, false)), (limit * 8 + 1, (5, true))] {
        let prover = Prover { count: 5, served: (0..5).collect(), forged: vec![] };
        let figures = Figures { tokens: 0, distance_sum: sum, margin_sum: 0 };
        let verdict = sprint_verdict_on(prover, figures).await;
        assert_eq!((verdict.failed, verdict.fabricated), expected, "{sum}");
    }
}
