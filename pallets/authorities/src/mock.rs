//! A runtime with the real session, BABE and GRANDPA pallets, and weights that tests set.

#![allow(unreachable_pub, reason = "the runtime macro makes the runtime public, and so what it names")]

use crate as pallet_authorities;
use crate::{WeightedBabe, WeightedGrandpa};
use frame_support::{
    derive_impl, parameter_types,
    traits::{ConstU32, ConstU64, Hooks},
};
use pallet_session::historical;
use sp_consensus_babe::{
    digests::{PreDigest, SecondaryPlainPreDigest},
    AuthorityId as BabeId, BABE_ENGINE_ID,
};
use sp_consensus_grandpa::AuthorityId as GrandpaId;
use sp_core::{crypto::UncheckedFrom, ed25519, sr25519};
use sp_runtime::{
    impl_opaque_keys,
    traits::{IdentityLookup, OpaqueKeys},
    BuildStorage, Digest, DigestItem,
};
use starling_primitives::{
    schedule::{EpochState, Schedule},
    traits::{Clock, Court, HostWeight, Hosts, Weights},
    AccountId, Balance, BlockNumber, EpochIndex, ProfileId, Work,
};

type Block = frame_system::mocking::MockBlockU32<Test>;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Timestamp: pallet_timestamp,
        Balances: pallet_balances,
        Babe: pallet_babe,
        Historical: pallet_session::historical,
        Session: pallet_session,
        Grandpa: pallet_grandpa,
        Authorities: pallet_authorities,
    }
);

impl_opaque_keys! {
    pub struct Keys {
        pub grandpa: WeightedGrandpa<Test>,
        pub babe: WeightedBabe<Test>,
    }
}

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

impl pallet_timestamp::Config for Test {
    type Moment = u64;
    type OnTimestampSet = Babe;
    type MinimumPeriod = ConstU64<1>;
    type WeightInfo = ();
}

impl pallet_session::Config for Test {
    type RuntimeEvent = RuntimeEvent;
    type ValidatorId = AccountId;
    type ValidatorIdOf = sp_runtime::traits::ConvertInto;
    type ShouldEndSession = Babe;
    type NextSessionRotation = Babe;
    type SessionManager = historical::NoteHistoricalRoot<Self, Authorities>;
    type SessionHandler = <Keys as OpaqueKeys>::KeyTypeIdProviders;
    type Keys = Keys;
    type DisablingStrategy = crate::DisableUpToHalf;
    type WeightInfo = ();
    type Currency = Balances;
    type KeyDeposit = ();
}

/// Nothing is said about a validator but its account.
pub struct NoIdentification;

impl sp_runtime::traits::Convert<AccountId, Option<()>> for NoIdentification {
    fn convert(_: AccountId) -> Option<()> {
        Some(())
    }
}

impl historical::Config for Test {
    type RuntimeEvent = RuntimeEvent;
    type FullIdentification = ();
    type FullIdentificationOf = NoIdentification;
}

impl pallet_babe::Config for Test {
    type EpochDuration = ConstU64<SESSION>;
    type ExpectedBlockTime = ConstU64<1>;
    type EpochChangeTrigger = pallet_babe::ExternalTrigger;
    type DisabledValidators = Session;
    type WeightInfo = ();
    type MaxAuthorities = ConstU32<MAX>;
    type MaxNominators = ConstU32<0>;
    type KeyOwnerProof = sp_session::MembershipProof;
    type EquivocationReportSystem = ();
}

impl pallet_grandpa::Config for Test {
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = ();
    type MaxAuthorities = ConstU32<MAX>;
    type MaxNominators = ConstU32<0>;
    type MaxSetIdSessionEntries = ConstU64<3>;
    type KeyOwnerProof = sp_session::MembershipProof;
    type EquivocationReportSystem = ();
}

/// Slots of a session.
pub(crate) const SESSION: u64 = 4;
/// Authorities at most.
pub(crate) const MAX: u32 = 5;

parameter_types! {
    pub static HostWeights: Vec<(u8, Work)> = Vec::new();
    pub static Convicted: Vec<u8> = Vec::new();
}

/// Clock, weights and registry. Worker of host n is n + 100.
pub struct Outside;

impl Clock for Outside {
    fn epoch() -> EpochState {
        let schedule = Schedule { min_authority_share: 10_000, ..Schedule::TEST };
        EpochState { index: 3, start: 0, extension: 0, sprint_cancelled: false, schedule }
    }

