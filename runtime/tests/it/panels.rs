//! A dispute, from the accusation to what it comes to for client, executor and panel, over all pallets.

use crate::{
    answers::{Answer, Client, TOKENS},
    authorities::sprint,
    chain::{block, block_with, epoch, genesis_hash, run, run_to, Host},
    duties::apply,
};
use frame_support::{assert_noop, assert_ok, dispatch::DispatchResult};
use pallet_hosts::HostStatus;
use pallet_verification::{Call, DisputeStatus, Disputes, LastBoundary, Panels};
use sp_core::{crypto::Pair, H256};
use starling_math::{clock, draw, duty, panel};
use starling_primitives::{
    records::InferenceState,
    traits::{Beacon as _, Hosts as _, Reputation as _, Round, Weights as _},
    verdict::{Figures, Outcome, PanelCommit, PanelReveal, PanelRound, Verdict},
    vrf::{self, VrfInput},
    AccountId, InferenceId, TOKEN,
};
use starling_runtime::{genesis, Balances, Beacon, Hosts, Rewards, Runtime, Sprint, System, Verification};

const GOOD: Outcome = Outcome::Measured(Figures { tokens: TOKENS, distance_sum: 0, margin_sum: 0 });

fn verdict(inference: InferenceId, outcome: Outcome) -> Call<Runtime> {
    Call::submit_verdicts { items: vec![Verdict { inference, outcome }].try_into().expect("one fits") }
}

/// What a member commits to, and reveals.
fn vote(member: &Host, inference: InferenceId, round: PanelRound, outcome: Outcome) -> [Call<Runtime>; 2] {
    let reveal = PanelReveal { inference, round, outcome, salt: H256::repeat_byte(7) };
    let commit = PanelCommit { inference, round, commitment: reveal.commitment(&member.account) };
    [
        Call::commit_verdicts { items: vec![commit].try_into().expect("one fits") },
        Call::reveal_verdicts { items: vec![reveal].try_into().expect("one fits") },
    ]
}

fn run_to_boundary(times: u32) {
    let count = LastBoundary::<Runtime>::get().count + times;
    while LastBoundary::<Runtime>::get().count < count {
        block();
    }
}

/// Hosts that have nothing to do with an answer.
fn others(answer: &Answer, accuser: &Host) -> Vec<Host> {
    let parties = [&answer.started.executor, &accuser.account];
    Host::all().into_iter().filter(|host| !parties.contains(&&host.account)).collect()
}

/// A block in which a call succeeds.
fn takes(call: impl FnOnce() -> DispatchResult) {
    block_with(|| {
        assert_ok!(call());
    });
}

/// An answer that is on chain and paid.
fn finish(answer: &Answer, gateway: &Host) -> InferenceId {
    block_with(|| {
        assert_ok!(answer.start(gateway));
        assert_ok!(answer.finish());
    });
    answer.id().expect("recorded")
}

