//! How many records a second the whole runtime takes, natively and in WASM: full blocks of `start` and `finish` batches,
//! signed by workers, holding clients' real signatures, on state in memory. Prints one JSON line per backend.
//!
//! `cargo run -p starling-runtime --example records -- [--blocks N] [--backend native|wasm|both] [--wasm FILE]`
//!
//! Both backends go through the runtime API with the same bytes. The first block, in which WASM is compiled and caches
//! are cold, is not counted. Making the transactions is not timed; building the block, its state root included, is.

use codec::{Decode, Encode};
use frame_support::BoundedVec;
use sc_executor::WasmExecutor;
use serde_json::{json, Value};
use sp_consensus_babe::{
    digests::{PreDigest, SecondaryPlainPreDigest},
    BABE_ENGINE_ID,
};
use sp_core::{
    sr25519,
    traits::{CallContext, CodeExecutor, RuntimeCode, WrappedRuntimeCode},
    Pair,
};
use sp_io::{SubstrateHostFunctions, TestExternalities};
use sp_runtime::{
    generic::Era,
    traits::Header as _,
    transaction_validity::{InvalidTransaction, TransactionValidityError},
    ApplyExtrinsicResult, BuildStorage, Digest, DigestItem,
};
use starling_math::draw::DrawTable;
use starling_primitives::{
    records::{Finished, FinishedIn, Started},
    request::{Authorization, SignedAuthorization},
    traits::{Beacon as _, Clock as _, HostWeight, Round},
    AccountId, ProfileId, RequestId, H256, TOKEN,
};
use starling_runtime::{
    apis, genesis, Babe, Beacon, BlockNumber, Epochs, Header, Inference, Runtime, RuntimeCall, RuntimeEvent,
    RuntimeGenesisConfig, RuntimeOrigin, SignedPayload, System, TxExtension, UncheckedExtrinsic, VERSION,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    error::Error,
    hint::black_box,
    time::{Duration, Instant},
};

/// Items of a `start` batch: the most that a call takes.
const PER_START: usize = 256;
/// The slot of block 1.
const FIRST_SLOT: u64 = 1_000;
const PROFILE: ProfileId = 0;
/// Parent of block 1.
const GENESIS_HASH: H256 = H256::repeat_byte(0x67);
const HOSTS: [&str; 4] = ["Alice", "Bob", "Charlie", "Dave"];
const CLIENTS: [&str; 2] = ["Eve", "Ferdie"];

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What runs the blocks.
enum Backend {
    Native,
    Wasm { executor: Box<WasmExecutor<SubstrateHostFunctions>>, code: Vec<u8>, hash: Vec<u8> },
}

impl Backend {
    fn wasm(code: Vec<u8>) -> Self {
        let hash = sp_io::hashing::blake2_256(&code).to_vec();
        Self::Wasm { executor: Box::new(WasmExecutor::builder().build()), code, hash }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Wasm { .. } => "wasm",
        }
    }

    fn call(&self, ext: &mut TestExternalities, method: &str, data: &[u8]) -> Outcome<Vec<u8>> {
        match self {
            Self::Native => Ok(ext
                .execute_with(|| apis::api::dispatch(method, data))
                .ok_or_else(|| format!("the runtime has no {method}"))?),
            Self::Wasm { executor, code, hash } => {
                let fetcher = WrappedRuntimeCode(Cow::Borrowed(code));
                let code = RuntimeCode { code_fetcher: &fetcher, heap_pages: None, hash: hash.clone() };
                let context = CallContext::Onchain { import: false };
                Ok(executor.call(&mut ext.ext(), &code, method, data, context).0?)
            }
        }
    }
}

struct Host {
    account: AccountId,
    worker: sr25519::Pair,
    nonce: u32,
}

