//! Answers that are bad on purpose, from the question to the reveal.

use crate::network::{eventually, Network};
use starling_chain_client::{entries, outbox::Kind, Call, Dispute, DisputeStatus, Outbox, PlacedRecord};
use starling_host::{context::Peers, store::Store};
use starling_primitives::{
    plant::commitment, records::InferenceState, request::prompt_hash, tape::tape_seed, EpochIndex, H256,
};
use std::sync::atomic::Ordering;

const EPOCH: EpochIndex = 0;
/// Every host plants; its client is the payer.
const PLANTS: &str = "[plants]\nclients_file = \"DATA/client.key\"";

fn step(network: &Network) {
    network.chain.advance();
    network.chain.finalize();
}

fn commitments(network: &Network) -> Vec<H256> {
    let calls = network.chain.submitted();
    let commitment = |call: &Call| match call {
        Call::CommitPlant { commitment } => Some(*commitment),
        _ => None,
    };
    calls.iter().filter_map(commitment).collect()
}

/// Hosts that have committed themselves, in a final block.
async fn committed(far: bool) -> Network {
    let network = Network::start_as(2, PLANTS, true).await;
    for host in &network.hosts {
        host.node.controls.far.store(far, Ordering::SeqCst);
    }
    step(&network);
    eventually("commitments", || async { (commitments(&network).len() == 2).then_some(()) }).await;
    // Each answers in its own time, after its commitment has become final.
    let mut last = 0;
    for host in &network.hosts {
        let store = Store::open(&host.data_dir.join("store.sqlite")).await.unwrap();
        let plan = store.plant(EPOCH).await.unwrap().expect("it has committed itself");
        last = last.max(plan.plant.expect("to a plant").answer_from);
    }
    network.chain.advance_to(last);
    step(&network);
    step(&network);
    for host in &network.hosts {
        eventually("a perturbed answer", || async {
            (!host.node.controls.perturbed.lock().unwrap().is_empty()).then_some(())
        })
        .await;
    }
    network
}

async fn records(network: &Network) -> Vec<PlacedRecord> {
    let view = network.client.best().unwrap();
    let count = view.inference_count(EPOCH).await.unwrap();
    view.inferences(EPOCH, &(0..count).collect::<Vec<_>>()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plant_goes_the_way_of_all_answers_and_is_revealed_when_it_is_accused() {
    let network = committed(true).await;
    for host in &network.hosts {
        let outbox = Outbox::open(&host.data_dir.join("outbox.sqlite")).await.unwrap();
        eventually("an answer to be recorded", || async {
            (outbox.pending(Kind::Finish, 2).await.unwrap().len() == 1).then_some(())
        })
        .await;
    }
    let sent = |kind: fn(&Call) -> bool| network.chain.submitted().iter().filter(|call| kind(call)).count();
    step(&network);
    let started = || async { (sent(|call| matches!(call, Call::Start { .. })) == 2).then_some(()) };
    eventually("both starts", started).await;
    step(&network);
    let finished = || async { (sent(|call| matches!(call, Call::Finish { .. })) == 2).then_some(()) };
    eventually("both ends", finished).await;
    step(&network);
    // As after any answer, the gateways say that they have handed it on.
    let delivered = || async { (sent(|call| matches!(call, Call::Deliver { .. })) == 2).then_some(()) };
    eventually("both deliveries", delivered).await;
    step(&network);
    let recorded = records(&network).await;
    assert!(recorded.iter().all(|placed| placed.record.state == InferenceState::Delivered), "{recorded:?}");
    assert_eq!(recorded.len(), 2);
    for (host, other) in [(0, 1), (1, 0)] {
        let (host, other) = (&network.hosts[host], &network.hosts[other]);
        let mine = |placed: &&PlacedRecord| placed.record.executor == host.account;
        let PlacedRecord { id, record } = recorded.iter().find(mine).expect("its own plant");
        assert_eq!((&record.gateway, &record.client), (&other.account, &network.payer_account()));
        // It is served like any other answer.
        let served = other.agent.peers().fetch_transcript(&host.account, record.request_id).await.unwrap();
        assert_eq!(served.transcript.root(), record.result.as_ref().unwrap().transcript_root);
        assert!(served.receipt.is_some());
        let asked = host.node.controls.perturbed.lock().unwrap().clone();
        let [asked] = asked.as_slice() else { panic!("{} answers", asked.len()) };
        assert_eq!(asked.header.id(), record.request_id);
        assert_eq!(prompt_hash(&served.prompt_tokens), asked.header.prompt_hash);
        assert_eq!(asked.tape_seed, tape_seed(&crate::network::EPOCH_SEED, &record.request_id));
        network.chain.write(|state| {
            let status = DisputeStatus::Waiting;
            let dispute = Dispute { opened_at: state.number, accuser: None, panels: 0, due: 1, status };
            state.put(&entries::DISPUTES, (EPOCH, id.index), &dispute);
        });
    }
    let questions: Vec<_> = network
        .hosts
        .iter()
        .map(|host| host.node.controls.perturbed.lock().unwrap()[0].prompt_tokens.clone())
        .collect();
    assert_ne!(questions[0], questions[1], "each model makes its own up");
    step(&network);
    let revealed = || async { (sent(|call| matches!(call, Call::RevealPlant { .. })) == 2).then_some(()) };
    eventually("both reveals", revealed).await;
    for call in network.chain.submitted() {
        let Call::RevealPlant { inference, salt, consent } = call else { continue };
        let record = &recorded.iter().find(|placed| placed.id == inference).unwrap().record;
        assert!(commitments(&network).contains(&commitment(record.request_id, salt)));
        assert!(consent.verify(&network.client.genesis(), &record.request_id));
        assert_eq!(consent.signer, record.client);
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_others_could_approve_is_not_recorded() {
    let network = committed(false).await;
    // Stronger noise does not help either. What is under way ends before the agents do.
    for host in &network.hosts {
        let strengths = || {
            let asked = host.node.controls.perturbed.lock().unwrap();
            asked
                .iter()
                .flat_map(|request| request.perturbation)
                .map(|noise| noise.strength_milli)
                .collect::<Vec<_>>()
        };
        eventually("three answers", || async { (strengths() == [500, 1_000, 2_000]).then_some(()) }).await;
        let nobody =
            || async { host.agent.fleet().report().iter().all(|node| node.running == 0).then_some(()) };
        eventually("an idle ML node", nobody).await;
    }
    for _ in 0..4 {
        step(&network);
    }
    assert!(records(&network).await.is_empty());
    let calls = network.chain.submitted();
    assert!(!calls.iter().any(|call| matches!(call, Call::Start { .. } | Call::Finish { .. })), "{calls:?}");
    network.stop().await;
}
