//! A runtime with the sprint alone; a clock, beacon, hosts and profiles that the tests set.

#![allow(unreachable_pub, reason = "the mock runtime is public in a private module")]

use crate as pallet_sprint;
use frame_support::{
    derive_impl, parameter_types,
    traits::{ConstU32, Hooks},
    weights::Weight,
};
use sp_runtime::{traits::IdentityLookup, BuildStorage};
use starling_math::clock;
use starling_primitives::{
    profile::{Calibration, Numerics, Profile},
    schedule::{EpochState, Schedule},
    sprint::{SprintCommitment, SprintVerdict},
    traits::{Beacon, Clock, EpochHooks, HostWeight, Hosts, Profiles, Reputation, Round, Weights},
    AccountId, Balance, BlockNumber, EpochIndex, Ppm, ProfileId, Work, H256,
};
use std::collections::{BTreeMap, BTreeSet};

type Block = frame_system::mocking::MockBlockU32<Test>;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Sprint: pallet_sprint,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
    type AccountId = AccountId;
    type Lookup = IdentityLookup<AccountId>;
}

/// Hosts of the mock.
pub(crate) const HOSTS: u8 = 8;
/// Profiles of the mock; one nonce of profile `p` is `(p + 1) x NONCE_WORK` work units.
pub(crate) const PROFILES: ProfileId = 2;
/// Work of a nonce of profile 0: 16 prompt tokens of 1, 32 decoded ones of 2 units.
pub(crate) const NONCE_WORK: Work = 80;

parameter_types! {
    pub static Current: EpochState = epoch_state(0, 0);
    pub static Before: Option<EpochState> = None;
    pub static Withheld: BTreeSet<u8> = BTreeSet::new();
    pub static Draining: BTreeSet<u8> = BTreeSet::new();
    /// Too many accuse them.
    pub static Stopped: BTreeSet<u8> = BTreeSet::new();
    /// Pairs of host and profile that is not served.
    pub static Unserved: BTreeSet<(u8, ProfileId)> = BTreeSet::new();
    pub static Since: BTreeMap<u8, BlockNumber> = BTreeMap::new();
    pub static Reputations: BTreeMap<u8, Ppm> = BTreeMap::new();
    pub static Retired: BTreeSet<ProfileId> = BTreeSet::new();
    /// What the registry was told last of each host.
    pub static Told: BTreeMap<AccountId, Work> = BTreeMap::new();
}

impl pallet_sprint::Config for Test {
    type Clock = Mock;
    type Beacon = Mock;
    type Hosts = Mock;
    type Profiles = Mock;
    type Reputation = Mock;
    type MaxHosts = ConstU32<6>;
    type MaxCommitments = ConstU32<10>;
    type MaxVoters = ConstU32<3>;
    type MaxPrunedPerBlock = ConstU32<4>;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
}

