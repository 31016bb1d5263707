//! Tests of the sprint.

use crate::{
    election::scale, mock::*, types::Refusal, CommitmentCount, Commitments, EpochWeights, Error, Event,
    ProfileWeights, PrunedTo, Voters,
};
use frame_support::{
    assert_noop, assert_ok, dispatch::CheckIfFeeless, traits::Hooks, weights::Weight, BoundedVec,
};
use proptest::prelude::*;
use starling_math::{clock, draw::sprint_score};
use starling_primitives::{
    schedule::EpochState,
    sprint::{SprintCommitment, SprintVerdict, MAX_SPRINT_COUNT},
    traits::Weights,
    ProfileId, Work, H256, PPM,
};

fn commit(id: u8, profile: ProfileId, count: u32) {
    assert_ok!(Sprint::commit(origin(id), profile, commitment(count)));
}

fn commit_refused(id: u8, profile: ProfileId, commitment: SprintCommitment, error: Error<Test>) {
    let call = crate::Call::<Test>::commit { profile, commitment };
    assert!(!call.is_feeless(&origin(id)), "{error:?}");
    assert_noop!(Sprint::commit(origin(id), profile, commitment), error);
}

fn judge(
    id: u8,
    profile: ProfileId,
    verdicts: &[(u8, SprintVerdict)],
) -> Result<(), sp_runtime::DispatchError> {
    let verdicts: Vec<_> = verdicts.iter().map(|(prover, verdict)| (host(*prover), *verdict)).collect();
    let verdicts = BoundedVec::truncate_from(verdicts);
    let call = crate::Call::<Test>::submit_verdicts { profile, verdicts: verdicts.clone() };
    let feeless = call.is_feeless(&origin(id));
    let result = Sprint::submit_verdicts(origin(id), profile, verdicts);
    assert_eq!(feeless, result.is_ok(), "free of fees is exactly what succeeds");
    result
}

/// What a verifier said about a prover in the first epoch.
fn vote(prover: u8, verifier: u8) -> Option<SprintVerdict> {
    let mut voters = Voters::<Test>::get(0, (0, host(prover))).into_iter();
    voters.find(|voter| voter.verifier == host(verifier)).map(|voter| voter.verdict)
}

fn judge_refused(id: u8, prover: u8, verdict: SprintVerdict, reason: Refusal) {
    // Beside a verdict that is taken, so that the call itself succeeds.
    let before = System::events().len();
    let fresh = (0..HOSTS).find(|other| {
        *other != prover
            && *other != id
            && Commitments::<Test>::contains_key(0, (0, host(*other)))
            && vote(*other, id).is_none()
    });
    assert_ok!(judge(id, 0, &[(prover, verdict), (fresh.unwrap(), self::verdict(1, 0))]));
    let refused = Event::VerdictRefused { profile: 0, prover: host(prover), verifier: host(id), reason };
    assert_eq!(System::events()[before].event, refused.into());
}

#[test]
fn commitments_are_taken_in_their_window_only() {
    ExtBuilder::default().build_and_execute(|| {
        let epoch = Current::get();
        for block in
            [1, clock::race_start(&epoch), clock::commit_start(&epoch) - 1, clock::check_start(&epoch)]
        {
            System::set_block_number(block);
            commit_refused(0, 0, commitment(5), Error::NotInCommit);
        }
        to_commit();
        let call = crate::Call::<Test>::commit { profile: 0, commitment: commitment(5) };
        assert!(call.is_feeless(&origin(0)));
        commit(0, 0, 5);
        System::assert_last_event(
            Event::Committed { epoch: 0, profile: 0, host: host(0), commitment: commitment(5) }.into(),
        );
        System::set_block_number(clock::check_start(&epoch) - 1);
        commit(1, 0, 5);
        Current::set(EpochState { sprint_cancelled: true, ..epoch });
        commit_refused(2, 0, commitment(5), Error::NotInCommit);
    });
}

