//! Life of a host.

use crate::{mock::*, Call, Endpoints, Error, Event, HoldReason, HostInfo, HostStatus, Hosts as Registry};
use frame_support::{
    assert_noop, assert_ok, dispatch::CheckIfFeeless, traits::fungible::InspectHold, BoundedVec,
};
use proptest::prelude::*;
use sp_runtime::TokenError;
use starling_primitives::{
    schedule::Schedule,
    traits::{Bonds, Hosts as HostsTrait},
    BlockNumber,
};

fn profiles(ids: &[u32]) -> crate::HostProfiles {
    BoundedVec::truncate_from(ids.to_vec())
}

fn info(host: u8) -> HostInfo {
    Registry::<Test>::get(account(host)).unwrap()
}

fn status(host: u8) -> HostStatus {
    info(host).status
}

#[test]
fn anyone_registers_with_a_bond() {
    build_and_execute(|| {
        System::set_block_number(7);
        assert_ok!(Hosts::register(signed(2), account(102), profiles(&[3, 1, 3])));
        System::assert_last_event(Event::Registered { host: account(2), worker: account(102) }.into());
        assert_eq!(
            info(2),
            HostInfo {
                worker: account(102),
                worker_since: 7,
                endpoints: None,
                profiles: profiles(&[1, 3]),
                status: HostStatus::Joining,
                bond: BOND,
                registered_at: 7,
                convictions: 0,
            }
        );
        assert_eq!(Balances::balance_on_hold(&HoldReason::Bond.into(), &account(2)), BOND);
        assert_eq!(Hosts::count(), 2);
        assert_eq!(Hosts::host_of(&account(102)), Some(account(2)));
        assert_eq!(Hosts::worker_of(&account(2)), Some(account(102)));
        assert_eq!(Hosts::worker_since(&account(2)), Some(7));
        assert!(Hosts::may_sprint(&account(2)));
        assert!(Hosts::serves(&account(2), 3) && !Hosts::serves(&account(2), 0));
    });
}

#[test]
fn registration_is_refused() {
    build_and_execute(|| {
        let check = |who, worker, ids: &[u32], error: Error<Test>| {
            assert_noop!(Hosts::register(signed(who), account(worker), profiles(ids)), error);
        };
        check(1, 102, &[0], Error::AlreadyRegistered);
        check(2, 2, &[0], Error::WorkerTaken);
        check(2, 1, &[0], Error::WorkerTaken);
        check(2, 101, &[0], Error::WorkerTaken);
        check(101, 102, &[0], Error::WorkerTaken);
        check(2, 102, &[8], Error::UnknownProfile);
        assert_noop!(
            Hosts::register(signed(50), account(150), profiles(&[0])),
            sp_runtime::DispatchError::Token(TokenError::FundsUnavailable)
        );
    });
}

#[test]
fn a_worker_is_replaced_at_once() {
    build_and_execute(|| {
        System::set_block_number(9);
        assert_noop!(Hosts::set_worker(signed(2), account(111)), Error::<Test>::NotRegistered);
        assert_noop!(Hosts::set_worker(signed(1), account(101)), Error::<Test>::WorkerTaken);
        assert_ok!(Hosts::set_worker(signed(1), account(111)));
        System::assert_last_event(Event::WorkerChanged { host: account(1), worker: account(111) }.into());
        assert_eq!(Hosts::host_of(&account(101)), None);
        assert_eq!(Hosts::host_of(&account(111)), Some(account(1)));
        assert_eq!(Hosts::worker_since(&account(1)), Some(9));
        assert_eq!(System::sufficients(&account(101)), 0);
        assert_eq!(System::sufficients(&account(111)), 1);
    });
}

#[test]
fn weight_decides_between_joining_and_active() {
    build_and_execute(|| {
        set_weight(1, 1, 5);
        assert_eq!(status(1), HostStatus::Active);
        System::assert_last_event(
            Event::StatusChanged { host: account(1), status: HostStatus::Active }.into(),
        );
        set_weight(2, 1, 0);
        assert_eq!(status(1), HostStatus::Joining);
    });
}

