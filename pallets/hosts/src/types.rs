//! What the registry stores.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use scale_info::TypeInfo;
use starling_primitives::{AccountId, Balance, BlockNumber, EpochIndex, ProfileId};

/// Profiles that one host serves at most.
pub const MAX_PROFILES: u32 = 16;

/// Profiles of a host, ascending.
pub type HostProfiles = BoundedVec<ProfileId, ConstU32<MAX_PROFILES>>;

/// Where a host is reached.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Endpoints {
    /// libp2p peer id, as bytes.
    pub peer_id: BoundedVec<u8, ConstU32<64>>,
    /// Addresses of that peer, each a multiaddr as text.
    pub multiaddrs: BoundedVec<BoundedVec<u8, ConstU32<128>>, ConstU32<8>>,
    /// Base URL of the public gateway; empty when the host has none.
    pub gateway_url: BoundedVec<u8, ConstU32<256>>,
}

/// Standing of a host.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum HostStatus {
    /// Registered, no weight yet.
    Joining,
    /// Has weight in the current epoch.
    Active,
    /// Asks for no new work; no penalty.
    Draining,
    /// Convicted once. May resume when it has no weight left.
    Suspended,
    /// Convicted again. May only take back what is left of its bond.
    Removed,
}

impl HostStatus {
    /// Whether the host's worker may do duties.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Suspended | Self::Removed)
    }
}

/// When a host is down, as it said beforehand.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Maintenance {
    /// Epoch in which it said so.
    pub epoch: EpochIndex,
    /// The first block without it.
    pub from: BlockNumber,
    /// The first block with it again.
    pub until: BlockNumber,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct HostInfo {
    /// Key that does the duties; never holds funds.
    pub worker: AccountId,
    /// Block since which it is this key.
    pub worker_since: BlockNumber,
    /// Where the host is reached; `None` until it announces.
    pub endpoints: Option<Endpoints>,
    /// Profiles it declared to serve.
    pub profiles: HostProfiles,
    /// Its standing.
    pub status: HostStatus,
    /// What is held of its funds.
    pub bond: Balance,
    /// Block of its registration.
    pub registered_at: BlockNumber,
    /// Convictions of fraud so far.
    pub convictions: u8,
}
