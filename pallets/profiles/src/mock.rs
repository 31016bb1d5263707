//! A runtime with the registry of profiles and a clock that tests set.

#![allow(unreachable_pub, reason = "the runtime macro makes the runtime public, and so what it names")]

use crate as pallet_profiles;
use frame_support::{derive_impl, parameter_types, traits::ConstU32};
use sp_runtime::BuildStorage;
use starling_primitives::{
    profile::{Calibration, Numerics, Profile},
    schedule::{EpochState, Schedule},
    traits::Clock,
    EpochIndex, H256,
};

type Block = frame_system::mocking::MockBlockU32<Test>;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Profiles: pallet_profiles,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
}

parameter_types! {
    pub static Epoch: EpochIndex = 0;
}

/// The clock that tests set through [`Epoch`].
pub struct TestClock;

impl Clock for TestClock {
    fn epoch() -> EpochState {
        EpochState {
            index: Epoch::get(),
            start: 0,
            extension: 0,
            sprint_cancelled: false,
            schedule: Schedule::TEST,
        }
    }

    fn previous() -> Option<EpochState> {
        None
    }
}

impl pallet_profiles::Config for Test {
    type Clock = TestClock;
    type MaxProfiles = ConstU32<4>;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
}

/// A valid profile.
pub(crate) fn profile(name: &str) -> Profile {
    Profile {
        name: name.as_bytes().to_vec().try_into().unwrap(),
        weights_digest: H256::repeat_byte(1),
        tokenizer_digest: H256::repeat_byte(2),
        numerics: Numerics::F32,
        top_k: 20,
        max_context: 1_024,
        vocab_size: 4_096,
        prompt_price: 1,
        completion_price: 2,
        prompt_work: 1,
        completion_work: 4,
        sprint_tolerance: 0,
        calibration: Calibration { distance_limit: 10, margin_limit: 10, short_allowance: 100 },
    }
}

/// Runs a test in a chain with one profile in its genesis and checks the invariants at its end.
pub(crate) fn build_and_execute(test: impl FnOnce()) {
    let config = RuntimeGenesisConfig {
        profiles: pallet_profiles::GenesisConfig { profiles: vec![profile("genesis")], ..Default::default() },
        ..Default::default()
    };
    let mut ext = sp_io::TestExternalities::new(config.build_storage().unwrap());
    ext.execute_with(|| {
        Epoch::set(0);
        System::set_block_number(1);
        test();
        Profiles::do_try_state().unwrap();
    });
}
