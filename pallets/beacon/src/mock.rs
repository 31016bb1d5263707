//! A runtime with the beacon alone; a clock, hosts and weights that the tests set.

#![allow(unreachable_pub, reason = "the mock runtime is public in a private module")]

use crate as pallet_beacon;
use frame_support::{
    derive_impl, parameter_types,
    traits::{ConstU32, Hooks},
    weights::Weight,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{traits::IdentityLookup, BuildStorage};
use starling_math::clock;
use starling_primitives::{
    schedule::{EpochState, Schedule},
    traits::{Clock, EpochHooks, HostWeight, Hosts, Round, Weights},
    vrf::{self, VrfInput, VrfProof},
    AccountId, Balance, BlockNumber, EpochIndex, ProfileId, Work, H256,
};
use std::collections::BTreeMap;

type Block = frame_system::mocking::MockBlockU32<Test>;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Beacon: pallet_beacon,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
    type AccountId = AccountId;
    type Lookup = IdentityLookup<AccountId>;
}

/// Hosts of the mock.
pub(crate) const HOSTS: u8 = 6;

parameter_types! {
    pub static Current: EpochState = first_epoch();
    pub static Before: Option<EpochState> = None;
    /// Weights of every epoch from the first one on, by host.
    pub static Shares: BTreeMap<u8, Work> = BTreeMap::new();
    /// First epoch with weights.
    pub static WeightsFrom: EpochIndex = 0;
    pub static Since: BTreeMap<u8, BlockNumber> = BTreeMap::new();
    pub static Banned: Vec<u8> = Vec::new();
    pub static Randomness: Option<H256> = None;
    /// What the starting gun was told last, if anything.
    pub static Gun: Option<bool> = None;
}

impl pallet_beacon::Config for Test {
    type Clock = Mock;
    type Hosts = Mock;
    type Weights = Mock;
    type BlockRandomness = Randomness;
    type MaxContributions = ConstU32<5>;
    type MaxPrunedPerBlock = ConstU32<3>;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
}

fn first_epoch() -> EpochState {
    EpochState { index: 0, start: 0, extension: 0, sprint_cancelled: false, schedule: Schedule::TEST }
}

/// The other pallets.
pub struct Mock;

impl Clock for Mock {
    fn epoch() -> EpochState {
        Current::get()
    }
    fn previous() -> Option<EpochState> {
        Before::get()
    }
}

impl Hosts for Mock {
    fn host_of(worker: &AccountId) -> Option<AccountId> {
        (0..HOSTS).find(|id| worker_of(*id) == *worker && !Banned::get().contains(id)).map(host)
    }
    fn worker_of(host: &AccountId) -> Option<AccountId> {
        id_of(host).map(worker_of)
    }
    fn worker_since(host: &AccountId) -> Option<BlockNumber> {
        id_of(host).map(|id| Since::get().get(&id).copied().unwrap_or(0))
    }
    fn may_sprint(_: &AccountId) -> bool {
        true
    }
    fn serves(_: &AccountId, _: ProfileId) -> bool {
        true
    }
    fn count() -> u32 {
        HOSTS.into()
    }
    fn on_weight(_: &AccountId, _: Work) {}
    fn convict(_: &AccountId) {}
    fn slash_bond(_: &AccountId, _: Balance, _: &AccountId) -> Balance {
        0
    }
}

