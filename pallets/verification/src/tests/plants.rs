//! Planted transcripts: who may reveal one, what that does, and who answers for it.

use crate::{
    mock::*, ApproversOf, DisputeStatus, Disputes, Error, Event, Missed, Negligences, OpenDisputes, Plants,
    Refusal, Reputations, Verdicts,
};
use frame_support::{assert_noop, assert_ok, dispatch::CheckIfFeeless};
use sp_core::{sr25519, Pair};
use sp_runtime::MultiSignature;
use starling_math::{
    panel::{COMMIT_WINDOWS, REVEAL_WINDOWS},
    plant::{CONTEST_WINDOWS, FIRST_ROUND},
};
use starling_primitives::{
    plant::{commitment, Consent},
    records::InferenceState,
    traits::{Duties, Inferences, Reputation},
    verdict::Outcome,
    AccountId, InferenceId, RequestId, H256, PPM,
};

/// What opens every commitment.
const SALT: H256 = H256::repeat_byte(9);

fn asker() -> sr25519::Pair {
    sr25519::Pair::from_seed(&[77; 32])
}

fn consent(pair: &sr25519::Pair, request: &RequestId) -> Consent {
    let genesis = System::block_hash(0);
    let signature = pair.sign(Consent::signing_hash(&genesis, request).as_bytes());
    Consent { signer: pair.public().into(), signature: MultiSignature::Sr25519(signature) }
}

/// The place of the next inference of this epoch.
pub(super) fn next() -> InferenceId {
    let epoch = Current::get().index;
    InferenceId { epoch, index: Mock::count(epoch) }
}

pub(super) fn commit_to(planter: u8, id: InferenceId) {
    assert_ok!(Verification::commit_plant(worker(planter), commitment(request_id(id), SALT)));
}

/// An answer of a host to a request of its own client, to which it committed itself the block before.
pub(super) fn planted(planter: u8) -> InferenceId {
    let id = next();
    commit_to(planter, id);
    run_to(now() + 1);
    assert_eq!(next(), id);
    asked(planter)
}

/// An answer of a host to a request of the same client.
pub(super) fn asked(executor: u8) -> InferenceId {
    let id = finished(executor);
    change(id, |record| record.client = asker().public().into());
    id
}

pub(super) fn uncover(planter: u8, id: InferenceId) -> Result<(), sp_runtime::DispatchError> {
    let consent = consent(&asker(), &request_id(id));
    Verification::reveal_plant(worker(planter), id, SALT, consent).map(drop).map_err(|error| error.error)
}

fn contest(by: u8, id: InferenceId) {
    assert_ok!(Verification::contest_plant(worker(by), id));
}

fn status(id: InferenceId) -> DisputeStatus {
    Disputes::<Test>::get(id.epoch, id.index).unwrap().status
}

fn is_negligent(id: u8) -> bool {
    (0..=Current::get().index).any(|epoch| Negligences::<Test>::contains_key(epoch, host(id)))
}

/// A plant of host 1 that host 2 approved; hosts 2 to 4 have full reputation.
fn approved() -> InferenceId {
    (1..=4).for_each(|id| Reputations::<Test>::insert(host(id), PPM));
    let id = planted(1);
    submit(2, id, good());
    assert_ok!(uncover(1, id));
    id
}

