//! The store, through restarts.

use super::*;
use crate::context::SprintResult;
use starling_primitives::{
    constraint::TokenBias,
    merkle,
    plant::Consent,
    receipt::Receipt,
    records::Finished,
    request::{prompt_hash, Authorization, SamplingParams},
    sprint::SprintCommitment,
    transcript::{Candidate, TokenRecord, TranscriptBuilder},
    verdict::{Figures, PanelReveal},
    AccountId, MultiSignature,
};

fn header(nonce: u8) -> RequestHeader {
    RequestHeader {
        profile: 0,
        prompt_hash: prompt_hash(&[1, 2, 3]),
        sampling: SamplingParams::GREEDY,
        max_tokens: 8,
        constraint: None,
        nonce: [nonce; 32],
    }
}

fn transcript(nonce: u8) -> Transcript {
    let mut builder = TranscriptBuilder::new(header(nonce));
    builder.push(TokenRecord { candidates: vec![Candidate { token: 5, q: 3 }], chosen: 0 });
    builder.finish().0
}

fn payload(nonce: u8, epoch: EpochIndex, attempt: u8) -> Payload {
    let account = AccountId::new([1; 32]);
    let authorization = Authorization {
        client: account.clone(),
        request_id: header(nonce).id(),
        profile: 0,
        max_price: 1,
        gateway: account.clone(),
        expires_at: 9,
    };
    let signature = MultiSignature::Sr25519(Default::default());
    Payload {
        authorization: SignedAuthorization { authorization, signer: account, signature },
        epoch,
        epoch_seed: H256::repeat_byte(7),
        attempt,
        header: header(nonce),
        prompt_tokens: vec![1, 2, 3],
        constraint: Some(Constraint { logit_bias: vec![TokenBias { token: 1, milli: 5 }], grammar: None }),
    }
}

fn receipt(nonce: u8) -> SignedReceipt {
    let finished = Finished {
        request_id: header(nonce).id(),
        response_hash: H256::zero(),
        transcript_root: H256::zero(),
        prompt_tokens: 3,
        completion_tokens: 1,
    };
    let executor = AccountId::new([1; 32]);
    let receipt = Receipt { epoch: 1, epoch_seed: H256::zero(), executor, finished };
    SignedReceipt { receipt, worker: Default::default(), signature: Default::default() }
}

async fn store(folder: &tempfile::TempDir) -> Store {
    Store::open(&folder.path().join("store.sqlite")).await.unwrap()
}

#[tokio::test]
async fn a_payload_is_taken_once_and_replaced_by_a_later_attempt_only() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(&folder).await;
    assert!(first.put_payload(&payload(1, 4, 0)).await.unwrap());
    assert!(!first.put_payload(&payload(1, 4, 0)).await.unwrap());
    assert!(first.put_payload(&payload(1, 4, 3)).await.unwrap());
    let id = header(1).id();
    assert!(first.transcript(&id).await.unwrap().is_none());
    assert!(first.put_answer(&transcript(1), &receipt(1)).await.unwrap());
    assert!(!first.put_payload(&payload(1, 4, 5)).await.unwrap(), "answered");
    assert!(!first.put_answer(&transcript(2), &receipt(2)).await.unwrap(), "no payload");
    // A new process finds all of it.
    let second = store(&folder).await;
    let (found, of) = second.transcript(&id).await.unwrap().unwrap();
    assert_eq!((found, of.attempt), (transcript(1), 3));
    assert_eq!(second.receipt(&id).await.unwrap(), Some(receipt(1)));
    assert_eq!(second.receipt(&header(2).id()).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_old_is_forgotten_and_what_may_be_asked_for_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    for (nonce, epoch) in [(1, 4), (2, 5), (3, 6)] {
        assert!(store.put_payload(&payload(nonce, epoch, 0)).await.unwrap());
        let id = InferenceId { epoch, index: 0 };
        store.put_verified(id, &Outcome::Measured(Figures::default())).await.unwrap();
        store.put_panel_vote(&vote(id, 0, 1)).await.unwrap();
    }
    store.prune(6).await.unwrap();
    assert_eq!(store.panel_votes(4).await.unwrap().len(), 1);
    assert!(store.payload(&header(1).id()).await.unwrap().is_some());
    store.prune(7).await.unwrap();
    assert!(store.payload(&header(1).id()).await.unwrap().is_none());
    assert!(store.payload(&header(2).id()).await.unwrap().is_some());
    assert!(store.verified(4).await.unwrap().is_empty());
    assert_eq!(store.verified(5).await.unwrap().len(), 1);
    assert!(store.panel_votes(4).await.unwrap().is_empty());
    assert_eq!(store.panel_votes(5).await.unwrap().len(), 1);
}

fn vote(inference: InferenceId, round: u8, salt: u8) -> PanelReveal {
    PanelReveal { inference, round, outcome: Outcome::ReplayFailed, salt: H256::repeat_byte(salt) }
}