impl Weights for Mock {
    fn hosts(epoch: EpochIndex) -> Vec<HostWeight> {
        if epoch < WeightsFrom::get() {
            return Vec::new();
        }
        let entry = |(id, weight)| HostWeight { host: host(id), weight, reputation: 0 };
        Shares::get().into_iter().filter(|(_, weight)| *weight > 0).map(entry).collect()
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

pub(crate) fn host(id: u8) -> AccountId {
    AccountId::new([id.wrapping_add(100); 32])
}

fn id_of(host: &AccountId) -> Option<u8> {
    (0..HOSTS).find(|id| self::host(*id) == *host)
}

pub(crate) fn pair(id: u8) -> sr25519::Pair {
    sr25519::Pair::from_seed(&[id.wrapping_add(1); 32])
}

pub(crate) fn worker_of(id: u8) -> AccountId {
    pair(id).public().into()
}

/// The proof of a host's worker key for an epoch.
pub(crate) fn proof(id: u8, epoch: EpochIndex) -> VrfProof {
    vrf::sign(&pair(id), &VrfInput::Beacon(System::block_hash(0), epoch)).0
}

/// Moves the clock, as `pallet-epochs` does, to `block`; the invariants hold in every block on the way.
pub(crate) fn run_to(block: BlockNumber) {
    while System::block_number() < block {
        let now = System::block_number() + 1;
        Beacon::on_idle(System::block_number(), Weight::MAX);
        System::set_block_number(now);
        tick(now);
        Beacon::on_initialize(now);
        Beacon::do_try_state().unwrap();
    }
}

fn tick(now: BlockNumber) {
    let mut epoch = Current::get();
    if now >= clock::epoch_end(&epoch) {
        Before::set(Some(epoch));
        epoch = EpochState { index: epoch.index + 1, start: now, ..first_epoch() };
        Current::set(epoch);
        Beacon::on_epoch_change(epoch.index - 1);
    }
    let boundary = |of: EpochState| {
        let offset = now - of.start;
        if offset > 0 && offset.is_multiple_of(of.schedule.coverage_blocks) {
            Beacon::on_coverage_boundary(of.index, offset);
        }
    };
    boundary(epoch);
    if let Some(previous) = Before::get().filter(|_| now <= clock::claims_open(&epoch)) {
        boundary(previous);
    }
    if epoch.index > 0 && now == clock::claims_open(&epoch) {
        Beacon::on_claims_open(epoch.index);
    }
    if !epoch.sprint_cancelled && now == clock::race_start(&epoch) {
        gun(epoch);
    }
    if !epoch.sprint_cancelled && now == clock::check_start(&Current::get()) {
        Beacon::on_check(epoch.index);
    }
}

fn gun(mut epoch: EpochState) {
    let length = epoch.schedule.reveal_blocks();
    let left = epoch.schedule.max_extensions - u8::try_from(epoch.extension / length).unwrap();
    let is_final = Beacon::seed_is_final(epoch.index, left);
    Gun::set(Some(is_final));
    if !is_final && left > 0 {
        epoch.extension += length;
    } else {
        epoch.sprint_cancelled = !is_final;
    }
    Current::set(epoch);
}

/// To the first block of the running epoch's reveal window.
pub(crate) fn run_to_reveal() {
    run_to(clock::reveal_start(&Current::get()));
}

/// To the starting gun of the running epoch, as far as it is known by now.
pub(crate) fn run_to_gun() {
    run_to(clock::race_start(&Current::get()));
}

/// To the first block of the next epoch.
pub(crate) fn run_to_next_epoch() {
    let next = Current::get().index + 1;
    while Current::get().index < next {
        run_to(System::block_number() + 1);
    }
}

/// The seed of an epoch, which is final.
pub(crate) fn epoch_seed(epoch: EpochIndex) -> H256 {
    crate::Seeds::<Test>::get(Round::Epoch(epoch)).unwrap()
}

/// A chain of the mock.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExtBuilder {
    shares: BTreeMap<u8, Work>,
    weights_from: EpochIndex,
}

impl ExtBuilder {
    /// Host `i` has weight `weights[i]`, from epoch 0 on.
    pub(crate) fn weights(mut self, weights: &[Work]) -> Self {
        self.shares = (0..).zip(weights.iter().copied()).collect();
        self
    }

    /// Nobody has weight before this epoch.
    pub(crate) fn weights_from(mut self, epoch: EpochIndex) -> Self {
        self.weights_from = epoch;
        self
    }

    /// Runs a test in a fresh chain and checks the invariants at its end.
    pub(crate) fn build_and_execute<R>(self, test: impl FnOnce() -> R) -> R {
        let config = RuntimeGenesisConfig {
            beacon: pallet_beacon::GenesisConfig { seed: H256::repeat_byte(7), ..Default::default() },
            ..Default::default()
        };
        let mut ext = sp_io::TestExternalities::new(config.build_storage().unwrap());
        Current::set(first_epoch());
        Before::set(None);
        Shares::set(self.shares);
        WeightsFrom::set(self.weights_from);
        Since::set(BTreeMap::new());
        Banned::set(Vec::new());
        Randomness::set(Some(H256::repeat_byte(1)));
        Gun::set(None);
        ext.execute_with(|| {
            run_to(1);
            let result = test();
            Beacon::do_try_state().unwrap();
            result
        })
    }
}
