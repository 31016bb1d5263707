//! Tests of the beacon.

use crate::{mock::*, CoverageDrawn, Error, Event, FinalAt, PrunedTo, Seeds, Tallies};
use frame_support::{assert_noop, assert_ok, dispatch::CheckIfFeeless, traits::Hooks, weights::Weight};
use proptest::prelude::*;
use starling_math::clock;
use starling_primitives::{
    traits::{Beacon as _, Round},
    vrf::VrfProof,
    EpochIndex, H256,
};

fn origin(id: u8) -> RuntimeOrigin {
    RuntimeOrigin::signed(worker_of(id))
}

fn contribute(id: u8) {
    let epoch = Current::get().index;
    assert_ok!(Beacon::contribute(origin(id), epoch, proof(id, epoch)));
}

fn is_feeless(id: u8, epoch: EpochIndex, proof: VrfProof) -> bool {
    crate::Call::<Test>::contribute { epoch, proof }.is_feeless(&origin(id))
}

/// A refused contribution changes nothing and is not free of fees.
fn refused(id: u8, epoch: EpochIndex, proof: VrfProof, error: Error<Test>) {
    assert!(!is_feeless(id, epoch, proof), "{error:?}");
    assert_noop!(Beacon::contribute(origin(id), epoch, proof), error);
}

#[test]
fn epoch_0_has_a_seed_from_genesis() {
    ExtBuilder::default().build_and_execute(|| {
        assert!(Beacon::seed(Round::Epoch(0)).is_some());
        assert_eq!(Beacon::final_at(0), Some(0));
        assert_eq!(Beacon::seed(Round::Epoch(1)), None);
    });
}

#[test]
fn contributions_make_the_next_seed() {
    ExtBuilder::default().weights(&[1, 2, 3]).build_and_execute(|| {
        run_to_reveal();
        assert!(is_feeless(1, 0, proof(1, 0)));
        for id in 0..3 {
            contribute(id);
        }
        System::assert_last_event(Event::Contributed { epoch: 0, host: host(2), weight: 3 }.into());
        run_to_gun();
        assert_eq!(Gun::get(), Some(true));
        assert_eq!(Beacon::final_at(1), Some(System::block_number()));
        assert_ne!(epoch_seed(1), epoch_seed(0));
        assert!(System::events().iter().any(|record| {
            record.event == Event::SeedFinal { round: Round::Epoch(1), seed: epoch_seed(1) }.into()
        }));
        assert!((0..3).all(|id| !Beacon::withheld(0, &host(id))));
    });
}

#[test]
fn only_the_window_takes_contributions() {
    ExtBuilder::default().weights(&[1, 1]).build_and_execute(|| {
        let start = clock::reveal_start(&Current::get());
        run_to(start - 1);
        refused(0, 0, proof(0, 0), Error::NotInReveal);
        run_to(start);
        contribute(0);
        run_to(clock::race_start(&Current::get()) - 1);
        contribute(1);
        run_to_gun();
        refused(0, 0, proof(0, 0), Error::NotInReveal);
    });
}

#[test]
fn wrong_contributions_are_refused() {
    ExtBuilder::default().weights(&[1, 1, 1, 0]).build_and_execute(|| {
        run_to_reveal();
        refused(0, 1, proof(0, 1), Error::WrongEpoch);
        refused(0, 0, proof(0, 1), Error::InvalidProof);
        refused(0, 0, proof(1, 0), Error::InvalidProof);
        refused(0, 0, VrfProof { pre_output: [0xff; 32], proof: [0xff; 64] }, Error::InvalidProof);
        refused(3, 0, proof(3, 0), Error::NoWeight);
        refused(HOSTS, 0, proof(HOSTS, 0), Error::NotAWorker);
        Banned::set(vec![1]);
        refused(1, 0, proof(1, 0), Error::NotAWorker);
        contribute(0);
        refused(0, 0, proof(0, 0), Error::AlreadyContributed);
    });
}

#[test]
fn keys_cannot_be_tried_against_a_known_seed() {
    ExtBuilder::default().weights(&[1, 1, 1]).build_and_execute(|| {
        Since::set([(2, 1)].into());
        run_to_reveal();
        // Nothing but genesis precedes the seed of epoch 0.
        refused(2, 0, proof(2, 0), Error::KeyTooNew);
        contribute(0);
        contribute(1);
        run_to_gun();
        let gun = System::block_number();
        run_to_next_epoch();
        run_to_reveal();
        Since::set([(2, gun)].into());
        refused(2, 1, proof(2, 1), Error::KeyTooNew);
        Since::set([(2, gun - 1)].into());
        contribute(2);
    });
}