fn pair(path: &str) -> Outcome<sr25519::Pair> {
    Ok(sr25519::Pair::from_string(path, None)?)
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

/// Time of the processor that this thread has had: what is left of a measurement on a machine that others use too.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// Time spent in one block, by part, and what it took.
#[derive(Default)]
struct BlockResult {
    processor: Duration,
    initialize: Duration,
    apply: Duration,
    finalize: Duration,
    started: usize,
    finished: usize,
    weight_filled: f64,
    length_filled: f64,
}

struct Chain {
    backend: Backend,
    ext: TestExternalities,
    hosts: Vec<Host>,
    clients: Vec<sr25519::Pair>,
    draw: Vec<HostWeight>,
    seed: H256,
    number: BlockNumber,
    parent: H256,
    requests: u64,
    /// Of this block, up to now.
    processor: Duration,
}

impl Chain {
    /// The `test` preset, with hosts that have weight and clients that have deposits.
    fn new(backend: Backend) -> Outcome<Self> {
        let hosts = HOSTS.iter().map(|name| {
            let account = AccountId::from(pair(&format!("//{name}"))?.public());
            Ok(Host { account, worker: pair(&format!("//{name}//worker"))?, nonce: 0 })
        });
        let hosts = hosts.collect::<Outcome<Vec<_>>>()?;
        let clients = CLIENTS.iter().map(|name| pair(&format!("//{name}"))).collect::<Outcome<Vec<_>>>()?;
        let mut config = serde_json::to_value(RuntimeGenesisConfig::default())?;
        merge(&mut config, genesis::preset_value(genesis::TEST).ok_or("there is no preset `test`")?);
        let registered = hosts
            .iter()
            .map(|host| (host.account.clone(), AccountId::from(host.worker.public()), vec![PROFILE]));
        config["hosts"]["hosts"] = serde_json::to_value(registered.collect::<Vec<_>>())?;
        let config: RuntimeGenesisConfig = serde_json::from_value(config)?;
        let mut ext = TestExternalities::new(config.build_storage()?);
        let mut draw: Vec<HostWeight> = (hosts.iter())
            .map(|host| HostWeight { host: host.account.clone(), weight: 1_000, reputation: 0 })
            .collect();
        draw.sort_by(|a, b| a.host.cmp(&b.host));
        let seed = ext.execute_with(|| -> Outcome<H256> {
            System::set_block_number(0);
            let weights = BoundedVec::truncate_from(draw.clone());
            let epoch = Epochs::epoch().index;
            pallet_sprint::EpochWeights::<Runtime>::insert(epoch, weights.clone());
            pallet_sprint::ProfileWeights::<Runtime>::insert(epoch, PROFILE, weights);
            for client in &clients {
                let origin = RuntimeOrigin::signed(AccountId::from(client.public()));
                Inference::deposit(origin, 500_000 * TOKEN).map_err(|error| format!("{error:?}"))?;
            }
            System::reset_events();
            Ok(Beacon::seed(Round::Epoch(epoch)).ok_or("the first epoch has no seed")?)
        })?;
        ext.commit_all()?;
        let (number, parent, requests, processor) = (0, GENESIS_HASH, 0, Duration::ZERO);
        Ok(Self { backend, ext, hosts, clients, draw, seed, number, parent, requests, processor })
    }

    fn call<T: Decode>(&mut self, time: &mut Duration, method: &str, data: &[u8]) -> Outcome<T> {
        let (begin, processor) = (Instant::now(), processor_time());
        let answer = self.backend.call(&mut self.ext, method, data)?;
        *time += begin.elapsed();
        self.processor += processor_time().saturating_sub(processor);
        Ok(T::decode(&mut answer.as_slice())?)
    }

    /// Builds one block and fills it until it takes no more.
    fn block(&mut self) -> Outcome<BlockResult> {
        let mut result = BlockResult::default();
        self.processor = Duration::ZERO;
        self.number += 1;
        let slot = FIRST_SLOT + u64::from(self.number);
        let pre =
            PreDigest::SecondaryPlain(SecondaryPlainPreDigest { authority_index: 0, slot: slot.into() });
        let digest = Digest { logs: vec![DigestItem::PreRuntime(BABE_ENGINE_ID, pre.encode())] };
        let header =
            Header::new(self.number, Default::default(), Default::default(), self.parent, digest).encode();
        self.call::<u8>(&mut result.initialize, "Core_initialize_block", &header)?;
        let now = slot * self.ext.execute_with(Babe::slot_duration);
        let inherent = UncheckedExtrinsic::new_bare(pallet_timestamp::Call::<Runtime>::set { now }.into());
        let mut apply = Duration::ZERO;
        self.apply(&mut apply, &inherent)?;
        for gateway in (0..self.hosts.len()).cycle() {
            if !self.round(gateway, &mut apply, &mut result)? {
                break;
            }
        }
        result.apply = apply;
        (result.weight_filled, result.length_filled) = self.filled();
        let header: Header = self.call(&mut result.finalize, "BlockBuilder_finalize_block", &[])?;
        self.parent = header.hash();
        result.processor = self.processor;
        self.check()?;
        self.ext.commit_all()?;
        Ok(result)
    }

    /// Two batches of one gateway, and the executors' answers to them. False when the block is full.
    fn round(&mut self, gateway: usize, time: &mut Duration, result: &mut BlockResult) -> Outcome<bool> {
        let mut finished: BTreeMap<AccountId, Vec<FinishedIn>> = BTreeMap::new();
        for _ in 0..2 {
            let items: Vec<Started> =
                (0..PER_START).map(|_| self.started(gateway)).collect::<Outcome<_>>()?;
            for item in &items {
                let finished_in = |finished| FinishedIn { epoch: item.epoch, finished };
                let answer = finished_in(answer(item.authorization.authorization.request_id));
                finished.entry(item.executor.clone()).or_default().push(answer);
            }
            let call = pallet_inference::Call::start { items: BoundedVec::truncate_from(items) };
            if !self.send(gateway, call, time)? {
                return Ok(false);
            }
            result.started += PER_START;
        }
        for (executor, items) in finished {
            let host = self.hosts.iter().position(|host| host.account == executor).ok_or("a strange host")?;
            let count = items.len();
            let call = pallet_inference::Call::finish { items: BoundedVec::truncate_from(items) };
            if !self.send(host, call, time)? {
                return Ok(false);
            }
            result.finished += count;
        }
        Ok(true)
    }

    fn started(&mut self, gateway: usize) -> Outcome<Started> {
        self.requests += 1;
        let request_id = H256(sp_io::hashing::blake2_256(&self.requests.to_le_bytes()));
        let gateway = self.hosts[gateway].account.clone();
        let drawn = DrawTable::new(&self.draw).executor(&self.seed, &request_id, 0, &gateway).cloned();
        let client = &self.clients[self.requests as usize % self.clients.len()];
        let signer = AccountId::from(client.public());
        let authorization = Authorization {
            client: signer.clone(),
            request_id,
            profile: PROFILE,
            max_price: TOKEN / 20,
            gateway,
            expires_at: self.number + 10,
        };
        let signature = client.sign(authorization.signing_hash(&GENESIS_HASH).as_bytes()).into();
        Ok(Started {
            authorization: SignedAuthorization { authorization, signer, signature },
            epoch: 0,
            attempt: 0,
            executor: drawn.ok_or("nobody was drawn")?,
        })
    }

    /// Sends a call of a host's worker; false when the block has no room for it.
    fn send(
        &mut self,
        host: usize,
        call: pallet_inference::Call<Runtime>,
        time: &mut Duration,
    ) -> Outcome<bool> {
        let extrinsic = signed(&self.hosts[host].worker, self.hosts[host].nonce, call.into());
        let taken = self.apply(time, &extrinsic)?;
        self.hosts[host].nonce += u32::from(taken);
        Ok(taken)
    }

    fn apply(&mut self, time: &mut Duration, extrinsic: &UncheckedExtrinsic) -> Outcome<bool> {
        let bytes = extrinsic.encode();
        // What the block builder does: a transaction that is not taken leaves no trace.
        self.ext.execute_with(sp_io::storage::start_transaction);
        match self.call::<ApplyExtrinsicResult>(time, "BlockBuilder_apply_extrinsic", &bytes)? {
            Ok(Ok(())) => {
                self.ext.execute_with(sp_io::storage::commit_transaction);
                Ok(true)
            }
            Err(TransactionValidityError::Invalid(InvalidTransaction::ExhaustsResources)) => {
                self.ext.execute_with(sp_io::storage::rollback_transaction);
                Ok(false)
            }
            other => Err(format!("a transaction is not taken: {other:?}").into()),
        }
    }

    /// Shares of the block's weight and length that its transactions take.
    fn filled(&mut self) -> (f64, f64) {
        self.ext.execute_with(|| {
            let class = frame_support::dispatch::DispatchClass::Normal;
            let weight = System::block_weight().get(class).ref_time() as f64;
            let limit = <Runtime as frame_system::Config>::BlockWeights::get()
                .get(class)
                .max_total
                .unwrap_or_default()
                .ref_time();
            let length = System::block_size() as f64;
            (
                weight / limit as f64,
                length / f64::from(*<Runtime as frame_system::Config>::BlockLength::get().max.get(class)),
            )
        })
    }

    /// Every record of the block was taken.
    fn check(&mut self) -> Outcome<()> {
        self.ext.execute_with(|| {
            for record in System::read_events_no_consensus() {
                if let RuntimeEvent::Inference(pallet_inference::Event::RecordRefused { reason, .. }) =
                    record.event
                {
                    return Err(format!("a record is refused: {reason:?}").into());
                }
            }
            Ok(())
        })
    }
}

fn answer(request_id: RequestId) -> Finished {
    let (response_hash, transcript_root) = (H256::repeat_byte(1), H256::repeat_byte(2));
    Finished { request_id, response_hash, transcript_root, prompt_tokens: 20, completion_tokens: 40 }
}

fn signed(signer: &sr25519::Pair, nonce: u32, call: RuntimeCall) -> UncheckedExtrinsic {
    let extension: TxExtension = (
        frame_system::AuthorizeCall::new(),
        frame_system::CheckNonZeroSender::new(),
        frame_system::CheckSpecVersion::new(),
        frame_system::CheckTxVersion::new(),
        frame_system::CheckGenesis::new(),
        frame_system::CheckEra::from(Era::Immortal),
        pallet_duty_calls::CheckDutyNonce::from(nonce),
        frame_system::CheckWeight::new(),
        pallet_skip_feeless_payment::SkipCheckIfFeeless::from(
            pallet_transaction_payment::ChargeTransactionPayment::from(0),
        ),
        frame_metadata_hash_extension::CheckMetadataHash::new(false),
        frame_system::WeightReclaim::new(),
    );
    let (spec, transaction) = (VERSION.spec_version, VERSION.transaction_version);
    let implicit = ((), (), spec, transaction, GENESIS_HASH, GENESIS_HASH, (), (), (), None, ());
    let payload = SignedPayload::from_raw(call, extension, implicit);
    let signature = payload.using_encoded(|bytes| signer.sign(bytes));
    let (call, extension, _) = payload.deconstruct();
    let account = AccountId::from(signer.public());
    UncheckedExtrinsic::new_signed(call, account.into(), signature.into(), extension)
}

/// What the check of one client's signature costs here, in microseconds of the processor.
fn signature_micros(chain: &mut Chain) -> Outcome<f64> {
    let item = chain.started(0)?;
    let rounds = 2_000u32;
    let begin = processor_time();
    for _ in 0..rounds {
        if !black_box(&item).authorization.verify(&GENESIS_HASH) {
            return Err("a good signature is refused".into());
        }
    }
    Ok(processor_time().saturating_sub(begin).as_secs_f64() * 1e6 / f64::from(rounds))
}

fn measure(backend: Backend, blocks: u32) -> Outcome<()> {
    let name = backend.name();
    let mut chain = Chain::new(backend)?;
    let signature = signature_micros(&mut chain)?;
    let warm_up = chain.block()?;
    let results = (0..blocks).map(|_| chain.block()).collect::<Outcome<Vec<_>>>()?;
    let seconds =
        |part: fn(&BlockResult) -> Duration| results.iter().map(part).sum::<Duration>().as_secs_f64();
    let [initialize, apply, finalize] =
        [seconds(|b| b.initialize), seconds(|b| b.apply), seconds(|b| b.finalize)];
    let total = initialize + apply + finalize;
    let started: usize = results.iter().map(|block| block.started).sum();
    let finished: usize = results.iter().map(|block| block.finished).sum();
    let per_block = finished as f64 / f64::from(blocks);
    let processor = seconds(|b| b.processor);
    let micros = processor * 1e6 / finished as f64;
    let fullest = |share: fn(&BlockResult) -> f64| results.iter().map(share).fold(0.0, f64::max);
    let (weight, length) = (fullest(|b| b.weight_filled), fullest(|b| b.length_filled));
    let build = if cfg!(debug_assertions) { "dev profile, WASM as built" } else { "release" };
    let line = json!({
        "bench": "records",
        "backend": name,
        "build": build,
        "blocks": blocks,
        "started": started,
        "finished": finished,
        "pairs_per_second": (finished as f64 / total).round(),
        "records_per_second": ((started + finished) as f64 / total).round(),
        "pairs_per_processor_second": (finished as f64 / processor).round(),
        "processor_us_per_pair": (micros * 10.0).round() / 10.0,
        "processor_us_per_client_signature": (signature * 10.0).round() / 10.0,
        "signature_share": (signature / micros * 100.0).round() / 100.0,
        "seconds": { "initialize": initialize, "apply": apply, "finalize": finalize, "processor": processor },
        "first_block_seconds": (warm_up.initialize + warm_up.apply + warm_up.finalize).as_secs_f64(),
        "pairs_per_full_block": per_block.round(),
        "a_block_is_full_by": if weight >= length { "weight" } else { "length" },
        "weight_filled": (weight * 1_000.0).round() / 1_000.0,
        "length_filled": (length * 1_000.0).round() / 1_000.0,
        "seconds_to_build_a_full_block": total / f64::from(blocks),
        "pairs_per_second_by_block_limits": {
            "slots_of_2_s": (per_block / 2.0).round(), "slots_of_5_s": (per_block / 5.0).round(),
        },
    });
    println!("{line}");
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut blocks, mut backend, mut wasm) = (3, String::from("both"), None);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            // The pace must stay within the epoch's first blocks: no reveal, no race.
            "--blocks" => blocks = value.parse::<u32>()?.clamp(1, 20),
            "--backend" => backend = value,
            "--wasm" => wasm = Some(std::fs::read(value)?),
            _ => return Err(format!("unknown argument {argument}").into()),
        }
    }
    if matches!(backend.as_str(), "native" | "both") {
        measure(Backend::Native, blocks)?;
    }
    if matches!(backend.as_str(), "wasm" | "both") {
        let built = wasm.or_else(|| starling_runtime::WASM_BINARY.map(<[u8]>::to_vec));
        let code = built.ok_or("built with SKIP_WASM_BUILD: name a runtime with --wasm FILE")?;
        measure(Backend::wasm(code), blocks)?;
    }
    Ok(())
}
