//! Verdicts that this host owes, as drawn, assigned, and sitting on a panel.

use super::*;

/// Of twelve inferences of host 2, those that the secret or the window gives to this host; the others are host 3's.
fn own_indices(world: &World) -> Vec<u32> {
    let weights: Vec<HostWeight> =
        (1..=3).map(|id| HostWeight { host: account(id), weight: 10, reputation: 0 }).collect();
    let input = starling_primitives::vrf::VrfInput::Duty(world.context.genesis, 4, seed(4));
    let (_, secret) = world.context.worker.vrf(&input);
    (0..12)
        .filter(|index| {
            let id = header(*index as u8).id();
            let drawn = starling_math::duty::is_duty(&secret, &id, 1_000_000, 10, 30, 10);
            let assigned =
                starling_math::draw::coverage_verifiers(&seed(77), &id, &weights, &account(2)).next();
            drawn || assigned == Some(&account(1))
        })
        .collect()
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
    let expected = own_indices(&world);
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
async fn what_a_host_had_not_looked_at_when_it_fell_comes_to_the_next_one() {
    let mut world = World::new().await;
    for index in 0..12 {
        world.finished(index, 2);
    }
    world.start();
    world.to_block(3);
    world.close_window(12);
    world.to_block(6);
    // Host 3 looks at one of those that are assigned to it, falls, and never looks at the others.
    let own = own_indices(&world);
    let others: Vec<u32> = (0..12).filter(|index| !own.contains(index)).collect();
    assert!(others.len() > 1);
    until("what was this host's at first", || async { world.verdicts().await.len() == own.len() }).await;
    world.fake.write(|state| {
        let verdict = VerdictRecord { outcome: Outcome::Unavailable, passed: false, at: 6 };
        state.put(&entries::VERDICTS, (4, (others[0], account(3))), &verdict);
        state.put(&entries::CONVICTIONS, (4, account(3)), &Conviction { since: 7, answers: 1 });
    });
    world.to_block(8);
    until("what it left behind", || async { world.verdicts().await.len() == 11 }).await;
    assert!(world.verdicts().await.iter().all(|(index, _)| *index != others[0]));
    world.stop().await;
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
pub(super) fn seat(world: &World, index: u32) {
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
pub(super) async fn votes(world: &World) -> Vec<(u32, Outcome)> {
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
