//! Tests of the rewards.

use crate::{mock::*, BurnedTo, Claimed, Error, Event, Fees, PotInfo, Pots, PrunedTo};
use frame_support::{
    assert_noop, assert_ok,
    dispatch::CheckIfFeeless,
    traits::{
        fungible::{Inspect, Mutate},
        tokens::Preservation::Expendable,
        Hooks,
    },
    weights::Weight,
};
use proptest::prelude::*;
use starling_math::{
    clock,
    draw::claim_samples,
    emission::{due, epoch_emission},
};
use starling_primitives::{
    traits::{Beacon, EpochHooks, Pots as _, Round},
    vrf::VrfProof,
    AccountId, Balance, EpochIndex, TOKEN,
};
use std::collections::BTreeSet;

fn origin(id: u8) -> RuntimeOrigin {
    RuntimeOrigin::signed(worker_of(id))
}

/// Claims, and checks that what is free of fees is exactly what succeeds.
fn claim(id: u8, epoch: EpochIndex) -> Result<(), sp_runtime::DispatchError> {
    claim_with(id, epoch, duty(id, epoch).0)
}

fn claim_with(id: u8, epoch: EpochIndex, proof: VrfProof) -> Result<(), sp_runtime::DispatchError> {
    let feeless = crate::Call::<Test>::claim { epoch, proof }.is_feeless(&origin(id));
    let result = Rewards::claim(origin(id), epoch, proof);
    assert_eq!(feeless, result.is_ok());
    result.map(|_| ()).map_err(|error| error.error)
}

fn balance(account: &AccountId) -> Balance {
    Balances::balance(account)
}

/// The sampled inferences of a host.
fn sample(id: u8, epoch: EpochIndex) -> Vec<u32> {
    let seed = Mock::seed(Round::Claim(epoch)).unwrap();
    claim_samples(&seed, &host(id), INFERENCES, Current::get().schedule.claim_samples)
}

#[test]
fn an_absent_host_keeps_its_fees_and_has_no_share() {
    ExtBuilder::default().weights(&[1, 3, 4]).build_and_execute(|| {
        pay(0, 70);
        next_epoch();
        Absent::set([(1, 0), (1, 1)].into());
        to_claims();
        assert_eq!(Rewards::claimable(1, &host(0)), (0, 70));
        assert_ok!(claim(0, 1));
        System::assert_has_event(Event::Absent { epoch: 1, host: host(0) }.into());
        assert_eq!(balance(&host(0)), ENDOWMENT + 70);
        // Not a clean epoch.
        assert!(Clean::get().is_empty());
        assert_eq!(Attended::get(), [(host(0), 1)]);
        // Without fees nothing is due; what was its share is burned with the pot.
        assert_noop!(claim(1, 1), Error::<Test>::NothingDue);
        assert_ok!(claim(2, 1));
        assert_eq!(balance(&host(2)), ENDOWMENT + epoch_emission(1) / 2);
        assert_eq!(Clean::get(), [(host(2), 1)]);
    });
}

#[test]
fn an_epoch_is_minted_claimed_and_burned() {
    ExtBuilder::default().weights(&[1, 3]).build_and_execute(|| {
        pay(0, 70);
        pay(1, 3);
        pay(0, 7);
        let issuance = Balances::total_issuance();
        next_epoch();
        let emission = epoch_emission(1);
        System::assert_last_event(Event::Minted { epoch: 1, amount: emission }.into());
        assert_eq!(Balances::total_issuance(), issuance + emission);
        assert_eq!(Pots::<Test>::get(1), PotInfo { emission, fees: 80, claimed: 0 });

        to_claims();
        let share = emission / 4;
        assert_eq!(Rewards::claimable(1, &host(0)), (share, 77));
        assert_ok!(claim(0, 1));
        System::assert_last_event(
            Event::Claimed { epoch: 1, host: host(0), emission: share, fees: 77 }.into(),
        );
        assert_eq!(balance(&host(0)), ENDOWMENT + share + 77);
        assert_eq!(Clean::get(), [(host(0), 1)]);
        assert_eq!(Rewards::claimable(1, &host(0)), (0, 0));
        check();

        let issuance = Balances::total_issuance();
        next_epoch();
        let left = emission - share + 3;
        assert!(System::events()
            .iter()
            .any(|record| { record.event == Event::Burned { epoch: 1, amount: left }.into() }));
        assert_eq!(Balances::total_issuance(), issuance + epoch_emission(2) - left);
        assert_eq!(Pots::<Test>::get(1), PotInfo::default());
        assert_eq!(Rewards::claimable(1, &host(1)), (0, 0));
    });
}

