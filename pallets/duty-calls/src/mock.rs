//! A runtime whose duty calls are remarks; hosts and weights that the tests set.

#![allow(unreachable_pub, reason = "the mock runtime is public in a private module")]

use crate as pallet_duty_calls;
use frame_support::{
    derive_impl,
    dispatch::DispatchClass,
    parameter_types,
    traits::{ConstU32, Contains, Hooks},
    weights::{constants::WEIGHT_REF_TIME_PER_SECOND, Weight},
};
use frame_system::limits::{BlockLength, BlockWeights};
use sp_runtime::{traits::IdentityLookup, Perbill};
use starling_primitives::{
    schedule::{EpochState, Schedule},
    traits::{Clock, HostWeight, Hosts, Weights},
    AccountId, Balance, BlockNumber, EpochIndex, ProfileId, Work,
};
use std::collections::BTreeMap;

/// Longest block, in bytes. Normal transactions may fill 80 % of it.
const LENGTH: u32 = 1_000_000;

type Block = frame_system::mocking::MockBlockU32<Test>;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        DutyCalls: pallet_duty_calls,
    }
);

parameter_types! {
    pub Blocks: BlockWeights = blocks();
    pub Lengths: BlockLength = BlockLength::builder()
        .max_length(LENGTH)
        .modify_max_length_for_class(DispatchClass::Normal, |max| *max = LENGTH / 10 * 8)
        .build();
    pub const Reserved: Perbill = Perbill::from_percent(10);
    /// Weights by worker; a worker's host is the account with its bytes turned around.
    pub static Shares: BTreeMap<u8, Work> = BTreeMap::new();
}

/// A second, of which normal transactions may use 80 %. Extrinsics cost nothing by themselves.
fn blocks() -> BlockWeights {
    let second = Weight::from_parts(WEIGHT_REF_TIME_PER_SECOND, u64::MAX);
    let mut blocks = BlockWeights::with_sensible_defaults(second, Perbill::from_percent(80));
    blocks.per_class.get_mut(DispatchClass::Normal).base_extrinsic = Weight::zero();
    blocks
}

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
    type AccountId = AccountId;
    type Lookup = IdentityLookup<AccountId>;
    type BlockWeights = Blocks;
    type BlockLength = Lengths;
}

/// Remarks are owed.
pub struct Remarks;

impl Contains<RuntimeCall> for Remarks {
    fn contains(call: &RuntimeCall) -> bool {
        matches!(call, RuntimeCall::System(frame_system::Call::remark { .. }))
    }
}

impl pallet_duty_calls::Config for Test {
    type DutyCalls = Remarks;
    type Clock = Mock;
    type Hosts = Mock;
    type Weights = Mock;
    type MaxWaiting = ConstU32<4>;
    type Reserved = Reserved;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
}

/// The other pallets.
pub struct Mock;

impl Clock for Mock {
    fn epoch() -> EpochState {
        let schedule = Schedule::TEST;
        EpochState { index: 1, start: 0, extension: 0, sprint_cancelled: false, schedule }
    }

    fn previous() -> Option<EpochState> {
        None
    }
}

impl Hosts for Mock {
    fn host_of(worker: &AccountId) -> Option<AccountId> {
        let known = Shares::get().keys().find(|known| account(**known) == *worker).copied();
        known.map(host)
    }
    fn worker_of(_: &AccountId) -> Option<AccountId> {
        None
    }
    fn worker_since(_: &AccountId) -> Option<BlockNumber> {
        None
    }
    fn may_sprint(_: &AccountId) -> bool {
        true
    }
    fn serves(_: &AccountId, _: ProfileId) -> bool {
        true
    }
    fn count() -> u32 {
        Shares::get().len() as u32
    }
    fn on_weight(_: &AccountId, _: Work) {}
    fn convict(_: &AccountId) {}
    fn slash_bond(_: &AccountId, _: Balance, _: &AccountId) -> Balance {
        0
    }
}

impl Weights for Mock {
    fn hosts(_: EpochIndex) -> Vec<HostWeight> {
        let with_weight = Shares::get().into_iter().filter(|(_, weight)| *weight > 0);
        let entry = |(worker, weight)| HostWeight { host: host(worker), weight, reputation: 0 };
        let mut hosts: Vec<_> = with_weight.map(entry).collect();
        hosts.sort_by(|a, b| a.host.cmp(&b.host));
        hosts
    }
    fn of_profile(epoch: EpochIndex, _: ProfileId) -> Vec<HostWeight> {
        Self::hosts(epoch)
    }
    fn weight(_: EpochIndex, host: &AccountId) -> Work {
        Self::hosts(0).iter().find(|entry| entry.host == *host).map_or(0, |entry| entry.weight)
    }
    fn total(epoch: EpochIndex) -> Work {
        starling_math::draw::total(&Self::hosts(epoch))
    }
}

/// A worker, or anybody else.
pub(crate) fn account(n: u8) -> AccountId {
    AccountId::new([n; 32])
}

/// The host of a worker.
pub(crate) fn host(worker: u8) -> AccountId {
    account(!worker)
}

/// Ends a block and begins the next one.
pub(crate) fn next_block() {
    DutyCalls::on_finalize(System::block_number());
    DutyCalls::do_try_state().unwrap();
    System::set_block_number(System::block_number() + 1);
}

/// Runs a test with hosts of these workers and weights, and checks the invariants at its end.
pub(crate) fn build_and_execute(weights: &[(u8, Work)], test: impl FnOnce()) {
    let mut ext = sp_io::TestExternalities::default();
    ext.execute_with(|| {
        Shares::set(weights.iter().copied().collect());
        System::set_block_number(1);
        for n in 0..16 {
            System::inc_providers(&account(n));
        }
        test();
        next_block();
    });
}
