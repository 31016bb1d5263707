//! The window codec: nothing is lost, and no content has two encodings.

use crate::common::{any_record, generate, header, Ids, Model, PLAIN};
use ::codec::{Decode, Encode};
use proptest::prelude::*;
use starling_primitives::{
    profile::MAX_K,
    transcript::{
        window_count, window_hash, Candidate, RecordError, TokenRecord, Transcript, TranscriptBuilder,
        Window, WindowError, MAX_TAIL_Q, MAX_WINDOW_BYTES, WINDOW_TOKENS,
    },
    H256,
};

fn record(candidates: &[(u32, u16)], chosen: u8) -> TokenRecord {
    let candidates = candidates.iter().map(|&(token, q)| Candidate { token, q }).collect();
    TokenRecord { candidates, chosen }
}

/// Whatever decodes must encode to itself.
fn check_canonical(bytes: &[u8], k: u8) -> bool {
    match Window::decode(bytes, k) {
        Ok(window) => {
            assert_eq!(window.encode(), bytes);
            true
        }
        Err(_) => false,
    }
}

#[test]
fn invalid_records_are_named() {
    let twenty_one: Vec<_> = (0..21).map(|token| (token, 100)).collect();
    let cases = [
        (record(&[], 0), RecordError::CandidateCount),
        (record(&twenty_one, 0), RecordError::CandidateCount),
        (record(&[(1, 4_096)], 0), RecordError::OutOfRange),
        (record(&[(1, 0), (2, MAX_TAIL_Q + 1)], 0), RecordError::OutOfRange),
        (record(&[(1, 5), (2, 4)], 0), RecordError::NotSorted),
        (record(&[(2, 5), (1, 5)], 0), RecordError::NotSorted),
        (record(&[(2, 5), (2, 5)], 0), RecordError::NotSorted),
        (record(&[(2, 5), (3, 5), (2, 6)], 0), RecordError::DuplicateToken),
        (record(&[(1, 5), (2, 5)], 2), RecordError::Chosen),
    ];
    for (record, error) in cases {
        assert_eq!(record.check(MAX_K), Err(error), "{record:?}");
    }
    assert_eq!(record(&[(1, 4_095)], 0).check(MAX_K), Ok(()));
    assert_eq!(record(&[(1, 0), (2, MAX_TAIL_Q)], 1).check(2), Ok(()));
    assert_eq!(record(&[(1, 0), (2, MAX_TAIL_Q)], 1).check(1), Err(RecordError::CandidateCount));
}

#[test]
fn padding_and_trailing_bytes_are_refused() {
    for tokens in 1..=WINDOW_TOKENS {
        let records = vec![record(&[(9, 3), (70_000, 400)], 0); tokens];
        let bytes = Window { records }.encode();
        assert!(check_canonical(&bytes, 2));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Window::decode(&longer, 2), Err(WindowError::Trailing));
        assert_eq!(Window::decode(&bytes[..bytes.len() - 1], 2), Err(WindowError::Malformed));
    }
    assert_eq!(Window::decode(&[], 20), Err(WindowError::Malformed));
}

#[test]
fn builder_closes_and_chains_windows() {
    let header = header(PLAIN, 200);
    let mut builder = TranscriptBuilder::new(header.clone());
    let mut running = header.id();
    let mut closed = 0;
    for token in 0..70u32 {
        assert_eq!(builder.token_count(), token);
        assert_eq!(builder.running_hash(), running);
        if let Some(window) = builder.push(record(&[(token, 7)], 0)) {
            assert_eq!((token + 1) % WINDOW_TOKENS as u32, 0);
            assert_eq!(window.index, closed);
            assert_eq!(window.hash, window_hash(&running, &window.bytes));
            running = window.hash;
            closed += 1;
        }
    }
    assert_eq!(closed, 2);
    let (transcript, last) = builder.finish();
    let last = last.expect("six tokens are left");
    assert_eq!((last.index, last.hash), (2, window_hash(&running, &last.bytes)));
    assert_eq!(transcript.windows.len() as u32, window_count(70));
    assert_eq!(transcript.window_hashes().last(), Some(&last.hash));
    assert_eq!(transcript.tokens(), Ok((0..70).collect()));
    assert_eq!(transcript.encoded_len(), transcript.encode().len());
    assert_eq!(Transcript::decode(&mut &transcript.encode()[..]), Ok(transcript));
}

#[test]
fn an_empty_generation_has_a_root_and_no_window() {
    let (transcript, last) = TranscriptBuilder::new(header(PLAIN, 1)).finish();
    assert_eq!((last, transcript.windows.len(), window_count(0)), (None, 0, 0));
    assert_ne!(transcript.root(), H256::zero());
    assert_eq!(transcript.window_proof(0), None);
}