#[test]
fn who_approves_a_plant_is_negligent() {
    build_and_execute(|| {
        let id = approved();
        assert_eq!(state(id), InferenceState::Planted);
        assert_eq!((status(id), OpenDisputes::<Test>::get(1)), (DisputeStatus::Planted, 1));
        assert_eq!(Settled::get(), [(id, false)], "the client is paid back at once");
        run_to_boundary(CONTEST_WINDOWS);
        assert!(!is_negligent(2), "the windows for a contest are whole");
        System::reset_events();
        run_to_boundary(1);
        assert_eq!((status(id), OpenDisputes::<Test>::get(1)), (DisputeStatus::Invalid, 0));
        assert_eq!(Negligences::<Test>::get(1, host(2)), Some(id));
        let expected = Event::Negligent { host: host(2), epoch: 1, id };
        assert!(take_events().contains(&expected));
        assert!(<Verification as Duties>::forfeits(1, &host(2)), "its due of the epoch is lost");
        assert_eq!(Verification::reputation(&host(2)), 0);
        assert!(ApproversOf::<Test>::iter().next().is_none());
        // It is neither suspended, nor does it bring the planter anything.
        assert!(Convicted::get().is_empty());
        assert_eq!(Verification::reputation(&host(1)), PPM);
        assert_eq!(BondOf::get().get(&host(2)), Some(&ENDOWMENT));
        for other in [1, 3, 4] {
            assert!(!<Verification as Duties>::forfeits(1, &host(other)));
        }
        // Neither of the epochs is a clean one for it.
        Verification::on_clean_epoch(&host(2), 1);
        assert_eq!(Verification::reputation(&host(2)), 0);
    });
}

#[test]
fn a_host_is_negligent_once_an_epoch() {
    build_and_execute(|| {
        let ids = [planted(1), planted(3)];
        ids.iter().for_each(|id| submit(2, *id, good()));
        assert_ok!(uncover(1, ids[0]));
        assert_ok!(uncover(3, ids[1]));
        run_to_boundary(CONTEST_WINDOWS + 1);
        assert!(Negligences::<Test>::get(1, host(2)).is_some_and(|id| ids.contains(&id)));
        assert_eq!(Missed::<Test>::get(1, host(2)), 1);
        let negligent = |event: &&Event<Test>| matches!(event, Event::Negligent { .. });
        assert_eq!(take_events().iter().filter(negligent).count(), 1);
    });
}

#[test]
fn without_approvers_a_plant_is_over_at_once() {
    build_and_execute(|| {
        let id = planted(1);
        submit(2, id, Outcome::Unavailable);
        run_to_boundary(1);
        assert_ok!(uncover(1, id));
        assert_eq!((status(id), OpenDisputes::<Test>::get(1)), (DisputeStatus::Invalid, 0));
        assert_noop!(Verification::contest_plant(worker(2), id), Error::<Test>::NotContestable);
        run_to_epoch(3, 1);
        assert!(Negligences::<Test>::iter().next().is_none());
        assert!((1..=4).all(|id| Missed::<Test>::get(1, host(id)) == 0));
    });
}

#[test]
fn a_reveal_ends_a_dispute_and_its_accuser_was_right() {
    build_and_execute(|| {
        let id = planted(1);
        submit(4, id, good());
        submit(2, id, bad());
        run_to_boundary(1);
        assert_eq!(members(id, 0), [3, 4]);
        commit(3, &sealed(3, id, 0, bad()));
        assert_ok!(uncover(1, id));
        assert_eq!(refused(|| reveal(3, &sealed(3, id, 0, bad()))), Some(Refusal::NotOnPanel));
        assert_eq!(refused(|| submit(3, id, bad())), Some(Refusal::Planted), "nobody has to look any more");
        let expected = Disputes::<Test>::get(1, id.index).unwrap();
        assert_eq!((expected.accuser, expected.panels), (Some(host(2)), FIRST_ROUND));
        run_to_epoch(2, 30);
        assert_eq!(status(id), DisputeStatus::Invalid);
        assert!(is_negligent(4) && !is_negligent(2) && !is_negligent(3));
        assert!(Missed::<Test>::get(1, host(3)) == 0, "nobody owes a dissolved panel anything");
        assert!(<Verification as Duties>::undone(1, &host(3), &H256::zero(), &[id.index]).is_empty());
        assert!(Convicted::get().is_empty());
    });
}

fn refused(act: impl FnOnce()) -> Option<Refusal> {
    System::reset_events();
    act();
    last_refusal()
}

