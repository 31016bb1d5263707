//! Random calls of everybody over all pallets: nothing panics, no unit of money appears or disappears, and every pallet's
//! own invariants hold after each block.
//!
//! `PROPTEST_CASES` sets the number of sequences; `scripts/fuzz` runs many. What it finds is kept in
//! `tests/proptest-regressions` and tried first from then on.

use crate::{
    answers::{Answer, Client, TOKENS},
    calls::AnyCall,
    chain::{block, block_with, epoch, genesis_hash, run, Host},
};
use frame_support::{dispatch::DispatchResult, traits::fungible::InspectHold};
use proptest::prelude::*;
use starling_math::clock;
use starling_primitives::{
    fraud::Evidence,
    plant,
    records::InferenceState,
    sprint::{SprintCommitment, SprintVerdict},
    traits::{Beacon as _, Round},
    verdict::{Figures, Outcome, PanelCommit, PanelReveal, Verdict},
    vrf::{self, VrfInput},
    AccountId, Balance, H256, TOKEN,
};
use starling_runtime::{
    configs::EXISTENTIAL_DEPOSIT, genesis, Balances, Beacon, Inference, Rewards, Runtime, RuntimeEvent,
    RuntimeHoldReason, System,
};

/// Calls are made whether or not they are allowed.
fn ignore(_: DispatchResult) {}

/// Within the limits, close to them, beyond them, or nothing.
fn outcome_of(choice: u8) -> Outcome {
    let sum = |distance_sum| Outcome::Measured(Figures { tokens: TOKENS, distance_sum, margin_sum: 0 });
    [sum(0), sum(1_000), sum(80_000), Outcome::Unavailable][usize::from(choice)]
}

#[derive(Clone, Debug)]
enum Step {
    Deposit(bool, Balance),
    Withdraw(bool, Balance),
    Ask {
        client: bool,
        gateway: usize,
        liar: bool,
        finish: bool,
    },
    Finish(usize),
    Expire(usize),
    Verdict {
        by: usize,
        back: usize,
        outcome: u8,
    },
    /// Everybody but `absent` commits to a verdict on one of the last answers, whether or not there is a panel.
    Commit {
        absent: usize,
        back: usize,
        outcome: u8,
    },
    /// Everybody reveals what it committed to last, whether or not it is time.
    Reveal,
    Prove {
        by: usize,
        back: usize,
        change: u8,
    },
    /// The executor commits itself the block before, so that it can say later that the answer was bad.
    Plant {
        client: bool,
        gateway: usize,
    },
    /// That one of the last plants was one, with the consent of its client or of the other one.
    Uncover {
        back: usize,
        other: bool,
    },
    /// Everybody contests it.
    Contest(usize),
    Claim(usize),
    Registry {
        host: usize,
        call: u8,
    },
    Blocks(u32),
    Epoch {
        absent: usize,
        fabricated: bool,
    },
    Call(AnyCall),
}

fn step() -> impl Strategy<Value = Step> {
    let host = 0usize..4;
    prop_oneof![
        2 => (any::<bool>(), 0..200 * TOKEN).prop_map(|(client, amount)| Step::Deposit(client, amount)),
        1 => (any::<bool>(), 0..100 * TOKEN).prop_map(|(client, amount)| Step::Withdraw(client, amount)),
        8 => (any::<bool>(), host.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(client, gateway, liar, finish)| Step::Ask { client, gateway, liar, finish }),
        2 => (0usize..8).prop_map(Step::Finish),
        2 => (0usize..8).prop_map(Step::Expire),
        8 => (host.clone(), 0usize..8, 0u8..4).prop_map(|(by, back, outcome)| Step::Verdict { by, back, outcome }),
        6 => (0usize..6, 0usize..8, 0u8..4)
            .prop_map(|(absent, back, outcome)| Step::Commit { absent, back, outcome }),
        6 => Just(Step::Reveal),
        5 => (0usize..5, 0usize..8, 0u8..4).prop_map(|(by, back, change)| Step::Prove { by, back, change }),
        4 => (any::<bool>(), host.clone()).prop_map(|(client, gateway)| Step::Plant { client, gateway }),
        3 => (0usize..3, prop::bool::weighted(0.1)).prop_map(|(back, other)| Step::Uncover { back, other }),
        2 => (0usize..3).prop_map(Step::Contest),
        3 => host.clone().prop_map(Step::Claim),
        2 => (host.clone(), 0u8..6).prop_map(|(host, call)| Step::Registry { host, call }),
        2 => (1u32..12).prop_map(Step::Blocks),
        2 => (0usize..6, any::<bool>()).prop_map(|(absent, fabricated)| Step::Epoch { absent, fabricated }),
        20 => AnyCall::strategy().prop_map(Step::Call),
    ]
}

