//! Replay: an honest transcript passes, and every tampered field is caught and named.

use crate::common::{generate, header, Ids, Model, PLAIN, PROMPT};
use ::codec::{Decode, Encode};
use proptest::prelude::*;
use sp_core::{sr25519, Pair};
use starling_primitives::{
    fraud::{self, Known},
    merkle,
    receipt::{Receipt, SignedReceipt},
    records::{response_hash, Finished},
    replay::{
        prove_fraud, replay, replay_alone, replay_sprint, replay_window, replay_with, Checks, NoFraud,
        ReplayError, Replayed,
    },
    request::{prompt_hash, SamplingParams},
    sprint::SprintTask,
    transcript::{
        window_hash, Candidate, RecordError, TokenRecord, Transcript, TranscriptBuilder, Window, WindowError,
        WindowProof,
    },
    AccountId, H256,
};

const TOKENS: u32 = 75;
const VOCAB: u32 = 4_096;

fn seed() -> H256 {
    H256::repeat_byte(5)
}

fn sampling() -> SamplingParams {
    SamplingParams { temperature_milli: 800, top_p: 9_500, min_p: 20, top_k: 18, ..PLAIN }
}

fn honest() -> (Transcript, Finished) {
    let mut model = Model::new(11, VOCAB, Ids::Uniform);
    generate(header(sampling(), 100), &seed(), TOKENS, || model.peaked())
}

fn strict() -> Checks<'static> {
    Checks { prompt: Some(&PROMPT), vocab_size: Some(VOCAB), top_k: Some(20) }
}

fn run((transcript, finished): &(Transcript, Finished)) -> Result<Replayed, ReplayError> {
    replay_with(transcript, &seed(), finished, &strict())
}

/// A cheating executor: rebuilds transcript and commitment from changed records.
fn rebuild(original: &Transcript, change: impl FnOnce(&mut Vec<TokenRecord>)) -> (Transcript, Finished) {
    let mut records = original.records().expect("honest");
    change(&mut records);
    let mut builder = TranscriptBuilder::new(original.header.clone());
    for record in &records {
        builder.push(record.clone());
    }
    let (transcript, _) = builder.finish();
    let tokens = transcript.tokens().expect("valid");
    let finished = Finished {
        request_id: transcript.header.id(),
        response_hash: response_hash(&tokens),
        transcript_root: transcript.root(),
        prompt_tokens: PROMPT.len() as u32,
        completion_tokens: tokens.len() as u32,
    };
    (transcript, finished)
}

/// Commits to whatever windows there are.
fn recommit((transcript, finished): &mut (Transcript, Finished)) {
    finished.transcript_root = transcript.root();
}

fn position_with_candidates(transcript: &Transcript, from: u32, at_least: usize) -> (u32, TokenRecord) {
    let records = transcript.records().expect("honest");
    (0u32..)
        .zip(records)
        .skip(from as usize)
        .find(|(_, record)| record.candidates.len() >= at_least)
        .expect("the model is not that certain")
}

#[test]
fn honest_transcripts_replay() {
    let both = honest();
    let replayed = run(&both).expect("honest");
    assert_eq!(replayed.tokens.len() as u32, TOKENS);
    assert_eq!(response_hash(&replayed.tokens), both.1.response_hash);
    assert_eq!(replay(&both.0, &seed(), &both.1), Ok(replayed));
    for tokens in [0, 1, 31, 32, 33, 64, 100] {
        let mut model = Model::new(12, VOCAB, Ids::Uniform);
        let both = generate(header(sampling(), 100), &seed(), tokens, || model.peaked());
        assert_eq!(run(&both).map(|replayed| replayed.tokens.len() as u32), Ok(tokens));
    }
}

