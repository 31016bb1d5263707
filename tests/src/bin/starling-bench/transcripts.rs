//! What transcripts cost: to check, and to keep.

use crate::{
    engine::{endless, prompt, Engine, Generated, Settings, SAMPLED},
    stats::{median, round},
};
use anyhow::{ensure, Context, Result};
use clap::Args;
use codec::Decode;
use serde_json::{json, Value};
use starling_e2e::{network::PROFILE, paths};
use starling_mlnode_api::{MlNode, TokenizeRequest, VerifyItem, VerifyOutcome, VerifyRequest};
use starling_primitives::{
    records::Finished, replay::replay, request::SamplingParams, transcript::Transcript,
};
use std::{hint::black_box, path::PathBuf, time::Instant};

/// Times that one replay is repeated to be measured.
const REPLAYS: u32 = 50;
const QUESTIONS: [&str; 8] = [
    "What is a river?",
    "What is a dog?",
    "What is music?",
    "What does courage mean?",
    "Tell me about the sea.",
    "What is a library?",
    "What is a volcano?",
    "What does a baker do?",
];

#[derive(Args)]
pub(crate) struct VerifyPlan {
    /// Model folder.
    #[arg(long, default_value_os_t = paths::demo_model())]
    model: PathBuf,
    /// Threads of the engine.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Tokens to generate.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Turns of each prompt length.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Transcripts that are verified together, beside single ones.
    #[arg(long, default_value_t = 16)]
    batch: u32,
}

#[derive(Args)]
pub(crate) struct SizePlan {
    /// Model folder.
    #[arg(long, default_value_os_t = paths::demo_model())]
    model: PathBuf,
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 256)]
    tokens: u32,
    /// Answers to each question.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

fn tempered(temperature_milli: u16) -> SamplingParams {
    SamplingParams { temperature_milli, ..SamplingParams::GREEDY }
}

fn transcript(generated: &Generated) -> Result<Transcript> {
    Ok(Transcript::decode(&mut generated.done.transcript.as_slice())?)
}

fn item(generated: &Generated) -> VerifyItem {
    VerifyItem {
        transcript: generated.done.transcript.clone(),
        prompt_tokens: generated.request.prompt_tokens.clone(),
        tape_seed: generated.request.tape_seed,
        constraint: generated.request.constraint.clone(),
    }
}

/// Seconds of one replay in this process, decoding of the transcript included.
fn replay_seconds(generated: &Generated) -> Result<f64> {
    let expected = Finished {
        request_id: generated.request.header.id(),
        response_hash: generated.done.response_hash,
        transcript_root: generated.done.transcript_root,
        prompt_tokens: generated.done.prompt_tokens,
        completion_tokens: generated.done.completion_tokens,
    };
    let begin = Instant::now();
    for _ in 0..REPLAYS {
        let replayed = replay(black_box(&transcript(generated)?), &generated.request.tape_seed, &expected);
        ensure!(replayed.is_ok(), "an honest transcript does not replay: {replayed:?}");
    }
    Ok(begin.elapsed().as_secs_f64() / f64::from(REPLAYS))
}

/// Seconds of one call of the verification API.
async fn verify_seconds(engine: &Engine, items: Vec<VerifyItem>) -> Result<f64> {
    let begin = Instant::now();
    let answer = engine.client.verify(&VerifyRequest { model: PROFILE.into(), items }).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let honest = answer.outcomes.iter().all(|outcome| matches!(outcome, VerifyOutcome::Figures(_)));
    ensure!(honest, "an honest transcript does not verify: {:?}", answer.outcomes);
    Ok(seconds)
}

pub(crate) async fn verify(plan: &VerifyPlan) -> Result<()> {
    let model = endless(&plan.model)?;
    let mut executor = Engine::start(model.path(), Settings::threads(plan.threads)).await?;
    // Another node, as in the network: it has seen none of the prompts.
    let verifier = Engine::start(model.path(), Settings::threads(plan.threads)).await?;
    for length in [32, 128, 512] {
        println!("{}", verify_after(&mut executor, &verifier, plan, length).await?);
    }
    Ok(())
}

/// Generates and verifies in turn, after prompts of one length.
/// An answer to a prompt that has no beginning in common with any other.
async fn generate(executor: &mut Engine, plan: &VerifyPlan, length: u32) -> Result<Generated> {
    let salt = executor.asked();
    let request = executor.request(prompt(length, salt), SAMPLED, plan.tokens);
    executor.generate(request).await
}

