//! What a panel's decision comes to, once; and what ends a dispute without one.

use crate::{mock::*, Convictions, DisputeStatus, Disputes, Event, Missed, OpenDisputes, Reputations};
use starling_math::dispute::Finding;
use starling_primitives::{
    records::InferenceState,
    schedule::Schedule,
    traits::{Duties, Reputation},
    verdict::Outcome,
    InferenceId,
};

fn status(id: InferenceId) -> Option<DisputeStatus> {
    Disputes::<Test>::get(id.epoch, id.index).map(|dispute| dispute.status)
}

#[test]
fn a_failing_verdict_opens_a_dispute_that_a_panel_decides() {
    build_and_execute(|| {
        // Host 2 accuses host 1: hosts 3 and 4 remain, 35 of their 70 are not enough.
        let id = finished(1);
        Reputations::<Test>::insert(host(1), 500_000);
        submit(2, id, bad());
        assert_eq!((state(id), status(id)), (InferenceState::Disputed, Some(DisputeStatus::Waiting)));
        assert_eq!(
            take_events(),
            [
                Event::VerdictSubmitted { id, verifier: host(2), passed: false },
                Event::DisputeOpened { id, accuser: host(2) },
            ]
        );
        run_to_boundary(1);
        assert_eq!(status(id), Some(DisputeStatus::Judging));
        assert_eq!(take_events().last(), Some(&Event::PanelDrawn { id, round: 0, size: 2 }));
        let votes =
            [(3, Outcome::ReplayFailed), (4, bad())].map(|(by, outcome)| (by, sealed(by, id, 0, outcome)));
        votes.iter().for_each(|(by, vote)| commit(*by, vote));
        reveal(3, &votes[0].1);
        assert_eq!(state(id), InferenceState::Disputed);
        take_events();
        reveal(4, &votes[1].1);
        assert_eq!((state(id), status(id)), (InferenceState::Invalid, Some(DisputeStatus::Invalid)));
        assert_eq!(Convicted::get(), [host(1)]);
        assert!(<Verification as Duties>::forfeits(1, &host(1)));
        assert!(!<Verification as Duties>::forfeits(2, &host(1)));
        assert_eq!(<Verification as Reputation>::reputation(&host(1)), 0);
        assert_eq!(
            take_events(),
            [
                Event::VerdictRevealed { id, round: 0, host: host(4), passed: false },
                Event::VerdictSubmitted { id, verifier: host(4), passed: false },
                Event::DisputeSettled { id, valid: false, decided: true },
                Event::ReputationChanged { host: host(1), reputation: 0 },
                Event::Convicted { host: host(1), epoch: 1, id },
            ]
        );
        // When the panel is over, nothing more comes of it.
        run_to_boundary(4);
        assert_eq!((Settled::get(), Convicted::get()), (vec![(id, false)], vec![host(1)]));
        assert_eq!(Missed::<Test>::iter().count(), 0);
    });
}

#[test]
fn the_majority_can_be_in_favour() {
    build_and_execute(|| {
        let id = finished(1);
        submit(2, id, bad());
        hear(id, &[(3, bad()), (4, good())]);
        assert_eq!((state(id), status(id)), (InferenceState::Valid, Some(DisputeStatus::Valid)));
        assert!(Convicted::get().is_empty());
        assert_eq!(OpenDisputes::<Test>::iter().count(), 0);
        // The accuser loses nothing: it may have been served other bytes.
        assert_eq!(Missed::<Test>::iter().count(), 0);
        // Disputed once, an answer is not disputed again.
        submit(3, finished(1), bad());
        assert_eq!(state(id), InferenceState::Valid);
    });
}

#[test]
fn deciding_again_changes_nothing() {
    for finding in [Finding::Valid, Finding::Hidden, Finding::Invalid] {
        build_and_execute(|| {
            let id = finished(1);
            Reputations::<Test>::insert(host(1), 500_000);
            submit(2, id, bad());
            let decide = |finding| {
                let dispute = Disputes::<Test>::get(1, id.index).unwrap();
                Verification::decide(id, &dispute, &host(1), finding)
            };
            assert!(!decide(Finding::Undecided));
            assert!(decide(finding));
            let after = |()| (Settled::get(), Convicted::get(), Missed::<Test>::get(1, host(1)));
            let (state, once) = (sp_io::storage::root(Default::default()), after(()));
            assert_eq!(once.0, [(id, finding == Finding::Valid)]);
            for again in [finding, Finding::Valid, Finding::Hidden, Finding::Invalid] {
                assert!(!decide(again));
            }
            assert_eq!((sp_io::storage::root(Default::default()), after(())), (state, once));
        });
    }
}

#[test]
fn without_majority_a_second_panel_is_drawn_and_then_the_answer_stands() {
    build_and_execute(|| {
        // Host 4 accuses host 1: hosts 2 and 3 remain. Host 2 alone has 20 of 50.
        let id = finished(1);
        submit(4, id, bad());
        hear(id, &[(2, bad())]);
        assert_eq!(status(id), Some(DisputeStatus::Judging));
        hear(id, &[(2, bad())]);
        assert_eq!(Disputes::<Test>::get(1, 0).unwrap().panels, 2);
        assert_eq!(status(id), Some(DisputeStatus::Judging));
        run_to_boundary(2);
        assert_eq!((state(id), status(id)), (InferenceState::Valid, Some(DisputeStatus::Valid)));
        assert!(take_events().contains(&Event::DisputeSettled { id, valid: true, decided: false }));
        assert!(Convicted::get().is_empty());
        // Host 3 was silent twice.
        assert_eq!([2, 3].map(|id| Missed::<Test>::get(1, host(id))), [0, 2]);
    });
}

