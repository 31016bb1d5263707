//! Typed reads at one block.

use crate::{
    backend::Backend,
    entries::{self, Entry, Keys},
    error::ChainError,
    event::{ChainEvent, RawEvent},
    types::*,
};
use codec::{Decode, DecodeAll, Encode};
use starling_primitives::{
    fraud::{Fraud, FraudProof},
    profile::Profile,
    records::InferenceRecord,
    schedule::EpochState,
    sprint::{SprintCommitment, SprintVerdict},
    traits::{HostWeight, Round},
    verdict::PanelRound,
    AccountId, Balance, EpochIndex, InferenceId, Ppm, ProfileId, RequestId, H256,
};
use std::{sync::Arc, time::Duration};

/// Keys that one request to the node carries at most.
const FETCH_CHUNK: usize = 512;

/// The state of one block.
#[derive(Clone, Debug)]
pub struct ChainView {
    backend: Arc<dyn Backend>,
    at: H256,
}

impl ChainView {
    pub(crate) fn new(backend: Arc<dyn Backend>, at: H256) -> Self {
        Self { backend, at }
    }

    /// Hash of the block.
    pub fn block(&self) -> H256 {
        self.at
    }

    /// The value at `keys`.
    pub async fn get<K: Keys, V: Decode>(
        &self,
        entry: &Entry<K, V>,
        keys: K,
    ) -> Result<Option<V>, ChainError> {
        let found = self.backend.fetch(self.at, entry.place, &[keys.parts()]).await?;
        found.into_iter().next().flatten().map(|bytes| decode(entry, &bytes)).transpose()
    }

    /// The values at several keys, in order.
    pub async fn get_many<K: Keys, V: Decode>(
        &self,
        entry: &Entry<K, V>,
        keys: &[K],
    ) -> Result<Vec<Option<V>>, ChainError> {
        let mut values = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(FETCH_CHUNK) {
            let parts: Vec<_> = chunk.iter().map(Keys::parts).collect();
            for bytes in self.backend.fetch(self.at, entry.place, &parts).await? {
                values.push(bytes.map(|bytes| decode(entry, &bytes)).transpose()?);
            }
        }
        Ok(values)
    }

    /// All entries of a map below `prefix`; each with its remaining key parts.
    async fn entries<K, V: Decode>(
        &self,
        entry: &Entry<K, V>,
        prefix: &[Vec<u8>],
    ) -> Result<Vec<(Vec<Vec<u8>>, V)>, ChainError> {
        let pairs = self.backend.iterate(self.at, entry.place, prefix).await?;
        pairs.into_iter().map(|(key, bytes)| Ok((key, decode(entry, &bytes)?))).collect()
    }

    async fn call<T: Decode>(&self, function: &str, arguments: impl Encode) -> Result<T, ChainError> {
        let bytes = self.backend.call_api(self.at, function, arguments.encode()).await?;
        T::decode_all(&mut bytes.as_slice()).map_err(|error| ChainError::decode(function, error))
    }

    // ---- the clock and the beacon ----

    /// The epoch clock.
    pub async fn epoch(&self) -> Result<EpochState, ChainError> {
        required(&entries::EPOCH, self.get(&entries::EPOCH, ()).await?)
    }

    /// The clock of the epoch before, as it was when that ended.
    pub async fn previous_epoch(&self) -> Result<Option<EpochState>, ChainError> {
        self.get(&entries::PREVIOUS_EPOCH, ()).await
    }

    /// What a block takes when no slot is missed.
    pub async fn slot_duration(&self) -> Result<Duration, ChainError> {
        let slot = self.get(&entries::SLOT_DURATION, ()).await?;
        required(&entries::SLOT_DURATION, slot).map(Duration::from_millis)
    }

    /// A seed, once it is final and as long as it is kept.
    pub async fn seed(&self, round: Round) -> Result<Option<H256>, ChainError> {
        self.get(&entries::SEEDS, (round,)).await
    }

