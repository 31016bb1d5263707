use crate::{mock::*, Answers, Doubts, PrunedBefore, Tallies};
use proptest::prelude::*;
use starling_math::attendance::{Tally, ABSENT};
use starling_primitives::{traits::Attendance as _, EpochIndex};

const GATEWAY: u8 = 200;

/// So many answers of a host through a gateway that is no executor.
fn answers(epoch: EpochIndex, id: u8, count: u32) {
    Attendance::on_answered(epoch, 0, &host(id), &host(GATEWAY), count);
}

#[test]
fn who_answers_nothing_is_absent_and_who_works_is_not() {
    build_and_execute(&[(0, 1, 50), (0, 2, 50)], || {
        answers(1, 2, 1_000);
        assert!(Attendance::is_absent(1, &host(1)));
        assert!(!Attendance::is_absent(1, &host(2)));
        // Who has no weight was never drawn.
        assert!(!Attendance::is_absent(1, &host(3)));
        // Nothing to do is nothing missed, and makes nothing good.
        assert!(Attendance::is_absent(2, &host(1)));
        assert!(!Attendance::is_absent(2, &host(2)));
    });
}

#[test]
fn only_what_a_host_had_weight_for_is_asked_of_it() {
    build_and_execute(&[(0, 1, 50), (0, 2, 50), (7, 2, 100)], || {
        answers(1, 1, 40);
        answers(1, 2, 40);
        // The other profile is all the world wants.
        Attendance::on_answered(1, 7, &host(2), &host(GATEWAY), 10_000);
        assert!(!Attendance::is_absent(1, &host(1)));
        // Work for one profile makes good for another.
        assert_eq!(Attendance::doubt(1, &host(2)), 0);
    });
}

#[test]
fn a_gateway_is_never_drawn_for_its_own_requests() {
    build_and_execute(&[(0, 1, 50), (0, 2, 50)], || {
        Attendance::on_answered(1, 0, &host(2), &host(1), 1_000);
        assert_eq!(Attendance::doubt(1, &host(1)), 0);
        assert_eq!(Tallies::<Test>::get(1, (0, host(1))), Tally { relayed: 1_000, ..Default::default() });
    });
    // But a lone host may be its own gateway.
    build_and_execute(&[(0, 1, 50)], || {
        Attendance::on_answered(1, 0, &host(1), &host(1), 10);
        assert_eq!(Tallies::<Test>::get(1, (0, host(1))), Tally { answered: 10, ..Default::default() });
    });
}

#[test]
fn what_is_struck_counts_against_its_host() {
    build_and_execute(&[(0, 1, 50), (0, 2, 50)], || {
        answers(1, 1, 12);
        for _ in 0..12 {
            assert!(!Attendance::is_absent(1, &host(1)));
            Attendance::on_struck(1, 0, &host(1));
            Attendance::do_try_state().unwrap();
            if Tallies::<Test>::get(1, (0, host(1))).struck == 8 {
                break;
            }
        }
        answers(1, 2, 60);
        assert!(Attendance::is_absent(1, &host(1)));
        // What nobody counted cannot be struck.
        Attendance::on_struck(1, 3, &host(1));
        Attendance::on_struck(5, 0, &host(1));
        assert!(!Tallies::<Test>::contains_key(1, (3, host(1))));
    });
}

#[test]
fn a_planted_answer_counts_for_nobody() {
    build_and_execute(&[(0, 1, 50), (0, 2, 50), (0, 3, 50)], || {
        Attendance::on_answered(1, 0, &host(1), &host(2), 5);
        Attendance::on_answered(1, 0, &host(3), &host(3), 4);
        let before = (Answers::<Test>::get(1, 0), Attendance::doubt(1, &host(3)));
        Attendance::on_answered(1, 0, &host(1), &host(2), 1);
        Attendance::on_planted(1, 0, &host(1), &host(2));
        assert_eq!((Answers::<Test>::get(1, 0), Attendance::doubt(1, &host(3))), before);
        assert_eq!(Tallies::<Test>::get(1, (0, host(1))), Tally { answered: 5, ..Default::default() });
        assert_eq!(Tallies::<Test>::get(1, (0, host(2))), Tally { relayed: 5, ..Default::default() });
        Attendance::do_try_state().unwrap();
        // What nobody counted cannot be taken away.
        Attendance::on_planted(5, 0, &host(1), &host(2));
        assert!(!Tallies::<Test>::contains_key(5, (0, host(1))));
    });
}

