//! Blocks: how heavy, how long, how they are counted and stamped.

use crate::*;
use frame_support::{
    derive_impl,
    dispatch::DispatchClass,
    parameter_types,
    traits::{ConstU32, Get},
    weights::{
        constants::{ParityDbWeight, WEIGHT_REF_TIME_PER_SECOND},
        Weight,
    },
};
use frame_system::limits;
use sp_runtime::Perbill;

/// Part of a block that transactions may fill; the rest is for hooks, inherents and operational calls.
pub const NORMAL_DISPATCH_RATIO: Perbill = Perbill::from_percent(85);
/// Two seconds of computation: what a 5 s slot leaves beside gossip and a second execution by importers. Where slots are
/// shorter, the proposer's deadline ends a block before its weight does.
pub const MAXIMUM_BLOCK_WEIGHT: Weight = Weight::from_parts(WEIGHT_REF_TIME_PER_SECOND * 2, u64::MAX);
/// What a block holds at most.
const MAXIMUM_BLOCK_LENGTH: u32 = 8 * 1024 * 1024;

parameter_types! {
    pub const BlockHashCount: BlockNumber = 2_400;
    pub const Version: RuntimeVersion = VERSION;
    pub BlockWeights: limits::BlockWeights =
        limits::BlockWeights::with_sensible_defaults(MAXIMUM_BLOCK_WEIGHT, NORMAL_DISPATCH_RATIO);
    pub BlockLength: limits::BlockLength = limits::BlockLength::builder()
        .max_length(MAXIMUM_BLOCK_LENGTH)
        .modify_max_length_for_class(DispatchClass::Normal, |max| *max = NORMAL_DISPATCH_RATIO * *max)
        .build();
    pub const SS58Prefix: u8 = 42;
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
impl frame_system::Config for Runtime {
    type Block = Block;
    type BlockWeights = BlockWeights;
    type BlockLength = BlockLength;
    type AccountId = AccountId;
    type Nonce = Nonce;
    type Hash = Hash;
    type BlockHashCount = BlockHashCount;
    type DbWeight = ParityDbWeight;
    type Version = Version;
    type AccountData = pallet_balances::AccountData<Balance>;
    type SS58Prefix = SS58Prefix;
    type MaxConsumers = ConstU32<16>;
    type SystemWeightInfo = frame_system::weights::SubstrateWeight<Runtime>;
    type ExtensionsWeightInfo = frame_system::SubstrateExtensionsWeight<Runtime>;
    type SingleBlockMigrations = migrations::Migrations;
}

/// Half a slot. Read from storage, because the runtime does not know the pace of its chain.
#[derive(Debug)]
pub struct HalfSlot;

impl Get<u64> for HalfSlot {
    fn get() -> u64 {
        pallet_epochs::SlotDuration::<Runtime>::get() / 2
    }
}

impl pallet_timestamp::Config for Runtime {
    type Moment = u64;
    type OnTimestampSet = Babe;
    type MinimumPeriod = HalfSlot;
    type WeightInfo = pallet_timestamp::weights::SubstrateWeight<Runtime>;
}

impl<C> frame_system::offchain::CreateTransactionBase<C> for Runtime
where
    RuntimeCall: From<C>,
{
    type Extrinsic = UncheckedExtrinsic;
    type RuntimeCall = RuntimeCall;
}

impl<C> frame_system::offchain::CreateBare<C> for Runtime
where
    RuntimeCall: From<C>,
{
    fn create_bare(call: RuntimeCall) -> UncheckedExtrinsic {
        UncheckedExtrinsic::new_bare(call)
    }
}
