//! Who sits on a panel, and what its members can say when.

use crate::{mock::*, DisputeStatus, Disputes, Event, LastBoundary, Missed, Panels, Refusal, Verdicts};
use frame_support::dispatch::CheckIfFeeless;
use starling_math::panel::{self, Case};
use starling_primitives::{
    records::InferenceState,
    traits::{Beacon, Round, Weights},
    verdict::{Figures, Outcome, PanelCommit, PanelReveal},
    InferenceId,
};

/// A dispute that host 2 opened about an answer of host 1, before its draw.
fn disputed() -> InferenceId {
    let id = finished(1);
    submit(2, id, bad());
    id
}

fn refused(act: impl FnOnce()) -> Option<Refusal> {
    System::reset_events();
    act();
    last_refusal()
}

#[test]
fn a_panel_is_drawn_by_a_seed_that_is_later_than_the_accusation() {
    build_and_execute(|| {
        run_to_boundary(1);
        // After that boundary's seed, in the same block.
        let id = disputed();
        let opened = now();
        while !Panels::<Test>::contains_key(1, (id.index, 0)) {
            assert_eq!(Disputes::<Test>::get(1, id.index).unwrap().status, DisputeStatus::Waiting);
            run_to(now() + 1);
        }
        let drawn = Panels::<Test>::get(1, (id.index, 0)).unwrap();
        assert!(drawn.drawn_at == now() && drawn.drawn_at > opened);
        let boundary = LastBoundary::<Test>::get();
        assert_eq!((boundary.count, drawn.drawn), (2, 2));
        let seed = Mock::seed(Round::Coverage(boundary.epoch, boundary.window)).unwrap();
        let parties = [host(2), host(1)];
        let case = Case { request_id: &request_id(id), round: 0, parties: &parties };
        let expected = panel::draw(&seed, &case, &Mock::of_profile(1, PROFILE), 2, |_| true);
        let found: Vec<_> = drawn.members.iter().map(|member| (&member.host, member.weight)).collect();
        assert_eq!(found, expected.iter().map(|drawn| (&drawn.host, drawn.weight)).collect::<Vec<_>>());
    });
}

#[test]
fn neither_parties_nor_hosts_that_fell_sit_on_a_panel() {
    build_and_execute(|| {
        for (executor, accuser) in [(1, 2), (2, 1), (3, 4), (4, 1)] {
            let id = finished(executor);
            submit(accuser, id, bad());
            run_to_boundary(1);
            let others: Vec<u8> = (1..=4).filter(|other| ![executor, accuser].contains(other)).collect();
            assert_eq!(members(id, 0), others);
        }
        Convicted::set(vec![host(3)]);
        let id = disputed();
        run_to_boundary(1);
        assert_eq!(members(id, 0), [4]);
    });
}

#[test]
fn nobody_can_copy_a_verdict() {
    build_and_execute(|| {
        let id = disputed();
        let (mine, copied) = (sealed(3, id, 0, bad()), sealed(4, id, 0, good()));
        assert_eq!(refused(|| commit(3, &mine)), Some(Refusal::NotOnPanel), "it is not drawn");
        run_to_boundary(1);
        assert_eq!(refused(|| reveal(3, &mine)), Some(Refusal::WrongStage));
        assert_eq!(refused(|| commit(3, &mine)), None);
        assert_eq!(refused(|| commit(3, &mine)), Some(Refusal::Duplicate), "it is for good");
        assert_eq!(refused(|| reveal(3, &mine)), Some(Refusal::WrongStage), "host 4 could still commit");
        assert_eq!(refused(|| commit(2, &sealed(2, id, 0, bad()))), Some(Refusal::NotOnPanel));
        assert_eq!(refused(|| commit(1, &sealed(1, id, 0, good()))), Some(Refusal::NotOnPanel));
        assert_eq!(refused(|| commit(4, &sealed(4, id, 1, good()))), Some(Refusal::NotOnPanel));
        // Host 4 commits to what host 3 has committed to, and cannot open it with what host 3 reveals.
        let commitment = mine.commitment(&host(3));
        let stolen = vec![PanelCommit { inference: id, round: 0, commitment }].try_into().unwrap();
        Verification::commit_verdicts(worker(4), stolen).unwrap();
        assert_eq!(refused(|| reveal(3, &mine)), None, "everybody has committed");
        for attempt in [mine, copied, PanelReveal { outcome: bad(), ..copied }] {
            assert_eq!(refused(|| reveal(4, &attempt)), Some(Refusal::OtherCommitment));
        }
        // Nor does host 3 take back what it has said.
        assert_eq!(refused(|| reveal(3, &mine)), Some(Refusal::Duplicate));
        assert_eq!(state(id), InferenceState::Disputed);
    });
}

#[test]
fn stages_end_in_time() {
    build_and_execute(|| {
        let id = disputed();
        run_to_boundary(1);
        let (early, late) = (sealed(3, id, 0, good()), sealed(4, id, 0, good()));
        commit(3, &early);
        run_to_boundary(2);
        assert_eq!(refused(|| commit(4, &late)), Some(Refusal::WrongStage));
        assert_eq!(refused(|| reveal(4, &late)), Some(Refusal::NotCommitted));
        run_to_boundary(2);
        assert_eq!(refused(|| reveal(3, &early)), Some(Refusal::WrongStage));
        assert_eq!([3, 4].map(|silent| Missed::<Test>::get(1, host(silent))), [1, 1]);
    });
}