struct World {
    clients: [Client; 2],
    answers: Vec<Answer>,
    /// What was committed to, by whom.
    sealed: Vec<(usize, PanelReveal)>,
    /// By which client, and what.
    plants: Vec<(bool, Answer)>,
    /// What the events explain of the issuance.
    issuance: Balance,
}

impl World {
    fn new() -> Self {
        let clients = [Client::named("Eve"), Client::named("Ferdie")];
        let issuance = Balances::total_issuance();
        Self { clients, answers: Vec::new(), sealed: Vec::new(), plants: Vec::new(), issuance }
    }

    fn answer(&self, back: usize) -> Option<&Answer> {
        self.answers.iter().rev().nth(back)
    }

    /// Makes a block with these calls, and looks at the books.
    fn block(&mut self, inside: impl FnOnce()) {
        block_with(inside);
        self.account_for_block();
        self.check_books();
    }

    /// Whether or not a call is allowed.
    fn take(&mut self, step: Step) {
        let named = |other: bool| &self.clients[usize::from(other)];
        match step {
            Step::Deposit(other, amount) => {
                let client = Client(named(other).0.clone());
                self.block(|| ignore(client.deposit(amount)));
            }
            Step::Withdraw(other, amount) => {
                let client = Client(named(other).0.clone());
                let call = pallet_inference::Call::<Runtime>::withdraw { amount };
                self.block(|| ignore(client.call(call)));
            }
            Step::Ask { client, gateway, liar, finish } => {
                let gateway = Host::all().into_iter().nth(gateway).expect("there are four");
                let n = self.answers.len() as u32;
                let Some(answer) = Answer::new(named(client), &gateway.account, n, liar) else { return };
                self.answers.push(answer.clone());
                self.block(|| {
                    ignore(answer.start(&gateway));
                    if finish {
                        ignore(answer.finish());
                    }
                });
            }
            Step::Finish(back) => {
                let Some(answer) = self.answer(back).cloned() else { return };
                self.block(|| ignore(answer.finish()));
            }
            Step::Expire(back) => {
                let Some(answer) = self.answer(back) else { return };
                let items = vec![answer.finished.request_id].try_into().expect("one fits");
                let call = pallet_inference::Call::<Runtime>::expire { items };
                let client = Client(self.clients[0].0.clone());
                self.block(|| ignore(client.call(call)));
            }
            Step::Verdict { by, back, outcome } => {
                let Some(inference) = self.answer(back).and_then(Answer::id) else { return };
                let outcome = outcome_of(outcome);
                let items = vec![Verdict { inference, outcome }].try_into().expect("one fits");
                let call = pallet_verification::Call::<Runtime>::submit_verdicts { items };
                let host = Host::all().into_iter().nth(by).expect("there are four");
                self.block(|| ignore(host.call(call)));
            }
            Step::Commit { absent, back, outcome } => self.commit(absent, back, outcome),
            Step::Reveal => self.reveal(),
            Step::Prove { by, back, change } => self.prove(by, back, change),
            Step::Plant { client, gateway } => self.plant(client, gateway),
            Step::Uncover { back, other } => self.uncover(back, other),
            Step::Contest(back) => {
                let Some((_, answer)) = self.plants.iter().rev().nth(back) else { return };
                let Some(inference) = answer.id() else { return };
                self.block(|| {
                    for host in Host::all() {
                        let call = pallet_verification::Call::<Runtime>::contest_plant { inference };
                        ignore(host.call(call));
                    }
                });
            }
            Step::Claim(host) => self.claim(host),
            Step::Registry { host, call } => self.registry(host, call),
            Step::Blocks(blocks) => (0..blocks).for_each(|_| self.block(|| ())),
            Step::Epoch { absent, fabricated } => self.epoch(absent, fabricated),
            Step::Call(call) => self.block(|| ignore(call.make())),
        }
    }

    fn plant(&mut self, client: bool, gateway: usize) {
        let gateway = Host::all().into_iter().nth(gateway).expect("there are four");
        let n = self.answers.len() as u32;
        let named = &self.clients[usize::from(client)];
        let Some(answer) = Answer::new(named, &gateway.account, n, false) else { return };
        self.answers.push(answer.clone());
        self.plants.push((client, answer.clone()));
        let commitment = plant::commitment(answer.finished.request_id, H256::zero());
        self.block(|| {
            let call = pallet_verification::Call::<Runtime>::commit_plant { commitment };
            ignore(answer.executor().call(call));
        });
        self.block(|| {
            ignore(answer.start(&gateway));
            ignore(answer.finish());
        });
    }