#[test]
fn every_field_of_the_header_is_bound() {
    let (original, finished) = honest();
    let changes: [fn(&mut Transcript); 10] = [
        |t| t.header.profile += 1,
        |t| t.header.prompt_hash.0[0] ^= 1,
        |t| t.header.sampling.temperature_milli += 1,
        |t| t.header.sampling.top_p -= 1,
        |t| t.header.sampling.min_p += 1,
        |t| t.header.sampling.top_k += 1,
        |t| t.header.sampling.frequency_penalty_milli += 1,
        |t| t.header.sampling.presence_penalty_milli += 1,
        |t| t.header.max_tokens += 1,
        |t| t.header.nonce[31] ^= 1,
    ];
    for change in changes {
        let mut transcript = original.clone();
        change(&mut transcript);
        let found = transcript.header.id();
        let expected = ReplayError::RequestId { found, expected: finished.request_id };
        assert_eq!(run(&(transcript, finished.clone())), Err(expected));
    }
}

#[test]
fn every_field_of_the_commitment_is_bound() {
    let both = honest();
    let zero = H256::zero();
    let with = |change: fn(&mut Finished)| {
        let mut both = both.clone();
        change(&mut both.1);
        run(&both).expect_err("tampered")
    };
    assert!(
        matches!(with(|f| f.request_id = H256::zero()), ReplayError::RequestId { expected, .. } if expected == zero)
    );
    assert!(
        matches!(with(|f| f.response_hash = H256::zero()), ReplayError::ResponseHash { expected, .. } if expected == zero)
    );
    assert!(
        matches!(with(|f| f.transcript_root = H256::zero()), ReplayError::Root { expected, .. } if expected == zero)
    );
    assert_eq!(with(|f| f.prompt_tokens += 1), ReplayError::PromptCount { found: 4, expected: 5 });
    assert_eq!(
        with(|f| f.completion_tokens = 65),
        ReplayError::WindowLength { index: 2, found: 11, expected: 1 }
    );
    assert_eq!(
        with(|f| f.completion_tokens += 1),
        ReplayError::WindowLength { index: 2, found: 11, expected: 12 }
    );
    assert_eq!(with(|f| f.completion_tokens = 64), ReplayError::WindowCount { found: 3, expected: 2 });
    assert_eq!(with(|f| f.completion_tokens = 97), ReplayError::WindowCount { found: 3, expected: 4 });
    assert_eq!(
        with(|f| f.completion_tokens = u32::MAX),
        ReplayError::WindowCount { found: 3, expected: 1 << 27 }
    );
}

#[test]
fn prompt_and_profile_are_held_against_it() {
    let (transcript, finished) = honest();
    let run = |checks: Checks<'_>| replay_with(&transcript, &seed(), &finished, &checks);
    let other = [1, 22, 333, 4_445];
    let (found, expected) = (prompt_hash(&other), prompt_hash(&PROMPT));
    let checks = Checks { prompt: Some(&other), ..strict() };
    assert_eq!(run(checks), Err(ReplayError::PromptHash { found, expected }));
    let checks = Checks { prompt: Some(&PROMPT[..3]), ..strict() };
    assert_eq!(run(checks), Err(ReplayError::PromptCount { found: 3, expected: 4 }));
    let checks = Checks { vocab_size: Some(1_000), ..strict() };
    assert!(matches!(run(checks), Err(ReplayError::OutsideVocabulary { token: 1_000.., .. })));
    let checks = Checks { top_k: Some(1), ..strict() };
    let Err(ReplayError::Window { error: WindowError::Record { error, .. }, .. }) = run(checks) else {
        panic!("K is not checked");
    };
    assert_eq!(error, RecordError::CandidateCount);
}

#[test]
fn another_tape_is_caught() {
    let (transcript, finished) = honest();
    let error = replay(&transcript, &H256::zero(), &finished);
    assert!(matches!(error, Err(ReplayError::Chosen { .. })), "{error:?}");
}

#[test]
fn another_choice_is_caught_where_it_was_made() {
    let original = honest().0;
    for from in [0, 20, 40, 66] {
        let (position, record) = position_with_candidates(&original, from, 2);
        let other = u8::from(record.chosen == 0);
        let token = record.candidates[usize::from(other)].token;
        let both = rebuild(&original, |records| records[position as usize].chosen = other);
        let expected = record.chosen().expect("honest").token;
        assert_eq!(run(&both), Err(ReplayError::Chosen { position, found: token, expected }));
    }
}

