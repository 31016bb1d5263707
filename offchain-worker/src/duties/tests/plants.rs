//! Planting, and contesting what others planted.

use super::*;
use crate::store::PlantPlan;
use starling_chain_client::Plant;
use starling_primitives::{
    plant::{commitment, Consent},
    receipt::{Receipt, SignedReceipt},
    records::Finished,
};

/// Clients in turn: the one of epoch 4 is the first.
const CLIENT: &str = "//Client";

fn clients() -> Vec<Keypair> {
    [CLIENT, "//Other"].map(|client| Keypair::from_suri(client).unwrap()).into()
}
/// Where its plants are recorded.
const INDEX: u32 = 0;

async fn committed(world: &World) -> H256 {
    until("a commitment", || async { world.queued(Kind::CommitPlant).await.len() == 1 }).await;
    let items = world.queued(Kind::CommitPlant).await;
    let [Item::CommitPlant { epoch: 4, commitment }] = items.as_slice() else { panic!("{items:?}") };
    *commitment
}

async fn plan(world: &World) -> PlantPlan {
    world.context.store.plant(4).await.unwrap().expect("a plan")
}

fn put_commitment(world: &World, commitment: H256) {
    world.fake.write(|state| {
        let plant = Plant { commitment, committed_at: state.number, revealed: None };
        state.put(&entries::PLANTS, (4, account(1)), &plant);
    });
}

async fn step(world: &World) -> u32 {
    let number = world.fake.advance().number;
    world.fake.finalize();
    until("the block is looked at", || async {
        world.context.store.progress("verification.block").await.unwrap() == Some(number)
    })
    .await;
    number
}

/// To a block in which the commitment is final and the answer due.
async fn to_answer(world: &World) {
    let number = step(world).await;
    if let Some(plant) = plan(world).await.plant.filter(|plant| plant.answer_from > number) {
        world.to_block(plant.answer_from);
    }
    step(world).await;
}

/// A host with a client, which has committed itself and is to answer. What it committed itself to.
async fn answering(world: &mut World) -> H256 {
    world.plants = clients();
    world.start();
    world.to_block(3);
    let commitment = committed(world).await;
    put_commitment(world, commitment);
    to_answer(world).await;
    commitment
}

/// A host that has committed itself and answered.
async fn planted() -> (World, PlantPlan) {
    let mut world = World::new().await;
    answering(&mut world).await;
    until("an answer", || async { !world.fakes.planted.lock().unwrap().is_empty() }).await;
    let plan = plan(&world).await;
    (world, plan)
}

/// What host 1 answers, and its word on it.
pub(super) fn answer(payload: &Payload) -> (Transcript, SignedReceipt) {
    let request_id = payload.header.id();
    let answer = transcript(payload.header.clone(), tape_seed(&seed(4), &request_id), 40);
    let finished = Finished {
        request_id,
        response_hash: response_hash(&answer.tokens().unwrap()),
        transcript_root: answer.root(),
        prompt_tokens: PROMPT.len() as u32,
        completion_tokens: 40,
    };
    let receipt = Receipt { epoch: 4, epoch_seed: seed(4), executor: account(1), finished };
    (answer, SignedReceipt { receipt, worker: Default::default(), signature: Default::default() })
}

/// The answer is on chain.
fn record(world: &World) {
    let payload = world.fakes.planted.lock().unwrap()[0].clone();
    let finished = answer(&payload).1.receipt.finished;
    let asked = payload.authorization.authorization;
    let record = InferenceRecord {
        request_id: asked.request_id,
        client: asked.client,
        delegate: None,
        expires_at: asked.expires_at,
        gateway: asked.gateway,
        executor: account(1),
        profile: 0,
        attempt: 0,
        state: InferenceState::Finished,
        started_at: 9,
        amount: 1,
        result: Some(InferenceResult {
            response_hash: finished.response_hash,
            transcript_root: finished.transcript_root,
            prompt_tokens: finished.prompt_tokens,
            completion_tokens: 40,
            finished_at: 10,
        }),
        delivery: Delivery::Pending,
        first_verdict_at: None,
    };
    world.put_record(INDEX, &record);
}