#[test]
fn claims_are_taken_in_their_time_only() {
    ExtBuilder::default().weights(&[1]).build_and_execute(|| {
        assert_noop!(claim(0, 1), Error::<Test>::NotOpen);
        next_epoch();
        assert_noop!(claim(0, 1), Error::<Test>::NotOpen);
        System::set_block_number(clock::claims_open(&Current::get()) - 1);
        assert_noop!(claim(0, 1), Error::<Test>::NotOpen);
        to_claims();
        assert_noop!(claim(0, 2), Error::<Test>::NotOpen);
        assert_noop!(claim(0, EpochIndex::MAX), Error::<Test>::NotOpen);
        System::set_block_number(clock::epoch_end(&Current::get()) - 1);
        assert_ok!(claim(0, 1));
        assert_noop!(claim(0, 1), Error::<Test>::AlreadyClaimed);
        next_epoch();
        assert_noop!(claim(0, 1), Error::<Test>::NotOpen);
        to_claims();
        assert_noop!(claim(0, 1), Error::<Test>::NotOpen);
        assert_ok!(claim(0, 2));
    });
}

#[test]
fn the_check_is_the_same_whenever_one_claims() {
    ExtBuilder::default().weights(&[1, 1]).build_and_execute(|| {
        next_epoch();
        to_claims();
        // Everything is undone, so that what is asked for is the sample.
        Undone::set([(0, (0..INFERENCES).collect())].into());
        let asked = || Rewards::undone_duties(1, &host(0), &duty(0, 1).1);
        let first = asked();
        assert_eq!(first, sample(0, 1));
        while System::block_number() < clock::epoch_end(&Current::get()) - 1 {
            System::set_block_number(System::block_number() + 1);
            assert_eq!(asked(), first);
            assert_noop!(claim(0, 1), Error::<Test>::DutyMissing);
        }
        // Refused as often as that, and nothing is lost.
        Undone::set(Default::default());
        assert_ok!(claim(0, 1));
    });
}

#[test]
fn only_the_hosts_own_key_claims() {
    ExtBuilder::default().weights(&[1, 1, 1]).build_and_execute(|| {
        next_epoch();
        to_claims();
        assert_noop!(claim(HOSTS, 1), Error::<Test>::NotAWorker);
        assert_noop!(claim_with(0, 1, duty(1, 1).0), Error::<Test>::InvalidProof);
        assert_noop!(claim_with(0, 1, duty(0, 2).0), Error::<Test>::InvalidProof);
        let garbage = VrfProof { pre_output: [0xff; 32], proof: [0xff; 64] };
        assert_noop!(claim_with(0, 1, garbage), Error::<Test>::InvalidProof);
        // The seed of epoch 1 was final in block 36.
        Since::set([(0, 36), (1, 35)].into());
        assert_noop!(claim(0, 1), Error::<Test>::KeyTooNew);
        assert_ok!(claim(1, 1));
        Suspended::set([2].into());
        assert_noop!(claim(2, 1), Error::<Test>::NotAWorker);
    });
}

#[test]
fn who_is_due_nothing_gets_nothing() {
    ExtBuilder::default().weights(&[1, 1, 0, 1]).build_and_execute(|| {
        pay(1, 50);
        next_epoch();
        to_claims();
        Withheld::set([(1, 0)].into());
        Convicted::set([(1, 1)].into());
        for id in 0..3 {
            assert_noop!(claim(id, 1), Error::<Test>::NothingDue);
            assert_eq!(Rewards::claimable(1, &host(id)), (0, 0));
        }
        assert_ok!(claim(3, 1));
        assert_eq!(balance(&host(3)), ENDOWMENT + epoch_emission(1) / 3, "nobody gains by others' loss");
    });
}

#[test]
fn a_missing_duty_refuses_until_it_is_done() {
    ExtBuilder::default().weights(&[1, 1]).build_and_execute(|| {
        next_epoch();
        let secret = duty(0, 1).1;
        assert!(Rewards::undone_duties(1, &host(0), &secret).is_empty(), "not drawn yet");
        to_claims();
        let sampled = sample(0, 1);
        assert_eq!(sampled.len(), Current::get().schedule.claim_samples as usize);
        let missing: BTreeSet<u32> = [sampled[3], sampled[40]].into();
        let unsampled: BTreeSet<u32> = (0..INFERENCES).filter(|index| !sampled.contains(index)).collect();
        Undone::set([(0, &missing | &unsampled)].into());
        assert_eq!(Rewards::undone_duties(1, &host(0), &secret), [sampled[3], sampled[40]]);
        assert_noop!(claim(0, 1), Error::<Test>::DutyMissing);
        Undone::set([(0, unsampled)].into());
        assert_ok!(claim(0, 1));
    });
}

