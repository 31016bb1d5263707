//! Random calls keep the books.

use crate::{mock::*, Deposits, PendingFees};
use frame_support::traits::fungible::Inspect;
use proptest::prelude::*;
use starling_primitives::{
    records::{InferenceRecord, InferenceState},
    traits::Inferences,
    Balance,
};
use std::collections::BTreeMap;

/// What may happen. Requests are counted back from the newest one, so that calls meet the same ones.
#[derive(Clone, Debug)]
enum Step {
    Deposit(bool, Balance),
    Withdraw(bool, Balance),
    Delegate(Balance),
    Revoke,
    Start { repeat: Option<u64>, terms: Terms },
    Finish { back: u64, prompt: u32, completion: u32, by: Option<u8> },
    Deliver(u64),
    Expire(u64),
    Dispute(u64),
    Settle(u64, bool),
    Invalidate(u64),
    Plant(u64),
    Run(u32),
}

#[derive(Clone, Debug)]
struct Terms {
    other: bool,
    by_key: bool,
    max_price: Balance,
    attempt: u8,
    gateway: u8,
    previous: bool,
}

fn terms() -> impl Strategy<Value = Terms> {
    let rarely = || prop::bool::weighted(0.15);
    (rarely(), any::<bool>(), 0u128..2_000, 0u8..3, 1u8..=4, rarely()).prop_map(
        |(other, by_key, max_price, attempt, gateway, previous)| Terms {
            other,
            by_key,
            max_price,
            attempt,
            gateway,
            previous,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let back = || 0u64..6;
    let by = prop::option::weighted(0.1, 1u8..=4);
    prop_oneof![
        2 => (any::<bool>(), 0u128..5_000).prop_map(|(other, amount)| Step::Deposit(other, amount)),
        2 => (any::<bool>(), 0u128..3_000).prop_map(|(other, amount)| Step::Withdraw(other, amount)),
        2 => (0u128..20_000).prop_map(Step::Delegate),
        1 => Just(Step::Revoke),
        10 => (prop::option::weighted(0.25, back()), terms()).prop_map(|(repeat, terms)| Step::Start { repeat, terms }),
        10 => (back(), 0u32..300, 0u32..300, by)
            .prop_map(|(back, prompt, completion, by)| Step::Finish { back, prompt, completion, by }),
        3 => back().prop_map(Step::Deliver),
        3 => back().prop_map(Step::Expire),
        4 => back().prop_map(Step::Dispute),
        4 => (back(), any::<bool>()).prop_map(|(back, valid)| Step::Settle(back, valid)),
        2 => back().prop_map(Step::Invalidate),
        2 => back().prop_map(Step::Plant),
        4 => (1u32..6).prop_map(Step::Run),
        1 => (1u32..80).prop_map(Step::Run),
    ]
}

fn record(n: u64) -> Option<InferenceRecord> {
    ask(n).record()
}

fn name(other: bool) -> &'static str {
    if other {
        "Other"
    } else {
        "Client"
    }
}

/// Every call is made whether or not it is allowed. `next` is the number of the next new request.
fn take(step: Step, next: &mut u64) {
    let signed = |other| RuntimeOrigin::signed(account(name(other)));
    let newest = next.saturating_sub(1);
    let at = |back| newest.saturating_sub(back);
    match step {
        Step::Deposit(other, amount) => drop(Inference::deposit(signed(other), amount)),
        Step::Withdraw(other, amount) => drop(Inference::withdraw(signed(other), amount)),
        Step::Delegate(limit) => drop(Inference::delegate(signed(false), account("Key"), limit)),
        Step::Revoke => drop(Inference::revoke(signed(false), account("Key"))),
        Step::Start { repeat, terms } => start_with(repeat.map(at), terms, next),
        Step::Finish { back, prompt, completion, by } => {
            let ask = ask(at(back));
            let executor = ask.record().map_or(host(1), |record| record.executor);
            let twice = vec![ask.finished(prompt, completion), ask.finished(1, 1)];
            finish_as(&by.map_or(executor, host), twice);
        }
        Step::Deliver(back) => {
            let gateway = record(at(back)).map_or(host(1), |record| record.gateway);
            deliver(&Ask { gateway, ..ask(at(back)) });
        }
        Step::Expire(back) => [(); 2].iter().for_each(|_| expire(&ask(at(back)))),
        Step::Dispute(back) => ask(at(back)).id().into_iter().for_each(<Inference as Inferences>::dispute),
        Step::Settle(back, valid) => {
            if record(at(back)).is_some_and(|record| record.state == InferenceState::Disputed) {
                ask(at(back))
                    .id()
                    .into_iter()
                    .for_each(|id| <Inference as Inferences>::settle_dispute(id, valid));
            }
        }
        Step::Invalidate(back) => {
            ask(at(back)).id().into_iter().for_each(<Inference as Inferences>::invalidate);
        }
        Step::Plant(back) => ask(at(back)).id().into_iter().for_each(<Inference as Inferences>::plant),
        Step::Run(blocks) => run_to(System::block_number() as u32 + blocks),
    }
}

/// A new request, or one more attempt at (or abuse of) a known one.
fn start_with(repeat: Option<u64>, terms: Terms, next: &mut u64) {
    let Terms { other, by_key, max_price, attempt, gateway, previous } = terms;
    let current = Current::get().index;
    let new = Ask {
        client: name(other),
        signer: if by_key { "Key" } else { name(other) },
        max_price,
        attempt,
        epoch: current - u32::from(previous),
        gateway: host(gateway),
        ..ask(*next)
    };
    let Some(n) = repeat else {
        *next += 1;
        return start(&new);
    };
    // Half of the repeated ones keep their terms, so that some of them are good.
    match record(n).filter(|_| max_price % 2 == 0) {
        Some(known) => {
            let client = if known.client == client() { "Client" } else { "Other" };
            let epoch = ask(n).id().map_or(current, |id| id.epoch);
            start(&Ask {
                n,
                client,
                signer: client,
                max_price: known.amount,
                epoch,
                gateway: known.gateway,
                ..new
            });
        }
        None => start(&Ask { n, ..new }),
    }
}

/// Deposits in = free + reserved + waiting + in the pots + withdrawn, in every account and in all.
fn check_books() {
    Inference::do_try_state().unwrap();
    let ledger: Balance =
        Deposits::<Test>::iter_values().map(|deposit| deposit.free + deposit.reserved).sum();
    let waiting: Balance = PendingFees::<Test>::iter_values().flatten().map(|(_, fee)| fee).sum();
    assert_eq!(ledger_account(), ED + ledger + waiting, "the account holds exactly what it owes");
    let pots: Balance = (0..40).map(|epoch| Balances::balance(&pot(epoch))).sum();
    let clients: Balance =
        ["Client", "Other", "Key"].iter().map(|name| Balances::balance(&account(name))).sum();
    assert_eq!(clients + ledger_account() + pots, 3 * ENDOWMENT + ED, "nothing appears or disappears");
    assert_eq!(Balances::total_issuance(), 3 * ENDOWMENT + ED);
}

/// What a step may do to a record's money: the price only falls, and what is settled stays settled.
fn check_record(before: &InferenceRecord, after: &InferenceRecord) {
    use InferenceState::{Delivered, Disputed, Expired, Finished, Invalid, Planted, Started, Valid};
    assert!(after.amount <= before.amount, "more was paid than reserved");
    let allowed: &[InferenceState] = match before.state {
        Started => &[Started, Finished, Expired],
        Finished => &[Finished, Delivered, Disputed, Invalid, Planted],
        Delivered => &[Delivered, Disputed, Invalid, Planted],
        Disputed => &[Disputed, Valid, Invalid, Planted],
        Valid => &[Valid, Invalid, Planted],
        Invalid => &[Invalid],
        Planted => &[Planted],
        Expired => &[Expired],
    };
    assert!(allowed.contains(&after.state), "{:?} became {:?}", before.state, after.state);
    let paid = before.state != Started && !matches!(after.state, Invalid | Planted);
    assert!(!paid || after.amount == before.amount, "a price changed after it was paid");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn money_is_conserved(steps in prop::collection::vec(step(), 1..60)) {
        ExtBuilder::default().build_and_execute(|| {
            let mut known: BTreeMap<u64, InferenceRecord> = BTreeMap::new();
            let mut next = 0;
            for step in steps {
                take(step, &mut next);
                check_books();
                for n in 0..next {
                    // Without a record it was not taken, or is pruned by now and may be asked anew.
                    let Some(after) = record(n) else {
                        known.remove(&n);
                        continue;
                    };
                    known.get(&n).into_iter().for_each(|before| check_record(before, &after));
                    known.insert(n, after);
                }
            }
        });
    }
}
