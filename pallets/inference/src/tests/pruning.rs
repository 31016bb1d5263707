use crate::{mock::*, types::PruneCursor, Counts, Deposit, Inferences, PendingFees, Pruned, RequestIndex};
use frame_support::{traits::Hooks, weights::Weight};
use starling_primitives::schedule::Schedule;

#[test]
fn records_are_kept_for_two_more_epochs_and_pruned_in_bounded_steps() {
    ExtBuilder::default().build_and_execute(|| {
        start_as(&host(1), (0..9).map(|n| ask(n).started()).collect());
        finish(&ask(0), 100, 50);
        run_to_epoch(3);
        run_to(Current::get().start + Schedule::TEST.epoch_blocks - 1);
        assert_eq!(Inferences::<Test>::iter().count(), 9);
        assert_eq!(Pruned::<Test>::get(), PruneCursor { epoch: 1, index: 0 });
        // Four steps a block, in `on_idle` of the block before.
        let start = Current::get().start + Schedule::TEST.epoch_blocks;
        for (blocks, left) in [(1, 5), (2, 1), (3, 0)] {
            run_to(start + blocks);
            assert_eq!(Inferences::<Test>::iter().count(), left);
            Inference::do_try_state().unwrap();
        }
        assert_eq!(RequestIndex::<Test>::iter().count(), 0);
        assert_eq!(Counts::<Test>::iter().count(), 0);
        // Whatever was still reserved went back, and counts as missed.
        assert_eq!(deposit_of("Client"), Deposit { free: 10_000 - 350, reserved: 0 });
        assert_eq!(Misses::get().len(), 8);
        assert_eq!(Pruned::<Test>::get(), PruneCursor { epoch: 2, index: 0 });
    });
}

#[test]
fn a_block_without_time_prunes_nothing() {
    ExtBuilder::default().build_and_execute(|| {
        start(&ask(0));
        Current::set(epoch_state(9, 1));
        System::set_block_number(100);
        assert_eq!(Inference::on_idle(100, Weight::zero()), Weight::zero());
        assert_eq!(Pruned::<Test>::get(), PruneCursor::default());
        Inference::on_idle(100, Weight::MAX);
        assert_eq!(Pruned::<Test>::get(), PruneCursor { epoch: 3, index: 0 });
    });
}

#[test]
fn a_record_outlives_its_authorization() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = Ask { expires_in: 60, ..ask(0) };
        let item = ask.started();
        start(&ask);
        // A schedule with far shorter epochs came into force.
        Current::set(epoch_state(5, 20));
        System::set_block_number(61);
        Inference::on_idle(61, Weight::MAX);
        assert!(ask.record().is_some());
        System::set_block_number(62);
        Inference::on_idle(62, Weight::MAX);
        assert!(ask.record().is_none());
        start_as(&host(1), vec![starling_primitives::records::Started { epoch: 5, ..item }]);
        assert_eq!(last_refusal(), Some(crate::Refusal::AuthorizationOutOfRange));
    });
}

#[test]
fn fees_of_an_epoch_without_a_pot_are_not_lost() {
    ExtBuilder::default().build_and_execute(|| {
        start(&ask(0));
        finish(&ask(0), 5, 10);
        run_to_epoch(4);
        run_to(Current::get().start + 5);
        assert!(!PendingFees::<Test>::contains_key(1));
        assert_eq!(PendingFees::<Test>::get(4).to_vec(), [(Ask { epoch: 1, ..ask(0) }.executor(), 40)]);
    });
}