#[test]
fn another_temperature_is_caught() {
    // The executor samples hotter than asked, over true log-probabilities.
    let mut model = Model::new(11, VOCAB, Ids::Uniform);
    let hot = header(SamplingParams { temperature_milli: 2_000, ..sampling() }, 100);
    let (mut transcript, mut finished) = generate(hot, &seed(), TOKENS, || model.peaked());
    transcript.header = header(sampling(), 100);
    finished.request_id = transcript.header.id();
    finished.transcript_root = transcript.root();
    let error = run(&(transcript, finished));
    assert!(matches!(error, Err(ReplayError::Chosen { .. })), "{error:?}");
}

#[test]
fn a_forced_text_is_caught() {
    // Text from elsewhere: its tokens are put on top of the lists, where sampling seldom agrees.
    let original = honest().0;
    let both = rebuild(&original, |records| {
        for record in records {
            record.chosen = 0;
        }
    });
    assert!(matches!(run(&both), Err(ReplayError::Chosen { .. })));
}

#[test]
fn changed_candidates_are_caught_or_change_nothing_chosen() {
    let original = honest().0;
    let (position, record) = position_with_candidates(&original, 0, 3);
    // The chosen token is hidden: another one wins, but the answer still has the old one.
    let both = rebuild(&original, |records| {
        let record = &mut records[position as usize];
        let chosen = usize::from(record.chosen);
        record.candidates[chosen].token =
            (0..).find(|t| record.candidates.iter().all(|c| c.token != *t)).unwrap_or(0);
        record.candidates.sort_by_key(|candidate| (candidate.q, candidate.token));
        record.chosen = 0;
    });
    let mut claimed = both.clone();
    let mut tokens = original.tokens().expect("honest");
    claimed.1.response_hash = response_hash(&tokens);
    assert!(run(&claimed).is_err());
    tokens[position as usize] = record.candidates[0].token;
    claimed.1.response_hash = response_hash(&tokens);
    assert!(run(&claimed).is_err());
}

#[test]
fn order_number_and_end_of_windows_are_bound() {
    let original = honest();
    let mut swapped = original.clone();
    swapped.0.windows.swap(0, 1);
    assert!(matches!(run(&swapped), Err(ReplayError::Root { .. })));
    recommit(&mut swapped);
    // Decodes, but at the wrong positions of the tape.
    assert!(matches!(run(&swapped), Err(ReplayError::Chosen { position: 0..64, .. })));

    let mut shorter = original.clone();
    shorter.0.windows.pop();
    assert_eq!(run(&shorter), Err(ReplayError::WindowCount { found: 2, expected: 3 }));

    let mut hole = original.clone();
    hole.0.windows.swap(0, 2);
    recommit(&mut hole);
    assert_eq!(run(&hole), Err(ReplayError::WindowLength { index: 0, found: 11, expected: 32 }));

    let mut garbage = original;
    garbage.0.windows[1] = vec![0xff; 40];
    recommit(&mut garbage);
    assert_eq!(run(&garbage), Err(ReplayError::Window { index: 1, error: WindowError::Malformed }));
}

#[test]
fn more_tokens_than_asked_for_are_caught() {
    let mut model = Model::new(11, VOCAB, Ids::Uniform);
    let both = generate(header(sampling(), 74), &seed(), TOKENS, || model.peaked());
    assert_eq!(run(&both), Err(ReplayError::AboveMaxTokens { found: 75, limit: 74 }));
}