    fn uncover(&mut self, back: usize, other: bool) {
        let Some((client, answer)) = self.plants.iter().rev().nth(back).cloned() else { return };
        let Some(inference) = answer.id() else { return };
        let agreed = &self.clients[usize::from(client != other)];
        let consent = agreed.consent(&answer.finished.request_id);
        self.block(|| {
            let salt = H256::zero();
            let call = pallet_verification::Call::<Runtime>::reveal_plant { inference, salt, consent };
            let revealed = answer.executor().call(call);
            assert!(revealed.is_err() || !other, "whoever asked agreed");
        });
    }

    fn commit(&mut self, absent: usize, back: usize, outcome: u8) {
        let Some(inference) = self.answer(back).and_then(Answer::id) else { return };
        let dispute = pallet_verification::Disputes::<Runtime>::get(inference.epoch, inference.index);
        let round = dispute.and_then(|dispute| dispute.panels.checked_sub(1)).unwrap_or(0);
        let reveal =
            PanelReveal { inference, round, outcome: outcome_of(outcome), salt: H256::repeat_byte(outcome) };
        let present: Vec<_> = Host::all().into_iter().enumerate().filter(|(id, _)| *id != absent).collect();
        self.sealed = present.iter().map(|(id, _)| (*id, reveal)).collect();
        self.block(|| {
            for (_, host) in &present {
                let commitment = reveal.commitment(&host.account);
                let items = vec![PanelCommit { inference, round, commitment }].try_into().expect("one fits");
                ignore(host.call(pallet_verification::Call::<Runtime>::commit_verdicts { items }));
            }
        });
    }

    fn reveal(&mut self) {
        let sealed = self.sealed.clone();
        let hosts = Host::all();
        self.block(|| {
            for (by, reveal) in sealed {
                let items = vec![reveal].try_into().expect("one fits");
                ignore(hosts[by].call(pallet_verification::Call::<Runtime>::reveal_verdicts { items }));
            }
        });
    }

    fn prove(&mut self, by: usize, back: usize, change: u8) {
        let Some(mut proof) = self.answer(back).and_then(Answer::proof) else { return };
        match (change, &mut proof.evidence) {
            (1, evidence) => *evidence = Evidence::Contradiction,
            (2, Evidence::Window { opened, .. }) => opened.index = opened.index.wrapping_add(1),
            (3, Evidence::Window { header, .. }) => header.max_tokens = 0,
            _ => {}
        }
        let call = pallet_verification::Call::<Runtime>::prove_fraud { proof: Box::new(proof) };
        let client = Client(self.clients[1].0.clone());
        let host = Host::all().into_iter().nth(by);
        self.block(|| {
            ignore(match host {
                Some(host) => host.call(call),
                None => client.call(call),
            });
        });
    }

    fn claim(&mut self, host: usize) {
        let Some(epoch) = epoch().index.checked_sub(1) else { return };
        let Some(seed) = Beacon::seed(Round::Epoch(epoch)) else { return };
        let host = Host::all().into_iter().nth(host).expect("there are four");
        let (proof, _) = vrf::sign(&host.worker, &VrfInput::Duty(genesis_hash(), epoch, seed));
        let call = pallet_rewards::Call::<Runtime>::claim { epoch, proof };
        self.block(|| ignore(host.call(call)));
    }

    fn registry(&mut self, host: usize, call: u8) {
        let names = ["Alice", "Bob", "Charlie", "Dave"];
        let cold = Client::named(names[host]);
        let call: pallet_hosts::Call<Runtime> = match call {
            0 => pallet_hosts::Call::drain {},
            1 | 2 => pallet_hosts::Call::resume {},
            3 => pallet_hosts::Call::deregister {},
            4 => {
                let from = System::block_number().saturating_add(epoch().schedule.coverage_blocks);
                pallet_hosts::Call::declare_maintenance { from, blocks: 1 }
            }
            _ => pallet_hosts::Call::set_profiles { profiles: vec![0].try_into().expect("one fits") },
        };
        self.block(|| ignore(cold.call(call)));
    }

