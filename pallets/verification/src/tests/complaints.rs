//! Whose verdicts open disputes: who was wrong is heard less, who was right more.

use crate::{mock::*, ComplaintsOf, DisputeStatus, Disputes, Event, PrunedBefore, Refusal, Verdicts};
use starling_math::complaint::{Complaints, Ground, OPEN_AT_ONCE};
use starling_primitives::{verdict::Outcome, InferenceId};

fn complaints(verifier: u8, ground: Ground) -> Complaints {
    ComplaintsOf::<Test>::get(1, (host(verifier), ground))
}

fn is_disputed(id: InferenceId) -> bool {
    Disputes::<Test>::get(1, id.index).is_some_and(|dispute| dispute.status == DisputeStatus::Waiting)
}

/// Host 2 complains about an answer of host 1, and hosts 3 and 4 agree or not.
fn complain(outcome: Outcome, found: Outcome) -> InferenceId {
    let id = finished(1);
    submit(2, id, outcome);
    hear(id, &[(3, found), (4, found)]);
    id
}

#[test]
fn who_has_too_many_open_is_heard_when_they_are_decided() {
    build_and_execute(|| {
        let ids: Vec<_> = (0..OPEN_AT_ONCE).map(|_| finished(1)).collect();
        ids.iter().for_each(|id| submit(2, *id, bad()));
        assert!(ids.iter().all(|id| is_disputed(*id)));
        take_events();
        let next = finished(1);
        submit(2, next, bad());
        assert_eq!(last_refusal(), Some(Refusal::NotHeardYet));
        assert!(!Verdicts::<Test>::contains_key(1, (next.index, host(2))));
        // Others are heard, it is heard on another ground, and may say that an answer is good.
        submit(3, next, bad());
        let (hidden, fine) = (finished(1), finished(1));
        submit(2, hidden, Outcome::Unavailable);
        submit(2, fine, good());
        assert!(is_disputed(next) && is_disputed(hidden));
        assert!(Verdicts::<Test>::contains_key(1, (fine.index, host(2))));

        hear(ids[0], &[(3, bad()), (4, bad())]);
        let once_right = Complaints { open: OPEN_AT_ONCE - 1, upheld: 1, rejected: 0 };
        assert_eq!(complaints(2, Ground::Answer), once_right);
        let more: Vec<_> = (0..=OPEN_AT_ONCE).map(|_| finished(1)).collect();
        more.iter().for_each(|id| submit(2, *id, bad()));
        assert!(more.iter().all(|id| is_disputed(*id)));
        submit(2, finished(1), bad());
        assert_eq!(last_refusal(), Some(Refusal::NotHeardYet));
    });
}

#[test]
fn who_was_wrong_twice_opens_no_dispute_any_more() {
    build_and_execute(|| {
        let judged = [complain(bad(), good()), complain(bad(), good())];
        assert_eq!(complaints(2, Ground::Answer), Complaints { open: 0, upheld: 0, rejected: 2 });
        assert!(judged
            .iter()
            .all(|id| Disputes::<Test>::get(1, id.index).unwrap().status == DisputeStatus::Valid));
        take_events();
        let id = finished(1);
        submit(2, id, bad());
        // Its verdict is taken, and done is its duty.
        assert_eq!(take_events(), [Event::VerdictSubmitted { id, verifier: host(2), passed: false }]);
        assert!(Disputes::<Test>::get(1, id.index).is_none());
        // What it cannot get is another matter.
        let hidden = finished(1);
        submit(2, hidden, Outcome::Unavailable);
        assert!(is_disputed(hidden));
        // And anybody else is heard about the same answer.
        submit(3, id, bad());
        assert!(is_disputed(id));
    });
}

#[test]
fn an_executor_that_hides_from_one_verifier_does_not_silence_it() {
    build_and_execute(|| {
        for _ in 0..2 {
            complain(Outcome::Unavailable, good());
        }
        assert_eq!(complaints(2, Ground::Availability), Complaints { open: 0, upheld: 0, rejected: 2 });
        let hidden = finished(1);
        submit(2, hidden, Outcome::Unavailable);
        assert!(!is_disputed(hidden));
        let id = finished(1);
        submit(2, id, bad());
        assert!(is_disputed(id));
    });
}

#[test]
fn what_nobody_decides_counts_for_nothing() {
    build_and_execute(|| {
        // Silence twice: the answer stands without a majority.
        let id = finished(1);
        submit(2, id, bad());
        hear(id, &[]);
        hear(id, &[]);
        run_to_boundary(2);
        assert_eq!(Disputes::<Test>::get(1, id.index).unwrap().status, DisputeStatus::Valid);
        assert_eq!(complaints(2, Ground::Answer), Complaints::default());
    });
}

#[test]
fn an_answer_that_is_hidden_from_the_panel_too_proves_the_verifier_right() {
    build_and_execute(|| {
        complain(Outcome::Unavailable, Outcome::Unavailable);
        assert_eq!(complaints(2, Ground::Availability), Complaints { open: 0, upheld: 1, rejected: 0 });
    });
}

#[test]
fn complaints_are_pruned_with_their_epoch() {
    build_and_execute(|| {
        complain(bad(), bad());
        run_to_epoch(5, 20);
        assert!(PrunedBefore::<Test>::get() > 1);
        assert_eq!(ComplaintsOf::<Test>::iter().count(), 0);
    });
}
