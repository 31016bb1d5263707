use crate::{mock::*, Error, Event, Vote, Votes, MAX_REMOVED};
use frame_support::{assert_noop, assert_ok, traits::VoteTally};
use proptest::prelude::*;
use sp_runtime::{DispatchResult, Perbill};
use starling_primitives::Work;

fn vote(n: u8, aye: bool) -> DispatchResult {
    Governance::vote(RuntimeOrigin::signed(account(n)), 0, aye)
}

/// Support and approval, in per cent.
fn shares() -> (Perbill, Perbill) {
    let tally = Open::get()[&0].clone();
    (VoteTally::<Work, u16>::support(&tally, 0), VoteTally::<Work, u16>::approval(&tally, 0))
}

fn percent(support: u32, approval: u32) -> (Perbill, Perbill) {
    (Perbill::from_percent(support), Perbill::from_percent(approval))
}

#[test]
fn votes_weigh_what_their_hosts_weigh() {
    build_and_execute(|| {
        propose(0);
        assert_eq!(shares(), percent(0, 0));
        assert_ok!(vote(2, true));
        assert_eq!(shares(), percent(30, 100));
        assert_ok!(vote(3, false));
        assert_eq!(shares(), percent(30, 60));
        let event = Event::Voted { poll: 0, host: account(3), vote: Vote { aye: false, weight: 20 } };
        System::assert_last_event(event.into());
        // A vote is changed, not added.
        assert_ok!(vote(3, true));
        assert_ok!(vote(3, true));
        assert_eq!(shares(), percent(50, 100));
    });
}

#[test]
fn only_hosts_with_weight_vote_and_only_while_it_is_open() {
    build_and_execute(|| {
        assert_noop!(vote(1, true), Error::<Test>::NotOpen);
        propose(0);
        assert_noop!(vote(4, true), Error::<Test>::NoWeight);
        assert_ok!(vote(1, true));
        Open::set(Default::default());
        assert_noop!(vote(1, false), Error::<Test>::NotOpen);
    });
}

#[test]
fn compute_that_moves_to_another_account_does_not_vote_twice() {
    build_and_execute(|| {
        propose(0);
        assert_ok!(vote(1, true));
        // The next day everything runs under other names.
        Epoch::set(6);
        Shares::mutate(|shares| shares.extend([(4, 500), (5, 30)].map(|(n, weight)| ((6, n), weight))));
        assert_noop!(vote(4, true), Error::<Test>::NoWeight);
        assert_eq!(shares(), percent(50, 100));
        // The old ones still vote with what they had, until that is forgotten.
        assert_ok!(vote(2, false));
        assert_eq!(shares(), (Perbill::from_percent(50), Perbill::from_rational(50u32, 80)));
        Shares::mutate(|shares| shares.retain(|(epoch, _), _| *epoch > 5));
        assert_noop!(vote(3, true), Error::<Test>::NoWeight);
    });
}

#[test]
fn votes_of_a_closed_referendum_are_removed_in_steps() {
    build_and_execute(|| {
        let hosts = 200u8;
        Shares::set((0..hosts).map(|n| ((5, n), 1)).collect());
        propose(0);
        for n in 0..hosts {
            assert_ok!(vote(n, true));
        }
        let remove = || Governance::remove_votes(RuntimeOrigin::signed(account(9)), 0);
        assert_noop!(remove(), Error::<Test>::StillOpen);
        Open::set(Default::default());
        assert_ok!(remove());
        assert_eq!(Votes::<Test>::iter().count() as u32, u32::from(hosts) - MAX_REMOVED);
        assert_ok!(remove());
        assert_eq!(Votes::<Test>::iter().count(), 0);
    });
}

#[test]
fn without_weights_nothing_has_support() {
    build_and_execute(|| {
        Shares::set(Default::default());
        propose(0);
        assert_noop!(vote(1, true), Error::<Test>::NoWeight);
        assert_eq!(shares(), percent(0, 0));
    });
}

proptest! {
    /// Whoever votes how often: the tally is the sum of the last votes.
    #[test]
    fn the_tally_is_the_sum_of_the_last_votes(
        weights in prop::collection::vec(1..Work::MAX / 8, 8),
        votes in prop::collection::vec((0u8..8, any::<bool>()), 0..40),
    ) {
        build_and_execute(|| {
            Shares::set(weights.iter().zip(0u8..).map(|(weight, n)| ((5, n), *weight)).collect());
            propose(0);
            let mut last = std::collections::BTreeMap::new();
            for (n, aye) in votes {
                assert_ok!(vote(n, aye));
                last.insert(n, aye);
            }
            let sum = |side| last.iter().filter(|(_, aye)| **aye == side).map(|(n, _)| weights[*n as usize]).sum::<Work>();
            let tally = Open::get()[&0].clone();
            assert_eq!((tally.ayes, tally.nays), (sum(true), sum(false)));
        });
    }
}
