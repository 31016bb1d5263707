//! Migrations between runtime versions.

use crate::{DutyCalls, Governance, Inference, Runtime, Verification};
use frame_support::{migrations::VersionedMigration, traits::UncheckedOnRuntimeUpgrade, weights::Weight};

/// Applied, in this order, by the next upgrade. Each is versioned by its pallet, so that it runs once.
pub type Migrations = (Counted<DutyCalls>, Counted<Governance>, Counted<Inference>, Counted<Verification>);

/// Chains that began before these pallets counted the versions of their storage have it in the first version's shape.
type Counted<Pallet> = VersionedMigration<0, 1, AsItIs, Pallet, <Runtime as frame_system::Config>::DbWeight>;

/// Nothing moves but the number.
#[derive(Debug)]
pub struct AsItIs;

impl UncheckedOnRuntimeUpgrade for AsItIs {
    fn on_runtime_upgrade() -> Weight {
        Weight::zero()
    }
}
