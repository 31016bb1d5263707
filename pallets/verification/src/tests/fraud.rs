//! What a fraud proof shows, what it costs when it shows nothing, and what it never touches.

use crate::{
    mock::*, Accuser, Convictions, DisputeStatus, Disputes, Error, Event, Missed, OpenDisputes, Panels,
    Refusal, Reputations,
};
use frame_support::{assert_noop, assert_ok, dispatch::CheckIfFeeless};
use proptest::prelude::*;
use sp_core::Pair;
use starling_primitives::{
    fraud::{Evidence, Fraud, FraudProof, NoProof, OpenedWindow},
    merkle,
    receipt::{Receipt, SignedReceipt},
    records::{response_hash, Finished, InferenceResult, InferenceState},
    replay::ReplayError,
    request::{RequestHeader, SamplingParams},
    sampler::sample,
    tape::tape_seed,
    traits::{Beacon, Duties, Inferences, Reputation, Round},
    transcript::{
        window_hash, Candidate, TokenRecord, Transcript, TranscriptBuilder, Window, WindowProof,
        MAX_WINDOW_BYTES,
    },
    verdict::{Figures, Outcome},
    InferenceId, H256,
};

/// An inference with all that its executor committed to.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) id: InferenceId,
    executor: u8,
    transcript: Transcript,
    finished: Finished,
}

impl Answer {
    fn record(&self) {
        let Finished { request_id, response_hash, transcript_root, prompt_tokens, completion_tokens } =
            self.finished.clone();
        change(self.id, |record| {
            record.request_id = request_id;
            record.state = InferenceState::Finished;
            record.result = Some(InferenceResult {
                response_hash,
                transcript_root,
                prompt_tokens,
                completion_tokens,
                finished_at: now(),
            });
        });
    }

    /// The executor's word on it, after a change that it signs too.
    fn receipt(&self, with: impl FnOnce(&mut Receipt)) -> SignedReceipt {
        let mut receipt = Receipt {
            epoch: self.id.epoch,
            epoch_seed: Mock::seed(Round::Epoch(self.id.epoch)).unwrap(),
            executor: host(self.executor),
            finished: self.finished.clone(),
        };
        with(&mut receipt);
        let pair = pair_of(&receipt.executor);
        let signature = pair.sign(receipt.signing_hash(&System::block_hash(0)).as_bytes());
        SignedReceipt { receipt, worker: pair.public(), signature }
    }

    pub(super) fn window(&self, index: u32) -> Evidence {
        let opened = self.transcript.window_proof(index).unwrap();
        Evidence::Window {
            header: self.transcript.header.clone(),
            opened: OpenedWindow::new(opened).unwrap(),
        }
    }

    pub(super) fn proof(&self, evidence: Evidence) -> Box<FraudProof> {
        Box::new(FraudProof { inference: self.id, receipt: self.receipt(|_| ()), evidence })
    }
}

fn candidates(position: u32) -> Vec<Candidate> {
    let candidate = |rank: u32| Candidate { token: 20 * rank + position % 20, q: 60 + 30 * rank as u16 };
    (0..5).map(candidate).collect()
}

/// An answer of a host with `tokens` tokens, sampled as it should be, then changed by `cheat`, then committed to.
fn answer(executor: u8, tokens: u32, cheat: impl FnOnce(&mut Vec<TokenRecord>)) -> Answer {
    let id = finished(executor);
    let sampling = SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };
    let nonce = [id.index as u8; 32];
    let header = RequestHeader {
        profile: PROFILE,
        prompt_hash: H256::zero(),
        sampling,
        max_tokens: 100,
        constraint: None,
        nonce,
    };
    let seed = tape_seed(&Mock::seed(Round::Epoch(id.epoch)).unwrap(), &header.id());
    let mut records: Vec<TokenRecord> = (0..tokens)
        .map(|position| {
            let candidates = candidates(position);
            let chosen = sample(&seed, position, &candidates, &sampling).unwrap() as u8;
            TokenRecord { candidates, chosen }
        })
        .collect();
    cheat(&mut records);
    let mut builder = TranscriptBuilder::new(header);
    for record in records {
        builder.push(record);
    }
    let (transcript, _) = builder.finish();
    let finished = Finished {
        request_id: transcript.header.id(),
        response_hash: response_hash(&transcript.tokens().unwrap()),
        transcript_root: transcript.root(),
        prompt_tokens: 10,
        completion_tokens: tokens,
    };
    let answer = Answer { id, executor, transcript, finished };
    answer.record();
    answer
}

