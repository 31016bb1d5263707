//! What can be in the outbox, and how it becomes calls.

use crate::{call::Call, types::Endpoints};
use codec::{Decode, Encode};
use starling_primitives::{
    fraud::FraudProof,
    plant::Consent,
    records::{Delivered, FinishedIn, Started},
    sprint::{SprintCommitment, SprintVerdict},
    verdict::{Outcome, PanelCommit, PanelReveal, Verdict},
    vrf::VrfProof,
    AccountId, EpochIndex, InferenceId, ProfileId, RequestId, H256,
};
use std::collections::BTreeMap;

/// One thing that the chain must learn.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Item {
    /// A request runs.
    Start(Started),
    /// An answer is complete.
    Finish(FinishedIn),
    /// An answer was delivered.
    Deliver(Delivered),
    /// A verdict on another host's inference.
    Verdict(Verdict),
    /// A request that nobody finished.
    Expire(RequestId),
    /// A contribution to the beacon.
    Contribute {
        /// The epoch in its reveal window.
        epoch: EpochIndex,
        /// Proof over `VrfInput::Beacon`.
        proof: VrfProof,
    },
    /// A sprint commitment.
    Commit {
        /// The epoch at whose end the race was.
        epoch: EpochIndex,
        /// Profile it was run with.
        profile: ProfileId,
        /// What was done.
        commitment: SprintCommitment,
    },
    /// A verdict on another host's sprint.
    SprintVerdict {
        /// The epoch at whose end the race was.
        epoch: EpochIndex,
        /// Profile it was run with.
        profile: ProfileId,
        /// Who raced.
        prover: AccountId,
        /// What came of its samples.
        verdict: SprintVerdict,
    },
    /// A claim of the host's due.
    Claim {
        /// Of which epoch.
        epoch: EpochIndex,
        /// Proof over `VrfInput::Duty`.
        proof: VrfProof,
    },
    /// Where the host is. A newer one replaces an older one.
    Announce(Endpoints),
    /// A commitment to a verdict, as a member of a panel.
    CommitVerdict(PanelCommit),
    /// Such a verdict. It waits until the panel's members reveal.
    RevealVerdict(PanelReveal),
    /// A proof that an executor lied. It is sent while the chain says that it holds, and at no other time: one that proves
    /// nothing costs the host a part of its bond.
    ProveFraud(Box<FraudProof>),
    /// A commitment to a plant, or to nothing.
    CommitPlant {
        /// Of this epoch.
        epoch: EpochIndex,
        /// [`starling_primitives::plant::commitment`], or random bytes.
        commitment: H256,
    },
    /// The reveal of a plant.
    RevealPlant {
        /// The answer.
        inference: InferenceId,
        /// What opens the commitment.
        salt: H256,
        /// That whoever asked agreed.
        consent: Consent,
    },
    /// The contest of a plant that this host approved.
    ContestPlant(InferenceId),
}

/// Kinds of items, in the order in which a block's calls are numbered: a request's start comes before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`Item::Contribute`]: its window is the shortest.
    Contribute = 0,
    /// [`Item::Commit`].
    Commit = 1,
    /// [`Item::SprintVerdict`].
    SprintVerdict = 2,
    /// [`Item::Start`].
    Start = 3,
    /// [`Item::Finish`].
    Finish = 4,
    /// [`Item::Deliver`].
    Deliver = 5,
    /// [`Item::Expire`].
    Expire = 6,
    /// [`Item::Verdict`].
    Verdict = 7,
    /// [`Item::Claim`].
    Claim = 8,
    /// [`Item::Announce`].
    Announce = 9,
    /// [`Item::CommitVerdict`].
    CommitVerdict = 10,
    /// [`Item::RevealVerdict`].
    RevealVerdict = 11,
    /// [`Item::ProveFraud`].
    ProveFraud = 12,
    /// [`Item::CommitPlant`].
    CommitPlant = 13,
    /// [`Item::RevealPlant`].
    RevealPlant = 14,
    /// [`Item::ContestPlant`].
    ContestPlant = 15,
}

