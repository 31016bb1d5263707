use crate::{mock::*, Deposit, Event, PendingFees, Refusal};
use frame_support::traits::fungible::Inspect;
use starling_primitives::{
    records::{Delivery, FinishedIn, InferenceState},
    schedule::Schedule,
};

#[test]
fn finished_pays_the_price_and_releases_the_rest() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = ask(0);
        start(&ask);
        run_to(3);
        finish(&ask, 100, 50);
        // 100 x 2 + 50 x 3.
        assert_eq!(deposit_of("Client"), Deposit { free: 9_650, reserved: 0 });
        assert_eq!(Balances::balance(&pot(1)), 350);
        assert_eq!(FeesPaid::get().get(&(1, ask.executor())), Some(&350));
        let record = ask.record().unwrap();
        assert_eq!((record.state, record.amount), (InferenceState::Finished, 350));
        let result = record.result.unwrap();
        assert_eq!((result.prompt_tokens, result.completion_tokens, result.finished_at), (100, 50, 3));
        let events = take_events();
        let (id, request_id, host) = (ask.id().unwrap(), request_id(0), ask.executor());
        assert_eq!(events.last(), Some(&Event::Finished { id, request_id, price: 350, released: 650, host }));
    });
}

#[test]
fn the_price_is_never_above_the_reserve() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = Ask { max_price: 200, ..ask(0) };
        start(&ask);
        finish(&ask, 400, 400);
        assert_eq!(deposit_of("Client"), Deposit { free: 9_800, reserved: 0 });
        assert_eq!(Balances::balance(&pot(1)), 200);
    });
}

#[test]
fn finished_counts_once_and_only_from_the_executor_in_time() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = ask(0);
        let check = |expected| {
            assert_eq!(last_refusal(), expected);
            System::reset_events();
        };
        finish(&ask, 1, 1);
        check(Some(Refusal::UnknownRequest));
        start(&ask);
        finish_as(&host(1), vec![ask.finished(1, 1)]);
        check(Some(Refusal::NotInvolved));
        for (prompt, completion) in [(0, 1), (1, 0), (999, 2), (u32::MAX, 1)] {
            finish(&ask, prompt, completion);
            check(Some(Refusal::TokensOutOfRange));
        }
        run_to(1 + Schedule::TEST.expiry_blocks);
        finish(&ask, 500, 500);
        check(None);
        finish(&ask, 500, 500);
        check(Some(Refusal::TooLate));
        assert_eq!(deposit_of("Client"), Deposit { free: 9_000, reserved: 0 });
    });
}

#[test]
fn after_the_deadline_it_can_only_expire() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = ask(0);
        start(&ask);
        run_to(1 + Schedule::TEST.expiry_blocks);
        expire(&ask);
        assert_eq!(last_refusal(), Some(Refusal::NotExpired));
        run_to(2 + Schedule::TEST.expiry_blocks);
        finish(&ask, 1, 1);
        assert_eq!(last_refusal(), Some(Refusal::TooLate));
        expire(&ask);
        assert_eq!(deposit_of("Client"), Deposit { free: 10_000, reserved: 0 });
        assert_eq!(ask.record().unwrap().state, InferenceState::Expired);
        assert_eq!(Misses::get(), [(ask.executor(), 1)]);
        take_events();
        expire(&ask);
        assert_eq!(last_refusal(), Some(Refusal::TooLate));
        assert_eq!(Misses::get().len(), 1);
    });
}

#[test]
fn who_declared_to_be_down_misses_no_request() {
    ExtBuilder::default().build_and_execute(|| {
        let deadline = 2 + Schedule::TEST.expiry_blocks;
        start(&ask(0));
        run_to(deadline);
        // It was back before the request came.
        Away::set(Some((0, 0)));
        expire(&ask(0));
        assert_eq!(Misses::get().len(), 1);
        start(&ask(1));
        Away::set(Some((deadline + 2, deadline + 3)));
        run_to(2 * deadline);
        expire(&ask(1));
        assert_eq!(ask(1).record().unwrap().state, InferenceState::Expired);
        assert_eq!(deposit_of("Client"), Deposit { free: 10_000, reserved: 0 });
        assert_eq!(Misses::get().len(), 1);
    });
}

#[test]
fn an_epochs_records_keep_its_schedule() {
    ExtBuilder::default().build_and_execute(|| {
        run_to(Schedule::TEST.epoch_blocks);
        let ask = ask(0);
        start(&ask);
        run_to_epoch(2);
        let mut faster = Current::get();
        faster.schedule.expiry_blocks = 1;
        Current::set(faster);
        run_to(Schedule::TEST.epoch_blocks + Schedule::TEST.expiry_blocks);
        finish(&ask, 1, 1);
        assert_eq!(ask.record().unwrap().state, InferenceState::Finished);
    });
}