pub(super) fn honest(executor: u8) -> Answer {
    answer(executor, 40, |_| ())
}

/// Another candidate than the tape's at one position.
pub(super) fn lie(executor: u8, position: usize) -> Answer {
    answer(executor, 40, |records| records[position].chosen = (records[position].chosen + 1) % 5)
}

/// A verdict that finds nothing wrong.
fn within() -> Outcome {
    Outcome::Measured(Figures { tokens: 40, distance_sum: 0, margin_sum: 0 })
}

fn prove(proof: Box<FraudProof>) -> frame_support::dispatch::DispatchResult {
    Verification::prove_fraud(RuntimeOrigin::signed(client()), proof)
}

fn last_reason() -> Option<NoProof> {
    take_events().into_iter().rev().find_map(|event| match event {
        Event::FraudUnproven { reason, .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn a_wrong_choice_convicts_without_a_vote() {
    build_and_execute(|| {
        Reputations::<Test>::insert(host(1), 500_000);
        let lie = lie(1, 35);
        let proof = lie.proof(lie.window(1));
        let shown = Verification::fraud(&proof).unwrap();
        assert!(matches!(shown, Fraud::Window(ReplayError::Chosen { position: 35, .. })));
        assert_ok!(prove(proof.clone()));
        let id = lie.id;
        assert_eq!(
            take_events(),
            [
                Event::FraudProven { id, accuser: Accuser::Account(client()), fraud: shown },
                Event::ReputationChanged { host: host(1), reputation: 0 },
                Event::Convicted { host: host(1), epoch: 1, id },
            ]
        );
        assert_eq!(state(id), InferenceState::Invalid);
        assert_eq!(Settled::get(), [(id, false)]);
        assert_eq!(Convicted::get(), [host(1)]);
        assert!(<Verification as Duties>::forfeits(1, &host(1)));
        assert_eq!(<Verification as Reputation>::reputation(&host(1)), 0);
        assert_eq!(Balances::free_balance(client()), ENDOWMENT);
        // Once is enough; and the other window shows nothing.
        assert_noop!(prove(proof.clone()), Error::<Test>::AlreadyFallen);
        assert_noop!(prove(lie.proof(lie.window(0))), Error::<Test>::AlreadyFallen);
        assert_eq!(Verification::fraud(&proof), None);
    });
}

#[test]
fn every_lie_that_a_window_shows_convicts() {
    let outside = |records: &mut Vec<TokenRecord>| records[3].candidates[4].token = 100;
    let check = |answer: Answer, evidence: Evidence, expected: fn(&Fraud) -> bool| {
        let proof = answer.proof(evidence);
        assert_ok!(prove(proof));
        let fraud = take_events().into_iter().find_map(|event| match event {
            Event::FraudProven { fraud, .. } => Some(fraud),
            _ => None,
        });
        assert!(fraud.as_ref().is_some_and(expected), "{fraud:?}");
        assert_eq!(state(answer.id), InferenceState::Invalid);
    };
    build_and_execute(|| {
        let vocabulary = answer(1, 40, outside);
        let shown = vocabulary.window(0);
        check(vocabulary, shown, |fraud| {
            matches!(fraud, Fraud::Window(ReplayError::OutsideVocabulary { position: 3, token: 100 }))
        });

        let mut garbage = honest(1);
        garbage.transcript.windows[0] = vec![0xFF; 30];
        garbage.finished.transcript_root = garbage.transcript.root();
        garbage.record();
        let shown = garbage.window(0);
        check(garbage, shown, |fraud| matches!(fraud, Fraud::Window(ReplayError::Window { index: 0, .. })));

        // 41 tokens are charged, the transcript has 40.
        let mut longer = honest(1);
        longer.finished.completion_tokens = 41;
        longer.record();
        let shown = longer.window(1);
        check(longer, shown, |fraud| {
            matches!(fraud, Fraud::Window(ReplayError::WindowLength { index: 1, found: 8, expected: 9 }))
        });

        let beyond = answer(1, 101, |_| ());
        let shown = beyond.window(2);
        check(beyond, shown, |fraud| {
            matches!(fraud, Fraud::Window(ReplayError::AboveMaxTokens { found: 101, limit: 100 }))
        });

        // One window is the whole answer.
        let mut other_text = answer(1, 32, |_| ());
        other_text.finished.response_hash = H256::zero();
        other_text.record();
        let shown = other_text.window(0);
        check(other_text, shown, |fraud| matches!(fraud, Fraud::Window(ReplayError::ResponseHash { .. })));

        let mut unchained = answer(1, 32, |_| ());
        let (previous, bytes) = (H256::repeat_byte(7), unchained.transcript.windows[0].clone());
        let leaves = [unchained.finished.request_id, window_hash(&previous, &bytes)];
        unchained.finished.transcript_root = merkle::root(&leaves);
        unchained.record();
        let opened = WindowProof { index: 0, previous, bytes, proof: merkle::proof(&leaves, 1) };
        let header = unchained.transcript.header.clone();
        let shown = Evidence::Window { header, opened: OpenedWindow::new(opened).unwrap() };
        check(unchained, shown, |fraud| matches!(fraud, Fraud::Window(ReplayError::Unchained { .. })));
    });
}

#[test]
fn a_receipt_that_contradicts_the_chain_convicts() {
    let changes: [fn(&mut Finished); 4] = [
        |finished| finished.response_hash = H256::zero(),
        |finished| finished.transcript_root = H256::zero(),
        |finished| finished.prompt_tokens -= 1,
        |finished| finished.completion_tokens -= 1,
    ];
    build_and_execute(|| {
        for change in changes {
            let answer = honest(1);
            let mut proof = answer.proof(Evidence::Contradiction);
            proof.receipt = answer.receipt(|receipt| change(&mut receipt.finished));
            assert_eq!(Verification::fraud(&proof), Some(Fraud::Contradiction));
            assert_ok!(prove(proof));
            assert_eq!(state(answer.id), InferenceState::Invalid);
        }
        assert_eq!(Convicted::get(), [host(1)], "suspended once, however many of its answers fall");
        assert_eq!(Convictions::<Test>::get(1, host(1)).unwrap().answers, 4);
    });
}

#[test]
fn a_proof_that_proves_nothing_costs_the_deposit() {
    build_and_execute(|| {
        let honest = honest(1);
        let lie = lie(1, 35);
        let other_header = |change: fn(&mut RequestHeader)| {
            let Evidence::Window { mut header, opened } = honest.window(0) else { unreachable!() };
            change(&mut header);
            Evidence::Window { header, opened }
        };
        let opened = |change: fn(&mut OpenedWindow)| {
            let Evidence::Window { header, mut opened } = lie.window(1) else { unreachable!() };
            change(&mut opened);
            Evidence::Window { header, opened }
        };
        let shortened = opened(|opened| {
            opened.siblings.pop();
        });
        let mut forged = lie.proof(lie.window(1));
        forged.receipt.signature = lie.receipt(|receipt| receipt.epoch = 2).signature;
        let cases = [
            (honest.proof(honest.window(0)), NoProof::Replays),
            (honest.proof(honest.window(1)), NoProof::Replays),
            (honest.proof(Evidence::Contradiction), NoProof::NoContradiction),
            (honest.proof(other_header(|header| header.max_tokens = 1)), NoProof::OtherHeader),
            (honest.proof(other_header(|header| header.profile = 1)), NoProof::OtherProfile),
            // A window of the accuser's making, on a path that leads elsewhere.
            (lie.proof(opened(|opened| opened.previous = H256::zero())), NoProof::NotCommitted),
            (lie.proof(opened(|opened| opened.index = 0)), NoProof::NotCommitted),
            (lie.proof(opened(|opened| opened.index = u32::MAX)), NoProof::NotCommitted),
            (lie.proof(opened(|opened| opened.bytes[0] ^= 1)), NoProof::NotCommitted),
            (lie.proof(opened(|opened| opened.siblings[0] = H256::zero())), NoProof::NotCommitted),
            (lie.proof(shortened), NoProof::NotCommitted),
            // The windows of another answer do not count, and nobody signs for the executor.
            (forged, NoProof::NotSigned),
        ];
        for (proof, reason) in cases {
            let before = (Balances::free_balance(client()), Balances::total_issuance());
            assert_eq!(Verification::fraud(&proof), None);
            assert_ok!(prove(proof));
            assert_eq!(last_reason(), Some(reason));
            let after = (Balances::free_balance(client()), Balances::total_issuance());
            assert_eq!(after, (before.0 - STAKE, before.1 - STAKE), "exactly the deposit is burned");
        }
        assert!(Convicted::get().is_empty() && Settled::get().is_empty());
        assert_eq!(state(lie.id), InferenceState::Finished);
        // What failed for its form can still be shown as it should.
        assert_ok!(prove(lie.proof(lie.window(1))));
        assert_eq!(Convicted::get(), [host(1)]);
    });
}

#[test]
fn a_worker_proves_for_free_and_its_hosts_bond_answers() {
    build_and_execute(|| {
        let (honest, lie) = (honest(1), lie(1, 0));
        let feeless = |id: u8, proof: &FraudProof| {
            crate::Call::<Test>::prove_fraud { proof: Box::new(proof.clone()) }.is_feeless(&worker(id))
        };
        let (good, bad) = (lie.proof(lie.window(0)), honest.proof(honest.window(0)));
        assert!(feeless(2, &good) && !feeless(2, &bad));
        let by_client = crate::Call::<Test>::prove_fraud { proof: good.clone() };
        assert!(!by_client.is_feeless(&RuntimeOrigin::signed(client())));
        assert!(!by_client.is_feeless(&RuntimeOrigin::root()));

        assert_ok!(Verification::prove_fraud(worker(2), bad.clone()));
        let (id, accuser) = (honest.id, Accuser::Host(host(2)));
        let reason = NoProof::Replays;
        assert_eq!(take_events(), [Event::FraudUnproven { id, accuser, reason, burned: STAKE }]);
        assert_eq!(BondOf::get()[&host(2)], ENDOWMENT - STAKE);

        BondOf::mutate(|bonds| bonds.insert(host(2), STAKE - 1));
        assert!(!feeless(2, &good));
        assert_noop!(Verification::prove_fraud(worker(2), good.clone()), Error::<Test>::DepositNotCovered);
        assert_ok!(Verification::prove_fraud(worker(3), good.clone()));
        assert_eq!((Convicted::get(), BondOf::get()[&host(3)]), (vec![host(1)], ENDOWMENT));
        assert!(!feeless(3, &good), "what has fallen is shown to nobody for free");
    });
}

#[test]
fn what_the_chain_sees_at_a_glance_costs_the_fee_only() {
    build_and_execute(|| {
        let (first, second) = (lie(1, 0), lie(2, 0));
        let with = |receipt: SignedReceipt| Box::new(FraudProof { receipt, ..*first.proof(first.window(0)) });
        // Another answer's receipt, of the same executor or another one.
        assert_noop!(prove(with(second.receipt(|_| ()))), Error::<Test>::OtherReceipt);
        assert_noop!(prove(with(lie(1, 5).receipt(|_| ()))), Error::<Test>::OtherReceipt);
        assert_noop!(prove(with(first.receipt(|it| it.executor = host(2)))), Error::<Test>::OtherReceipt);
        // A gateway that records another epoch than it asked with frames nobody.
        assert_noop!(prove(with(first.receipt(|it| it.epoch = 0))), Error::<Test>::OtherReceipt);
        let other_seed = first.receipt(|it| it.epoch_seed = H256::zero());
        assert_noop!(prove(with(other_seed)), Error::<Test>::OtherReceipt);
        let mut by_client = first.receipt(|_| ());
        by_client.worker = pair_of(&client()).public();
        assert_noop!(prove(with(by_client)), Error::<Test>::OtherKey);
        let poor = RuntimeOrigin::signed(host(77));
        let good = first.proof(first.window(0));
        assert_noop!(Verification::prove_fraud(poor, good.clone()), Error::<Test>::DepositNotCovered);
        assert_noop!(
            Verification::prove_fraud(RuntimeOrigin::root(), good.clone()),
            sp_runtime::DispatchError::BadOrigin
        );
        let ahead = FraudProof { inference: InferenceId { epoch: 2, index: 0 }, ..*good.clone() };
        assert_noop!(prove(Box::new(ahead)), Error::<Test>::EpochClosed);
        let nothing = FraudProof { inference: InferenceId { epoch: 1, index: 99 }, ..*good.clone() };
        assert_noop!(prove(Box::new(nothing)), Error::<Test>::UnknownInference);

        change(first.id, |record| record.profile = 9);
        assert_noop!(prove(good.clone()), Error::<Test>::UnknownProfile);
        change(first.id, |record| record.profile = PROFILE);
        assert_eq!(Balances::free_balance(client()), ENDOWMENT);

        // As long as the record is kept, and not when it is pruned.
        run_to_epoch(3, 5);
        assert_ok!(prove(good));
        assert_eq!(state(first.id), InferenceState::Invalid);
        let late = second.proof(second.window(0));
        Records::mutate(|records| records.remove(&second.id));
        assert_noop!(prove(late.clone()), Error::<Test>::UnknownInference);
        run_to_epoch(4, 1);
        assert_noop!(prove(late), Error::<Test>::EpochClosed);
    });
}

#[test]
fn a_proof_overturns_every_vote() {
    build_and_execute(|| {
        let (open, outvoted) = (lie(1, 0), lie(1, 0));
        submit(2, outvoted.id, Outcome::ReplayFailed);
        hear(outvoted.id, &[(3, within()), (4, within())]);
        submit(2, open.id, Outcome::ReplayFailed);
        assert_eq!((state(open.id), state(outvoted.id)), (InferenceState::Disputed, InferenceState::Valid));
        for answer in [&open, &outvoted] {
            assert_ok!(prove(answer.proof(answer.window(0))));
            assert_eq!(state(answer.id), InferenceState::Invalid);
            let dispute = Disputes::<Test>::get(1, answer.id.index).unwrap();
            assert_eq!(dispute.status, DisputeStatus::Invalid);
        }
        assert_eq!(OpenDisputes::<Test>::iter().count(), 0);
        // Verdicts that come later are stored and decide nothing; and there will be no panel.
        submit(3, open.id, within());
        submit(4, open.id, within());
        run_to_boundary(5);
        assert!(!Panels::<Test>::contains_key(1, (open.id.index, 0)));
        assert_eq!(Settled::get(), [(outvoted.id, true), (open.id, false), (outvoted.id, false)]);
    });
}

#[test]
fn a_proof_dissolves_the_panel_and_nobody_owes_it_anything() {
    build_and_execute(|| {
        let lie = lie(1, 0);
        submit(2, lie.id, Outcome::ReplayFailed);
        run_to_boundary(1);
        assert_eq!(members(lie.id, 0), [3, 4]);
        let vote = sealed(3, lie.id, 0, Outcome::ReplayFailed);
        commit(3, &vote);
        assert_ok!(prove(lie.proof(lie.window(0))));
        Verification::do_try_state().unwrap();
        System::reset_events();
        commit(4, &sealed(4, lie.id, 0, within()));
        assert_eq!(last_refusal(), Some(Refusal::NotOnPanel));
        run_to_boundary(2);
        reveal(3, &vote);
        assert_eq!(last_refusal(), Some(Refusal::NotOnPanel));
        run_to_boundary(4);
        assert_eq!(Missed::<Test>::iter().count(), 0);
        assert_eq!((Settled::get(), Convicted::get()), (vec![(lie.id, false)], vec![host(1)]));
    });
}

#[test]
fn who_fell_by_a_vote_does_not_fall_again() {
    build_and_execute(|| {
        let lie = lie(3, 0);
        submit(4, lie.id, Outcome::ReplayFailed);
        hear(lie.id, &[(1, Outcome::ReplayFailed), (2, Outcome::ReplayFailed)]);
        assert_eq!((state(lie.id), Convicted::get()), (InferenceState::Invalid, vec![host(3)]));
        assert_noop!(prove(lie.proof(lie.window(0))), Error::<Test>::AlreadyFallen);
        assert_eq!(Convictions::<Test>::get(1, host(3)).unwrap().answers, 1);
    });
}

#[test]
fn a_signed_lie_convicts_before_it_is_recorded() {
    build_and_execute(|| {
        let lie = lie(1, 0);
        change(lie.id, |record| {
            record.state = InferenceState::Started;
            record.result = None;
        });
        // There is nothing to contradict yet.
        assert_ok!(prove(lie.proof(Evidence::Contradiction)));
        assert_eq!(last_reason(), Some(NoProof::NoContradiction));
        assert_ok!(prove(lie.proof(lie.window(0))));
        assert_eq!(Convicted::get(), [host(1)]);
        // The reserve goes back when the request expires, and not twice.
        assert_eq!(state(lie.id), InferenceState::Started);
        assert!(Settled::get().is_empty());
        assert_noop!(prove(lie.proof(lie.window(0))), Error::<Test>::AlreadyFallen);
    });
}

#[test]
fn the_largest_window_fits() {
    // 32 records of 20 candidates with the largest ids, each in its longest code.
    let record = |seed: u32| {
        let candidate = |rank: u32| Candidate {
            token: u32::MAX - (seed * 7 + rank * 65_537) % 1_000_000_007,
            q: (71 * rank) as u16,
        };
        TokenRecord { candidates: (0..20).map(candidate).collect(), chosen: 19 }
    };
    let bytes = Window { records: (0..32).map(record).collect() }.encode();
    assert!(bytes.len() > 2_500 && bytes.len() <= MAX_WINDOW_BYTES as usize, "{}", bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Whatever is shown of an honest answer: no panic, nobody convicted, the deposit burned.
    #[test]
    fn no_evidence_convicts_an_honest_executor(
        window in 0u32..2, index in prop_oneof![0u32..3, any::<u32>()],
        bytes in prop_oneof![Just(None), prop::collection::vec(any::<u8>(), 0..200).prop_map(Some)],
        flip in prop::option::of(any::<prop::sample::Index>()),
        siblings in prop::option::of(prop::collection::vec(any::<u8>(), 0..32)),
        previous in prop::option::of(any::<u8>()),
        max_tokens in prop::option::of(any::<u32>()),
        contradiction: bool,
    ) {
        build_and_execute(|| {
            let honest = honest(1);
            let Evidence::Window { mut header, mut opened } = honest.window(window) else { unreachable!() };
            opened.index = index;
            if let Some(bytes) = bytes {
                opened.bytes = bytes.try_into().unwrap();
            }
            if let Some(flip) = flip.filter(|_| !opened.bytes.is_empty()) {
                let at = flip.index(opened.bytes.len());
                opened.bytes[at] ^= 0x10;
            }
            if let Some(siblings) = siblings {
                opened.siblings =
                    siblings.into_iter().map(H256::repeat_byte).collect::<Vec<_>>().try_into().unwrap();
            }
            opened.previous = previous.map_or(opened.previous, H256::repeat_byte);
            header.max_tokens = max_tokens.unwrap_or(header.max_tokens);
            let window = Evidence::Window { header, opened };
            let evidence = if contradiction { Evidence::Contradiction } else { window };
            assert_ok!(prove(honest.proof(evidence)));
            assert!(last_reason().is_some());
            assert!(Convicted::get().is_empty() && Settled::get().is_empty());
            assert_eq!(Balances::free_balance(client()), ENDOWMENT - STAKE);
            assert!(Mock::record(honest.id).is_some_and(|record| record.state == InferenceState::Finished));
        });
    }
}
