//! Names and types of the storage that this crate reads.

use crate::types::{
    AccountInfo, Boundary, Conviction, CoverageMark, Delegation, Deposit, Dispute, HostInfo, Panel,
    PanelTally, Plant, PotInfo, Seat, SprintVoter, VerdictRecord,
};
use codec::Encode;
use scale_info::{meta_type, MetaType, TypeInfo};
use starling_primitives::{
    fraud::{Fraud, FraudProof},
    profile::Profile,
    records::InferenceRecord,
    schedule::EpochState,
    sprint::SprintCommitment,
    traits::{HostWeight, Round},
    verdict::PanelRound,
    AccountId, Balance, EpochIndex, InferenceId, Ppm, ProfileId, RequestId, H256,
};
use std::marker::PhantomData;

/// Where a storage item is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Name of the pallet in the runtime.
    pub pallet: &'static str,
    /// Name of the item.
    pub item: &'static str,
}

/// A storage item with the types of its keys and value.
pub struct Entry<K, V> {
    /// Where it is found.
    pub place: Place,
    marker: PhantomData<fn(K) -> V>,
}

impl<K, V> std::fmt::Debug for Entry<K, V> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.place.fmt(formatter)
    }
}

impl<K, V> Entry<K, V> {
    const fn new(pallet: &'static str, item: &'static str) -> Self {
        Self { place: Place { pallet, item }, marker: PhantomData }
    }
}

/// The keys of a map: one part for each hasher.
pub trait Keys {
    /// The parts, encoded but not hashed.
    fn parts(&self) -> Vec<Vec<u8>>;
    /// Their types.
    fn types() -> Vec<MetaType>;
}

impl Keys for () {
    fn parts(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn types() -> Vec<MetaType> {
        Vec::new()
    }
}

impl<A: Encode + TypeInfo + 'static> Keys for (A,) {
    fn parts(&self) -> Vec<Vec<u8>> {
        vec![self.0.encode()]
    }
    fn types() -> Vec<MetaType> {
        vec![meta_type::<A>()]
    }
}

impl<A: Encode + TypeInfo + 'static, B: Encode + TypeInfo + 'static> Keys for (A, B) {
    fn parts(&self) -> Vec<Vec<u8>> {
        vec![self.0.encode(), self.1.encode()]
    }
    fn types() -> Vec<MetaType> {
        vec![meta_type::<A>(), meta_type::<B>()]
    }
}

/// What [`crate::shape`] compares with the runtime.
#[derive(Debug)]
pub struct EntryShape {
    /// Where the item is found.
    pub place: Place,
    /// Types of its keys.
    pub keys: Vec<MetaType>,
    /// Type of its value; `None` when only its presence matters.
    pub value: Option<MetaType>,
}

/// A value that is not decoded: only its presence matters.
#[derive(Clone, Copy, Debug)]
pub struct Present;

impl codec::Decode for Present {
    fn decode<I: codec::Input>(input: &mut I) -> Result<Self, codec::Error> {
        while input.remaining_len()?.is_some_and(|left| left > 0) {
            input.read_byte()?;
        }
        Ok(Self)
    }
}

macro_rules! value_type {
    (Present) => {
        None
    };
    ($value:ty) => {
        Some(meta_type::<$value>())
    };
}

