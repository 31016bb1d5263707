//! The race, and the check of others' samples.

use super::*;

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
