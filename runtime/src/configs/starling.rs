//! Starling's own pallets. They know each other's traits only; here they meet.

use crate::*;
use codec::Encode;
use frame_support::{
    parameter_types,
    traits::{ConstU32, Contains, Get},
    PalletId,
};
use sp_consensus_babe::digests::CompatibleDigestItem;
use sp_core::H256;
use sp_runtime::Perbill;

/// Held while an account is a host.
pub const BOND: Balance = 1_000 * TOKEN;
/// What a fraud proof costs that proves nothing: a hundredth of the bond.
pub const FRAUD_DEPOSIT: Balance = BOND / 100;
/// Hosts that can have weight in an epoch at most.
const MAX_HOSTS: u32 = 1_024;
/// Items that each pallet prunes in a block at most.
const PRUNED_PER_BLOCK: u32 = 200;

/// Hosts on the first panel of a dispute; everybody, where they are fewer. `starling-math`'s example `panels` prints how
/// often liars would have the majority.
pub const FIRST_PANEL: u32 = 201;
/// Hosts on the second panel.
pub const SECOND_PANEL: u32 = 301;

parameter_types! {
    /// A sixteenth of a block is for those who pay, whatever hosts owe.
    pub const ReservedForFees: Perbill = Perbill::from_parts(62_500_000);
    pub const Bond: Balance = BOND;
    /// Pays for an entry of the ledger.
    pub const MinDeposit: Balance = TOKEN / 10;
    pub const FraudDeposit: Balance = FRAUD_DEPOSIT;
    pub const DepositPallet: PalletId = PalletId(*b"strl/dep");
    pub const PotPallet: PalletId = PalletId(*b"strl/pot");
}

impl pallet_epochs::Config for Runtime {
    type Hooks = hooks::Boundaries;
    type WeightInfo = pallet_epochs::weights::SubstrateWeight<Runtime>;
}

impl pallet_profiles::Config for Runtime {
    type Clock = Epochs;
    type MaxProfiles = ConstU32<1_024>;
    type WeightInfo = pallet_profiles::weights::SubstrateWeight<Runtime>;
}

impl pallet_hosts::Config for Runtime {
    type Currency = Balances;
    type RuntimeHoldReason = RuntimeHoldReason;
    type Clock = Epochs;
    type Profiles = Profiles;
    type Weights = Sprint;
    type Bond = Bond;
    type AnnounceInterval = ConstU32<5>;
    type WeightInfo = pallet_hosts::weights::SubstrateWeight<Runtime>;
}

/// Hash of the VRF output of this block's author, read from the header.
///
/// BABE's own storage still holds the previous block's while a block begins; with that, the author of the last block that
/// takes commitments would know the challenge while it decides what to include.
#[derive(Debug)]
pub struct AuthorRandomness;

impl Get<Option<H256>> for AuthorRandomness {
    fn get() -> Option<H256> {
        let pre_digest = System::digest().logs().iter().find_map(CompatibleDigestItem::as_babe_pre_digest)?;
        let output = pre_digest.vrf_signature()?.pre_output.encode();
        Some(H256(sp_io::hashing::blake2_256(&output)))
    }
}

impl pallet_beacon::Config for Runtime {
    type Clock = Epochs;
    type Hosts = Hosts;
    type Weights = Sprint;
    type BlockRandomness = AuthorRandomness;
    type MaxContributions = ConstU32<MAX_HOSTS>;
    type MaxPrunedPerBlock = ConstU32<PRUNED_PER_BLOCK>;
    type WeightInfo = pallet_beacon::weights::SubstrateWeight<Runtime>;
}

impl pallet_sprint::Config for Runtime {
    type Clock = Epochs;
    type Beacon = Beacon;
    type Hosts = Hosts;
    type Profiles = Profiles;
    type Reputation = Verification;
    type MaxHosts = ConstU32<MAX_HOSTS>;
    type MaxCommitments = ConstU32<MAX_HOSTS>;
    // Commitments times voters is what the first block of an epoch reads at most.
    type MaxVoters = ConstU32<{ starling_primitives::sprint::MAX_SPRINT_VERIFIERS }>;
    type MaxPrunedPerBlock = ConstU32<PRUNED_PER_BLOCK>;
    type WeightInfo = pallet_sprint::weights::SubstrateWeight<Runtime>;
}

