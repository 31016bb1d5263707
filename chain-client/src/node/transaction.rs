//! Encodes and signs transactions.

use super::NodeHash;
use crate::{
    call::Call,
    error::{ChainError, SubmitError},
    keys::Keypair,
    types::BlockTick,
};
use starling_primitives::H256;
use subxt::{
    client::{ClientAtBlock, OfflineClientAtBlockT},
    config::DefaultExtrinsicParamsBuilder,
    ext::{
        scale_encode::{EncodeAsFields, Error as EncodeError, FieldIter},
        scale_type_resolver::TypeResolver,
    },
    metadata::Metadata,
    tx::Payload,
    utils::{AccountId32, MultiSignature},
    SubstrateConfig,
};

/// Blocks after which a transaction that was not included is void; a power of two.
pub(super) const MORTAL_BLOCKS: u64 = 64;

/// Arguments that are encoded already.
struct Encoded(Vec<u8>);

impl EncodeAsFields for Encoded {
    fn encode_as_fields_to<R: TypeResolver>(
        &self,
        _fields: &mut dyn FieldIter<'_, R::TypeId>,
        _types: &R,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.0);
        Ok(())
    }
}

struct Prepared {
    pallet: &'static str,
    name: &'static str,
    arguments: Encoded,
}

impl Payload for Prepared {
    type CallData = Encoded;

    fn pallet_name(&self) -> &str {
        self.pallet
    }

    fn call_name(&self) -> &str {
        self.name
    }

    fn call_data(&self) -> &Encoded {
        &self.arguments
    }
}

/// The block that a transaction's life is counted from: the finalized one, which no reorganisation takes away, unless
/// finality lags so far behind that the transaction would be born dead.
pub(super) fn checkpoint(best: BlockTick, finalized: BlockTick) -> (u64, H256) {
    let lag = best.number.saturating_sub(finalized.number);
    let tick = if u64::from(lag) < MORTAL_BLOCKS / 4 { finalized } else { best };
    (tick.number.into(), tick.hash)
}

pub(super) fn sign<C: OfflineClientAtBlockT<SubstrateConfig>>(
    at: &ClientAtBlock<SubstrateConfig, C>,
    call: &Call,
    signer: &Keypair,
    nonce: u64,
    (number, hash): (u64, H256),
) -> Result<(H256, Vec<u8>), ChainError> {
    let prepared = prepare(at.metadata_ref(), call)?;
    let failed = |error: subxt::error::ExtrinsicError| {
        ChainError::Incompatible(format!("{}.{}: {error}", prepared.pallet, prepared.name))
    };
    let parameters = DefaultExtrinsicParamsBuilder::<SubstrateConfig>::new()
        .mortal_from_unchecked(MORTAL_BLOCKS, number, NodeHash::from(hash.0))
        .nonce(nonce)
        .build();
    let transactions = at.tx();
    let mut signable = transactions.create_signable_offline(&prepared, parameters).map_err(failed)?;
    let signature = signer.sign(&signable.signer_payload().map_err(failed)?);
    let account = AccountId32(signer.public().0);
    let signed = signable
        .sign_with_account_and_signature(&account, &MultiSignature::Sr25519(signature.0))
        .map_err(failed)?;
    Ok((H256(signed.hash().0), signed.into_encoded()))
}

fn prepare(metadata: &Metadata, call: &Call) -> Result<Prepared, ChainError> {
    let (pallet, name) = call.path();
    let mut arguments = Vec::new();
    call.encode_arguments(&mut arguments, &|call: &Call| index_of(metadata, call))?;
    Ok(Prepared { pallet, name, arguments: Encoded(arguments) })
}

fn index_of(metadata: &Metadata, call: &Call) -> Result<[u8; 2], ChainError> {
    let (pallet, name) = call.path();
    let missing = || ChainError::Incompatible(format!("call {pallet}.{name} does not exist"));
    let pallet = metadata.pallet_by_name(pallet).ok_or_else(missing)?;
    let variant = pallet.call_variant_by_name(name).ok_or_else(missing)?;
    Ok([pallet.call_index(), variant.index])
}