#[test]
fn a_false_plant_convicts_its_planter() {
    build_and_execute(|| {
        let id = approved();
        contest(2, id);
        assert_eq!(status(id), DisputeStatus::Waiting);
        hear(id, &[(3, good()), (4, good())]);
        assert_eq!(status(id), DisputeStatus::Valid);
        assert_eq!(Convicted::get(), [host(1)]);
        assert_eq!(Verification::reputation(&host(1)), 0);
        assert!(<Verification as Duties>::forfeits(1, &host(1)));
        run_to_epoch(2, 30);
        assert!(!is_negligent(2));
        assert_eq!(Convicted::get(), [host(1)], "once");
        assert_eq!(Verification::reputation(&host(2)), PPM);
        // The client has been paid back, once.
        assert_eq!((state(id), Settled::get()), (InferenceState::Planted, vec![(id, false)]));
    });
}

#[test]
fn a_contest_of_a_true_plant_changes_nothing() {
    build_and_execute(|| {
        let id = approved();
        contest(2, id);
        hear(id, &[(3, bad()), (4, Outcome::ReplayFailed)]);
        assert_eq!(status(id), DisputeStatus::Invalid);
        run_to_boundary(COMMIT_WINDOWS + REVEAL_WINDOWS + 1);
        assert!(is_negligent(2) && Convicted::get().is_empty());
        assert_eq!(Missed::<Test>::get(1, host(1)), 0);
    });
}

#[test]
fn approvers_and_the_planter_sit_on_no_panel_about_it() {
    build_and_execute(|| {
        let id = planted(1);
        submit(2, id, good());
        submit(3, id, good());
        assert_ok!(uncover(1, id));
        contest(3, id);
        run_to_boundary(1);
        assert_eq!(members(id, FIRST_ROUND), [4]);
        // The panel of the approvers' own would be empty: nothing happens to anybody.
        let id = planted(4);
        (1..=3).for_each(|approver| submit(approver, id, good()));
        assert_ok!(uncover(4, id));
        contest(1, id);
        run_to_boundary(1);
        assert_eq!(status(id), DisputeStatus::Valid);
        run_to_epoch(2, 30);
        assert!(Convicted::get().is_empty() && !is_negligent(1));
        assert_eq!(Missed::<Test>::get(1, host(4)), 2, "it kept silent on both panels about the other one");
    });
}

#[test]
fn without_majority_nothing_happens_to_anybody() {
    build_and_execute(|| {
        let id = approved();
        contest(2, id);
        hear(id, &[(3, bad())]);
        assert_eq!(status(id), DisputeStatus::Judging, "three of seven are no majority");
        run_to_boundary(1);
        hear(id, &[(3, good())]);
        run_to_boundary(COMMIT_WINDOWS + REVEAL_WINDOWS);
        assert_eq!(Disputes::<Test>::get(1, id.index).unwrap().panels, FIRST_ROUND + 2);
        assert_eq!(status(id), DisputeStatus::Valid);
        assert!(!is_negligent(2) && Convicted::get().is_empty());
        assert_eq!((1..=4).map(|id| Missed::<Test>::get(1, host(id))).collect::<Vec<_>>(), [0, 0, 0, 2]);
    });
}

#[test]
fn a_planter_that_hides_its_transcript_has_a_miss() {
    build_and_execute(|| {
        let id = approved();
        contest(2, id);
        hear(id, &[(3, Outcome::Unavailable), (4, Outcome::Unavailable)]);
        run_to_epoch(2, 30);
        assert_eq!(status(id), DisputeStatus::Valid);
        assert_eq!(Missed::<Test>::get(1, host(1)), 1);
        assert!(!is_negligent(2) && Convicted::get().is_empty());
    });
}

#[test]
fn only_an_approver_contests_and_only_once() {
    build_and_execute(|| {
        let id = planted(1);
        submit(2, id, good());
        submit(3, id, Outcome::Unavailable);
        assert_noop!(Verification::contest_plant(worker(2), id), Error::<Test>::NotContestable);
        run_to_boundary(1);
        // The dispute that host 3 opened is over by the reveal.
        assert_ok!(uncover(1, id));
        for other in [1, 3, 4] {
            let refused = Verification::contest_plant(worker(other), id);
            assert_eq!(refused, Err(Error::<Test>::NotAnApprover.into()));
        }
        let call = crate::Call::<Test>::contest_plant { inference: id };
        assert!(call.is_feeless(&worker(2)) && !call.is_feeless(&worker(3)));
        contest(2, id);
        assert!(!call.is_feeless(&worker(2)));
        assert_noop!(Verification::contest_plant(worker(2), id), Error::<Test>::NotContestable);
    });
}