#[tokio::test]
async fn what_was_committed_to_is_never_changed() {
    let folder = tempfile::tempdir().unwrap();
    let id = InferenceId { epoch: 4, index: 7 };
    let (first, second) = (vote(id, 0, 1), vote(id, 1, 2));
    {
        let store = store(&folder).await;
        assert_eq!(store.put_panel_vote(&first).await.unwrap(), first);
        assert_eq!(store.put_panel_vote(&second).await.unwrap(), second);
    }
    let store = store(&folder).await;
    let other = PanelReveal { outcome: Outcome::Unavailable, ..vote(id, 0, 3) };
    assert_eq!(store.put_panel_vote(&other).await.unwrap(), first);
    assert_eq!(store.panel_votes(4).await.unwrap(), [first, second]);
    assert_eq!(store.outcome(id).await.unwrap(), None);
    store.put_verified(id, &Outcome::ReplayFailed).await.unwrap();
    assert_eq!(store.outcome(id).await.unwrap(), Some(Outcome::ReplayFailed));
}

#[tokio::test]
async fn sprint_leaves_prove_themselves_against_the_commitment() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let results: Vec<SprintResult> =
        [0u32, 1, 2, 4].map(|nonce| SprintResult { nonce, transcript: transcript(nonce as u8) }).to_vec();
    store.put_sprint_results(3, 0, &results).await.unwrap();
    assert_eq!(store.sprint_nonces(3, 0).await.unwrap(), [0, 1, 2, 4]);
    assert!(store.sprint_leaves(3, 0, &[0]).await.unwrap().is_none(), "not committed yet");
    // Nonce 3 is missing, so 4 does not count: a leaf's index is its nonce.
    let roots = store.sprint_roots(3, 0, u32::MAX).await.unwrap();
    assert_eq!(roots.len(), 3);
    let commitment = SprintCommitment { root: merkle::root(&roots), count: 3 };
    assert_eq!(store.put_sprint_commitment(3, 0, commitment).await.unwrap(), commitment);
    let other = SprintCommitment { root: H256::zero(), count: 1 };
    assert_eq!(store.put_sprint_commitment(3, 0, other).await.unwrap(), commitment, "the first one stays");
    // What is done later does not change what was committed to.
    store.put_sprint_results(3, 0, &[SprintResult { nonce: 3, transcript: transcript(3) }]).await.unwrap();
    let leaves = store.sprint_leaves(3, 0, &[0, 2, 3, 9]).await.unwrap().unwrap();
    assert_eq!(leaves.iter().map(|leaf| leaf.nonce).collect::<Vec<_>>(), [0, 2]);
    for leaf in leaves {
        let root = leaf.transcript.root();
        assert!(merkle::verify(&commitment.root, &root, leaf.nonce, commitment.count, &leaf.proof));
    }
}

#[tokio::test]
async fn receipts_and_progress_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    store.put_receipt(&receipt(1)).await.unwrap();
    assert_eq!(store.receipt(&header(1).id()).await.unwrap(), Some(receipt(1)));
    assert_eq!(store.progress("x").await.unwrap(), None);
    store.set_progress("x", 4).await.unwrap();
    store.set_progress("x", 5).await.unwrap();
    assert_eq!(store.progress("x").await.unwrap(), Some(5));
}

#[tokio::test]
async fn the_first_plan_of_a_plant_stays_until_it_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let first = plan(1);
    {
        let store = store(&folder).await;
        assert_eq!(store.plant(4).await.unwrap(), None);
        assert_eq!(store.put_plant(4, &first).await.unwrap(), first);
        assert_eq!(store.put_plant(4, &plan(2)).await.unwrap(), first);
    }
    let store = store(&folder).await;
    assert_eq!(store.plant(4).await.unwrap(), Some(first.clone()));
    store.give_up_plant(4).await.unwrap();
    store.give_up_plant(5).await.unwrap();
    assert_eq!(store.plant(4).await.unwrap(), Some(PlantPlan { plant: None, ..first }));
    assert_eq!(store.plant(5).await.unwrap(), None);
    store.prune(7).await.unwrap();
    assert_eq!(store.plant(4).await.unwrap(), None);
}

fn plan(nonce: u8) -> PlantPlan {
    let signature = MultiSignature::Sr25519(Default::default());
    let account = AccountId::new([nonce; 32]);
    let plant = Plant {
        header: header(nonce),
        prompt_tokens: vec![1, 2, 3],
        body: "{}".into(),
        gateway: account.clone(),
        salt: H256::repeat_byte(nonce),
        consent: Consent { signer: account, signature },
        noise: H256::zero(),
        answer_from: 7,
    };
    PlantPlan { commitment: H256::repeat_byte(nonce), plant: Some(plant) }
}