#[test]
fn two_thirds_of_the_weight_are_needed() {
    ExtBuilder::default().weights(&[1, 1, 1]).build_and_execute(|| {
        run_to_reveal();
        contribute(0);
        contribute(2);
        run_to_gun();
        assert_eq!(Gun::get(), Some(true));
        assert!(Beacon::withheld(0, &host(1)));
        assert!(!Beacon::withheld(0, &host(0)));
    });
    ExtBuilder::default().weights(&[200, 101]).build_and_execute(|| {
        run_to_reveal();
        contribute(0);
        run_to_gun();
        assert_eq!(Gun::get(), Some(false));
        assert!(!Beacon::withheld(0, &host(1)), "nothing is decided yet");
    });
}

#[test]
fn an_extension_takes_the_missing_contributions() {
    ExtBuilder::default().weights(&[1, 1, 1, 1]).build_and_execute(|| {
        run_to_reveal();
        contribute(0);
        contribute(1);
        run_to_gun();
        assert_eq!(Beacon::seed(Round::Epoch(1)), None);
        contribute(2);
        run_to_gun();
        assert_eq!(Gun::get(), Some(true));
        assert_eq!(Current::get().extension, Current::get().schedule.reveal_blocks());
        assert!(Beacon::withheld(0, &host(3)));
    });
}

#[test]
fn a_cancelled_sprint_has_a_seed_all_the_same() {
    let seed_with = |randomness: u8| {
        ExtBuilder::default().weights(&[1, 1]).build_and_execute(|| {
            run_to_reveal();
            contribute(1);
            Randomness::set(Some(H256::repeat_byte(randomness)));
            for _ in 0..3 {
                run_to_gun();
            }
            assert!(Current::get().sprint_cancelled);
            assert!(Beacon::withheld(0, &host(0)) && !Beacon::withheld(0, &host(1)));
            run_to_next_epoch();
            assert_eq!(Beacon::seed(Round::Challenge(0)), None);
            epoch_seed(1)
        })
    };
    assert_ne!(seed_with(1), seed_with(2), "the blocks' randomness is in it");
}

#[test]
fn the_order_of_contributions_does_not_matter() {
    let seed_of = |order: [u8; 3], randomness: u8| {
        ExtBuilder::default().weights(&[1, 1, 1]).build_and_execute(|| {
            Randomness::set(Some(H256::repeat_byte(randomness)));
            run_to_reveal();
            order.into_iter().for_each(contribute);
            run_to_gun();
            epoch_seed(1)
        })
    };
    assert_eq!(seed_of([0, 1, 2], 1), seed_of([2, 0, 1], 2), "nor does what the authors can choose");
}

#[test]
fn a_missing_contribution_changes_the_seed() {
    let seed_of = |hosts: &[u8]| {
        ExtBuilder::default().weights(&[5, 5, 1]).build_and_execute(|| {
            run_to_reveal();
            hosts.iter().copied().for_each(contribute);
            run_to_gun();
            epoch_seed(1)
        })
    };
    assert_ne!(seed_of(&[0, 1]), seed_of(&[0, 1, 2]));
}

#[test]
fn without_weights_any_host_may_begin() {
    ExtBuilder::default().weights(&[1, 1, 1]).weights_from(1).build_and_execute(|| {
        run_to_reveal();
        contribute(5);
        run_to_gun();
        assert_eq!(Gun::get(), Some(true));
        assert!(!Beacon::withheld(0, &host(0)));
    });
    ExtBuilder::default().build_and_execute(|| {
        run_to_gun();
        assert_eq!(Gun::get(), Some(false), "one is needed");
    });
}

#[test]
fn contributions_are_bounded() {
    ExtBuilder::default().build_and_execute(|| {
        run_to_reveal();
        (0..5).for_each(contribute);
        refused(5, 0, proof(5, 0), Error::TooManyContributions);
    });
}

#[test]
fn other_rounds_mix_the_blocks_in() {
    let challenge_with = |late: bool, randomness: u8| {
        ExtBuilder::default().weights(&[1]).build_and_execute(|| {
            run_to_reveal();
            contribute(0);
            let check = clock::check_start(&Current::get());
            run_to(if late { check - 1 } else { check - 5 });
            Randomness::set(Some(H256::repeat_byte(randomness)));
            run_to(check);
            let challenge = Beacon::seed(Round::Challenge(0)).unwrap();
            assert_ne!(Beacon::seed(Round::Coverage(0, 0)), Beacon::seed(Round::Coverage(0, 1)));
            challenge
        })
    };
    assert_ne!(challenge_with(false, 1), challenge_with(false, 2));
    assert_ne!(challenge_with(true, 1), challenge_with(true, 2), "the drawing block counts");
}

