//! Requests on a chain in memory: asked for by a client, answered by the host that the chain draws.

use crate::chain::{epoch, genesis_hash, Host};
use frame_support::{dispatch::DispatchResult, traits::UnfilteredDispatchable};
use pallet_inference::Call as Inference;
use sp_core::{sr25519, Pair};
use starling_math::draw;
use starling_primitives::{
    fraud::{Evidence, FraudProof, OpenedWindow},
    plant::Consent,
    receipt::{Receipt, SignedReceipt},
    records::{response_hash, Finished, FinishedIn, InferenceRecord, Started},
    request::{Authorization, RequestHeader, SamplingParams, SignedAuthorization},
    sampler::sample,
    tape::tape_seed,
    traits::{Beacon as _, Inferences as _, Round, Weights as _},
    transcript::{Candidate, TokenRecord, Transcript, TranscriptBuilder},
    AccountId, Balance, EpochIndex, InferenceId, MultiSignature, RequestId, H256, TOKEN,
};
use starling_runtime::{Beacon, Runtime, RuntimeCall, RuntimeOrigin, Sprint};

/// Tokens of every prompt and of every completion.
pub(crate) const TOKENS: u32 = 40;

/// A client with a key.
pub(crate) struct Client(pub(crate) sr25519::Pair);

impl Client {
    /// Name as in `//Eve`.
    pub(crate) fn named(name: &str) -> Self {
        Self(sr25519::Pair::from_string(&format!("//{name}"), None).expect("a development path"))
    }

    pub(crate) fn account(&self) -> AccountId {
        self.0.public().into()
    }

    /// Calls with its own key.
    pub(crate) fn call(&self, call: impl Into<RuntimeCall>) -> DispatchResult {
        let origin = RuntimeOrigin::signed(self.account());
        call.into().dispatch_bypass_filter(origin).map(|_| ()).map_err(|failed| failed.error)
    }

    /// That the answer to this request is bad on purpose.
    pub(crate) fn consent(&self, request: &RequestId) -> Consent {
        let signature = self.0.sign(Consent::signing_hash(&genesis_hash(), request).as_bytes());
        Consent { signer: self.account(), signature: MultiSignature::Sr25519(signature) }
    }

    pub(crate) fn deposit(&self, amount: Balance) -> DispatchResult {
        self.call(Inference::<Runtime>::deposit { amount })
    }
}

/// A request with its answer, whether or not the chain has taken either.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) started: Started,
    pub(crate) finished: Finished,
    pub(crate) transcript: Transcript,
    epoch: EpochIndex,
    seed: H256,
}

impl Answer {
    /// The executor's answer to request `n`, which the chain draws for a gateway; `liar` takes another token than the
    /// tape's. `None` while no host has weight.
    pub(crate) fn new(client: &Client, gateway: &AccountId, n: u32, liar: bool) -> Option<Self> {
        let sampling = SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };
        let mut nonce = [0; 32];
        nonce[..4].copy_from_slice(&n.to_le_bytes());
        let header = RequestHeader {
            profile: 0,
            prompt_hash: H256::zero(),
            sampling,
            max_tokens: TOKENS,
            constraint: None,
            nonce,
        };
        let request_id = header.id();
        let epoch = epoch();
        let seed = Beacon::seed(Round::Epoch(epoch.index))?;
        let hosts = Sprint::of_profile(epoch.index, 0);
        let executor = draw::executor(&seed, &request_id, 0, &hosts, gateway)?;
        let authorization = Authorization {
            client: client.account(),
            request_id,
            profile: 0,
            max_price: TOKEN,
            gateway: gateway.clone(),
            expires_at: starling_runtime::System::block_number() + 20,
        };
        let signature = client.0.sign(authorization.signing_hash(&genesis_hash()).as_bytes());
        let signature = MultiSignature::Sr25519(signature);
        let authorization = SignedAuthorization { authorization, signer: client.account(), signature };
        let transcript = generate(header, &tape_seed(&seed, &request_id), liar);
        let finished = Finished {
            request_id,
            response_hash: response_hash(&transcript.tokens().expect("own encoding")),
            transcript_root: transcript.root(),
            prompt_tokens: TOKENS,
            completion_tokens: TOKENS,
        };
        let started = Started { authorization, epoch: epoch.index, attempt: 0, executor };
        Some(Self { started, finished, transcript, epoch: epoch.index, seed })
    }

    pub(crate) fn executor(&self) -> Host {
        Host::all()
            .into_iter()
            .find(|host| host.account == self.started.executor)
            .expect("a host of the preset")
    }

    /// The gateway records that it runs.
    pub(crate) fn start(&self, gateway: &Host) -> DispatchResult {
        let items = vec![self.started.clone()].try_into().expect("one fits");
        gateway.call(Inference::<Runtime>::start { items })
    }

    /// The executor records the answer.
    pub(crate) fn finish(&self) -> DispatchResult {
        let record = FinishedIn { epoch: self.epoch, finished: self.finished.clone() };
        let items = vec![record].try_into().expect("one fits");
        self.executor().call(Inference::<Runtime>::finish { items })
    }

    pub(crate) fn id(&self) -> Option<InferenceId> {
        pallet_inference::RequestIndex::<Runtime>::get::<RequestId>(self.finished.request_id)
    }

    pub(crate) fn record(&self) -> Option<InferenceRecord> {
        starling_runtime::Inference::record(self.id()?)
    }

    /// Shows the first window beside the executor's receipt.
    pub(crate) fn proof(&self) -> Option<FraudProof> {
        let executor = self.executor();
        let receipt = Receipt {
            epoch: self.epoch,
            epoch_seed: self.seed,
            executor: executor.account.clone(),
            finished: self.finished.clone(),
        };
        let signature = executor.worker.sign(receipt.signing_hash(&genesis_hash()).as_bytes());
        let receipt = SignedReceipt { receipt, worker: executor.worker.public(), signature };
        let opened = OpenedWindow::new(self.transcript.window_proof(0)?)?;
        let evidence = Evidence::Window { header: self.transcript.header.clone(), opened };
        Some(FraudProof { inference: self.id()?, receipt, evidence })
    }
}

/// Distributions that depend on the position only; the tape chooses.
fn generate(header: RequestHeader, tape_seed: &H256, liar: bool) -> Transcript {
    let sampling = header.sampling;
    let mut builder = TranscriptBuilder::new(header);
    for position in 0..TOKENS {
        let candidate = |rank: u32| Candidate { token: 100 * rank + position, q: 60 + 30 * rank as u16 };
        let candidates: Vec<_> = (0..5).map(candidate).collect();
        let mut chosen = sample(tape_seed, position, &candidates, &sampling).expect("sorted") as u8;
        if liar && position == 7 {
            chosen = (chosen + 1) % 5;
        }
        builder.push(TokenRecord { candidates, chosen });
    }
    builder.finish().0
}
