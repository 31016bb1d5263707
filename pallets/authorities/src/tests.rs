//! Weights on their way into the authority sets.

use crate::{mock::*, Equivocators, Event, Planned};
use frame_support::traits::Get;
use proptest::prelude::*;
use sp_consensus_babe::{ConsensusLog, BABE_ENGINE_ID};
use sp_consensus_grandpa::{ConsensusLog as GrandpaLog, GRANDPA_ENGINE_ID};
use sp_staking::offence::{OffenceDetails, OnOffenceHandler};

type Ids = Vec<(u8, u64)>;

fn babe_now() -> Ids {
    pallet_babe::Authorities::<Test>::get().iter().map(|(key, weight)| (raw(key), *weight)).collect()
}

fn babe_next() -> Ids {
    pallet_babe::NextAuthorities::<Test>::get().iter().map(|(key, weight)| (raw(key), *weight)).collect()
}

fn grandpa_now() -> Ids {
    Grandpa::grandpa_authorities().iter().map(|(key, weight)| (raw(key), *weight)).collect()
}

fn raw(key: &impl AsRef<[u8]>) -> u8 {
    key.as_ref()[0]
}

/// What BABE's clients are told in this block.
fn announced() -> Option<Ids> {
    System::digest().logs.iter().find_map(|log| {
        match log.consensus_try_to::<ConsensusLog>(&BABE_ENGINE_ID)? {
            ConsensusLog::NextEpochData(next) => {
                Some(next.authorities.iter().map(|(key, weight)| (raw(key), *weight)).collect())
            }
            _ => None,
        }
    })
}

/// What GRANDPA's clients are told in this block.
fn scheduled() -> Option<Ids> {
    System::digest().logs.iter().find_map(|log| {
        match log.consensus_try_to::<GrandpaLog<u32>>(&GRANDPA_ENGINE_ID)? {
            GrandpaLog::ScheduledChange(change) => {
                Some(change.next_authorities.iter().map(|(key, weight)| (raw(key), *weight)).collect())
            }
            _ => None,
        }
    })
}

#[test]
fn the_genesis_weighs_everybody_the_same() {
    build_and_execute(|| {
        let equal = vec![(1, 1), (2, 1), (3, 1)];
        assert_eq!((babe_now(), babe_next(), grandpa_now()), (equal.clone(), equal.clone(), equal));
    });
}

