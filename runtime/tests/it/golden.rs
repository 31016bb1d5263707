//! The golden vectors of `primitives`, inside the runtime's WASM: what a native host or ML node computes is what the
//! chain computes, to the bit. Without that a fraud proof could convict an honest host.

use crate::chain::config;
use codec::{Decode, Encode};
use sc_executor::WasmExecutor;
use serde_json::Value;
use sp_core::traits::{CallContext, CodeExecutor, RuntimeCode, WrappedRuntimeCode};
use sp_io::{SubstrateHostFunctions, TestExternalities};
use sp_runtime::BuildStorage;
use starling_primitives::{
    records::Finished,
    replay::{replay, ReplayError},
    request::SamplingParams,
    tape::gumbel,
    transcript::{Candidate, Transcript},
    H256,
};
use starling_runtime::genesis;
use std::path::Path;

/// The runtime's WASM on the genesis of a preset.
struct Wasm {
    executor: WasmExecutor<SubstrateHostFunctions>,
    ext: TestExternalities,
    code: &'static [u8],
}

impl Wasm {
    fn new() -> Self {
        let code =
            starling_runtime::WASM_BINARY.expect("the golden vectors need a build without SKIP_WASM_BUILD");
        let storage = config(genesis::TEST).build_storage().expect("the genesis can be built");
        Self { executor: WasmExecutor::builder().build(), ext: TestExternalities::new(storage), code }
    }

    fn call<T: Decode>(&mut self, method: &str, arguments: impl Encode) -> T {
        let fetcher = WrappedRuntimeCode(self.code.into());
        let hash = sp_io::hashing::blake2_256(self.code).to_vec();
        let code = RuntimeCode { code_fetcher: &fetcher, heap_pages: None, hash };
        let (method, context) = (format!("StarlingApi_{method}"), CallContext::Offchain);
        let (bytes, _) =
            self.executor.call(&mut self.ext.ext(), &code, &method, &arguments.encode(), context);
        T::decode(&mut &bytes.expect("the call succeeds")[..]).expect("the answer has this type")
    }

    fn replay(
        &mut self,
        transcript: &Transcript,
        seed: &H256,
        finished: &Finished,
    ) -> Result<Vec<u32>, ReplayError> {
        self.call("replay", (transcript, seed, finished))
    }

    fn sample(
        &mut self,
        seed: &H256,
        position: u32,
        candidates: &[Candidate],
        params: &SamplingParams,
    ) -> (Vec<i64>, Option<u32>) {
        self.call("sample", (seed, position, candidates, params))
    }
}

fn read(name: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../primitives/tests/golden");
    let text = std::fs::read_to_string(folder.join(name)).expect("golden file exists");
    serde_json::from_str(&text).expect("golden file is a list in JSON")
}

fn field<T: serde::de::DeserializeOwned>(entry: &Value, name: &str) -> T {
    serde_json::from_value(entry[name].clone()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Scores and choices of every sampler vector.
#[test]
fn the_sampler_is_the_same_in_wasm() {
    let mut wasm = Wasm::new();
    let entries = read("sampler.json");
    assert!(entries.len() > 100);
    for (index, entry) in entries.iter().enumerate() {
        let candidates: Vec<(u32, u16)> = field(entry, "candidates");
        let candidates: Vec<_> = candidates.into_iter().map(|(token, q)| Candidate { token, q }).collect();
        let (seed, position): (H256, u32) = (field(entry, "seed"), field(entry, "position"));
        let golden: (Vec<i64>, Option<u32>) = (field(entry, "scores"), field(entry, "chosen"));
        let found = wasm.sample(&seed, position, &candidates, &field(entry, "params"));
        assert_eq!(found, golden, "entry {index}");
    }
}

/// The tape's noise: at temperature 1 the score of a certain token is 1000 times its noise.
#[test]
fn the_tape_is_the_same_in_wasm() {
    let mut wasm = Wasm::new();
    let params = SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };
    let mut seen = 0;
    for entry in read("tape.json").iter().filter(|entry| entry.get("seed").is_some()) {
        let (seed, position, token): (H256, u32, u32) =
            (field(entry, "seed"), field(entry, "position"), field(entry, "token"));
        let golden: i64 = field(entry, "gumbel");
        assert_eq!(gumbel(&seed, position, token), golden, "natively");
        let (scores, chosen) = wasm.sample(&seed, position, &[Candidate { token, q: 0 }], &params);
        assert_eq!((scores, chosen), (vec![1_000 * golden], Some(0)), "{entry}");
        seen += 1;
    }
    assert!(seen >= 90);
}

/// Hashes, Merkle roots, windows and choices of whole transcripts; and the first disagreement of broken ones.
#[test]
fn transcripts_replay_the_same_in_wasm() {
    let mut wasm = Wasm::new();
    let entries = read("transcript.json");
    assert!(entries.len() >= 8);
    for (index, entry) in entries.iter().enumerate() {
        let text: String = field(entry, "transcript");
        let bytes = sp_core::bytes::from_hex(&text).expect("hex");
        let transcript = Transcript::decode(&mut &bytes[..]).expect("SCALE");
        let (seed, finished): (H256, Finished) = (field(entry, "tape_seed"), field(entry, "finished"));
        let golden: Vec<u32> = field(entry, "tokens");
        assert_eq!(wasm.replay(&transcript, &seed, &finished), Ok(golden), "entry {index}");

        let native = |seed: &H256, finished: &Finished| {
            replay(&transcript, seed, finished).map(|replayed| replayed.tokens)
        };
        let other_seed = H256::repeat_byte(0x3C);
        assert_eq!(wasm.replay(&transcript, &other_seed, &finished), native(&other_seed, &finished));
        let other_answer = Finished { response_hash: H256::zero(), ..finished.clone() };
        let found = wasm.replay(&transcript, &seed, &other_answer);
        assert_eq!(found, native(&seed, &other_answer));
        assert!(matches!(found, Err(ReplayError::ResponseHash { .. })));
    }
}
