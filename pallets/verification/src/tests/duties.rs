use crate::{mock::*, Conviction, Convictions, CoverageMarks};
use starling_math::{draw, duty};
use starling_primitives::{
    hashing::hash_of,
    schedule::Schedule,
    traits::{Beacon, Duties, Round, Weights},
    AccountId, InferenceId, H256, PPM,
};

fn secret(id: u8) -> H256 {
    hash_of(b"secret", &id)
}

fn undone(epoch: u32, id: u8, sample: &[u32]) -> Vec<u32> {
    <Verification as Duties>::undone(epoch, &host(id), &secret(id), sample)
}

/// Whether the duty secret draws this host, computed from the weights by hand.
fn drawn(verifier: u8, executor: u8, id: InferenceId, reputation: u32) -> bool {
    let target = duty::target(reputation);
    let (weight, of_executor) = (10 * u64::from(verifier), 10 * u64::from(executor));
    duty::is_duty(&secret(verifier), &request_id(id), target, weight, 100, of_executor)
}

/// First inference of host 1 that the duty secret does, or does not, draw for a host.
fn drawn_for(verifier: u8, wanted: bool) -> InferenceId {
    loop {
        let id = finished(1);
        if drawn(verifier, 1, id, 0) == wanted {
            return id;
        }
    }
}

/// An inference of host 1 that is drawn for nobody: only the window can make it a duty.
fn undrawn() -> InferenceId {
    std::iter::repeat_with(|| finished(1))
        .find(|id| (2..=4).all(|verifier| !drawn(verifier, 1, *id, 0)))
        .unwrap()
}

#[test]
fn drawn_inferences_are_duties_until_done() {
    build_and_execute(|| {
        let ids: Vec<_> = (0..60).map(|_| finished(1)).collect();
        let all: Vec<u32> = (0..60).collect();
        for verifier in 2..=4 {
            let expected: Vec<u32> =
                ids.iter().filter(|id| drawn(verifier, 1, **id, 0)).map(|id| id.index).collect();
            assert!(!expected.is_empty() && expected.len() < 60);
            assert_eq!(undone(1, verifier, &all), expected);
            assert_eq!(undone(1, verifier, &expected[1..]), expected[1..], "only the sample is asked for");
            let first = InferenceId { epoch: 1, index: expected[0] };
            submit(verifier, first, good());
            assert_eq!(undone(1, verifier, &all), expected[1..]);
        }
        assert!(undone(1, 1, &all).is_empty(), "nobody verifies its own work");
        assert!(undone(1, 5, &all).is_empty(), "nor somebody without weight for the profile");
        assert!(undone(1, 2, &[99]).is_empty(), "nor what does not exist");
    });
}

#[test]
fn only_finished_inferences_are_duties() {
    build_and_execute(|| {
        let mut id = started(1);
        while !drawn(4, 1, id, 0) {
            id = started(1);
        }
        assert!(undone(1, 4, &[id.index]).is_empty());
        finish(id);
        assert_eq!(undone(1, 4, &[id.index]), [id.index]);
    });
}

#[test]
fn the_target_follows_the_executors_frozen_reputation() {
    build_and_execute(|| {
        FrozenReputation::set([(host(1), PPM)].into());
        let ids: Vec<_> = (0..300).map(|_| finished(1)).collect();
        let all: Vec<u32> = (0..300).collect();
        let expected: Vec<u32> = ids.iter().filter(|id| drawn(4, 1, **id, PPM)).map(|id| id.index).collect();
        assert_eq!(undone(1, 4, &all), expected);
        assert!(expected.len() < 12, "about 1.3 of 300 are expected");
    });
}

#[test]
fn nothing_is_assigned_to_a_host_that_had_fallen() {
    build_and_execute(|| {
        let id = undrawn();
        let conviction = |since| Conviction { since, answers: 1 };
        Convictions::<Test>::insert(1, host(2), conviction(1));
        Convictions::<Test>::insert(0, host(3), conviction(1));
        run_to(1 + 2 * Schedule::TEST.coverage_blocks);
        let assigned = |verifier| !undone(1, verifier, &[id.index]).is_empty();
        assert_eq!([2, 3, 4].map(assigned), [false, false, true]);
        // Falling later takes no duty away.
        Convictions::<Test>::insert(1, host(4), conviction(now()));
        assert!(assigned(4));
    });
}

/// Whose turn it is to look at an inference of host 1, one after the other.
fn turns(id: InferenceId, seed: &H256) -> Vec<AccountId> {
    let hosts = Mock::of_profile(1, PROFILE);
    draw::coverage_verifiers(seed, &request_id(id), &hosts, &host(1)).cloned().collect()
}

#[test]
fn what_a_host_had_not_looked_at_when_it_fell_goes_to_the_next_one() {
    build_and_execute(|| {
        let id = undrawn();
        run_to(1 + 2 * Schedule::TEST.coverage_blocks);
        let seed = Mock::seed(Round::Coverage(1, 1)).unwrap();
        let turns = turns(id, &seed);
        assert_eq!(turns.len(), 3);
        let owes = || -> Vec<AccountId> {
            let owes = |verifier: &u8| !undone(1, *verifier, &[id.index]).is_empty();
            (2..=4).filter(owes).map(host).collect()
        };
        let fall = |place: usize, since| {
            Convictions::<Test>::insert(1, turns[place].clone(), Conviction { since, answers: 1 });
        };
        let sorted = |mut hosts: Vec<AccountId>| {
            hosts.sort();
            hosts
        };
        assert_eq!(owes(), turns[..1]);
        // Who comes next does not matter as long as the first one can look.
        fall(1, now());
        assert_eq!(owes(), turns[..1]);
        fall(0, now());
        assert_eq!(owes(), sorted(turns.clone()), "the second one has fallen, too: the third has to look");
        // A host that has looked before it fell leaves nothing behind.
        let second = (2..=4).find(|id| host(*id) == turns[1]).unwrap();
        submit(second, id, good());
        assert_eq!(owes(), turns[..1]);
    });
}

