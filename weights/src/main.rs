//! Runs the runtime's benchmarks in WASM and writes the pallets' weights. What `scripts/benchmark-weights` runs.
//!
//! `starling-weights --wasm FILE --template FILE --output FOLDER [--steps N] [--repeat N] [--pallet NAME]`: each result goes to
//! `FOLDER/NAME/src/weights.rs`, `NAME` being the folder's of the pallet. Without `--output` nothing is written: a
//! check that all benchmarks run.
//!
//! This does what `frame-benchmarking-cli` does: each benchmark is verified once at each point, its database accesses are
//! counted, its repetitions timed, and lines are fitted to the medians by the analysis of `frame-benchmarking`. That crate
//! itself would bring the relay chain's primitives and a second subxt into the workspace.

mod clock;

use codec::{Decode, Encode};
use frame_benchmarking::{
    Analysis, BenchmarkBatch, BenchmarkConfig, BenchmarkList, BenchmarkMetadata, BenchmarkParameter,
    BenchmarkResult, BenchmarkSelector,
};
use frame_support::traits::StorageInfo;
use minijinja::{context, Environment, Value};
use sc_chain_spec::GenesisConfigBuilderRuntimeCaller;
use sc_client_db::BenchmarkingState;
use sc_executor::WasmExecutor;
use serde::Serialize;
use sp_core::traits::{CallContext, RuntimeCode, WrappedRuntimeCode};
use sp_externalities::Extensions;
use sp_io::SubstrateHostFunctions;
use sp_keystore::{testing::MemoryKeystore, KeystoreExt};
use sp_runtime::traits::BlakeTwo256;
use sp_state_machine::StateMachine;
use sp_wasm_interface::ExtendedHostFunctions;
use std::{borrow::Cow, error::Error, path::PathBuf, time::Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;
type HostFunctions = ExtendedHostFunctions<
    (SubstrateHostFunctions, frame_benchmarking::benchmarking::HostFunctions),
    clock::benchmarking::HostFunctions,
>;
type State = BenchmarkingState<BlakeTwo256>;
type Point = Vec<(BenchmarkParameter, u32)>;

/// Genesis that benchmarks start from; they set what they need themselves.
const PRESET: &str = "test";

struct Arguments {
    wasm: PathBuf,
    template: PathBuf,
    output: Option<PathBuf>,
    steps: u32,
    repeat: u32,
    pallet: Option<String>,
}

impl Arguments {
    fn parse() -> Outcome<Self> {
        let (mut wasm, mut template, mut output, mut steps, mut repeat, mut pallet) =
            (None, None, None, 2, 1, None);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
            match argument.as_str() {
                "--wasm" => wasm = Some(value.into()),
                "--template" => template = Some(value.into()),
                "--output" => output = Some(value.into()),
                "--steps" => steps = value.parse::<u32>()?.max(2),
                "--repeat" => repeat = value.parse::<u32>()?.max(1),
                "--pallet" => pallet = Some(value),
                _ => return Err(format!("unknown argument {argument}").into()),
            }
        }
        let (wasm, template) = wasm.zip(template).ok_or("--wasm and --template are needed")?;
        Ok(Self { wasm, template, output, steps, repeat, pallet })
    }
}

/// The runtime, and two copies of its genesis: counting accesses would falsify times.
struct Bench {
    executor: WasmExecutor<HostFunctions>,
    code: Vec<u8>,
    counting: State,
    timing: State,
}

impl Bench {
    fn new(code: Vec<u8>) -> Outcome<Self> {
        let caller = GenesisConfigBuilderRuntimeCaller::<HostFunctions>::new(&code);
        let storage = caller.get_storage_for_named_preset(Some(&PRESET.to_owned()))?;
        let counting = State::new(storage.clone(), None, false, true)?;
        let timing = State::new(storage, None, false, false)?;
        let executor = WasmExecutor::builder().build();
        Ok(Self { executor, code, counting, timing })
    }

    fn call<T: Decode>(&self, state: &State, method: &str, data: &[u8]) -> Outcome<T> {
        let fetcher = WrappedRuntimeCode(Cow::Borrowed(&self.code));
        let hash = sp_io::hashing::blake2_256(&self.code).to_vec();
        let code = RuntimeCode { code_fetcher: &fetcher, heap_pages: None, hash };
        // Set-ups sign with keys of their own.
        let mut extensions = Extensions::default();
        extensions.register(KeystoreExt::new(MemoryKeystore::new()));
        let mut changes = Default::default();
        let answer = StateMachine::new(
            state,
            &mut changes,
            &self.executor,
            method,
            data,
            &mut extensions,
            &code,
            CallContext::Offchain,
        )
        .execute()
        .map_err(|error| error.to_string())?;
        Ok(T::decode(&mut answer.as_slice())?)
    }

    fn run(&self, state: &State, config: BenchmarkConfig) -> Outcome<Vec<BenchmarkResult>> {
        let data = config.encode();
        let batches: Result<Vec<BenchmarkBatch>, String> =
            self.call(state, "Benchmark_dispatch_benchmark", &data)?;
        Ok(batches?.into_iter().flat_map(|batch| batch.results).collect())
    }