#[test]
fn a_transcript_replays_without_a_claim_about_it() {
    let alone = |transcript: &Transcript| {
        let tokens = transcript.completion_tokens().expect("it decodes");
        replay_alone(transcript, &seed(), tokens, &strict())
    };
    for tokens in [0, 1, 31, 32, 33, 64, 100] {
        let mut model = Model::new(12, VOCAB, Ids::Uniform);
        let both = generate(header(sampling(), 100), &seed(), tokens, || model.peaked());
        assert_eq!(both.0.completion_tokens(), Ok(tokens));
        assert_eq!(alone(&both.0), run(&both));
    }
    let (transcript, _) = honest();
    let spoilt = |spoil: fn(&mut Transcript)| {
        let mut transcript = transcript.clone();
        spoil(&mut transcript);
        alone(&transcript)
    };
    assert!(matches!(
        spoilt(|t| t.header.sampling.temperature_milli += 500),
        Err(ReplayError::Chosen { .. })
    ));
    assert!(matches!(spoilt(|t| t.header.prompt_hash.0[0] ^= 1), Err(ReplayError::PromptHash { .. })));
    assert!(spoilt(|t| t.windows.swap(0, 2)).is_err());
    assert!(matches!(spoilt(|t| drop(t.windows.remove(0))), Err(ReplayError::Chosen { .. })));
}

#[test]
fn a_single_window_replays_alone() {
    let (transcript, finished) = honest();
    for (index, bytes) in (0..).zip(&transcript.windows) {
        let run = |index, tokens| replay_window(&transcript.header, &seed(), index, bytes, tokens, &strict());
        assert_eq!(
            run(index, finished.completion_tokens),
            Ok(Window::decode(bytes, 20).expect("honest").records)
        );
        assert!(run(index + 1, finished.completion_tokens).is_err());
        assert!(run(index, finished.completion_tokens - 1).is_err() || index < 2);
    }
}

#[test]
fn the_last_window_of_the_longest_transcript_replays() {
    let record = TokenRecord { candidates: vec![Candidate { token: 1, q: 0 }], chosen: 0 };
    let bytes = Window { records: vec![record; 31] }.encode();
    let header = header(SamplingParams::GREEDY, u32::MAX);
    let run = |index| replay_window(&header, &seed(), index, &bytes, u32::MAX, &strict());
    assert_eq!(run((1 << 27) - 1).map(|records| records.len()), Ok(31));
    assert!(run(1 << 27).is_err());
    assert!(run(u32::MAX).is_err());
}

#[test]
fn one_window_proves_a_fraud_and_nothing_else_does() {
    let honest = honest();
    let (position, _) = position_with_candidates(&honest.0, 40, 2);
    let cheat = rebuild(&honest.0, |records| {
        let record = &mut records[position as usize];
        record.chosen = u8::from(record.chosen == 0);
    });
    let header = &honest.0.header;
    let judge = |committed: &Finished, proof: &_| prove_fraud(header, &seed(), committed, proof, &strict());

    let guilty = cheat.0.window_proof(position / 32).expect("exists");
    assert!(
        matches!(judge(&cheat.1, &guilty), Ok(ReplayError::Chosen { position: at, .. }) if at == position)
    );
    // The same window says nothing about who did not commit to it.
    assert_eq!(judge(&honest.1, &guilty), Err(NoFraud::NotCommitted));
    let clean = cheat.0.window_proof(0).expect("exists");
    assert_eq!(judge(&cheat.1, &clean), Err(NoFraud::Replays));
    for index in 0..3 {
        let proof = honest.0.window_proof(index).expect("exists");
        assert_eq!(judge(&honest.1, &proof), Err(NoFraud::Replays));
    }
    let mut other = header.clone();
    other.nonce[0] ^= 1;
    let verdict = prove_fraud(&other, &seed(), &cheat.1, &guilty, &strict());
    assert_eq!(verdict, Err(NoFraud::OtherHeader));
    // A proof survives its trip through SCALE.
    let copied = Decode::decode(&mut &guilty.encode()[..]).expect("own encoding");
    assert!(judge(&cheat.1, &copied).is_ok());
}

