//! A runtime of this pallet alone; clock and weights that the tests set.

#![allow(unreachable_pub, reason = "the mock runtime is public in a private module")]

use crate as pallet_attendance;
use frame_support::{
    derive_impl, parameter_types,
    traits::{ConstU32, Hooks},
    weights::Weight,
};
use sp_runtime::traits::IdentityLookup;
use starling_primitives::{
    schedule::{EpochState, Schedule},
    traits::{Clock, HostWeight, Weights},
    AccountId, EpochIndex, ProfileId, Work,
};
use std::collections::BTreeMap;

type Block = frame_system::mocking::MockBlockU32<Test>;

/// Entries that a block of the mock prunes.
pub(crate) const PRUNED_PER_BLOCK: u32 = 3;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Attendance: pallet_attendance,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
    type AccountId = AccountId;
    type Lookup = IdentityLookup<AccountId>;
}

parameter_types! {
    pub static Current: EpochIndex = 1;
    /// Weights by profile and host; those of the running epoch and the two before are known.
    pub static Shares: BTreeMap<(ProfileId, u8), Work> = BTreeMap::new();
}

impl pallet_attendance::Config for Test {
    type Clock = Mock;
    type Weights = Mock;
    type MaxPrunedPerBlock = ConstU32<PRUNED_PER_BLOCK>;
}

/// The other pallets.
pub struct Mock;

impl Clock for Mock {
    fn epoch() -> EpochState {
        let schedule = Schedule::TEST;
        EpochState { index: Current::get(), start: 0, extension: 0, sprint_cancelled: false, schedule }
    }

    fn previous() -> Option<EpochState> {
        None
    }
}

impl Weights for Mock {
    fn hosts(_: EpochIndex) -> Vec<HostWeight> {
        unimplemented!("the test is made by profile")
    }
    fn of_profile(epoch: EpochIndex, profile: ProfileId) -> Vec<HostWeight> {
        if epoch + 2 < Current::get() {
            return Vec::new();
        }
        let of_profile = Shares::get().into_iter().filter(|((of, _), weight)| *of == profile && *weight > 0);
        of_profile.map(|((_, id), weight)| HostWeight { host: host(id), weight, reputation: 0 }).collect()
    }
    fn weight(_: EpochIndex, _: &AccountId) -> Work {
        unimplemented!("the test is made by profile")
    }
    fn total(_: EpochIndex) -> Work {
        unimplemented!("the test is made by profile")
    }
}

/// A chain with these weights (profile, host, weight), in epoch 1.
pub(crate) fn new_test_ext(weights: &[(ProfileId, u8, Work)]) -> sp_io::TestExternalities {
    Current::set(1);
    Shares::set(weights.iter().map(|(profile, id, weight)| ((*profile, *id), *weight)).collect());
    let mut ext = sp_io::TestExternalities::default();
    ext.execute_with(|| System::set_block_number(1));
    ext
}

pub(crate) fn host(id: u8) -> AccountId {
    AccountId::new([id; 32])
}

/// The next epoch begins.
pub(crate) fn next_epoch() {
    Current::mutate(|epoch| *epoch += 1);
}

/// Prunes as one block does.
pub(crate) fn idle() {
    Attendance::on_idle(System::block_number(), Weight::MAX);
    Attendance::do_try_state().unwrap();
}

/// Runs a test with these weights, and checks the invariants at its end.
pub(crate) fn build_and_execute(weights: &[(ProfileId, u8, Work)], test: impl FnOnce()) {
    new_test_ext(weights).execute_with(|| {
        test();
        Attendance::do_try_state().unwrap();
    });
}