    fn previous() -> Option<EpochState> {
        None
    }
}

impl Weights for Outside {
    fn hosts(epoch: EpochIndex) -> Vec<HostWeight> {
        assert_eq!(epoch, 3);
        let of = |(id, weight)| HostWeight { host: account(id), weight, reputation: 0 };
        HostWeights::get().into_iter().map(of).collect()
    }

    fn of_profile(_: EpochIndex, _: ProfileId) -> Vec<HostWeight> {
        Vec::new()
    }

    fn weight(_: EpochIndex, _: &AccountId) -> Work {
        0
    }

    fn total(_: EpochIndex) -> Work {
        0
    }
}

fn id(account: &AccountId) -> u8 {
    <AccountId as AsRef<[u8; 32]>>::as_ref(account)[0]
}

impl Hosts for Outside {
    fn host_of(worker: &AccountId) -> Option<AccountId> {
        let host = id(worker) - 100;
        (!Convicted::get().contains(&host)).then(|| account(host))
    }

    fn worker_of(host: &AccountId) -> Option<AccountId> {
        Some(account(id(host) + 100))
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
        0
    }

    fn on_weight(_: &AccountId, _: Work) {}

    fn convict(_: &AccountId) {}

    fn slash_bond(_: &AccountId, _: Balance, _: &AccountId) -> Balance {
        0
    }
}

impl Court for Outside {
    fn convict(host: &AccountId) {
        Convicted::mutate(|convicted| convicted.push(id(host)));
    }
}

impl pallet_authorities::Config for Test {
    type Clock = Outside;
    type Weights = Outside;
    type Hosts = Outside;
    type Court = Outside;
    type MaxPlanned = ConstU32<MAX>;
    type KeptSessions = ConstU32<2>;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
}

/// A test account.
pub(crate) fn account(id: u8) -> AccountId {
    AccountId::new([id; 32])
}

/// BABE key number n.
pub(crate) fn babe(id: u8) -> BabeId {
    sr25519::Public::unchecked_from([id; 32]).into()
}

/// GRANDPA key number n.
pub(crate) fn grandpa(id: u8) -> GrandpaId {
    ed25519::Public::unchecked_from([id; 32]).into()
}

/// Session keys number n.
pub(crate) fn keys(id: u8) -> Keys {
    Keys { grandpa: grandpa(id), babe: babe(id) }
}

/// The weights that the newest epoch has.
pub(crate) fn set_weights(weights: &[(u8, Work)]) {
    HostWeights::set(weights.to_vec());
}

/// Makes the block of the next slot; checks the invariants after it.
fn next_block() {
    let block = System::block_number() + 1;
    let slot = u64::from(block).into();
    let digest = PreDigest::SecondaryPlain(SecondaryPlainPreDigest { authority_index: 0, slot });
    let log = DigestItem::PreRuntime(BABE_ENGINE_ID, codec::Encode::encode(&digest));
    System::reset_events();
    System::initialize(&block, &Default::default(), &Digest { logs: vec![log] });
    Babe::on_initialize(block);
    Session::on_initialize(block);
    Grandpa::on_finalize(block);
    Babe::on_finalize(block);
    Authorities::do_try_state().unwrap();
}

/// Runs to the first block of the next session.
pub(crate) fn next_session() {
    let session = Session::current_index();
    while Session::current_index() == session {
        next_block();
    }
}

/// Runs a test in a chain whose genesis authorities are the accounts 1 to 3; 4 to 8 have keys. Checks the invariants.
pub(crate) fn build_and_execute(test: impl FnOnce()) {
    let with_keys = |ids: std::ops::RangeInclusive<u8>| {
        ids.map(|id| (account(id), account(id), keys(id))).collect::<Vec<_>>()
    };
    let config = RuntimeGenesisConfig {
        session: pallet_session::GenesisConfig {
            keys: with_keys(1..=3),
            non_authority_keys: with_keys(4..=8),
        },
        ..Default::default()
    };
    let mut ext = sp_io::TestExternalities::new(config.build_storage().unwrap());
    ext.execute_with(|| {
        set_weights(&[]);
        Convicted::set(Vec::new());
        next_block();
        test();
        Authorities::do_try_state().unwrap();
    });
}
