//! Where tokens come from: the seam between the engine, which knows sequences, and what runs a model.

use crate::{
    candidates::candidates,
    measure::{distance, margin, Own},
    model::{indices, to_f32, to_i64, During, ModelError, Qwen3, Rows, SequenceKv},
};
use starling_primitives::{
    profile::MAX_K,
    request::SamplingParams,
    sampler::sample_on,
    tape::Tape,
    transcript::{Candidate, TokenRecord},
    verdict::Figures,
};
use std::collections::{BTreeMap, HashMap};
use tch::{Kind, Tensor};

/// Names a sequence; given by the engine, never used twice.
pub type SequenceId = u64;

/// Rows whose distribution over the vocabulary is computed at once: bounds the memory of a large vocabulary.
const ROWS_MAX: usize = 64;

/// What a source can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Token ids lie below.
    pub vocab_size: u32,
    /// Tokens of a sequence at most.
    pub max_context: u32,
    /// Candidates per token.
    pub top_k: u8,
    /// Number of weights.
    pub parameters: u64,
}

/// A completion and what its tokens are drawn with.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// The noise.
    pub tape: &'a Tape,
    /// Sampling parameters.
    pub params: &'a SamplingParams,
    /// The completion as far as it is known; penalties look at the part before `position`.
    pub completion: &'a [u32],
    /// Place in the completion of the first token in question.
    pub position: u32,
}

/// What is wanted of a chunk.
#[derive(Clone, Copy, Debug)]
pub enum Task<'a> {
    /// Only take the tokens in.
    Extend,
    /// Choose the token that follows the last one.
    Choose(Draw<'a>),
    /// Compare what was committed with this pass: the records belong to the tokens that follow the chunk's last
    /// `records.len()` tokens.
    Measure(Draw<'a>, &'a [TokenRecord]),
}

impl Task<'_> {
    /// How many of the chunk's last tokens the task needs a distribution for.
    pub fn rows(&self) -> usize {
        match self {
            Self::Extend => 0,
            Self::Choose(_) => 1,
            Self::Measure(_, records) => records.len(),
        }
    }
}

/// New tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The sequence.
    pub sequence: SequenceId,
    /// Tokens that follow those already taken in; at least one.
    pub tokens: &'a [u32],
    /// What is wanted.
    pub task: Task<'a>,
}

/// Result of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Of [`Task::Extend`].
    Extended,
    /// Of [`Task::Choose`].
    Chosen(TokenRecord),
    /// Of [`Task::Measure`]: sums over the chunk's records.
    Measured(Figures),
}

/// Why a step failed. The sequences of the step are of no more use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The model failed.
    #[error("the model failed")]
    Model(#[from] ModelError),
    /// A chunk names a sequence that is not open, or twice the same.
    #[error("sequence {0} is not open")]
    NotOpen(SequenceId),
    /// The sampler refused the candidates.
    #[error("the sampler refused the candidates of sequence {0}")]
    Sampler(SequenceId),
    /// Another source's own reason.
    #[error("{0}")]
    Other(String),
}

/// Runs sequences. Lives on the engine's thread, so it need not be `Send`.
pub trait TokenSource {
    /// What it can do.
    fn shape(&self) -> Shape;
    /// Makes room for a sequence of at most `capacity` tokens.
    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError>;
    /// Forgets a sequence. Unknown ones are ignored.
    fn close(&mut self, sequence: SequenceId);
    /// Runs chunks of different sequences together; one output per chunk, in order.
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError>;
}

/// The honest source: a model, the quantisation and the integer sampler.
#[derive(Debug)]
pub struct ModelSource {
    model: Qwen3,
    top_k: u8,
    max_context: u32,
    sequences: HashMap<SequenceId, SequenceKv>,
}

/// Log-probabilities of one row, as far as they are of interest.
struct Row {
    top: Vec<(u32, f32)>,
    /// Of the tokens asked for, in order.
    asked: Vec<f32>,
}

