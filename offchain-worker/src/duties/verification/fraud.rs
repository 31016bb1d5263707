//! Proofs that an executor lied, out of what it served itself: its receipt and its transcript.
//!
//! A proof is an addition to the verdict and never replaces it: the verdict is a duty, which a claim asks for. An executor
//! that gives no receipt, or one that is not its own, cannot be shown to have lied; the verdict goes to a panel then, as
//! for any other bad answer. A wrong proof would cost a part of the bond, so nothing is said that the runtime itself does
//! not confirm.

use crate::duties::DutyError;
use starling_chain_client::ChainView;
use starling_primitives::{
    fraud::{self, FraudProof, Known},
    profile::Profile,
    receipt::SignedReceipt,
    records::Finished,
    tape::tape_seed,
    transcript::Transcript,
    AccountId, InferenceId, ProfileId, H256,
};

/// An inference as the chain has it.
pub(super) struct Accused<'a> {
    pub(super) id: InferenceId,
    pub(super) executor: &'a AccountId,
    /// Seed of the epoch that it is recorded in.
    pub(super) epoch_seed: H256,
    pub(super) finished: &'a Finished,
    pub(super) profile: (ProfileId, &'a Profile),
}

impl Accused<'_> {
    /// A proof that this host and the runtime, in the state of `view`, both hold to be one.
    pub(super) async fn prove(
        &self,
        view: &ChainView,
        genesis: H256,
        receipt: Option<SignedReceipt>,
        transcript: &Transcript,
    ) -> Result<Option<Box<FraudProof>>, DutyError> {
        let Some(receipt) = receipt.filter(|receipt| self.is_about(receipt)) else { return Ok(None) };
        let (id, profile) = self.profile;
        let known = Known {
            genesis: &genesis,
            tape_seed: &tape_seed(&self.epoch_seed, &self.finished.request_id),
            finished: Some(self.finished),
            profile: id,
            vocab_size: profile.vocab_size,
            top_k: profile.top_k,
        };
        let Some(evidence) = fraud::find(&receipt, transcript, &known) else { return Ok(None) };
        let proof = Box::new(FraudProof { inference: self.id, receipt, evidence });
        let found = view.fraud(&proof).await?;
        match found {
            Some(fraud) => {
                tracing::warn!(target: "duties::verification", epoch = self.id.epoch, index = self.id.index, executor = %self.executor, ?fraud, "the executor lied");
                Ok(Some(proof))
            }
            // It has fallen already, or the executor has another key by now.
            None => Ok(None),
        }
    }

    /// A receipt about something else is no word on this inference, and no reason to look further.
    fn is_about(&self, receipt: &SignedReceipt) -> bool {
        let receipt = &receipt.receipt;
        receipt.finished.request_id == self.finished.request_id
            && receipt.executor == *self.executor
            && (receipt.epoch, receipt.epoch_seed) == (self.id.epoch, self.epoch_seed)
    }
}
