//! Many verdicts that each pass: who accuses, what that comes to, and what liars of less than half cannot do.

use crate::{mock::*, Accusations, Convictions, Doubts, Event, PrunedBefore, Reputations, Standings};
use starling_math::evidence::{Standing, ACCUSES, UNIT};
use starling_primitives::{
    records::InferenceState,
    traits::{Duties, Reputation},
    verdict::{Figures, Outcome},
    InferenceId,
};

/// Beyond three quarters of the limits: each such verdict is worth two bits.
fn close() -> Outcome {
    Outcome::Measured(Figures { tokens: TOKENS, distance_sum: 760, margin_sum: 0 })
}

/// As honest answers mostly are.
fn far() -> Outcome {
    Outcome::Measured(Figures { tokens: TOKENS, distance_sum: 100, margin_sum: 100 })
}

/// Verdicts of the worth of [`close`] that make an accusation.
const ENOUGH: u32 = ACCUSES / (2 * UNIT as u32);

fn submit_times(verifier: u8, executor: u8, outcome: Outcome, times: u32) -> InferenceId {
    let mut last = None;
    for _ in 0..times {
        let id = finished(executor);
        submit(verifier, id, outcome);
        last = Some(id);
    }
    last.unwrap()
}

fn doubt(epoch: u32, executor: u8, verifier: u8) -> u32 {
    Doubts::<Test>::get(epoch, (host(executor), PROFILE, host(verifier)))
}

fn standing(id: u8) -> Option<Standing> {
    Verification::standing(&host(id))
}

#[test]
fn honest_figures_leave_no_trace() {
    build_and_execute(|| {
        for verifier in 2..=4 {
            submit_times(verifier, 1, far(), 20);
        }
        assert_eq!(Doubts::<Test>::iter().count(), 0);
        // One that comes close is forgotten after a few that do not.
        submit_times(2, 1, close(), 1);
        assert_eq!(doubt(1, 1, 2), 512);
        submit_times(2, 1, far(), 5);
        assert_eq!(Doubts::<Test>::iter().count(), 0);
    });
}

#[test]
fn each_verifier_has_a_test_of_its_own() {
    build_and_execute(|| {
        // Together they have seen twice what accuses, none of them enough.
        for verifier in 2..=4 {
            submit_times(verifier, 1, close(), ENOUGH - 1);
            assert_eq!(doubt(1, 1, verifier), ACCUSES - 512);
        }
        assert_eq!(standing(1), None);
        // What fails or is not there is no bet.
        submit(2, finished(1), Outcome::Unavailable);
        submit(2, finished(1), bad());
        assert_eq!(doubt(1, 1, 2), ACCUSES - 512);
    });
}

#[test]
fn an_accusation_takes_trust_away_for_a_while() {
    build_and_execute(|| {
        Reputations::<Test>::insert(host(1), 500_000);
        // Of host 1, 90 may verify.
        submit_times(2, 1, close(), ENOUGH);
        let (accused, profile) = (host(1), PROFILE);
        let accusation = |verifier, standing| Event::Accused {
            host: accused.clone(),
            profile,
            verifier: host(verifier),
            standing,
        };
        assert!(take_events().contains(&accusation(2, Standing::Watched)));
        assert_eq!(doubt(1, 1, 2), 0, "the test begins anew");
        assert_eq!(<Verification as Reputation>::reputation(&host(1)), 0);
        assert!(<Verification as Reputation>::may_work(&host(1)));
        // The same verifier again is the same voice.
        submit_times(2, 1, close(), ENOUGH);
        assert_eq!(standing(1), Some(Standing::Watched));
        assert_eq!(Accusations::<Test>::get(1, (host(1), PROFILE)).into_inner(), [host(2)]);
        assert!(Convicted::get().is_empty());
        // It passes, unless others find the same.
        run_to_epoch(3, 1);
        assert_eq!(<Verification as Reputation>::reputation(&host(1)), 500_000);
    });
}