    /// Whether a host contributed to the beacon in this epoch.
    pub async fn has_contributed(&self, epoch: EpochIndex, host: &AccountId) -> Result<bool, ChainError> {
        Ok(self.get(&entries::CONTRIBUTIONS, (epoch, host.clone())).await?.is_some())
    }

    // ---- hosts and profiles ----

    /// All registered hosts.
    pub async fn hosts(&self) -> Result<Vec<(AccountId, HostInfo)>, ChainError> {
        let found = self.entries(&entries::HOSTS, &[]).await?;
        found.into_iter().map(|(key, info)| Ok((key_part(&key, 0)?, info))).collect()
    }

    /// One host.
    pub async fn host(&self, host: &AccountId) -> Result<Option<HostInfo>, ChainError> {
        self.get(&entries::HOSTS, (host.clone(),)).await
    }

    /// The host that granted a worker key.
    pub async fn host_of_worker(&self, worker: &AccountId) -> Result<Option<AccountId>, ChainError> {
        self.get(&entries::HOST_OF_WORKER, (worker.clone(),)).await
    }

    /// All registered profiles, retired ones too as long as the chain keeps them, by number.
    pub async fn profiles(&self) -> Result<Vec<(ProfileId, Profile)>, ChainError> {
        let found = self.entries(&entries::PROFILES, &[]).await?;
        let mut profiles: Vec<_> = found
            .into_iter()
            .map(|(key, profile)| Ok((key_part(&key, 0)?, profile)))
            .collect::<Result<_, ChainError>>()?;
        profiles.sort_by_key(|(id, _)| *id);
        Ok(profiles)
    }

    /// One profile.
    pub async fn profile(&self, id: ProfileId) -> Result<Option<Profile>, ChainError> {
        self.get(&entries::PROFILES, (id,)).await
    }

    /// Reputation of a host; 0 for one that nobody knows.
    pub async fn reputation(&self, host: &AccountId) -> Result<Ppm, ChainError> {
        Ok(self.get(&entries::REPUTATIONS, (host.clone(),)).await?.unwrap_or_default())
    }

    // ---- weights and sprint ----

    /// Weights of an epoch over all profiles, sorted by account.
    pub async fn weights(&self, epoch: EpochIndex) -> Result<Vec<HostWeight>, ChainError> {
        Ok(self.get(&entries::EPOCH_WEIGHTS, (epoch,)).await?.unwrap_or_default())
    }

    /// Weights of an epoch for one profile, sorted by account.
    pub async fn weights_of_profile(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
    ) -> Result<Vec<HostWeight>, ChainError> {
        Ok(self.get(&entries::PROFILE_WEIGHTS, (epoch, profile)).await?.unwrap_or_default())
    }

    /// All sprint commitments of an epoch.
    pub async fn commitments(&self, epoch: EpochIndex) -> Result<Vec<PlacedCommitment>, ChainError> {
        let found = self.entries(&entries::COMMITMENTS, &[epoch.encode()]).await?;
        found
            .into_iter()
            .map(|(key, commitment)| {
                let (profile, host) = key_part(&key, 0)?;
                Ok(PlacedCommitment { host, profile, epoch, commitment })
            })
            .collect()
    }

    /// One sprint commitment.
    pub async fn commitment(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
        host: &AccountId,
    ) -> Result<Option<SprintCommitment>, ChainError> {
        self.get(&entries::COMMITMENTS, (epoch, (profile, host.clone()))).await
    }

    /// One verifier's sprint verdict on one prover.
    pub async fn sprint_verdict(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
        prover: &AccountId,
        verifier: &AccountId,
    ) -> Result<Option<SprintVerdict>, ChainError> {
        let voters = self.get(&entries::SPRINT_VOTERS, (epoch, (profile, prover.clone()))).await?;
        let vote = voters.into_iter().flatten().find(|voter| voter.verifier == *verifier);
        Ok(vote.map(|voter| voter.verdict))
    }