#[test]
fn wrong_commitments_are_refused() {
    ExtBuilder::default().build_and_execute(|| {
        to_commit();
        commit_refused(HOSTS, 0, commitment(5), Error::NotAWorker);
        commit_refused(0, PROFILES, commitment(5), Error::UnknownProfile);
        commit_refused(0, 0, commitment(0), Error::CountOutOfRange);
        commit_refused(0, 0, commitment(MAX_SPRINT_COUNT + 1), Error::CountOutOfRange);
        Unserved::set([(1, 0)].into());
        commit_refused(1, 0, commitment(5), Error::NotServing);
        Draining::set([2].into());
        commit_refused(2, 0, commitment(5), Error::NotTakingPart);
        Withheld::set([3].into());
        commit_refused(3, 0, commitment(5), Error::Withheld);
        Since::set([(4, clock::race_start(&Current::get()))].into());
        commit_refused(4, 0, commitment(5), Error::KeyTooNew);
        Retired::set([1].into());
        commit_refused(0, 1, commitment(5), Error::UnknownProfile);
        commit(0, 0, MAX_SPRINT_COUNT);
        commit_refused(0, 0, commitment(6), Error::AlreadyCommitted);
    });
}

#[test]
fn commitments_are_bounded() {
    ExtBuilder::default().build_and_execute(|| {
        to_commit();
        for id in 0..5 {
            commit(id, 0, 1);
            commit(id, 1, 1);
        }
        assert_eq!(CommitmentCount::<Test>::get(0), 10);
        commit_refused(5, 0, commitment(1), Error::TooManyCommitments);
    });
}

#[test]
fn verdicts_are_taken_in_their_window_only() {
    ExtBuilder::default().weights(&[1, 1]).build_and_execute(|| {
        to_commit();
        commit(0, 0, 100);
        assert_noop!(judge(1, 0, &[(0, verdict(6, 0))]), Error::<Test>::NotInCheck);
        to_check();
        assert_ok!(judge(1, 0, &[(0, verdict(6, 1))]));
        System::assert_last_event(
            Event::VerdictSubmitted {
                epoch: 0,
                profile: 0,
                prover: host(0),
                verifier: host(1),
                verdict: verdict(6, 1),
            }
            .into(),
        );
        assert_eq!(vote(0, 1), Some(verdict(6, 1)));
        next_epoch();
        assert_noop!(judge(1, 0, &[(0, verdict(6, 0))]), Error::<Test>::NotInCheck);
    });
}

#[test]
fn only_some_may_judge() {
    ExtBuilder::default().weights(&[1, 1, 1, 1, 0]).build_and_execute(|| {
        to_commit();
        commit(0, 0, 100);
        to_check();
        let about_0 = [(0, verdict(6, 0))];
        assert_noop!(judge(HOSTS, 0, &about_0), Error::<Test>::NotAWorker);
        assert_noop!(judge(4, 0, &about_0), Error::<Test>::NoWeight);
        Unserved::set([(1, 0)].into());
        assert_noop!(judge(1, 0, &about_0), Error::<Test>::NotServing);
        Withheld::set([2].into());
        assert_noop!(judge(2, 0, &about_0), Error::<Test>::Withheld);
        Draining::set([3].into());
        assert_noop!(judge(3, 0, &about_0), Error::<Test>::NotTakingPart);
        assert_noop!(judge(0, 0, &about_0), Error::<Test>::NothingToTake);
        assert_noop!(judge(0, PROFILES, &about_0), Error::<Test>::UnknownProfile);
        assert_noop!(judge(0, 0, &[]), Error::<Test>::NothingToTake);
    });
}

#[test]
fn a_bad_verdict_does_not_fail_its_batch() {
    ExtBuilder::default().weights(&[1; 6]).build_and_execute(|| {
        to_commit();
        (0..5).for_each(|id| commit(id, 0, 4));
        commit(5, 0, 100);
        to_check();
        assert_ok!(judge(0, 0, &[(1, verdict(4, 4))]));
        judge_refused(0, 1, verdict(4, 0), Refusal::AlreadyVoted);
        judge_refused(0, 0, verdict(4, 0), Refusal::OneselfJudged);
        judge_refused(0, 6, verdict(4, 0), Refusal::NoCommitment);
        judge_refused(1, 0, verdict(0, 0), Refusal::CountsOutOfRange);
        judge_refused(1, 4, verdict(5, 0), Refusal::CountsOutOfRange);
        judge_refused(1, 5, verdict(7, 0), Refusal::CountsOutOfRange);
        judge_refused(2, 0, verdict(3, 4), Refusal::CountsOutOfRange);
        assert_eq!(vote(1, 0), Some(verdict(4, 4)), "the first one stays");
    });
}