fn dispute(world: &World, status: DisputeStatus) {
    world.fake.write(|state| {
        let dispute =
            Dispute { opened_at: state.number, accuser: Some(account(3)), panels: 0, due: 9, status };
        state.put(&entries::DISPUTES, (4, INDEX), &dispute);
    });
}

async fn reveals(world: &World) -> Vec<Item> {
    world.queued(Kind::RevealPlant).await
}

#[tokio::test]
async fn without_a_client_a_host_commits_itself_to_nothing_once() {
    let mut world = World::new().await;
    world.start();
    world.to_block(3);
    let first = committed(&world).await;
    assert_eq!(plan(&world).await, PlantPlan { commitment: first, plant: None });
    world.stop().await;
    // The outbox is lost with what it held; the same is said again.
    world.context.outbox = Outbox::open(&world._folder.path().join("new.sqlite")).await.unwrap();
    world.start();
    world.to_block(5);
    assert_eq!(committed(&world).await, first);
    world.stop().await;
    assert!(world.fakes.planted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_weight_there_is_nothing_to_commit_to() {
    let mut world = World::new().await;
    world.context.host = account(7);
    world.start();
    step(&world).await;
    step(&world).await;
    world.stop().await;
    assert!(world.queued(Kind::CommitPlant).await.is_empty());
}

#[tokio::test]
async fn a_plant_is_a_request_for_which_this_host_is_drawn() {
    let (mut world, plan) = planted().await;
    world.stop().await;
    let plant = plan.plant.unwrap();
    let request = plant.header.id();
    assert_eq!(plan.commitment, commitment(request, plant.salt));
    let weights: Vec<HostWeight> =
        (1..=3).map(|id| HostWeight { host: account(id), weight: 10, reputation: 0 }).collect();
    let executor = starling_math::draw::executor(&seed(4), &request, 0, &weights, &plant.gateway);
    assert_eq!(executor, Some(account(1)));
    assert!(weights[1..].iter().any(|entry| entry.host == plant.gateway), "{:?}", plant.gateway);
    let client = Keypair::from_suri(CLIENT).unwrap().account();
    assert!(plant.consent.verify(&world.context.genesis, &request));
    let payloads = world.fakes.planted.lock().unwrap().clone();
    let [Payload { authorization, epoch: 4, attempt: 0, header, .. }] = payloads.as_slice() else {
        panic!("{payloads:?}")
    };
    assert!(authorization.verify(&world.context.genesis));
    let asked = &authorization.authorization;
    assert_eq!((&asked.client, &asked.gateway, asked.request_id), (&client, &plant.gateway, request));
    assert_eq!(asked.max_price, profile().price(PROMPT.len() as u32, header.max_tokens));
    assert_eq!((*header).clone(), plant.header);
    assert_eq!(plant.consent, Consent { signer: client, ..plant.consent.clone() });
}

#[tokio::test]
async fn nothing_is_answered_before_its_commitment_is_final() {
    let mut world = World::new().await;
    world.plants = clients();
    world.start();
    world.to_block(3);
    let commitment = committed(&world).await;
    let number = step(&world).await;
    put_commitment(&world, commitment);
    // Best blocks alone, far enough for the answer to be due.
    world.fake.advance_to(number + 10);
    assert!(world.context.chain.best().unwrap().plant(4, &account(1)).await.unwrap().is_some());
    assert!(world.context.chain.finalized().unwrap().plant(4, &account(1)).await.unwrap().is_none());
    assert!(world.fakes.planted.lock().unwrap().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn an_accused_plant_is_revealed_at_once() {
    let (mut world, plan) = planted().await;
    record(&world);
    step(&world).await;
    step(&world).await;
    assert!(reveals(&world).await.is_empty(), "nobody has looked yet");
    dispute(&world, DisputeStatus::Waiting);
    step(&world).await;
    until("a reveal", || async { reveals(&world).await.len() == 1 }).await;
    let plant = plan.plant.unwrap();
    let inference = InferenceId { epoch: 4, index: INDEX };
    let expected = Item::RevealPlant { inference, salt: plant.salt, consent: plant.consent };
    assert_eq!(reveals(&world).await, [expected]);
    world.stop().await;
    assert_eq!(world.fakes.planted.lock().unwrap().len(), 1, "answered once");
}

#[tokio::test]
async fn a_plant_that_nobody_accuses_is_revealed_when_all_have_looked() {
    let (mut world, _) = planted().await;
    record(&world);
    let number = step(&world).await;
    world.close_window(1);
    let closed_at = number + 1;
    let wait = Schedule::TEST.coverage_blocks * 2;
    while step(&world).await < closed_at + wait - 1 {}
    assert!(reveals(&world).await.is_empty(), "whom the window assigned it has time to look");
    world.stop().await;
    // A restart goes on where it was.
    world.start();
    step(&world).await;
    until("a reveal", || async { reveals(&world).await.len() == 1 }).await;
    world.stop().await;
    assert_eq!(world.fakes.planted.lock().unwrap().len(), 1, "answered once");
}

#[tokio::test]
async fn an_answer_that_is_not_bad_enough_is_forgotten() {
    let mut world = World::new().await;
    *world.fakes.given_up.lock().unwrap() = Some("it is too good".into());
    let commitment = answering(&mut world).await;
    until("it is given up", || async { plan(&world).await.plant.is_none() }).await;
    for _ in 0..2 {
        step(&world).await;
    }
    world.stop().await;
    assert_eq!(world.fakes.planted.lock().unwrap().len(), 1);
    assert_eq!(plan(&world).await.commitment, commitment);
}

/// Host 1 approved an answer of host 2, which is revealed as a plant.
async fn approved(world: &mut World, figures: Figures) -> RequestId {
    let request = world.finished(INDEX, 2);
    *world.fakes.figures.lock().unwrap() = figures;
    dispute(world, DisputeStatus::Planted);
    world.fake.write(|state| state.put(&entries::APPROVERS, (4, INDEX), &vec![account(1), account(3)]));
    request
}

async fn contests(world: &World) -> Vec<Item> {
    world.queued(Kind::ContestPlant).await
}

#[tokio::test]
async fn what_was_good_all_the_same_is_contested() {
    let mut world = World::new().await;
    approved(&mut world, Figures::default()).await;
    world.start();
    world.to_block(3);
    let expected = [Item::ContestPlant(InferenceId { epoch: 4, index: INDEX })];
    until("a contest", || async { contests(&world).await == expected }).await;
    world.stop().await;
    assert_eq!(*world.fakes.verified.lock().unwrap(), 1);
    assert_eq!(world.verdicts().await, [], "a plant takes no verdicts");
}

#[tokio::test]
async fn what_was_bad_indeed_is_not_contested() {
    let mut world = World::new().await;
    let bad = Figures { distance_sum: 40 * 10 + 1, ..Figures::default() };
    approved(&mut world, bad).await;
    world.start();
    step(&world).await;
    until("a second look", || async { *world.fakes.verified.lock().unwrap() == 1 }).await;
    step(&world).await;
    step(&world).await;
    world.stop().await;
    assert_eq!(contests(&world).await, []);
    assert_eq!(*world.fakes.verified.lock().unwrap(), 1, "one look is enough");
}

#[tokio::test]
async fn a_planter_that_hides_the_answer_is_contested_by_what_was_seen() {
    let mut world = World::new().await;
    let request = approved(&mut world, Figures::default()).await;
    world.fakes.served.lock().unwrap().remove(&request).unwrap();
    let seen = Outcome::Measured(Figures { tokens: 40, ..Figures::default() });
    world.context.store.put_verified(InferenceId { epoch: 4, index: INDEX }, &seen).await.unwrap();
    world.start();
    until("a contest", || async {
        step(&world).await;
        contests(&world).await.len() == 1
    })
    .await;
    world.stop().await;
}