impl pallet_attendance::Config for Runtime {
    type Clock = Epochs;
    type Weights = Sprint;
    type MaxPrunedPerBlock = ConstU32<PRUNED_PER_BLOCK>;
}

impl pallet_inference::Config for Runtime {
    type Currency = Balances;
    type Clock = Epochs;
    type Beacon = Beacon;
    type Hosts = Hosts;
    type Profiles = Profiles;
    type Weights = Sprint;
    type Reputation = Verification;
    type Attendance = Attendance;
    type Pots = Rewards;
    type PalletId = DepositPallet;
    type MinDeposit = MinDeposit;
    type MaxDelegations = ConstU32<64>;
    type MaxPrunedPerBlock = ConstU32<PRUNED_PER_BLOCK>;
    type WeightInfo = pallet_inference::weights::SubstrateWeight<Runtime>;
}

impl pallet_verification::Config for Runtime {
    type Currency = Balances;
    type Bonds = Hosts;
    type Clock = Epochs;
    type Beacon = Beacon;
    type Hosts = Hosts;
    type Profiles = Profiles;
    type Weights = Sprint;
    type Inferences = Inference;
    type FraudDeposit = FraudDeposit;
    type FirstPanel = ConstU32<FIRST_PANEL>;
    type SecondPanel = ConstU32<SECOND_PANEL>;
    type MaxSeatsPerBlock = ConstU32<512>;
    type MaxPrunedPerBlock = ConstU32<PRUNED_PER_BLOCK>;
    type WeightInfo = pallet_verification::weights::SubstrateWeight<Runtime>;
}

impl pallet_rewards::Config for Runtime {
    type Currency = Balances;
    type Clock = Epochs;
    type Beacon = Beacon;
    type Hosts = Hosts;
    type Weights = Sprint;
    type Reputation = Verification;
    type Attendance = Attendance;
    type Duties = Verification;
    type Inferences = Inference;
    type PalletId = PotPallet;
    type MaxPrunedPerBlock = ConstU32<PRUNED_PER_BLOCK>;
    type WeightInfo = pallet_rewards::weights::SubstrateWeight<Runtime>;
}

/// The calls that hosts owe, and may make for free where they do.
#[derive(Debug)]
pub struct Owed;

impl Contains<RuntimeCall> for Owed {
    fn contains(call: &RuntimeCall) -> bool {
        use {
            pallet_beacon::Call as Beacon, pallet_hosts::Call as Hosts, pallet_inference::Call as Inference,
            pallet_rewards::Call as Rewards, pallet_sprint::Call as Sprint,
            pallet_verification::Call as Verification,
        };
        match call {
            RuntimeCall::Hosts(call) => matches!(call, Hosts::announce { .. }),
            RuntimeCall::Beacon(call) => matches!(call, Beacon::contribute { .. }),
            RuntimeCall::Sprint(call) => {
                matches!(call, Sprint::commit { .. } | Sprint::submit_verdicts { .. })
            }
            RuntimeCall::Inference(call) => matches!(
                call,
                Inference::start { .. }
                    | Inference::finish { .. }
                    | Inference::deliver { .. }
                    | Inference::expire { .. }
            ),
            RuntimeCall::Verification(call) => matches!(
                call,
                Verification::submit_verdicts { .. }
                    | Verification::prove_fraud { .. }
                    | Verification::commit_verdicts { .. }
                    | Verification::reveal_verdicts { .. }
                    | Verification::commit_plant { .. }
                    | Verification::reveal_plant { .. }
                    | Verification::contest_plant { .. }
            ),
            RuntimeCall::Rewards(call) => matches!(call, Rewards::claim { .. }),
            _ => false,
        }
    }
}

impl pallet_duty_calls::Config for Runtime {
    type DutyCalls = Owed;
    type Clock = Epochs;
    type Hosts = Hosts;
    type Weights = Sprint;
    // At 256 records a batch, 16,384 of them may wait.
    type MaxWaiting = ConstU32<64>;
    type Reserved = ReservedForFees;
    type WeightInfo = pallet_duty_calls::weights::SubstrateWeight<Runtime>;
}
