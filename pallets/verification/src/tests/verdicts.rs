use crate::{mock::*, Error, Event, Refusal, VerdictRecord, Verdicts};
use frame_support::{assert_noop, dispatch::CheckIfFeeless};
use starling_primitives::{
    records::InferenceState,
    traits::Inferences,
    verdict::{Figures, Outcome, Verdict},
    InferenceId,
};

fn refusal(verifier: u8, id: InferenceId, outcome: Outcome) -> Option<Refusal> {
    System::reset_events();
    submit(verifier, id, outcome);
    last_refusal()
}

#[test]
fn a_verdict_is_judged_stored_and_noted() {
    build_and_execute(|| {
        let id = finished(1);
        run_to(4);
        submit(2, id, good());
        let stored = VerdictRecord { outcome: good(), passed: true, at: 4 };
        assert_eq!(Verdicts::<Test>::get(1, (0, host(2))), Some(stored));
        assert_eq!(Mock::record(id).unwrap().first_verdict_at, Some(4));
        assert_eq!(take_events(), [Event::VerdictSubmitted { id, verifier: host(2), passed: true }]);
        run_to(6);
        submit(4, id, good());
        assert_eq!(Mock::record(id).unwrap().first_verdict_at, Some(4));
    });
}

#[test]
fn who_may_judge_what() {
    build_and_execute(|| {
        let running = started(1);
        let done = finished(1);
        let nothing = InferenceId { epoch: 1, index: 9 };
        assert_eq!(refusal(2, running, good()), Some(Refusal::NotFinished));
        assert_eq!(refusal(2, nothing, good()), Some(Refusal::UnknownInference));
        assert_eq!(refusal(1, done, good()), Some(Refusal::OwnInference));
        assert_eq!(refusal(5, done, good()), Some(Refusal::NotServing));
        assert_eq!(refusal(2, done, good()), None);
        assert_eq!(refusal(2, done, good()), Some(Refusal::Duplicate));
        assert_eq!(refusal(2, done, bad()), Some(Refusal::Duplicate));
        assert_eq!(refusal(2, InferenceId { epoch: 2, index: 0 }, good()), Some(Refusal::EpochClosed));
        change(done, |record| record.profile = 7);
        assert_eq!(refusal(3, done, good()), Some(Refusal::NotServing));
        change(done, |record| record.profile = PROFILE);
    });
}

#[test]
fn only_workers_submit_and_they_submit_free_of_fees() {
    build_and_execute(|| {
        let items: crate::types::VerdictBatch =
            vec![Verdict { inference: finished(1), outcome: good() }].try_into().unwrap();
        let cold = RuntimeOrigin::signed(host(2));
        assert_noop!(Verification::submit_verdicts(cold.clone(), items.clone()), Error::<Test>::NotAWorker);
        let call = crate::Call::<Test>::submit_verdicts { items };
        assert!(call.is_feeless(&worker(2)));
        assert!(!call.is_feeless(&cold));
        assert!(!crate::Call::<Test>::submit_verdicts { items: Default::default() }.is_feeless(&worker(2)));
    });
}

#[test]
fn figures_must_belong_to_the_transcript() {
    build_and_execute(|| {
        let id = finished(1);
        let check = |tokens, distance_sum, margin_sum| {
            let outcome = Outcome::Measured(Figures { tokens, distance_sum, margin_sum });
            assert_eq!(refusal(2, id, outcome), Some(Refusal::BadFigures));
        };
        check(0, 0, 0);
        check(TOKENS + 1, 0, 0);
        check(TOKENS, 2_048 * 100 + 1, 0);
        check(TOKENS, 0, 4_096 * 100 + 1);
        check(TOKENS, u64::MAX, u64::MAX);
    });
}

#[test]
fn a_bad_item_does_not_fail_the_batch() {
    build_and_execute(|| {
        let (own, other) = (finished(2), finished(1));
        let verdict = |inference| Verdict { inference, outcome: good() };
        let items = vec![verdict(own), verdict(other), verdict(other)].try_into().unwrap();
        Verification::submit_verdicts(worker(2), items).unwrap();
        assert_eq!(
            take_events(),
            [
                Event::VerdictRefused { id: own, reason: Refusal::OwnInference },
                Event::VerdictSubmitted { id: other, verifier: host(2), passed: true },
                Event::VerdictRefused { id: other, reason: Refusal::Duplicate },
            ]
        );
    });
}

#[test]
fn verdicts_are_taken_until_the_claims_end() {
    build_and_execute(|| {
        let (first, second) = (finished(1), finished(1));
        run_to_epoch(2, 59);
        assert_eq!(refusal(2, first, good()), None);
        run_to(now() + 1);
        assert_eq!(refusal(2, second, good()), Some(Refusal::EpochClosed));
    });
}

#[test]
fn unavailable_can_be_replaced_by_what_was_measured() {
    build_and_execute(|| {
        let id = finished(1);
        assert_eq!(refusal(2, id, Outcome::Unavailable), None);
        assert_eq!(refusal(2, id, Outcome::Unavailable), Some(Refusal::Duplicate));
        // While the panel looks for it nothing is said openly.
        assert_eq!(refusal(2, id, good()), Some(Refusal::Disputed));
        hear(id, &[(3, good()), (4, good())]);
        assert_eq!(state(id), InferenceState::Valid);
        assert_eq!(refusal(2, id, good()), None);
        assert_eq!(refusal(2, id, Outcome::Unavailable), Some(Refusal::Duplicate));
    });
}
