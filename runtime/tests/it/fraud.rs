//! A lie, from the request to the conviction, over all pallets.

use crate::{
    answers::{Answer, Client, TOKENS},
    authorities::sprint,
    chain::{block, block_with, run, Host},
    duties::apply,
};
use frame_support::assert_ok;
use pallet_hosts::HostStatus;
use sp_core::Pair;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError};
use starling_primitives::{
    records::InferenceState,
    traits::{Hosts as _, Reputation as _},
    AccountId, TOKEN,
};
use starling_runtime::{genesis, Balances, Hosts, Rewards, Runtime, Verification};

fn free(client: &Client) -> u128 {
    pallet_inference::Deposits::<Runtime>::get(client.account()).free
}

/// A lie (or an honest answer) that is on chain and paid.
fn finished(client: &Client, gateway: &Host, n: u32, liar: bool) -> Answer {
    let answer = Answer::new(client, &gateway.account, n, liar).expect("hosts have weight");
    block_with(|| {
        assert_ok!(answer.start(gateway));
        assert_ok!(answer.finish());
    });
    assert_eq!(answer.record().map(|record| record.state), Some(InferenceState::Finished));
    answer
}

#[test]
fn a_worker_shows_a_lie_for_free_and_the_client_has_its_money_back() {
    run(genesis::TEST, || {
        block();
        sprint([1_000, 1_000, 1_000, 1_000]);
        let (client, gateway) = (Client::named("Eve"), Host::named("Alice"));
        assert_ok!(client.deposit(100 * TOKEN));
        let answer = finished(&client, &gateway, 1, true);
        let price = genesis::demo_profile().price(TOKENS, TOKENS);
        assert_eq!(free(&client), 100 * TOKEN - price);
        let (liar, id) = (answer.started.executor.clone(), answer.id().expect("recorded"));
        let issuance = Balances::total_issuance();

        let accuser = Host::all().into_iter().find(|host| host.account != liar).expect("there are four");
        let worker = AccountId::from(accuser.worker.public());
        assert_eq!(Balances::free_balance(&worker), 0);
        let proof = answer.proof().expect("there is a window");
        let call = pallet_verification::Call::<Runtime>::prove_fraud { proof: Box::new(proof) };
        block_with(|| {
            assert_eq!(apply(&accuser.worker, call.clone()), Ok(Ok(())));
            // What has fallen is shown to nobody for free.
            let refused = Err(TransactionValidityError::Invalid(InvalidTransaction::Payment));
            assert_eq!(apply(&accuser.worker, call.clone()), refused);
        });

        assert_eq!(free(&client), 100 * TOKEN);
        assert_eq!(answer.record().map(|record| record.state), Some(InferenceState::Invalid));
        let info = pallet_hosts::Hosts::<Runtime>::get(&liar).expect("registered");
        assert_eq!((info.status, info.convictions), (HostStatus::Suspended, 1));
        assert_eq!(Verification::reputation(&liar), 0);
        assert_eq!(Rewards::claimable(id.epoch, &liar), (0, 0));
        assert!(!Hosts::may_sprint(&liar));
        assert_eq!(Balances::total_issuance(), issuance);
    });
}

#[test]
fn a_false_proof_burns_from_the_bond_or_from_the_account() {
    run(genesis::TEST, || {
        block();
        sprint([1_000, 1_000, 1_000, 1_000]);
        let (client, gateway) = (Client::named("Eve"), Host::named("Alice"));
        assert_ok!(client.deposit(100 * TOKEN));
        let answer = finished(&client, &gateway, 1, false);
        let proof = Box::new(answer.proof().expect("there is a window"));
        let call = pallet_verification::Call::<Runtime>::prove_fraud { proof };
        let deposit = starling_runtime::configs::FRAUD_DEPOSIT;
        let issuance = Balances::total_issuance();

        let held = || pallet_hosts::Hosts::<Runtime>::get(&gateway.account).map(|info| info.bond);
        let bond = held().expect("registered");
        assert_ok!(gateway.call(call.clone()));
        assert_eq!(held(), Some(bond - deposit));
        let before = Balances::free_balance(client.account());
        assert_ok!(client.call(call));
        assert_eq!(Balances::free_balance(client.account()), before - deposit);
        assert_eq!(Balances::total_issuance(), issuance - 2 * deposit);
        assert_eq!(answer.record().map(|record| record.state), Some(InferenceState::Finished));
        assert!(Hosts::may_sprint(&answer.started.executor));
        block();
    });
}
