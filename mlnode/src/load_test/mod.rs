//! `starling-mlnode bench-load`: a real node under more clients than it takes, some of which misbehave.

mod client;
mod node;

use crate::{
    bench::Measurement,
    calibrate::{Question, Sizes, Workload},
    device::DeviceChoice,
    model::Precision,
};
use client::{ask, Answered, Manner};
use futures::{stream, StreamExt};
use indicatif::ProgressBar;
use node::NodeProcess;
use starling_mlnode_api::{ClientError, MlNode};
use starling_primitives::verdict::Figures;
use starling_prompt::{Tokenizer, TokenizerError};
use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// Clients for each stream that the node takes: one in nine is refused until another one has ended.
const CLIENTS_PER_STREAMS: (u32, u32) = (9, 8);
/// Points at which memory is looked at.
const LOOKS: u32 = 100;
/// Time within which everything must have been given back at the end.
const GIVE_BACK_DEADLINE: Duration = Duration::from_secs(30);
/// How often that is asked.
const GIVE_BACK_INTERVAL: Duration = Duration::from_millis(20);
/// Errors that are kept as text.
const ERRORS_MAX: usize = 20;

/// What to run.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// The program, `starling-mlnode`.
    pub program: PathBuf,
    /// The model folder.
    pub folder: PathBuf,
    /// Where the node runs it.
    pub device: DeviceChoice,
    /// What the node computes with.
    pub precision: Precision,
    /// libtorch's CUDA library, or its folder.
    pub cuda_library: Option<PathBuf>,
    /// Requests in total.
    pub requests: u32,
    /// Requests that the node takes at once. One client in nine comes on top, and is refused.
    pub streams: u32,
    /// Threads of the node's engine.
    pub threads: u32,
    /// Lengths of prompts and answers.
    pub sizes: Sizes,
    /// Questions follow from it.
    pub seed: u64,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadTestError {
    /// The node cannot be run.
    #[error("the node cannot be run")]
    Process(#[from] io::Error),
    /// The node does not start.
    #[error("the node did not start: {0}")]
    NotStarted(String),
    /// The tokenizer cannot be used.
    #[error("the tokenizer is not usable")]
    Tokenizer(#[from] TokenizerError),
    /// The node does not say how it is.
    #[error("the node does not answer")]
    State(#[from] ClientError),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// Requests that were answered to their end.
    pub answered: u32,
    /// Requests whose client hung up.
    pub hung_up: u32,
    /// Refusals with 429 and a time to wait.
    pub refused: u32,
    /// What no client should see; the first of them.
    pub errors: Vec<String>,
    /// How many those are.
    pub error_count: u32,
    /// What the node warned of in its log; the first of it.
    pub warnings: Vec<String>,
    /// Tokens that arrived.
    pub tokens: u64,
    /// Seconds for everything.
    pub seconds: f64,
    /// Seconds until the first token, sorted.
    pub first_token: Vec<f64>,
    /// Seconds between tokens, sorted.
    pub gaps: Vec<f64>,
    /// Figures of honest answers that were verified under load.
    pub honest: Vec<Figures>,
    /// Figures of wrong answers, asked for as such.
    pub planted: Vec<Figures>,
    /// Requests that had ended, and bytes that the node held then.
    pub memory: Vec<(u32, u64)>,
    /// Requests that the node still counted at the end, and tokens of room that it had not got back.
    pub kept: (u32, u32),
}

/// Runs the load; the bar moves once for each request.
pub async fn load_test(plan: &LoadPlan, progress: &ProgressBar) -> Result<LoadReport, LoadTestError> {
    let tokenizer = Arc::new(Tokenizer::load_from_folder(&plan.folder)?);
    let (vocab_size, top_k) = (tokenizer.vocab_size(), starling_primitives::profile::MAX_K);
    let mut workload = Workload::new(tokenizer, vocab_size, top_k, plan.sizes, plan.seed);
    let node = NodeProcess::start(plan).await?;
    progress.set_length(u64::from(plan.requests));
    let questions = (0..plan.requests).map(|number| (number, workload.any()));
    let started = Instant::now();
    let (of, streams) = CLIENTS_PER_STREAMS;
    let clients = (u64::from(plan.streams) * u64::from(of)).div_ceil(u64::from(streams)) as usize;
    let mut answers = stream::iter(questions)
        .map(|(number, question): (u32, Question)| ask(&node.client, question, Manner::of(number)))
        .buffer_unordered(clients);
    let mut report = LoadReport::empty();
    let every = plan.requests.div_ceil(LOOKS).max(1);
    let mut ended = 0;
    while let Some(answer) = answers.next().await {
        ended += 1;
        report.take(answer);
        progress.inc(1);
        if ended % every == 0 || ended == plan.requests {
            report.memory.extend(node.memory().map(|bytes| (ended, bytes)));
        }
    }
    drop(answers);
    report.seconds = started.elapsed().as_secs_f64();
    report.kept = given_back(&node).await?;
    report.warnings = node.warnings();
    report.first_token.sort_unstable_by(f64::total_cmp);
    report.gaps.sort_unstable_by(f64::total_cmp);
    Ok(report)
}

/// Waits until the node has everything back; what it still misses at the deadline.
async fn given_back(node: &NodeProcess) -> Result<(u32, u32), LoadTestError> {
    let deadline = Instant::now() + GIVE_BACK_DEADLINE;
    loop {
        let numbers = node.client.state().await?.numbers;
        let kept = (numbers.requests_running, numbers.kv_tokens);
        if kept == (0, 0) || Instant::now() > deadline {
            return Ok(kept);
        }
        tokio::time::sleep(GIVE_BACK_INTERVAL).await;
    }
}

impl LoadReport {
    fn empty() -> Self {
        Self {
            answered: 0,
            hung_up: 0,
            refused: 0,
            errors: Vec::new(),
            error_count: 0,
            warnings: Vec::new(),
            tokens: 0,
            seconds: 0.0,
            first_token: Vec::new(),
            gaps: Vec::new(),
            honest: Vec::new(),
            planted: Vec::new(),
            memory: Vec::new(),
            kept: (0, 0),
        }
    }

    fn take(&mut self, answer: Result<Answered, String>) {
        match answer {
            Ok(mut answer) => {
                self.answered += u32::from(!answer.hung_up);
                self.hung_up += u32::from(answer.hung_up);
                self.refused += answer.refused;
                self.tokens += answer.tokens;
                self.first_token.extend(answer.first_token);
                self.gaps.append(&mut answer.gaps);
                self.honest.extend(answer.honest);
                self.planted.extend(answer.planted);
            }
            Err(error) => {
                self.error_count += 1;
                if self.errors.len() < ERRORS_MAX {
                    self.errors.push(error);
                }
            }
        }
    }

    /// Bytes that the node held when so many percent of the requests had ended.
    pub fn memory_at(&self, percent: u32) -> u64 {
        let last = self.memory.last().map_or(0, |(ended, _)| u64::from(*ended));
        let wanted = last * u64::from(percent) / 100;
        let found = self.memory.iter().find(|(ended, _)| u64::from(*ended) >= wanted);
        found.map_or(0, |(_, bytes)| *bytes)
    }

    /// Bytes that a request leaves behind: the slope of memory from the tenth part of the requests on (least squares).
    pub fn bytes_per_request(&self) -> f64 {
        let from = self.memory.last().map_or(0, |(ended, _)| ended / 10);
        let points = || {
            let late = self.memory.iter().filter(move |(ended, _)| *ended >= from);
            late.map(|(ended, bytes)| (f64::from(*ended), *bytes as f64))
        };
        let count = points().count().max(1) as f64;
        let (x, y) = points().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
        let (top, bottom) = points().fold((0.0, 0.0), |(top, bottom), point| {
            (top + (point.0 - x) * (point.1 - y), bottom + (point.0 - x) * (point.0 - x))
        });
        if bottom > 0.0 {
            top / bottom
        } else {
            0.0
        }
    }

    /// As lines for people and programs.
    pub fn lines(&self) -> Vec<Measurement> {
        let mebibytes = |percent| self.memory_at(percent) as f64 / f64::from(1 << 20);
        let list = [
            ("requests_answered", f64::from(self.answered), "requests"),
            ("requests_hung_up", f64::from(self.hung_up), "requests"),
            ("refusals", f64::from(self.refused), "answers of 429"),
            ("errors", f64::from(self.error_count), "requests"),
            ("warnings", self.warnings.len() as f64, "lines"),
            ("seconds", self.seconds, "s"),
            ("tokens", self.tokens as f64 / self.seconds.max(f64::MIN_POSITIVE), "tokens/s"),
            ("first_token_p50", quantile(&self.first_token, 50), "s"),
            ("first_token_p99", quantile(&self.first_token, 99), "s"),
            ("between_tokens_p50", quantile(&self.gaps, 50), "s"),
            ("between_tokens_p99", quantile(&self.gaps, 99), "s"),
            ("honest_verified", self.honest.len() as f64, "answers"),
            ("honest_distance", distance(&self.honest), "1/1024 nat a token"),
            ("planted_verified", self.planted.len() as f64, "answers"),
            ("planted_distance", distance(&self.planted), "1/1024 nat a token"),
            ("memory_at_10_percent", mebibytes(10), "MiB"),
            ("memory_at_50_percent", mebibytes(50), "MiB"),
            ("memory_at_100_percent", mebibytes(100), "MiB"),
            ("memory_per_request", self.bytes_per_request(), "bytes"),
            ("permits_kept", f64::from(self.kept.0), "requests"),
            ("kv_tokens_kept", f64::from(self.kept.1), "tokens"),
        ];
        list.map(|(name, value, unit)| Measurement { name: name.into(), value, unit }).into()
    }
}

/// Mean distance of a token.
fn distance(figures: &[Figures]) -> f64 {
    let sums = figures
        .iter()
        .fold((0, 0), |(sum, tokens), one| (sum + one.distance_sum, tokens + u64::from(one.tokens)));
    sums.0 as f64 / sums.1 as f64
}

/// Of sorted values.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let place = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_slope_after_the_beginning() {
        let mut report = LoadReport::empty();
        // Warming up, then 7 bytes a request.
        report.memory = (1..=100).map(|n| (n, if n < 10 { 1 } else { 1_000 + 7 * u64::from(n) })).collect();
        assert!((report.bytes_per_request() - 7.0).abs() < 1e-6);
        assert_eq!([10, 50, 100].map(|percent| report.memory_at(percent)), [1_070, 1_350, 1_700]);
        assert_eq!(LoadReport::empty().bytes_per_request(), 0.0);
    }

    #[test]
    fn quantiles_are_of_sorted_values() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!((quantile(&values, 50), quantile(&values, 99)), (50.0, 99.0));
        assert!(quantile(&[], 50).is_nan());
    }
}
