//! Proofs that an executor lied, beside the verdicts on its answers.

use super::{
    verification::{seat, votes},
    *,
};
use starling_primitives::{
    fraud::{judge, Evidence, FraudProof, Known},
    receipt::{Receipt, SignedReceipt},
    records::Finished,
};

/// How host 2 deceives about an answer of 40 tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// It does not.
    None,
    /// It commits to a choice that the tape did not make.
    Choice,
    /// It signed another answer than the one on chain.
    Receipt,
}

fn committed(transcript: &Transcript) -> Finished {
    Finished {
        request_id: transcript.header.id(),
        response_hash: response_hash(&transcript.tokens().unwrap()),
        transcript_root: transcript.root(),
        prompt_tokens: PROMPT.len() as u32,
        completion_tokens: 40,
    }
}

fn sign(world: &World, finished: Finished) -> SignedReceipt {
    let worker = Keypair::from_suri("//Two//worker").unwrap();
    let receipt = Receipt { epoch: 4, epoch_seed: seed(4), executor: account(2), finished };
    let signature = worker.sign(receipt.signing_hash(&world.context.genesis).as_bytes());
    SignedReceipt { receipt, worker: worker.public(), signature }
}

/// Inference 0 is this host's duty. Returns what host 2 put on chain.
fn answered(world: &World, lie: Lie) -> Finished {
    let request = world.finished(0, 2);
    seat(world, 0);
    let mut served = world.fakes.served.lock().unwrap();
    let served = served.get_mut(&request).unwrap();
    if lie == Lie::Choice {
        let mut builder = TranscriptBuilder::new(served.transcript.header.clone());
        for (position, mut record) in served.transcript.records().unwrap().into_iter().enumerate() {
            // In the second window.
            record.chosen = if position == 35 { 1 - record.chosen } else { record.chosen };
            builder.push(record);
        }
        served.transcript = builder.finish().0;
    }
    let finished = committed(&served.transcript);
    world.fake.write(|state| {
        let mut record: InferenceRecord = state.get(&entries::INFERENCES, (4, 0)).unwrap();
        let result = record.result.as_mut().unwrap();
        (result.transcript_root, result.response_hash) = (finished.transcript_root, finished.response_hash);
        state.put(&entries::INFERENCES, (4, 0), &record);
    });
    let signed = match lie {
        Lie::Receipt => Finished { response_hash: H256::repeat_byte(1), ..finished.clone() },
        Lie::None | Lie::Choice => finished.clone(),
    };
    served.receipt = Some(sign(world, signed));
    finished
}

/// The runtime judges proofs by the same function as this host, or, where it does not `know` the record, not at all.
/// Returns how often it is asked.
fn judging(world: &World, finished: &Finished, know: bool) -> Arc<Mutex<u32>> {
    let (genesis, finished, asked) = (world.context.genesis, finished.clone(), Arc::<Mutex<u32>>::default());
    let count = asked.clone();
    world.fake.on_api(move |function, arguments| {
        assert_eq!(function, "StarlingApi_fraud");
        *count.lock().unwrap() += 1;
        let proof: FraudProof = codec::Decode::decode(&mut &*arguments).unwrap();
        let known = Known {
            genesis: &genesis,
            tape_seed: &tape_seed(&seed(4), &finished.request_id),
            finished: Some(&finished),
            profile: 0,
            vocab_size: 64,
            top_k: 20,
        };
        Some(judge(&proof.receipt, proof.evidence, &known).ok().filter(|_| know).encode())
    });
    asked
}

async fn proofs(world: &World) -> Vec<FraudProof> {
    let items = world.queued(Kind::ProveFraud).await;
    let proof = |item: Item| match item {
        Item::ProveFraud(proof) => *proof,
        other => panic!("{other:?}"),
    };
    items.into_iter().map(proof).collect()
}

