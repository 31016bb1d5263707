//! Random verdicts and fraud proofs keep the state sound, and a dispute ends as a plain count of its verdicts, or a proof,
//! says.

use super::fraud::{honest, lie, Answer};
use crate::{mock::*, Convictions, DisputeStatus, Disputes, OpenDisputes, Verdicts};
use proptest::prelude::*;
use starling_math::evidence::Standing;
use starling_primitives::{records::InferenceState, traits::Inferences, verdict::Outcome, InferenceId, Work};

#[derive(Clone, Debug)]
enum Step {
    Started(u8, bool),
    Finish(u32),
    Verdict(u8, u32, u8),
    /// A verifier's verdicts on as many answers of a host, each close below the limits.
    Close(u8, u8, u32),
    Answer(u8, bool),
    /// By a worker (0: the client), of one of the last answers.
    Prove(u8, u32),
    Run(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u8..=4, any::<bool>()).prop_map(|(executor, previous)| Step::Started(executor, previous)),
        3 => (0u32..16).prop_map(Step::Finish),
        10 => (1u8..=5, 0u32..16, 0u8..5).prop_map(|(verifier, n, outcome)| Step::Verdict(verifier, n, outcome)),
        2 => (1u8..=4, 1u8..=4, 1u32..12).prop_map(|(verifier, executor, n)| Step::Close(verifier, executor, n)),
        2 => (1u8..=4, any::<bool>()).prop_map(|(executor, honest)| Step::Answer(executor, honest)),
        2 => (0u8..=4, 0u32..6).prop_map(|(by, n)| Step::Prove(by, n)),
        2 => (1u32..30).prop_map(Step::Run),
    ]
}

/// One of the last inferences.
fn pick(n: u32) -> Option<InferenceId> {
    Records::get().keys().rev().nth(n as usize).copied()
}

fn take(step: Step, answers: &mut Vec<Answer>) {
    match step {
        Step::Close(verifier, executor, n) => {
            for _ in 0..n {
                let id = finished(executor);
                if verifier != executor && !Convicted::get().contains(&host(verifier)) {
                    submit(verifier, id, good());
                }
            }
        }
        Step::Answer(executor, true) => answers.push(honest(executor)),
        Step::Answer(executor, false) => answers.push(lie(executor, 3)),
        Step::Prove(by, n) => {
            let Some(answer) = answers.iter().rev().nth(n as usize) else { return };
            let origin = if by == 0 { RuntimeOrigin::signed(client()) } else { worker(by) };
            let before = (state(answer.id), Convicted::get());
            let proof = answer.proof(answer.window(0));
            let holds = Verification::fraud(&proof).is_some();
            let proven = Verification::prove_fraud(origin, proof).is_ok() && holds;
            assert!(!proven || state(answer.id) == InferenceState::Invalid);
            assert!(
                proven || before == (state(answer.id), Convicted::get()),
                "nothing happens without proof"
            );
        }
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

/// What is lost is lost in whole deposits, and who is accused by more than half of the weight is convicted, not watched.
fn check_stakes() {
    let lost = ENDOWMENT - Balances::free_balance(client());
    assert!(lost.is_multiple_of(STAKE));
    assert_eq!(Balances::total_issuance(), ENDOWMENT - lost);
    assert!(BondOf::get().values().all(|bond| (ENDOWMENT - bond).is_multiple_of(STAKE)));
    for executor in 1..=4 {
        assert!(Verification::standing(&host(executor)) < Some(Standing::Convicted));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn verdicts_add_up(steps in prop::collection::vec(step(), 1..80)) {
        build_and_execute(|| {
            let mut answers = Vec::new();
            for step in steps {
                take(step, &mut answers);
                Verification::do_try_state().unwrap();
                check_stakes();
                for (epoch, index, dispute) in Disputes::<Test>::iter() {
                    check_dispute(InferenceId { epoch, index }, dispute.status);
                }
            }
            // Whatever is still open ends when its time is over, each once.
            run_to_epoch(Current::get().index + 2, 40);
            assert_eq!(OpenDisputes::<Test>::iter().count(), 0);
            // A proof may overturn a vote, and nothing overturns a proof.
            let mut settled = Settled::get();
            let all = settled.len();
            settled.sort();
            settled.dedup();
            assert_eq!(settled.len(), all);
        });
    }
}
