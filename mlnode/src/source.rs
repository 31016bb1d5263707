//! Where tokens come from: the seam between the engine, which knows sequences, and what runs a model.

use crate::{
    candidates::candidates,
    constraint::constrain,
    distribution::Distribution,
    kernel::{Pool, Vector},
    measure::{distance, margin, Own},
    model::{KvBlock, Model, ModelError, Question, Rates, Rows, BLOCK_TOKENS},
    perturbation::perturb,
    prefix::{block_hash, PrefixCache},
};
use starling_mlnode_api::Perturbation;
use starling_primitives::{
    constraint::TokenBias,
    profile::MAX_K,
    request::SamplingParams,
    sampler::sample_on,
    tape::Tape,
    transcript::{Candidate, TokenRecord},
    verdict::Figures,
    H256,
};
use starling_prompt::TokenSet;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

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
    /// What is added to the logits.
    pub bias: &'a [TokenBias],
    /// The tokens that may stand at the places from `position` on; without an entry any may.
    pub allowed: &'a [Option<TokenSet>],
    /// Noise that is added to the logits before anything else.
    pub perturbation: Option<Perturbation>,
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
    /// Nothing yet: the same chunk is to be asked for again when the source calls its [`Waker`].
    Pending,
    /// The sequence is of no more use, the others are; with the reason, for the one who asked.
    Failed(String),
}

/// What a source calls, from any thread, when a step that gave nothing but [`Output::Pending`] is worth repeating.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

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

/// What a source may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Threads of its arithmetic, the engine's own included.
    pub threads: u32,
    /// Tokens whose keys and values may be kept after their sequence is closed.
    pub prefix_tokens: u32,
}

/// Runs sequences. Lives on the engine's thread, so it need not be `Send`.
///
/// Nothing has a default: a source around another one would drop silently what it does not know of.
pub trait TokenSource {
    /// What it can do.
    fn shape(&self) -> Shape;
    /// Tells it what it may use; called before the first sequence is opened.
    fn use_resources(&mut self, resources: &Resources);
    /// Gives it what to call when it has something to say outside of a step; called before the first sequence is opened.
    fn set_waker(&mut self, waker: Waker);
    /// Whether it decides itself which tokens run together: then a step offers it every token that is known.
    fn schedules(&self) -> bool;
    /// Makes room for keys and values of so many tokens, all sequences together, where the device wants that beforehand; called
    /// before the first sequence is opened.
    fn reserve(&mut self, tokens: u32) -> Result<(), SourceError>;
    /// Name of the class of its numerics, as in a profile.
    fn numerics(&self) -> &'static str;
    /// Measures the device that it runs on; `None` where that is the processor.
    fn rates(&self) -> Option<Result<Rates, SourceError>>;
    /// Number of weights that each token meets.
    fn parameters_per_token(&self) -> u64;
    /// Bytes of weights that a step of one token reads; 0 where that is not known.
    fn weight_bytes(&self) -> u64;
    /// Time spent so far on what a transcript takes beyond the model: from logits to candidates and the choice, or to
    /// figures. Zero where that is not known.
    fn transcript_time(&self) -> Duration;
    /// Takes in the beginning of an open, empty sequence's tokens as far as their keys and values are known from
    /// earlier ones, and returns how many that are: fewer than all. The sequence's own may be kept for others in turn.
    fn reuse(&mut self, sequence: SequenceId, tokens: &[u32]) -> u32;
    /// Makes room for a sequence of at most `capacity` tokens.
    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError>;
    /// Forgets a sequence. Unknown ones are ignored.
    fn close(&mut self, sequence: SequenceId);
    /// Runs chunks of different sequences together; one output per chunk, in order.
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError>;
}

/// The honest source: a model, the quantisation and the integer sampler.
#[derive(Debug)]
pub struct ModelSource<M: Model> {
    model: M,
    pool: Arc<Pool>,
    top_k: u8,
    max_context: u32,
    sequences: HashMap<SequenceId, Open<M::Kv>>,
    prefixes: PrefixCache<Arc<KvBlock>>,
    /// What the hashes of prefixes start from.
    identity: H256,
    transcript_time: Duration,
}

