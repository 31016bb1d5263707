//! `starling-mlnode bench`: what this machine makes of a model, as JSON lines, beside other engines in the same run; and
//! `starling-mlnode compare`: how far a device's numbers are from those of the engine's own kernels.

mod compare;
pub(crate) mod machine;
mod peer;

pub use compare::{compare_device, Lengths};
pub use peer::{BadPeer, PeerCommand};

use self::peer::Peer;
use crate::{
    kv::in_blocks,
    loader::{LoadError, LoadSpec, Loader},
    model::{ModelError, Rates},
    source::{Chunk, Draw, Output, Resources, SequenceId, SourceError, Task, TokenSource},
    verify::replay_item,
};
use codec::Encode;
use serde::Serialize;
use starling_mlnode_api::{VerifyItem, VerifyOutcome};
use starling_primitives::{
    request::{prompt_hash, RequestHeader, SamplingParams},
    tape::{tape_seed, Tape},
    transcript::TranscriptBuilder,
    H256,
};
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchPlan {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens to generate.
    pub tokens: u32,
    /// Sequences decoded together: one list of figures for each.
    pub batches: Vec<u32>,
    /// Threads of every engine.
    pub threads: u32,
    /// Turns; the median of each figure counts.
    pub rounds: u32,
    /// Engines that take turns with this one.
    pub peers: Vec<PeerCommand>,
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Unit of the value.
    pub unit: &'static str,
}

