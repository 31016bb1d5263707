//! What duty calls use of a block.

use codec::{Decode, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// A part of a block. A call that is cheap to run can still be long, so both are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, MaxEncodedLen, TypeInfo)]
pub struct Usage {
    /// Computation time in picoseconds.
    pub ref_time: u64,
    /// Length of transactions.
    pub bytes: u64,
}

impl Usage {
    /// Whether neither part has reached its limit.
    pub(crate) fn is_below(self, limit: Self) -> bool {
        self.ref_time < limit.ref_time && self.bytes < limit.bytes
    }

    /// Each part changed.
    pub(crate) fn map(self, change: impl Fn(u64) -> u64) -> Self {
        Self { ref_time: change(self.ref_time), bytes: change(self.bytes) }
    }

    pub(crate) fn saturating_add(self, other: Self) -> Self {
        Self {
            ref_time: self.ref_time.saturating_add(other.ref_time),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub(crate) fn saturating_sub(self, other: Self) -> Self {
        Self {
            ref_time: self.ref_time.saturating_sub(other.ref_time),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}
