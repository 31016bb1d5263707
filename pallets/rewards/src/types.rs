//! What the pots hold.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use starling_primitives::Balance;

/// The pot of one epoch. What is in it is `emission + fees - claimed`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct PotInfo {
    /// Minted into it when its epoch ended.
    pub emission: Balance,
    /// Paid into it for finished inferences and not given back.
    pub fees: Balance,
    /// Paid out to hosts.
    pub claimed: Balance,
}

impl PotInfo {
    /// What is in the pot; `None` if more was paid out than in, which never happens.
    pub fn held(&self) -> Option<Balance> {
        self.emission.checked_add(self.fees)?.checked_sub(self.claimed)
    }
}

/// What a host is due of an epoch, or was paid.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Due {
    /// Its share of the emission.
    pub emission: Balance,
    /// Its own fees.
    pub fees: Balance,
}

impl Due {
    /// Both together. The sum fits, because both are part of the issuance; it saturates if it should not.
    pub fn total(&self) -> Balance {
        self.emission.saturating_add(self.fees)
    }
}
