//! Duties against a chain in memory, with helpers that do what a test tells them.

mod fraud;
mod plants;
mod sprint;
mod verification;

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
    DisputeStatus, HostInfo, HostStatus, Item, Keypair, Member, Outbox, Panel, VerdictRecord,
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
/// The same for a gateway.
const BODY: &str = "a body";

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
        Ok(Question { header: header(0), prompt_tokens: PROMPT.to_vec(), body: BODY.into() })
    }

    async fn answer(&self, payload: Payload, body: String, _: H256) -> Result<Planting, HelperError> {
        assert_eq!(body, BODY);
        self.planted.lock().unwrap().push(payload.clone());
        if let Some(reason) = self.given_up.lock().unwrap().clone() {
            return Ok(Planting::Dropped(reason));
        }
        let (answer, receipt) = plants::answer(&payload);
        let store = self.store.get().unwrap();
        assert!(store.put_payload(&payload).await.unwrap());
        assert!(store.put_answer(&answer, &receipt).await.unwrap());
        Ok(Planting::Answered)
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
    plants: Vec<Keypair>,
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
                    // Host 1 has not announced any.
                    endpoints: (id > 1).then(|| Endpoints {
                        gateway_url: format!("http://host-{id}").into_bytes(),
                        ..Endpoints::default()
                    }),
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
            plants: Vec::new(),
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