/// An epoch of the test schedule.
pub(crate) fn epoch_state(index: EpochIndex, start: BlockNumber) -> EpochState {
    EpochState { index, start, extension: 0, sprint_cancelled: false, schedule: Schedule::TEST }
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

impl Beacon for Mock {
    fn seed(_: Round) -> Option<H256> {
        Some(H256::zero())
    }
    fn final_at(epoch: EpochIndex) -> Option<BlockNumber> {
        (epoch == Current::get().index + 1).then(|| clock::race_start(&Current::get()))
    }
    fn withheld(_: EpochIndex, host: &AccountId) -> bool {
        id_of(host).is_some_and(|id| Withheld::get().contains(&id))
    }
}

impl Hosts for Mock {
    fn host_of(worker: &AccountId) -> Option<AccountId> {
        (0..HOSTS).find(|id| worker_of(*id) == *worker).map(host)
    }
    fn worker_of(host: &AccountId) -> Option<AccountId> {
        id_of(host).map(worker_of)
    }
    fn worker_since(host: &AccountId) -> Option<BlockNumber> {
        id_of(host).map(|id| Since::get().get(&id).copied().unwrap_or(0))
    }
    fn may_sprint(host: &AccountId) -> bool {
        id_of(host).is_some_and(|id| !Draining::get().contains(&id))
    }
    fn serves(host: &AccountId, profile: ProfileId) -> bool {
        id_of(host).is_some_and(|id| !Unserved::get().contains(&(id, profile)))
    }
    fn count() -> u32 {
        HOSTS.into()
    }
    fn on_weight(host: &AccountId, weight: Work) {
        Told::mutate(|told| told.insert(host.clone(), weight));
    }
    fn convict(_: &AccountId) {}
    fn slash_bond(_: &AccountId, _: Balance, _: &AccountId) -> Balance {
        0
    }
}

impl Profiles for Mock {
    fn profile(id: ProfileId) -> Option<Profile> {
        (id < PROFILES && !Retired::get().contains(&id)).then(|| Profile {
            name: b"mock".to_vec().try_into().unwrap(),
            weights_digest: H256::zero(),
            tokenizer_digest: H256::zero(),
            numerics: Numerics::F32,
            top_k: 20,
            max_context: 1_000,
            vocab_size: 100,
            prompt_price: 0,
            completion_price: 0,
            prompt_work: id + 1,
            completion_work: 2 * (id + 1),
            sprint_tolerance: 0,
            calibration: Calibration { distance_limit: 10, margin_limit: 10, short_allowance: 0 },
        })
    }
}

impl Reputation for Mock {
    fn reputation(host: &AccountId) -> Ppm {
        id_of(host).and_then(|id| Reputations::get().get(&id).copied()).unwrap_or(0)
    }
    fn may_work(host: &AccountId) -> bool {
        id_of(host).is_none_or(|id| !Stopped::get().contains(&id))
    }
    fn on_clean_epoch(_: &AccountId, _: EpochIndex) {}
    fn on_missed(_: &AccountId, _: EpochIndex) {}
}

pub(crate) fn host(id: u8) -> AccountId {
    AccountId::new([id.wrapping_add(100); 32])
}

fn id_of(host: &AccountId) -> Option<u8> {
    (0..HOSTS).find(|id| self::host(*id) == *host)
}

pub(crate) fn worker_of(id: u8) -> AccountId {
    AccountId::new([id.wrapping_add(1); 32])
}

pub(crate) fn origin(id: u8) -> RuntimeOrigin {
    RuntimeOrigin::signed(worker_of(id))
}

pub(crate) fn commitment(count: u32) -> SprintCommitment {
    SprintCommitment { root: H256::repeat_byte(9), count }
}

pub(crate) fn verdict(checked: u32, failed: u32) -> SprintVerdict {
    SprintVerdict { checked, failed, fabricated: false }
}

/// To the first block of the commit window.
pub(crate) fn to_commit() {
    System::set_block_number(clock::commit_start(&Current::get()));
}

/// To the first block of the check window.
pub(crate) fn to_check() {
    System::set_block_number(clock::check_start(&Current::get()));
}

/// The next epoch begins; the invariants hold.
pub(crate) fn next_epoch() {
    let ended = Current::get();
    let start = clock::epoch_end(&ended);
    System::set_block_number(start);
    Before::set(Some(ended));
    Current::set(EpochState { schedule: ended.schedule, ..epoch_state(ended.index + 1, start) });
    Told::set(BTreeMap::new());
    Sprint::on_epoch_change(ended.index);
    Sprint::do_try_state().unwrap();
}

/// Prunes as one block does.
pub(crate) fn idle() {
    Sprint::on_idle(System::block_number(), Weight::MAX);
    Sprint::do_try_state().unwrap();
}

/// The weights of an epoch, by host.
pub(crate) fn weights_of(epoch: EpochIndex) -> Vec<(u8, Work)> {
    let entry = |entry: HostWeight| (id_of(&entry.host).unwrap(), entry.weight);
    Sprint::hosts(epoch).into_iter().map(entry).collect()
}

/// The weights that an epoch gives to one profile, by host.
pub(crate) fn profile_weights_of(epoch: EpochIndex, profile: ProfileId) -> Vec<(u8, Work)> {
    let entry = |entry: HostWeight| (id_of(&entry.host).unwrap(), entry.weight);
    Sprint::of_profile(epoch, profile).into_iter().map(entry).collect()
}

/// A chain of the mock.
#[derive(Clone, Debug)]
pub(crate) struct ExtBuilder {
    schedule: Schedule,
    weights: Vec<Work>,
}

/// Without a cap.
impl Default for ExtBuilder {
    fn default() -> Self {
        Self {
            schedule: Schedule { max_share: starling_primitives::PPM, ..Schedule::TEST },
            weights: Vec::new(),
        }
    }
}

impl ExtBuilder {
    /// Most of the total that one host can have.
    pub(crate) fn max_share(mut self, max_share: Ppm) -> Self {
        self.schedule.max_share = max_share;
        self
    }

    /// Host `i` has weight `weights[i]` with profile 0 in epoch 0.
    pub(crate) fn weights(mut self, weights: &[Work]) -> Self {
        self.weights = weights.to_vec();
        self
    }

    /// Runs a test in a fresh chain and checks the invariants at its end.
    pub(crate) fn build_and_execute<R>(self, test: impl FnOnce() -> R) -> R {
        let mut ext = sp_io::TestExternalities::new(RuntimeGenesisConfig::default().build_storage().unwrap());
        Current::set(EpochState { schedule: self.schedule, ..epoch_state(0, 0) });
        Before::set(None);
        Withheld::set(BTreeSet::new());
        Draining::set(BTreeSet::new());
        Stopped::set(BTreeSet::new());
        Unserved::set(BTreeSet::new());
        Since::set(BTreeMap::new());
        Reputations::set(BTreeMap::new());
        Retired::set(BTreeSet::new());
        Told::set(BTreeMap::new());
        ext.execute_with(|| {
            System::set_block_number(1);
            let entries: Vec<HostWeight> = (0..)
                .zip(&self.weights)
                .filter(|(_, weight)| **weight > 0)
                .map(|(id, &weight)| HostWeight { host: host(id), weight, reputation: 0 })
                .collect();
            if !entries.is_empty() {
                crate::EpochWeights::<Test>::insert(
                    0,
                    frame_support::BoundedVec::truncate_from(entries.clone()),
                );
                crate::ProfileWeights::<Test>::insert(
                    0,
                    0,
                    frame_support::BoundedVec::truncate_from(entries),
                );
            }
            let result = test();
            Sprint::do_try_state().unwrap();
            result
        })
    }
}
