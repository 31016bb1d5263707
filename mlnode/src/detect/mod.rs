//! `starling-mlnode detect`: how soon hosts that do something else than the profile says are found out.
//!
//! Each cheat answers the same clients' questions through the real engine, dressed in two ways: *naive*, with the
//! log-probabilities that it has itself, and *laundered*, with those that the true model gives to its text. A verifier
//! with the true model replays and measures every answer.

mod source;
mod weights;

pub use weights::{write_model, Edit, EditError};

use crate::{
    calibrate::{answer, check, load_spec, Kind, Question, Sizes, Workload},
    loader::{FolderLoader, LibtorchLoader, LoadError, Loaded, Loader},
    model::Precision,
    source::{Resources, SourceError, TokenSource},
};
use indicatif::ProgressBar;
use serde::Serialize;
use source::{Cheating, Trick};
use starling_math::evidence::{bits, step, ACCUSES, UNIT};
use starling_mlnode_api::VerifyOutcome;
use starling_primitives::{
    profile::{Calibration, Numerics},
    request::SamplingParams,
    transcript::Transcript,
    verdict::Figures,
};
use starling_prompt::{openai::ChatMessage, Tokenizer};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// Sequences together.
const BATCH: usize = 32;
/// Tokens of a prompt, about: clients' questions are short, and so are sprints' prompts.
const PROMPT_MAX: u32 = 64;
/// How often the same answers are gone through before a test counts as never convicting.
const ROUNDS_MAX: usize = 40;
/// What a client with common settings asks for; every other question is sampled without filters.
const FILTERED: SamplingParams =
    SamplingParams { temperature_milli: 700, top_p: 9_500, ..SamplingParams::GREEDY };
const SAMPLED: SamplingParams = SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };
/// Answers that are cut off or ended early have so many tokens.
const CUT_AT: u32 = 6;

