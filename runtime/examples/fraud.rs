//! How long the chain takes to judge the most expensive fraud proof: a full window of 32 tokens with 20 candidates each,
//! every filter on, whose lie is in the last token. Prints one JSON line for each backend, in microseconds; the time of a
//! call that only reads the clock is taken off.
//!
//! `cargo run --workspace --example fraud`

use codec::{Decode, Encode};
use sc_executor::WasmExecutor;
use serde_json::{json, Value};
use sp_core::{
    sr25519,
    traits::{CallContext, CodeExecutor, RuntimeCode, WrappedRuntimeCode},
    Pair,
};
use sp_io::{SubstrateHostFunctions, TestExternalities};
use sp_runtime::BuildStorage;
use starling_primitives::{
    fraud::{Evidence, Fraud, FraudProof, OpenedWindow},
    receipt::{Receipt, SignedReceipt},
    records::{response_hash, Delivery, Finished, InferenceRecord, InferenceResult, InferenceState},
    request::{RequestHeader, SamplingParams},
    sampler::sample,
    tape::tape_seed,
    traits::{Beacon as _, Clock as _, Round},
    transcript::{Candidate, TokenRecord, TranscriptBuilder},
    AccountId, InferenceId, H256,
};
use starling_runtime::{apis, genesis, Beacon, Epochs, Runtime, RuntimeGenesisConfig, System};
use std::{borrow::Cow, error::Error, time::Instant};

/// Calls that are timed.
const CALLS: u32 = 300;

type Outcome<T> = Result<T, Box<dyn Error>>;

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

fn pair(path: &str) -> Outcome<sr25519::Pair> {
    Ok(sr25519::Pair::from_string(path, None)?)
}

/// Records an answer of Alice's whose last token is another one than the tape's; returns the proof.
fn lie() -> Outcome<FraudProof> {
    let epoch = Epochs::epoch().index;
    let epoch_seed = Beacon::seed(Round::Epoch(epoch)).ok_or("the epoch has no seed")?;
    let sampling = SamplingParams {
        temperature_milli: 1_000,
        top_p: 9_999,
        min_p: 1,
        top_k: 20,
        ..SamplingParams::GREEDY
    };
    let header = RequestHeader {
        profile: 0,
        prompt_hash: H256::zero(),
        sampling,
        max_tokens: 32,
        constraint: None,
        nonce: [1; 32],
    };
    let request_id = header.id();
    let seed = tape_seed(&epoch_seed, &request_id);
    let mut builder = TranscriptBuilder::new(header.clone());
    for position in 0..32u32 {
        let candidate = |rank: u32| Candidate { token: 200 * rank + position, q: 380 + rank as u16 };
        let candidates: Vec<_> = (0..20).map(candidate).collect();
        let chosen = sample(&seed, position, &candidates, &sampling).ok_or("sorted")? as u8;
        let chosen = if position == 31 { (chosen + 1) % 20 } else { chosen };
        builder.push(TokenRecord { candidates, chosen });
    }
    let (transcript, _) = builder.finish();
    let finished = Finished {
        request_id,
        response_hash: response_hash(&transcript.tokens()?),
        transcript_root: transcript.root(),
        prompt_tokens: 1,
        completion_tokens: 32,
    };
    let (executor, worker) = (AccountId::from(pair("//Alice")?.public()), pair("//Alice//worker")?);
    let record = InferenceRecord {
        request_id,
        client: AccountId::new([9; 32]),
        delegate: None,
        expires_at: 0,
        gateway: executor.clone(),
        executor: executor.clone(),
        profile: 0,
        attempt: 0,
        state: InferenceState::Finished,
        started_at: 0,
        amount: 0,
        result: Some(InferenceResult {
            response_hash: finished.response_hash,
            transcript_root: finished.transcript_root,
            prompt_tokens: 1,
            completion_tokens: 32,
            finished_at: 0,
        }),
        delivery: Delivery::Pending,
        first_verdict_at: None,
    };
    pallet_inference::Inferences::<Runtime>::insert(epoch, 0, record);
    let receipt = Receipt { epoch, epoch_seed, executor, finished };
    let signature = worker.sign(receipt.signing_hash(&System::block_hash(0)).as_bytes());
    let receipt = SignedReceipt { receipt, worker: worker.public(), signature };
    let opened = transcript.window_proof(0).and_then(OpenedWindow::new).ok_or("there is a window")?;
    let evidence = Evidence::Window { header, opened };
    Ok(FraudProof { inference: InferenceId { epoch, index: 0 }, receipt, evidence })
}

fn main() -> Outcome<()> {
    let mut config = serde_json::to_value(RuntimeGenesisConfig::default())?;
    merge(&mut config, genesis::preset_value(genesis::TEST).ok_or("there is no preset `test`")?);
    let config: RuntimeGenesisConfig = serde_json::from_value(config)?;
    let mut ext = TestExternalities::new(config.build_storage()?);
    let proof = ext.execute_with(lie)?.encode();
    ext.commit_all()?;

    let code = starling_runtime::WASM_BINARY.ok_or("built with SKIP_WASM_BUILD")?;
    let executor: WasmExecutor<SubstrateHostFunctions> = WasmExecutor::builder().build();
    let hash = sp_io::hashing::blake2_256(code).to_vec();
    let mut wasm = |ext: &mut TestExternalities, method: &str, data: &[u8]| -> Outcome<Vec<u8>> {
        let fetcher = WrappedRuntimeCode(Cow::Borrowed(code));
        let code = RuntimeCode { code_fetcher: &fetcher, heap_pages: None, hash: hash.clone() };
        Ok(executor.call(&mut ext.ext(), &code, method, data, CallContext::Offchain).0?)
    };
    let mut native = |ext: &mut TestExternalities, method: &str, data: &[u8]| -> Outcome<Vec<u8>> {
        Ok(ext.execute_with(|| apis::api::dispatch(method, data)).ok_or("no such call")?)
    };
    report("native", &mut ext, &proof, &mut native)?;
    report("wasm", &mut ext, &proof, &mut wasm)
}

type Call<'a> = dyn FnMut(&mut TestExternalities, &str, &[u8]) -> Outcome<Vec<u8>> + 'a;

fn report(backend: &str, ext: &mut TestExternalities, proof: &[u8], call: &mut Call<'_>) -> Outcome<()> {
    let answer = call(ext, "StarlingApi_fraud", proof)?;
    let fraud = Option::<Fraud>::decode(&mut &answer[..])?;
    if !matches!(fraud, Some(Fraud::Window(_))) {
        return Err(format!("the proof must hold: {fraud:?}").into());
    }
    let mut time = |method: &str, data: &[u8]| -> Outcome<f64> {
        let begin = Instant::now();
        for _ in 0..CALLS {
            call(ext, method, data)?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS))
    };
    let (empty, judged) = (time("StarlingApi_epoch", &[])?, time("StarlingApi_fraud", proof)?);
    println!("{}", json!({"backend": backend, "judge_us": judged - empty, "empty_call_us": empty}));
    Ok(())
}
