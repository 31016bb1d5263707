//! BABE and GRANDPA with the hosts' weights as authority weights.

use crate::*;
use frame_support::{
    parameter_types,
    traits::{ConstU32, Get},
};
use pallet_session::historical;
use sp_consensus_babe::{AllowedSlots, BabeEpochConfiguration};
use sp_runtime::traits::{Convert, ConvertInto, OpaqueKeys};
use sp_staking::SessionIndex;

/// Authorities at most: the least share that makes one is a thousandth of the weight.
pub const MAX_AUTHORITIES: u32 = 1_024;

/// A slot has a primary author with probability c = 3/5, so most blocks are made by who was drawn by weight, while two
/// primaries (and with them a short fork) come together in a slot in fewer than a quarter of them. The other slots are
/// filled by secondary authors, drawn uniformly; fork choice counts primaries only.
pub const BABE_GENESIS_EPOCH_CONFIG: BabeEpochConfiguration =
    BabeEpochConfiguration { c: (3, 5), allowed_slots: AllowedSlots::PrimaryAndSecondaryVRFSlots };

/// Sessions for which equivocations can be reported.
const KEPT_SESSIONS: SessionIndex = 168;

/// Length of a slot in milliseconds.
#[derive(Debug)]
pub struct SlotDuration;

impl Get<u64> for SlotDuration {
    fn get() -> u64 {
        pallet_epochs::SlotDuration::<Runtime>::get()
    }
}

/// Slots of a session.
#[derive(Debug)]
pub struct SessionSlots;

impl Get<u64> for SessionSlots {
    fn get() -> u64 {
        pallet_epochs::SessionSlots::<Runtime>::get()
    }
}

/// Blocks during which a report of an equivocation is valid.
#[derive(Debug)]
pub struct ReportLongevity;

impl Get<u64> for ReportLongevity {
    fn get() -> u64 {
        SessionSlots::get().saturating_mul(KEPT_SESSIONS.into())
    }
}

parameter_types! {
    pub const MaxSetIdSessionEntries: u64 = KEPT_SESSIONS as u64;
    /// A host may be an authority as long as it pays for the storage of its session keys.
    pub const KeyDeposit: Balance = TOKEN;
}

/// Where reports of equivocations end.
type Reports = pallet_authorities::OncePerSet<Runtime, Offences>;

impl pallet_babe::Config for Runtime {
    type EpochDuration = SessionSlots;
    type ExpectedBlockTime = SlotDuration;
    type EpochChangeTrigger = pallet_babe::ExternalTrigger;
    type DisabledValidators = Session;
    type WeightInfo = configs::equivocation_weights::Babe;
    type MaxAuthorities = ConstU32<MAX_AUTHORITIES>;
    type MaxNominators = ConstU32<0>;
    type KeyOwnerProof = sp_session::MembershipProof;
    type EquivocationReportSystem =
        pallet_babe::EquivocationReportSystem<Self, Reports, Historical, ReportLongevity>;
}

impl pallet_grandpa::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = configs::equivocation_weights::Grandpa;
    type MaxAuthorities = ConstU32<MAX_AUTHORITIES>;
    type MaxNominators = ConstU32<0>;
    type MaxSetIdSessionEntries = MaxSetIdSessionEntries;
    type KeyOwnerProof = sp_session::MembershipProof;
    type EquivocationReportSystem =
        pallet_grandpa::EquivocationReportSystem<Self, Reports, Historical, ReportLongevity>;
}

impl pallet_authorship::Config for Runtime {
    type FindAuthor = pallet_session::FindAccountFromAuthorIndex<Self, Babe>;
    type EventHandler = ();
}

impl pallet_session::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type ValidatorId = AccountId;
    type ValidatorIdOf = ConvertInto;
    type ShouldEndSession = Babe;
    type NextSessionRotation = Babe;
    type SessionManager = historical::NoteHistoricalRoot<Self, Authorities>;
    type SessionHandler = <SessionKeys as OpaqueKeys>::KeyTypeIdProviders;
    type Keys = SessionKeys;
    type DisablingStrategy = pallet_authorities::DisableUpToHalf;
    type WeightInfo = pallet_session::weights::SubstrateWeight<Runtime>;
    type Currency = Balances;
    type KeyDeposit = KeyDeposit;
}

/// An offender is identified by its account; its weight is in the plan of the session.
#[derive(Debug)]
pub struct AccountOnly;

impl Convert<AccountId, Option<()>> for AccountOnly {
    fn convert(_: AccountId) -> Option<()> {
        Some(())
    }
}

impl historical::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type FullIdentification = ();
    type FullIdentificationOf = AccountOnly;
}

impl pallet_offences::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type IdentificationTuple = historical::IdentificationTuple<Self>;
    type OnOffenceHandler = Authorities;
}

impl pallet_authorities::Config for Runtime {
    type Clock = Epochs;
    type Weights = Sprint;
    type Hosts = Hosts;
    type Court = Verification;
    type MaxPlanned = ConstU32<MAX_AUTHORITIES>;
    type KeptSessions = ConstU32<KEPT_SESSIONS>;
    type WeightInfo = pallet_authorities::weights::SubstrateWeight<Runtime>;
}
