//! The outbox against a chain in memory, through everything that goes wrong.

use super::*;
use crate::{
    entries,
    fake::{event, FakeChain},
    Call, Dispute, DisputeStatus, SubmitError,
};
use codec::Encode;
use sp_runtime::MultiSignature;
use starling_primitives::{
    fraud::{Evidence, Fraud, FraudProof},
    plant::Consent,
    receipt::{Receipt, SignedReceipt},
    records::{Delivery, Finished, FinishedIn, InferenceRecord, InferenceResult, InferenceState, Started},
    request::{Authorization, SignedAuthorization},
    verdict::{Figures, Outcome, PanelCommit, PanelReveal, Verdict},
    vrf::VrfInput,
    InferenceId, RequestId, H256,
};
use std::sync::Arc;

struct World {
    folder: tempfile::TempDir,
    fake: Arc<FakeChain>,
    chain: ChainClient,
    outbox: Outbox,
    worker: Keypair,
    host: AccountId,
}

fn account(id: u8) -> AccountId {
    AccountId::new([id; 32])
}

fn started(id: u64) -> Started {
    let authorization = Authorization {
        client: account(9),
        request_id: H256::from_low_u64_be(id),
        profile: 0,
        max_price: 100,
        gateway: account(1),
        expires_at: 50,
    };
    let signature = MultiSignature::Sr25519(Default::default());
    Started {
        authorization: SignedAuthorization { authorization, signer: account(9), signature },
        epoch: 0,
        attempt: 0,
        executor: account(2),
    }
}

fn finished(id: u64) -> FinishedIn {
    let finished = Finished {
        request_id: H256::from_low_u64_be(id),
        response_hash: H256::repeat_byte(1),
        transcript_root: H256::repeat_byte(2),
        prompt_tokens: 3,
        completion_tokens: 4,
    };
    FinishedIn { epoch: 0, finished }
}

fn record(request_id: RequestId) -> InferenceRecord {
    InferenceRecord {
        request_id,
        client: account(9),
        delegate: None,
        expires_at: 50,
        gateway: account(1),
        executor: account(2),
        profile: 0,
        attempt: 0,
        state: InferenceState::Started,
        started_at: 1,
        amount: 100,
        result: None,
        delivery: Delivery::Pending,
        first_verdict_at: None,
    }
}

/// A small imitation of the inference pallet: `Finished` needs `Started`; a duplicate is refused.
fn imitate_inference(fake: &FakeChain) {
    fake.on_call(|state, _, call| {
        let mut events = Vec::new();
        let mut refuse = |request: RequestId, reason: &str| {
            let fields = [("request_id", request.encode()), ("reason_name", reason.to_string().encode())];
            events.push(event("Inference", "RecordRefused", &fields));
        };
        match call {
            Call::Start { records } => {
                for item in records {
                    let request = item.authorization.authorization.request_id;
                    if state.get(&entries::REQUEST_INDEX, (request,)).is_some() {
                        refuse(request, "Duplicate");
                        continue;
                    }
                    let index = state.get(&entries::COUNTS, (0,)).unwrap_or_default();
                    state.put(&entries::COUNTS, (0,), &(index + 1));
                    state.put(&entries::REQUEST_INDEX, (request,), &InferenceId { epoch: 0, index });
                    state.put(&entries::INFERENCES, (0, index), &record(request));
                }
            }
            Call::Finish { records } => {
                for item in records.iter().map(|record| &record.finished) {
                    let Some(id) = state.get(&entries::REQUEST_INDEX, (item.request_id,)) else {
                        refuse(item.request_id, "UnknownRequest");
                        continue;
                    };
                    let mut record = state.get(&entries::INFERENCES, (id.epoch, id.index)).unwrap();
                    record.state = InferenceState::Finished;
                    record.result = Some(InferenceResult {
                        response_hash: item.response_hash,
                        transcript_root: item.transcript_root,
                        prompt_tokens: item.prompt_tokens,
                        completion_tokens: item.completion_tokens,
                        finished_at: state.number,
                    });
                    state.put(&entries::INFERENCES, (id.epoch, id.index), &record);
                }
            }
            _ => {}
        }
        events
    });
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Arc::new(FakeChain::default());
        imitate_inference(&fake);
        let outbox = Outbox::open(&folder.path().join("outbox.sqlite")).await.unwrap();
        let worker = Keypair::from_suri("//Alice//worker").unwrap();
        Self { folder, chain: ChainClient::new(fake.clone()), fake, outbox, worker, host: account(2) }
    }

    /// What a new process finds.
    async fn restart(&mut self) {
        self.outbox = Outbox::open(&self.folder.path().join("outbox.sqlite")).await.unwrap();
    }

    async fn pass(&self) {
        self.outbox.pass(&self.chain, &self.worker, &self.host).await.unwrap();
    }

    /// A block, and the pass that it sets off.
    async fn block(&self) {
        self.fake.advance();
        self.pass().await;
    }

    async fn state(&self, item: &Item) -> ItemState {
        self.outbox.state(item.kind(), &item.key()).await.unwrap().unwrap()
    }

    async fn put(&self, item: &Item) {
        assert!(self.outbox.enqueue(item, 1_000).await.unwrap());
    }
}

