//! `starling-mlnode calibrate`: what honest hosts differ by, and the limits of a profile that follow.
//!
//! Pairs of honest engines answer and check thousands of questions: decoding against a teacher-forced pass, alone and in
//! batches, on one thread and on several, and the engine's kernels against libtorch's, which stand for other devices. The
//! limits are made from one set of questions and checked on another.

mod limits;
mod report;
mod run;
mod workload;

pub use limits::{
    fit, quantiles, worth, LengthRow, Quantile, Sample, Tails, DISTANCE_FLOOR, LENGTHS, MARGIN_FLOOR,
};
pub use report::{Again, Bet, CalibrationReport, NotRun, PairReport, Stratum};
pub(crate) use run::{answer, check};
pub use workload::{Kind, Question, Sizes, Workload};

use crate::{
    kernel::Isa,
    loader::{FolderLoader, LibtorchLoader, LoadError, LoadSpec, Loader},
    model::Precision,
    source::{Resources, SourceError, TokenSource},
};
use indicatif::ProgressBar;
use report::{bets, highest_product, strata};
use serde::Serialize;
use starling_mlnode_api::{ModelDigest, VerifyOutcome};
use starling_primitives::{profile::MAX_K, transcript::Transcript};
use starling_prompt::Tokenizer;
use std::{path::PathBuf, sync::Arc};

/// False alarms that the calibration allows: one honest answer in so many beyond a limit.
pub const FALSE_ALARM_ONE_IN: u32 = 1_000;
/// Questions that are asked together.
const PORTION: usize = 256;
/// Transcripts that are checked together.
const CHECK_BATCH: usize = 16;
/// One in so many answers is generated a second time in another way, to compare the bytes.
const REPEATED_ONE_IN: usize = 8;

/// What to run.
#[derive(Clone, Debug)]
pub struct CalibrationPlan {
    /// The model folder.
    pub folder: PathBuf,
    /// Answers that the limits are made from; half as many fresh ones check them.
    pub sequences: u32,
    /// Questions follow from it.
    pub seed: u64,
    /// Threads; some answers are repeated on one more.
    pub threads: u32,
    /// Lengths of prompts and answers.
    pub sizes: Sizes,
    /// What is computed with: with the weights, what the class of the profile follows from.
    pub precision: Precision,
    /// libtorch, if it takes part: on another device, or on the processor, where it stands for other devices.
    pub libtorch: Option<LibtorchLoader>,
}

/// Why there is no calibration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// The model was not loaded.
    #[error("cannot load the model")]
    Load(#[from] LoadError),
    /// A step failed.
    #[error("a step failed")]
    Step(#[from] SourceError),
    /// An honest transcript does not replay: a defect of the engine.
    #[error("an honest transcript was not measured: {0:?}")]
    NotMeasured(VerifyOutcome),
}

/// How an engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Way {
    engine: Engine,
    /// Sequences together.
    batch: usize,
    threads: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Engine {
    Kernels,
    Libtorch,
}

/// Who answers and who checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    answers: Way,
    checks: Way,
    /// Where the same bytes must come out: a second way to answer.
    repeats: Option<Way>,
    /// Share of the questions, in eighths.
    eighths: u32,
}