#[test]
fn the_drawn_verifiers_have_the_places_whenever_they_vote() {
    let weights = [1, 2, 3, 4, 5, 3];
    ExtBuilder::default().weights(&weights).build_and_execute(|| {
        to_commit();
        commit(0, 0, 100);
        commit(1, 0, 100);
        to_check();
        let score = |id: u8| sprint_score(&H256::zero(), &host(0), &host(id), weights[usize::from(id)]);
        let mut by_score: Vec<u8> = (1..6).collect();
        by_score.sort_by_key(|id| std::cmp::Reverse(score(*id)));
        let voters = || {
            let list = Voters::<Test>::get(0, (0, host(0)));
            list.into_iter().map(|voter| voter.verifier).collect::<Vec<_>>()
        };
        let places = |ids: &[u8]| ids.iter().map(|id| host(*id)).collect::<Vec<_>>();
        // The last of the draw come first, as liars would.
        for id in by_score[1..4].iter().rev() {
            assert_ok!(judge(*id, 0, &[(0, verdict(6, 0))]));
        }
        assert_eq!(voters(), places(&by_score[1..4]));
        assert_noop!(judge(by_score[4], 0, &[(0, verdict(6, 0))]), Error::<Test>::NothingToTake);
        assert_ok!(judge(by_score[0], 0, &[(0, verdict(6, 0))]));
        assert_eq!(voters(), places(&by_score[..3]));
        assert_eq!(vote(0, by_score[3]), None, "it gave up its place");
        Sprint::do_try_state().unwrap();
    });
}

#[test]
fn work_becomes_weight() {
    ExtBuilder::default().build_and_execute(|| {
        Reputations::set([(1, 77)].into());
        to_commit();
        commit(1, 0, 100);
        commit(0, 0, 50);
        commit(0, 1, 10);
        to_check();
        assert_ok!(judge(0, 0, &[(1, verdict(6, 0))]));
        assert_ok!(judge(1, 0, &[(0, verdict(6, 0))]));
        next_epoch();
        // Wilson's bound for 6 clean samples is 31.07 %: 68 of 100 and 34 of 50 nonces are accepted. Nobody else has
        // to do with profile 1, whose nonces are worth twice as much.
        assert_eq!(weights_of(1), [(0, 34 * NONCE_WORK + 20 * NONCE_WORK), (1, 68 * NONCE_WORK)]);
        assert_eq!(profile_weights_of(1, 0), [(0, 34 * NONCE_WORK), (1, 68 * NONCE_WORK)]);
        assert_eq!(profile_weights_of(1, 1), [(0, 20 * NONCE_WORK)]);
        assert_eq!(Sprint::weight(1, &host(1)), 68 * NONCE_WORK);
        assert_eq!(Sprint::weight(1, &host(2)), 0);
        assert_eq!(Sprint::total(1), 122 * NONCE_WORK);
        assert_eq!(EpochWeights::<Test>::get(1)[1].reputation, 77, "frozen");
        assert_eq!(Told::get(), [(host(0), 54 * NONCE_WORK), (host(1), 68 * NONCE_WORK)].into());
        System::assert_last_event(Event::WeightsSet { epoch: 1, total: 122 * NONCE_WORK, hosts: 2 }.into());
    });
}

#[test]
fn twice_the_work_is_twice_the_weight() {
    ExtBuilder::default().weights(&[1; 4]).build_and_execute(|| {
        to_commit();
        commit(0, 0, 400);
        (1..4).for_each(|id| commit(id, 0, 200));
        to_check();
        for id in 0..4 {
            let others: Vec<_> =
                (0..4).filter(|other| *other != id).map(|other| (other, verdict(6, 0))).collect();
            assert_ok!(judge(id, 0, &others));
        }
        next_epoch();
        let weights = weights_of(1);
        assert!(weights[0].1.abs_diff(2 * weights[1].1) <= NONCE_WORK, "{weights:?}");
        assert_eq!(weights[1].1, weights[3].1);
    });
}

#[test]
fn nobody_exceeds_the_cap() {
    ExtBuilder::default().max_share(250_000).build_and_execute(|| {
        to_commit();
        commit(0, 0, 1_000);
        commit(0, 1, 500);
        (1..5).for_each(|id| commit(id, 0, 100));
        to_check();
        for id in 1..5 {
            let about_me = [(id, verdict(6, 0))];
            assert_ok!(judge(0, 0, &about_me));
        }
        assert_ok!(judge(1, 0, &[(0, verdict(6, 0))]));
        next_epoch();
        let total = Sprint::total(1);
        let weights = weights_of(1);
        assert_eq!(weights.len(), 5);
        assert!(weights[0].1 * 4 <= total && weights[0].1 > weights[1].1, "{weights:?}");
        // Profile 0 gave 689 x 80 (verdicts of one), profile 1 gave 500 x 160; the parts keep that proportion.
        let (first, second) = (profile_weights_of(1, 0)[0].1, profile_weights_of(1, 1)[0].1);
        assert_eq!(first + second, weights[0].1);
        assert!(second > first);
    });
}