impl Kind {
    /// All kinds, in their order.
    pub const ALL: [Self; 16] = [
        Self::Contribute,
        Self::Commit,
        Self::SprintVerdict,
        Self::Start,
        Self::Finish,
        Self::Deliver,
        Self::Expire,
        Self::Verdict,
        Self::Claim,
        Self::Announce,
        Self::CommitVerdict,
        Self::RevealVerdict,
        Self::ProveFraud,
        Self::CommitPlant,
        Self::RevealPlant,
        Self::ContestPlant,
    ];

    /// Items that one call takes at most; the pallets bound their batches so.
    pub fn batch_limit(self) -> usize {
        match self {
            Self::Start | Self::Expire | Self::Verdict | Self::CommitVerdict | Self::RevealVerdict => 256,
            Self::Finish | Self::Deliver => 512,
            Self::SprintVerdict => 64,
            Self::Contribute | Self::Commit | Self::Claim | Self::Announce | Self::ProveFraud => 1,
            Self::CommitPlant | Self::RevealPlant | Self::ContestPlant => 1,
        }
    }

    /// Whether an item does not wait for the next block: its window is short, or it spares others work (a proof their
    /// panel).
    pub fn is_urgent(self) -> bool {
        matches!(
            self,
            Self::Contribute
                | Self::Commit
                | Self::SprintVerdict
                | Self::Claim
                | Self::CommitVerdict
                | Self::RevealVerdict
                | Self::ProveFraud
                | Self::CommitPlant
                | Self::RevealPlant
                | Self::ContestPlant
        )
    }

    /// Name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Contribute => "contribute",
            Self::Commit => "commit",
            Self::SprintVerdict => "sprint_verdict",
            Self::Start => "start",
            Self::Finish => "finish",
            Self::Deliver => "deliver",
            Self::Expire => "expire",
            Self::Verdict => "verdict",
            Self::Claim => "claim",
            Self::Announce => "announce",
            Self::CommitVerdict => "commit_verdict",
            Self::RevealVerdict => "reveal_verdict",
            Self::ProveFraud => "prove_fraud",
            Self::CommitPlant => "commit_plant",
            Self::RevealPlant => "reveal_plant",
            Self::ContestPlant => "contest_plant",
        }
    }
}

impl Item {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Start(_) => Kind::Start,
            Self::Finish(_) => Kind::Finish,
            Self::Deliver(_) => Kind::Deliver,
            Self::Verdict(_) => Kind::Verdict,
            Self::Expire(_) => Kind::Expire,
            Self::Contribute { .. } => Kind::Contribute,
            Self::Commit { .. } => Kind::Commit,
            Self::SprintVerdict { .. } => Kind::SprintVerdict,
            Self::Claim { .. } => Kind::Claim,
            Self::Announce(_) => Kind::Announce,
            Self::CommitVerdict(_) => Kind::CommitVerdict,
            Self::RevealVerdict(_) => Kind::RevealVerdict,
            Self::ProveFraud(_) => Kind::ProveFraud,
            Self::CommitPlant { .. } => Kind::CommitPlant,
            Self::RevealPlant { .. } => Kind::RevealPlant,
            Self::ContestPlant(_) => Kind::ContestPlant,
        }
    }

    /// What makes two items of a kind the same: the second one is not queued again.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Start(started) => {
                (started.authorization.authorization.request_id, started.attempt).encode()
            }
            Self::Finish(record) => record.finished.request_id.encode(),
            Self::Deliver(delivered) => delivered.request_id.encode(),
            // What could not be fetched at first may be measured later, and is then another verdict.
            Self::Verdict(verdict) => (verdict.inference, verdict.outcome == Outcome::Unavailable).encode(),
            Self::Expire(request) => request.encode(),
            Self::Contribute { epoch, .. } | Self::Claim { epoch, .. } | Self::CommitPlant { epoch, .. } => {
                epoch.encode()
            }
            Self::Commit { epoch, profile, .. } => (epoch, profile).encode(),
            Self::SprintVerdict { epoch, profile, prover, .. } => (epoch, profile, prover).encode(),
            Self::Announce(_) => Vec::new(),
            Self::CommitVerdict(commit) => (commit.inference, commit.round).encode(),
            Self::RevealVerdict(reveal) => (reveal.inference, reveal.round).encode(),
            Self::ProveFraud(proof) => proof.inference.encode(),
            Self::RevealPlant { inference, .. } | Self::ContestPlant(inference) => inference.encode(),
        }
    }

    /// The request it is about.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Start(started) => Some(started.authorization.authorization.request_id),
            Self::Finish(record) => Some(record.finished.request_id),
            Self::Deliver(delivered) => Some(delivered.request_id),
            Self::Expire(request) => Some(*request),
            _ => None,
        }
    }
}