#[test]
fn windows_open_against_the_root() {
    let mut model = Model::new(1, 4_096, Ids::ByFrequency);
    let (transcript, finished) = generate(header(PLAIN, 100), &H256::zero(), 100, || model.peaked());
    let root = finished.transcript_root;
    for index in 0..4 {
        let proof = transcript.window_proof(index).expect("four windows");
        assert!(proof.opens(&root, 100) && proof.opens(&root, 97) && proof.opens(&root, 128));
        assert!(!proof.opens(&root, 96) && !proof.opens(&root, 129));
        assert!(!proof.opens(&H256::zero(), 100));
        let mut moved = proof.clone();
        moved.index = (index + 1) % 4;
        assert!(!moved.opens(&root, 100));
        let mut changed = proof.clone();
        changed.bytes[5] ^= 1;
        assert!(!changed.opens(&root, 100));
        let mut unchained = proof;
        unchained.previous = H256::zero();
        assert!(!unchained.opens(&root, 100));
    }
    assert_eq!(transcript.window_proof(4), None);
}

/// The protocol's bound: at most 45 bytes stored for each token.
#[test]
fn bytes_per_token() {
    let tokens = 2_048;
    for (vocab, ids) in [
        (4_096, Ids::ByFrequency),
        (4_096, Ids::Uniform),
        (151_936, Ids::ByFrequency),
        (151_936, Ids::Uniform),
    ] {
        let mut model = Model::new(42, vocab, ids);
        let (mut candidates, mut open) = (0, 0);
        let (peaked, _) = generate(header(PLAIN, tokens), &H256::zero(), tokens, || {
            let next = model.peaked();
            candidates += next.len();
            open += usize::from(next.len() == 20);
            next
        });
        let (flat, _) = generate(header(PLAIN, tokens), &H256::zero(), tokens, || model.flat());
        let per_token = |transcript: &Transcript| transcript.encoded_len() as f64 / f64::from(tokens);
        println!(
            "vocabulary {vocab}, ids {ids:?}: peaked {:.1} bytes per token ({:.1} candidates, {:.0} % full), \
             flat 20 candidates {:.1}, SCALE of the flat records {}",
            per_token(&peaked),
            candidates as f64 / f64::from(tokens),
            100.0 * open as f64 / f64::from(tokens),
            per_token(&flat),
            2 + 20 * 6,
        );
        assert!(per_token(&peaked) <= 45.0);
        assert!(per_token(&flat) <= 66.0);
    }
}

proptest! {
    #[test]
    fn windows_come_back(records in prop::collection::vec(any_record(), 1..=WINDOW_TOKENS)) {
        let window = Window { records };
        prop_assert_eq!(window.check(MAX_K), Ok(()));
        let bytes = window.encode();
        prop_assert!(bytes.len() as u32 <= MAX_WINDOW_BYTES);
        prop_assert_eq!(Window::decode(&bytes, MAX_K), Ok(window.clone()));
        let most = window.records.iter().map(|record| record.candidates.len() as u8).max().unwrap_or(0);
        prop_assert_eq!(Window::decode(&bytes, most), Ok(window));
        prop_assert!(Window::decode(&bytes, most - 1).is_err());
    }

    #[test]
    fn random_bytes_are_canonical_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), k in 0u8..=25) {
        check_canonical(&bytes, k);
    }

    #[test]
    fn short_random_bytes_are_canonical_or_refused(bytes in prop::collection::vec(any::<u8>(), 3..9)) {
        // One record in a handful of bytes: these do decode now and then.
        let mut bytes = bytes;
        bytes[0] &= 0b0000_0111;
        check_canonical(&bytes, MAX_K);
    }

    #[test]
    fn changed_bytes_are_canonical_or_refused(
        records in prop::collection::vec(any_record(), 1..=WINDOW_TOKENS),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        cut in 0usize..3,
    ) {
        let window = Window { records };
        let canonical = window.encode();
        let mut bytes = canonical.clone();
        for flip in flips {
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
        }
        bytes.truncate(bytes.len() - cut);
        if check_canonical(&bytes, MAX_K) && bytes != canonical {
            prop_assert_ne!(Window::decode(&bytes, MAX_K), Ok(window));
        }
    }

    #[test]
    fn transcripts_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(transcript) = Transcript::decode(&mut &bytes[..]) {
            let _ = (transcript.root(), transcript.records(), transcript.tokens());
        }
    }
}