#[test]
fn the_only_window_shows_another_answer() {
    let mut model = Model::new(11, VOCAB, Ids::Uniform);
    let (transcript, mut finished) = generate(header(sampling(), 100), &seed(), 32, || model.peaked());
    let opened = transcript.window_proof(0).expect("exists");
    let run = |finished: &Finished| prove_fraud(&transcript.header, &seed(), finished, &opened, &strict());
    assert_eq!(run(&finished), Err(NoFraud::Replays));
    let (found, expected) = (finished.response_hash, H256::zero());
    finished.response_hash = expected;
    assert_eq!(run(&finished), Ok(ReplayError::ResponseHash { found, expected }));
}

#[test]
fn the_first_window_continues_the_request_id() {
    let (transcript, mut finished) = honest();
    // Committed to as the executor likes: the leaves are right in number, and the first one hangs in the air.
    let previous = H256::repeat_byte(9);
    let mut leaves = vec![transcript.header.id(), window_hash(&previous, &transcript.windows[0])];
    leaves.extend([H256::zero(); 2]);
    finished.transcript_root = merkle::root(&leaves);
    let proof = merkle::proof(&leaves, 1);
    let opened = WindowProof { index: 0, previous, bytes: transcript.windows[0].clone(), proof };
    let judged = prove_fraud(&transcript.header, &seed(), &finished, &opened, &strict());
    let expected = transcript.header.id();
    assert_eq!(judged, Ok(ReplayError::Unchained { found: previous, expected }));
    assert!(matches!(run(&(transcript, finished)), Err(ReplayError::Root { .. })), "the whole one falls too");
}

#[test]
fn sprint_transcripts_replay() {
    let task = SprintTask {
        seed: H256::repeat_byte(1),
        epoch: 4,
        host: AccountId::new([9; 32]),
        profile: 2,
        vocab_size: VOCAB,
        prompt_tokens: 16,
        decode_tokens: 40,
    };
    let mut model = Model::new(3, VOCAB, Ids::Uniform);
    let (transcript, finished) = generate(task.header(7), &task.tape_seed(7), 40, || model.peaked());
    let leaf = finished.transcript_root;
    assert!(replay_sprint(&transcript, &task, 7, &leaf, 20).is_ok());
    let wrong_nonce = replay_sprint(&transcript, &task, 8, &leaf, 20);
    assert!(matches!(wrong_nonce, Err(ReplayError::RequestId { .. })));
    let wrong_leaf = replay_sprint(&transcript, &task, 7, &H256::zero(), 20);
    assert!(matches!(wrong_leaf, Err(ReplayError::Root { .. })));
    let longer = SprintTask { decode_tokens: 41, ..task.clone() };
    assert!(replay_sprint(&transcript, &longer, 7, &leaf, 20).is_err());
    let (short, finished) = generate(task.header(7), &task.tape_seed(7), 39, || model.peaked());
    let too_short = replay_sprint(&short, &task, 7, &finished.transcript_root, 20);
    assert_eq!(too_short, Err(ReplayError::WindowLength { index: 1, found: 7, expected: 8 }));
    let few = SprintTask { vocab_size: 10, ..task };
    assert!(replay_sprint(&transcript, &few, 7, &leaf, 20).is_err());
}

#[test]
fn errors_say_what_and_where() {
    let error = ReplayError::Chosen { position: 41, found: 7, expected: 9 };
    assert_eq!(error.to_string(), "token 7 was chosen at position 41, the tape picks 9");
    let record = WindowError::Record { index: 3, error: RecordError::NotSorted };
    let error = ReplayError::Window { index: 1, error: record };
    assert_eq!(error.to_string(), "window 1 does not decode");
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(source.as_deref(), Some("record 3 of the window: the candidates are not sorted"));
}