impl Item {
    /// The verdict on an inference that it is.
    pub(super) fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Verdict(verdict) => Some(verdict),
            _ => None,
        }
    }
}

/// Packs items of one kind into calls; each with the positions of the items it carries.
pub(super) fn pack(items: &[&Item]) -> Vec<(Call, Vec<usize>)> {
    let mut packed = Vec::new();
    let mut sprint: BTreeMap<(EpochIndex, ProfileId), Batch<(AccountId, SprintVerdict)>> = BTreeMap::new();
    let (mut starts, mut finishes, mut deliveries) = (Batch::default(), Batch::default(), Batch::default());
    let (mut verdicts, mut expired) = (Batch::default(), Batch::default());
    let (mut commitments, mut reveals) = (Batch::default(), Batch::default());
    for (position, item) in items.iter().enumerate() {
        match item {
            Item::Start(record) => starts.push(record.clone(), position),
            Item::Finish(record) => finishes.push(record.clone(), position),
            Item::Deliver(record) => deliveries.push(record.clone(), position),
            Item::Verdict(verdict) => verdicts.push(*verdict, position),
            Item::Expire(request) => expired.push(*request, position),
            Item::SprintVerdict { epoch, profile, prover, verdict } => {
                sprint.entry((*epoch, *profile)).or_default().push((prover.clone(), *verdict), position);
            }
            Item::Contribute { epoch, proof } => {
                packed.push((Call::Contribute { epoch: *epoch, proof: *proof }, vec![position]));
            }
            Item::Commit { profile, commitment, .. } => {
                packed.push((
                    Call::CommitSprint { profile: *profile, commitment: *commitment },
                    vec![position],
                ));
            }
            Item::Claim { epoch, proof } => {
                packed.push((Call::Claim { epoch: *epoch, proof: *proof }, vec![position]))
            }
            Item::Announce(endpoints) => {
                packed.push((Call::Announce { endpoints: endpoints.clone() }, vec![position]));
            }
            Item::CommitVerdict(commit) => commitments.push(*commit, position),
            Item::RevealVerdict(reveal) => reveals.push(*reveal, position),
            Item::ProveFraud(proof) => {
                packed.push((Call::ProveFraud { proof: proof.clone() }, vec![position]));
            }
            Item::CommitPlant { commitment, .. } => {
                packed.push((Call::CommitPlant { commitment: *commitment }, vec![position]));
            }
            Item::RevealPlant { inference, salt, consent } => {
                let (inference, salt, consent) = (*inference, *salt, consent.clone());
                packed.push((Call::RevealPlant { inference, salt, consent }, vec![position]));
            }
            Item::ContestPlant(inference) => {
                packed.push((Call::ContestPlant { inference: *inference }, vec![position]));
            }
        }
    }
    packed.extend(starts.call(|records| Call::Start { records }));
    packed.extend(finishes.call(|records| Call::Finish { records }));
    packed.extend(deliveries.call(|records| Call::Deliver { records }));
    packed.extend(expired.call(|requests| Call::Expire { requests }));
    packed.extend(verdicts.call(|verdicts| Call::SubmitVerdicts { verdicts }));
    packed.extend(commitments.call(|commitments| Call::CommitVerdicts { commitments }));
    packed.extend(reveals.call(|reveals| Call::RevealVerdicts { reveals }));
    for ((_, profile), batch) in sprint {
        packed.extend(batch.call(|verdicts| Call::SubmitSprintVerdicts { profile, verdicts }));
    }
    packed
}

struct Batch<T> {
    records: Vec<T>,
    positions: Vec<usize>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { records: Vec::new(), positions: Vec::new() }
    }
}

impl<T> Batch<T> {
    fn push(&mut self, record: T, position: usize) {
        self.records.push(record);
        self.positions.push(position);
    }

    fn call(self, build: impl FnOnce(Vec<T>) -> Call) -> Option<(Call, Vec<usize>)> {
        (!self.records.is_empty()).then(|| (build(self.records), self.positions))
    }
}