/// An open sequence.
#[derive(Debug)]
struct Open<Kv> {
    kv: Kv,
    shared: Option<Shared>,
}

/// Where a sequence stands whose blocks are kept for others.
#[derive(Debug)]
struct Shared {
    /// Hash of the last full block.
    hash: H256,
    /// Full blocks.
    blocks: usize,
    /// Tokens behind them.
    tail: Vec<u32>,
}

impl<M: Model> ModelSource<M> {
    /// Commits to `top_k` candidates per token (at most [`MAX_K`]) and takes no sequence above `max_context`. `identity`
    /// stands for the weights and how they are computed with. One thread until told otherwise.
    pub fn new(model: M, top_k: u8, max_context: u32, identity: H256) -> Self {
        let max_context = max_context.min(model.config().max_context);
        let mut source = Self {
            model,
            pool: Arc::new(Pool::new(1)),
            top_k: top_k.clamp(1, MAX_K),
            max_context,
            sequences: HashMap::new(),
            prefixes: PrefixCache::new(0),
            identity,
            transcript_time: Duration::ZERO,
        };
        source.model.set_pool(Arc::clone(&source.pool));
        source
    }

    /// Runs the chunks' tokens through the model.
    fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<(), SourceError> {
        let mut open = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let one = self.sequences.remove(&chunk.sequence).ok_or(SourceError::NotOpen(chunk.sequence))?;
            open.push((chunk.sequence, one));
        }
        let mut batch: Vec<_> = open
            .iter_mut()
            .zip(chunks)
            .map(|((_, one), chunk)| Rows {
                kv: &mut one.kv,
                tokens: chunk.tokens,
                logits: chunk.task.rows() as u32,
            })
            .collect();
        let result = self.model.forward(&mut batch);
        if result.is_ok() {
            for ((_, one), chunk) in open.iter_mut().zip(chunks) {
                keep_blocks::<M>(&mut self.prefixes, one, chunk.tokens);
            }
        }
        self.sequences.extend(open);
        Ok(result?)
    }

    /// Distributions of all rows that the tasks need, in order.
    fn distributions(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Distribution>, SourceError> {
        let wanted: Vec<Wanted<'_>> = chunks.iter().flat_map(Wanted::of).collect();
        let k = usize::from(self.top_k);
        // What a grammar allows is a long list, and known here: such rows are looked at here, wherever the model runs.
        if M::DISTRIBUTES && wanted.iter().all(|row| row.allowed().is_none()) {
            let questions: Vec<Question> = wanted.iter().map(Wanted::question).collect();
            let (mut all, time) = self.model.distributions(k, &questions)?;
            self.transcript_time += time;
            // Noise is made here. The rows beside it were answered as they would have been without it.
            for (row, (wanted, answer)) in wanted.iter().zip(&mut all).enumerate() {
                if wanted.draw.perturbation.is_some() {
                    *answer = self
                        .look_at(row, std::slice::from_ref(wanted))?
                        .pop()
                        .ok_or(ModelError::NotFinite)?;
                }
            }
            return Ok(all);
        }
        self.look_at(0, &wanted)
    }

    /// Distributions of the rows from `first` on, out of their logits.
    fn look_at(&mut self, first: usize, wanted: &[Wanted<'_>]) -> Result<Vec<Distribution>, SourceError> {
        let k = usize::from(self.top_k);
        let vector = Vector::new(self.pool.isa());
        let mut all = Vec::with_capacity(wanted.len());
        for (index, block) in wanted.chunks(ROWS_MAX).enumerate() {
            let first = first + index * ROWS_MAX;
            let logits = self.model.logits(first..first + block.len())?;
            let started = Instant::now();
            for (row, wanted) in block.iter().enumerate() {
                wanted.perturb(logits.row_mut(row));
                wanted.penalise(logits.row_mut(row));
                wanted.constrain(logits.row_mut(row));
            }
            let results: Vec<OnceLock<Option<Distribution>>> =
                block.iter().map(|_| OnceLock::new()).collect();
            let logits = &*logits;
            self.pool.run(block.len(), &|row| {
                if let (Some(wanted), Some(result)) = (block.get(row), results.get(row)) {
                    let asked = wanted.asked.iter().map(|candidate| candidate.token);
                    // Set once: every row is a part of its own.
                    let _ = result.set(Distribution::new(vector, logits.row(row), k, asked));
                }
            });
            for result in results {
                all.push(result.into_inner().flatten().ok_or(ModelError::NotFinite)?);
            }
            self.transcript_time += started.elapsed();
        }
        Ok(all)
    }
}

/// Keeps the blocks that these tokens filled.
fn keep_blocks<M: Model>(prefixes: &mut PrefixCache<Arc<KvBlock>>, one: &mut Open<M::Kv>, tokens: &[u32]) {
    let Some(shared) = &mut one.shared else { return };
    shared.tail.extend_from_slice(tokens);
    let mut full = 0;
    for tokens in shared.tail.chunks_exact(BLOCK_TOKENS) {
        shared.hash = block_hash(&shared.hash, tokens);
        if let Some(block) = M::full_block(&one.kv, shared.blocks) {
            prefixes.keep(shared.hash, block);
        }
        shared.blocks += 1;
        full += tokens.len();
    }
    shared.tail.drain(..full);
}

impl<M: Model> TokenSource for ModelSource<M> {
    fn shape(&self) -> Shape {
        Shape {
            vocab_size: self.model.config().vocab_size,
            max_context: self.max_context,
            top_k: self.top_k,
            parameters: self.model.parameters(),
        }
    }

    fn use_resources(&mut self, resources: &Resources) {
        self.pool = Arc::new(Pool::new(resources.threads.max(1) as usize));
        self.model.set_pool(Arc::clone(&self.pool));
        self.prefixes = PrefixCache::new(resources.prefix_tokens as usize / BLOCK_TOKENS);
    }

    /// A step ends with an output for each chunk.
    fn set_waker(&mut self, _waker: Waker) {}

    fn schedules(&self) -> bool {
        false
    }

    fn reserve(&mut self, tokens: u32) -> Result<(), SourceError> {
        Ok(self.model.reserve(tokens)?)
    }

    fn numerics(&self) -> &'static str {
        self.model.numerics()
    }

    fn rates(&self) -> Option<Result<Rates, SourceError>> {
        Some(self.model.rates()?.map_err(SourceError::from))
    }

    fn parameters_per_token(&self) -> u64 {
        self.model.parameters_per_token()
    }

    fn weight_bytes(&self) -> u64 {
        self.model.weight_bytes()
    }

    fn transcript_time(&self) -> Duration {
        self.transcript_time
    }

    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError> {
        let kv = self.model.new_sequence(capacity.min(self.max_context))?;
        self.sequences.insert(sequence, Open { kv, shared: None });
        Ok(())
    }

    fn reuse(&mut self, sequence: SequenceId, tokens: &[u32]) -> u32 {
        let Some(one) = self.sequences.get_mut(&sequence) else { return 0 };
        let (found, hash) = self.prefixes.find(&self.identity, tokens, BLOCK_TOKENS);
        let blocks = found.len();
        let (hash, blocks) = if M::adopt(&mut one.kv, found) { (hash, blocks) } else { (self.identity, 0) };
        one.shared = Some(Shared { hash, blocks, tail: Vec::new() });
        (blocks * BLOCK_TOKENS) as u32
    }

    fn close(&mut self, sequence: SequenceId) {
        self.sequences.remove(&sequence);
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        self.forward(chunks)?;
        let mut rows = self.distributions(chunks)?.into_iter();
        let started = Instant::now();
        let outputs = chunks
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
            .collect();
        self.transcript_time += started.elapsed();
        outputs
    }
}