#[test]
fn a_third_of_the_weight_stops() {
    build_and_execute(|| {
        // Of host 2, 80 may verify: host 3 has 30 of them.
        submit_times(3, 2, close(), ENOUGH);
        assert_eq!(standing(2), Some(Standing::Stopped));
        assert!(!<Verification as Reputation>::may_work(&host(2)));
        assert!(<Verification as Reputation>::may_work(&host(3)));
        assert!(Convicted::get().is_empty());
        // It lasts for the next epoch, and then it is over.
        run_to_epoch(2, 1);
        assert_eq!(standing(2), Some(Standing::Stopped));
        run_to_epoch(3, 1);
        assert_eq!(standing(2), None);
        assert!(<Verification as Reputation>::may_work(&host(2)));
    });
}

#[test]
fn half_of_the_weight_convicts_once() {
    build_and_execute(|| {
        Reputations::<Test>::insert(host(1), 500_000);
        submit_times(2, 1, close(), ENOUGH);
        let id = submit_times(3, 1, close(), ENOUGH);
        assert_eq!(Convicted::get(), [host(1)]);
        assert!(<Verification as Duties>::forfeits(1, &host(1)));
        let events = take_events();
        let convicted = Event::Convicted { host: host(1), epoch: 1, id };
        assert_eq!(events.iter().filter(|event| **event == convicted).count(), 1);
        assert!(events.contains(&Event::ReputationChanged { host: host(1), reputation: 0 }));
        // The answers themselves passed: nobody is refunded.
        assert_eq!(state(id), InferenceState::Finished);
        assert!(Settled::get().is_empty());
        // Others who find out later convict nobody again.
        submit_times(4, 1, close(), ENOUGH);
        submit_times(2, 1, close(), ENOUGH);
        assert_eq!(Convicted::get(), [host(1)]);
        assert_eq!(Convictions::<Test>::get(1, host(1)).unwrap().answers, 2);
    });
}

#[test]
fn liars_of_less_than_half_neither_convict_nor_shield() {
    build_and_execute(|| {
        // Host 4 has 40 of the 90 that may verify host 1: it lies as it likes.
        submit_times(4, 1, close(), 6 * ENOUGH);
        assert_eq!(standing(1), Some(Standing::Stopped));
        assert!(Convicted::get().is_empty());
        // And it praises host 2, whom the others see through.
        for _ in 0..ENOUGH {
            submit(4, finished(2), far());
            submit(1, finished(2), close());
            submit(3, finished(2), close());
        }
        assert_eq!(standing(2), Some(Standing::Stopped), "1 and 3 have 40 of 80: half is not more than half");
        assert!(Convicted::get().is_empty());
    });
}

#[test]
fn evidence_goes_on_into_the_next_epoch_and_no_further() {
    build_and_execute(|| {
        submit_times(2, 1, close(), ENOUGH - 1);
        run_to_epoch(2, 1);
        submit_times(2, 1, close(), 1);
        assert_eq!(standing(1), Some(Standing::Watched));
        assert_eq!(Doubts::<Test>::iter().count(), 0, "what was taken over is not counted twice");
        // An accusation of the epoch before joins those of this one.
        run_to_epoch(3, 1);
        submit_times(3, 1, close(), ENOUGH);
        assert_eq!(Convicted::get(), [host(1)]);

        submit_times(2, 4, close(), ENOUGH - 1);
        run_to_epoch(5, 1);
        submit_times(2, 4, close(), 1);
        assert_eq!(doubt(5, 4, 2), 512, "two epochs later it begins anew");
    });
}

#[test]
fn suspicion_is_pruned_with_its_epoch() {
    build_and_execute(|| {
        submit_times(2, 1, close(), ENOUGH);
        submit_times(3, 4, close(), 1);
        assert_eq!((Doubts::<Test>::iter().count(), Standings::<Test>::iter().count()), (1, 1));
        run_to_epoch(4, 40);
        assert!(PrunedBefore::<Test>::get() > 1);
        assert_eq!(Doubts::<Test>::iter().count(), 0);
        assert_eq!(Accusations::<Test>::iter().count(), 0);
        assert_eq!(Standings::<Test>::iter().count(), 0);
    });
}
