//! `starling-mlnode bench`: what this machine makes of a model, as JSON lines.

use crate::{
    loader::{LoadError, LoadSpec, Loader},
    source::{Chunk, Draw, Output, Resources, SequenceId, SourceError, Task, TokenSource},
    verify::replay_item,
};
use codec::Encode;
use serde::Serialize;
use starling_mlnode_api::{VerifyItem, VerifyOutcome};
use starling_primitives::{
    request::{prompt_hash, RequestHeader, SamplingParams},
    tape::{tape_seed, Tape},
    transcript::{TokenRecord, TranscriptBuilder},
    H256,
};
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchPlan {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens to generate.
    pub tokens: u32,
    /// Sequences decoded together.
    pub batch: u32,
    /// Threads of tensor operations.
    pub threads: u32,
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub name: &'static str,
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
    /// The model gave something that was not asked for, or its own transcript did not replay.
    #[error("the engine contradicts itself: {0}")]
    Contradiction(String),
}

/// Runs prefill, decode with one and several sequences, replay and verification of what was generated.
pub fn bench(
    loader: &impl Loader,
    spec: &LoadSpec,
    plan: &BenchPlan,
) -> Result<Vec<Measurement>, BenchError> {
    let mut source = loader.load(spec)?.source;
    source.use_resources(&Resources { threads: plan.threads, prefix_tokens: 0 });
    let source = source.as_mut();
    let prompt = prompt(plan.prompt, source.shape().vocab_size);
    // Once for the memory allocator and the caches.
    generate(source, &prompt, plan.tokens.min(8), 1)?;
    let one = generate(source, &prompt, plan.tokens, 1)?;
    let several = generate(source, &prompt, plan.tokens, plan.batch)?;
    let (replay, verify) = check(source, &one)?;
    let per_second = |count: u32, time: Duration| f64::from(count) / time.as_secs_f64();
    let generated = (one.prefill + one.decode).as_secs_f64();
    // The first token comes with the prefill.
    let decoded = plan.tokens.saturating_sub(1);
    Ok(vec![
        Measurement { name: "prefill", value: per_second(plan.prompt, one.prefill), unit: "tokens/s" },
        Measurement { name: "decode_batch_1", value: per_second(decoded, one.decode), unit: "tokens/s" },
        Measurement {
            name: "decode_batch_n",
            value: per_second(decoded.saturating_mul(plan.batch), several.decode),
            unit: "tokens/s",
        },
        Measurement {
            name: "replay_per_token",
            value: replay.as_secs_f64() / f64::from(plan.tokens),
            unit: "s",
        },
        Measurement { name: "replay_of_generation", value: replay.as_secs_f64() / generated, unit: "ratio" },
        Measurement { name: "verify_of_generation", value: verify.as_secs_f64() / generated, unit: "ratio" },
        Measurement {
            name: "transcript_per_token",
            value: one.transcript.len() as f64 / f64::from(plan.tokens),
            unit: "bytes",
        },
    ])
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
        nonce: [0; 32],
    };
    let tape_seed = tape_seed(&H256::zero(), &header.id());
    let tape = Tape::new(&tape_seed);
    let ids: Vec<SequenceId> = (0..u64::from(batch)).collect();
    for id in &ids {
        source.open(*id, prompt.len() as u32 + tokens)?;
    }
    let mut builder = TranscriptBuilder::new(header);
    let mut completion: Vec<u32> = Vec::new();
    let started = Instant::now();
    let mut prefill = Duration::ZERO;
    for position in 0..tokens {
        let draw = Draw { tape: &tape, params: &PARAMS, completion: &completion, position };
        let last = completion.last().copied();
        let next = last.as_slice();
        let new = if position == 0 { prompt } else { next };
        let chunk = |id: &SequenceId| Chunk { sequence: *id, tokens: new, task: Task::Choose(draw) };
        let outputs = source.step(&ids.iter().map(chunk).collect::<Vec<_>>())?;
        let record = first_record(outputs)?;
        let token = record.chosen().map(|chosen| chosen.token);
        completion.extend(token);
        builder.push(record);
        if position == 0 {
            prefill = started.elapsed();
        }
    }
    let decode = started.elapsed().saturating_sub(prefill);
    for id in ids {
        source.close(id);
    }
    let transcript = builder.finish().0.encode();
    Ok(Generated { prompt: prompt.to_vec(), transcript, tape_seed, prefill, decode })
}

fn first_record(outputs: Vec<Output>) -> Result<TokenRecord, BenchError> {
    match outputs.into_iter().next() {
        Some(Output::Chosen(record)) => Ok(record),
        other => Err(BenchError::Contradiction(format!("{other:?} instead of a token"))),
    }
}

/// Times of replay and of the teacher-forced pass.
fn check(source: &mut dyn TokenSource, generated: &Generated) -> Result<(Duration, Duration), BenchError> {
    let item = VerifyItem {
        transcript: generated.transcript.clone(),
        prompt_tokens: generated.prompt.clone(),
        tape_seed: generated.tape_seed,
    };
    let started = Instant::now();
    let ready = replay_item(&item, &source.shape()).map_err(|outcome| match outcome {
        VerifyOutcome::ReplayFailed { reason } | VerifyOutcome::Failed { reason } => {
            BenchError::Contradiction(reason)
        }
        VerifyOutcome::Figures(_) => BenchError::Contradiction("figures without a pass".into()),
    })?;
    let replay = started.elapsed();
    source.open(0, ready.capacity())?;
    let draw = Draw { tape: &ready.tape, params: &ready.params, completion: &ready.completion, position: 0 };
    let task = Task::Measure(draw, &ready.records);
    source.step(&[Chunk { sequence: 0, tokens: &ready.tokens, task }])?;
    source.close(0);
    Ok((replay, started.elapsed()))
}
