//! Decisions of those who do the work: referenda, their delays, and what carries them out.
//!
//! On a main network this is the only way to Root; networks for development have sudo beside it.

use crate::*;
use alloc::borrow::Cow;
use frame_support::{
    parameter_types,
    traits::{fungible::HoldConsideration, ConstU32, EqualPrivilegeOnly, LinearStoragePrice, OriginTrait},
    weights::Weight,
};
use frame_system::{EnsureRoot, EnsureSigned, RawOrigin};
use pallet_referenda::{Curve, Track, TrackInfo, TracksInfo};
use sp_runtime::Perbill;
use starling_primitives::traits::Clock;

parameter_types! {
    pub const PreimageBaseDeposit: Balance = TOKEN;
    pub const PreimageByteDeposit: Balance = TOKEN / 1_000;
    pub const PreimageHoldReason: RuntimeHoldReason =
        RuntimeHoldReason::Preimage(pallet_preimage::HoldReason::Preimage);
    pub const SubmissionDeposit: Balance = 10 * TOKEN;
    /// What is due in a block may fill four fifths of it.
    pub MaximumSchedulerWeight: Weight = Perbill::from_percent(80) * configs::MAXIMUM_BLOCK_WEIGHT;
    /// A referendum that nobody places the decision deposit for is let go of after two epochs.
    pub UndecidingTimeout: BlockNumber = epoch_blocks().saturating_mul(2);
}

impl pallet_preimage::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = pallet_preimage::weights::SubstrateWeight<Runtime>;
    type Currency = Balances;
    type ManagerOrigin = EnsureRoot<AccountId>;
    type Consideration = HoldConsideration<
        AccountId,
        Balances,
        PreimageHoldReason,
        LinearStoragePrice<PreimageBaseDeposit, PreimageByteDeposit, Balance>,
    >;
}

impl pallet_scheduler::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeOrigin = RuntimeOrigin;
    type PalletsOrigin = OriginCaller;
    type RuntimeCall = RuntimeCall;
    type MaximumWeight = MaximumSchedulerWeight;
    type ScheduleOrigin = EnsureRoot<AccountId>;
    type OriginPrivilegeCmp = EqualPrivilegeOnly;
    type MaxScheduledPerBlock = ConstU32<50>;
    type WeightInfo = pallet_scheduler::weights::SubstrateWeight<Runtime>;
    type Preimages = Preimage;
    type BlockNumberProvider = System;
}

/// The only kind of referendum: a call as Root.
const ROOT_TRACK: u16 = 0;

/// Blocks of an epoch, which the periods are measured in: a day on main.
fn epoch_blocks() -> BlockNumber {
    Epochs::epoch().schedule.epoch_blocks
}

/// The delays of a referendum, in epochs: an hour's notice, a day to decide, six hours of standing approval, and two days
/// until it is carried out. Notice and decision fit into the two epochs for which the weights that count are kept.
#[derive(Debug)]
pub struct Tracks;

impl TracksInfo<Balance, BlockNumber> for Tracks {
    type Id = u16;
    type RuntimeOrigin = <RuntimeOrigin as OriginTrait>::PalletsOrigin;

    fn tracks() -> impl Iterator<Item = Cow<'static, Track<u16, Balance, BlockNumber>>> {
        let epoch = epoch_blocks();
        // More than half of *all* weight has to be in favour, silence is not consent, and two thirds of it are enough
        // from the first block on.
        let majority = Curve::LinearDecreasing {
            length: Perbill::one(),
            floor: Perbill::from_parts(500_000_001),
            ceil: Perbill::from_parts(666_666_667),
        };
        let info = TrackInfo {
            name: root(),
            max_deciding: 4,
            decision_deposit: 100 * TOKEN,
            prepare_period: (epoch / 24).max(1),
            decision_period: epoch,
            confirm_period: (epoch / 4).max(1),
            min_enactment_period: epoch.saturating_mul(2),
            min_approval: majority.clone(),
            min_support: majority,
        };
        core::iter::once(Cow::Owned(Track { id: ROOT_TRACK, info }))
    }

    fn track_for(origin: &Self::RuntimeOrigin) -> Result<u16, ()> {
        match origin {
            OriginCaller::system(RawOrigin::Root) => Ok(ROOT_TRACK),
            _ => Err(()),
        }
    }
}

/// `root`, in the pallet's fixed width.
fn root<const N: usize>() -> [u8; N] {
    let mut name = [0; N];
    name.iter_mut().zip(b"root").for_each(|(to, from)| *to = *from);
    name
}

impl pallet_referenda::Config for Runtime {
    type RuntimeCall = RuntimeCall;
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = pallet_referenda::weights::SubstrateWeight<Runtime>;
    type Scheduler = Scheduler;
    type Currency = Balances;
    type SubmitOrigin = EnsureSigned<AccountId>;
    type CancelOrigin = EnsureRoot<AccountId>;
    type KillOrigin = EnsureRoot<AccountId>;
    type Slash = ();
    type Votes = starling_primitives::Work;
    type Tally = pallet_governance::Tally<Runtime>;
    type SubmissionDeposit = SubmissionDeposit;
    type MaxQueued = ConstU32<32>;
    type UndecidingTimeout = UndecidingTimeout;
    type AlarmInterval = ConstU32<1>;
    type Tracks = Tracks;
    type Preimages = Preimage;
    type BlockNumberProvider = System;
}

impl pallet_governance::Config for Runtime {
    type Polls = Referenda;
    type Clock = Epochs;
    type Weights = Sprint;
    type WeightInfo = pallet_governance::weights::SubstrateWeight<Runtime>;
}
