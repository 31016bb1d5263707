//! What the pallets' benchmarks share: the scene they play in, and signatures that a runtime cannot make.
//!
//! A pallet knows the others by their traits only, and so do its benchmarks: [`Scene`] says what they need of the others'
//! state, and the runtime puts it there. Everything is as large as it can be: a thousand hosts have weight, a host serves
//! as many profiles as it may and announced the longest addresses.

use crate::{
    hashing::hash_of,
    records::{Delivery, InferenceRecord, InferenceResult, InferenceState},
    schedule::{EpochState, Schedule},
    traits::{HostWeight, Round},
    vrf::VrfProof,
    AccountId, Balance, BlockNumber, EpochIndex, InferenceId, ProfileId, RequestId, Work, H256, TOKEN,
};
use alloc::vec::Vec;

/// The epoch in which benchmarks play.
pub const EPOCH: EpochIndex = 10;
/// Its first block.
pub const START: BlockNumber = 200_000;
/// Hosts that have weight.
pub const HOSTS: u32 = 1_000;
/// Weight of each host.
pub const WEIGHT: Work = 1_000_000;
/// What a request of the scene reserves.
pub const RESERVE: Balance = 10 * TOKEN;

/// The other pallets' state, as a benchmark needs it.
pub trait Scene {
    /// The clock stands in [`EPOCH`] at block `now`. The seeds of that epoch, of the one before and of the one after are
    /// [`epoch_seed`] and became final when their reveals ended; the genesis hash is [`genesis`].
    fn set_clock(now: BlockNumber);
    /// The seed of the epoch after [`EPOCH`] is not final yet.
    fn forget_next_seed();
    /// The seed of a round that is no epoch is known.
    fn set_seed(round: Round, seed: H256);
    /// Profiles 0 to `count` are registered.
    fn set_profiles(count: u32);
    /// A host is registered, with this worker key since the first block. It serves the profiles 0 to 16, whether they are
    /// registered or not.
    fn set_host(host: &AccountId, worker: &AccountId);
    /// Hosts have weight in an epoch, the same for the whole and for each of the profiles 0 to `profiles`.
    fn set_weights(epoch: EpochIndex, profiles: u32, hosts: &[HostWeight]);
    /// A host contributed in the reveal of an epoch.
    fn set_contributed(epoch: EpochIndex, host: &AccountId);
    /// A paid record; its fee lies in the epoch's pot.
    fn set_paid(id: InferenceId, record: InferenceRecord);
    /// `count` finished inferences of [`EPOCH`]'s predecessor, in a coverage window that closed without a verdict, of which
    /// none is the duty of `host`, whose secret this is: each takes all the steps of the check. They are executed by
    /// another one of `hosts`.
    fn set_no_duties(hosts: &[HostWeight], host: &AccountId, secret: &H256, count: u32);
    /// An account has funds.
    fn fund(account: &AccountId, amount: Balance);
    /// The pot of an epoch that has ended, with the emission and a fee that this host earned.
    fn set_pot(epoch: EpochIndex, host: &AccountId);
}

/// An account that nobody has the key of.
pub fn account(kind: &str, index: u32) -> AccountId {
    AccountId::new(hash_of(b"starling/benchmark", &(kind, index)).0)
}

/// Host of this number.
pub fn host(index: u32) -> AccountId {
    account("host", index)
}

/// Worker key of the host of this number.
pub fn worker(index: u32) -> AccountId {
    account("worker", index)
}

/// The hosts 0 to `count` with their weights, sorted by account.
pub fn weights(count: u32) -> Vec<HostWeight> {
    let entry = |index| HostWeight { host: host(index), weight: WEIGHT, reputation: crate::PPM / 2 };
    let mut hosts: Vec<HostWeight> = (0..count).map(entry).collect();
    hosts.sort_unstable_by(|a, b| a.host.cmp(&b.host));
    hosts
}

/// State of the clock in [`EPOCH`].
pub fn epoch() -> EpochState {
    EpochState {
        index: EPOCH,
        start: START,
        extension: 0,
        sprint_cancelled: false,
        schedule: Schedule { claim_samples: 1_000, ..Schedule::MAIN },
    }
}

