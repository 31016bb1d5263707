//! What each pallet is given.

mod accounts;
mod consensus;
mod equivocation_weights;
mod governance;
mod money;
mod starling;
mod system;

pub use consensus::{BABE_GENESIS_EPOCH_CONFIG, MAX_AUTHORITIES};
pub use money::EXISTENTIAL_DEPOSIT;
pub use starling::{BOND, FIRST_PANEL, FRAUD_DEPOSIT, SECOND_PANEL};
pub use system::{MAXIMUM_BLOCK_WEIGHT, NORMAL_DISPATCH_RATIO};