/// Runs everything. The bar moves once for each answer and once for each check.
pub fn calibrate(
    plan: &CalibrationPlan,
    progress: &ProgressBar,
) -> Result<CalibrationReport, CalibrationError> {
    let mut bench = Bench::load(plan)?;
    let pairs = pairs(plan.threads, bench.libtorch.is_some());
    let fresh = plan.sequences / 2;
    progress.set_length(2 * u64::from(plan.sequences + fresh));
    let mut reports: Vec<PairReport> = pairs.iter().map(Pair::report).collect();
    progress.set_message("limits");
    let made = bench.samples(plan, &pairs, plan.seed, plan.sequences, &mut reports, progress)?;
    let calibration = fit(&made);
    progress.set_message("check");
    let checked = bench.samples(plan, &pairs, plan.seed ^ u64::MAX, fresh, &mut reports, progress)?;
    for report in &mut reports {
        report.distance /= report.tokens.max(1) as f64;
        report.margin /= report.tokens.max(1) as f64;
    }
    let checked_on = Tails::of(checked.iter(), &calibration);
    let checked_by = strata(&checked, &calibration);
    let false_alarms_at_most = checked_on.false_alarms_at_most();
    let enough = f64::from(FALSE_ALARM_ONE_IN).recip();
    let rate_holds = (checked_on.beyond_limit as f64) <= checked_on.answers as f64 * enough;
    Ok(CalibrationReport {
        model: bench.digest,
        numerics: bench.kernels.numerics(),
        top_k: MAX_K,
        bets: bets(),
        quantiles: quantiles(&made),
        pairs: reports,
        not_run: bench.not_run,
        made_from: Tails::of(made.iter(), &calibration),
        holds: checked_on.hold() && rate_holds,
        checked_on,
        checked_by,
        false_alarms_at_most,
        highest_product_bits: highest_product(&checked, &calibration),
        calibration,
        seed: plan.seed,
        prompt_max: plan.sizes.prompt_max,
        answer_max: plan.sizes.answer_max,
        instructions: format!("{:?}", Isa::detect()).to_lowercase(),
    })
}

/// Who answers whom. Half of the questions go through the kernels alone, where only rounding is to be seen; half through
/// both engines, a quarter each way.
fn pairs(threads: u32, libtorch: bool) -> Vec<Pair> {
    let kernels = |batch, threads| Way { engine: Engine::Kernels, batch, threads };
    let checks = kernels(CHECK_BATCH, threads);
    let (alone, threaded) = (kernels(1, threads), kernels(8, threads + 1));
    let own = [
        Pair { answers: kernels(8, threads), checks, repeats: Some(alone), eighths: 2 },
        Pair { answers: kernels(32, threads), checks: alone, repeats: Some(threaded), eighths: 2 },
    ];
    if !libtorch {
        return own.map(|pair| Pair { eighths: 4, ..pair }).into();
    }
    let torch = |batch| Way { engine: Engine::Libtorch, batch, threads };
    let both = [
        Pair { answers: kernels(32, threads), checks: torch(CHECK_BATCH), repeats: None, eighths: 2 },
        Pair { answers: torch(32), checks, repeats: None, eighths: 2 },
    ];
    [own, both].concat()
}

impl Way {
    fn name(&self) -> String {
        let engine = match self.engine {
            Engine::Kernels => "kernels",
            Engine::Libtorch => "libtorch",
        };
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        format!("{engine}, batch {}, {} {threads}", self.batch, self.threads)
    }
}

impl Pair {
    fn report(&self) -> PairReport {
        PairReport {
            name: format!("{} -> {}", self.answers.name(), self.checks.name()),
            answers: 0,
            tokens: 0,
            distance: 0.0,
            margin: 0.0,
            with_margin: 0,
            again: self.repeats.map(|way| Again { name: way.name(), ..Again::default() }),
        }
    }
}

/// The engines with the model.
struct Bench {
    kernels: Box<dyn TokenSource>,
    libtorch: Option<Box<dyn TokenSource>>,
    tokenizer: Arc<Tokenizer>,
    digest: ModelDigest,
    not_run: Vec<NotRun>,
}

impl Bench {
    fn load(plan: &CalibrationPlan) -> Result<Self, CalibrationError> {
        let spec = load_spec(plan.folder.clone());
        let loaded = FolderLoader { precision: plan.precision }.load(&spec)?;
        let skip = |pair: &str, reason: String| NotRun { pair: pair.into(), reason };
        let mut not_run = vec![skip(
            "one class -> another",
            "a profile has one class: f32 and bf16 on the same weights are two profiles".into(),
        )];
        let class = loaded.source.numerics();
        let other = match plan.libtorch.map(|loader| loader.load(&spec)) {
            Some(Ok(other)) if other.source.numerics() != class => {
                Err(format!("libtorch computes in {} there, the kernels in {class}", other.source.numerics()))
            }
            Some(Ok(loaded)) => Ok(loaded.source),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("switched off".into()),
        };
        let libtorch = other.map_err(|reason| not_run.push(skip("kernels <-> libtorch", reason))).ok();
        let (tokenizer, digest) = (loaded.tokenizer, loaded.digest);
        Ok(Self { kernels: loaded.source, libtorch, tokenizer, digest, not_run })
    }

