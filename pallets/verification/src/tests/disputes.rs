use crate::{mock::*, Convictions, DisputeStatus, Disputes, Event, Missed, OpenDisputes, Reputations};
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
fn a_failing_verdict_opens_a_dispute_that_a_majority_decides() {
    build_and_execute(|| {
        // Of host 1: 90 may vote, more than 45 decide.
        let id = finished(1);
        Reputations::<Test>::insert(host(1), 500_000);
        submit(2, id, bad());
        assert_eq!(state(id), InferenceState::Disputed);
        assert_eq!(
            take_events(),
            [
                Event::VerdictSubmitted { id, verifier: host(2), passed: false },
                Event::DisputeOpened { id, accuser: host(2) },
            ]
        );
        submit(3, id, Outcome::ReplayFailed);
        assert_eq!(state(id), InferenceState::Invalid);
        assert_eq!(status(id), Some(DisputeStatus::Invalid));
        assert_eq!(Convicted::get(), [host(1)]);
        assert!(<Verification as Duties>::convicted(1, &host(1)));
        assert!(!<Verification as Duties>::convicted(2, &host(1)));
        assert_eq!(<Verification as Reputation>::reputation(&host(1)), 0);
        assert_eq!(
            take_events(),
            [
                Event::VerdictSubmitted { id, verifier: host(3), passed: false },
                Event::DisputeSettled { id, valid: false, decided: true },
                Event::ReputationChanged { host: host(1), reputation: 0 },
                Event::Convicted { host: host(1), epoch: 1, id },
            ]
        );
        // A vote after the decision is stored, and changes nothing.
        submit(4, id, good());
        assert_eq!(Settled::get(), [(id, false)]);
    });
}

#[test]
fn the_majority_can_be_in_favour() {
    build_and_execute(|| {
        let id = finished(1);
        submit(3, id, good());
        submit(2, id, bad());
        assert_eq!(status(id), Some(DisputeStatus::Open));
        submit(4, id, good());
        assert_eq!(state(id), InferenceState::Valid);
        assert!(Convicted::get().is_empty());
        assert_eq!(OpenDisputes::<Test>::iter().count(), 0);
    });
}

#[test]
fn one_verdict_decides_when_it_has_the_weight() {
    build_and_execute(|| {
        // Of host 3: 70 may vote, host 4 has 40.
        let id = finished(3);
        submit(4, id, bad());
        assert_eq!(state(id), InferenceState::Invalid);
        assert_eq!(Settled::get(), [(id, false)]);
    });
}

#[test]
fn half_is_no_majority() {
    build_and_execute(|| {
        // Of host 2: 80 may vote; 40 is half.
        let id = finished(2);
        submit(4, id, bad());
        submit(1, id, good());
        submit(3, id, good());
        assert_eq!(status(id), Some(DisputeStatus::Open));
        assert_eq!(state(id), InferenceState::Disputed);
    });
}

#[test]
fn without_majority_the_answer_stands_when_the_grace_ends() {
    build_and_execute(|| {
        let ids: Vec<_> = (0..5).map(|_| finished(1)).collect();
        ids.iter().for_each(|id| submit(2, *id, bad()));
        run_to_epoch(2, Schedule::TEST.grace_blocks - 1);
        assert!(Settled::get().is_empty());
        // Two a block.
        for settled in [2, 4, 5] {
            run_to(now() + 1);
            assert_eq!(Settled::get().len(), settled);
            Verification::do_try_state().unwrap();
        }
        assert!(ids.iter().all(|id| state(*id) == InferenceState::Valid));
        let last = Event::DisputeSettled { id: *ids.last().unwrap(), valid: true, decided: false };
        assert!(take_events().contains(&last));
        // Disputed once, an answer is not disputed again.
        submit(3, ids[0], bad());
        assert_eq!(state(ids[0]), InferenceState::Valid);
    });
}

#[test]
fn a_late_dispute_ends_with_the_claims() {
    build_and_execute(|| {
        let (decided, open) = (finished(1), finished(1));
        run_to_epoch(2, Schedule::TEST.grace_blocks + 5);
        submit(2, decided, bad());
        submit(2, open, bad());
        run_to_epoch(2, 59);
        submit(4, decided, bad());
        assert_eq!(state(decided), InferenceState::Invalid);
        assert_eq!(status(open), Some(DisputeStatus::Open));
        run_to(now() + 1);
        assert_eq!(status(open), Some(DisputeStatus::Valid));
    });
}

#[test]
fn a_host_is_convicted_once_per_epoch() {
    build_and_execute(|| {
        for _ in 0..3 {
            let id = finished(1);
            submit(3, id, bad());
            submit(4, id, bad());
            assert_eq!(state(id), InferenceState::Invalid);
        }
        assert_eq!(Convicted::get(), [host(1)]);
        assert_eq!(Convictions::<Test>::get(1, host(1)).unwrap().answers, 3);
        run_to_epoch(2, 1);
        let id = finished(1);
        submit(3, id, bad());
        submit(4, id, bad());
        assert_eq!(Convicted::get(), [host(1), host(1)]);
    });
}

#[test]
fn hiding_the_evidence_of_a_disputed_answer_refunds_but_does_not_convict() {
    build_and_execute(|| {
        let id = finished(1);
        submit(4, id, Outcome::Unavailable);
        assert_eq!(state(id), InferenceState::Finished);
        submit(2, id, bad());
        assert_eq!(state(id), InferenceState::Invalid);
        assert!(Convicted::get().is_empty());
        assert_eq!(Missed::<Test>::get(1, host(1)), 1);
    });
}

#[test]
fn a_transcript_that_most_cannot_get_is_one_miss() {
    build_and_execute(|| {
        Reputations::<Test>::insert(host(1), 500_000);
        let id = finished(1);
        submit(4, id, Outcome::Unavailable);
        assert_eq!(Missed::<Test>::get(1, host(1)), 0);
        submit(2, id, Outcome::Unavailable);
        submit(3, id, Outcome::Unavailable);
        assert_eq!(Missed::<Test>::get(1, host(1)), 1);
        assert_eq!(Reputations::<Test>::get(host(1)), 490_000);
        assert_eq!(state(id), InferenceState::Finished);
        let missed = Event::TranscriptMissed { id, executor: host(1) };
        assert_eq!(take_events().iter().filter(|event| **event == missed).count(), 1);
    });
}