#[test]
fn a_batch_pays_once_for_all() {
    ExtBuilder::default().build_and_execute(|| {
        let asks: Vec<_> = (0..20).map(|n| Ask { max_price: 400, ..ask(n) }).collect();
        start_as(&host(1), asks.iter().map(Ask::started).collect());
        for id in 2..=4 {
            let own = asks.iter().filter(|ask| ask.executor() == host(id));
            finish_as(&host(id), own.map(|ask| ask.finished(10, 20)).collect());
        }
        assert_eq!(Balances::balance(&pot(1)), 20 * 80);
        assert_eq!(FeesPaid::get().values().sum::<u128>(), 20 * 80);
        assert_eq!(deposit_of("Client"), Deposit { free: 10_000 - 1_600, reserved: 0 });
    });
}

#[test]
fn fees_wait_until_the_pot_can_hold_them() {
    ExtBuilder::default().build_and_execute(|| {
        let asks: Vec<_> = (0..30).map(ask).collect();
        let of = |id: u8, skip: usize| {
            asks.iter().filter(|ask| ask.executor() == host(id)).nth(skip).unwrap().clone()
        };
        // Three small fees, each below the existential deposit; the third one makes the sum large enough.
        for (ask, paid) in [(of(4, 0), 0), (of(3, 0), 0), (of(4, 1), 120)] {
            start(&ask);
            finish(&ask, 5, 10);
            assert_eq!(Balances::balance(&pot(1)), paid);
        }
        assert!(PendingFees::<Test>::get(1).is_empty());
        assert_eq!(FeesPaid::get().get(&(1, host(4))), Some(&80));
        assert_eq!(FeesPaid::get().get(&(1, host(3))), Some(&40));
    });
}

#[test]
fn waiting_fees_follow_the_emission_into_the_pot() {
    ExtBuilder::default().build_and_execute(|| {
        start(&ask(0));
        finish(&ask(0), 5, 10);
        assert_eq!(PendingFees::<Test>::get(1).len(), 1);
        run_to_epoch(2);
        use frame_support::traits::fungible::Mutate;
        Balances::mint_into(&pot(1), 1_000).unwrap();
        run_to(Current::get().start + Schedule::TEST.grace_blocks);
        assert_eq!(Balances::balance(&pot(1)), 1_040);
        assert_eq!(FeesPaid::get().values().sum::<u128>(), 40);
        assert!(PendingFees::<Test>::get(1).is_empty());
    });
}

#[test]
fn a_retired_profile_is_still_priced() {
    ExtBuilder::default().build_and_execute(|| {
        start(&ask(0));
        Retired::set(true);
        finish(&ask(0), 100, 50);
        assert_eq!(Balances::balance(&pot(1)), 350);
    });
}

#[test]
fn delivered_follows_finished_once() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = ask(0);
        start(&ask);
        deliver(&ask);
        assert_eq!(last_refusal(), Some(Refusal::NotFinished));
        finish(&ask, 1, 1);
        let items = vec![ask.delivered()];
        Inference::deliver(worker(&host(2)), items.try_into().unwrap()).unwrap();
        assert_eq!(last_refusal(), Some(Refusal::NotInvolved));
        System::reset_events();
        deliver(&ask);
        let record = ask.record().unwrap();
        assert_eq!((record.state, record.delivery), (InferenceState::Delivered, Delivery::Matched));
        deliver(&ask);
        assert_eq!(last_refusal(), Some(Refusal::Duplicate));
    });
}

#[test]
fn a_mismatch_is_on_record() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = ask(0);
        start(&ask);
        finish(&ask, 1, 1);
        let mut other = ask.delivered();
        other.response_hash = request_id(99);
        Inference::deliver(worker(&host(1)), vec![other].try_into().unwrap()).unwrap();
        assert_eq!(ask.record().unwrap().delivery, Delivery::Mismatched);
        assert!(matches!(take_events().last(), Some(Event::Delivered { matched: false, .. })));
    });
}

/// A gateway that records another epoch than it asked with would make honest tokens look like a lie.
#[test]
fn an_answer_of_another_epochs_tape_is_refused() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = ask(0);
        start(&ask);
        let epoch = ask.id().unwrap().epoch;
        let record = |epoch| FinishedIn { epoch, finished: ask.finished(10, 20) };
        let finish = |epoch| {
            let items = vec![record(epoch)].try_into().unwrap();
            Inference::finish(worker(&ask.executor()), items).unwrap();
        };
        for other in [epoch.wrapping_sub(1), epoch + 1] {
            finish(other);
            assert_eq!(last_refusal(), Some(Refusal::OtherEpoch));
            assert_eq!(ask.record().unwrap().state, InferenceState::Started);
        }
        finish(epoch);
        assert_eq!(ask.record().unwrap().state, InferenceState::Finished);
    });
}