#[test]
fn draining_asks_for_no_work_and_resumes() {
    build_and_execute(|| {
        set_weight(0, 1, 5);
        assert_noop!(Hosts::resume(signed(1)), Error::<Test>::WrongStatus);
        assert_ok!(Hosts::drain(signed(1)));
        assert_noop!(Hosts::drain(signed(1)), Error::<Test>::WrongStatus);
        assert!(!Hosts::may_sprint(&account(1)));
        assert_eq!(Hosts::host_of(&account(101)), Some(account(1)), "its duties go on");
        set_weight(0, 1, 5);
        assert_eq!(status(1), HostStatus::Draining);
        assert_ok!(Hosts::resume(signed(1)));
        assert_eq!(status(1), HostStatus::Active);
        assert_eq!(Hosts::count(), 1);
    });
}

#[test]
fn convictions_suspend_and_then_remove() {
    build_and_execute(|| {
        set_weight(0, 1, 5);
        Hosts::convict(&account(1));
        assert_eq!((status(1), Hosts::count()), (HostStatus::Suspended, 0));
        assert_eq!(Hosts::host_of(&account(101)), None);
        assert!(!Hosts::may_sprint(&account(1)));
        assert_noop!(Hosts::resume(signed(1)), Error::<Test>::HasWeight);
        Epoch::set(1);
        assert_ok!(Hosts::resume(signed(1)));
        assert_eq!((status(1), Hosts::count()), (HostStatus::Joining, 1));
        Hosts::convict(&account(1));
        assert_eq!((status(1), Hosts::count()), (HostStatus::Removed, 0));
        assert_noop!(Hosts::resume(signed(1)), Error::<Test>::WrongStatus);
        Hosts::convict(&account(77));
    });
}

#[test]
fn the_bond_pays_and_is_filled_up_again() {
    build_and_execute(|| {
        Hosts::convict(&account(1));
        assert_eq!(Hosts::slash_bond(&account(1), 300, &account(2)), 300);
        System::assert_last_event(
            Event::BondSlashed { host: account(1), amount: 300, to: account(2) }.into(),
        );
        assert_eq!(Balances::free_balance(account(2)), 10_300);
        assert_eq!(info(1).bond, 700);
        Hosts::do_try_state().unwrap();
        assert_ok!(Hosts::resume(signed(1)));
        assert_eq!(info(1).bond, BOND);
        assert_eq!(Hosts::slash_bond(&account(1), 5_000, &account(2)), BOND);
        assert_eq!(Hosts::slash_bond(&account(1), 5_000, &account(2)), 0);
        assert_eq!(Hosts::slash_bond(&account(77), 1, &account(2)), 0);
        assert_eq!(Balances::total_issuance(), 90_000);
    });
}

#[test]
fn what_a_worker_says_falsely_burns_from_the_bond() {
    build_and_execute(|| {
        assert_eq!(Hosts::bond(&account(1)), BOND);
        assert_eq!(Hosts::burn(&account(1), 300), 300);
        System::assert_last_event(Event::BondBurned { host: account(1), amount: 300 }.into());
        assert_eq!((Hosts::bond(&account(1)), Balances::total_issuance()), (BOND - 300, 90_000 - 300));
        Hosts::do_try_state().unwrap();
        assert_eq!(Hosts::burn(&account(1), BOND), BOND - 300);
        assert_eq!((Hosts::bond(&account(1)), Hosts::burn(&account(1), 1)), (0, 0));
        assert_eq!((Hosts::bond(&account(77)), Hosts::burn(&account(77), 1)), (0, 0));
        assert_eq!(Balances::total_issuance(), 90_000 - BOND);
        // It stays a host, and fills the bond up when it resumes.
        assert_ok!(Hosts::drain(signed(1)));
        assert_ok!(Hosts::resume(signed(1)));
        assert_eq!(Hosts::bond(&account(1)), BOND);
    });
}

