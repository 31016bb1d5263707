//! Random verdicts, panels, fraud proofs and plants keep the state sound, and a dispute ends as a plain count of its panels'
//! votes, a proof, or a reveal says.

use super::{
    fraud::{honest, lie, Answer},
    plants::{asked, commit_to, next, uncover},
};
use crate::{
    mock::*, Agenda, ApproversOf, Convictions, Dispute, DisputeStatus, Disputes, Negligences, OpenDisputes,
    Panels, Plants, Seats,
};
use proptest::prelude::*;
use starling_math::{evidence::Standing, panel::PANELS, plant::FIRST_ROUND};
use starling_primitives::{
    records::InferenceState,
    traits::Inferences,
    verdict::{Outcome, PanelReveal, PanelRound},
    InferenceId, Work,
};

#[derive(Clone, Debug)]
enum Step {
    Started(u8, bool),
    Finish(u32),
    Verdict(u8, u32, u8),
    /// Of a host for the panel that was drawn last but `n`, whether or not it sits on it.
    Commit(u8, u32, u8),
    /// Of a commitment that was made last but `n`.
    Reveal(u32),
    /// A verifier's verdicts on as many answers of a host, each close below the limits.
    Close(u8, u8, u32),
    Answer(u8, bool),
    /// By a worker (0: the client), of one of the last answers.
    Prove(u8, u32),
    /// A host commits itself and answers its own request, a block later or at once.
    Plant(u8, bool),
    /// Of a plant that was made last but `n`.
    Uncover(u32),
    /// Of a plant that was made last but `n`.
    Contest(u8, u32),
    Run(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u8..=4, any::<bool>()).prop_map(|(executor, previous)| Step::Started(executor, previous)),
        3 => (0u32..16).prop_map(Step::Finish),
        10 => (1u8..=5, 0u32..16, 0u8..5).prop_map(|(verifier, n, outcome)| Step::Verdict(verifier, n, outcome)),
        12 => (1u8..=4, 0u32..4, 0u8..5).prop_map(|(verifier, n, outcome)| Step::Commit(verifier, n, outcome)),
        12 => (0u32..6).prop_map(Step::Reveal),
        2 => (1u8..=4, 1u8..=4, 1u32..12).prop_map(|(verifier, executor, n)| Step::Close(verifier, executor, n)),
        2 => (1u8..=4, any::<bool>()).prop_map(|(executor, honest)| Step::Answer(executor, honest)),
        2 => (0u8..=4, 0u32..6).prop_map(|(by, n)| Step::Prove(by, n)),
        4 => (1u8..=4, prop::bool::weighted(0.9)).prop_map(|(planter, later)| Step::Plant(planter, later)),
        3 => (0u32..3).prop_map(Step::Uncover),
        3 => (1u8..=4, 0u32..3).prop_map(|(by, n)| Step::Contest(by, n)),
        4 => (1u32..6).prop_map(Step::Run),
        2 => (6u32..30).prop_map(Step::Run),
    ]
}

/// One of the last inferences.
fn pick(n: u32) -> Option<InferenceId> {
    Records::get().keys().rev().nth(n as usize).copied()
}

/// What was made outside of the chain so far.
#[derive(Default)]
struct Made {
    answers: Vec<Answer>,
    /// What members of panels have committed themselves to.
    sealed: Vec<(u8, PanelReveal)>,
    plants: Vec<(u8, InferenceId)>,
}

fn outcome(of: u8) -> Outcome {
    match of {
        0 | 1 => good(),
        2 => bad(),
        3 => Outcome::ReplayFailed,
        _ => Outcome::Unavailable,
    }
}

fn has_fallen(id: u8) -> bool {
    Convicted::get().contains(&host(id))
}

