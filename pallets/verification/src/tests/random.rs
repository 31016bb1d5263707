//! Random verdicts keep the state sound, and a dispute ends as a plain count of its verdicts says.

use crate::{mock::*, Convictions, DisputeStatus, Disputes, OpenDisputes, Verdicts};
use proptest::prelude::*;
use starling_primitives::{records::InferenceState, traits::Inferences, verdict::Outcome, InferenceId, Work};

#[derive(Clone, Debug)]
enum Step {
    Started(u8, bool),
    Finish(u32),
    Verdict(u8, u32, u8),
    Run(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u8..=4, any::<bool>()).prop_map(|(executor, previous)| Step::Started(executor, previous)),
        3 => (0u32..16).prop_map(Step::Finish),
        10 => (1u8..=5, 0u32..16, 0u8..5).prop_map(|(verifier, n, outcome)| Step::Verdict(verifier, n, outcome)),
        2 => (1u32..30).prop_map(Step::Run),
    ]
}

/// One of the last inferences.
fn pick(n: u32) -> Option<InferenceId> {
    Records::get().keys().rev().nth(n as usize).copied()
}

fn take(step: Step) {
    match step {
        Step::Started(executor, previous) => {
            let current = Current::get();
            let open = now() < current.start + 2 * current.schedule.coverage_blocks;
            let epoch = if previous && open { current.index.saturating_sub(1).max(1) } else { current.index };
            started_in(epoch, executor);
        }
        Step::Finish(n) => {
            if let Some(id) = pick(n).filter(|id| state(*id) == InferenceState::Started) {
                finish(id);
            }
        }
        Step::Verdict(verifier, n, outcome) => {
            let outcome = match outcome {
                0 | 1 => good(),
                2 => bad(),
                3 => Outcome::ReplayFailed,
                _ => Outcome::Unavailable,
            };
            if let (Some(id), false) = (pick(n), Convicted::get().contains(&host(verifier))) {
                submit(verifier, id, outcome);
            }
        }
        Step::Run(blocks) => run_to(now() + blocks),
    }
}

/// Weight of those whose stored verdict satisfies a condition.
fn weight(id: InferenceId, of: impl Fn(&crate::VerdictRecord) -> bool) -> Work {
    let verdict = |verifier: &u8| Verdicts::<Test>::get(id.epoch, (id.index, host(*verifier)));
    (1..=4)
        .filter(|verifier| verdict(verifier).is_some_and(|verdict| of(&verdict)))
        .map(|id| 10 * Work::from(id))
        .sum()
}

fn check_dispute(id: InferenceId, status: DisputeStatus) {
    let record = Mock::record(id).unwrap();
    let executor = Work::from(<[u8; 32]>::from(record.executor.clone())[0]);
    let eligible = 100 - 10 * executor;
    let against = weight(id, |verdict| !verdict.passed);
    let favour = weight(id, |verdict| verdict.passed);
    match status {
        DisputeStatus::Open => assert!(2 * against <= eligible && 2 * favour <= eligible),
        DisputeStatus::Invalid => {
            let failed = weight(id, |verdict| !verdict.passed && verdict.outcome != Outcome::Unavailable);
            let convicted = Convictions::<Test>::contains_key(id.epoch, &record.executor);
            assert!(convicted || 2 * failed <= eligible || against > failed);
        }
        DisputeStatus::Valid => {}
    }
    let expected = match status {
        DisputeStatus::Open => InferenceState::Disputed,
        DisputeStatus::Valid => InferenceState::Valid,
        DisputeStatus::Invalid => InferenceState::Invalid,
    };
    assert_eq!(record.state, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn verdicts_add_up(steps in prop::collection::vec(step(), 1..80)) {
        build_and_execute(|| {
            for step in steps {
                take(step);
                Verification::do_try_state().unwrap();
                for (epoch, index, dispute) in Disputes::<Test>::iter() {
                    check_dispute(InferenceId { epoch, index }, dispute.status);
                }
            }
            // Whatever is still open ends when its time is over, each once.
            run_to_epoch(Current::get().index + 2, 40);
            assert_eq!(OpenDisputes::<Test>::iter().count(), 0);
            let mut settled: Vec<_> = Settled::get().into_iter().map(|(id, _)| id).collect();
            let all = settled.len();
            settled.sort();
            settled.dedup();
            assert_eq!(settled.len(), all);
        });
    }
}