/// Why a benchmark failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The model was not loaded.
    #[error("cannot load the model")]
    Load(#[from] LoadError),
    /// A step failed.
    #[error("a step failed")]
    Step(#[from] SourceError),
    /// A model failed.
    #[error("a model failed")]
    Model(#[from] ModelError),
    /// A peer cannot be started, or has ended.
    #[error("the peer {name} failed")]
    Peer {
        /// What it is called.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no memory to measure with.
    #[error("there is no memory to measure with")]
    Memory(#[source] std::io::Error),
    /// The model gave something that was not asked for, or its own transcript did not replay.
    #[error("the engine contradicts itself: {0}")]
    Contradiction(String),
}

/// Figures of one turn.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// Tokens per second.
    prefill: f64,
    decode_one: f64,
    decode_several: f64,
    /// Seconds for a whole completion with one sequence, with several, and of making transcripts in each.
    generation: f64,
    together: f64,
    making_one: f64,
    making_several: f64,
    decode_seconds: f64,
    decode_several_seconds: f64,
    /// Seconds of checking it.
    replay: f64,
    verify: f64,
    verify_together: f64,
    bytes: f64,
}

/// Runs prefill, decode with one and several sequences, replay and verification of what was generated; each peer in
/// turn with it.
pub fn bench(
    loader: &impl Loader,
    spec: &LoadSpec,
    plan: &BenchPlan,
) -> Result<Vec<Measurement>, BenchError> {
    let mut source = loader.load(spec)?.source;
    source.use_resources(&Resources { threads: plan.threads, prefix_tokens: 0 });
    let source = source.as_mut();
    let rates = match source.rates() {
        Some(rates) => rates?,
        None => machine::rates(plan.threads).map_err(BenchError::Memory)?,
    };
    let most = plan.batches.iter().copied().max().unwrap_or_default();
    let capacity = in_blocks(plan.prompt.saturating_add(plan.tokens));
    source.reserve(capacity.saturating_mul(most))?;
    let shape = source.shape();
    let prompt = prompt(plan.prompt, shape.vocab_size);
    let start = |command: &PeerCommand| {
        let failed = |source| BenchError::Peer { name: command.name.clone(), source };
        Peer::start(command, plan.threads).map_err(failed)
    };
    let mut peers = plan.peers.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    let mut lines = Vec::new();
    for batch in &plan.batches {
        let mut ours = Vec::new();
        let mut theirs: Vec<Vec<Turn>> = peers.iter().map(|_| Vec::new()).collect();
        // Turn 0 warms everybody up.
        for turn in 0..=plan.rounds.max(1) {
            let own = own_turn(source, &prompt, plan, *batch)?;
            for (peer, turns) in peers.iter_mut().zip(&mut theirs) {
                let found = peer_turn(peer, &prompt, plan, *batch)
                    .map_err(|source| BenchError::Peer { name: peer.name.clone(), source })?;
                if turn > 0 {
                    turns.push(found);
                }
            }
            if turn > 0 {
                ours.push(own);
            }
        }
        lines.push(Measurement { name: "batch".into(), value: f64::from(*batch), unit: "sequences" });
        let weights = WeightsRead { per_token: source.parameters_per_token(), bytes: source.weight_bytes() };
        lines.extend(figures(&ours, &rates, plan, &weights));
        for (peer, turns) in peers.iter().zip(&theirs) {
            compare(&peer.name, &ours, turns, &mut lines);
        }
    }
    Ok(lines)
}

/// What a step of one token takes of the model.
struct WeightsRead {
    /// Weights.
    per_token: u64,
    /// Their bytes.
    bytes: u64,
}

fn own_turn(
    source: &mut dyn TokenSource,
    prompt: &[u32],
    plan: &BenchPlan,
    batch: u32,
) -> Result<Turn, BenchError> {
    let one = generate(source, prompt, plan.tokens, 1)?;
    let several = generate(source, prompt, plan.tokens, batch)?;
    let alone = check(source, &one, 1)?;
    let together = check(source, &one, batch)?;
    // The first token comes with the prefill.
    let decoded = f64::from(plan.tokens.saturating_sub(1));
    let seconds = |time: Duration| time.as_secs_f64();
    Ok(Turn {
        prefill: f64::from(plan.prompt) / seconds(one.prefill),
        decode_one: decoded / seconds(one.decode),
        decode_several: decoded * f64::from(batch) / seconds(several.decode),
        generation: seconds(one.prefill + one.decode),
        together: seconds(several.prefill + several.decode) / f64::from(batch),
        making_one: seconds(one.making),
        making_several: seconds(several.making),
        decode_seconds: seconds(one.decode),
        decode_several_seconds: seconds(several.decode),
        replay: seconds(alone.0),
        verify: seconds(alone.0 + alone.1),
        verify_together: seconds(together.0 + together.1) / f64::from(batch),
        bytes: one.transcript.len() as f64,
    })
}

fn peer_turn(peer: &mut Peer, prompt: &[u32], plan: &BenchPlan, batch: u32) -> std::io::Result<Turn> {
    let one = peer.measure(prompt, 1, plan.tokens)?;
    let several = peer.measure(prompt, batch, plan.tokens)?;
    let decoded = f64::from(plan.tokens.saturating_sub(1));
    Ok(Turn {
        prefill: f64::from(plan.prompt) / one.prefill,
        decode_one: decoded / one.decode,
        decode_several: decoded * f64::from(batch) / several.decode,
        ..Turn::default()
    })
}

fn median(turns: &[Turn], figure: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    (at(low) + at(high)) / 2.0
}

fn figures(turns: &[Turn], machine: &Rates, plan: &BenchPlan, weights: &WeightsRead) -> Vec<Measurement> {
    let tokens = f64::from(plan.tokens);
    let decode = median(turns, |t| t.decode_one);
    // A multiplication and an addition for each weight that a token meets.
    let pass = 2.0 * weights.per_token as f64 * (f64::from(plan.prompt) + tokens - 1.0);
    let list = [
        ("machine_read_bandwidth", machine.read_bandwidth / 1e9, "GB/s"),
        ("machine_product_rate", machine.product_rate / 1e9, "GFLOP/s"),
        ("prefill", median(turns, |t| t.prefill), "tokens/s"),
        ("decode_batch_1", decode, "tokens/s"),
        ("decode_batch_n", median(turns, |t| t.decode_several), "tokens/s"),
        ("decode_of_bandwidth", decode * weights.bytes as f64 / machine.read_bandwidth, "ratio"),
        ("transcript_of_decode_batch_1", median(turns, |t| t.making_one / t.decode_seconds), "ratio"),
        (
            "transcript_of_decode_batch_n",
            median(turns, |t| t.making_several / t.decode_several_seconds),
            "ratio",
        ),
        ("replay_per_token", median(turns, |t| t.replay) / tokens, "s"),
        ("replay_of_generation", median(turns, |t| t.replay / t.generation), "ratio"),
        ("verify_of_generation", median(turns, |t| t.verify / t.generation), "ratio"),
        ("verify_together_of_generation", median(turns, |t| t.verify_together / t.generation), "ratio"),
        ("verify_together_of_batch_n", median(turns, |t| t.verify_together / t.together), "ratio"),
        ("verify_of_product_bound", median(turns, |t| t.verify) / (pass / machine.product_rate), "ratio"),
        ("transcript_per_token", median(turns, |t| t.bytes) / tokens, "bytes"),
    ];
    list.map(|(name, value, unit)| Measurement { name: name.into(), value, unit }).into()
}

/// A peer's figures, and this engine's as multiples of them.
fn compare(name: &str, ours: &[Turn], theirs: &[Turn], lines: &mut Vec<Measurement>) {
    type Figure = fn(&Turn) -> f64;
    let kinds: [(&str, Figure); 3] = [
        ("prefill", |t| t.prefill),
        ("decode_batch_1", |t| t.decode_one),
        ("decode_batch_n", |t| t.decode_several),
    ];
    for (what, figure) in kinds {
        let (own, other) = (median(ours, figure), median(theirs, figure));
        lines.push(Measurement { name: format!("{name}_{what}"), value: other, unit: "tokens/s" });
        lines.push(Measurement { name: format!("{what}_of_{name}"), value: own / other, unit: "ratio" });
    }
}

/// Tokens without a pattern, the same on every machine.
fn prompt(tokens: u32, vocab_size: u32) -> Vec<u32> {
    (0..tokens).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) % vocab_size.max(1)).collect()
}

/// A generation with its times.
struct Generated {
    prompt: Vec<u32>,
    transcript: Vec<u8>,
    tape_seed: H256,
    prefill: Duration,
    decode: Duration,
    /// Of the decoding, time for making transcripts.
    making: Duration,
}

const PARAMS: SamplingParams = SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };

