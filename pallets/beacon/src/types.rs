//! What the beacon stores.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use starling_primitives::{BlockNumber, Work, H256};

/// What one host contributed to a seed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Contribution {
    /// Its worker key's VRF output.
    pub output: H256,
    /// Its weight in the epoch; 0 when nobody has weight.
    pub weight: Work,
}

/// Sum of an epoch's contributions.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Tally {
    /// How many there are.
    pub count: u32,
    /// Their weight together.
    pub weight: Work,
}

/// Randomness of all blocks so far.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct RollingMix {
    /// The mix.
    pub value: H256,
    /// Block whose randomness was mixed in last.
    pub block: BlockNumber,
}