#[test]
fn one_plant_for_each_host_and_epoch_with_weight() {
    build_and_execute(|| {
        let call = crate::Call::<Test>::commit_plant { commitment: H256::zero() };
        assert!(call.is_feeless(&worker(1)) && !call.is_feeless(&worker(5)));
        let commit = |by| Verification::commit_plant(worker(by), H256::zero());
        assert_noop!(commit(5), Error::<Test>::NoWeight);
        assert_noop!(
            Verification::commit_plant(RuntimeOrigin::signed(client()), H256::zero()),
            Error::<Test>::NotAWorker
        );
        assert_ok!(commit(1));
        assert_noop!(commit(1), Error::<Test>::AlreadyCommitted);
        assert!(!call.is_feeless(&worker(1)));
        run_to_epoch(2, 1);
        assert_ok!(commit(1));
    });
}

#[test]
fn what_makes_no_plant() {
    build_and_execute(|| {
        let mine = consent(&asker(), &request_id(next()));
        let reveal = |by: u8, id, salt, consent: &Consent| {
            Verification::reveal_plant(worker(by), id, salt, consent.clone()).map(drop).map_err(|e| e.error)
        };
        let id = next();
        asked(1);
        assert_eq!(reveal(1, id, SALT, &mine), Err(Error::<Test>::NotCommitted.into()));
        commit_to(1, id);
        assert_eq!(
            reveal(1, id, SALT, &mine),
            Err(Error::<Test>::CommittedTooLate.into()),
            "in the same block"
        );
        run_to(now() + 1);
        let unknown = InferenceId { index: 9, ..id };
        assert_eq!(reveal(1, unknown, SALT, &mine), Err(Error::<Test>::UnknownInference.into()));
        change(id, |record| record.started_at = now());
        commit_to(2, id);
        assert_eq!(reveal(2, id, SALT, &mine), Err(Error::<Test>::OtherExecutor.into()));
        assert_eq!(reveal(1, id, H256::zero(), &mine), Err(Error::<Test>::OtherCommitment.into()));
        assert_eq!(reveal(5, id, SALT, &mine), Err(Error::<Test>::NotCommitted.into()));

        // Whoever asked has to agree, to this request.
        let no_consent = Err(Error::<Test>::NoConsent.into());
        let other = sr25519::Pair::from_seed(&[78; 32]);
        assert_eq!(reveal(1, id, SALT, &consent(&other, &request_id(id))), no_consent);
        assert_eq!(reveal(1, id, SALT, &consent(&asker(), &request_id(unknown))), no_consent);
        let borrowed = Consent { signer: mine.signer.clone(), ..consent(&other, &request_id(id)) };
        assert_eq!(reveal(1, id, SALT, &borrowed), no_consent);

        for (state, error) in [
            (InferenceState::Expired, Error::<Test>::NotFinished),
            (InferenceState::Started, Error::<Test>::NotFinished),
            (InferenceState::Valid, Error::<Test>::AlreadyJudged),
            (InferenceState::Invalid, Error::<Test>::AlreadyFallen),
        ] {
            change(id, |record| record.state = state);
            assert_eq!(reveal(1, id, SALT, &mine), Err(error.into()));
        }
        change(id, |record| record.state = InferenceState::Delivered);

        // The key that signed the request for the client may agree for it.
        let call = |consent: &Consent| crate::Call::<Test>::reveal_plant {
            inference: id,
            salt: SALT,
            consent: consent.clone(),
        };
        let delegated = consent(&other, &request_id(id));
        assert!(!call(&delegated).is_feeless(&worker(1)) && call(&mine).is_feeless(&worker(1)));
        change(id, |record| record.delegate = Some(other.public().into()));
        assert!(call(&delegated).is_feeless(&worker(1)));
        assert_ok!(reveal(1, id, SALT, &delegated));
        assert_eq!(reveal(1, id, SALT, &delegated), Err(Error::<Test>::AlreadyRevealed.into()), "once");
        assert!(!call(&delegated).is_feeless(&worker(1)));
    });
}

