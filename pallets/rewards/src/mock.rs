//! A runtime with balances and rewards; the other pallets answer what the tests set.

#![allow(unreachable_pub, reason = "the mock runtime is public in a private module")]

use crate as pallet_rewards;
use frame_support::{
    derive_impl, parameter_types,
    traits::{
        fungible::{Inspect, Mutate},
        tokens::Preservation::Expendable,
        ConstU32, Hooks,
    },
    weights::Weight,
    PalletId,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{traits::IdentityLookup, BuildStorage};
use starling_math::clock;
use starling_primitives::{
    hashing::hash_of,
    records::InferenceRecord,
    schedule::{EpochState, Schedule},
    traits::{
        Attendance, Beacon, Clock, Duties, EpochHooks, HostWeight, Hosts, Inferences, Pots, Reputation,
        Round, Weights,
    },
    vrf::{self, VrfInput, VrfProof},
    AccountId, Balance, BlockNumber, EpochIndex, InferenceId, Ppm, ProfileId, Work, H256,
};
use std::collections::{BTreeMap, BTreeSet};

type Block = frame_system::mocking::MockBlockU32<Test>;

/// Existential deposit of the mock.
pub(crate) const ED: Balance = 500;
/// What hosts and the client have at genesis.
pub(crate) const ENDOWMENT: Balance = 1_000_000;
/// Hosts of the mock.
pub(crate) const HOSTS: u8 = 5;
/// Inferences of every epoch.
pub(crate) const INFERENCES: u32 = 1_000;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Balances: pallet_balances,
        Rewards: pallet_rewards,
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
    type AccountStore = System;
    type Balance = Balance;
    type ExistentialDeposit = Minimum;
}

parameter_types! {
    pub const Minimum: Balance = ED;
    pub const PotsId: PalletId = PalletId(*b"strl/pot");
    pub static Current: EpochState = epoch_state(1, 60);
    pub static Before: Option<EpochState> = None;
    /// Weights of every epoch from 1 on, by host.
    pub static Shares: BTreeMap<u8, Work> = BTreeMap::new();
    pub static Since: BTreeMap<u8, BlockNumber> = BTreeMap::new();
    pub static Withheld: BTreeSet<(EpochIndex, u8)> = BTreeSet::new();
    pub static Absent: BTreeSet<(EpochIndex, u8)> = BTreeSet::new();
    pub static Attended: Vec<(AccountId, EpochIndex)> = Vec::new();
    pub static Convicted: BTreeSet<(EpochIndex, u8)> = BTreeSet::new();
    /// Inferences that a host has to verify and has not.
    pub static Undone: BTreeMap<u8, BTreeSet<u32>> = BTreeMap::new();
    pub static Clean: Vec<(AccountId, EpochIndex)> = Vec::new();
    pub static Suspended: BTreeSet<u8> = BTreeSet::new();
}

impl pallet_rewards::Config for Test {
    type Currency = Balances;
    type Clock = Mock;
    type Beacon = Mock;
    type Hosts = Mock;
    type Weights = Mock;
    type Reputation = Mock;
    type Attendance = Mock;
    type Duties = Mock;
    type Inferences = Mock;
    type PalletId = PotsId;
    type MaxPrunedPerBlock = ConstU32<3>;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
}

fn epoch_state(index: EpochIndex, start: BlockNumber) -> EpochState {
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
    fn seed(round: Round) -> Option<H256> {
        match round {
            Round::Claim(epoch) => {
                let open = System::block_number() >= clock::claims_open(&Current::get());
                (open && epoch < Current::get().index).then(|| hash_of(b"seed", &round))
            }
            round => Some(hash_of(b"seed", &round)),
        }
    }
    fn final_at(epoch: EpochIndex) -> Option<BlockNumber> {
        Some(epoch.saturating_sub(1) * 60 + 36)
    }
    fn withheld(epoch: EpochIndex, host: &AccountId) -> bool {
        id_of(host).is_some_and(|id| Withheld::get().contains(&(epoch, id)))
    }
}