    /// Measures one benchmark: lines through times, reads and writes.
    fn measure(
        &self,
        list: &BenchmarkList,
        benchmark: &BenchmarkMetadata,
        arguments: &Arguments,
    ) -> Outcome<Measured> {
        let config = |point: &Point, verify: bool, internal_repeats: u32| BenchmarkConfig {
            pallet: list.pallet.clone(),
            instance: list.instance.clone(),
            benchmark: benchmark.name.clone(),
            selected_components: point.clone(),
            verify,
            internal_repeats,
        };
        let (mut counted, mut timed) = (Vec::new(), Vec::new());
        for point in points(benchmark, arguments.steps) {
            self.run(&self.timing, config(&point, true, 1))?;
            counted.extend(self.run(&self.counting, config(&point, false, 1))?);
            timed.extend(median(self.run(&self.timing, config(&point, false, arguments.repeat))?));
        }
        Measured::fit(benchmark, &counted, &timed)
    }
}

/// The middle one of a point's repetitions: the first ones run on cold caches and fresh memory.
fn median(mut results: Vec<BenchmarkResult>) -> Option<BenchmarkResult> {
    results.sort_by_key(|result| result.extrinsic_time);
    let middle = results.len() / 2;
    (middle < results.len()).then(|| results.swap_remove(middle))
}

/// Each component goes from its lowest to its highest value while the others are at their highest.
fn points(benchmark: &BenchmarkMetadata, steps: u32) -> Vec<Point> {
    let components = &benchmark.components;
    if components.is_empty() {
        return vec![Point::new()];
    }
    let mut points = Vec::new();
    for (name, low, high) in components {
        for step in 0..steps {
            let value = low + (u64::from(high - low) * u64::from(step) / u64::from(steps - 1)) as u32;
            let highest = components.iter().map(|(other, _, highest)| (*other, *highest));
            points.push(
                highest.map(|(other, top)| (other, if other == *name { value } else { top })).collect(),
            );
        }
    }
    points
}

/// Picoseconds and database accesses of a benchmark.
#[derive(Serialize)]
struct Measured {
    name: String,
    base: u128,
    reads: u128,
    writes: u128,
    components: Vec<Component>,
}

#[derive(Serialize)]
struct Component {
    name: String,
    low: u32,
    high: u32,
    slope: u128,
    reads: u128,
    writes: u128,
}

impl Measured {
    fn fit(
        benchmark: &BenchmarkMetadata,
        counted: &Vec<BenchmarkResult>,
        timed: &Vec<BenchmarkResult>,
    ) -> Outcome<Self> {
        let times = Analysis::min_squares_iqr(timed, BenchmarkSelector::ExtrinsicTime)?;
        let reads = Analysis::min_squares_iqr(counted, BenchmarkSelector::Reads)?;
        let writes = Analysis::min_squares_iqr(counted, BenchmarkSelector::Writes)?;
        let slope = |analysis: &Analysis, name: &str| {
            let place = analysis.names.iter().position(|other| other == name);
            place.and_then(|place| analysis.slopes.get(place)).copied().unwrap_or(0)
        };
        let component = |(name, low, high): &(BenchmarkParameter, u32, u32)| {
            let name = name.to_string();
            let [slope, reads, writes] = [&times, &reads, &writes].map(|analysis| slope(analysis, &name));
            Component { name, low: *low, high: *high, slope, reads, writes }
        };
        Ok(Self {
            name: String::from_utf8(benchmark.name.clone())?,
            base: times.base,
            reads: reads.base,
            writes: writes.base,
            components: benchmark.components.iter().map(component).collect(),
        })
    }
}

fn render(
    template: &str,
    pallet: &str,
    arguments: &Arguments,
    mut measured: Vec<Measured>,
) -> Outcome<String> {
    measured.sort_by(|a, b| a.name.cmp(&b.name));
    let settings = format!(
        "{} points on each line, {} repetitions of each, in WASM, by the processor's time.",
        arguments.steps, arguments.repeat
    );
    let mut environment = Environment::new();
    environment.add_template("weights", template)?;
    let values = context! { pallet, settings, benchmarks => Value::from_serialize(&measured) };
    Ok(environment.get_template("weights")?.render(values)? + "\n")
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse()?;
    let template = std::fs::read_to_string(&arguments.template)?;
    let bench = Bench::new(std::fs::read(&arguments.wasm)?)?;
    let (lists, _): (Vec<BenchmarkList>, Vec<StorageInfo>) =
        bench.call(&bench.timing, "Benchmark_benchmark_metadata", &false.encode())?;
    let mut failed = 0;
    for list in &lists {
        let pallet = String::from_utf8(list.pallet.clone())?;
        let short = pallet.trim_start_matches("pallet_").replace('_', "-");
        if arguments.pallet.as_ref().is_some_and(|wanted| *wanted != short) {
            continue;
        }
        let mut measured = Vec::new();
        for benchmark in &list.benchmarks {
            let (begin, name) = (Instant::now(), String::from_utf8_lossy(&benchmark.name).into_owned());
            match bench.measure(list, benchmark, &arguments) {
                Ok(result) => {
                    let seconds = begin.elapsed().as_secs_f64();
                    println!("{pallet}::{name}: {seconds:.1} s {}", serde_json::to_string(&result)?);
                    measured.push(result);
                }
                Err(error) => {
                    failed += 1;
                    eprintln!("{pallet}::{name} fails: {error}");
                }
            }
        }
        if let (Some(output), 0) = (&arguments.output, failed) {
            let file = output.join(short).join("src/weights.rs");
            std::fs::write(&file, render(&template, &pallet, &arguments, measured)?)?;
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} benchmarks fail").into()),
    }
}