#[test]
fn weights_are_announced_one_session_ahead_and_then_in_force() {
    build_and_execute(|| {
        set_weights(&[(1, 600), (2, 300), (5, 100)]);
        let weighted = vec![(1, 600), (2, 300), (5, 100)];
        next_session();
        assert_eq!(babe_now(), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(babe_next(), weighted);
        assert_eq!(announced(), Some(weighted.clone()));
        assert_eq!(scheduled(), None);
        next_session();
        assert_eq!((babe_now(), grandpa_now()), (weighted.clone(), weighted.clone()));
        assert_eq!(scheduled(), Some(weighted));
        assert_eq!(Session::validators(), [account(1), account(2), account(5)]);
        assert_eq!(Grandpa::current_set_id(), 1);
    });
}

#[test]
fn weights_that_change_between_planning_and_starting_wait_for_the_next_plan() {
    build_and_execute(|| {
        set_weights(&[(1, 10), (2, 20)]);
        next_session();
        let told = announced();
        set_weights(&[(1, 99), (3, 1)]);
        next_session();
        assert_eq!(Some(babe_now()), told);
        assert_eq!(grandpa_now(), [(1, 10), (2, 20)]);
        assert_eq!(babe_next(), [(1, 99), (3, 1)]);
    });
}

#[test]
fn without_weights_the_set_stays() {
    build_and_execute(|| {
        next_session();
        System::assert_has_event(Event::SetKept { session: 2 }.into());
        next_session();
        assert_eq!(babe_now(), [(1, 1), (2, 1), (3, 1)]);
        set_weights(&[(1, 5), (4, 7)]);
        next_session();
        System::assert_has_event(Event::SessionPlanned { session: 4, authorities: 2, total: 12 }.into());
        next_session();
        set_weights(&[]);
        for _ in 0..4 {
            next_session();
            assert_eq!(
                (babe_now(), babe_next(), grandpa_now()),
                (vec![(1, 5), (4, 7)], babe_now(), babe_now())
            );
        }
        assert_eq!(Grandpa::current_set_id(), 1);
    });
}

#[test]
fn only_a_different_set_makes_a_new_grandpa_set() {
    build_and_execute(|| {
        set_weights(&[(1, 10), (2, 20)]);
        for _ in 0..5 {
            next_session();
        }
        assert_eq!(Grandpa::current_set_id(), 1);
        assert_eq!(Grandpa::session_for_set(1), Some(5), "it is responsible up to now");
        set_weights(&[(1, 10), (2, 21)]);
        next_session();
        next_session();
        assert_eq!(Grandpa::current_set_id(), 2);
        assert_eq!(grandpa_now(), [(1, 10), (2, 21)]);
    });
}

#[test]
fn equal_keys_of_another_account_are_another_set() {
    build_and_execute(|| {
        set_weights(&[(4, 10), (5, 10)]);
        next_session();
        next_session();
        assert_eq!((Grandpa::current_set_id(), grandpa_now()), (1, vec![(4, 10), (5, 10)]));
        // Key 4 moves from account 4 to account 3, whose place in the order is the same.
        Session::purge_keys(RuntimeOrigin::signed(account(4))).unwrap();
        Session::purge_keys(RuntimeOrigin::signed(account(3))).unwrap();
        <Session as pallet_session::SessionInterface>::set_keys(&account(3), keys(4)).unwrap();
        set_weights(&[(3, 10), (5, 10)]);
        next_session();
        next_session();
        assert_eq!((Grandpa::current_set_id(), grandpa_now()), (2, vec![(4, 10), (5, 10)]));
    });
}

#[test]
fn set_ids_too_old_for_proofs_are_forgotten() {
    build_and_execute(|| {
        for round in 1..8 {
            set_weights(&[(1, round), (2, 1)]);
            next_session();
        }
        let known: Vec<_> = (0..10).filter(|set_id| Grandpa::session_for_set(*set_id).is_some()).collect();
        assert_eq!((Grandpa::current_set_id(), known), (6, vec![4, 5, 6]));
        let roots = pallet_session::historical::StoredRange::<Test>::get();
        assert_eq!(roots, Some((Session::current_index() - 3, Session::current_index() + 2)));
    });
}

#[test]
fn who_cannot_be_an_authority_is_left_out() {
    build_and_execute(|| {
        // 9 has no session keys, 3 was convicted, 4 is below 1 % of the weight.
        Convicted::set(vec![3]);
        set_weights(&[(1, 500), (2, 400), (3, 300), (4, 5), (9, 200)]);
        next_session();
        assert_eq!(babe_next(), [(1, 500), (2, 400)]);
        Convicted::set(vec![1, 2, 3]);
        next_session();
        next_session();
        assert_eq!(babe_next(), [(1, 500), (2, 400)], "nobody is left, so the set stays");
    });
}

#[test]
fn above_the_bound_the_heaviest_stay_in_the_order_of_accounts() {
    build_and_execute(|| {
        set_weights(&[(1, 10), (2, 70), (3, 20), (4, 60), (5, 50), (6, 40), (7, 30), (8, 20)]);
        next_session();
        assert_eq!(babe_next(), [(2, 70), (4, 60), (5, 50), (6, 40), (7, 30)]);
    });
}

#[test]
fn the_chain_goes_on_when_every_authority_drops_its_keys() {
    build_and_execute(|| {
        set_weights(&[(1, 10), (2, 20)]);
        next_session();
        next_session();
        for id in 1..=8 {
            Session::purge_keys(RuntimeOrigin::signed(account(id))).unwrap();
        }
        for _ in 0..4 {
            next_session();
            assert_eq!(babe_now(), [(1, 10), (2, 20)]);
            assert_eq!(grandpa_now(), [(1, 10), (2, 20)]);
        }
        <Session as pallet_session::SessionInterface>::set_keys(&account(2), keys(2)).unwrap();
        next_session();
        next_session();
        assert_eq!((babe_now(), grandpa_now()), (vec![(2, 20)], vec![(2, 20)]));
    });
}

#[test]
fn a_stall_forces_the_set() {
    build_and_execute(|| {
        Grandpa::note_stalled(RuntimeOrigin::root(), 3, 1).unwrap();
        next_session();
        let pending = Grandpa::pending_change().map(|change| (change.delay, change.forced));
        assert_eq!(pending, Some((3, Some(1))));
        assert_eq!(Grandpa::stalled(), None);
    });
}

#[test]
fn plans_are_kept_for_two_sessions() {
    build_and_execute(|| {
        for round in 1..6 {
            set_weights(&[(1, round)]);
            next_session();
            let current = Session::current_index();
            let mut sessions: Vec<_> = Planned::<Test>::iter_keys().collect();
            sessions.sort_unstable();
            let expected = if round == 1 { vec![2] } else { vec![current, current + 1] };
            assert_eq!(sessions, expected);
        }
    });
}

fn equivocates(host: u8) {
    let offender = (account(host), ());
    let session = Session::current_index();
    Authorities::on_offence(&[OffenceDetails { offender, reporters: Vec::new() }], &[], session);
}

#[test]
fn an_equivocator_loses_finality_at_once_and_blocks_with_the_first_set_that_was_not_announced() {
    build_and_execute(|| {
        set_weights(&[(1, 10), (2, 40), (3, 50)]);
        next_session();
        next_session();
        equivocates(2);
        assert_eq!((Convicted::get(), Session::disabled_validators()), (vec![2], vec![1]));
        equivocates(2);
        assert_eq!(Convicted::get(), [2], "once");
        // The next set is another one, and one that stays is no way back.
        set_weights(&[]);
        next_session();
        assert_eq!((babe_now(), grandpa_now()), (vec![(1, 10), (2, 40), (3, 50)], vec![(1, 10), (3, 50)]));
        assert_eq!((babe_next(), Session::disabled_validators()), (vec![(1, 10), (3, 50)], vec![1]));
        next_session();
        assert_eq!((babe_now(), Session::disabled_validators()), (grandpa_now(), vec![]));
        set_weights(&[(1, 10), (2, 40), (3, 50)]);
        next_session();
        assert_eq!((babe_now(), babe_next()), (grandpa_now(), vec![(1, 10), (3, 50)]));
    });
}

#[test]
fn who_makes_more_than_half_of_the_blocks_goes_on_making_them() {
    build_and_execute(|| {
        set_weights(&[(1, 51), (2, 29), (3, 20)]);
        next_session();
        next_session();
        equivocates(1);
        assert_eq!((Convicted::get(), Session::disabled_validators()), (vec![1], vec![]));
        equivocates(2);
        equivocates(3);
        assert_eq!(Session::disabled_validators(), [1, 2]);
        next_session();
        assert_eq!(grandpa_now(), [(1, 51), (2, 29), (3, 20)], "nobody is left, so the set stays");
    });
}

#[test]
fn an_equivocator_is_forgotten_with_the_ownership_of_its_keys() {
    build_and_execute(|| {
        set_weights(&[(1, 10), (2, 20)]);
        next_session();
        next_session();
        equivocates(2);
        let until = Session::current_index() + 1;
        let kept = <<Test as crate::Config>::KeptSessions as Get<u32>>::get();
        while Session::current_index() <= until + kept {
            next_session();
            assert_eq!(Equivocators::<Test>::get(account(2)), Some(until));
        }
        next_session();
        next_session();
        next_session();
        assert_eq!(Equivocators::<Test>::get(account(2)), None);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_was_announced_is_what_is_in_force(
        rounds in prop::collection::vec(prop::collection::btree_map(1u8..10, 0u64..1_000, 0..9), 1..8),
    ) {
        build_and_execute(|| {
            let mut told = babe_next();
            for weights in rounds {
                set_weights(&weights.into_iter().collect::<Vec<_>>());
                next_session();
                assert_eq!(babe_now(), told);
                assert_eq!(grandpa_now(), told);
                assert!(Session::validators().iter().map(raw).eq(told.iter().map(|(id, _)| *id)));
                told = announced().expect("each session announces the next");
            }
        });
    }
}