#[test]
fn fabricated_or_unverified_work_is_nothing() {
    ExtBuilder::default().weights(&[1; 4]).build_and_execute(|| {
        to_commit();
        (0..3).for_each(|id| commit(id, 0, 100));
        to_check();
        let fabricated = SprintVerdict { checked: 6, failed: 6, fabricated: true };
        assert_ok!(judge(1, 0, &[(0, fabricated), (2, fabricated)]));
        assert_ok!(judge(3, 0, &[(0, fabricated), (2, verdict(6, 0))]));
        assert_ok!(judge(0, 0, &[(2, verdict(6, 0))]));
        next_epoch();
        // Host 0 fabricated; host 1 was judged by nobody; of host 2 one third of the votes say the worst, which counts as the
        // 31 % that six clean samples allow: a mean of 10.4 %, whose bound over 18 samples is 27.7 %.
        let weights = weights_of(1);
        assert_eq!(weights.len(), 1);
        assert_eq!(weights[0].0, 2);
        assert_eq!(weights[0].1, 72 * NONCE_WORK);
    });
}

#[test]
fn a_lone_host_has_nobody_to_disagree() {
    ExtBuilder::default().weights(&[5]).build_and_execute(|| {
        to_commit();
        commit(0, 0, 10);
        next_epoch();
        assert_eq!(weights_of(1), [(0, 10 * NONCE_WORK)]);
    });
}

#[test]
fn without_a_result_the_weights_stay() {
    let carried = |test: fn()| {
        ExtBuilder::default().weights(&[5, 7, 1]).build_and_execute(|| {
            Reputations::set([(1, 9)].into());
            test();
            next_epoch();
            let carried = Event::WeightsCarriedOver { epoch: 1, total: Sprint::total(1), hosts: 2 };
            System::assert_last_event(carried.into());
            assert_eq!(weights_of(1), [(0, 5), (1, 7)]);
            assert_eq!(profile_weights_of(1, 0), [(0, 5), (1, 7)]);
            assert_eq!(EpochWeights::<Test>::get(1)[1].reputation, 9, "reputations are fresh");
            assert_eq!(Told::get(), [(host(0), 5), (host(1), 7), (host(2), 0)].into());
        })
    };
    // Nobody committed.
    carried(|| Draining::set([2].into()));
    // Nothing was accepted.
    carried(|| {
        to_commit();
        commit(0, 0, 10);
        Draining::set([2].into());
    });
    // The profile was retired meanwhile.
    carried(|| {
        to_commit();
        commit(0, 0, 10);
        Retired::set([0].into());
        Draining::set([2].into());
    });
}