#[test]
fn a_plant_is_revealed_as_long_as_verdicts_are_taken() {
    build_and_execute(|| {
        let (early, late) = (planted(1), planted(2));
        submit(3, early, good());
        submit(3, late, good());
        run_to_epoch(2, 59);
        // Its due of the first epoch may be paid by now: it loses that of the running one.
        assert_ok!(uncover(1, early));
        run_to_epoch(3, 1);
        assert_eq!(uncover(2, late), Err(Error::<Test>::EpochClosed.into()));
        assert_eq!(status(early), DisputeStatus::Planted);
        run_to_epoch(3, 20);
        assert_eq!(Negligences::<Test>::get(3, host(3)), Some(early));
        assert!(!<Verification as Duties>::forfeits(1, &host(3)));
    });
}

#[test]
fn a_contest_that_no_panel_has_time_for_harms_nobody() {
    build_and_execute(|| {
        let id = planted(1);
        submit(3, id, good());
        run_to_epoch(2, 59);
        assert_ok!(uncover(1, id));
        contest(3, id);
        run_to_epoch(3, 40);
        assert_eq!(status(id), DisputeStatus::Valid);
        assert!(!is_negligent(3) && Convicted::get().is_empty());
        assert!((1..=4).all(|id| Missed::<Test>::get(1, host(id)) == 0));
    });
}

#[test]
fn a_plant_cannot_be_proven_a_fraud_afterwards() {
    use super::fraud::lie;
    build_and_execute(|| {
        let answer = lie(1, 3);
        let proof = answer.proof(answer.window(0));
        assert!(Verification::fraud(&proof).is_some());
        let request = Mock::record(answer.id).unwrap().request_id;
        assert_ok!(Verification::commit_plant(worker(1), commitment(request, SALT)));
        run_to(now() + 1);
        change(answer.id, |record| {
            record.started_at = now();
            record.client = AccountId::from(asker().public());
        });
        let consent = consent(&asker(), &request);
        assert_ok!(Verification::reveal_plant(worker(1), answer.id, SALT, consent));
        assert_noop!(Verification::prove_fraud(worker(2), proof), Error::<Test>::AlreadyFallen);
        assert!(Convicted::get().is_empty());
    });
}

#[test]
fn approvers_answer_in_bounded_steps() {
    build_and_execute(|| {
        let id = approved();
        // More than a block looks at.
        let many: Vec<_> = (10..60).map(host).collect();
        let verdict = Verdicts::<Test>::get(1, (id.index, host(2))).unwrap();
        for approver in &many {
            Verdicts::<Test>::insert(1, (id.index, approver), verdict);
        }
        ApproversOf::<Test>::insert(1, id.index, crate::types::Approvers::truncate_from(many));
        Verification::do_try_state().unwrap();
        run_to_boundary(CONTEST_WINDOWS + 1);
        let found = || Negligences::<Test>::iter_prefix(1).count();
        for so_far in [20, 40, 50, 50] {
            assert_eq!(found(), so_far);
            Verification::do_try_state().unwrap();
            run_to(now() + 1);
        }
        assert_eq!(status(id), DisputeStatus::Invalid);
    });
}

#[test]
fn plants_are_pruned_with_their_epoch() {
    build_and_execute(|| {
        let id = approved();
        run_to_boundary(CONTEST_WINDOWS + 1);
        assert!(is_negligent(2) && Verdicts::<Test>::contains_key(1, (id.index, host(2))));
        run_to_epoch(4, 50);
        assert_eq!(Plants::<Test>::iter().count(), 0);
        assert_eq!(Negligences::<Test>::iter().count(), 0);
        assert_eq!(Disputes::<Test>::iter().count(), 0);
        assert_eq!(ApproversOf::<Test>::iter().count(), 0);
    });
}