#[test]
fn little_work_adds_up_over_epochs_whether_they_are_claimed_or_not() {
    // 25 answers are the host's in each epoch: 8.4 bits of 30 when it gives none.
    let epoch_without_work = || answers(super::mock::Current::get(), 2, 50);
    build_and_execute(&[(0, 1, 50), (0, 2, 50)], || {
        for epoch in 1..=4 {
            epoch_without_work();
            assert_eq!(Attendance::is_absent(epoch, &host(1)), epoch == 4, "{epoch}");
            next_epoch();
            Attendance::on_claim(epoch, &host(1));
        }
        // An epoch of honest work, and it is there again.
        answers(5, 1, 25);
        answers(5, 2, 25);
        assert!(!Attendance::is_absent(5, &host(1)));
    });
    build_and_execute(&[(0, 1, 50), (0, 2, 50)], || {
        for epoch in 1..=4 {
            epoch_without_work();
            next_epoch();
            // Every other epoch is not claimed.
            if epoch % 2 == 0 {
                assert_eq!(Attendance::is_absent(epoch, &host(1)), epoch == 4, "{epoch}");
                Attendance::on_claim(epoch, &host(1));
            }
        }
    });
}

#[test]
fn a_claim_is_final() {
    build_and_execute(&[(0, 1, 50), (0, 2, 50)], || {
        answers(1, 2, 200);
        Attendance::on_claim(1, &host(1));
        assert_eq!(Doubts::<Test>::get(1, host(1)), Some(ABSENT));
        // What is recorded too late makes nothing good.
        answers(1, 1, 200);
        assert_eq!(Attendance::doubt(1, &host(1)), ABSENT);
    });
}

#[test]
fn an_absence_is_not_forgotten_while_nothing_is_claimed() {
    build_and_execute(&[(0, 1, 50), (0, 2, 50)], || {
        answers(1, 2, 170);
        Attendance::on_claim(1, &host(1));
        let left = Doubts::<Test>::get(1, host(1)).unwrap();
        assert!(left < ABSENT);
        for epoch in 2..30 {
            next_epoch();
            answers(epoch, 2, 50);
            assert!(Attendance::is_absent(epoch, &host(1)), "{epoch}");
        }
        // One product for each host, of its last claim; none for who is in good standing.
        Attendance::on_claim(29, &host(1));
        Attendance::on_claim(29, &host(2));
        assert_eq!(Doubts::<Test>::iter().collect::<Vec<_>>(), [(29, host(1), ABSENT)]);
        next_epoch();
        answers(30, 1, 25);
        Attendance::on_claim(30, &host(1));
        assert!(!Attendance::is_absent(30, &host(1)));
    });
}

#[test]
fn what_no_claim_asks_for_is_pruned_in_bounded_steps() {
    let entries = || Tallies::<Test>::iter().count() + Doubts::<Test>::iter().count();
    let mut ext = new_test_ext(&[(0, 1, 50), (0, 2, 50)]);
    ext.execute_with(|| {
        for epoch in 1..=5 {
            answers(epoch, 1, 1);
            answers(epoch, 2, 100);
            next_epoch();
            Attendance::on_claim(epoch, &host(1));
            Attendance::on_claim(epoch, &host(2));
        }
    });
    // The sixth epoch runs: the third, and later ones, are kept.
    for _ in 0..10 {
        // Each block finds in the database what the ones before have left.
        ext.commit_all().unwrap();
        ext.execute_with(|| {
            let before = entries();
            idle();
            assert!(before - entries() <= PRUNED_PER_BLOCK as usize);
        });
    }
    ext.execute_with(|| {
        assert_eq!(PrunedBefore::<Test>::get(), 3);
        assert_eq!(Answers::<Test>::iter().count(), 3);
        assert_eq!(Doubts::<Test>::iter().count(), 1);
        assert_eq!(Tallies::<Test>::iter_prefix(3).count(), 3);
        // What is late counts for nothing, and is no entry that would stay for ever.
        Attendance::on_struck(2, 0, &host(1));
        assert!(!Tallies::<Test>::contains_key(2, (0, host(1))));
        super::mock::Current::set(60);
    });
    // Thirty epochs after its last claim a host's product is forgotten, too.
    for _ in 0..100 {
        ext.commit_all().unwrap();
        ext.execute_with(idle);
    }
    ext.execute_with(|| assert_eq!(Doubts::<Test>::iter().count() + entries(), 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_books_hold(steps in prop::collection::vec((0u8..5, 0u32..3, 0u8..4, 0u8..4, 1u32..100), 0..80)) {
        build_and_execute(&[(0, 0, 10), (0, 1, 20), (1, 1, 30), (1, 2, 40), (2, 3, 50)], || {
            for (step, profile, executor, gateway, count) in steps {
                let epoch = super::mock::Current::get();
                match step {
                    0 => next_epoch(),
                    1 => {
                        let _ = Attendance::on_claim(epoch - 1, &host(executor));
                    },
                    2 if Tallies::<Test>::get(epoch, (profile, host(executor))).answered > 0 => {
                        Attendance::on_struck(epoch, profile, &host(executor));
                    }
                    2 => {}
                    _ => Attendance::on_answered(epoch, profile, &host(executor), &host(gateway), count),
                }
                assert!(Attendance::doubt(epoch, &host(executor)) <= ABSENT);
                idle();
            }
        });
    }
}
