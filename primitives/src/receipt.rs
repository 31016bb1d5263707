//! The executor's signed word on an answer.

use crate::{hashing::hash_of, records::Finished, AccountId, EpochIndex, H256};
use codec::{Decode, DecodeWithMemTracking, Encode};
use scale_info::TypeInfo;

/// What the executor's worker key signs and the client keeps.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Receipt {
    /// Epoch whose seed the tape was made from.
    pub epoch: EpochIndex,
    /// Seed of that epoch.
    pub epoch_seed: H256,
    /// Host that ran the request.
    pub executor: AccountId,
    /// What it puts on chain.
    pub finished: Finished,
}

impl Receipt {
    /// The 32 bytes that are signed: `blake2_256("starling/receipt" ++ SCALE((genesis hash, receipt)))`.
    pub fn signing_hash(&self, genesis: &H256) -> H256 {
        hash_of(b"starling/receipt", &(genesis, self))
    }
}

/// A [`Receipt`] with the signature of the executor's worker key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SignedReceipt {
    /// The receipt.
    pub receipt: Receipt,
    /// Worker key of the executor.
    pub worker: sp_core::sr25519::Public,
    /// sr25519 signature over [`Receipt::signing_hash`].
    pub signature: sp_core::sr25519::Signature,
}

impl SignedReceipt {
    /// Whether `worker` signed this receipt on the chain with this genesis hash.
    pub fn verify(&self, genesis: &H256) -> bool {
        use sp_runtime::traits::Verify;
        self.signature.verify(self.receipt.signing_hash(genesis).as_bytes(), &self.worker)
    }
}
