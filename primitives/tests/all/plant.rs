//! Planted transcripts: what a commitment and a consent are bound to.

use proptest::prelude::*;
use sp_core::{ecdsa, ed25519, sr25519, Pair};
use sp_runtime::{traits::IdentifyAccount, MultiSigner};
use starling_primitives::{
    plant::{commitment, Consent},
    MultiSignature, H256,
};

const GENESIS: H256 = H256::repeat_byte(1);

fn consents(request: &H256) -> [Consent; 3] {
    let hash = Consent::signing_hash(&GENESIS, request);
    let (sr, ed, ec) = (
        sr25519::Pair::from_seed(&[5; 32]),
        ed25519::Pair::from_seed(&[6; 32]),
        ecdsa::Pair::from_seed(&[7; 32]),
    );
    let consent = |signer: MultiSigner, signature| Consent { signer: signer.into_account(), signature };
    [
        consent(sr.public().into(), MultiSignature::Sr25519(sr.sign(hash.as_bytes()))),
        consent(ed.public().into(), MultiSignature::Ed25519(ed.sign(hash.as_bytes()))),
        consent(ec.public().into(), MultiSignature::Ecdsa(ec.sign(hash.as_bytes()))),
    ]
}

#[test]
fn a_consent_is_for_one_request_on_one_chain_by_one_key() {
    let request = H256::repeat_byte(2);
    let all = consents(&request);
    for (n, consent) in all.iter().enumerate() {
        assert!(consent.verify(&GENESIS, &request));
        assert!(!consent.verify(&GENESIS, &H256::repeat_byte(3)));
        assert!(!consent.verify(&H256::zero(), &request));
        let other = Consent { signer: all[(n + 1) % 3].signer.clone(), ..consent.clone() };
        assert!(!other.verify(&GENESIS, &request));
    }
}

proptest! {
    #[test]
    fn a_commitment_opens_to_one_request_and_salt(request: [u8; 32], salt: [u8; 32], other: [u8; 32]) {
        let (request, salt, other) = (H256(request), H256(salt), H256(other));
        prop_assume!(request != other && salt != other);
        prop_assert_ne!(commitment(request, salt), commitment(other, salt));
        prop_assert_ne!(commitment(request, salt), commitment(request, other));
    }
}