fn take(step: Step, made: &mut Made) {
    let answers = &mut made.answers;
    match step {
        Step::Commit(verifier, n, of) => {
            let mut panels: Vec<_> =
                Panels::<Test>::iter().map(|(epoch, place, panel)| (panel.drawn_at, epoch, place)).collect();
            panels.sort_unstable();
            let Some((_, epoch, (index, round))) = panels.into_iter().rev().nth(n as usize) else { return };
            if !has_fallen(verifier) {
                let vote = sealed(verifier, InferenceId { epoch, index }, round, outcome(of));
                commit(verifier, &vote);
                made.sealed.push((verifier, vote));
            }
        }
        Step::Reveal(n) => {
            let Some((verifier, vote)) = made.sealed.iter().rev().nth(n as usize) else { return };
            if !has_fallen(*verifier) {
                reveal(*verifier, vote);
            }
        }
        Step::Close(verifier, executor, n) => {
            for _ in 0..n {
                let id = finished(executor);
                if verifier != executor && !has_fallen(verifier) {
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
        Step::Verdict(verifier, n, of) => {
            if let (Some(id), false) = (pick(n), has_fallen(verifier)) {
                submit(verifier, id, outcome(of));
            }
        }
        Step::Plant(planter, later) => {
            let id = next();
            if has_fallen(planter) || Plants::<Test>::contains_key(id.epoch, host(planter)) {
                return;
            }
            commit_to(planter, id);
            run_to(now() + u32::from(later));
            if next() == id {
                made.plants.push((planter, asked(planter)));
            }
        }
        Step::Uncover(n) => {
            let Some((planter, id)) = made.plants.iter().rev().nth(n as usize) else { return };
            if !has_fallen(*planter) && Mock::record(*id).is_some() {
                let before = state(*id);
                let revealed = uncover(*planter, *id).is_ok();
                assert_eq!(state(*id), if revealed { InferenceState::Planted } else { before });
            }
        }
        Step::Contest(by, n) => {
            let Some((_, id)) = made.plants.iter().rev().nth(n as usize) else { return };
            let approved = ApproversOf::<Test>::get(id.epoch, id.index).contains(&host(by));
            let contested = Verification::contest_plant(worker(by), *id).is_ok();
            assert!(approved || !contested);
        }
        Step::Run(blocks) => run_to(now() + blocks),
    }
}

/// Weights of a panel: all of it, and those of its members whose vote satisfies a condition.
fn weights(
    id: InferenceId,
    round: PanelRound,
    of: impl Fn(&crate::VerdictRecord) -> bool,
) -> Option<(Work, Work)> {
    if !Panels::<Test>::contains_key(id.epoch, (id.index, round)) {
        return None;
    }
    let vote = |member: &u8| Seats::<Test>::get(id.epoch, (id.index, round, host(*member)))?.verdict;
    let weight = |members: &mut dyn Iterator<Item = u8>| members.map(|id| 10 * Work::from(id)).sum();
    let members = members(id, round);
    let votes = &mut members.iter().copied().filter(|member| vote(member).is_some_and(|vote| of(&vote)));
    Some((weight(&mut members.iter().copied()), weight(votes)))
}

fn failed(vote: &crate::VerdictRecord) -> bool {
    !vote.passed && vote.outcome != Outcome::Unavailable
}

/// Of one of the panels from the round `first` on.
fn has_majority(
    id: InferenceId,
    first: PanelRound,
    of: impl Fn(&crate::VerdictRecord) -> bool + Copy,
) -> bool {
    (first..first + PANELS).any(|round| weights(id, round, of).is_some_and(|(all, votes)| 2 * votes > all))
}

fn check_plant(id: InferenceId, status: DisputeStatus) {
    let executor = Mock::record(id).unwrap().executor;
    let convicted = Convictions::<Test>::contains_key(id.epoch, &executor);
    let bad = has_majority(id, FIRST_ROUND, failed);
    let good = has_majority(id, FIRST_ROUND, |vote| vote.passed);
    match status {
        DisputeStatus::Planted | DisputeStatus::Waiting => assert!(!bad && !good),
        DisputeStatus::Judging => assert!(!bad && !good),
        DisputeStatus::Invalid => assert!(!good),
        DisputeStatus::Valid => assert!(!bad && (!good || convicted)),
    }
    assert_eq!(state(id), InferenceState::Planted);
}

fn check_dispute(id: InferenceId, status: DisputeStatus) {
    let record = Mock::record(id).unwrap();
    let has_majority = |of: fn(&crate::VerdictRecord) -> bool| has_majority(id, 0, of);
    let against = has_majority(|vote| !vote.passed);
    let favour = has_majority(|vote| vote.passed);
    match status {
        DisputeStatus::Planted => unreachable!("that is a plant"),
        DisputeStatus::Waiting => assert!(!against && !favour),
        // A majority that could not get the transcript waits for the rest, who may have seen that it is bad.
        DisputeStatus::Judging => assert!(!favour && !has_majority(failed)),
        DisputeStatus::Invalid => {
            let failed = has_majority(failed);
            let convicted = Convictions::<Test>::contains_key(id.epoch, &record.executor);
            assert!(convicted || against && !failed, "a majority or a proof");
        }
        DisputeStatus::Valid => assert!(!against),
    }
    let expected = match status {
        DisputeStatus::Waiting | DisputeStatus::Judging => InferenceState::Disputed,
        DisputeStatus::Valid => InferenceState::Valid,
        DisputeStatus::Invalid => InferenceState::Invalid,
        DisputeStatus::Planted => InferenceState::Planted,
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
            let mut made = Made::default();
            for step in steps {
                take(step, &mut made);
                Verification::do_try_state().unwrap();
                check_stakes();
                for (epoch, index, dispute) in Disputes::<Test>::iter() {
                    let id = InferenceId { epoch, index };
                    match dispute.is_about_plant() {
                        true => check_plant(id, dispute.status),
                        false => check_dispute(id, dispute.status),
                    }
                }
                let is_true = |id: InferenceId| {
                    let dispute: Dispute = Disputes::<Test>::get(id.epoch, id.index).unwrap();
                    dispute.status == DisputeStatus::Invalid && dispute.is_about_plant()
                };
                assert!(Negligences::<Test>::iter_values().all(is_true));
            }
            // Whatever is still open ends when its time is over, each once.
            run_to_epoch(Current::get().index + 2, 40);
            assert_eq!(OpenDisputes::<Test>::iter().count(), 0);
            assert_eq!(Agenda::<Test>::iter().count(), 0);
            // A proof may overturn a vote, and nothing overturns a proof.
            let mut settled = Settled::get();
            let all = settled.len();
            settled.sort();
            settled.dedup();
            assert_eq!(settled.len(), all);
        });
    }
}
