//! What the node and the host agent ask the runtime about Starling.

use alloc::vec::Vec;
use starling_primitives::{
    fraud::{Fraud, FraudProof},
    records::Finished,
    replay::ReplayError,
    request::SamplingParams,
    schedule::EpochState,
    transcript::{Candidate, Transcript},
    AccountId, Balance, EpochIndex, H256,
};

sp_api::decl_runtime_apis! {
    /// The epoch clock and the duties of a host.
    pub trait StarlingApi {
        /// The current epoch.
        fn epoch() -> EpochState;
        /// What keeps a host's claim of `epoch` from being accepted: indices of inferences of the claim's sample whose
        /// verification is its duty, given its duty secret, and undone.
        fn undone_duties(epoch: EpochIndex, host: AccountId, secret: H256) -> Vec<u32>;
        /// What a claim of `epoch` would pay the host now: its share of the emission, and its fees.
        fn claimable(epoch: EpochIndex, host: AccountId) -> (Balance, Balance);
        /// What `prove_fraud` would find in this proof now; `None` when it would fail or cost the deposit.
        fn fraud(proof: FraudProof) -> Option<Fraud>;
        /// The chain's own replay of a transcript: its tokens, or what disagrees. Whoever generates or checks answers
        /// compares its replay with this one.
        fn replay(transcript: Transcript, tape_seed: H256, finished: Finished) -> Result<Vec<u32>, ReplayError>;
        /// The chain's own sampler at one position: the score of each candidate, and the index of the one it picks.
        fn sample(
            tape_seed: H256,
            position: u32,
            candidates: Vec<Candidate>,
            sampling: SamplingParams,
        ) -> (Vec<i64>, Option<u32>);
    }
}
