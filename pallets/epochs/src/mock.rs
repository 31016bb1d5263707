//! A runtime with nothing but the clock, and hooks that write down what they are told.

#![allow(unreachable_pub, reason = "the runtime macro makes the runtime public, and so what it names")]

use crate as pallet_epochs;
use frame_support::{derive_impl, parameter_types, traits::Hooks, weights::Weight};
use sp_runtime::BuildStorage;
use starling_primitives::{schedule::Schedule, traits::EpochHooks, BlockNumber, EpochIndex};
use std::cell::RefCell;

type Block = frame_system::mocking::MockBlockU32<Test>;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Epochs: pallet_epochs,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
}

parameter_types! {
    pub const BoundaryWeight: Weight = Weight::from_parts(1_000, 0);
}

impl pallet_epochs::Config for Test {
    type Hooks = Recorder;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
}

/// What the hooks were told, with the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Reveal(EpochIndex),
    Gun(EpochIndex, u8),
    Check(EpochIndex),
    Coverage(EpochIndex, BlockNumber),
    Claims(EpochIndex),
    Change(EpochIndex),
}

thread_local! {
    static TOLD: RefCell<Vec<(BlockNumber, Told)>> = const { RefCell::new(Vec::new()) };
    static REFUSALS: RefCell<u32> = const { RefCell::new(0) };
}

/// Hooks that record and, when asked to, find the seed not final.
pub struct Recorder;

impl Recorder {
    fn note(told: Told) {
        TOLD.with_borrow_mut(|all| all.push((System::block_number(), told)));
    }
}

impl EpochHooks for Recorder {
    fn on_reveal(epoch: EpochIndex) {
        Self::note(Told::Reveal(epoch));
    }
    fn seed_is_final(epoch: EpochIndex, left: u8) -> bool {
        Self::note(Told::Gun(epoch, left));
        REFUSALS.with_borrow_mut(|refusals| {
            let refuse = *refusals > 0;
            *refusals = refusals.saturating_sub(1);
            !refuse
        })
    }
    fn on_check(epoch: EpochIndex) {
        Self::note(Told::Check(epoch));
    }
    fn on_coverage_boundary(epoch: EpochIndex, offset: BlockNumber) {
        Self::note(Told::Coverage(epoch, offset));
    }
    fn on_claims_open(epoch: EpochIndex) {
        Self::note(Told::Claims(epoch));
    }
    fn on_epoch_change(ended: EpochIndex) {
        assert_eq!(Epochs::epoch().index, ended + 1, "the clock is already in the new epoch");
        Self::note(Told::Change(ended));
    }
}

use starling_primitives::traits::Clock;

/// The seed is found not final this many times.
pub(crate) fn refuse_seed(times: u32) {
    REFUSALS.set(times);
}

/// What was told since the last call, coverage boundaries aside.
pub(crate) fn told() -> Vec<(BlockNumber, Told)> {
    let all = TOLD.take();
    all.into_iter().filter(|(_, told)| !matches!(told, Told::Coverage(..))).collect()
}

/// Coverage boundaries told since the last call.
pub(crate) fn told_coverage() -> Vec<(BlockNumber, Told)> {
    let all = TOLD.take();
    all.into_iter().filter(|(_, told)| matches!(told, Told::Coverage(..))).collect()
}

/// Runs the clock to `block`; the invariants hold in every block on the way.
pub(crate) fn run_to(block: BlockNumber) {
    while System::block_number() < block {
        System::set_block_number(System::block_number() + 1);
        Epochs::on_initialize(System::block_number());
        Epochs::do_try_state().unwrap();
    }
}

/// Runs a test in a fresh chain and checks the invariants at its end.
pub(crate) fn build_and_execute<R>(test: impl FnOnce() -> R) -> R {
    let config = RuntimeGenesisConfig {
        epochs: pallet_epochs::GenesisConfig { schedule: Schedule::TEST, ..Default::default() },
        ..Default::default()
    };
    let mut ext = sp_io::TestExternalities::new(config.build_storage().unwrap());
    ext.execute_with(|| {
        TOLD.take();
        refuse_seed(0);
        System::set_block_number(0);
        let result = test();
        Epochs::do_try_state().unwrap();
        result
    })
}