#[test]
fn leaving_waits_until_nothing_can_be_open() {
    build_and_execute(|| {
        set_weight(3, 1, 5);
        Epoch::set(3);
        assert_ok!(Hosts::drain(signed(1)));
        for epoch in 3..6 {
            Epoch::set(epoch);
            assert_noop!(Hosts::deregister(signed(1)), Error::<Test>::HasWeight);
        }
        Epoch::set(6);
        assert_ok!(Hosts::deregister(signed(1)));
        System::assert_last_event(Event::Deregistered { host: account(1), bond: BOND }.into());
        assert_eq!(Balances::free_balance(account(1)), 10_000);
        assert_eq!((Hosts::count(), System::sufficients(&account(101))), (0, 0));
        assert_ok!(Hosts::register(signed(1), account(101), profiles(&[])));
    });
}

#[test]
fn announcing_is_free_for_workers_and_not_too_often() {
    build_and_execute(|| {
        let endpoints = Endpoints {
            peer_id: BoundedVec::truncate_from(vec![1, 2, 3]),
            multiaddrs: BoundedVec::truncate_from(vec![BoundedVec::truncate_from(
                b"/ip4/127.0.0.1/tcp/4001".to_vec(),
            )]),
            gateway_url: BoundedVec::truncate_from(b"http://127.0.0.1:8000".to_vec()),
        };
        let call = RuntimeCall::Hosts(Call::announce { endpoints: endpoints.clone() });
        assert!(call.is_feeless(&signed(101)));
        assert!(!call.is_feeless(&signed(1)));
        assert!(!call.is_feeless(&RuntimeOrigin::root()));
        assert_noop!(Hosts::announce(signed(1), endpoints.clone()), Error::<Test>::NotAWorker);
        assert_ok!(Hosts::announce(signed(101), endpoints.clone()));
        System::assert_last_event(Event::Announced { host: account(1), endpoints: endpoints.clone() }.into());
        assert_eq!(info(1).endpoints, Some(endpoints.clone()));
        assert!(!call.is_feeless(&signed(101)));
        assert_noop!(Hosts::announce(signed(101), endpoints.clone()), Error::<Test>::TooSoon);
        System::set_block_number(6);
        assert!(call.is_feeless(&signed(101)));
        assert_ok!(Hosts::announce(signed(101), endpoints.clone()));
        Hosts::convict(&account(1));
        System::set_block_number(20);
        assert!(!call.is_feeless(&signed(101)));
        let feed = RuntimeCall::Hosts(Call::set_profiles { profiles: profiles(&[]) });
        assert!(!feed.is_feeless(&signed(1)));
    });
}

#[test]
fn profiles_are_declared_anew() {
    build_and_execute(|| {
        assert_noop!(Hosts::set_profiles(signed(1), profiles(&[9])), Error::<Test>::UnknownProfile);
        assert_noop!(Hosts::set_profiles(signed(2), profiles(&[1])), Error::<Test>::NotRegistered);
        assert_ok!(Hosts::set_profiles(signed(1), profiles(&[2, 1])));
        System::assert_last_event(
            Event::ProfilesChanged { host: account(1), profiles: profiles(&[1, 2]) }.into(),
        );
        assert!(Hosts::serves(&account(1), 2) && !Hosts::serves(&account(1), 0));
    });
}