#[test]
fn the_second_panel_can_decide() {
    build_and_execute(|| {
        let id = finished(1);
        submit(4, id, bad());
        hear(id, &[(2, bad())]);
        hear(id, &[(2, bad()), (3, bad())]);
        assert_eq!((state(id), Convicted::get()), (InferenceState::Invalid, vec![host(1)]));
        run_to_boundary(10);
        assert_eq!(Settled::get(), [(id, false)]);
    });
}

#[test]
fn where_nobody_remains_the_answer_stands() {
    build_and_execute(|| {
        let id = finished(1);
        submit(2, id, bad());
        Convicted::set(vec![host(3), host(4)]);
        run_to_boundary(1);
        assert_eq!(state(id), InferenceState::Valid);
        assert!(take_events().contains(&Event::DisputeSettled { id, valid: true, decided: false }));
    });
}

#[test]
fn a_dispute_ends_with_the_claims() {
    build_and_execute(|| {
        let (decided, open) = (finished(1), finished(1));
        run_to_epoch(2, Schedule::TEST.grace_blocks + 5);
        submit(2, decided, bad());
        hear(decided, &[(3, bad()), (4, bad())]);
        assert_eq!(state(decided), InferenceState::Invalid);
        run_to_epoch(2, 52);
        submit(2, open, bad());
        run_to_epoch(2, 59);
        let vote = sealed(4, open, 0, bad());
        commit(4, &vote);
        run_to_epoch(3, 1);
        take_events();
        reveal(4, &vote);
        assert_eq!(last_refusal(), Some(crate::Refusal::EpochClosed));
        run_to_boundary(4);
        assert_eq!((state(open), status(open)), (InferenceState::Valid, Some(DisputeStatus::Valid)));
        // Nobody has a miss who could not speak.
        assert_eq!(Missed::<Test>::iter().count(), 0);
    });
}

#[test]
fn a_block_works_off_a_bounded_part_of_the_agenda() {
    build_and_execute(|| {
        let ids: Vec<_> = (0..5).map(|_| finished(1)).collect();
        // One host has four at once at most.
        ids.iter().zip([2, 2, 2, 2, 3]).for_each(|(id, verifier)| submit(verifier, *id, bad()));
        run_to(Schedule::TEST.coverage_blocks);
        let judging = || ids.iter().filter(|id| status(**id) == Some(DisputeStatus::Judging)).count();
        let waiting = || ids.iter().filter(|id| status(**id) == Some(DisputeStatus::Waiting)).count();
        // The boundary is the next block; two disputes of two seats a block.
        for drawn in [2, 4, 5, 5] {
            run_to(now() + 1);
            assert_eq!(judging(), drawn);
            Verification::do_try_state().unwrap();
        }
        run_to(4 * Schedule::TEST.coverage_blocks + Schedule::TEST.coverage_blocks);
        for closed in [2, 4, 5, 5] {
            run_to(now() + 1);
            assert_eq!(waiting(), closed);
            Verification::do_try_state().unwrap();
        }
    });
}

#[test]
fn a_host_is_convicted_once_per_epoch() {
    build_and_execute(|| {
        for _ in 0..3 {
            let id = finished(1);
            submit(3, id, bad());
            hear(id, &[(2, bad()), (4, bad())]);
            assert_eq!(state(id), InferenceState::Invalid);
        }
        assert_eq!(Convicted::get(), [host(1)]);
        assert_eq!(Convictions::<Test>::get(1, host(1)).unwrap().answers, 3);
        run_to_epoch(2, 1);
        let id = finished(1);
        submit(3, id, bad());
        hear(id, &[(2, bad()), (4, bad())]);
        assert_eq!(Convicted::get(), [host(1), host(1)]);
    });
}

#[test]
fn hiding_the_evidence_of_a_disputed_answer_refunds_but_does_not_convict() {
    build_and_execute(|| {
        let id = finished(1);
        submit(2, id, bad());
        hear(id, &[(3, bad()), (4, Outcome::Unavailable)]);
        assert_eq!(state(id), InferenceState::Invalid);
        assert!(Convicted::get().is_empty());
        assert_eq!(Missed::<Test>::get(1, host(1)), 1);
    });
}

#[test]
fn a_transcript_that_the_panel_cannot_get_either_is_one_miss() {
    build_and_execute(|| {
        Reputations::<Test>::insert(host(1), 500_000);
        let id = finished(1);
        submit(4, id, Outcome::Unavailable);
        assert_eq!((state(id), Missed::<Test>::get(1, host(1))), (InferenceState::Disputed, 0));
        hear(id, &[(2, Outcome::Unavailable), (3, Outcome::Unavailable)]);
        assert_eq!(state(id), InferenceState::Invalid);
        assert_eq!(Missed::<Test>::get(1, host(1)), 1);
        assert_eq!(Reputations::<Test>::get(host(1)), 490_000);
        assert!(Convicted::get().is_empty());
    });
}

#[test]
fn who_alone_cannot_get_a_transcript_changes_nothing() {
    build_and_execute(|| {
        Reputations::<Test>::insert(host(1), 500_000);
        let id = finished(1);
        submit(4, id, Outcome::Unavailable);
        hear(id, &[(2, good()), (3, good())]);
        assert_eq!((state(id), Missed::<Test>::get(1, host(1))), (InferenceState::Valid, 0));
        assert_eq!(Reputations::<Test>::get(host(1)), 500_000);
    });
}
