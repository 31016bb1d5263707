use crate::{mock::*, Coverage, CoverageMark, CoverageMarks, Event, Missed, Panels, PrunedBefore, Verdicts};
use starling_primitives::schedule::Schedule;

const WINDOW: u32 = Schedule::TEST.coverage_blocks;

fn mark(epoch: u32, window: u32) -> Option<(u32, u32)> {
    CoverageMarks::<Test>::get(epoch, window).map(|mark| (mark.first, mark.end))
}

#[test]
fn a_window_closes_one_window_after_it_ended() {
    build_and_execute(|| {
        finished(1);
        run_to(WINDOW);
        finished(1);
        // Block `1 + WINDOW` is the first boundary: the two before it wait for the next one.
        run_to(1 + WINDOW);
        assert_eq!(mark(1, 1), None);
        finished(1);
        run_to(1 + 2 * WINDOW);
        assert_eq!(mark(1, 2), Some((0, 2)));
        finished(1);
        run_to(1 + 3 * WINDOW);
        assert_eq!(mark(1, 3), Some((2, 3)));
        let closed =
            CoverageMark { first: 2, end: 3, closed_at: 1 + 3 * WINDOW, seed_epoch: 1, seed_window: 2 };
        assert_eq!(take_events().last(), Some(&Event::CoverageClosed { epoch: 1, window: 3, mark: closed }));
    });
}

#[test]
fn the_next_epochs_first_boundaries_close_the_last_windows() {
    build_and_execute(|| {
        run_to(Schedule::TEST.epoch_blocks - 2 * WINDOW - 1);
        finished(1);
        run_to(Schedule::TEST.epoch_blocks);
        finished(1);
        finished(1);
        run_to_epoch(2, WINDOW - 1);
        started_in(1, 1);
        finished(2);
        assert_eq!(CoverageMarks::<Test>::iter_prefix(1).count(), 1);
        run_to_epoch(2, WINDOW);
        // Epoch 1 has boundaries 1 to 11; its windows 12 and 13 take the seeds of epoch 2's boundaries 1 and 2.
        assert_eq!(mark(1, 12), Some((1, 3)));
        started_in(1, 1);
        run_to_epoch(2, 2 * WINDOW);
        assert_eq!(mark(1, 13), Some((3, 5)));
        let last = CoverageMarks::<Test>::get(1, 13).unwrap();
        assert_eq!((last.seed_epoch, last.seed_window), (2, 1));
        assert_eq!(mark(2, 2), Some((0, 1)));
        run_to_epoch(2, 30);
        assert_eq!(Coverage::<Test>::get(1).windows, 13);
        assert_eq!(Coverage::<Test>::get(1).closed, 5);
    });
}

#[test]
fn every_inference_falls_into_exactly_one_window() {
    build_and_execute(|| {
        for block in 1..=Schedule::TEST.epoch_blocks {
            run_to(block);
            if block % 3 == 0 {
                started(1);
            }
        }
        run_to_epoch(2, WINDOW + 1);
        started_in(1, 1);
        run_to_epoch(2, 2 * WINDOW);
        let marks: Vec<_> = CoverageMarks::<Test>::iter_prefix_values(1).collect();
        for index in 0..21 {
            assert_eq!(marks.iter().filter(|mark| (mark.first..mark.end).contains(&index)).count(), 1);
        }
        Verification::do_try_state().unwrap();
    });
}

#[test]
fn an_epoch_is_pruned_after_its_claims_in_bounded_steps() {
    let mut ext = build();
    ext.execute_with(|| {
        let ids: Vec<_> = (0..12).map(|_| finished(1)).collect();
        run_to(3 * WINDOW);
        ids.iter().for_each(|id| submit(4, *id, good()));
        submit(2, ids[0], bad());
        Missed::<Test>::insert(1, host(1), 1);
        run_to_epoch(3, 59);
        assert_eq!((Verdicts::<Test>::iter().count(), Panels::<Test>::iter().count()), (13, 2));
        Records::set(Default::default());
    });
    // The bound holds for what lies in the database, not for what a block has just written.
    ext.commit_all().unwrap();
    ext.execute_with(|| run_to(now() + 1));
    for left in [5, 0, 0, 0, 0] {
        ext.execute_with(|| {
            run_to(now() + 1);
            assert_eq!(Verdicts::<Test>::iter().count(), left);
        });
        ext.commit_all().unwrap();
    }
    ext.execute_with(|| {
        assert_eq!(Panels::<Test>::iter().count(), 0);
        assert_eq!(CoverageMarks::<Test>::iter_prefix(1).count(), 0);
        assert_eq!(Missed::<Test>::iter().count(), 0);
        assert!(!Coverage::<Test>::contains_key(1));
        assert_eq!(PrunedBefore::<Test>::get(), 2);
        Verification::do_try_state().unwrap();
    });
}
