//! What the node and the host agent ask the runtime about Starling.

use alloc::vec::Vec;
use starling_primitives::{schedule::EpochState, AccountId, Balance, EpochIndex, H256};

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
    }
}