/// A row that a task needs.
pub(crate) struct Wanted<'a> {
    pub(crate) draw: &'a Draw<'a>,
    /// Place of the token that the row says something about.
    pub(crate) position: usize,
    pub(crate) asked: &'a [Candidate],
}

impl<'a> Wanted<'a> {
    fn of(chunk: &'a Chunk<'a>) -> Vec<Self> {
        match &chunk.task {
            Task::Extend => Vec::new(),
            Task::Choose(draw) => vec![Self { draw, position: draw.position as usize, asked: &[] }],
            Task::Measure(draw, records) => (draw.position as usize..)
                .zip(*records)
                .map(|(position, record)| Self { draw, position, asked: &record.candidates })
                .collect(),
        }
    }

    /// The tokens that may stand here; `None`: any.
    pub(crate) fn allowed(&self) -> Option<&TokenSet> {
        let place = self.position.saturating_sub(self.draw.position as usize);
        self.draw.allowed.get(place).and_then(Option::as_ref)
    }

    fn perturb(&self, logits: &mut [f32]) {
        if let Some(perturbation) = &self.draw.perturbation {
            perturb(logits, perturbation, u32::try_from(self.position).unwrap_or(u32::MAX));
        }
    }

    fn constrain(&self, logits: &mut [f32]) {
        constrain(logits, self.draw.bias, self.allowed());
    }