#[test]
fn a_block_without_randomness_is_no_harm() {
    ExtBuilder::default().weights(&[1]).build_and_execute(|| {
        Randomness::set(None);
        run_to_reveal();
        contribute(0);
        run_to_next_epoch();
        assert!(Beacon::seed(Round::Challenge(0)).is_some());
    });
}

#[test]
fn every_coverage_window_gets_a_seed_when_it_closes() {
    ExtBuilder::default().weights(&[1]).build_and_execute(|| {
        let schedule = Current::get().schedule;
        run_to(schedule.coverage_blocks - 1);
        assert_eq!(Beacon::seed(Round::Coverage(0, 0)), None);
        run_to(schedule.coverage_blocks);
        assert!(Beacon::seed(Round::Coverage(0, 0)).is_some());
        run_to_reveal();
        contribute(0);
        run_to_next_epoch();
        // Records of the grace are covered in windows of their own epoch.
        run_to(clock::claims_open(&Current::get()));
        assert_eq!(CoverageDrawn::<Test>::get(0), (schedule.epoch_blocks + schedule.grace_blocks) / 5);
        assert!(Beacon::seed(Round::Claim(0)).is_some());
        assert_eq!(Beacon::seed(Round::Claim(1)), None);
    });
}

#[test]
fn old_rounds_are_pruned_in_bounded_steps() {
    ExtBuilder::default().weights(&[1, 1, 1]).build_and_execute(|| {
        for _ in 0..3 {
            run_to_reveal();
            (0..3).for_each(contribute);
            run_to_next_epoch();
        }
        assert_eq!(PrunedTo::<Test>::get(), 0, "kept for two epochs");
        assert!(Beacon::seed(Round::Epoch(0)).is_some());
        assert_eq!(Beacon::prune_steps(2), 2);
        assert_eq!(Tallies::<Test>::get(0).count, 3);
        Beacon::do_try_state().unwrap();
        assert!(!Beacon::on_idle(System::block_number(), Weight::zero()).any_gt(Weight::zero()));
        run_to(System::block_number() + 10);
        assert_eq!(PrunedTo::<Test>::get(), 1);
        assert_eq!(Seeds::<Test>::iter_keys().filter(|round| epoch_of(*round) == 0).count(), 0);
        assert_eq!(FinalAt::<Test>::get(0), None);
        assert!(!Beacon::withheld(0, &host(0)), "what is pruned is not held against anybody");
        assert!(Beacon::seed(Round::Epoch(1)).is_some() && Beacon::seed(Round::Claim(1)).is_some());
    });
}

fn epoch_of(round: Round) -> EpochIndex {
    match round {
        Round::Epoch(epoch) | Round::Challenge(epoch) | Round::Claim(epoch) | Round::Coverage(epoch, _) => {
            epoch
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever contributes when: every epoch gets a seed, final exactly at a quorum; those without contribution, and no
    /// others, withheld. (The invariants are checked in every block.)
    #[test]
    fn epochs_never_lack_a_seed(
        weights in prop::collection::vec(0u64..1 << 48, 1..5),
        epochs in prop::collection::vec(prop::collection::vec(any::<bool>(), 5), 1..5),
    ) {
        ExtBuilder::default().weights(&weights).build_and_execute(|| {
            let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
            for (epoch, present) in (0..).zip(&epochs) {
                run_to_reveal();
                let mut given = 0u128;
                let mut contributed = Vec::new();
                for (id, &weight) in (0..).zip(&weights) {
                    if present[usize::from(id)] && (weight > 0 || total == 0) {
                        contribute(id);
                        contributed.push(id);
                        given += u128::from(weight);
                    }
                }
                run_to_next_epoch();
                let quorum = if total == 0 { !contributed.is_empty() } else { given * 3 >= total * 2 };
                assert_eq!(Before::get().unwrap().sprint_cancelled, !quorum);
                assert!(Beacon::seed(Round::Epoch(epoch + 1)).is_some());
                for (id, &weight) in (0..).zip(&weights) {
                    let withheld = weight > 0 && !contributed.contains(&id);
                    assert_eq!(Beacon::withheld(epoch, &host(id)), withheld);
                }
            }
        });
    }
}
