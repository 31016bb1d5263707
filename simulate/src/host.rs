//! A host of the simulation: keys, capacity, behaviour, and what became of it.

use crate::{adversaries::Behaviour, chain};
use frame_support::dispatch::DispatchResult;
use sp_core::{sr25519, Pair};
use starling_primitives::{
    hashing::hash_of,
    vrf::{self, VrfInput, VrfProof},
    AccountId, Balance, EpochIndex, H256,
};
use starling_runtime::RuntimeCall;

/// Keys derived from a number.
#[derive(Clone)]
pub struct Keys {
    /// Seed of all of them.
    pub seed: [u8; 32],
    /// The account.
    pub account: AccountId,
    /// The worker key.
    pub worker: sr25519::Pair,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.account)
    }
}

impl Keys {
    /// Keys of host number `n`.
    pub fn of_host(n: u32) -> Self {
        let seed = hash_of(b"starling/simulate/host", &n).0;
        let worker = sr25519::Pair::from_seed(&hash_of(b"starling/simulate/worker", &n).0);
        Self { seed, account: AccountId::new(seed), worker }
    }

    /// Account of the worker key.
    pub fn worker_account(&self) -> AccountId {
        self.worker.public().into()
    }
}

/// What became of a host.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// First epoch in which it had weight.
    pub weight_since: Option<EpochIndex>,
    /// Epochs in which it had weight.
    pub epochs_with_weight: u32,
    /// Epoch of the block in which it was first convicted.
    pub convicted_in: Option<EpochIndex>,
    /// Convictions.
    pub convictions: u32,
    /// Epoch of the first accusation by a verifier's sequential test.
    pub accused_in: Option<EpochIndex>,
    /// Epoch in which it was first found negligent.
    pub negligent_in: Option<EpochIndex>,
    /// Epochs in which it was.
    pub negligences: u32,
    /// Plants that it revealed.
    pub plants: u32,
    /// Tokens sold that no honest host would have sold, until the first conviction.
    pub bad_tokens: u64,
    /// Answers given.
    pub answers: u32,
    /// Answers that were refused or expired.
    pub expired: u32,
    /// Paid by claims.
    pub earned: Balance,
    /// Emission and fees of epochs that it could not claim.
    pub claims_refused: u32,
    /// Taken or burned of its bond.
    pub bond_lost: Balance,
    /// Sum of its shares of the weight, in ppm, over the epochs.
    pub share_ppm_sum: u64,
}

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Its keys.
    pub keys: Keys,
    /// Sprint nonces that its own hardware does in a race.
    pub capacity: u32,
    /// What it does.
    pub behaviour: Box<dyn Behaviour>,
    /// Hosts with the same number belong to one operator.
    pub gang: Option<u32>,
    /// What became of it.
    pub fate: Fate,
}

impl Host {
    /// Does a duty.
    pub fn call(&self, call: impl Into<RuntimeCall>) -> DispatchResult {
        chain::call(self.keys.worker_account(), call)
    }

    /// Calls with its account.
    pub fn call_cold(&self, call: impl Into<RuntimeCall>) -> DispatchResult {
        chain::call(self.keys.account.clone(), call)
    }

    /// Its contribution to the beacon.
    pub fn contribution(&self, epoch: EpochIndex) -> VrfProof {
        vrf::sign(&self.keys.worker, &VrfInput::Beacon(chain::genesis_hash(), epoch)).0
    }

    /// Its duty secret of an epoch, with the proof that a claim shows.
    pub fn duty(&self, epoch: EpochIndex, seed: H256) -> (VrfProof, H256) {
        vrf::sign(&self.keys.worker, &VrfInput::Duty(chain::genesis_hash(), epoch, seed))
    }

    /// Whether the two have one operator.
    pub fn befriends(&self, other: &Self) -> bool {
        self.gang.is_some() && self.gang == other.gang
    }
}
