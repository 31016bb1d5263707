//! A runtime with two referenda that the tests open and close, and weights by epoch that they set.

#![allow(unreachable_pub, reason = "the mock runtime is public in a private module")]

use crate as pallet_governance;
use crate::Tally;
use frame_support::{
    derive_impl, parameter_types,
    traits::{PollStatus, Polling, VoteTally},
};
use sp_runtime::{traits::IdentityLookup, DispatchError};
use starling_primitives::{
    schedule::{EpochState, Schedule},
    traits::{Clock, HostWeight, Weights},
    AccountId, EpochIndex, ProfileId, Work,
};
use std::collections::BTreeMap;

type Block = frame_system::mocking::MockBlockU32<Test>;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Governance: pallet_governance,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
    type AccountId = AccountId;
    type Lookup = IdentityLookup<AccountId>;
}

parameter_types! {
    pub static Epoch: EpochIndex = 5;
    /// Weights, by epoch and host.
    pub static Shares: BTreeMap<(EpochIndex, u8), Work> = BTreeMap::new();
    /// The open referenda.
    pub static Open: BTreeMap<u32, Tally<Test>> = BTreeMap::new();
}

impl pallet_governance::Config for Test {
    type Polls = Mock;
    type Clock = Mock;
    type Weights = Mock;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
}

/// The other pallets.
pub struct Mock;

impl Polling<Tally<Test>> for Mock {
    type Index = u32;
    type Votes = Work;
    type Class = u16;
    type Moment = u32;

    fn classes() -> Vec<u16> {
        vec![0]
    }
    fn as_ongoing(index: u32) -> Option<(Tally<Test>, u16)> {
        Open::get().get(&index).map(|tally| (tally.clone(), 0))
    }
    fn access_poll<R>(index: u32, f: impl FnOnce(PollStatus<&mut Tally<Test>, u32, u16>) -> R) -> R {
        let mut open = Open::get();
        let result = f(open.get_mut(&index).map_or(PollStatus::None, |tally| PollStatus::Ongoing(tally, 0)));
        Open::set(open);
        result
    }
    fn try_access_poll<R>(
        index: u32,
        f: impl FnOnce(PollStatus<&mut Tally<Test>, u32, u16>) -> Result<R, DispatchError>,
    ) -> Result<R, DispatchError> {
        Self::access_poll(index, f)
    }
}

impl Clock for Mock {
    fn epoch() -> EpochState {
        let schedule = Schedule::TEST;
        EpochState { index: Epoch::get(), start: 0, extension: 0, sprint_cancelled: false, schedule }
    }
    fn previous() -> Option<EpochState> {
        None
    }
}

impl Weights for Mock {
    fn hosts(epoch: EpochIndex) -> Vec<HostWeight> {
        let of_epoch = Shares::get().into_iter().filter(|((of, _), _)| *of == epoch);
        of_epoch.map(|((_, n), weight)| HostWeight { host: account(n), weight, reputation: 0 }).collect()
    }
    fn of_profile(epoch: EpochIndex, _: ProfileId) -> Vec<HostWeight> {
        Self::hosts(epoch)
    }
    fn weight(epoch: EpochIndex, host: &AccountId) -> Work {
        Self::hosts(epoch).iter().find(|entry| entry.host == *host).map_or(0, |entry| entry.weight)
    }
    fn total(epoch: EpochIndex) -> Work {
        Self::hosts(epoch).iter().map(|entry| entry.weight).sum()
    }
}

pub(crate) fn account(n: u8) -> AccountId {
    AccountId::new([n; 32])
}

/// A referendum proposed now.
pub(crate) fn propose(index: u32) {
    Open::mutate(|open| open.insert(index, <Tally<Test> as VoteTally<Work, u16>>::new(0)));
}

/// Runs a test with hosts 1, 2, 3 of weights 50, 30, 20 in epoch 5, and checks the invariants at its end.
pub(crate) fn build_and_execute(test: impl FnOnce()) {
    sp_io::TestExternalities::default().execute_with(|| {
        System::set_block_number(1);
        Epoch::set(5);
        Open::set(BTreeMap::new());
        Shares::set([(1, 50), (2, 30), (3, 20)].map(|(n, weight)| ((5, n), weight)).into());
        test();
        Governance::do_try_state().unwrap();
    });
}
