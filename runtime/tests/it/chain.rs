//! A chain in memory, block by block, without a node.

use codec::Encode;
use frame_support::{dispatch::DispatchResult, traits::UnfilteredDispatchable};
use serde_json::Value;
use sp_consensus_babe::{
    digests::{PreDigest, SecondaryPlainPreDigest},
    BABE_ENGINE_ID,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{traits::Header as _, BuildStorage, Digest, DigestItem};
use starling_primitives::{schedule::EpochState, traits::Clock, vrf, AccountId, BlockNumber, H256};
use starling_runtime::{
    genesis, Attendance, Authorities, Babe, Beacon, Epochs, Executive, Header, Hosts, Inference, Profiles,
    Rewards, Runtime, RuntimeCall, RuntimeGenesisConfig, RuntimeOrigin, Session, Sprint, System,
    UncheckedExtrinsic, Verification,
};

/// The slot of block 1.
pub(crate) const FIRST_SLOT: u64 = 1_000;

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

/// The full genesis of a preset.
pub(crate) fn config(preset: &str) -> RuntimeGenesisConfig {
    let mut config = serde_json::to_value(RuntimeGenesisConfig::default()).expect("a genesis is JSON");
    merge(&mut config, genesis::preset_value(preset).expect("the preset exists"));
    serde_json::from_value(config).expect("the preset fits the genesis")
}

/// Runs a test in a fresh chain of a preset.
pub(crate) fn run<R>(preset: &str, test: impl FnOnce() -> R) -> R {
    let storage = config(preset).build_storage().expect("the genesis can be built");
    sp_io::TestExternalities::new(storage).execute_with(|| {
        System::set_block_number(0);
        test()
    })
}

/// One of the hosts of the development presets.
pub(crate) struct Host {
    pub(crate) account: AccountId,
    pub(crate) worker: sr25519::Pair,
}

impl Host {
    /// Name as in `//Alice`.
    pub(crate) fn named(name: &str) -> Self {
        let pair = |path: &str| sr25519::Pair::from_string(path, None).expect("a development path");
        let account = AccountId::from(pair(&format!("//{name}")).public());
        Self { account, worker: pair(&format!("//{name}//worker")) }
    }

    /// The four of them.
    pub(crate) fn all() -> [Self; 4] {
        ["Alice", "Bob", "Charlie", "Dave"].map(Self::named)
    }

    /// Does a duty.
    pub(crate) fn call(&self, call: impl Into<RuntimeCall>) -> DispatchResult {
        let origin = RuntimeOrigin::signed(AccountId::from(self.worker.public()));
        call.into().dispatch_bypass_filter(origin).map(|_| ()).map_err(|failed| failed.error)
    }

    /// Contributes to the beacon.
    pub(crate) fn contribute(&self) -> DispatchResult {
        let epoch = Epochs::epoch().index;
        let (proof, _) = vrf::sign(&self.worker, &vrf::VrfInput::Beacon(genesis_hash(), epoch));
        self.call(pallet_beacon::Call::<Runtime>::contribute { epoch, proof })
    }
}

/// Hash of block 0.
pub(crate) fn genesis_hash() -> H256 {
    System::block_hash(0)
}

/// Makes a block; `inside` runs where its transactions would.
pub(crate) fn block_with<R>(inside: impl FnOnce() -> R) -> R {
    block_by(0, inside)
}

/// Makes a block of the authority with this index.
pub(crate) fn block_by<R>(authority_index: u32, inside: impl FnOnce() -> R) -> R {
    let number = System::block_number() + 1;
    let slot = FIRST_SLOT + u64::from(number);
    let digest = PreDigest::SecondaryPlain(SecondaryPlainPreDigest { authority_index, slot: slot.into() });
    let parent = H256::from_low_u64_be(u64::from(number));
    let header = Header::new(
        number,
        Default::default(),
        Default::default(),
        parent,
        Digest { logs: vec![DigestItem::PreRuntime(BABE_ENGINE_ID, digest.encode())] },
    );
    Executive::initialize_block(&header);
    let now = slot * Babe::slot_duration();
    let inherent = UncheckedExtrinsic::new_bare(pallet_timestamp::Call::<Runtime>::set { now }.into());
    Executive::apply_extrinsic(inherent).expect("the inherent is valid").expect("time goes on");
    let result = inside();
    Executive::finalize_block();
    check_invariants();
    result
}

/// The invariants of every pallet of ours.
fn check_invariants() {
    Epochs::do_try_state().expect("the clock");
    Authorities::do_try_state().expect("the authorities");
    Profiles::do_try_state().expect("the profiles");
    Hosts::do_try_state().expect("the registry");
    Beacon::do_try_state().expect("the beacon");
    Sprint::do_try_state().expect("the sprint");
    Attendance::do_try_state().expect("the tallies");
    Inference::do_try_state().expect("the records and the ledger");
    Verification::do_try_state().expect("the verdicts");
    Rewards::do_try_state().expect("the pots");
}

/// Makes an empty block.
pub(crate) fn block() {
    block_with(|| ());
}

/// Makes blocks up to `number`.
pub(crate) fn run_to(number: BlockNumber) {
    while System::block_number() < number {
        block();
    }
}

/// Makes blocks up to the first one of the next session.
pub(crate) fn next_session() {
    let session = Session::current_index();
    while Session::current_index() == session {
        block();
    }
}

/// The current epoch.
pub(crate) fn epoch() -> EpochState {
    Epochs::epoch()
}