/// State of the epoch before, when it ended.
pub fn previous() -> EpochState {
    let now = epoch();
    EpochState { index: EPOCH - 1, start: START - now.schedule.epoch_blocks, ..now }
}

/// Hash of the genesis block.
pub fn genesis() -> H256 {
    H256::repeat_byte(0x67)
}

/// Seed of an epoch.
pub fn epoch_seed(epoch: EpochIndex) -> H256 {
    hash_of(b"starling/benchmark/seed", &epoch)
}

/// A request of this number.
pub fn request(index: u32) -> RequestId {
    hash_of(b"starling/benchmark/request", &index)
}

/// A running record of this number: its own client lets a key of its own sign.
pub fn running(index: u32, executor: AccountId, profile: ProfileId, at: BlockNumber) -> InferenceRecord {
    InferenceRecord {
        request_id: request(index),
        client: account("client", index),
        delegate: Some(account("key", index)),
        expires_at: at,
        gateway: host(0),
        executor,
        profile,
        attempt: 0,
        state: InferenceState::Started,
        started_at: at,
        amount: RESERVE,
        result: None,
        delivery: Delivery::Pending,
        first_verdict_at: None,
    }
}

/// The same with its answer.
pub fn finished(index: u32, executor: AccountId, profile: ProfileId, at: BlockNumber) -> InferenceRecord {
    let result = InferenceResult {
        response_hash: hash_of(b"starling/benchmark/response", &index),
        transcript_root: hash_of(b"starling/benchmark/root", &index),
        prompt_tokens: 1_000,
        completion_tokens: 1_000,
        finished_at: at,
    };
    InferenceRecord {
        state: InferenceState::Finished,
        result: Some(result),
        ..running(index, executor, profile, at)
    }
}

/// The worker key of the proofs below: that of the secret seed `[7; 32]`. VRF proofs need randomness, which a runtime has
/// none of.
pub const PROVER: [u8; 32] = hex("7c0f469d3bd340bae718203fa30ca071a5e37c751e891dbded837b213d45d91d");
/// Its contribution to the beacon in [`EPOCH`].
pub const BEACON_PROOF: VrfProof = VrfProof {
    pre_output: hex("4efcee8090bb14ca205e8d218b1f07cf1cf8045c5750268036553dc303e5851c"),
    proof: hex("4b9e8c8e153d7b3786682cd1b01fd622250479d06493624b6e2c84792e184006\
         7835c88809804518c1ca0eff0150c3429e6618e5b48be90e81655d70f95fb209"),
};
/// Its proof of duties in the epoch before, under [`epoch_seed`].
pub const DUTY_PROOF: VrfProof = VrfProof {
    pre_output: hex("e20db0215b1d5624f5fe6e80a3bb3a4a141c5b3277d26ea015b1f4def8e3ae58"),
    proof: hex("15f7d864d85d95f595e2eb550d6547f2e91b96c292237728d57b262158fd8d01\
         068ae0a4b4de697ab1fe3b8d5a41cc0c0d9859c65d7c390600aeaccc13d8970b"),
};

/// Bytes of lower-case hexadecimal digits; a wrong text does not compile.
const fn hex<const N: usize>(text: &str) -> [u8; N] {
    const fn digit(byte: u8) -> u8 {
        match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => panic!("a hexadecimal digit"),
        }
    }
    let text = text.as_bytes();
    assert!(text.len() == 2 * N, "two digits for each byte");
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = digit(text[2 * at]) << 4 | digit(text[2 * at + 1]);
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrf::{sign, verify, VrfInput};
    use sp_core::{sr25519, Pair};

    #[test]
    fn the_proofs_hold() {
        let pair = sr25519::Pair::from_seed(&[7; 32]);
        assert_eq!(PROVER, pair.public().0);
        let inputs = [
            (VrfInput::Beacon(genesis(), EPOCH), BEACON_PROOF),
            (VrfInput::Duty(genesis(), EPOCH - 1, epoch_seed(EPOCH - 1)), DUTY_PROOF),
        ];
        for (input, proof) in inputs {
            let valid = verify(&pair.public(), &input, &proof).is_some();
            assert!(valid, "a proof of {input:?} is {:?}", sign(&pair, &input).0);
        }
    }
}
