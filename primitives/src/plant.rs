//! Planted transcripts: bad answers on purpose, by which verifiers show whether they look.
//!
//! A host asks a request of its own for which it is drawn itself, answers it with another model than it should, and says so
//! when others have given their verdicts. Who approved it has not looked. The host commits itself before the request is
//! recorded, and who asked agrees, so that no bad answer to somebody else becomes a plant afterwards.

use crate::{hashing::hash_of, AccountId, MultiSignature, RequestId, H256};
use codec::{Decode, DecodeWithMemTracking, Encode};
use scale_info::TypeInfo;

/// What a planter commits itself to: `blake2_256("starling/plant" ++ SCALE((request, salt)))`. The salt is random and told to
/// nobody before the reveal, since the request is known to all who verify it.
pub fn commitment(request: RequestId, salt: H256) -> H256 {
    hash_of(b"starling/plant", &(request, salt))
}

/// The client's word that it asked for a bad answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Consent {
    /// Account of the signing key: the client, or the delegated key that signed the request's authorization.
    pub signer: AccountId,
    /// sr25519, ed25519 or ecdsa signature over [`Consent::signing_hash`].
    pub signature: MultiSignature,
}

impl Consent {
    /// The 32 bytes that are signed: `blake2_256("starling/consent" ++ SCALE((genesis hash, request)))`.
    pub fn signing_hash(genesis: &H256, request: &RequestId) -> H256 {
        hash_of(b"starling/consent", &(genesis, request))
    }

    /// Whether the signature is `signer`'s, for this request on the chain with this genesis hash.
    pub fn verify(&self, genesis: &H256, request: &RequestId) -> bool {
        use sp_runtime::traits::Verify;
        self.signature.verify(Self::signing_hash(genesis, request).as_bytes(), &self.signer)
    }
}
