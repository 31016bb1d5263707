//! The whole runtime in memory, block by block, without a node.
//!
//! A block runs the hooks of every pallet in the runtime's order, with what happens in it in between; the state root is
//! left out, because nobody here imports the block. Time is the number of blocks.

use crate::host::Keys;
use codec::Encode;
use frame_support::{
    dispatch::DispatchResult,
    traits::{OnFinalize, OnIdle, OnInitialize, UnfilteredDispatchable},
};
use sp_consensus_babe::{
    digests::{PreDigest, SecondaryPlainPreDigest},
    BABE_ENGINE_ID,
};
use sp_core::{ed25519, storage::Storage, Pair};
use sp_runtime::{BuildStorage, Digest, DigestItem};
use sp_state_machine::BasicExternalities;
use starling_primitives::{
    schedule::{EpochState, Schedule},
    traits::Clock,
    AccountId, Balance, BlockNumber, H256, TOKEN,
};
use starling_runtime::{
    configs::MAXIMUM_BLOCK_WEIGHT, genesis, AllPalletsWithSystem, Babe, Epochs, Runtime, RuntimeCall,
    RuntimeEvent, RuntimeGenesisConfig, RuntimeOrigin, SessionKeys, System,
};

/// The slot of block 1.
const FIRST_SLOT: u64 = 1_000;
/// Funds of every account at the start.
pub const ENDOWMENT: Balance = 10_000_000 * TOKEN;
/// Hosts that also run a validator; that is no part of what is simulated, so a few are enough.
const VALIDATORS: usize = 8;

/// The real schedule with shorter stages: the same samples, shares and sprint task, in [`EPOCH_BLOCKS`] blocks.
pub const SCHEDULE: Schedule = Schedule {
    epoch_blocks: EPOCH_BLOCKS,
    reveal_start: 16,
    race_start: 18,
    commit_start: 20,
    check_start: 22,
    expiry_blocks: 2,
    coverage_blocks: 2,
    grace_blocks: 8,
    claim_retry_blocks: 1,
    ..Schedule::MAIN
};

/// Blocks of a simulated epoch.
pub const EPOCH_BLOCKS: BlockNumber = 28;

/// A chain whose hosts all serve profile 0, the demo model's: what its storage holds.
pub fn new(hosts: &[Keys], clients: &[AccountId]) -> Storage {
    let mut config = RuntimeGenesisConfig::default();
    config.babe.epoch_config = starling_runtime::configs::BABE_GENESIS_EPOCH_CONFIG;
    config.epochs.schedule = SCHEDULE;
    config.epochs.slot_duration_ms = 2_000;
    config.epochs.session_slots = EPOCH_BLOCKS.into();
    config.profiles.profiles = vec![genesis::demo_profile()];
    let accounts = hosts.iter().map(|host| &host.account).chain(clients);
    config.balances.balances = accounts.map(|account| (account.clone(), ENDOWMENT)).collect();
    config.hosts.hosts =
        hosts.iter().map(|host| (host.account.clone(), host.worker_account(), vec![0])).collect();
    let validator = |host: &Keys| {
        let grandpa = ed25519::Pair::from_seed(&host.seed).public().into();
        let keys = SessionKeys { grandpa, babe: host.worker.public().into() };
        (host.account.clone(), host.account.clone(), keys)
    };
    config.session.keys = hosts.iter().take(VALIDATORS).map(validator).collect();
    let mut storage = config.build_storage().expect("the genesis can be built");
    run(&mut storage, || System::set_block_number(0));
    storage
}

/// Runs something on the chain. Its storage is a sorted map: nobody asks for its root, and without a trie a lookup takes a
/// fraction of the time.
pub fn run<R>(storage: &mut Storage, run: impl FnOnce() -> R) -> R {
    BasicExternalities::execute_with_storage(storage, run)
}

/// Makes a block; `inside` runs where its transactions would. Returns what it returned and what happened.
pub fn block<R>(inside: impl FnOnce() -> R) -> (R, Vec<RuntimeEvent>) {
    let number = System::block_number() + 1;
    let slot = FIRST_SLOT + u64::from(number);
    let author = PreDigest::SecondaryPlain(SecondaryPlainPreDigest { authority_index: 0, slot: slot.into() });
    let digest = Digest { logs: vec![DigestItem::PreRuntime(BABE_ENGINE_ID, author.encode())] };
    System::reset_events();
    System::initialize(&number, &H256::from_low_u64_be(u64::from(number)), &digest);
    AllPalletsWithSystem::on_initialize(number);
    let now = slot * Babe::slot_duration();
    RuntimeCall::from(pallet_timestamp::Call::<Runtime>::set { now })
        .dispatch_bypass_filter(RuntimeOrigin::none())
        .expect("time goes on");
    let result = inside();
    AllPalletsWithSystem::on_idle(number, MAXIMUM_BLOCK_WEIGHT);
    AllPalletsWithSystem::on_finalize(number);
    (result, System::read_events_no_consensus().map(|record| record.event).collect())
}

/// Dispatches a call of this account, past fees and pool.
pub fn call(signer: AccountId, call: impl Into<RuntimeCall>) -> DispatchResult {
    let origin = RuntimeOrigin::signed(signer);
    call.into().dispatch_bypass_filter(origin).map(|_| ()).map_err(|failed| failed.error)
}

/// Hash of block 0.
pub fn genesis_hash() -> H256 {
    System::block_hash(0)
}

/// The current epoch.
pub fn epoch() -> EpochState {
    Epochs::epoch()
}