    /// Everybody but `absent` reveals, races and judges; ends in the first block of the next epoch.
    fn epoch(&mut self, absent: usize, fabricated: bool) {
        let before = epoch().index;
        let present: Vec<Host> = Host::all()
            .into_iter()
            .enumerate()
            .filter(|(id, _)| *id != absent)
            .map(|(_, host)| host)
            .collect();
        let to = |world: &mut Self, number: u32| {
            while System::block_number() < number && epoch().index == before {
                world.block(|| ());
            }
        };
        to(self, clock::reveal_start(&epoch()));
        self.block(|| present.iter().for_each(|host| ignore(host.contribute())));
        to(self, clock::commit_start(&epoch()).saturating_sub(1));
        self.block(|| {
            for (count, host) in (1_000..).step_by(500).zip(&present) {
                let commitment = SprintCommitment { root: H256::repeat_byte(1), count };
                let call = pallet_sprint::Call::<Runtime>::commit { profile: 0, commitment };
                ignore(host.call(call));
            }
        });
        to(self, clock::check_start(&epoch()));
        self.block(|| {
            let checked = epoch().schedule.sprint_samples;
            for host in &present {
                let others = present.iter().filter(|prover| prover.account != host.account);
                let verdict = SprintVerdict { checked, failed: 0, fabricated };
                let verdicts: Vec<_> = others.map(|prover| (prover.account.clone(), verdict)).collect();
                let verdicts = verdicts.try_into().expect("a batch holds three");
                let call = pallet_sprint::Call::<Runtime>::submit_verdicts { profile: 0, verdicts };
                ignore(host.call(call));
            }
        });
        while epoch().index == before {
            self.block(|| ());
        }
    }

    /// Minting and burning are what their events say.
    fn account_for_block(&mut self) {
        use pallet_verification::{Accuser, Event as Verification};
        for record in System::events() {
            match record.event {
                RuntimeEvent::Rewards(pallet_rewards::Event::Minted { amount, .. }) => {
                    self.issuance += amount
                }
                RuntimeEvent::Rewards(pallet_rewards::Event::Burned { amount, .. })
                | RuntimeEvent::Hosts(pallet_hosts::Event::BondBurned { amount, .. }) => {
                    self.issuance -= amount;
                }
                RuntimeEvent::Verification(Verification::FraudUnproven {
                    accuser: Accuser::Account(_),
                    burned,
                    ..
                }) => self.issuance -= burned,
                _ => {}
            }
        }
    }

    fn check_books(&self) {
        assert_eq!(Balances::total_issuance(), self.issuance, "the events explain the issuance");
        let deposits: Vec<_> = pallet_inference::Deposits::<Runtime>::iter_values().collect();
        let waiting: Balance =
            pallet_inference::PendingFees::<Runtime>::iter_values().flatten().map(|(_, amount)| amount).sum();
        let owed: Balance = deposits.iter().map(|deposit| deposit.free + deposit.reserved).sum();
        let held = |account: &AccountId| Balances::free_balance(account) - EXISTENTIAL_DEPOSIT;
        assert_eq!(held(&Inference::account_id()), owed + waiting, "deposits are covered to the unit");
        let reserved: Balance = pallet_inference::Inferences::<Runtime>::iter_values()
            .filter(|record| record.state == InferenceState::Started)
            .map(|record| record.amount)
            .sum();
        assert_eq!(deposits.iter().map(|deposit| deposit.reserved).sum::<Balance>(), reserved);
        let pots: Balance = pallet_rewards::Pots::<Runtime>::iter_values()
            .map(|pot| pot.held().expect("no pot is overdrawn"))
            .sum();
        assert_eq!(held(&Rewards::pots_account()), pots, "pots are covered to the unit");
        for (host, info) in pallet_hosts::Hosts::<Runtime>::iter() {
            let reason = RuntimeHoldReason::Hosts(pallet_hosts::HoldReason::Bond);
            assert_eq!(Balances::balance_on_hold(&reason, &host), info.bond, "bonds are held");
        }
    }
}

/// Sequences that are tried: a sequence takes about a second.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn books_balance_after_every_block(steps in prop::collection::vec(step(), 10..60)) {
        run(genesis::TEST, || {
            block();
            let mut world = World::new();
            for client in 0..2 {
                world.take(Step::Deposit(client == 1, 100 * TOKEN));
            }
            world.take(Step::Epoch { absent: 9, fabricated: false });
            for step in steps {
                world.take(step);
            }
            // Two epochs on, everything that was open has been settled, claimed or burned.
            let end = System::block_number() + 2 * epoch().schedule.epoch_blocks;
            while System::block_number() < end {
                world.block(|| ());
            }
        });
    }
}