/// What to run.
#[derive(Clone, Debug)]
pub struct DetectionPlan {
    /// The model folder: what the profile promises.
    pub folder: PathBuf,
    /// What everybody computes with: with the weights, what the class of the profile follows from.
    pub precision: Precision,
    /// The profile's limits.
    pub calibration: Calibration,
    /// Answers of each cheat.
    pub answers: u32,
    /// Tokens of an answer at most.
    pub tokens: u32,
    /// Questions follow from it.
    pub seed: u64,
    /// Threads of everybody.
    pub threads: u32,
    /// Whether prompts are without a pattern, as in sprints, instead of clients' questions.
    pub patternless: bool,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectionError {
    /// A model was not loaded.
    #[error("cannot load a model")]
    Load(#[from] LoadError),
    /// A cheat's model was not made.
    #[error("cannot make a cheat's model")]
    Edit(#[from] EditError),
    /// There is no folder for it.
    #[error("there is no room for a cheat's model")]
    Folder(#[from] std::io::Error),
    /// A step failed.
    #[error("a step failed")]
    Step(#[from] SourceError),
    /// An answer was neither refused nor measured.
    #[error("an answer was not checked: {0}")]
    NotChecked(String),
    /// The model cannot be asked.
    #[error("the model has no chat template or no words to ask about")]
    NoQuestions,
}

/// How an answer is dressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dress {
    /// By the profile's model, as it is.
    Honest,
    /// With the cheat's own log-probabilities.
    Naive,
    /// With the true model's log-probabilities of the cheat's text.
    Laundered,
}

/// When a check convicts: medians over all answers that a watch can begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Until {
    /// Answers.
    pub answers: u32,
    /// Their tokens.
    pub tokens: u64,
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub cheat: String,
    /// How it was dressed.
    pub dress: Dress,
    /// Answers.
    pub answers: u32,
    /// Their tokens.
    pub tokens: u64,
    /// Answers with other tokens than the honest ones.
    pub differ: u32,
    /// Answers that do not replay.
    pub replay_failed: u32,
    /// Answers that replay and lie beyond a limit.
    pub beyond_limits: u32,
    /// Answers that do not replay although they are the honest ones, token for token.
    pub wronged: u32,
    /// Mean distance of a token of what was measured, in 1/1024 nat.
    pub distance: f64,
    /// Mean margin of a token of what was measured, in 1/1024 nat.
    pub margin: f64,
    /// Mean log2 of the e-value of an answer within the limits, in bits.
    pub bits: f64,
    /// Until an answer does not replay.
    pub until_replay: Option<Until>,
    /// Until a single verdict lies beyond the limits.
    pub until_verdict: Option<Until>,
    /// Until the sequential test accuses.
    pub until_accused: Option<Until>,
}

/// What a host does instead of what the profile says.
struct Cheat {
    name: &'static str,
    /// Other weights to write with; those of the profile otherwise.
    weights: Option<Edit>,
    /// What the profile's weights are made into first.
    truth: Option<Edit>,
    trick: Trick,
}

/// Runs the honest hosts and all cheats; `found` gets each row as it is done. The bar moves once for each answer and once
/// for each check.
pub fn detect(
    plan: &DetectionPlan,
    progress: &ProgressBar,
    mut found: impl FnMut(&Row),
) -> Result<Vec<Row>, DetectionError> {
    let mut court = Court::new(plan, &plan.folder, progress)?;
    let mut cheats = cheats(&court.tokenizer)?;
    // Weights of f32 that are rounded are a cheat in f32 alone.
    cheats.retain(|cheat| cheat.truth.is_none() || court.checker.numerics() == Numerics::F32.name());
    progress.set_length((3 + 2 * cheats.len() as u64) * 2 * u64::from(plan.answers));
    let mut rows = Vec::new();
    let mut add = |row: Row| {
        found(&row);
        rows.push(row);
    };
    let honest = court.honest.clone();
    add(court.row("none: the engine's kernels", Dress::Honest, &honest)?);
    if let Ok(mut loaded) = LibtorchLoader::processor(plan.precision).load(&load_spec(plan.folder.clone())) {
        let transcripts = court.answers(loaded.source.as_mut(), u32::MAX)?;
        add(court.row("none: libtorch", Dress::Honest, &transcripts)?);
    }
    let cut_off = court.answers(load(plan, &plan.folder)?.source.as_mut(), CUT_AT)?;
    add(court.row("answer cut off in silence", Dress::Naive, &cut_off)?);
    for cheat in &cheats {
        progress.set_message(cheat.name);
        let truth = cheat.truth.map(|edit| copy(&plan.folder, edit)).transpose()?;
        let truth_folder = truth.as_ref().map_or(plan.folder.as_path(), |folder| folder.path());
        let writer = cheat.weights.map(|edit| copy(truth_folder, edit)).transpose()?;
        let writer_folder = writer.as_ref().map_or(truth_folder, |folder| folder.path());
        let mut other = truth.as_ref().map(|_| Court::new(plan, truth_folder, progress)).transpose()?;
        let court = other.as_mut().unwrap_or(&mut court);
        for dress in [Dress::Naive, Dress::Laundered] {
            let shown = (dress == Dress::Laundered).then(|| load(plan, truth_folder)).transpose()?;
            let shown = shown.map(|loaded| loaded.source);
            let mut source = Cheating::new(load(plan, writer_folder)?.source, cheat.trick.clone(), shown);
            let transcripts = court.answers(&mut source, u32::MAX)?;
            add(court.row(cheat.name, dress, &transcripts)?);
        }
    }
    Ok(rows)
}

fn load(plan: &DetectionPlan, folder: &Path) -> Result<Loaded, LoadError> {
    FolderLoader { precision: plan.precision }.load(&load_spec(folder.into()))
}

/// A changed copy of a model folder; gone with this value.
fn copy(folder: &Path, edit: Edit) -> Result<TempDir, DetectionError> {
    let copy = tempfile::tempdir()?;
    write_model(folder, copy.path(), edit)?;
    Ok(copy)
}

fn cheats(tokenizer: &Tokenizer) -> Result<Vec<Cheat>, DetectionError> {
    let weights = |name, edit| Cheat { name, weights: Some(edit), truth: None, trick: Trick::None };
    let trick = |name, trick| Cheat { name, weights: None, truth: None, trick };
    let canned = tokenizer.encode("I am sorry, I cannot help with that.").unwrap_or_default();
    let end = *tokenizer.bundle().eos_token_ids.first().ok_or(DetectionError::NoQuestions)?;
    let canned = [canned, vec![end]].concat();
    Ok(vec![
        weights("weights moved by 25 %", Edit::Moved(0.25)),
        weights("weights moved by 5 %", Edit::Moved(0.05)),
        weights("weights moved by 1 %", Edit::Moved(0.01)),
        weights("last layer left out", Edit::WithoutLastLayer),
        weights("int4 weights, groups of 32", Edit::Integers(4)),
        weights("int8 weights, groups of 32", Edit::Integers(8)),
        Cheat { truth: Some(Edit::Finer), ..weights("bf16 weights instead of f32", Edit::Bf16) },
        trick("another system prompt", Trick::Before(hidden_prompt(tokenizer)?)),
        trick(
            "half the temperature",
            Trick::Sampling(|params| SamplingParams {
                temperature_milli: params.temperature_milli / 2,
                ..params
            }),
        ),
        trick("top_p 0.5", Trick::Sampling(|params| SamplingParams { top_p: 5_000, ..params })),
        trick("answer ended early", Trick::EndsAt(CUT_AT, end)),
        trick("canned answer", Trick::Canned(canned)),
    ])
}

/// What a system message adds before a question.
fn hidden_prompt(tokenizer: &Tokenizer) -> Result<Vec<u32>, DetectionError> {
    let user = ChatMessage::new("user", "?");
    let system = ChatMessage::new("system", "Answer in as few words as you can.");
    let without = tokenizer.render(std::slice::from_ref(&user));
    let with = tokenizer.render(&[system, user]);
    let (Ok(with), Ok(without)) = (with, without) else { return Err(DetectionError::NoQuestions) };
    let same = with.iter().rev().zip(without.iter().rev()).take_while(|(a, b)| a == b).count();
    Ok(with.get(..with.len() - same).unwrap_or_default().to_vec())
}

/// Who has the true model, and all questions.
struct Court<'a> {
    checker: Box<dyn TokenSource>,
    tokenizer: Arc<Tokenizer>,
    questions: Vec<Question>,
    /// What an honest host answers.
    honest: Vec<Transcript>,
    calibration: Calibration,
    resources: Resources,
    progress: &'a ProgressBar,
}

impl<'a> Court<'a> {
    fn new(plan: &DetectionPlan, folder: &Path, progress: &'a ProgressBar) -> Result<Self, DetectionError> {
        let Loaded { mut source, tokenizer, .. } = load(plan, folder)?;
        let resources = Resources { threads: plan.threads, prefix_tokens: 0 };
        source.use_resources(&resources);
        let (shape, sizes) = (source.shape(), Sizes { prompt_max: PROMPT_MAX, answer_max: plan.tokens });
        let mut workload =
            Workload::new(Arc::clone(&tokenizer), shape.vocab_size, shape.top_k, sizes, plan.seed);
        let params = [FILTERED, SAMPLED].into_iter().cycle();
        let questions = params.take(plan.answers as usize).map(|params| {
            if plan.patternless {
                return Some(workload.patternless(SAMPLED));
            }
            workload.client(params)
        });
        let questions = questions.collect::<Option<Vec<_>>>().ok_or(DetectionError::NoQuestions)?;
        let calibration = plan.calibration;
        let mut court =
            Self { checker: source, tokenizer, questions, honest: vec![], calibration, resources, progress };
        court.honest =
            answers(&court.tokenizer, court.checker.as_mut(), &court.questions, u32::MAX, progress)?;
        Ok(court)
    }

    /// What a source answers, each answer cut off after so many tokens.
    fn answers(&self, source: &mut dyn TokenSource, cut_at: u32) -> Result<Vec<Transcript>, SourceError> {
        source.use_resources(&self.resources);
        answers(&self.tokenizer, source, &self.questions, cut_at, self.progress)
    }

    /// Checks answers, and says what a network would have made of them.
    fn row(&mut self, cheat: &str, dress: Dress, answers: &[Transcript]) -> Result<Row, DetectionError> {
        let outcomes = check(self.checker.as_mut(), &self.questions, answers, BATCH, self.progress)?;
        let mut judged = Vec::with_capacity(outcomes.len());
        for ((outcome, answer), honest) in outcomes.into_iter().zip(answers).zip(&self.honest) {
            let figures = match outcome {
                VerifyOutcome::Figures(figures) => Some(figures),
                VerifyOutcome::ReplayFailed { .. } => None,
                VerifyOutcome::ConstraintBroken { reason } | VerifyOutcome::Failed { reason } => {
                    return Err(DetectionError::NotChecked(reason))
                }
            };
            let tokens = answer.tokens().unwrap_or_default();
            let same = honest.tokens().is_ok_and(|honest| honest == tokens);
            judged.push(Judged { tokens: tokens.len() as u64, same, figures });
        }
        Ok(table_row(cheat, dress, &judged, &self.calibration))
    }
}

fn answers(
    tokenizer: &Tokenizer,
    source: &mut dyn TokenSource,
    questions: &[Question],
    cut_at: u32,
    progress: &ProgressBar,
) -> Result<Vec<Transcript>, SourceError> {
    let ends = |question: &Question, completion: &[u32]| {
        let ended = || completion.last().is_some_and(|token| tokenizer.is_eos(*token));
        completion.len() as u32 >= cut_at || (question.kind == Kind::Chat && ended())
    };
    answer(source, questions, BATCH, ends, progress)
}

/// An answer with what came of it.
#[derive(Clone, Copy, Debug)]
struct Judged {
    tokens: u64,
    /// Whether it is the honest answer.
    same: bool,
    /// `None`: it does not replay.
    figures: Option<Figures>,
}

impl Judged {
    /// Log2 of the e-value in 1/256 bit, if it replays and lies within the limits.
    fn bits(&self, calibration: &Calibration) -> Option<i32> {
        bits(self.figures.as_ref()?, calibration)
    }

    fn is_beyond(&self, calibration: &Calibration) -> bool {
        self.figures.is_some() && self.bits(calibration).is_none()
    }
}

fn table_row(cheat: &str, dress: Dress, judged: &[Judged], calibration: &Calibration) -> Row {
    let count = |wanted: &dyn Fn(&Judged) -> bool| judged.iter().filter(|one| wanted(one)).count() as u32;
    let measured: Vec<Figures> = judged.iter().filter_map(|one| one.figures).collect();
    let measured_tokens = measured.iter().map(|f| u64::from(f.tokens)).sum::<u64>().max(1) as f64;
    let mean = |sum: fn(&Figures) -> u64| measured.iter().map(sum).sum::<u64>() as f64 / measured_tokens;
    let bets: Vec<i32> = judged.iter().filter_map(|one| one.bits(calibration)).collect();
    let total: i64 = bets.iter().map(|bits| i64::from(*bits)).sum();
    Row {
        cheat: cheat.into(),
        dress,
        answers: judged.len() as u32,
        tokens: judged.iter().map(|one| one.tokens).sum(),
        differ: count(&|one| !one.same),
        replay_failed: count(&|one| one.figures.is_none()),
        beyond_limits: count(&|one| one.is_beyond(calibration)),
        wronged: count(&|one| one.same && one.figures.is_none()),
        distance: mean(|figures| figures.distance_sum),
        margin: mean(|figures| figures.margin_sum),
        bits: total as f64 / f64::from(UNIT) / bets.len().max(1) as f64,
        until_replay: until(judged, || |one: &Judged| one.figures.is_none()),
        until_verdict: until(judged, || |one: &Judged| one.is_beyond(calibration)),
        until_accused: until(judged, || {
            let mut product = 0;
            move |one: &Judged| {
                product = one.bits(calibration).map_or(product, |bits| step(product, bits));
                product >= ACCUSES
            }
        }),
    }
}

/// How long a watch takes until it convicts, from wherever in the stream of answers it begins: the median, unless most
/// never do. `watch` begins a watch; the stream repeats.
fn until<W: FnMut(&Judged) -> bool>(judged: &[Judged], watch: impl Fn() -> W) -> Option<Until> {
    let mut lengths = Vec::with_capacity(judged.len());
    for start in 0..judged.len() {
        let mut convicts = watch();
        let mut seen = Until { answers: 0, tokens: 0 };
        let convicted = judged.iter().cycle().skip(start).take(judged.len() * ROUNDS_MAX).any(|one| {
            seen.answers += 1;
            seen.tokens += one.tokens;
            convicts(one)
        });
        lengths.push(if convicted { seen } else { Until { answers: u32::MAX, tokens: u64::MAX } });
    }
    lengths.sort_unstable_by_key(|length| (length.tokens, length.answers));
    lengths.get(lengths.len() / 2).copied().filter(|length| length.answers < u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALIBRATION: Calibration = Calibration { distance_limit: 8, margin_limit: 8, short_allowance: 0 };

    fn judged(distance: Option<u64>) -> Judged {
        let figures = |distance| Figures { tokens: 10, distance_sum: distance * 10, margin_sum: 0 };
        Judged { tokens: 10, same: false, figures: distance.map(figures) }
    }

    #[test]
    fn a_row_tells_the_checks_apart() {
        let row =
            table_row("x", Dress::Naive, &[judged(Some(1)), judged(None), judged(Some(9))], &CALIBRATION);
        assert_eq!((row.answers, row.tokens, row.replay_failed, row.beyond_limits), (3, 30, 1, 1));
        // From the three beginnings: two answers, one, three (the last one, then the first two).
        assert_eq!(row.until_replay, Some(Until { answers: 2, tokens: 20 }));
        assert_eq!(row.until_verdict, Some(Until { answers: 2, tokens: 20 }));
        assert_eq!(row.until_accused, None);
    }

    #[test]
    fn what_stays_within_the_limits_is_accused_in_time() {
        // Seven eighths of the limit and more: four bits each.
        let row = table_row("x", Dress::Naive, &[judged(Some(8)), judged(Some(8))], &CALIBRATION);
        assert_eq!((row.until_verdict, row.until_accused), (None, Some(Until { answers: 10, tokens: 100 })));
        let honest = table_row("x", Dress::Honest, &[judged(Some(2)); 5], &CALIBRATION);
        assert_eq!((honest.until_accused, honest.bits), (None, -107.0 / 256.0));
    }
}