proptest! {
    /// Any changed bit of any window is caught by the root; with the root committed to, by decoder or sampler, or the
    /// change is one of candidates that were not chosen (which distance and margin are for).
    #[test]
    fn changed_bits_never_change_the_answer_unnoticed(window in 0usize..3, bit: prop::sample::Index) {
        let mut both = honest();
        let bytes = &mut both.0.windows[window];
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        let uncommitted = matches!(run(&both), Err(ReplayError::Root { .. }));
        prop_assert!(uncommitted);
        recommit(&mut both);
        if let Ok(replayed) = run(&both) {
            prop_assert_eq!(replayed.tokens, honest().0.tokens().expect("honest"));
        }
    }

    #[test]
    fn remote_bytes_never_panic(
        windows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4),
        completion_tokens in 0u32..130, index: u32,
    ) {
        let transcript = Transcript { header: header(sampling(), 100), windows };
        let finished = Finished {
            request_id: transcript.header.id(),
            response_hash: H256::zero(),
            transcript_root: transcript.root(),
            prompt_tokens: 4,
            completion_tokens,
        };
        let _ = replay(&transcript, &seed(), &finished);
        for bytes in &transcript.windows {
            let _ = replay_window(&transcript.header, &seed(), index, bytes, completion_tokens, &strict());
        }
    }
}

/// What the executor of an answer gives out: its word on it, and the transcript.
fn given_out((transcript, finished): &(Transcript, Finished)) -> (SignedReceipt, Transcript) {
    let pair = sr25519::Pair::from_seed(&[3; 32]);
    let executor = AccountId::new([1; 32]);
    let receipt = Receipt { epoch: 1, epoch_seed: H256::zero(), executor, finished: finished.clone() };
    let signature = pair.sign(receipt.signing_hash(&H256::zero()).as_bytes());
    (SignedReceipt { receipt, worker: pair.public(), signature }, transcript.clone())
}

/// What is found against an executor that gave this out and put `on_chain` on chain.
fn found((receipt, transcript): &(SignedReceipt, Transcript), on_chain: &Finished) -> Option<fraud::Fraud> {
    let known = Known {
        genesis: &H256::zero(),
        tape_seed: &seed(),
        finished: Some(on_chain),
        profile: transcript.header.profile,
        vocab_size: VOCAB,
        top_k: 20,
    };
    let evidence = fraud::find(receipt, transcript, &known)?;
    Some(fraud::judge(receipt, evidence, &known).expect("what is found holds"))
}

#[test]
fn what_an_executor_gives_out_convicts_a_liar_and_nobody_else() {
    let honest = honest();
    let mut given = given_out(&honest);
    assert_eq!(found(&given, &honest.1), None);
    // It signed something else than it put on chain.
    let on_chain = Finished { response_hash: H256::zero(), ..honest.1.clone() };
    assert_eq!(found(&given, &on_chain), Some(fraud::Fraud::Contradiction));
    // Each window shows what is wrong in it.
    for from in [0, 20, 40, 66] {
        let (position, record) = position_with_candidates(&honest.0, from, 2);
        let other = u8::from(record.chosen == 0);
        let cheat = rebuild(&honest.0, |records| records[position as usize].chosen = other);
        let fraud = found(&given_out(&cheat), &cheat.1);
        assert!(
            matches!(fraud, Some(fraud::Fraud::Window(ReplayError::Chosen { position: at, .. })) if at == position)
        );
        // Without its signature nothing is proven.
        let mut unsigned = given_out(&cheat);
        unsigned.0.receipt.epoch = 2;
        assert_eq!(found(&unsigned, &cheat.1), None);
        // Nor by a transcript that it did not commit to.
        assert_eq!(found(&(given.0.clone(), cheat.0), &honest.1), None);
    }
    given.1.windows.clear();
    assert_eq!(found(&given, &honest.1), None);
    given.1.windows = vec![vec![0; 40_000]; 3];
    assert_eq!(found(&given, &honest.1), None);
    // The only window replays, and is another answer.
    let mut model = Model::new(11, VOCAB, Ids::Uniform);
    let mut short = generate(header(sampling(), 100), &seed(), 20, || model.peaked());
    short.1.response_hash = H256::zero();
    let fraud = found(&given_out(&short), &short.1);
    assert!(matches!(fraud, Some(fraud::Fraud::Window(ReplayError::ResponseHash { .. }))), "{fraud:?}");
}