async fn verify_after(
    executor: &mut Engine,
    verifier: &Engine,
    plan: &VerifyPlan,
    length: u32,
) -> Result<Value> {
    let (mut generating, mut verifying, mut replaying, mut together) = (vec![], vec![], vec![], vec![]);
    let mut tokens = 0;
    for turn in 0..=u64::from(plan.rounds) {
        let generated = generate(executor, plan, length).await?;
        let mut items = Vec::new();
        for _ in 0..plan.batch {
            items.push(item(&generate(executor, plan, length).await?));
        }
        let single = verify_seconds(verifier, vec![item(&generated)]).await?;
        let replayed = replay_seconds(&generated)?;
        let batch = verify_seconds(verifier, items).await? / f64::from(plan.batch.max(1));
        // The first turn warms up.
        if turn > 0 {
            tokens += generated.done.completion_tokens;
            generating.push(generated.seconds());
            verifying.push(single);
            replaying.push(replayed);
            together.push(batch);
        }
    }
    let of_generation = |times: &[f64]| round(median(times) / median(&generating), 5);
    let millis = |times: &[f64]| round(median(times) * 1e3, 3);
    let mean_tokens = f64::from(tokens) / f64::from(plan.rounds);
    Ok(json!({
        "bench": "verify", "prompt_tokens": length, "completion_tokens": mean_tokens, "threads": plan.threads,
        "rounds": plan.rounds, "generate_ms": millis(&generating),
        "replay_ms": millis(&replaying),
        "replay_us_per_token": round(median(&replaying) * 1e6 / mean_tokens, 2),
        "verify_ms": millis(&verifying),
        "verify_ms_each_of_a_batch": millis(&together), "batch": plan.batch,
        "replay_of_generation": of_generation(&replaying),
        "verify_of_generation": of_generation(&verifying),
        "batched_verify_of_generation": of_generation(&together),
    }))
}

pub(crate) async fn sizes(plan: &SizePlan) -> Result<()> {
    let mut engine = Engine::start(&plan.model, Settings::threads(2)).await?;
    for (name, sampling) in [
        ("greedy", tempered(0)),
        ("temperature 0.7", tempered(700)),
        ("temperature 1", tempered(1_000)),
        ("temperature 2", tempered(2_000)),
    ] {
        let mut sizes = Sizes::default();
        for question in QUESTIONS.iter().cycle().take(QUESTIONS.len() * plan.rounds as usize) {
            let text = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
            let tokens =
                engine.client.tokenize(&TokenizeRequest { model: PROFILE.into(), text }).await?.tokens;
            let request = engine.request(tokens, sampling, plan.tokens);
            sizes.take(&engine.generate(request).await?)?;
        }
        println!("{}", sizes.line(&format!("questions, {name}")));
    }
    // As in a sprint: the model has no idea what comes next, and nothing ends an answer.
    let model = endless(&plan.model)?;
    let mut engine = Engine::start(model.path(), Settings::threads(2)).await?;
    let mut sizes = Sizes::default();
    for turn in 0..u64::from(plan.rounds) {
        let request = engine.request(prompt(64, turn), SAMPLED, plan.tokens);
        sizes.take(&engine.generate(request).await?)?;
    }
    println!("{}", sizes.line("random prompts without an end, temperature 1"));
    Ok(())
}

#[derive(Default)]
struct Sizes {
    answers: u32,
    tokens: u64,
    bytes: u64,
    candidates: u64,
    each: Vec<f64>,
}

impl Sizes {
    fn take(&mut self, generated: &Generated) -> Result<()> {
        let records = transcript(generated)?.records().ok().context("a transcript's records")?;
        let (tokens, bytes) = (records.len() as u64, generated.done.transcript.len() as u64);
        self.answers += 1;
        self.tokens += tokens;
        self.bytes += bytes;
        self.candidates += records.iter().map(|record| record.candidates.len() as u64).sum::<u64>();
        self.each.push(bytes as f64 / tokens.max(1) as f64);
        Ok(())
    }

    /// The whole stored transcript, its header included.
    fn line(&self, what: &str) -> Value {
        let per_token = |sum: u64| round(sum as f64 / self.tokens.max(1) as f64, 2);
        json!({
            "bench": "transcript", "what": what, "answers": self.answers, "tokens": self.tokens,
            "bytes_per_token": per_token(self.bytes),
            "bytes_per_token_median_answer": round(median(&self.each), 2),
            "bytes_per_token_worst_answer": round(self.each.iter().copied().fold(0.0, f64::max), 2),
            "candidates_per_token": per_token(self.candidates),
        })
    }
}
