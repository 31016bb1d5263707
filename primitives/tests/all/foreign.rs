//! Bytes from strangers: what hosts, clients and transactions bring. Whatever they are, decoding ends, allocates no more
//! than they hold, and gives a value with that one encoding, or an error.

use crate::common::{any_params, any_record, generate, header, Ids, Model, PLAIN};
use ::codec::{Decode, DecodeWithMemLimit, Encode};
use proptest::prelude::*;
use sp_core::{sr25519, Pair};
use starling_primitives::{
    fraud::{judge, Evidence, FraudProof, Known, NoProof, OpenedWindow},
    merkle::Proof,
    plant::Consent,
    receipt::{Receipt, SignedReceipt},
    records::{Delivered, Finished, Started},
    replay::{prove_fraud, Checks},
    request::{Authorization, RequestHeader, SignedAuthorization},
    sprint::{SprintCommitment, SprintVerdict},
    tape::tape_seed,
    transcript::{TokenRecord, Transcript, WindowProof, MAX_WINDOW_BYTES},
    verdict::Verdict,
    vrf::{self, VrfInput, VrfProof},
    AccountId, InferenceId, MultiSignature, H256,
};

/// What a single message may make the decoder allocate here.
const MEMORY: usize = 1 << 20;

/// Whether the bytes decode; if they do, they are the value's encoding (but for what follows it).
fn check<T: Decode + DecodeWithMemLimit + Encode>(bytes: &[u8]) -> bool {
    let mut input = bytes;
    let Ok(value) = T::decode(&mut input) else { return false };
    let used = &bytes[..bytes.len() - input.len()];
    // `Option<bool>`-like and compact forms have one encoding each, which SCALE's decoder insists on.
    assert_eq!(value.encode(), used);
    assert!(T::decode_with_mem_limit(&mut &bytes[..], MEMORY).is_ok(), "a short message needs little memory");
    true
}

fn check_all(bytes: &[u8]) {
    check::<RequestHeader>(bytes);
    check::<SignedAuthorization>(bytes);
    check::<Started>(bytes);
    check::<Finished>(bytes);
    check::<Delivered>(bytes);
    check::<SignedReceipt>(bytes);
    check::<Verdict>(bytes);
    check::<SprintCommitment>(bytes);
    check::<SprintVerdict>(bytes);
    check::<VrfProof>(bytes);
    check::<Proof>(bytes);
    check::<WindowProof>(bytes);
    check::<OpenedWindow>(bytes);
    check::<Evidence>(bytes);
    check::<FraudProof>(bytes);
    check::<Consent>(bytes);
    check::<TokenRecord>(bytes);
    check::<Transcript>(bytes);
}

fn worker() -> sr25519::Pair {
    sr25519::Pair::from_seed(&[3; 32])
}

fn host() -> AccountId {
    AccountId::new([4; 32])
}

/// One valid message of each kind.
fn messages() -> Vec<Vec<u8>> {
    let (transcript, finished) = answer();
    let authorization = Authorization {
        client: host(),
        request_id: finished.request_id,
        profile: 3,
        max_price: 1 << 70,
        gateway: host(),
        expires_at: 7,
    };
    let signature = MultiSignature::Sr25519(worker().sign(b"message"));
    let authorization = SignedAuthorization { authorization, signer: host(), signature };
    let started = Started { authorization: authorization.clone(), epoch: 1, attempt: 2, executor: host() };
    let consent = Consent { signer: host(), signature: MultiSignature::Sr25519(worker().sign(b"message")) };
    let opened = transcript.window_proof(1).expect("exists");
    vec![
        consent.encode(),
        transcript.header.encode(),
        authorization.encode(),
        started.encode(),
        finished.encode(),
        receipt(&finished).encode(),
        vrf::sign(&worker(), &VrfInput::Beacon(H256::zero(), 1)).0.encode(),
        opened.encode(),
        proof(&transcript, &finished).encode(),
        transcript.encode(),
    ]
}

fn answer() -> (Transcript, Finished) {
    let mut model = Model::new(21, 4_096, Ids::ByFrequency);
    let header = header(PLAIN, 70);
    let seed = tape_seed(&H256::repeat_byte(1), &header.id());
    generate(header, &seed, 70, || model.peaked())
}

fn receipt(finished: &Finished) -> SignedReceipt {
    let epoch_seed = H256::repeat_byte(1);
    let receipt = Receipt { epoch: 5, epoch_seed, executor: host(), finished: finished.clone() };
    let signature = worker().sign(receipt.signing_hash(&H256::zero()).as_bytes());
    SignedReceipt { receipt, worker: worker().public(), signature }
}