impl ModelSource {
    /// Commits to `top_k` candidates per token (at most [`MAX_K`]) and takes no sequence above `max_context`.
    pub fn new(model: Qwen3, top_k: u8, max_context: u32) -> Self {
        let max_context = max_context.min(model.config().max_context);
        Self { model, top_k: top_k.clamp(1, MAX_K), max_context, sequences: HashMap::new() }
    }

    /// Runs the chunks' tokens through the model; one row of logits per row that a task needs.
    fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<Tensor, SourceError> {
        let mut caches = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let cache = self.sequences.remove(&chunk.sequence).ok_or(SourceError::NotOpen(chunk.sequence))?;
            caches.push((chunk.sequence, cache));
        }
        let mut batch: Vec<_> = caches
            .iter_mut()
            .zip(chunks)
            .map(|((_, kv), chunk)| Rows { kv, tokens: chunk.tokens, logits: chunk.task.rows() as u32 })
            .collect();
        let logits = self.model.forward(&mut batch);
        self.sequences.extend(caches);
        Ok(logits?)
    }

    /// Distributions of all rows that the tasks need, in order.
    fn rows(&self, logits: &Tensor, chunks: &[Chunk<'_>]) -> Result<Vec<Row>, SourceError> {
        let asked: Vec<&[Candidate]> = chunks
            .iter()
            .flat_map(|chunk| match chunk.task {
                Task::Extend => vec![],
                Task::Choose(_) => vec![&[] as &[Candidate]],
                Task::Measure(_, records) => records.iter().map(|r| r.candidates.as_slice()).collect(),
            })
            .collect();
        penalise(logits, chunks)?;
        let mut rows = Vec::with_capacity(asked.len());
        for (index, asked) in asked.chunks(ROWS_MAX).enumerate() {
            let block =
                logits.f_narrow(0, (index * ROWS_MAX) as i64, asked.len() as i64).during("taking rows")?;
            self.block(&block, asked, &mut rows)?;
        }
        Ok(rows)
    }

    fn block(&self, logits: &Tensor, asked: &[&[Candidate]], rows: &mut Vec<Row>) -> Result<(), SourceError> {
        let log_probs = logits.f_log_softmax(-1, Kind::Float).during("log_softmax")?;
        let vocab = self.model.config().vocab_size;
        let k = usize::from(self.top_k).min(vocab as usize);
        let (values, tokens) = log_probs.f_topk(k as i64, -1, true, true).during("topk")?;
        let (values, tokens) = (to_f32(&values)?, to_i64(&tokens)?);
        let width = asked.iter().map(|list| list.len()).max().unwrap_or(0);
        let gathered = if width > 0 { gather(&log_probs, asked, width, vocab)? } else { Vec::new() };
        for (i, list) in asked.iter().enumerate() {
            let range = i * k..(i + 1) * k;
            let (values, tokens) = (values.get(range.clone()), tokens.get(range));
            let top: Vec<(u32, f32)> = tokens
                .into_iter()
                .flatten()
                .zip(values.into_iter().flatten())
                .map(|(token, log_prob)| (*token as u32, *log_prob))
                .collect();
            if top.iter().any(|(_, log_prob)| log_prob.is_nan()) || top.is_empty() {
                return Err(ModelError::NotFinite.into());
            }
            let asked = gathered.get(i * width..i * width + list.len()).unwrap_or_default().to_vec();
            rows.push(Row { top, asked });
        }
        Ok(())
    }
}

impl TokenSource for ModelSource {
    fn shape(&self) -> Shape {
        Shape {
            vocab_size: self.model.config().vocab_size,
            max_context: self.max_context,
            top_k: self.top_k,
            parameters: self.model.parameters(),
        }
    }

    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError> {
        let cache = self.model.new_sequence(capacity.min(self.max_context))?;
        self.sequences.insert(sequence, cache);
        Ok(())
    }