    /// The engine, set up as it is wanted.
    fn source(&mut self, way: &Way) -> &mut dyn TokenSource {
        let source = match (way.engine, &mut self.libtorch) {
            (Engine::Libtorch, Some(libtorch)) => libtorch,
            _ => &mut self.kernels,
        };
        source.use_resources(&Resources { threads: way.threads, prefix_tokens: 0 });
        source.as_mut()
    }

    /// Has so many questions answered and checked.
    fn samples(
        &mut self,
        plan: &CalibrationPlan,
        pairs: &[Pair],
        seed: u64,
        count: u32,
        reports: &mut [PairReport],
        progress: &ProgressBar,
    ) -> Result<Vec<Sample>, CalibrationError> {
        let shape = self.kernels.shape();
        let tokenizer = Arc::clone(&self.tokenizer);
        let mut workload = Workload::new(tokenizer, shape.vocab_size, shape.top_k, plan.sizes, seed);
        let mut samples = Vec::with_capacity(count as usize);
        for ((index, pair), report) in pairs.iter().enumerate().zip(reports) {
            let mut left = (u64::from(count) * u64::from(pair.eighths) / 8) as usize;
            while left > 0 {
                let portion = left.min(PORTION);
                left -= portion;
                let questions: Vec<Question> = (0..portion).map(|_| workload.any()).collect();
                self.portion(index, pair, &questions, report, &mut samples, progress)?;
            }
        }
        Ok(samples)
    }

    fn portion(
        &mut self,
        index: usize,
        pair: &Pair,
        questions: &[Question],
        report: &mut PairReport,
        samples: &mut Vec<Sample>,
        progress: &ProgressBar,
    ) -> Result<(), CalibrationError> {
        let transcripts = self.answers(&pair.answers, questions, progress)?;
        if let (Some(way), Some(again)) = (pair.repeats, &mut report.again) {
            let some = questions.get(..questions.len().div_ceil(REPEATED_ONE_IN)).unwrap_or_default();
            let repeated = self.answers(&way, some, &ProgressBar::hidden())?;
            again.answers += repeated.len();
            again.same += repeated.iter().zip(&transcripts).filter(|(a, b)| a == b).count();
        }
        let source = self.source(&pair.checks);
        let outcomes = check(source, questions, &transcripts, pair.checks.batch, progress)?;
        for (question, outcome) in questions.iter().zip(outcomes) {
            let VerifyOutcome::Figures(figures) = outcome else {
                return Err(CalibrationError::NotMeasured(outcome));
            };
            report.answers += 1;
            report.tokens += u64::from(figures.tokens);
            report.distance += figures.distance_sum as f64;
            report.margin += figures.margin_sum as f64;
            report.with_margin += usize::from(figures.margin_sum > 0);
            samples.push(Sample { kind: question.kind, pair: index, figures });
        }
        Ok(())
    }

    fn answers(
        &mut self,
        way: &Way,
        questions: &[Question],
        progress: &ProgressBar,
    ) -> Result<Vec<Transcript>, SourceError> {
        let tokenizer = Arc::clone(&self.tokenizer);
        let ends = |question: &Question, completion: &[u32]| {
            question.kind == Kind::Chat && completion.last().is_some_and(|token| tokenizer.is_eos(*token))
        };
        answer(self.source(way), questions, way.batch, ends, progress)
    }
}

/// A folder, whole, for a source of one's own.
pub(crate) fn load_spec(folder: PathBuf) -> LoadSpec {
    LoadSpec { name: "model".into(), folder, top_k: MAX_K, max_context: u32::MAX, weights_digest: None }
}