    // ---- deposits and inferences ----

    /// What a client has deposited.
    pub async fn deposit(&self, client: &AccountId) -> Result<Deposit, ChainError> {
        Ok(self.get(&entries::DEPOSITS, (client.clone(),)).await?.unwrap_or_default())
    }

    /// What `key` may spend of the client's deposit.
    pub async fn delegation(
        &self,
        client: &AccountId,
        key: &AccountId,
    ) -> Result<Option<Delegation>, ChainError> {
        self.get(&entries::DELEGATIONS, (client.clone(), key.clone())).await
    }

    /// What several clients have deposited, in order.
    pub async fn deposits(&self, clients: &[AccountId]) -> Result<Vec<Deposit>, ChainError> {
        let keys: Vec<_> = clients.iter().map(|client| (client.clone(),)).collect();
        let found = self.get_many(&entries::DEPOSITS, &keys).await?;
        Ok(found.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// What several (client, key) pairs allow, in order.
    pub async fn delegations(
        &self,
        keys: &[(AccountId, AccountId)],
    ) -> Result<Vec<Option<Delegation>>, ChainError> {
        self.get_many(&entries::DELEGATIONS, keys).await
    }

    /// Native tokens that an account can spend.
    pub async fn balance(&self, account: &AccountId) -> Result<Balance, ChainError> {
        Ok(self
            .get(&entries::ACCOUNT, (account.clone(),))
            .await?
            .map(|info| info.data.free)
            .unwrap_or_default())
    }

    /// Number of records of an epoch.
    pub async fn inference_count(&self, epoch: EpochIndex) -> Result<u32, ChainError> {
        Ok(self.get(&entries::COUNTS, (epoch,)).await?.unwrap_or_default())
    }

    /// One record.
    pub async fn inference(&self, id: InferenceId) -> Result<Option<InferenceRecord>, ChainError> {
        self.get(&entries::INFERENCES, (id.epoch, id.index)).await
    }

    /// The records of an epoch with these indices, as far as they exist.
    pub async fn inferences(
        &self,
        epoch: EpochIndex,
        indices: &[u32],
    ) -> Result<Vec<PlacedRecord>, ChainError> {
        let keys: Vec<_> = indices.iter().map(|&index| (epoch, index)).collect();
        let records = self.get_many(&entries::INFERENCES, &keys).await?;
        let place = |(&index, record): (&u32, Option<InferenceRecord>)| {
            record.map(|record| PlacedRecord { id: InferenceId { epoch, index }, record })
        };
        Ok(indices.iter().zip(records).filter_map(place).collect())
    }

    /// Place of a request.
    pub async fn request_index(&self, request: &RequestId) -> Result<Option<InferenceId>, ChainError> {
        self.get(&entries::REQUEST_INDEX, (*request,)).await
    }

    /// Place and record of a request.
    pub async fn inference_of(&self, request: &RequestId) -> Result<Option<PlacedRecord>, ChainError> {
        let Some(id) = self.request_index(request).await? else { return Ok(None) };
        Ok(self.inference(id).await?.map(|record| PlacedRecord { id, record }))
    }

    /// Places and records of several requests, in order.
    pub async fn inferences_of(
        &self,
        requests: &[RequestId],
    ) -> Result<Vec<Option<PlacedRecord>>, ChainError> {
        let keys: Vec<_> = requests.iter().map(|request| (*request,)).collect();
        let places = self.get_many(&entries::REQUEST_INDEX, &keys).await?;
        let known: Vec<_> = places.iter().flatten().map(|id| (id.epoch, id.index)).collect();
        let mut records = self.get_many(&entries::INFERENCES, &known).await?.into_iter();
        let place = |id: Option<InferenceId>| {
            id.and_then(|id| records.next().flatten().map(|record| PlacedRecord { id, record }))
        };
        Ok(places.into_iter().map(place).collect())
    }

    /// One host's verdict on an inference.
    pub async fn verdict(
        &self,
        id: InferenceId,
        verifier: &AccountId,
    ) -> Result<Option<VerdictRecord>, ChainError> {
        self.get(&entries::VERDICTS, (id.epoch, (id.index, verifier.clone()))).await
    }

    /// The verdicts on an inference of these hosts, as far as they exist.
    pub async fn verdicts(
        &self,
        id: InferenceId,
        verifiers: &[AccountId],
    ) -> Result<Vec<PlacedVerdict>, ChainError> {
        let keys: Vec<_> =
            verifiers.iter().map(|verifier| (id.epoch, (id.index, verifier.clone()))).collect();
        let found = self.get_many(&entries::VERDICTS, &keys).await?;
        let place = |(verifier, verdict): (&AccountId, Option<VerdictRecord>)| {
            verdict.map(|verdict| PlacedVerdict { verifier: verifier.clone(), verdict })
        };
        Ok(verifiers.iter().zip(found).filter_map(place).collect())
    }

    /// The closed coverage windows of an epoch.
    pub async fn coverage_marks(&self, epoch: EpochIndex) -> Result<Vec<CoverageMark>, ChainError> {
        let found = self.entries(&entries::COVERAGE_MARKS, &[epoch.encode()]).await?;
        Ok(found.into_iter().map(|(_, mark)| mark).collect())
    }

    /// The disputes of an epoch, open and settled, by index.
    pub async fn disputes(&self, epoch: EpochIndex) -> Result<Vec<(u32, Dispute)>, ChainError> {
        let found = self.entries(&entries::DISPUTES, &[epoch.encode()]).await?;
        found.into_iter().map(|(key, dispute)| Ok((key_part(&key, 0)?, dispute))).collect()
    }

    /// The dispute of an inference, open or settled.
    pub async fn dispute(&self, id: InferenceId) -> Result<Option<Dispute>, ChainError> {
        self.get(&entries::DISPUTES, (id.epoch, id.index)).await
    }

    /// One panel of a dispute.
    pub async fn panel(&self, id: InferenceId, round: PanelRound) -> Result<Option<Panel>, ChainError> {
        self.get(&entries::PANELS, (id.epoch, (id.index, round))).await
    }

    /// What a panel has come to so far.
    pub async fn panel_tally(&self, id: InferenceId, round: PanelRound) -> Result<PanelTally, ChainError> {
        Ok(self.get(&entries::PANEL_TALLIES, (id.epoch, (id.index, round))).await?.unwrap_or_default())
    }

    /// What a member of a panel has said; `None` before it has committed itself.
    pub async fn seat(
        &self,
        id: InferenceId,
        round: PanelRound,
        host: &AccountId,
    ) -> Result<Option<Seat>, ChainError> {
        self.get(&entries::SEATS, (id.epoch, (id.index, round, host.clone()))).await
    }

    /// The newest boundary of a coverage window, by which the time of panels is counted.
    pub async fn last_boundary(&self) -> Result<Boundary, ChainError> {
        Ok(self.get(&entries::LAST_BOUNDARY, ()).await?.unwrap_or_default())
    }

    /// A host's plant of an epoch, once it has committed itself.
    pub async fn plant(&self, epoch: EpochIndex, host: &AccountId) -> Result<Option<Plant>, ChainError> {
        self.get(&entries::PLANTS, (epoch, host.clone())).await
    }

    /// Whether a host approved a revealed plant, and it is open what comes of that. It may contest while the dispute's status
    /// is [`DisputeStatus::Planted`].
    pub async fn has_approved(&self, id: InferenceId, host: &AccountId) -> Result<bool, ChainError> {
        let approvers = self.get(&entries::APPROVERS, (id.epoch, id.index)).await?.unwrap_or_default();
        Ok(approvers.binary_search(host).is_ok())
    }

    /// The plant by which a host was found negligent in an epoch.
    pub async fn negligence(
        &self,
        epoch: EpochIndex,
        host: &AccountId,
    ) -> Result<Option<InferenceId>, ChainError> {
        self.get(&entries::NEGLIGENCES, (epoch, host.clone())).await
    }

    /// Whether a host was convicted of fraud in an epoch.
    pub async fn is_convicted(&self, epoch: EpochIndex, host: &AccountId) -> Result<bool, ChainError> {
        Ok(self.get(&entries::CONVICTIONS, (epoch, host.clone())).await?.is_some())
    }

    /// What a proof shows by the runtime's own judgement; `None` when it shows nothing, or nothing that is still open.
    pub async fn fraud(&self, proof: &FraudProof) -> Result<Option<Fraud>, ChainError> {
        self.call("StarlingApi_fraud", proof).await
    }

    // ---- rewards ----

    /// Hosts that were convicted in an epoch.
    pub async fn convictions(&self, epoch: EpochIndex) -> Result<Vec<(AccountId, Conviction)>, ChainError> {
        let found = self.entries(&entries::CONVICTIONS, &[epoch.encode()]).await?;
        found.into_iter().map(|(key, conviction)| Ok((key_part(&key, 0)?, conviction))).collect()
    }

    /// The rewards of an epoch.
    pub async fn pot(&self, epoch: EpochIndex) -> Result<Option<PotInfo>, ChainError> {
        self.get(&entries::POTS, (epoch,)).await
    }

    /// Whether a host claimed an epoch.
    pub async fn has_claimed(&self, epoch: EpochIndex, host: &AccountId) -> Result<bool, ChainError> {
        Ok(self.get(&entries::CLAIMED, (epoch, host.clone())).await?.is_some())
    }

    /// What a host can claim: (emission, fees).
    pub async fn claimable(
        &self,
        epoch: EpochIndex,
        host: &AccountId,
    ) -> Result<(Balance, Balance), ChainError> {
        self.call("StarlingApi_claimable", (epoch, host)).await
    }

    /// Indices of the inferences whose undone duties stand between a host and its claim.
    pub async fn undone_duties(
        &self,
        epoch: EpochIndex,
        host: &AccountId,
        secret: &H256,
    ) -> Result<Vec<u32>, ChainError> {
        self.call("StarlingApi_undone_duties", (epoch, host, secret)).await
    }

    // ---- the block itself ----

    /// Its events, as written.
    pub async fn raw_events(&self) -> Result<Vec<RawEvent>, ChainError> {
        self.backend.events(self.at).await
    }

    /// Its events, each with the index of the transaction that caused it.
    pub async fn events(&self) -> Result<Vec<(Option<u32>, ChainEvent)>, ChainError> {
        let raw = self.raw_events().await?;
        raw.iter().map(|event| Ok((event.extrinsic, ChainEvent::read(event)?))).collect()
    }

    /// Hashes of its transactions, in order.
    pub async fn transaction_hashes(&self) -> Result<Vec<H256>, ChainError> {
        self.backend.transaction_hashes(self.at).await
    }
}

fn decode<K, V: Decode>(entry: &Entry<K, V>, bytes: &[u8]) -> Result<V, ChainError> {
    let mut input = bytes;
    V::decode_all(&mut input)
        .map_err(|error| ChainError::decode(format!("{}.{}", entry.place.pallet, entry.place.item), error))
}

fn required<K, V>(entry: &Entry<K, V>, value: Option<V>) -> Result<V, ChainError> {
    value.ok_or_else(|| {
        ChainError::decode(format!("{}.{}", entry.place.pallet, entry.place.item), "it is absent")
    })
}

fn key_part<T: Decode>(key: &[Vec<u8>], index: usize) -> Result<T, ChainError> {
    let bytes = key.get(index).ok_or_else(|| ChainError::decode("a key of a map", "a part is missing"))?;
    T::decode_all(&mut bytes.as_slice()).map_err(|error| ChainError::decode("a key of a map", error))
}
