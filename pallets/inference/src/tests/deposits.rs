use crate::{mock::*, Delegation, DelegationCount, Delegations, Deposit, Deposits, Error, Event, Refusal};
use frame_support::{assert_noop, assert_ok, traits::fungible::Inspect};

fn signed(name: &'static str) -> RuntimeOrigin {
    RuntimeOrigin::signed(account(name))
}

fn delegation() -> Option<Delegation> {
    Delegations::<Test>::get(client(), account("Key"))
}

#[test]
fn deposit_and_withdraw_move_money() {
    ExtBuilder::default().deposit(0).build_and_execute(|| {
        assert_eq!(ledger_account(), ED, "the account is endowed at genesis");
        assert_ok!(Inference::deposit(signed("Client"), 500));
        assert_eq!(deposit_of("Client"), Deposit { free: 500, reserved: 0 });
        assert_eq!(Balances::balance(&client()), ENDOWMENT - 500);
        assert_ok!(Inference::withdraw(signed("Client"), 200));
        assert_eq!(deposit_of("Client"), Deposit { free: 300, reserved: 0 });
        let client = client();
        assert_eq!(
            take_events(),
            [
                Event::Deposited { client: client.clone(), amount: 500 },
                Event::Withdrawn { client, amount: 200 }
            ]
        );
    });
}

#[test]
fn everything_can_be_withdrawn_and_leaves_no_entry() {
    ExtBuilder::default().build_and_execute(|| {
        assert_ok!(Inference::withdraw(signed("Client"), 10_000));
        assert!(!Deposits::<Test>::contains_key(client()));
        assert_eq!(Balances::balance(&client()), ENDOWMENT);
        assert_eq!(ledger_account(), ED);
    });
}

#[test]
fn dust_in_the_ledger_survives_other_withdrawals() {
    ExtBuilder::default().build_and_execute(|| {
        assert_ok!(Inference::deposit(signed("Other"), 10));
        assert_ok!(Inference::withdraw(signed("Client"), 10_000));
        assert_ok!(Inference::withdraw(signed("Other"), 10));
        assert_eq!(ledger_account(), ED);
    });
}

#[test]
fn deposits_below_the_least_and_withdrawals_above_the_free_part_are_refused() {
    ExtBuilder::default().build_and_execute(|| {
        assert_noop!(Inference::deposit(signed("Client"), 9), Error::<Test>::DepositTooLow);
        assert_noop!(Inference::withdraw(signed("Client"), 10_001), Error::<Test>::NotEnoughFree);
        assert_noop!(Inference::withdraw(signed("Other"), 1), Error::<Test>::NotEnoughFree);
        start(&ask(0));
        assert_noop!(Inference::withdraw(signed("Client"), 9_001), Error::<Test>::NotEnoughFree);
        assert_ok!(Inference::withdraw(signed("Client"), 9_000));
    });
}

#[test]
fn a_delegated_key_spends_up_to_its_limit() {
    ExtBuilder::default().build_and_execute(|| {
        let by_key = |n| Ask { signer: "Key", ..ask(n) };
        start(&by_key(0));
        assert_eq!(last_refusal(), Some(Refusal::NotDelegated));
        assert_ok!(Inference::delegate(signed("Client"), account("Key"), 1_500));
        start(&by_key(0));
        assert_eq!(delegation(), Some(Delegation { limit: 1_500, spent: 0, reserved: 1_000 }));
        start(&by_key(1));
        assert_eq!(last_refusal(), Some(Refusal::LimitExceeded));
        finish(&by_key(0), 10, 20);
        assert_eq!(delegation(), Some(Delegation { limit: 1_500, spent: 80, reserved: 0 }));
        start(&by_key(1));
        assert_eq!(delegation(), Some(Delegation { limit: 1_500, spent: 80, reserved: 1_000 }));
        assert_eq!(by_key(1).record().unwrap().delegate, Some(account("Key")));
    });
}

#[test]
fn a_key_cannot_spend_for_another_client() {
    ExtBuilder::default().build_and_execute(|| {
        assert_ok!(Inference::deposit(signed("Other"), 5_000));
        assert_ok!(Inference::delegate(signed("Client"), account("Key"), 5_000));
        start(&Ask { client: "Other", signer: "Key", ..ask(0) });
        assert_eq!(last_refusal(), Some(Refusal::NotDelegated));
        start(&Ask { client: "Other", signer: "Client", ..ask(0) });
        assert_eq!(last_refusal(), Some(Refusal::NotDelegated));
    });
}

#[test]
fn raising_the_limit_keeps_what_was_spent() {
    ExtBuilder::default().build_and_execute(|| {
        assert_ok!(Inference::delegate(signed("Client"), account("Key"), 1_000));
        let by_key = Ask { signer: "Key", ..ask(0) };
        start(&by_key);
        finish(&by_key, 10, 20);
        assert_ok!(Inference::delegate(signed("Client"), account("Key"), 1_100));
        assert_eq!(delegation(), Some(Delegation { limit: 1_100, spent: 80, reserved: 0 }));
    });
}

#[test]
fn a_revoked_key_stops_at_once_and_its_running_requests_go_on() {
    ExtBuilder::default().build_and_execute(|| {
        assert_ok!(Inference::delegate(signed("Client"), account("Key"), 5_000));
        let by_key = |n| Ask { signer: "Key", ..ask(n) };
        start(&by_key(0));
        start(&by_key(1));
        assert_ok!(Inference::revoke(signed("Client"), account("Key")));
        assert_noop!(Inference::revoke(signed("Client"), account("Key")), Error::<Test>::NotDelegated);
        start(&by_key(2));
        assert_eq!(last_refusal(), Some(Refusal::NotDelegated));
        finish(&by_key(0), 10, 20);
        assert_eq!(delegation().unwrap().reserved, 1_000);
        run_to(20);
        expire(&by_key(1));
        assert_eq!(delegation(), None);
        assert_eq!(DelegationCount::<Test>::get(client()), 0);
        assert_eq!(deposit_of("Client"), Deposit { free: 10_000 - 80, reserved: 0 });
    });
}

#[test]
fn delegations_are_bounded() {
    ExtBuilder::default().build_and_execute(|| {
        for id in 50..53 {
            assert_ok!(Inference::delegate(signed("Client"), host(id), 1));
        }
        let too_many = Error::<Test>::TooManyDelegations;
        assert_noop!(Inference::delegate(signed("Client"), host(53), 1), too_many);
        assert_noop!(Inference::delegate(signed("Client"), host(50), 0), Error::<Test>::LimitZero);
        assert_ok!(Inference::delegate(signed("Client"), host(50), 2));
        assert_ok!(Inference::revoke(signed("Client"), host(51)));
        assert_ok!(Inference::delegate(signed("Client"), host(53), 1));
    });
}