    /// The row as a question to a model that answers it itself. Of a constraint only the bias is in it.
    pub(crate) fn question(&self) -> Question {
        let mut changes = self.penalties();
        for bias in self.draw.bias {
            *changes.entry(bias.token).or_default() += bias.milli as f32 / 1_000.0;
        }
        Question {
            changes: changes.into_iter().collect(),
            asked: self.asked.iter().map(|candidate| candidate.token).collect(),
        }
    }

    fn penalise(&self, logits: &mut [f32]) {
        for (token, penalty) in self.penalties() {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += penalty;
            }
        }
    }

    /// What the OpenAI penalties add to logits: less `frequency x count + presence` for each token of the completion so far.
    fn penalties(&self) -> BTreeMap<u32, f32> {
        let params = self.draw.params;
        if params.frequency_penalty_milli == 0 && params.presence_penalty_milli == 0 {
            return BTreeMap::new();
        }
        let frequency = f32::from(params.frequency_penalty_milli) / 1_000.0;
        let presence = f32::from(params.presence_penalty_milli) / 1_000.0;
        let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
        for token in self.draw.completion.iter().take(self.position) {
            *counts.entry(*token).or_default() += 1.0;
        }
        counts.into_iter().map(|(token, count)| (token, -(frequency * count + presence))).collect()
    }
}

/// The record of a token that is drawn from a row.
pub(crate) fn choose(
    sequence: SequenceId,
    draw: &Draw<'_>,
    row: Distribution,
) -> Result<TokenRecord, SourceError> {
    let candidates = candidates(row.top);
    let chosen = sample_on(draw.tape, draw.position, &candidates, draw.params);
    let chosen = chosen.and_then(|index| u8::try_from(index).ok()).ok_or(SourceError::Sampler(sequence))?;
    Ok(TokenRecord { candidates, chosen })
}

/// What rows, one for each record, say of what was committed.
pub(crate) fn measure(
    draw: &Draw<'_>,
    records: &[TokenRecord],
    rows: impl Iterator<Item = Distribution>,
    top_k: u8,
) -> Figures {
    let mut figures = Figures::default();
    for ((record, row), position) in records.iter().zip(rows).zip(draw.position..) {
        let own = Own { top: &row.top, committed: &row.asked };
        figures.tokens += 1;
        figures.distance_sum += u64::from(distance(record, &own, top_k));
        figures.margin_sum += u64::from(margin(record, &own, draw.tape, position, draw.params));
    }
    figures
}