macro_rules! entries {
    ($($(#[$doc:meta])* $name:ident = $pallet:literal . $item:literal: $keys:ty => $value:tt $(< $of:ty >)?;)*) => {
        $($(#[$doc])* pub const $name: Entry<$keys, $value $(<$of>)?> = Entry::new($pallet, $item);)*

        /// Every item of this module.
        pub fn all() -> Vec<EntryShape> {
            vec![$(EntryShape {
                place: $name.place,
                keys: <$keys as Keys>::types(),
                value: value_type!($value $(<$of>)?),
            }),*]
        }
    };
}

entries! {
    /// The epoch clock.
    EPOCH = "Epochs"."Current": () => EpochState;
    /// Milliseconds of a slot: what a block takes when none is missed.
    SLOT_DURATION = "Epochs"."SlotDuration": () => u64;
    /// The clock of the epoch before, as it was when that ended.
    PREVIOUS_EPOCH = "Epochs"."Previous": () => EpochState;
    /// Registered hosts.
    HOSTS = "Hosts"."Hosts": (AccountId,) => HostInfo;
    /// Host of a worker key.
    HOST_OF_WORKER = "Hosts"."HostOfWorker": (AccountId,) => AccountId;
    /// Registered profiles.
    PROFILES = "Profiles"."Profiles": (ProfileId,) => Profile;
    /// Final seeds.
    SEEDS = "Beacon"."Seeds": (Round,) => H256;
    /// Who contributed to the beacon in an epoch.
    CONTRIBUTIONS = "Beacon"."Contributions": (EpochIndex, AccountId) => Present;
    /// Who claimed an epoch.
    CLAIMED = "Rewards"."Claimed": (EpochIndex, AccountId) => Present;
    /// Sprint commitments.
    COMMITMENTS = "Sprint"."Commitments": (EpochIndex, (ProfileId, AccountId)) => SprintCommitment;
    /// Sprint verdicts, by (profile, prover).
    SPRINT_VOTERS = "Sprint"."Voters": (EpochIndex, (ProfileId, AccountId)) => Vec<SprintVoter>;
    /// Weights over all profiles.
    EPOCH_WEIGHTS = "Sprint"."EpochWeights": (EpochIndex,) => Vec<HostWeight>;
    /// Weights for one profile.
    PROFILE_WEIGHTS = "Sprint"."ProfileWeights": (EpochIndex, ProfileId) => Vec<HostWeight>;
    /// Deposits of clients.
    DEPOSITS = "Inference"."Deposits": (AccountId,) => Deposit;
    /// Keys that may spend a deposit, by (client, key).
    DELEGATIONS = "Inference"."Delegations": (AccountId, AccountId) => Delegation;
    /// Inference records.
    INFERENCES = "Inference"."Inferences": (EpochIndex, u32) => InferenceRecord;
    /// Place of a request.
    REQUEST_INDEX = "Inference"."RequestIndex": (RequestId,) => InferenceId;
    /// Number of records of an epoch.
    COUNTS = "Inference"."Counts": (EpochIndex,) => u32;
    /// Verdicts on inferences by (index, verifier).
    VERDICTS = "Verification"."Verdicts": (EpochIndex, (u32, AccountId)) => VerdictRecord;
    /// Disputed inferences.
    DISPUTES = "Verification"."Disputes": (EpochIndex, u32) => Dispute;
    /// Panels of disputes by (index, round).
    PANELS = "Verification"."Panels": (EpochIndex, (u32, PanelRound)) => Panel;
    /// What panels have come to, by (index, round).
    PANEL_TALLIES = "Verification"."PanelTallies": (EpochIndex, (u32, PanelRound)) => PanelTally;
    /// What members of panels have said, by (index, round, member).
    SEATS = "Verification"."Seats": (EpochIndex, (u32, PanelRound, AccountId)) => Seat;
    /// The newest boundary of a coverage window.
    LAST_BOUNDARY = "Verification"."LastBoundary": () => Boundary;
    /// Closed coverage windows by number.
    COVERAGE_MARKS = "Verification"."CoverageMarks": (EpochIndex, u32) => CoverageMark;
    /// Hosts convicted of fraud in an epoch.
    CONVICTIONS = "Verification"."Convictions": (EpochIndex, AccountId) => Conviction;
    /// Plants of hosts.
    PLANTS = "Verification"."Plants": (EpochIndex, AccountId) => Plant;
    /// Who approved a revealed plant, while it is open what comes of that.
    APPROVERS = "Verification"."ApproversOf": (EpochIndex, u32) => Vec<AccountId>;
    /// Hosts that were found negligent in an epoch, and by which plant.
    NEGLIGENCES = "Verification"."Negligences": (EpochIndex, AccountId) => InferenceId;
    /// Reputation of hosts.
    REPUTATIONS = "Verification"."Reputations": (AccountId,) => Ppm;
    /// Pots of the epochs.
    POTS = "Rewards"."Pots": (EpochIndex,) => PotInfo;
    /// Fees a host earned in an epoch.
    FEES = "Rewards"."Fees": (EpochIndex, AccountId) => Balance;
    /// Nonce and native tokens of an account.
    ACCOUNT = "System"."Account": (AccountId,) => AccountInfo;
}

/// A method of a runtime API, compared with the runtime by [`crate::shape`].
#[derive(Debug)]
pub struct ApiShape {
    /// Name of the API.
    pub name: &'static str,
    /// Name of the method.
    pub method: &'static str,
    /// Types of its inputs.
    pub inputs: Vec<MetaType>,
    /// Type of its output.
    pub output: MetaType,
}

/// The runtime APIs that [`crate::ChainView`] calls.
pub fn apis() -> Vec<ApiShape> {
    vec![
        ApiShape {
            name: "StarlingApi",
            method: "undone_duties",
            inputs: vec![meta_type::<EpochIndex>(), meta_type::<AccountId>(), meta_type::<H256>()],
            output: meta_type::<Vec<u32>>(),
        },
        ApiShape {
            name: "StarlingApi",
            method: "claimable",
            inputs: vec![meta_type::<EpochIndex>(), meta_type::<AccountId>()],
            output: meta_type::<(Balance, Balance)>(),
        },
        ApiShape {
            name: "StarlingApi",
            method: "fraud",
            inputs: vec![meta_type::<FraudProof>()],
            output: meta_type::<Option<Fraud>>(),
        },
    ]
}