fn proof(transcript: &Transcript, finished: &Finished) -> FraudProof {
    let opened = OpenedWindow::new(transcript.window_proof(2).expect("exists")).expect("of valid size");
    let evidence = Evidence::Window { header: transcript.header.clone(), opened };
    FraudProof { inference: InferenceId { epoch: 5, index: 0 }, receipt: receipt(finished), evidence }
}

fn judged(proof: &FraudProof, finished: &Finished) -> Result<(), NoProof> {
    let seed = tape_seed(&H256::repeat_byte(1), &finished.request_id);
    let known = Known {
        genesis: &H256::zero(),
        tape_seed: &seed,
        finished: Some(finished),
        profile: 3,
        vocab_size: 4_096,
        top_k: 20,
    };
    judge(&proof.receipt, proof.evidence.clone(), &known).map(drop)
}

#[test]
fn valid_messages_come_back() {
    for message in messages() {
        check_all(&message);
        let decodes = [
            check::<RequestHeader>(&message),
            check::<SignedAuthorization>(&message),
            check::<Started>(&message),
            check::<Finished>(&message),
            check::<WindowProof>(&message),
            check::<SignedReceipt>(&message),
            check::<FraudProof>(&message),
            check::<Consent>(&message),
            check::<Transcript>(&message),
        ];
        assert!(message.len() == 96 || decodes.contains(&true), "{} bytes", message.len());
    }
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    // A vector of 2^30 - 1 bytes, or of as many hashes, of which two come.
    let lying = [&[0xFE, 0xFF, 0xFF, 0xFF][..], &[1, 2]].concat();
    assert!(Proof::decode_with_mem_limit(&mut &lying[..], 1_024).is_err());
    assert!(Proof::decode(&mut &lying[..]).is_err());
    let window = [&[0; 36][..], &lying].concat();
    assert!(OpenedWindow::decode(&mut &window[..]).is_err());
    assert!(WindowProof::decode(&mut &window[..]).is_err());
}

#[test]
fn a_window_too_long_for_the_chain_is_not_shown() {
    let (transcript, _) = answer();
    let mut opened = transcript.window_proof(0).expect("exists");
    opened.bytes = vec![0; MAX_WINDOW_BYTES as usize];
    assert!(OpenedWindow::new(opened.clone()).is_some());
    opened.bytes.push(0);
    assert_eq!(OpenedWindow::new(opened), None);
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_come_back(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_all(&bytes);
    }

    #[test]
    fn damaged_messages_are_refused_or_come_back(
        which: prop::sample::Index, at: prop::sample::Index, with: u8, cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let messages = messages();
        let mut message = which.get(&messages).clone();
        let at = at.index(message.len());
        message[at] = with;
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len()));
        }
        check_all(&message);
    }

    /// Whatever becomes of a proof on its way, it convicts no honest executor.
    #[test]
    fn a_damaged_proof_convicts_nobody(at: prop::sample::Index, bit in 0u8..8) {
        let (transcript, finished) = answer();
        let proof = proof(&transcript, &finished);
        prop_assert_eq!(judged(&proof, &finished), Err(NoProof::Replays));
        let mut bytes = proof.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(damaged) = FraudProof::decode(&mut &bytes[..]) {
            prop_assert!(judged(&damaged, &finished).is_err());
        }
    }

    /// Headers and windows of any content, committed to or not: judging ends, and says something.
    #[test]
    fn any_window_is_judged(
        params in any_params(), records in prop::collection::vec(any_record(), 1..=32),
        index in prop_oneof![0u32..3, any::<u32>()], tokens: u32, max_tokens: u32, previous: u8,
        bytes in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
        siblings in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let header = header(params, max_tokens);
        let bytes = bytes.unwrap_or_else(|| starling_primitives::transcript::Window { records }.encode());
        let siblings = siblings.into_iter().map(H256::repeat_byte).collect();
        let opened =
            WindowProof { index, previous: H256::repeat_byte(previous), bytes, proof: Proof { siblings } };
        let finished = Finished {
            request_id: header.id(),
            response_hash: H256::zero(),
            transcript_root: H256::zero(),
            prompt_tokens: 1,
            completion_tokens: tokens,
        };
        let judged = prove_fraud(&header, &H256::zero(), &finished, &opened, &Checks::default());
        prop_assert!(judged.is_err(), "nobody committed to it");
    }
}