/// What the pool says, by the codes of `sc-rpc`'s author module.
pub(super) fn refusal(error: &subxt::rpcs::UserError) -> SubmitError {
    let data = error.data.as_ref().map(|data| data.get()).unwrap_or_default();
    let text = format!("{} ({}) {data}", error.message, error.code);
    match error.code {
        // 1012 is a ban: the pool has thrown this very transaction out; the next one has another era.
        1013 => SubmitError::AlreadyKnown,
        1014 => SubmitError::Nonce(text),
        1010 if data.contains("outdated") || data.contains("Stale") => SubmitError::Nonce(text),
        _ => SubmitError::Invalid(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Endpoints;
    use starling_primitives::{
        records::{Delivered, Finished, FinishedIn, Started},
        request::{Authorization, SignedAuthorization},
        schedule::Schedule,
        sprint::{SprintCommitment, SprintVerdict},
        verdict::{Figures, Outcome, Verdict},
        vrf::VrfInput,
        AccountId, InferenceId, MultiSignature,
    };
    use std::sync::Arc;
    use subxt::{
        client::{OfflineClient, OfflineClientAtBlock},
        config::substrate::SpecVersionForRange,
    };

    fn offline() -> OfflineClientAtBlock<SubstrateConfig> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/metadata/starling.scale");
        let metadata = Metadata::decode_from(&std::fs::read(path).unwrap()).unwrap();
        let range = SpecVersionForRange { block_range: 0..u64::MAX, spec_version: 1, transaction_version: 1 };
        let config = SubstrateConfig::builder()
            .set_metadata_for_spec_versions([(1, Arc::new(metadata))])
            .set_spec_version_for_block_ranges([range])
            .set_genesis_hash(NodeHash::from([7; 32]))
            .build();
        OfflineClient::new_with_config(config).at_block(9u64).unwrap()
    }

    fn calls(worker: &Keypair) -> Vec<Call> {
        let account = AccountId::new([3; 32]);
        let hash = H256::repeat_byte(1);
        let authorization = Authorization {
            client: account.clone(),
            request_id: hash,
            profile: 1,
            max_price: 5,
            gateway: account.clone(),
            expires_at: 9,
        };
        let signature = MultiSignature::Sr25519(worker.sign(b"x"));
        let authorization = SignedAuthorization { authorization, signer: account.clone(), signature };
        let (proof, _) = worker.vrf(&VrfInput::Beacon(hash, 1));
        let endpoints = Endpoints {
            peer_id: vec![1, 2],
            multiaddrs: vec![b"/ip4/1.2.3.4/tcp/4001".to_vec()],
            gateway_url: b"http://a".to_vec(),
        };
        let finished = Finished {
            request_id: hash,
            response_hash: hash,
            transcript_root: hash,
            prompt_tokens: 1,
            completion_tokens: 2,
        };
        let started = Started { authorization, epoch: 2, attempt: 1, executor: account.clone() };
        let figures = Figures { tokens: 2, distance_sum: 3, margin_sum: 4 };
        let verdict =
            Verdict { inference: InferenceId { epoch: 1, index: 2 }, outcome: Outcome::Measured(figures) };
        let judged = SprintVerdict { checked: 3, failed: 1, fabricated: false };
        vec![
            Call::Register { worker: account.clone(), profiles: vec![0, 1] },
            Call::Drain {},
            Call::Announce { endpoints },
            Call::ProposeSchedule { schedule: Schedule::TEST },
            Call::Contribute { epoch: 1, proof },
            Call::CommitSprint { profile: 0, commitment: SprintCommitment { root: hash, count: 7 } },
            Call::SubmitSprintVerdicts { profile: 0, verdicts: vec![(account.clone(), judged)] },
            Call::deposit(1_000_000_000_000),
            Call::delegate(account.clone(), 70),
            Call::Start { records: vec![started.clone(), started] },
            Call::Finish { records: vec![FinishedIn { epoch: 2, finished }] },
            Call::Deliver { records: vec![Delivered { request_id: hash, response_hash: hash }] },
            Call::Expire { requests: vec![hash] },
            Call::SubmitVerdicts { verdicts: vec![verdict] },
            Call::Claim { epoch: 1, proof },
            Call::transfer(account.clone(), 5),
            Call::Sudo(Box::new(Call::RetireProfile { id: 3 })),
        ]
    }

    #[test]
    fn the_runtime_reads_every_call_to_its_last_byte() {
        let client = offline();
        let worker = Keypair::from_suri("//Alice//worker").unwrap();
        for call in calls(&worker) {
            let prepared = prepare(client.metadata_ref(), &call).unwrap();
            let bytes = client.tx().call_data(&prepared).unwrap();
            let read =
                client.tx().from_call_data_bytes(&bytes).unwrap_or_else(|error| panic!("{call:?}: {error}"));
            assert_eq!((read.pallet_name(), read.call_name()), call.path());
            assert_eq!(client.tx().call_data(&read).unwrap(), bytes);
        }
    }

    #[test]
    fn a_transaction_carries_signer_nonce_and_call() {
        let client = offline();
        let worker = Keypair::from_suri("//Alice//worker").unwrap();
        let call = Call::Expire { requests: vec![H256::repeat_byte(1)] };
        let (hash, bytes) = sign(&client, &call, &worker, 42, (8, H256::zero())).unwrap();
        assert_eq!(hash, H256(sp_crypto_hashing::blake2_256(&bytes)));
        let (other, _) = sign(&client, &call, &worker, 43, (8, H256::zero())).unwrap();
        assert_ne!(hash, other);
        let prepared = prepare(client.metadata_ref(), &call).unwrap();
        let call = client.tx().call_data(&prepared).unwrap();
        assert!(bytes.ends_with(&call));
        assert!(bytes.windows(32).any(|part| part == worker.public().0));
    }

    #[test]
    fn life_is_counted_from_the_finalized_block_while_finality_keeps_up() {
        let epoch = starling_primitives::schedule::EpochState {
            index: 0,
            start: 0,
            extension: 0,
            sprint_cancelled: false,
            schedule: Schedule::TEST,
        };
        let at = |number: u32| BlockTick { number, hash: H256::from_low_u64_be(number.into()), epoch };
        assert_eq!(checkpoint(at(20), at(18)).0, 18);
        assert_eq!(checkpoint(at(40), at(18)).0, 40);
    }
}