#[test]
fn who_declared_to_be_down_is_drawn_for_no_panel_and_keeps_silent_without_a_miss() {
    build_and_execute(|| {
        let id = disputed();
        Away::set(vec![host(3)]);
        run_to_boundary(1);
        let panel = Panels::<Test>::get(1, (id.index, 0)).expect("it is drawn");
        assert!(panel.member(&host(3)).is_none() && panel.member(&host(4)).is_some());
        Away::set(vec![host(4)]);
        run_to_boundary(4);
        assert_eq!([3, 4].map(|silent| Missed::<Test>::get(1, host(silent))), [0, 0]);
    });
}

#[test]
fn a_reveal_is_judged_as_a_verdict_is() {
    build_and_execute(|| {
        let id = disputed();
        run_to_boundary(1);
        let outcome = Outcome::Measured(Figures { tokens: TOKENS + 1, distance_sum: 0, margin_sum: 0 });
        let (foreign, fine) = (sealed(3, id, 0, outcome), sealed(4, id, 0, good()));
        commit(3, &foreign);
        commit(4, &fine);
        assert_eq!(refused(|| reveal(3, &foreign)), Some(Refusal::BadFigures));
        reveal(4, &fine);
        assert_eq!(state(id), InferenceState::Valid);
        assert_eq!(Verdicts::<Test>::get(1, (id.index, host(3))), None);
        // What never counts is silence.
        run_to_boundary(4);
        assert_eq!([3, 4].map(|silent| Missed::<Test>::get(1, host(silent))), [1, 0]);
    });
}

#[test]
fn a_reveal_is_its_hosts_verdict_unless_there_is_one() {
    build_and_execute(|| {
        let id = finished(1);
        submit(3, id, good());
        submit(2, id, bad());
        hear(id, &[(3, bad()), (4, bad())]);
        assert_eq!((state(id), Convicted::get()), (InferenceState::Invalid, vec![host(1)]));
        let outcome = |verifier| Verdicts::<Test>::get(1, (id.index, host(verifier))).unwrap().outcome;
        assert_eq!((outcome(3), outcome(4)), (good(), bad()));
    });
}

#[test]
fn nothing_is_said_openly_while_a_panel_judges() {
    build_and_execute(|| {
        let id = disputed();
        assert_eq!(refused(|| submit(4, id, good())), Some(Refusal::Disputed));
        run_to_boundary(1);
        assert_eq!(refused(|| submit(4, id, good())), Some(Refusal::Disputed));
        hear_now(id);
        // Afterwards it may be, and decides nothing.
        assert_eq!(state(id), InferenceState::Valid);
        run_to_boundary(4);
        assert_eq!(refused(|| submit(3, id, bad())), None);
        assert_eq!(Settled::get(), [(id, true)]);
    });
}

/// Host 4 alone decides the panel that is at work.
fn hear_now(id: InferenceId) {
    let vote = sealed(4, id, 0, good());
    commit(4, &vote);
    run_to_boundary(2);
    reveal(4, &vote);
}

#[test]
fn silence_after_the_decision_is_silence() {
    build_and_execute(|| {
        let id = disputed();
        run_to_boundary(1);
        let (decides, follows) = (sealed(4, id, 0, good()), sealed(3, id, 0, bad()));
        commit(4, &decides);
        commit(3, &follows);
        reveal(4, &decides);
        assert_eq!(state(id), InferenceState::Valid);
        // It is not needed any more, and still its duty.
        assert_eq!(refused(|| reveal(3, &follows)), None);
        run_to_boundary(4);
        assert_eq!(Missed::<Test>::iter().count(), 0);
        assert_eq!(Settled::get(), [(id, true)]);
    });
}

#[test]
fn members_speak_free_of_fees_and_nobody_else_does() {
    build_and_execute(|| {
        let id = disputed();
        run_to_boundary(1);
        let vote = |by| sealed(by, id, 0, good());
        let commit_call = |by| {
            let commitment = vote(by).commitment(&host(by));
            let items = vec![PanelCommit { inference: id, round: 0, commitment }].try_into().unwrap();
            crate::Call::<Test>::commit_verdicts { items }
        };
        let reveal_call =
            |by| crate::Call::<Test>::reveal_verdicts { items: vec![vote(by)].try_into().unwrap() };
        let free = |call: crate::Call<Test>, by| call.is_feeless(&worker(by));
        assert_eq!([1, 2, 3, 4, 5].map(|by| free(commit_call(by), by)), [false, false, true, true, false]);
        assert!(!commit_call(3).is_feeless(&RuntimeOrigin::signed(host(3))), "not by the cold key");
        assert!(!free(reveal_call(3), 3), "not before its time");
        commit(3, &vote(3));
        commit(4, &vote(4));
        assert!(!free(commit_call(3), 3), "not twice");
        assert_eq!([3, 4].map(|by| free(reveal_call(by), by)), [true, true]);
        assert!(!free(reveal_call(3), 4));
        let nothing = crate::Call::<Test>::reveal_verdicts { items: Default::default() };
        assert!(!free(nothing, 3));
        reveal(3, &vote(3));
        assert!(!free(reveal_call(3), 3));
        assert!(take_events().iter().all(|event| !matches!(event, Event::VerdictRefused { .. })));
    });
}
