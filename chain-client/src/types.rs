//! What the chain stores and `starling-primitives` does not name.

use codec::{Decode, Encode};
use scale_info::TypeInfo;
use starling_math::{
    dispute::Votes,
    panel::{self, Stage},
};
use starling_primitives::{
    schedule::EpochState,
    sprint::SprintVerdict,
    verdict::{Outcome, PanelRound},
    AccountId, Balance, BlockNumber, EpochIndex, InferenceId, ProfileId, Work, H256,
};

/// A block of the chain, with the clock as it stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockTick {
    /// Its height.
    pub number: BlockNumber,
    /// Its hash.
    pub hash: H256,
    /// The epoch it belongs to.
    pub epoch: EpochState,
}

impl BlockTick {
    /// The phase of this block.
    pub fn phase(&self) -> starling_math::clock::Phase {
        starling_math::clock::phase(&self.epoch, self.number)
    }
}

/// Where a host can be reached.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo, serde::Serialize, serde::Deserialize,
)]
pub struct Endpoints {
    /// libp2p peer id, as its bytes.
    pub peer_id: Vec<u8>,
    /// libp2p multiaddrs, as text.
    pub multiaddrs: Vec<Vec<u8>>,
    /// Base URL of the public gateway, as text; empty when the host offers none.
    pub gateway_url: Vec<u8>,
}

impl Endpoints {
    /// Base URL of the gateway, without a slash at the end. `None` when there is none, or it is not http: anything else in a
    /// stranger's announcement is not for us to open.
    pub fn gateway(&self) -> Option<&str> {
        let url = std::str::from_utf8(&self.gateway_url).ok()?.trim_end_matches('/');
        (url.starts_with("http://") || url.starts_with("https://")).then_some(url)
    }
}

/// Where a host stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum HostStatus {
    /// Registered, no weight yet.
    Joining,
    /// Has weight.
    Active,
    /// Asks for no new work.
    Draining,
    /// Convicted once.
    Suspended,
    /// Left, or convicted again.
    Removed,
}

/// A registered host.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct HostInfo {
    /// Hot key for duty calls.
    pub worker: AccountId,
    /// Block since which it is in place.
    pub worker_since: BlockNumber,
    /// Where the host can be reached; announced by its worker.
    pub endpoints: Option<Endpoints>,
    /// Profiles it serves.
    pub profiles: Vec<ProfileId>,
    /// Where it stands.
    pub status: HostStatus,
    /// What it put down.
    pub bond: Balance,
    /// Block of its registration.
    pub registered_at: BlockNumber,
    /// How often it was convicted.
    pub convictions: u8,
}

/// What a client has deposited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo, serde::Serialize)]
pub struct Deposit {
    /// May be spent or withdrawn.
    pub free: Balance,
    /// Held for requests that run.
    pub reserved: Balance,
}

/// What a key may spend of a client's deposit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo, serde::Serialize)]
pub struct Delegation {
    /// Most it may spend in all.
    pub limit: Balance,
    /// Prices paid so far, less what was refunded.
    pub spent: Balance,
    /// Promised to requests that run.
    pub reserved: Balance,
}

impl Delegation {
    /// What the key can still promise.
    pub fn available(&self) -> Balance {
        self.limit.saturating_sub(self.spent).saturating_sub(self.reserved)
    }
}

/// A host's fall in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Conviction {
    /// Block of the first one.
    pub since: BlockNumber,
    /// Number of its answers of the epoch that fell.
    pub answers: u32,
}

/// One verifier's verdict as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, serde::Serialize)]
pub struct VerdictRecord {
    /// What came of it.
    pub outcome: Outcome,
    /// Whether it lies within the profile's limits.
    pub passed: bool,
    /// Block of its arrival.
    pub at: BlockNumber,
}

/// A closed coverage window: the inferences in it that had no verdict by then are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct CoverageMark {
    /// Index of its first inference.
    pub first: u32,
    /// Index after its last inference.
    pub end: u32,
    /// Block in which it closed. A verdict of this block comes too late to count as coverage.
    pub closed_at: BlockNumber,
    /// Epoch of the seed that assigns.
    pub seed_epoch: EpochIndex,
    /// Window of that seed.
    pub seed_window: u32,
}

/// Where a dispute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DisputeStatus {
    /// A panel is drawn at the next coverage boundary.
    Waiting,
    /// The panel that was drawn last is at work.
    Judging,
    /// The answer stands.
    Valid,
    /// The answer does not stand.
    Invalid,
    /// The answer was a plant, which those who approved it may contest until the dispute is due.
    Planted,
}

impl DisputeStatus {
    /// Whether nothing is decided yet.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Judging | Self::Planted)
    }
}

