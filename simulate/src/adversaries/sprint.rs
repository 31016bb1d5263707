//! Hosts that commit to more work than they did.

use super::{Behaviour, Leaf};
use starling_primitives::hashing::hash_of;

/// Fills a share of the nonces with what it did not compute, on top of what it did.
#[derive(Debug)]
pub struct Fabricator {
    /// Share of the commitment that is not computed, in percent.
    pub percent: u32,
    /// What it has for those: made-up transcripts, or nothing.
    pub leaf: Leaf,
}

impl Behaviour for Fabricator {
    fn name(&self) -> String {
        let what = if self.leaf == Leaf::Missing { "missing" } else { "fabricated" };
        format!("{} % of the sprint {what}", self.percent)
    }

    fn races(&self, capacity: u32) -> u32 {
        capacity.saturating_mul(100) / 100u32.saturating_sub(self.percent).max(1)
    }

    /// Spread over all nonces, since it cannot know the samples.
    fn leaf(&self, nonce: u32) -> Leaf {
        let place = hash_of(b"starling/simulate/leaf", &nonce).to_low_u64_le() % 100;
        if place < u64::from(self.percent) {
            self.leaf
        } else {
            Leaf::Good
        }
    }
}
