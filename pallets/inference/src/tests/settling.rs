use crate::{mock::*, Delegations, Deposit, Event, PendingFees};
use frame_support::{assert_ok, traits::fungible::Inspect};
use starling_primitives::{records::InferenceState, traits::Inferences, InferenceId};

const ID: InferenceId = InferenceId { epoch: 1, index: 0 };

fn finished(ask: &Ask) {
    start(ask);
    finish(ask, 100, 50);
}

#[test]
fn an_invalid_answer_is_refunded_in_full() {
    ExtBuilder::default().build_and_execute(|| {
        finished(&ask(0));
        <Inference as Inferences>::dispute(ID);
        assert_eq!(ask(0).record().unwrap().state, InferenceState::Disputed);
        <Inference as Inferences>::settle_dispute(ID, false);
        let record = ask(0).record().unwrap();
        assert_eq!((record.state, record.amount), (InferenceState::Invalid, 0));
        assert_eq!(deposit_of("Client"), Deposit { free: 10_000, reserved: 0 });
        assert_eq!(Balances::balance(&pot(1)), 0);
        // It was counted as an answer, and counts no more.
        let place = (1, PROFILE, ask(0).executor());
        assert_eq!(Answered::get(), [((1, PROFILE, ask(0).executor(), ask(0).gateway), 1)].into());
        assert_eq!(Struck::get(), [place]);
        let events = take_events();
        assert_eq!(events.get(events.len() - 2), Some(&Event::Disputed { id: ID }));
        assert_eq!(events.last(), Some(&Event::Settled { id: ID, valid: false, refunded: 350 }));
        // Over is over.
        <Inference as Inferences>::dispute(ID);
        assert_eq!(ask(0).record().unwrap().state, InferenceState::Invalid);
    });
}

#[test]
fn a_valid_answer_stays_paid() {
    ExtBuilder::default().build_and_execute(|| {
        finished(&ask(0));
        <Inference as Inferences>::dispute(ID);
        <Inference as Inferences>::settle_dispute(ID, true);
        let record = ask(0).record().unwrap();
        assert_eq!((record.state, record.amount), (InferenceState::Valid, 350));
        assert_eq!(Balances::balance(&pot(1)), 350);
        deliver(&ask(0));
        assert_eq!(ask(0).record().unwrap().state, InferenceState::Valid);
    });
}

#[test]
fn a_refund_gives_what_there_is() {
    ExtBuilder::default().build_and_execute(|| {
        finished(&ask(0));
        <Inference as Inferences>::dispute(ID);
        PotRefunds::set(false);
        <Inference as Inferences>::settle_dispute(ID, false);
        assert_eq!(deposit_of("Client"), Deposit { free: 9_650, reserved: 0 });
        assert_eq!(take_events().last(), Some(&Event::Settled { id: ID, valid: false, refunded: 0 }));
    });
}

#[test]
fn a_fee_that_still_waits_is_refunded_from_there() {
    ExtBuilder::default().build_and_execute(|| {
        start(&ask(0));
        finish(&ask(0), 5, 10);
        assert_eq!(PendingFees::<Test>::get(1).len(), 1);
        <Inference as Inferences>::dispute(ID);
        <Inference as Inferences>::settle_dispute(ID, false);
        assert!(!PendingFees::<Test>::contains_key(1));
        assert_eq!(deposit_of("Client"), Deposit { free: 10_000, reserved: 0 });
    });
}

#[test]
fn a_refund_gives_the_key_its_limit_back() {
    ExtBuilder::default().build_and_execute(|| {
        assert_ok!(Inference::delegate(RuntimeOrigin::signed(client()), account("Key"), 1_000));
        finished(&Ask { signer: "Key", ..ask(0) });
        let spent = || Delegations::<Test>::get(client(), account("Key")).unwrap().spent;
        assert_eq!(spent(), 350);
        <Inference as Inferences>::dispute(ID);
        <Inference as Inferences>::settle_dispute(ID, false);
        assert_eq!(spent(), 0);
    });
}

#[test]
fn a_proven_lie_is_refunded_from_every_paid_state_and_once() {
    type Step = fn();
    let voted_valid: Step = || {
        <Inference as Inferences>::dispute(ID);
        <Inference as Inferences>::settle_dispute(ID, true);
    };
    let ways: [Step; 4] =
        [|| (), || deliver(&ask(0)), || <Inference as Inferences>::dispute(ID), voted_valid];
    for way in ways {
        ExtBuilder::default().build_and_execute(|| {
            finished(&ask(0));
            way();
            assert_ne!(deposit_of("Client"), Deposit { free: 10_000, reserved: 0 });
            for _ in 0..2 {
                <Inference as Inferences>::invalidate(ID);
                assert_eq!(deposit_of("Client"), Deposit { free: 10_000, reserved: 0 });
                assert_eq!(ask(0).record().unwrap().state, InferenceState::Invalid);
            }
        });
    }
}

#[test]
fn a_plant_is_refunded_once_and_counts_for_nothing() {
    let ways: [fn(); 3] = [|| (), || deliver(&ask(0)), || <Inference as Inferences>::dispute(ID)];
    for way in ways {
        ExtBuilder::default().build_and_execute(|| {
            finished(&ask(0));
            assert_eq!(Answered::get().values().sum::<u32>(), 1);
            way();
            for _ in 0..2 {
                <Inference as Inferences>::plant(ID);
                <Inference as Inferences>::invalidate(ID);
                assert_eq!(deposit_of("Client"), Deposit { free: 10_000, reserved: 0 });
                assert_eq!(ask(0).record().unwrap().state, InferenceState::Planted);
            }
            assert_eq!(Answered::get().values().sum::<u32>(), 0, "nobody asks why it was not answered");
            assert!(Struck::get().is_empty() && Misses::get().is_empty());
        });
    }
}

#[test]
fn what_nobody_paid_is_not_refunded() {
    ExtBuilder::default().build_and_execute(|| {
        start(&ask(0));
        let reserved = deposit_of("Client");
        <Inference as Inferences>::invalidate(ID);
        <Inference as Inferences>::plant(ID);
        <Inference as Inferences>::invalidate(InferenceId { epoch: 9, index: 9 });
        assert_eq!(
            (ask(0).record().unwrap().state, deposit_of("Client")),
            (InferenceState::Started, reserved)
        );
    });
}

#[test]
fn only_an_answer_can_be_disputed() {
    ExtBuilder::default().build_and_execute(|| {
        start(&ask(0));
        <Inference as Inferences>::dispute(ID);
        assert_eq!(ask(0).record().unwrap().state, InferenceState::Started);
        <Inference as Inferences>::dispute(InferenceId { epoch: 9, index: 9 });
        <Inference as Inferences>::settle_dispute(InferenceId { epoch: 9, index: 9 }, false);
    });
}

#[test]
fn the_first_verdict_is_noted() {
    ExtBuilder::default().build_and_execute(|| {
        finished(&ask(0));
        <Inference as Inferences>::note_verdict(ID, 7);
        <Inference as Inferences>::note_verdict(ID, 9);
        assert_eq!(ask(0).record().unwrap().first_verdict_at, Some(7));
        assert_eq!(<Inference as Inferences>::record(ID), ask(0).record());
        assert_eq!(<Inference as Inferences>::count(1), 1);
    });
}