#[tokio::test]
async fn items_go_in_one_call_per_kind_and_are_done_when_finalized() {
    let world = World::new().await;
    for id in 0..300 {
        world.put(&Item::Start(started(id))).await;
        world.put(&Item::Finish(finished(id))).await;
    }
    world.block().await;
    // A record goes out when the one that it follows is there.
    world.block().await;
    let calls = world.fake.submitted();
    let sizes: Vec<usize> = calls
        .iter()
        .map(|call| match call {
            Call::Start { records } => records.len(),
            Call::Finish { records } => records.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    // 256 are the most that a start takes.
    assert_eq!(sizes, [256, 44, 300]);
    world.block().await;
    let item = Item::Finish(finished(7));
    assert_eq!(world.state(&item).await, ItemState::Pending, "not final yet");
    world.fake.finalize();
    world.pass().await;
    assert_eq!(world.state(&item).await, ItemState::Done);
    let counts = world.outbox.counts().await.unwrap();
    assert_eq!((counts[&Kind::Start], counts[&Kind::Finish]), ((0, 300, 0), (0, 300, 0)));
    assert_eq!(world.fake.submitted().len(), 3, "nothing was sent twice");
}

#[tokio::test]
async fn the_same_item_is_queued_once() {
    let world = World::new().await;
    world.put(&Item::Start(started(1))).await;
    assert!(!world.outbox.enqueue(&Item::Start(started(1)), 5).await.unwrap());
    let next = Started { attempt: 1, ..started(1) };
    assert!(world.outbox.enqueue(&Item::Start(next), 5).await.unwrap(), "another attempt is another item");
}

#[tokio::test]
async fn a_crash_at_any_moment_loses_and_doubles_nothing() {
    let mut world = World::new().await;
    let item = Item::Start(started(1));
    world.put(&item).await;
    world.restart().await;
    world.block().await;
    world.restart().await;
    // The transaction is in the pool or in a block: the new process waits for its effect instead of sending again.
    world.pass().await;
    world.block().await;
    world.restart().await;
    world.fake.finalize();
    world.pass().await;
    assert_eq!(world.state(&item).await, ItemState::Done);
    assert_eq!(world.fake.submitted().len(), 1);
}

#[tokio::test]
async fn what_the_pool_loses_is_sent_again() {
    let world = World::new().await;
    let item = Item::Start(started(1));
    world.put(&item).await;
    world.block().await;
    world.fake.drop_pool();
    for _ in 0..=RETRY_BLOCKS {
        world.block().await;
    }
    world.block().await;
    world.fake.finalize();
    world.pass().await;
    assert_eq!(world.state(&item).await, ItemState::Done);
    assert_eq!(world.fake.submitted().len(), 2);
}

#[tokio::test]
async fn a_reorganisation_is_survived() {
    let world = World::new().await;
    let item = Item::Start(started(1));
    world.put(&item).await;
    world.block().await;
    world.block().await;
    // The block that held it is gone, and its transaction with it; the nonce is free again.
    world.fake.reorganise(1);
    for _ in 0..RETRY_BLOCKS + 2 {
        world.block().await;
    }
    world.fake.finalize();
    world.pass().await;
    assert_eq!(world.state(&item).await, ItemState::Done);
}

#[tokio::test]
async fn a_nonce_gap_is_filled() {
    let world = World::new().await;
    // Another program used the worker key: its transaction is lost, so the chain waits for nonce 0 while ours has 1.
    let (_, bytes) = world.chain.sign(&Call::Drain {}, &world.worker, 0).await.unwrap();
    world.chain.submit(&bytes).await.unwrap();
    let item = Item::Start(started(1));
    world.put(&item).await;
    world.pass().await;
    world.fake.drop_pool();
    for _ in 0..RETRY_BLOCKS + 2 {
        world.block().await;
    }
    world.fake.finalize();
    world.pass().await;
    assert_eq!(world.state(&item).await, ItemState::Done);
}

#[tokio::test]
async fn a_refused_record_is_dropped_and_its_batch_is_not() {
    let world = World::new().await;
    world.fake.on_call(|state, _, call| {
        let Call::Start { records } = call else { return Vec::new() };
        let bad = H256::from_low_u64_be(1);
        for item in records.iter().filter(|item| item.authorization.authorization.request_id != bad) {
            let request = item.authorization.authorization.request_id;
            state.put(&entries::REQUEST_INDEX, (request,), &InferenceId { epoch: 0, index: 0 });
            state.put(&entries::INFERENCES, (0, 0), &record(request));
        }
        let reason = "BadSignature".to_string().encode();
        vec![event("Inference", "RecordRefused", &[("request_id", bad.encode()), ("reason_name", reason)])]
    });
    let (bad, good) = (Item::Start(started(1)), Item::Start(started(2)));
    world.put(&bad).await;
    world.put(&good).await;
    for _ in 0..3 {
        world.block().await;
        world.fake.finalize();
    }
    world.pass().await;
    assert_eq!(world.state(&bad).await, ItemState::Dropped { reason: "BadSignature".into() });
    assert_eq!(world.state(&good).await, ItemState::Done);
}

#[tokio::test]
async fn a_refusal_in_somebody_elses_transaction_means_nothing() {
    let world = World::new().await;
    let item = Item::Finish(finished(1));
    world.put(&Item::Start(started(1))).await;
    world.block().await;
    world.put(&item).await;
    world.block().await;
    world.fake.drop_pool();
    // A stranger sends nonsense about our request.
    let stranger = Keypair::from_suri("//Mallory").unwrap();
    world.fake.on_call(|_, _, _| {
        let fields = [
            ("request_id", H256::from_low_u64_be(1).encode()),
            ("reason_name", "NotInvolved".to_string().encode()),
        ];
        vec![event("Inference", "RecordRefused", &fields)]
    });
    let (_, bytes) =
        world.chain.sign(&Call::Finish { records: vec![finished(1)] }, &stranger, 0).await.unwrap();
    world.chain.submit(&bytes).await.unwrap();
    world.fake.advance();
    world.fake.finalize();
    world.pass().await;
    assert_eq!(world.state(&item).await, ItemState::Pending);
}

#[tokio::test]
async fn finished_waits_for_the_gateways_started() {
    let world = World::new().await;
    let item = Item::Finish(finished(1));
    world.put(&item).await;
    for _ in 0..2 {
        world.block().await;
        world.fake.finalize();
    }
    assert_eq!(world.state(&item).await, ItemState::Pending);
    assert_eq!(world.fake.submitted(), [], "it would only be refused");
    world.put(&Item::Start(started(1))).await;
    for _ in 0..RETRY_BLOCKS + 3 {
        world.block().await;
        world.fake.finalize();
    }
    world.pass().await;
    assert_eq!(world.state(&item).await, ItemState::Done);
}

#[tokio::test]
async fn one_item_that_the_pool_refuses_holds_up_no_other() {
    let world = World::new().await;
    let items: Vec<Item> = (0..8).map(|id| Item::Start(started(id))).collect();
    for item in &items {
        world.put(item).await;
    }
    world.fake.refuse(Some(SubmitError::Invalid("exhausts the block".into())));
    for _ in 0..9 {
        world.block().await;
    }
    world.fake.refuse(None);
    for _ in 0..4 {
        world.block().await;
        world.fake.finalize();
    }
    world.pass().await;
    let sizes: Vec<usize> = world
        .fake
        .submitted()
        .iter()
        .filter_map(|call| match call {
            Call::Start { records } => Some(records.len()),
            _ => None,
        })
        .collect();
    assert!(sizes.iter().all(|size| *size == 1), "smaller calls after refusals: {sizes:?}");
    for item in &items {
        assert_eq!(world.state(item).await, ItemState::Done);
    }
}

#[tokio::test]
async fn an_item_is_dropped_after_its_deadline() {
    let world = World::new().await;
    world.fake.on_call(|_, _, _| Vec::new());
    let item = Item::Start(started(1));
    assert!(world.outbox.enqueue(&item, 3).await.unwrap());
    for _ in 0..5 {
        world.block().await;
        world.fake.finalize();
    }
    world.pass().await;
    assert!(matches!(world.state(&item).await, ItemState::Dropped { .. }));
}

#[tokio::test]
async fn a_measured_verdict_follows_an_unavailable_one() {
    let world = World::new().await;
    let worker_host = world.host.clone();
    world.fake.on_call(move |state, _, call| {
        if let Call::SubmitVerdicts { verdicts } = call {
            for verdict in verdicts {
                let stored =
                    crate::VerdictRecord { outcome: verdict.outcome, passed: true, at: state.number };
                let key = (verdict.inference.epoch, (verdict.inference.index, worker_host.clone()));
                state.put(&entries::VERDICTS, key, &stored);
            }
        }
        Vec::new()
    });
    let inference = InferenceId { epoch: 0, index: 5 };
    let absent = Item::Verdict(Verdict { inference, outcome: Outcome::Unavailable });
    world.put(&absent).await;
    for _ in 0..3 {
        world.block().await;
        world.fake.finalize();
    }
    world.pass().await;
    assert_eq!(world.state(&absent).await, ItemState::Done);
    let measured = Item::Verdict(Verdict { inference, outcome: Outcome::Measured(Figures::default()) });
    world.put(&measured).await;
    for _ in 0..3 {
        world.block().await;
        world.fake.finalize();
    }
    world.pass().await;
    assert_eq!(world.state(&measured).await, ItemState::Done);
    let found = world.chain.best().unwrap().verdict(inference, &world.host).await.unwrap().unwrap();
    assert_eq!(found.outcome, Outcome::Measured(Figures::default()));
}

/// A small imitation of a panel of two: the host of these tests, and one that never says anything.
fn imitate_panel(world: &World, inference: InferenceId) {
    let place = (inference.epoch, (inference.index, 0));
    world.fake.write(|state| {
        let member = |host: &AccountId| crate::Member { host: host.clone(), weight: 1 };
        let mut members = vec![member(&world.host), member(&account(77))];
        members.sort_by(|a, b| a.host.cmp(&b.host));
        state.put(&entries::PANELS, place, &crate::Panel { drawn: 3, drawn_at: 1, members });
        state.put(&entries::LAST_BOUNDARY, (), &crate::Boundary { count: 3, epoch: 0, window: 2 });
    });
    let host = world.host.clone();
    world.fake.on_call(move |state, _, call| {
        let seat = (inference.epoch, (inference.index, 0, host.clone()));
        match call {
            Call::CommitVerdicts { commitments } => {
                let commitment = commitments[0].commitment;
                state.put(&entries::SEATS, seat, &crate::Seat { commitment, verdict: None });
                state.put(
                    &entries::PANEL_TALLIES,
                    place,
                    &crate::PanelTally { committed: 1, votes: Default::default() },
                );
            }
            Call::RevealVerdicts { reveals } => {
                let commitment = reveals[0].commitment(&host);
                let outcome = reveals[0].outcome;
                let verdict = Some(crate::VerdictRecord { outcome, passed: true, at: state.number });
                state.put(&entries::SEATS, seat, &crate::Seat { commitment, verdict });
            }
            _ => {}
        }
        Vec::new()
    });
}

#[tokio::test]
async fn a_reveal_waits_until_nobody_can_commit_any_more() {
    let mut world = World::new().await;
    let inference = InferenceId { epoch: 0, index: 5 };
    let reveal =
        PanelReveal { inference, round: 0, outcome: Outcome::ReplayFailed, salt: H256::repeat_byte(7) };
    let commit = PanelCommit { inference, round: 0, commitment: reveal.commitment(&world.host) };
    world.put(&Item::RevealVerdict(reveal)).await;
    world.put(&Item::CommitVerdict(commit)).await;
    world.block().await;
    assert!(world.fake.submitted().is_empty(), "there is no panel yet");
    imitate_panel(&world, inference);
    for _ in 0..4 {
        world.block().await;
        world.fake.finalize();
    }
    let mut expected = vec![Call::CommitVerdicts { commitments: vec![commit] }];
    assert_eq!(world.fake.submitted(), expected);
    // It still knows what it has to say when it comes back.
    world.restart().await;
    let boundary = crate::Boundary { count: 5, epoch: 0, window: 4 };
    world.fake.write(|state| state.put(&entries::LAST_BOUNDARY, (), &boundary));
    for _ in 0..4 {
        world.block().await;
        world.fake.finalize();
    }
    expected.push(Call::RevealVerdicts { reveals: vec![reveal] });
    assert_eq!(world.fake.submitted(), expected);
    world.pass().await;
    for item in [Item::CommitVerdict(commit), Item::RevealVerdict(reveal)] {
        assert_eq!(world.state(&item).await, ItemState::Done);
    }
}

#[tokio::test]
async fn a_verdict_waits_while_a_panel_judges() {
    let world = World::new().await;
    let inference = InferenceId { epoch: 0, index: 5 };
    let dispute =
        |status| crate::Dispute { opened_at: 1, accuser: Some(account(3)), panels: 1, due: 4, status };
    let settle = |status| world.fake.write(|state| state.put(&entries::DISPUTES, (0, 5), &dispute(status)));
    settle(crate::DisputeStatus::Judging);
    world.put(&Item::Verdict(Verdict { inference, outcome: Outcome::ReplayFailed })).await;
    for _ in 0..3 {
        world.block().await;
    }
    assert!(world.fake.submitted().is_empty());
    settle(crate::DisputeStatus::Valid);
    for _ in 0..3 {
        world.block().await;
    }
    assert!(matches!(world.fake.submitted().as_slice(), [Call::SubmitVerdicts { .. }, ..]));
}

#[tokio::test]
async fn what_is_said_of_plants_is_said_until_it_stands() {
    let world = World::new().await;
    let id = InferenceId { epoch: 0, index: 5 };
    let (commitment, salt) = (H256::repeat_byte(1), H256::repeat_byte(2));
    let signature = MultiSignature::Sr25519(Default::default());
    let consent = Consent { signer: account(3), signature };
    let items = [
        Item::CommitPlant { epoch: 0, commitment },
        Item::RevealPlant { inference: id, salt, consent: consent.clone() },
        Item::ContestPlant(id),
    ];
    let place = (0, world.host.clone());
    let dispute = |status| crate::Dispute { opened_at: 1, accuser: None, panels: 4, due: 4, status };
    let planted = dispute(crate::DisputeStatus::Planted);
    world.fake.write(|state| state.put(&entries::DISPUTES, (0, 5), &planted));
    for item in &items {
        world.put(item).await;
    }
    world.block().await;
    world.block().await;
    let expected = [
        Call::CommitPlant { commitment },
        Call::RevealPlant { inference: id, salt, consent },
        Call::ContestPlant { inference: id },
    ];
    assert_eq!(world.fake.submitted(), expected);
    world.fake.write(|state| {
        let plant = crate::Plant { commitment, committed_at: 1, revealed: Some(5) };
        state.put(&entries::PLANTS, place, &plant);
        state.put(&entries::DISPUTES, (0, 5), &dispute(crate::DisputeStatus::Waiting));
    });
    for _ in 0..3 {
        world.block().await;
        world.fake.finalize();
    }
    world.pass().await;
    for item in &items {
        assert_eq!(world.state(item).await, ItemState::Done, "{item:?}");
    }
}

#[tokio::test]
async fn a_newer_announcement_replaces_an_older_one() {
    let world = World::new().await;
    let at = |url: &str| crate::Endpoints { gateway_url: url.as_bytes().to_vec(), ..Default::default() };
    world.put(&Item::Announce(at("http://a"))).await;
    assert!(!world.outbox.enqueue(&Item::Announce(at("http://a")), 1_000).await.unwrap());
    world.put(&Item::Announce(at("http://b"))).await;
    world.block().await;
    assert_eq!(world.fake.submitted(), [Call::Announce { endpoints: at("http://b") }]);
}

#[tokio::test]
async fn an_outbox_belongs_to_one_chain() {
    let mut world = World::new().await;
    world.outbox.bind(&H256::repeat_byte(1)).await.unwrap();
    world.restart().await;
    world.outbox.bind(&H256::repeat_byte(1)).await.unwrap();
    let refused = world.outbox.bind(&H256::repeat_byte(2)).await;
    assert!(matches!(refused, Err(OutboxError::OtherChain { .. })));
}

#[tokio::test]
async fn calls_leave_in_the_order_of_their_kinds() {
    let world = World::new().await;
    let (proof, _) = world.worker.vrf(&VrfInput::Beacon(H256::zero(), 0));
    world.put(&Item::Finish(finished(1))).await;
    world.put(&Item::Start(started(1))).await;
    world.put(&Item::Contribute { epoch: 0, proof }).await;
    world.block().await;
    world.block().await;
    let names: Vec<_> = world.fake.submitted().iter().map(|call| call.path().1).collect();
    assert_eq!(names, ["contribute", "start", "finish"]);
}

fn proof() -> FraudProof {
    let receipt =
        Receipt { epoch: 0, epoch_seed: H256::zero(), executor: account(3), finished: finished(1).finished };
    FraudProof {
        inference: InferenceId { epoch: 0, index: 4 },
        receipt: SignedReceipt { receipt, worker: Default::default(), signature: Default::default() },
        evidence: Evidence::Contradiction,
    }
}

/// An answer falls by the proof, as the pallet has it.
fn imitate_fraud_proofs(fake: &FakeChain) {
    fake.on_call(|state, _, call| {
        let Call::ProveFraud { proof } = call else { return Vec::new() };
        let InferenceId { epoch, index } = proof.inference;
        let status = DisputeStatus::Invalid;
        let dispute = Dispute { opened_at: state.number, accuser: None, panels: 0, due: 0, status };
        state.put(&entries::DISPUTES, (epoch, index), &dispute);
        Vec::new()
    });
}

#[tokio::test]
async fn a_proof_is_sent_only_while_the_chain_says_that_it_holds() {
    let mut world = World::new().await;
    imitate_fraud_proofs(&world.fake);
    let item = Item::ProveFraud(Box::new(proof()));
    world.put(&item).await;
    world.fake.on_api(|function, _| (function == "StarlingApi_fraud").then(|| None::<Fraud>.encode()));
    for _ in 0..RETRY_BLOCKS + 2 {
        world.block().await;
    }
    assert_eq!(world.fake.submitted(), []);
    world.fake.on_api(|_, arguments| {
        assert_eq!(arguments, proof().encode());
        Some(Some(Fraud::Contradiction).encode())
    });
    world.block().await;
    // Sent; a new process does not send it again.
    world.restart().await;
    world.pass().await;
    assert_eq!(world.fake.submitted(), [Call::ProveFraud { proof: Box::new(proof()) }]);
    world.block().await;
    world.fake.finalize();
    world.pass().await;
    assert_eq!(world.state(&item).await, ItemState::Done);
    assert_eq!(world.fake.submitted().len(), 1);
}

#[tokio::test]
async fn a_proof_about_an_answer_that_has_fallen_is_done() {
    let world = World::new().await;
    let item = Item::ProveFraud(Box::new(proof()));
    world.fake.on_api(|_, _| Some(None::<Fraud>.encode()));
    world.fake.write(|state| {
        let status = DisputeStatus::Invalid;
        let dispute = Dispute { opened_at: 1, accuser: Some(account(5)), panels: 1, due: 0, status };
        state.put(&entries::DISPUTES, (0, 4), &dispute);
    });
    world.put(&item).await;
    world.block().await;
    world.fake.finalize();
    world.pass().await;
    assert_eq!(world.state(&item).await, ItemState::Done);
    assert_eq!(world.fake.submitted(), []);
}