/// A disputed inference.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, serde::Serialize)]
pub struct Dispute {
    /// Block of the verdict that opened it, or of the reveal of a plant or the contest of it.
    pub opened_at: BlockNumber,
    /// The verifier that failed the answer first, or contests that it was a plant; `None` when nobody did.
    pub accuser: Option<AccountId>,
    /// Round of the next panel: the number of those drawn so far, from
    /// [`FIRST_ROUND`](starling_math::plant::FIRST_ROUND) on when it is about a plant.
    pub panels: PanelRound,
    /// Boundary at which something is to be done about it.
    pub due: u32,
    /// Where it stands.
    pub status: DisputeStatus,
}

/// A host's plant of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Plant {
    /// What it committed itself to.
    pub commitment: H256,
    /// Block of the commitment: earlier than that of the request's record.
    pub committed_at: BlockNumber,
    /// Index of the inference, once it is revealed.
    pub revealed: Option<u32>,
}

/// The newest boundary of a coverage window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Boundary {
    /// Boundaries so far.
    pub count: u32,
    /// Epoch of its seed.
    pub epoch: EpochIndex,
    /// Window of its seed.
    pub window: u32,
}

/// A host on a panel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Member {
    /// The host.
    pub host: AccountId,
    /// Its weight for the profile.
    pub weight: Work,
}

/// A host's verdict in a sprint.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct SprintVoter {
    /// The verifier.
    pub verifier: AccountId,
    /// Its voting weight.
    pub weight: Work,
    /// What the draw for this commitment gave it: the highest scores have the places.
    pub score: i64,
    /// Its verdict.
    pub verdict: SprintVerdict,
}

/// A jury of one dispute.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Panel {
    /// Boundaries that had passed when it was drawn.
    pub drawn: u32,
    /// Block of the draw.
    pub drawn_at: BlockNumber,
    /// Who sits on it, sorted by account.
    pub members: Vec<Member>,
}

impl Panel {
    /// Whether a host sits on it.
    pub fn has(&self, host: &AccountId) -> bool {
        self.members.binary_search_by(|member| member.host.cmp(host)).is_ok()
    }

    /// What its members may do.
    pub fn stage(&self, boundary: Boundary, tally: &PanelTally) -> Stage {
        let all_committed = tally.committed as usize >= self.members.len();
        panel::stage(self.drawn, boundary.count, all_committed)
    }
}

/// What a panel has come to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct PanelTally {
    /// Members that have committed themselves.
    pub committed: u32,
    /// The verdicts that were revealed.
    pub votes: Votes,
}

/// What a member of a panel has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Seat {
    /// What it committed itself to.
    pub commitment: H256,
    /// The verdict, once it is revealed.
    pub verdict: Option<VerdictRecord>,
}

/// The rewards of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo, serde::Serialize)]
pub struct PotInfo {
    /// Minted into it.
    pub emission: Balance,
    /// Fees paid into it.
    pub fees: Balance,
    /// Claimed from it.
    pub claimed: Balance,
}

/// A stored inference with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRecord {
    /// Its place.
    pub id: InferenceId,
    /// The record.
    pub record: starling_primitives::records::InferenceRecord,
}

/// A verdict with its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedVerdict {
    /// Who said it.
    pub verifier: AccountId,
    /// The verdict.
    pub verdict: VerdictRecord,
}

/// A sprint commitment with its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedCommitment {
    /// Who raced.
    pub host: AccountId,
    /// With which profile.
    pub profile: ProfileId,
    /// At the end of which epoch.
    pub epoch: EpochIndex,
    /// What it committed to.
    pub commitment: starling_primitives::sprint::SprintCommitment,
}

/// Nonce and native tokens of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct AccountInfo {
    /// Transactions sent so far.
    pub nonce: u32,
    /// Modules that depend on the account.
    pub consumers: u32,
    /// Modules that keep it alive.
    pub providers: u32,
    /// Modules that keep it alive without a balance.
    pub sufficients: u32,
    /// Its tokens.
    pub data: AccountData,
}

/// Native tokens of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct AccountData {
    /// Can be transferred, but for `frozen`.
    pub free: Balance,
    /// Held.
    pub reserved: Balance,
    /// Part that cannot be transferred.
    pub frozen: Balance,
    /// Flags of the balances pallet.
    pub flags: u128,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_are_gateways() {
        let gateway = |url: &[u8]| Endpoints { gateway_url: url.to_vec(), ..Endpoints::default() };
        assert_eq!(gateway(b"https://host:8000/").gateway(), Some("https://host:8000"));
        assert_eq!(gateway(b"http://host").gateway(), Some("http://host"));
        for other in [&b""[..], b"file:///etc/passwd", b"host:8000", b"http://\xff"] {
            assert_eq!(gateway(other).gateway(), None, "{other:?}");
        }
    }
}