fn generate(
    source: &mut dyn TokenSource,
    prompt: &[u32],
    tokens: u32,
    batch: u32,
) -> Result<Generated, BenchError> {
    let header = RequestHeader {
        profile: 0,
        prompt_hash: prompt_hash(prompt),
        sampling: PARAMS,
        max_tokens: tokens,
        constraint: None,
        nonce: [0; 32],
    };
    let tape_seed = tape_seed(&H256::zero(), &header.id());
    let tape = Tape::new(&tape_seed);
    let ids: Vec<SequenceId> = (0..u64::from(batch)).collect();
    for id in &ids {
        source.open(*id, prompt.len() as u32 + tokens)?;
    }
    // Every sequence of a batch has a transcript to make.
    let mut builders: Vec<_> = ids.iter().map(|_| TranscriptBuilder::new(header.clone())).collect();
    let mut completion: Vec<u32> = Vec::new();
    let started = Instant::now();
    let (mut prefill, mut making) = (Duration::ZERO, Duration::ZERO);
    let mut made_before = source.transcript_time();
    for position in 0..tokens {
        let draw = Draw {
            tape: &tape,
            params: &PARAMS,
            completion: &completion,
            position,
            bias: &[],
            allowed: &[],
            perturbation: None,
        };
        let last = completion.last().copied();
        let next = last.as_slice();
        let new = if position == 0 { prompt } else { next };
        let chunk = |id: &SequenceId| Chunk { sequence: *id, tokens: new, task: Task::Choose(draw) };
        let outputs = source.step(&ids.iter().map(chunk).collect::<Vec<_>>())?;
        let building = Instant::now();
        let mut token = None;
        for (output, builder) in outputs.into_iter().zip(&mut builders) {
            let Output::Chosen(record) = output else {
                return Err(BenchError::Contradiction(format!("{output:?} instead of a token")));
            };
            token = record.chosen().map(|chosen| chosen.token);
            builder.push(record);
        }
        completion.extend(token);
        making += building.elapsed();
        if position == 0 {
            (prefill, making) = (started.elapsed(), Duration::ZERO);
            made_before = source.transcript_time();
        }
    }
    making += source.transcript_time().saturating_sub(made_before);
    let decode = started.elapsed().saturating_sub(prefill);
    for id in ids {
        source.close(id);
    }
    let transcript = builders.into_iter().next().map(|builder| builder.finish().0.encode());
    let transcript = transcript.ok_or_else(|| BenchError::Contradiction("an empty batch".into()))?;
    Ok(Generated { prompt: prompt.to_vec(), transcript, tape_seed, prefill, decode, making })
}

/// Times of replay and of one teacher-forced pass over `copies` of a transcript.
fn check(
    source: &mut dyn TokenSource,
    generated: &Generated,
    copies: u32,
) -> Result<(Duration, Duration), BenchError> {
    let item = VerifyItem {
        transcript: generated.transcript.clone(),
        prompt_tokens: generated.prompt.clone(),
        tape_seed: generated.tape_seed,
        constraint: None,
    };
    let started = Instant::now();
    let shape = source.shape();
    let replayed = (0..copies).map(|_| replay_item(&item, &shape)).collect::<Result<Vec<_>, _>>();
    let ready = replayed.map_err(|outcome| match outcome {
        VerifyOutcome::ReplayFailed { reason }
        | VerifyOutcome::ConstraintBroken { reason }
        | VerifyOutcome::Failed { reason } => BenchError::Contradiction(reason),
        VerifyOutcome::Figures(_) => BenchError::Contradiction("figures without a pass".into()),
    })?;
    let replay = started.elapsed();
    let mut chunks = Vec::new();
    for (sequence, ready) in (0..).zip(&ready) {
        source.open(sequence, ready.capacity())?;
        let draw = Draw {
            tape: &ready.tape,
            params: &ready.params,
            completion: &ready.completion,
            position: 0,
            bias: &[],
            allowed: &[],
            perturbation: None,
        };
        chunks.push(Chunk { sequence, tokens: &ready.tokens, task: Task::Measure(draw, &ready.records) });
    }
    source.step(&chunks)?;
    for chunk in &chunks {
        source.close(chunk.sequence);
    }
    Ok((replay, started.elapsed().saturating_sub(replay)))
}
