use crate::{mock::*, Conviction, Convictions, Missed, Reputations};
use starling_primitives::{traits::Reputation, PPM};

fn reputation(id: u8) -> u32 {
    <Verification as Reputation>::reputation(&host(id))
}

#[test]
fn clean_epochs_build_trust() {
    build_and_execute(|| {
        for epoch in 0..30 {
            assert!(reputation(1) < PPM);
            <Verification as Reputation>::on_clean_epoch(&host(1), epoch);
        }
        assert_eq!(reputation(1), PPM);
        assert_eq!(reputation(2), 0);
    });
}

#[test]
fn a_miss_costs_and_spoils_the_epoch() {
    build_and_execute(|| {
        Reputations::<Test>::insert(host(1), 500_000);
        <Verification as Reputation>::on_missed(&host(1), 1);
        assert_eq!(reputation(1), 490_000);
        <Verification as Reputation>::on_clean_epoch(&host(1), 1);
        assert_eq!(reputation(1), 490_000);
        <Verification as Reputation>::on_clean_epoch(&host(1), 2);
        assert!(reputation(1) > 490_000);
    });
}

#[test]
fn a_conviction_spoils_the_epoch() {
    build_and_execute(|| {
        Convictions::<Test>::insert(1, host(1), Conviction { since: 1, answers: 1 });
        <Verification as Reputation>::on_clean_epoch(&host(1), 1);
        assert_eq!(reputation(1), 0);
    });
}

#[test]
fn misses_of_forgotten_epochs_leave_nothing_behind() {
    build_and_execute(|| {
        Reputations::<Test>::insert(host(1), 500_000);
        run_to_epoch(5, 1);
        <Verification as Reputation>::on_missed(&host(1), 2);
        assert_eq!(Missed::<Test>::iter().count(), 0);
        assert_eq!(reputation(1), 490_000);
    });
}