#[test]
fn maintenance_is_declared_beforehand_once_in_an_epoch() {
    build_and_execute(|| {
        let schedule = Schedule::TEST;
        let most = schedule.epoch_blocks / 24;
        System::set_block_number(10);
        let (earliest, latest) = (10 + schedule.coverage_blocks, 10 + schedule.epoch_blocks);
        let declare = |host, from, blocks| Hosts::declare_maintenance(signed(host), from, blocks);
        assert_noop!(declare(2, earliest, 1), Error::<Test>::NotRegistered);
        assert_noop!(declare(1, earliest, 0), Error::<Test>::MaintenanceTooLong);
        assert_noop!(declare(1, earliest, most + 1), Error::<Test>::MaintenanceTooLong);
        assert_noop!(declare(1, earliest - 1, most), Error::<Test>::MaintenanceNotice);
        assert_noop!(declare(1, latest + 1, most), Error::<Test>::MaintenanceNotice);
        assert_ok!(declare(1, earliest, most));
        let until = earliest + most;
        System::assert_last_event(
            Event::MaintenanceDeclared { host: account(1), from: earliest, until }.into(),
        );
        let away = |from, to| <Hosts as HostsTrait>::is_away(&account(1), from, to);
        assert!(!away(0, earliest - 1) && away(0, earliest) && away(earliest, earliest));
        assert!(away(until - 1, until + 9) && !away(until, until + 9));
        assert!(!<Hosts as HostsTrait>::is_away(&account(2), 0, BlockNumber::MAX));
        // Nor does anybody take it back, or make it longer.
        assert_noop!(declare(1, latest, most), Error::<Test>::MaintenanceDeclared);
        Epoch::set(Epoch::get() + 1);
        assert_ok!(declare(1, latest, 1));
        assert!(!away(0, until) && away(latest, latest));
    });
}

#[derive(Clone, Debug)]
enum Step {
    Register(u8, u8),
    SetWorker(u8, u8),
    Drain(u8),
    Resume(u8),
    Deregister(u8),
    Maintain(u8, u32, u32),
    Convict(u8),
    Slash(u8, u128),
    Burn(u8, u128),
    Weight(u8, u64),
    NextEpoch,
}

fn step() -> impl Strategy<Value = Step> {
    let (host, key) = (1u8..5, 1u8..9);
    prop_oneof![
        (host.clone(), key.clone()).prop_map(|(a, b)| Step::Register(a, b)),
        (host.clone(), key).prop_map(|(a, b)| Step::SetWorker(a, b)),
        host.clone().prop_map(Step::Drain),
        host.clone().prop_map(Step::Resume),
        host.clone().prop_map(Step::Deregister),
        (host.clone(), 0u32..70, 0u32..4).prop_map(|(a, b, c)| Step::Maintain(a, b, c)),
        host.clone().prop_map(Step::Convict),
        (host.clone(), 0u128..2_000).prop_map(|(a, b)| Step::Slash(a, b)),
        (host.clone(), 0u128..2_000).prop_map(|(a, b)| Step::Burn(a, b)),
        (host, 0u64..2).prop_map(|(a, b)| Step::Weight(a, b)),
        Just(Step::NextEpoch),
    ]
}

proptest! {
    #[test]
    fn invariants_hold_after_any_calls(steps in prop::collection::vec(step(), 1..60)) {
        build_and_execute(|| {
            for step in steps {
                match step {
                    Step::Register(host, key) => {
                        let _ = Hosts::register(signed(host), account(key), profiles(&[0]));
                    }
                    Step::SetWorker(host, key) => {
                        let _ = Hosts::set_worker(signed(host), account(key));
                    }
                    Step::Drain(host) => {
                        let _ = Hosts::drain(signed(host));
                    }
                    Step::Resume(host) => {
                        let _ = Hosts::resume(signed(host));
                    }
                    Step::Deregister(host) => {
                        let _ = Hosts::deregister(signed(host));
                    }
                    Step::Maintain(host, from, blocks) => {
                        let _ = Hosts::declare_maintenance(signed(host), from, blocks);
                    }
                    Step::Convict(host) => Hosts::convict(&account(host)),
                    // Only who was convicted is ever slashed.
                    Step::Slash(host, amount) => {
                        Hosts::convict(&account(host));
                        let _ = Hosts::slash_bond(&account(host), amount, &account(9));
                    }
                    Step::Burn(host, amount) => {
                        let issuance = Balances::total_issuance();
                        let burned = Hosts::burn(&account(host), amount);
                        assert_eq!(Balances::total_issuance(), issuance - burned);
                    }
                    Step::Weight(host, weight) => set_weight(Epoch::get(), host, weight),
                    Step::NextEpoch => Epoch::set(Epoch::get() + 1),
                }
                Hosts::do_try_state().unwrap();
            }
        });
    }
}