#[test]
fn without_weights_nothing_is_minted() {
    ExtBuilder::default().build_and_execute(|| {
        let issuance = Balances::total_issuance();
        next_epoch();
        next_epoch();
        assert_eq!(Balances::total_issuance(), issuance);
        assert_eq!(BurnedTo::<Test>::get(), 2);
    });
}

#[test]
fn a_fee_is_refunded_from_the_pot_until_it_is_claimed() {
    ExtBuilder::default().weights(&[1, 1]).build_and_execute(|| {
        pay(0, 700);
        pay(1, 10);
        assert_eq!(Rewards::refund(1, &host(0), 300, &client()), 300);
        let refunded = Event::Refunded { epoch: 1, host: host(0), to: client(), from_pot: 300, from_bond: 0 };
        System::assert_last_event(refunded.into());
        check();
        next_epoch();
        to_claims();
        assert_eq!(Rewards::refund(1, &host(0), 100, &client()), 100);
        assert_eq!(balance(&client()), ENDOWMENT - 310);
        assert_ok!(claim(0, 1));
        assert_eq!(Claimed::<Test>::get(1, host(0)).unwrap().fees, 300);
        // Claimed: from the bond.
        assert_eq!(Rewards::refund(1, &host(0), 50, &client()), 50);
        assert_eq!(balance(&bond_of(0)), ENDOWMENT - 50);
        // More than the fees: the rest from the bond, as far as it goes.
        assert_eq!(Rewards::refund(1, &host(1), 2 * ENDOWMENT, &client()), ENDOWMENT + 10);
        assert_eq!(Pots::<Test>::get(1).fees, 300);
        check();
        next_epoch();
        assert_eq!(Rewards::refund(1, &host(0), 50, &client()), 50, "from the bond when the pot is burned");
        check();
    });
}

#[test]
fn a_refund_that_cannot_be_received_stays() {
    ExtBuilder::default().weights(&[1]).build_and_execute(|| {
        pay(0, ED - 1);
        Balances::transfer(&bond_of(0), &client(), ENDOWMENT, Expendable).unwrap();
        let stranger = AccountId::new([1; 32]);
        assert_eq!(Rewards::refund(1, &host(0), ED - 1, &stranger), 0);
        assert_eq!(Fees::<Test>::get(1, host(0)), ED - 1);
        check();
    });
}

#[test]
fn the_smallest_fee_can_be_paid_in_and_out() {
    ExtBuilder::default().weights(&[1]).build_and_execute(|| {
        pay(0, 1);
        check();
        next_epoch();
        to_claims();
        assert_ok!(claim(0, 1));
        assert_eq!(balance(&host(0)), ENDOWMENT + epoch_emission(1) + 1);
        assert_eq!(balance(&Rewards::pots_account()), ED);
    });
}

#[test]
fn a_late_fee_waits_in_the_oldest_pot() {
    ExtBuilder::default().weights(&[1]).build_and_execute(|| {
        next_epoch();
        next_epoch();
        Balances::transfer(&client(), &Rewards::account(1), 40, Expendable).unwrap();
        Rewards::on_fee(1, &host(0), 40);
        assert_eq!(Fees::<Test>::get(2, host(0)), 40);
        check();
    });
}

#[test]
fn gifts_are_neither_paid_nor_burned() {
    ExtBuilder::default().weights(&[1]).build_and_execute(|| {
        Balances::transfer(&client(), &Rewards::pots_account(), 1_000, Expendable).unwrap();
        let before = Current::get();
        Rewards::on_epoch_change(before.index);
        Rewards::do_try_state().unwrap();
        assert_eq!(Rewards::surplus(), Some(1_000));
    });
}