#[test]
fn a_panel_takes_a_bad_answer_back_free_of_fees() {
    run(genesis::TEST, || {
        block();
        sprint([1_000, 1_000, 1_000, 1_000]);
        let (client, gateway) = (Client::named("Eve"), Host::named("Alice"));
        takes(|| client.deposit(100 * TOKEN));
        let answer = Answer::new(&client, &gateway.account, 1, false).expect("hosts have weight");
        let id = finish(&answer, &gateway);
        takes(|| gateway.call(verdict(id, Outcome::ReplayFailed)));
        assert_eq!(answer.record().map(|record| record.state), Some(InferenceState::Disputed));

        run_to_boundary(1);
        let panel = Panels::<Runtime>::get(id.epoch, (id.index, 0)).expect("it was drawn");
        let judges = others(&answer, &gateway);
        let mut expected: Vec<_> = judges.iter().map(|host| host.account.clone()).collect();
        expected.sort();
        assert_eq!(panel.members.iter().map(|member| member.host.clone()).collect::<Vec<_>>(), expected);
        let issuance = Balances::total_issuance();
        for step in 0..2 {
            block_with(|| {
                for judge in &judges {
                    let call = vote(judge, id, 0, Outcome::ReplayFailed)[step].clone();
                    assert_eq!(Balances::free_balance(AccountId::from(judge.worker.public())), 0);
                    assert_eq!(apply(&judge.worker, call), Ok(Ok(())));
                }
            });
        }

        let executor = &answer.started.executor;
        assert_eq!(answer.record().map(|record| record.state), Some(InferenceState::Invalid));
        let free = pallet_inference::Deposits::<Runtime>::get(client.account()).free;
        assert_eq!(free, 100 * TOKEN);
        let info = pallet_hosts::Hosts::<Runtime>::get(executor).expect("registered");
        assert_eq!((info.status, info.convictions), (HostStatus::Suspended, 1));
        assert_eq!((Verification::reputation(executor), Rewards::claimable(id.epoch, executor)), (0, (0, 0)));
        assert!(!Hosts::may_sprint(executor));
        assert_eq!(Balances::total_issuance(), issuance);
    });
}

#[test]
fn a_silent_member_cannot_claim_until_it_has_looked() {
    run(genesis::TEST, || {
        block();
        sprint([1_000, 1_000, 1_000, 1_000]);
        let (client, gateway) = (Client::named("Eve"), Host::named("Alice"));
        takes(|| client.deposit(100 * TOKEN));
        let judged = epoch().index;
        let seed = Beacon::seed(Round::Epoch(judged)).expect("the epoch runs");
        let claim_of = |host: &Host| vrf::sign(&host.worker, &VrfInput::Duty(genesis_hash(), judged, seed));

        // An answer that the silent one's secret does not draw: only the panel makes it its duty.
        let weights = Sprint::of_profile(judged, 0);
        let weight = |host: &AccountId| {
            weights.iter().find(|entry| entry.host == *host).map_or(0, |entry| entry.weight)
        };
        let is_drawn = |answer: &Answer, host: &Host| {
            let (_, secret) = claim_of(host);
            let (request, executor) = (&answer.finished.request_id, &answer.started.executor);
            let total = draw::total(&weights);
            duty::is_duty(&secret, request, duty::target(0), weight(&host.account), total, weight(executor))
        };
        let answer = (1..)
            .filter_map(|n| Answer::new(&client, &gateway.account, n, false))
            .find(|answer| !is_drawn(answer, &others(answer, &gateway)[0]))
            .expect("a third is not drawn");
        let judges = others(&answer, &gateway);
        let (silent, speaks) = (&judges[0], &judges[1]);
        let id = finish(&answer, &gateway);
        takes(|| gateway.call(verdict(id, Outcome::ReplayFailed)));
        run_to_boundary(1);
        let [commit, reveal] = vote(speaks, id, 0, GOOD);
        takes(|| speaks.call(commit));
        run_to_boundary(panel::COMMIT_WINDOWS);
        takes(|| speaks.call(reveal));
        // One of two equal members is no majority; the second panel hears nobody.
        sprint([1_000, 1_000, 1_000, 1_000]);
        run_to(clock::claims_open(&epoch()) + 1);
        let status = Disputes::<Runtime>::get(id.epoch, id.index).map(|dispute| dispute.status);
        assert_eq!(status, Some(DisputeStatus::Valid));

        let claim = |host: &Host| {
            let (proof, _) = claim_of(host);
            host.call(pallet_rewards::Call::<Runtime>::claim { epoch: judged, proof })
        };
        assert_noop!(claim(silent), pallet_rewards::Error::<Runtime>::DutyMissing);
        assert_eq!(Rewards::undone_duties(judged, &silent.account, &claim_of(silent).1), [id.index]);
        takes(|| claim(speaks));
        takes(|| silent.call(verdict(id, GOOD)));
        takes(|| claim(silent));
        assert!(System::block_number() < clock::epoch_end(&epoch()));
    });
}