#[test]
fn who_leaves_after_committing_gets_no_weight() {
    ExtBuilder::default().weights(&[1, 1, 1]).build_and_execute(|| {
        to_commit();
        (0..3).for_each(|id| commit(id, 0, 10));
        to_check();
        assert_ok!(judge(0, 0, &[(1, verdict(6, 0)), (2, verdict(6, 0))]));
        assert_ok!(judge(1, 0, &[(0, verdict(6, 0))]));
        Draining::set([2].into());
        next_epoch();
        assert_eq!(weights_of(1).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(Told::get().get(&host(2)), Some(&0));
    });
}

#[test]
fn whom_too_many_accuse_gets_no_weight_but_votes() {
    ExtBuilder::default().weights(&[1, 1, 1, 1]).build_and_execute(|| {
        Stopped::set([3].into());
        to_commit();
        commit_refused(3, 0, commitment(5), Error::NotTakingPart);
        (0..3).for_each(|id| commit(id, 0, 10));
        to_check();
        assert_ok!(judge(3, 0, &[(0, verdict(6, 0)), (1, verdict(6, 0)), (2, verdict(6, 0))]));
        assert_ok!(judge(0, 0, &[(1, verdict(6, 0)), (2, verdict(6, 0))]));
        // Accused while its samples are checked.
        Stopped::set([2, 3].into());
        next_epoch();
        assert_eq!(weights_of(1).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [0, 1]);
        // Without a sprint the weights carry over, without the accused ones'.
        Stopped::set([0].into());
        next_epoch();
        assert_eq!(weights_of(2).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [1]);
    });
}

#[test]
fn the_heaviest_hosts_fit() {
    ExtBuilder::default().build_and_execute(|| {
        to_commit();
        for id in 0..8 {
            commit(id, 0, 10 + u32::from(id));
        }
        to_check();
        for id in 0..8 {
            let other = if id == 0 { 1 } else { 0 };
            assert_ok!(judge(other, 0, &[(id, verdict(6, 0))]));
        }
        next_epoch();
        assert_eq!(weights_of(1).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
    });
}

#[test]
fn old_epochs_are_pruned_in_bounded_steps() {
    ExtBuilder::default().build_and_execute(|| {
        for _ in 0..3 {
            to_commit();
            (0..3).for_each(|id| commit(id, 0, 10));
            to_check();
            assert_ok!(judge(0, 0, &[(1, verdict(6, 0)), (2, verdict(6, 0))]));
            assert_ok!(judge(1, 0, &[(0, verdict(6, 0))]));
            next_epoch();
            idle();
            assert_eq!(PrunedTo::<Test>::get(), 0);
        }
        // Weights of epoch 0 are none, but 3 lists of voters, 3 commitments and the rest are to go; the last block took 4 of
        // them.
        assert!(!Sprint::on_idle(0, Weight::zero()).any_gt(Weight::zero()));
        next_epoch();
        assert_eq!(Sprint::prune_steps(5), 5);
        Sprint::do_try_state().unwrap();
        assert_eq!(Commitments::<Test>::iter_prefix(0).count(), 0);
        assert_eq!(Voters::<Test>::iter_prefix(1).count(), 1);
        (0..5).for_each(|_| idle());
        assert_eq!(PrunedTo::<Test>::get(), 2);
        assert!(Sprint::hosts(1).is_empty() && !Sprint::hosts(2).is_empty());
        assert_eq!(ProfileWeights::<Test>::iter_prefix(1).count(), 0);
    });
}

proptest! {
    #[test]
    fn parts_keep_sum_and_order(
        works in prop::collection::vec(1u64..=1 << 48, 1..16),
        to in 0u64..=1 << 52,
    ) {
        let works: Vec<(ProfileId, Work)> = (0..).zip(works).collect();
        let scaled = scale(&works, to);
        let total: u128 = works.iter().map(|(_, work)| u128::from(*work)).sum();
        prop_assert_eq!(scaled.iter().map(|(_, work)| work).sum::<u64>(), to);
        for (profile, part) in scaled {
            let exact = u128::from(works[profile as usize].1) * u128::from(to);
            prop_assert!(part > 0);
            prop_assert!((u128::from(part) * total).abs_diff(exact) < total, "off by less than one");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is committed and voted: the result is sorted, capped, and a function of what was accepted; the order of
    /// calls does not matter. (The invariants are checked when the epoch changes.)
    #[test]
    fn elections_are_orderly(
        weights in prop::collection::vec(0u64..1_000, 0..6),
        counts in prop::collection::vec((0u8..6, 0..PROFILES, 1u32..10_000), 0..10),
        votes in prop::collection::vec((0u8..6, 0u8..6, 0..PROFILES, 1u32..7, 0u32..7, prop::bool::weighted(0.1)), 0..40),
        max_share in 200_000..=PPM,
    ) {
        let run = |reversed: bool| {
            ExtBuilder::default().max_share(max_share).weights(&weights).build_and_execute(|| {
                to_commit();
                let mut counts = counts.clone();
                let mut seen = std::collections::BTreeSet::new();
                counts.retain(|(id, profile, _)| seen.insert((*id, *profile)));
                if reversed {
                    counts.reverse();
                }
                for (id, profile, count) in counts {
                    commit(id, profile, count);
                }
                to_check();
                for (id, prover, profile, checked, failed, fabricated) in &votes {
                    let verdict =
                        SprintVerdict { checked: *checked, failed: *failed.min(checked), fabricated: *fabricated };
                    let _ = judge(*id, *profile, &[(*prover, verdict)]);
                    Sprint::do_try_state().unwrap();
                }
                next_epoch();
                Sprint::hosts(1)
            })
        };
        let weights = run(false);
        prop_assert_eq!(&weights, &run(true));
        let total: u128 = weights.iter().map(|entry| u128::from(entry.weight)).sum();
        let sprinted = !counts.is_empty() && weights.iter().any(|entry| entry.weight >= NONCE_WORK);
        if sprinted && weights.len() as u128 * u128::from(max_share) >= 1_000_000 {
            for entry in &weights {
                prop_assert!(u128::from(entry.weight) * 1_000_000 <= total * u128::from(max_share) || total < 1_000_000);
            }
        }
    }
}