#[test]
fn burned_epochs_are_pruned_in_bounded_steps() {
    ExtBuilder::default().weights(&[1, 1, 1]).build_and_execute(|| {
        (0..3).for_each(|id| pay(id, 10));
        next_epoch();
        to_claims();
        assert_ok!(claim(0, 1));
        assert_ok!(claim(1, 1));
        next_epoch();
        assert!(!Rewards::on_idle(0, Weight::zero()).any_gt(Weight::zero()));
        // Nothing of epoch 0, then one fee and two claims.
        assert_eq!(Rewards::prune_steps(2), 2);
        assert_eq!(Fees::<Test>::iter_prefix(1).count(), 0);
        assert_eq!(Claimed::<Test>::iter_prefix(1).count(), 2);
        idle();
        assert_eq!(PrunedTo::<Test>::get(), 2);
        assert_eq!(Claimed::<Test>::iter().count(), 0);
    });
}

#[test]
fn emission_is_what_the_protocol_says() {
    ExtBuilder::default().weights(&[1]).build_and_execute(|| {
        next_epoch();
        let first = Pots::<Test>::get(1).emission;
        // The decay is computed in fixed point: exact to less than a millionth of a token.
        assert!(first.abs_diff(285_000 * TOKEN * 999_525 / 1_000_000) < TOKEN / 1_000_000);
    });
}

/// One thing that happens in an epoch.
#[derive(Clone, Debug)]
enum Step {
    Pay(u8, Balance),
    Refund(u8, EpochIndex, Balance),
    Claim(u8),
    Convict(u8),
    OpenClaims,
    NextEpoch,
    Idle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, 1u128..5_000).prop_map(|(id, amount)| Step::Pay(id, amount)),
        2 => (0u8..4, 0u32..3, 1u128..9_000).prop_map(|(id, back, amount)| Step::Refund(id, back, amount)),
        4 => (0u8..4).prop_map(Step::Claim),
        1 => (0u8..4).prop_map(Step::Convict),
        3 => Just(Step::OpenClaims),
        2 => Just(Step::NextEpoch),
        1 => Just(Step::Idle),
    ]
}

/// Does a step; returns what it minted less what it burned.
fn apply(step: &Step) -> i128 {
    let current = Current::get().index;
    match step {
        Step::Pay(id, amount) => pay(*id, *amount),
        Step::Refund(id, back, amount) => {
            let epoch = current.saturating_sub(*back);
            assert!(Rewards::refund(epoch, &host(*id), *amount, &client()) <= *amount);
        }
        Step::Claim(id) => {
            let (before, (share, fees)) = (balance(&host(*id)), Rewards::claimable(current - 1, &host(*id)));
            let paid = claim(*id, current - 1).is_ok();
            assert_eq!(balance(&host(*id)) - before, if paid { share + fees } else { 0 });
        }
        Step::Convict(id) => Convicted::mutate(|convicted| {
            convicted.insert((current, *id));
        }),
        Step::OpenClaims => to_claims(),
        Step::NextEpoch => {
            System::reset_events();
            next_epoch();
        }
        Step::Idle => idle(),
    }
    if !matches!(step, Step::NextEpoch) {
        return 0;
    }
    let change = |event: RuntimeEvent| match event {
        RuntimeEvent::Rewards(Event::Minted { amount, .. }) => amount as i128,
        RuntimeEvent::Rewards(Event::Burned { amount, .. }) => -(amount as i128),
        _ => 0,
    };
    System::events().into_iter().map(|record| change(record.event)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens: nothing is lost or made but what the events say, and no pot pays more than it holds. (The
    /// invariants are checked after every step.)
    #[test]
    fn tokens_are_conserved(
        weights in prop::collection::vec(0u64..1 << 48, 1..4),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        ExtBuilder::default().weights(&weights).build_and_execute(|| {
            let mut expected = Balances::total_issuance();
            for step in &steps {
                let change = apply(step);
                check();
                expected = expected.checked_add_signed(change).unwrap();
                assert_eq!(Balances::total_issuance(), expected, "{step:?}");
            }
        });
    }

    #[test]
    fn shares_never_exceed_the_emission(weights in prop::collection::vec(1u64..1 << 48, 1..6)) {
        ExtBuilder::default().weights(&weights).build_and_execute(|| {
            next_epoch();
            to_claims();
            let hosts = weights.len().min(HOSTS.into()) as u8;
            for id in 0..hosts {
                assert_ok!(claim(id, 1));
            }
            let pot = Pots::<Test>::get(1);
            let total = weights.iter().sum();
            let shares: Balance =
                weights.iter().take(hosts.into()).map(|&weight| due(pot.emission, weight, total)).sum();
            assert_eq!(pot.claimed, shares);
            if weights.len() <= HOSTS.into() {
                assert!(pot.emission - pot.claimed < weights.len() as Balance, "only dust is left");
            }
            check();
        });
    }
}