    fn close(&mut self, sequence: SequenceId) {
        self.sequences.remove(&sequence);
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        let _no_grad = tch::no_grad_guard();
        let logits = self.forward(chunks)?;
        let mut rows = self.rows(&logits, chunks)?.into_iter();
        chunks
            .iter()
            .map(|chunk| match &chunk.task {
                Task::Extend => Ok(Output::Extended),
                Task::Choose(draw) => {
                    let row = rows.next().ok_or(SourceError::NotOpen(chunk.sequence))?;
                    choose(chunk.sequence, draw, row).map(Output::Chosen)
                }
                Task::Measure(draw, records) => {
                    let rows = rows.by_ref().take(records.len());
                    Ok(Output::Measured(measure(draw, records, rows, self.top_k)))
                }
            })
            .collect()
    }
}

fn choose(sequence: SequenceId, draw: &Draw<'_>, row: Row) -> Result<TokenRecord, SourceError> {
    let candidates = candidates(row.top);
    let chosen = sample_on(draw.tape, draw.position, &candidates, draw.params);
    let chosen = chosen.and_then(|index| u8::try_from(index).ok()).ok_or(SourceError::Sampler(sequence))?;
    Ok(TokenRecord { candidates, chosen })
}

fn measure(draw: &Draw<'_>, records: &[TokenRecord], rows: impl Iterator<Item = Row>, top_k: u8) -> Figures {
    let mut figures = Figures::default();
    for ((record, row), position) in records.iter().zip(rows).zip(draw.position..) {
        let own = Own { top: &row.top, committed: &row.asked };
        figures.tokens += 1;
        figures.distance_sum += u64::from(distance(record, &own, top_k));
        figures.margin_sum += u64::from(margin(record, &own, draw.tape, position, draw.params));
    }
    figures
}

/// Log-probabilities of the tokens asked for, `width` per row; what a row does not ask for is filled with token 0.
fn gather(
    log_probs: &Tensor,
    asked: &[&[Candidate]],
    width: usize,
    vocab: u32,
) -> Result<Vec<f32>, ModelError> {
    let mut tokens = vec![0i64; asked.len() * width];
    for (row, list) in tokens.chunks_mut(width).zip(asked) {
        for (place, candidate) in row.iter_mut().zip(*list) {
            // The replay refused what lies outside; this guards the memory whatever the caller did.
            *place = i64::from(candidate.token.min(vocab.saturating_sub(1)));
        }
    }
    let index = indices(&tokens)?.f_view([asked.len() as i64, width as i64]).during("gather")?;
    to_f32(&log_probs.f_gather(1, &index, false).during("gather")?)
}

/// Subtracts the OpenAI penalties from the logits, in place: `frequency x count + presence` for each token of the
/// completion so far.
fn penalise(logits: &Tensor, chunks: &[Chunk<'_>]) -> Result<(), ModelError> {
    let mut row = 0i64;
    for chunk in chunks {
        let rows = chunk.task.rows();
        if let Task::Choose(draw) | Task::Measure(draw, _) = &chunk.task {
            let (frequency, presence) =
                (draw.params.frequency_penalty_milli, draw.params.presence_penalty_milli);
            if frequency != 0 || presence != 0 {
                penalise_rows(logits, row, rows, draw)?;
            }
        }
        row += rows as i64;
    }
    Ok(())
}

fn penalise_rows(logits: &Tensor, first_row: i64, rows: usize, draw: &Draw<'_>) -> Result<(), ModelError> {
    let frequency = f32::from(draw.params.frequency_penalty_milli) / 1_000.0;
    let presence = f32::from(draw.params.presence_penalty_milli) / 1_000.0;
    let mut completion = draw.completion.iter();
    let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
    for token in completion.by_ref().take(draw.position as usize) {
        *counts.entry(*token).or_default() += 1.0;
    }
    for row in first_row..first_row + rows as i64 {
        if !counts.is_empty() {
            let tokens: Vec<i64> = counts.keys().map(|t| i64::from(*t)).collect();
            let penalties: Vec<f32> = counts.values().map(|count| -(frequency * count + presence)).collect();
            let penalties = Tensor::f_from_slice(&penalties).during("penalties")?;
            let mut place = logits.f_select(0, row).during("penalties")?;
            let _ = place.f_scatter_add_(0, &indices(&tokens)?, &penalties).during("penalties")?;
        }
        if let Some(token) = completion.next() {
            *counts.entry(*token).or_default() += 1.0;
        }
    }
    Ok(())
}