#[tokio::test]
async fn a_choice_that_the_tape_did_not_make_is_proven_and_judged() {
    let mut world = World::new().await;
    let finished = answered(&world, Lie::Choice);
    judging(&world, &finished, true);
    world.start();
    world.to_block(3);
    until("a verdict", || async { world.verdicts().await == [(0, Outcome::ReplayFailed)] }).await;
    let proofs_before = proofs(&world).await;
    let [FraudProof { inference: InferenceId { epoch: 4, index: 0 }, evidence, .. }] =
        proofs_before.as_slice()
    else {
        panic!("{proofs_before:?}")
    };
    assert!(matches!(evidence, Evidence::Window { opened, .. } if opened.index == 1), "{evidence:?}");
    // The verdict is a duty all the same, to the panel too.
    assert_eq!(votes(&world).await, [(0, Outcome::ReplayFailed)]);
    world.stop().await;
    // A process that died before it had noted the outcome checks again, and says the same once.
    world.context.store = Store::open(&world._folder.path().join("new.sqlite")).await.unwrap();
    world.start();
    world.to_block(5);
    until("a second check", || async { !world.context.store.verified(4).await.unwrap().is_empty() }).await;
    world.stop().await;
    assert_eq!(proofs(&world).await, proofs_before);
}

#[tokio::test]
async fn a_receipt_that_says_otherwise_than_the_chain_is_proof_beside_a_good_transcript() {
    let mut world = World::new().await;
    let finished = answered(&world, Lie::Receipt);
    judging(&world, &finished, true);
    world.start();
    world.to_block(3);
    until("a verdict", || async { world.verdicts().await.len() == 1 }).await;
    assert!(matches!(world.verdicts().await.as_slice(), [(0, Outcome::Measured(_))]));
    let proofs = proofs(&world).await;
    assert!(matches!(proofs.as_slice(), [FraudProof { evidence: Evidence::Contradiction, .. }]));
    world.stop().await;
}

/// A world in which host 2 told this lie, and `spoil` changed what it gives out.
async fn nothing_is_proven(lie: Lie, spoil: impl FnOnce(&World, &mut ServedTranscript)) {
    let mut world = World::new().await;
    let finished = answered(&world, lie);
    let asked = judging(&world, &finished, true);
    spoil(&world, world.fakes.served.lock().unwrap().get_mut(&finished.request_id).unwrap());
    world.start();
    world.to_block(3);
    until("a verdict", || async { world.verdicts().await.len() == 1 }).await;
    assert_eq!(proofs(&world).await, []);
    assert_eq!(*asked.lock().unwrap(), 0, "the runtime is asked about what looks like a proof only");
    world.stop().await;
}

#[tokio::test]
async fn nothing_is_proven_of_an_honest_executor() {
    nothing_is_proven(Lie::None, |_, _| {}).await;
    // Other bytes than those it committed to: perhaps damaged on the way.
    nothing_is_proven(Lie::None, |_, served| served.transcript.windows[0].truncate(9)).await;
}

#[tokio::test]
async fn without_a_receipt_of_its_own_the_verdict_has_to_do() {
    nothing_is_proven(Lie::Choice, |_, served| served.receipt = None).await;
    nothing_is_proven(Lie::Choice, |_, served| {
        served.receipt.as_mut().unwrap().receipt.executor = account(3);
    })
    .await;
    nothing_is_proven(Lie::Receipt, |_, served| {
        served.receipt.as_mut().unwrap().receipt.finished.completion_tokens += 1;
    })
    .await;
    // Signed, but by another epoch's record of the same request.
    nothing_is_proven(Lie::Receipt, |world, served| {
        let mut receipt = served.receipt.as_ref().unwrap().receipt.clone();
        receipt.epoch = 3;
        let worker = Keypair::from_suri("//Two//worker").unwrap();
        let signature = worker.sign(receipt.signing_hash(&world.context.genesis).as_bytes());
        served.receipt = Some(SignedReceipt { receipt, worker: worker.public(), signature });
    })
    .await;
}

#[tokio::test]
async fn what_the_runtime_does_not_confirm_is_not_said() {
    let mut world = World::new().await;
    let finished = answered(&world, Lie::Choice);
    let asked = judging(&world, &finished, false);
    world.start();
    world.to_block(3);
    until("a verdict", || async { world.verdicts().await == [(0, Outcome::ReplayFailed)] }).await;
    assert_eq!((proofs(&world).await, *asked.lock().unwrap()), (vec![], 1));
    world.stop().await;
}
