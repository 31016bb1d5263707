//! Identifiers and scalar types.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
pub use sp_core::H256;
pub use sp_runtime::{AccountId32 as AccountId, MultiSignature, MultiSigner};

/// Amount of the native token, in its smallest unit (1 token = 10^12 units).
pub type Balance = u128;
/// One whole token in units of [`Balance`].
pub const TOKEN: Balance = 1_000_000_000_000;
/// Height of a block.
pub type BlockNumber = u32;
/// Number of an epoch; genesis begins epoch 0.
pub type EpochIndex = u32;
/// Number of a registered profile, given by the chain at registration, dense from 0.
pub type ProfileId = u32;
/// Accepted work units of a host in one epoch. The sum over all hosts fits `u64` (see `MAX_WORK`).
pub type Work = u64;
/// Upper bound of one host's [`Work`]: 2^48, so that 2^16 hosts sum without overflow.
pub const MAX_WORK: Work = 1 << 48;
/// Hash of a request header; identifies a request everywhere.
pub type RequestId = H256;
/// Parts per million.
pub type Ppm = u32;
/// 1,000,000 parts per million.
pub const PPM: Ppm = 1_000_000;

/// Place of an inference record on chain: dense per epoch.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InferenceId {
    /// Epoch whose seed drew the executor.
    pub epoch: EpochIndex,
    /// Position among the epoch's records, dense from 0.
    pub index: u32,
}
