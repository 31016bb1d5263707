//! Who is told of the clock's boundaries, and in which order.

use crate::{Beacon, Inference, Rewards, Sprint, Verification};
use starling_primitives::{traits::EpochHooks, BlockNumber, EpochIndex};

/// The pallets behind the clock.
///
/// At every boundary the beacon comes first, because the others draw by its seeds. When an epoch ends, the sprint turns
/// verdicts into the new epoch's weights; then the rewards mint for who had weight in the ended epoch; then verification
/// and inference begin to let go of what is over.
#[derive(Debug)]
pub struct Boundaries;

impl EpochHooks for Boundaries {
    fn on_reveal(epoch: EpochIndex) {
        Beacon::on_reveal(epoch);
        Sprint::on_reveal(epoch);
        Rewards::on_reveal(epoch);
        Verification::on_reveal(epoch);
        Inference::on_reveal(epoch);
    }

    fn seed_is_final(epoch: EpochIndex, extensions_left: u8) -> bool {
        Beacon::seed_is_final(epoch, extensions_left)
    }

    fn on_check(epoch: EpochIndex) {
        Beacon::on_check(epoch);
        Sprint::on_check(epoch);
        Rewards::on_check(epoch);
        Verification::on_check(epoch);
        Inference::on_check(epoch);
    }

    fn on_coverage_boundary(epoch: EpochIndex, offset: BlockNumber) {
        Beacon::on_coverage_boundary(epoch, offset);
        Sprint::on_coverage_boundary(epoch, offset);
        Rewards::on_coverage_boundary(epoch, offset);
        Verification::on_coverage_boundary(epoch, offset);
        Inference::on_coverage_boundary(epoch, offset);
    }

    fn on_claims_open(epoch: EpochIndex) {
        Beacon::on_claims_open(epoch);
        Sprint::on_claims_open(epoch);
        Rewards::on_claims_open(epoch);
        Verification::on_claims_open(epoch);
        Inference::on_claims_open(epoch);
    }

    fn on_epoch_change(ended: EpochIndex) {
        Beacon::on_epoch_change(ended);
        Sprint::on_epoch_change(ended);
        Rewards::on_epoch_change(ended);
        Verification::on_epoch_change(ended);
        Inference::on_epoch_change(ended);
    }
}
