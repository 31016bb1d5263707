//! A source that cheats.

use crate::{
    model::Rates,
    source::{Chunk, Draw, Output, Resources, SequenceId, Shape, SourceError, Task, TokenSource, Waker},
};
use starling_primitives::{
    request::SamplingParams,
    transcript::{Candidate, TokenRecord, MAX_TAIL_Q},
};
use std::{borrow::Cow, collections::HashSet, time::Duration};

/// What is done beside running some weights.
#[derive(Clone, Debug)]
pub(super) enum Trick {
    /// Nothing: the weights are the cheat.
    None,
    /// These tokens stand before every prompt.
    Before(Vec<u32>),
    /// Tokens are chosen as if the client had asked for this.
    Sampling(fn(SamplingParams) -> SamplingParams),
    /// The answer is always this one, claimed to be certain.
    Canned(Vec<u32>),
    /// From this place on the answer is this token, claimed to be certain: the end.
    EndsAt(u32, u32),
}

/// Writes with one source, and shows what it says; or, laundered, what the true one says of the text.
pub(super) struct Cheating {
    pub(super) writer: Box<dyn TokenSource>,
    pub(super) trick: Trick,
    /// The true model, for log-probabilities of the text.
    pub(super) shown: Option<Box<dyn TokenSource>>,
    /// Sequences that have begun.
    pub(super) begun: HashSet<SequenceId>,
}

impl Cheating {
    pub(super) fn new(
        writer: Box<dyn TokenSource>,
        trick: Trick,
        shown: Option<Box<dyn TokenSource>>,
    ) -> Self {
        Self { writer, trick, shown, begun: HashSet::new() }
    }

    /// What the writer and the trick make of a step.
    fn write(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        let mut tokens = Vec::with_capacity(chunks.len());
        let mut params = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let first = self.begun.insert(chunk.sequence);
            tokens.push(match &self.trick {
                Trick::Before(hidden) if first => Cow::Owned([hidden, chunk.tokens].concat()),
                _ => Cow::Borrowed(chunk.tokens),
            });
            params.push(match (&self.trick, &chunk.task) {
                (Trick::Sampling(change), Task::Choose(draw)) => change(*draw.params),
                (_, Task::Choose(draw) | Task::Measure(draw, _)) => *draw.params,
                (_, Task::Extend) => SamplingParams::GREEDY,
            });
        }
        let changed = chunks.iter().zip(&tokens).zip(&params).map(|((chunk, tokens), params)| Chunk {
            sequence: chunk.sequence,
            tokens,
            task: match chunk.task {
                Task::Choose(draw) => Task::Choose(Draw { params, ..draw }),
                other => other,
            },
        });
        let mut outputs = self.writer.step(&changed.collect::<Vec<_>>())?;
        for (output, chunk) in outputs.iter_mut().zip(chunks) {
            if let (Output::Chosen(record), Task::Choose(draw)) = (output, &chunk.task) {
                if let Some(token) = self.trick.token(draw.position) {
                    *record = TokenRecord { candidates: vec![Candidate { token, q: 0 }], chosen: 0 };
                }
            }
        }
        Ok(outputs)
    }
}

impl Trick {
    /// A token that is written whatever the model says.
    fn token(&self, position: u32) -> Option<u32> {
        match self {
            Self::Canned(tokens) => tokens.get(position as usize).or(tokens.last()).copied(),
            Self::EndsAt(from, token) if position >= *from => Some(*token),
            _ => None,
        }
    }

    /// Tokens that a sequence takes beyond its own.
    fn more(&self) -> u32 {
        match self {
            Self::Before(hidden) => hidden.len() as u32,
            _ => 0,
        }
    }
}

/// The true candidates with another choice among them. A token that is not listed takes the last place, with the highest
/// probability that a missing token can have.
fn back_fill(shown: TokenRecord, token: u32, top_k: u8) -> TokenRecord {
    let mut candidates = shown.candidates;
    if candidates.iter().all(|candidate| candidate.token != token) {
        let full = candidates.len() >= usize::from(top_k);
        let last = if full { candidates.pop() } else { None };
        candidates.push(Candidate { token, q: last.map_or(MAX_TAIL_Q, |last| last.q) });
        candidates.sort_unstable_by_key(|candidate| (candidate.q, candidate.token));
    }
    let chosen = candidates.iter().position(|candidate| candidate.token == token);
    TokenRecord { candidates, chosen: chosen.and_then(|place| u8::try_from(place).ok()).unwrap_or(0) }
}

impl TokenSource for Cheating {
    fn shape(&self) -> Shape {
        self.writer.shape()
    }

    fn use_resources(&mut self, resources: &Resources) {
        self.writer.use_resources(resources);
        if let Some(shown) = &mut self.shown {
            shown.use_resources(resources);
        }
    }

    fn set_waker(&mut self, waker: Waker) {
        if let Some(shown) = &mut self.shown {
            shown.set_waker(Waker::clone(&waker));
        }
        self.writer.set_waker(waker);
    }

    fn schedules(&self) -> bool {
        self.writer.schedules()
    }

    fn reserve(&mut self, tokens: u32) -> Result<(), SourceError> {
        if let Some(shown) = &mut self.shown {
            shown.reserve(tokens)?;
        }
        self.writer.reserve(tokens)
    }

    fn numerics(&self) -> &'static str {
        self.writer.numerics()
    }

    fn rates(&self) -> Option<Result<Rates, SourceError>> {
        self.writer.rates()
    }

    fn parameters_per_token(&self) -> u64 {
        self.writer.parameters_per_token()
    }

    fn weight_bytes(&self) -> u64 {
        self.writer.weight_bytes()
    }

    fn transcript_time(&self) -> Duration {
        self.writer.transcript_time()
    }

    /// Nothing: writer and shown would have to know the same.
    fn reuse(&mut self, _sequence: SequenceId, _tokens: &[u32]) -> u32 {
        0
    }

    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError> {
        self.writer.open(sequence, capacity.saturating_add(self.trick.more()))?;
        match &mut self.shown {
            Some(shown) => shown.open(sequence, capacity),
            None => Ok(()),
        }
    }

    fn close(&mut self, sequence: SequenceId) {
        self.begun.remove(&sequence);
        self.writer.close(sequence);
        if let Some(shown) = &mut self.shown {
            shown.close(sequence);
        }
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        let written = self.write(chunks)?;
        let top_k = self.shape().top_k;
        let Some(shown) = &mut self.shown else { return Ok(written) };
        let outputs =
            shown.step(chunks)?.into_iter().zip(written).map(|(shown, written)| match (shown, written) {
                (Output::Chosen(shown), Output::Chosen(written)) => match written.chosen() {
                    Some(chosen) => Output::Chosen(back_fill(shown, chosen.token, top_k)),
                    None => Output::Chosen(shown),
                },
                (shown, _) => shown,
            });
        Ok(outputs.collect())
    }
}