impl Hosts for Mock {
    fn host_of(worker: &AccountId) -> Option<AccountId> {
        (0..HOSTS).find(|id| worker_of(*id) == *worker && !Suspended::get().contains(id)).map(host)
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
    fn slash_bond(host: &AccountId, amount: Balance, to: &AccountId) -> Balance {
        let bond = bond_of(id_of(host).unwrap());
        let taken = amount.min(Balances::balance(&bond));
        Balances::transfer(&bond, to, taken, Expendable).unwrap_or(0)
    }
}

impl Weights for Mock {
    fn hosts(epoch: EpochIndex) -> Vec<HostWeight> {
        if epoch == 0 {
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

impl Reputation for Mock {
    fn reputation(_: &AccountId) -> Ppm {
        0
    }
    fn on_clean_epoch(host: &AccountId, epoch: EpochIndex) {
        Clean::mutate(|clean| clean.push((host.clone(), epoch)));
    }
    fn on_missed(_: &AccountId, _: EpochIndex) {}
}

impl Attendance for Mock {
    fn on_answered(_: EpochIndex, _: ProfileId, _: &AccountId, _: &AccountId, _: u32) {}
    fn on_struck(_: EpochIndex, _: ProfileId, _: &AccountId) {}
    fn on_planted(_: EpochIndex, _: ProfileId, _: &AccountId, _: &AccountId) {}
    fn is_absent(epoch: EpochIndex, host: &AccountId) -> bool {
        id_of(host).is_some_and(|id| Absent::get().contains(&(epoch, id)))
    }
    fn on_claim(epoch: EpochIndex, host: &AccountId) -> bool {
        Attended::mutate(|attended| attended.push((host.clone(), epoch)));
        Self::is_absent(epoch, host)
    }
    fn profiles(_: EpochIndex) -> u32 {
        1
    }
}

impl Duties for Mock {
    fn undone(epoch: EpochIndex, host: &AccountId, secret: &H256, sample: &[u32]) -> Vec<u32> {
        let Some(id) = id_of(host) else { return Vec::new() };
        assert_eq!(*secret, duty(id, epoch).1, "the duty secret is the VRF's output");
        let undone = Undone::get().get(&id).cloned().unwrap_or_default();
        sample.iter().copied().filter(|index| undone.contains(index)).collect()
    }
    fn forfeits(epoch: EpochIndex, host: &AccountId) -> bool {
        id_of(host).is_some_and(|id| Convicted::get().contains(&(epoch, id)))
    }
}

impl Inferences for Mock {
    fn count(_: EpochIndex) -> u32 {
        INFERENCES
    }
    fn record(_: InferenceId) -> Option<InferenceRecord> {
        None
    }
    fn note_verdict(_: InferenceId, _: BlockNumber) {}
    fn dispute(_: InferenceId) {}
    fn settle_dispute(_: InferenceId, _: bool) {}
    fn invalidate(_: InferenceId) {}
    fn plant(_: InferenceId) {}
}

pub(crate) fn host(id: u8) -> AccountId {
    AccountId::new([id.wrapping_add(100); 32])
}

fn id_of(host: &AccountId) -> Option<u8> {
    (0..HOSTS).find(|id| self::host(*id) == *host)
}

/// Where the mock keeps a host's bond.
pub(crate) fn bond_of(id: u8) -> AccountId {
    AccountId::new([id.wrapping_add(200); 32])
}

/// Who pays fees.
pub(crate) fn client() -> AccountId {
    AccountId::new([99; 32])
}

fn pair(id: u8) -> sr25519::Pair {
    sr25519::Pair::from_seed(&[id.wrapping_add(1); 32])
}

pub(crate) fn worker_of(id: u8) -> AccountId {
    pair(id).public().into()
}

/// Proof and secret of a host for an epoch.
pub(crate) fn duty(id: u8, epoch: EpochIndex) -> (VrfProof, H256) {
    let seed = Mock::seed(Round::Epoch(epoch)).unwrap();
    vrf::sign(&pair(id), &VrfInput::Duty(System::block_hash(0), epoch, seed))
}

/// The client pays a fee for a host's work, as `inference` does.
pub(crate) fn pay(id: u8, amount: Balance) {
    let epoch = Current::get().index;
    Balances::transfer(&client(), &Rewards::account(epoch), amount, Expendable).unwrap();
    Rewards::on_fee(epoch, &host(id), amount);
}

/// To the first block in which the epoch before the running one may be claimed.
pub(crate) fn to_claims() {
    System::set_block_number(clock::claims_open(&Current::get()));
}

/// The next epoch begins; the invariants hold.
pub(crate) fn next_epoch() {
    let ended = Current::get();
    let start = clock::epoch_end(&ended);
    System::set_block_number(start);
    Before::set(Some(ended));
    Current::set(epoch_state(ended.index + 1, start));
    Rewards::on_epoch_change(ended.index);
    check();
}

/// Prunes as one block does.
pub(crate) fn idle() {
    Rewards::on_idle(System::block_number(), Weight::MAX);
    check();
}

/// The invariants, and that the account holds what the ledger says to the unit: nobody sent it anything.
pub(crate) fn check() {
    Rewards::do_try_state().unwrap();
    assert_eq!(Rewards::surplus(), Some(0));
}

/// A chain of the mock, in epoch 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExtBuilder {
    shares: BTreeMap<u8, Work>,
}

impl ExtBuilder {
    /// Host `i` has weight `weights[i]`, from epoch 1 on.
    pub(crate) fn weights(mut self, weights: &[Work]) -> Self {
        self.shares = (0..).zip(weights.iter().copied()).collect();
        self
    }

    /// Runs a test in a fresh chain and checks the invariants at its end.
    pub(crate) fn build_and_execute<R>(self, test: impl FnOnce() -> R) -> R {
        let accounts = (0..HOSTS).flat_map(|id| [host(id), bond_of(id)]).chain([client()]);
        let config = RuntimeGenesisConfig {
            balances: pallet_balances::GenesisConfig {
                balances: accounts.map(|account| (account, ENDOWMENT)).collect(),
                ..Default::default()
            },
            ..Default::default()
        };
        let mut ext = sp_io::TestExternalities::new(config.build_storage().unwrap());
        Current::set(epoch_state(1, 60));
        Before::set(Some(epoch_state(0, 0)));
        Shares::set(self.shares);
        Since::set(BTreeMap::new());
        Withheld::set(BTreeSet::new());
        Absent::set(BTreeSet::new());
        Attended::set(Vec::new());
        Convicted::set(BTreeSet::new());
        Undone::set(BTreeMap::new());
        Clean::set(Vec::new());
        Suspended::set(BTreeSet::new());
        ext.execute_with(|| {
            System::set_block_number(60);
            check();
            let result = test();
            Rewards::do_try_state().unwrap();
            result
        })
    }
}
