//! A runtime with the registry, balances, and a clock, profiles and weights that tests set.

#![allow(unreachable_pub, reason = "the runtime macro makes the runtime public, and so what it names")]

use crate as pallet_hosts;
use frame_support::{derive_impl, parameter_types, traits::ConstU32};
use sp_runtime::{traits::IdentityLookup, BuildStorage};
use starling_primitives::{
    profile::{Calibration, Numerics, Profile},
    schedule::{EpochState, Schedule},
    traits::{Clock, HostWeight, Profiles, Weights},
    AccountId, Balance, EpochIndex, ProfileId, Work, H256,
};
use std::collections::BTreeMap;

type Block = frame_system::mocking::MockBlockU32<Test>;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Balances: pallet_balances,
        Hosts: pallet_hosts,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
    type AccountId = AccountId;
    type Lookup = IdentityLookup<AccountId>;
    type AccountData = pallet_balances::AccountData<Balance>;
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Test {
    type Balance = Balance;
    type AccountStore = System;
}

parameter_types! {
    pub static Epoch: EpochIndex = 0;
    pub static WeightsOf: BTreeMap<(EpochIndex, AccountId), Work> = BTreeMap::new();
    pub const Bond: Balance = BOND;
}

/// The bond.
pub(crate) const BOND: Balance = 1_000;

/// Clock, profiles 0..8 and weights.
pub struct Outside;

impl Clock for Outside {
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

impl Profiles for Outside {
    fn profile(id: ProfileId) -> Option<Profile> {
        let calibration = Calibration { distance_limit: 1, margin_limit: 1, short_allowance: 1 };
        (id < 8).then(|| Profile {
            name: Default::default(),
            weights_digest: H256::zero(),
            tokenizer_digest: H256::zero(),
            numerics: Numerics::F32,
            top_k: 1,
            max_context: 2,
            vocab_size: 2,
            prompt_price: 0,
            completion_price: 0,
            prompt_work: 0,
            completion_work: 1,
            sprint_tolerance: 0,
            calibration,
        })
    }
}

impl Weights for Outside {
    fn hosts(_: EpochIndex) -> Vec<HostWeight> {
        Vec::new()
    }

    fn of_profile(_: EpochIndex, _: ProfileId) -> Vec<HostWeight> {
        Vec::new()
    }

    fn weight(epoch: EpochIndex, host: &AccountId) -> Work {
        WeightsOf::get().get(&(epoch, host.clone())).copied().unwrap_or(0)
    }

    fn total(_: EpochIndex) -> Work {
        0
    }
}

impl pallet_hosts::Config for Test {
    type Currency = Balances;
    type RuntimeHoldReason = RuntimeHoldReason;
    type Clock = Outside;
    type Profiles = Outside;
    type Weights = Outside;
    type Bond = Bond;
    type AnnounceInterval = ConstU32<5>;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
}

/// A test account.
pub(crate) fn account(id: u8) -> AccountId {
    AccountId::new([id; 32])
}

/// Origin of a test account.
pub(crate) fn signed(id: u8) -> RuntimeOrigin {
    RuntimeOrigin::signed(account(id))
}

/// Gives a host weight in an epoch and tells the registry, as the sprint does.
pub(crate) fn set_weight(epoch: EpochIndex, host: u8, weight: Work) {
    let mut weights = WeightsOf::get();
    weights.insert((epoch, account(host)), weight);
    WeightsOf::set(weights);
    <Hosts as starling_primitives::traits::Hosts>::on_weight(&account(host), weight);
}

/// Runs a test in a chain whose genesis has the host 1 (worker 101); accounts 1 to 9 have funds.
pub(crate) fn build_and_execute(test: impl FnOnce()) {
    let config = RuntimeGenesisConfig {
        balances: pallet_balances::GenesisConfig {
            balances: (1..10).map(|id| (account(id), 10_000)).collect(),
            ..Default::default()
        },
        hosts: pallet_hosts::GenesisConfig {
            hosts: vec![(account(1), account(101), vec![0])],
            ..Default::default()
        },
        ..Default::default()
    };
    let mut ext = sp_io::TestExternalities::new(config.build_storage().unwrap());
    ext.execute_with(|| {
        Epoch::set(0);
        WeightsOf::set(BTreeMap::new());
        System::set_block_number(1);
        test();
        Hosts::do_try_state().unwrap();
    });
}
