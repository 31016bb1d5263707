//! A plant, from the commitment to what it comes to for planter, client and who approved it, over all pallets.

use crate::{
    answers::{Answer, Client, TOKENS},
    authorities::sprint,
    chain::{block, block_with, epoch, run, Host},
    duties::apply,
};
use frame_support::{assert_noop, assert_ok};
use pallet_verification::{Call, Error, LastBoundary, Negligences};
use sp_core::{crypto::Pair, H256};
use starling_math::plant::CONTEST_WINDOWS;
use starling_primitives::{
    plant::commitment,
    records::InferenceState,
    traits::Reputation as _,
    verdict::{Figures, Outcome, Verdict},
    AccountId, InferenceId, TOKEN,
};
use starling_runtime::{genesis, Balances, Rewards, Runtime, Verification};

const SALT: H256 = H256::repeat_byte(7);

/// As a host's worker sends it, with nothing to pay a fee from.
fn free(host: &Host, call: Call<Runtime>) {
    block_with(|| {
        assert_eq!(Balances::free_balance(AccountId::from(host.worker.public())), 0);
        assert_eq!(apply(&host.worker, call), Ok(Ok(())));
    });
}

/// An answer that its executor committed itself to, recorded, and approved by somebody.
struct Approved {
    client: Client,
    answer: Answer,
    planter: Host,
    inference: InferenceId,
}

/// The executor records both itself: no gateway has to help.
fn approved(gateway: &Host, approver: impl FnOnce(&Host) -> Host) -> (Approved, Host) {
    block();
    sprint([1_000, 1_000, 1_000, 1_000]);
    let client = Client::named("Eve");
    block_with(|| {
        assert_ok!(client.deposit(100 * TOKEN));
    });
    let answer = Answer::new(&client, &gateway.account, 1, false).expect("hosts have weight");
    let planter = answer.executor();
    let commitment = commitment(answer.finished.request_id, SALT);
    free(&planter, Call::commit_plant { commitment });
    block_with(|| {
        assert_ok!(answer.start(&planter));
        assert_ok!(answer.finish());
    });
    let inference = answer.id().expect("recorded");
    let approver = approver(&planter);
    let outcome = Outcome::Measured(Figures { tokens: TOKENS, distance_sum: 0, margin_sum: 0 });
    let items = vec![Verdict { inference, outcome }].try_into().expect("one fits");
    free(&approver, Call::submit_verdicts { items });
    (Approved { client, answer, planter, inference }, approver)
}

#[test]
fn a_plant_is_free_of_fees_and_costs_who_approved_it_its_due() {
    run(genesis::TEST, || {
        let gateway = Host::named("Alice");
        let (Approved { client, answer, planter, inference }, lazy) = approved(&gateway, |planter| {
            let parties = [&planter.account, &gateway.account];
            Host::all().into_iter().find(|host| !parties.contains(&&host.account)).expect("there are four")
        });
        let request = answer.finished.request_id;

        let issuance = Balances::total_issuance();
        let consent = client.consent(&request);
        free(&planter, Call::reveal_plant { inference, salt: SALT, consent: consent.clone() });
        assert_eq!(answer.record().map(|record| record.state), Some(InferenceState::Planted));
        let free_of = |client: &Client| pallet_inference::Deposits::<Runtime>::get(client.account()).free;
        assert_eq!(free_of(&client), 100 * TOKEN);
        assert_eq!(pallet_rewards::Fees::<Runtime>::get(inference.epoch, &planter.account), 0);
        let tally = pallet_attendance::Tallies::<Runtime>::get(inference.epoch, (0, &planter.account));
        assert_eq!((tally.answered, tally.struck), (0, 0));
        let again = Call::<Runtime>::reveal_plant { inference, salt: SALT, consent };
        block_with(|| {
            assert_noop!(planter.call(again), Error::<Runtime>::AlreadyRevealed);
        });

        let until = LastBoundary::<Runtime>::get().count + CONTEST_WINDOWS + 1;
        while LastBoundary::<Runtime>::get().count < until {
            block();
        }
        assert_eq!(Negligences::<Runtime>::get(epoch().index, &lazy.account), Some(inference));
        assert_eq!(Balances::total_issuance(), issuance);
        sprint([1_000, 1_000, 1_000, 1_000]);
        assert_eq!(Rewards::claimable(inference.epoch, &lazy.account), (0, 0));
        assert_eq!(Verification::reputation(&lazy.account), 0);
        for other in [&planter, &gateway] {
            assert!(Rewards::claimable(inference.epoch, &other.account).0 > 0);
        }
        // It keeps what it works for: its place in the next epoch's weights.
        assert!(pallet_hosts::Hosts::<Runtime>::get(&lazy.account).is_some_and(|info| info.convictions == 0));
    });
}

#[test]
fn a_contest_is_free_of_fees_for_who_approved_the_plant() {
    run(genesis::TEST, || {
        let gateway = Host::named("Alice");
        let (plant, gateway) = approved(&gateway, |_| Host::named("Alice"));
        let Approved { client, answer, planter, inference } = plant;
        let consent = client.consent(&answer.finished.request_id);
        free(&planter, Call::reveal_plant { inference, salt: SALT, consent });
        free(&gateway, Call::contest_plant { inference });
        block_with(|| {
            let worker =
                &Host::all().into_iter().find(|host| host.account != gateway.account).expect("three");
            let refused = apply(&worker.worker, Call::<Runtime>::contest_plant { inference });
            assert!(refused.is_err(), "what does nothing is not free");
        });
    });
}