#[test]
fn who_falls_when_claims_are_open_changes_nobodys_duties() {
    build_and_execute(|| {
        let id = undrawn();
        run_to(1 + 2 * Schedule::TEST.coverage_blocks);
        let turns = turns(id, &Mock::seed(Round::Coverage(1, 1)).unwrap());
        let second = (2..=4).find(|id| host(*id) == turns[1]).unwrap();
        run_to_epoch(2, Schedule::TEST.grace_blocks - 1);
        let owes_after_a_fall = || {
            Convictions::<Test>::insert(1, &turns[0], Conviction { since: now(), answers: 1 });
            !undone(1, second, &[id.index]).is_empty()
        };
        assert!(owes_after_a_fall());
        run_to(now() + 1);
        assert!(!owes_after_a_fall());
    });
}

#[test]
fn what_nobody_verified_in_time_is_assigned_to_exactly_one() {
    build_and_execute(|| {
        let id = drawn_for(2, false);
        let index = id.index;
        run_to(1 + 2 * Schedule::TEST.coverage_blocks);
        assert!(CoverageMarks::<Test>::contains_key(1, 2));
        let seed = Mock::seed(Round::Coverage(1, 1)).unwrap();
        let assigned = turns(id, &seed)[0].clone();
        for verifier in 2..=4 {
            let expected = host(verifier) == assigned || drawn(verifier, 1, id, 0);
            assert_eq!(!undone(1, verifier, &[index]).is_empty(), expected);
        }
        let assigned = (2..=4).find(|id| host(*id) == assigned).unwrap();
        submit(assigned, id, good());
        assert!(undone(1, assigned, &[index]).is_empty());
        // A verdict after the close relieves nobody else of a drawn duty.
        for verifier in (2..=4).filter(|id| *id != assigned) {
            assert_eq!(!undone(1, verifier, &[index]).is_empty(), drawn(verifier, 1, id, 0));
        }
    });
}

#[test]
fn what_was_verified_in_time_or_is_trusted_is_not_assigned() {
    build_and_execute(|| {
        FrozenReputation::set([(host(2), PPM)].into());
        let trusted: Vec<_> = (0..20).map(|_| finished(2)).collect();
        let in_time: Vec<_> = (0..20).map(|_| finished(1)).collect();
        run_to(2 * Schedule::TEST.coverage_blocks);
        in_time.iter().for_each(|id| submit(4, *id, good()));
        run_to(1 + 2 * Schedule::TEST.coverage_blocks);
        let all: Vec<u32> = (0..40).collect();
        for verifier in [1, 3] {
            let due = |id: &&InferenceId| {
                let (executor, reputation) = if id.index < 20 { (2, PPM) } else { (1, 0) };
                executor != verifier && drawn(verifier, executor, **id, reputation)
            };
            let expected: Vec<u32> = trusted.iter().chain(&in_time).filter(due).map(|id| id.index).collect();
            assert_eq!(undone(1, verifier, &all), expected);
        }
    });
}

#[test]
fn while_a_panel_judges_only_its_members_owe_a_verdict() {
    build_and_execute(|| {
        // Drawn for host 4; host 2 accuses; host 3 is not drawn.
        let id = std::iter::repeat_with(|| finished(1))
            .find(|id| drawn(4, 1, *id, 0) && !drawn(3, 1, *id, 0))
            .unwrap();
        let owes = || [2, 3, 4].map(|verifier| !undone(1, verifier, &[id.index]).is_empty());
        assert_eq!(owes(), [false, false, true]);
        submit(2, id, bad());
        assert_eq!(owes(), [false, false, false], "nobody can say anything before the draw");
        run_to_boundary(1);
        assert_eq!(members(id, 0), [3, 4]);
        let votes = [3, 4].map(|verifier| sealed(verifier, id, 0, good()));
        assert_eq!(owes(), [false, false, false], "a claim need not wait for others' commitments");
        commit(3, &votes[0]);
        run_to_boundary(2);
        assert_eq!(owes(), [false, true, false], "who committed itself can reveal now");
        reveal(3, &votes[0]);
        assert_eq!(owes(), [false, false, false]);
        run_to_boundary(2);
        assert_eq!(owes(), [false, false, true], "host 4 was silent");
        // The second panel is drawn, and everybody keeps silent.
        run_to_boundary(1);
        assert_eq!(members(id, 1), [3, 4]);
        run_to_boundary(4);
        assert_eq!(state(id), starling_primitives::records::InferenceState::Valid);
        // Host 3 has given its verdict on the first panel; host 4 makes good for both.
        assert_eq!(owes(), [false, false, true]);
        submit(4, id, good());
        assert_eq!(owes(), [false, false, false]);
    });
}

#[test]
fn a_silent_member_owes_what_it_was_not_drawn_for() {
    build_and_execute(|| {
        let id = drawn_for(3, false);
        submit(2, id, bad());
        hear(id, &[(4, good())]);
        assert_eq!(state(id), starling_primitives::records::InferenceState::Valid, "40 of 70");
        assert!(undone(1, 3, &[id.index]).is_empty());
        run_to_boundary(2);
        assert_eq!(undone(1, 3, &[id.index]), [id.index]);
        submit(3, id, good());
        assert!(undone(1, 3, &[id.index]).is_empty());
    });
}
