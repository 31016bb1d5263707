//! Many questions through a source, without engine and HTTP: as fast as the machine allows.

use super::workload::Question;
use crate::{
    kv::in_blocks,
    source::{Chunk, Draw, Output, SequenceId, SourceError, Task, TokenSource},
    verify::{replay_item, Ready},
};
use codec::Encode;
use indicatif::ProgressBar;
use starling_mlnode_api::{VerifyItem, VerifyOutcome};
use starling_primitives::{
    tape::Tape,
    transcript::{Transcript, TranscriptBuilder},
};

/// Tokens of prompts that a step takes in, about.
const STEP_PROMPTS: usize = 1_024;
/// Tokens of transcripts that are checked in one step, about.
const STEP_CHECKED: usize = 2_048;

/// An answer being written.
struct Writing<'a> {
    index: usize,
    question: &'a Question,
    tape: Tape,
    completion: Vec<u32>,
    builder: TranscriptBuilder,
}

impl Writing<'_> {
    fn chunk(&self) -> Chunk<'_> {
        let position = self.completion.len() as u32;
        let params = &self.question.header.sampling;
        let draw = Draw {
            tape: &self.tape,
            params,
            completion: &self.completion,
            position,
            bias: &[],
            allowed: &[],
            perturbation: None,
        };
        let tokens = match self.completion.last() {
            Some(last) => std::slice::from_ref(last),
            None => &self.question.prompt,
        };
        Chunk { sequence: self.index as SequenceId, tokens, task: Task::Choose(draw) }
    }
}

/// Tokens that a batch of these questions takes at most.
fn room(questions: &[Question], batch: usize) -> u32 {
    let tokens = |one: &Question| (one.prompt.len() as u32).saturating_add(one.header.max_tokens);
    let longest = questions.iter().map(tokens).max().unwrap_or_default();
    in_blocks(longest).saturating_mul(batch.max(1) as u32)
}

/// Answers all questions, `batch` of them at a time; transcripts in the questions' order. An answer ends at its
/// `max_tokens`, or where `ends` says so of what was written.
pub(crate) fn answer(
    source: &mut dyn TokenSource,
    questions: &[Question],
    batch: usize,
    ends: impl Fn(&Question, &[u32]) -> bool,
    progress: &ProgressBar,
) -> Result<Vec<Transcript>, SourceError> {
    source.reserve(room(questions, batch))?;
    let mut transcripts: Vec<Option<Transcript>> = questions.iter().map(|_| None).collect();
    let mut waiting = questions.iter().enumerate();
    let mut writing: Vec<Writing<'_>> = Vec::with_capacity(batch);
    loop {
        let mut room = STEP_PROMPTS;
        while writing.len() < batch.max(1) && room > 0 {
            let Some((index, question)) = waiting.next() else { break };
            room = room.saturating_sub(question.prompt.len());
            let capacity = (question.prompt.len() as u32).saturating_add(question.header.max_tokens);
            source.open(index as SequenceId, capacity)?;
            writing.push(Writing {
                index,
                question,
                tape: Tape::new(&question.tape_seed),
                completion: Vec::new(),
                builder: TranscriptBuilder::new(question.header.clone()),
            });
        }
        if writing.is_empty() {
            break;
        }
        let outputs = source.step(&writing.iter().map(Writing::chunk).collect::<Vec<_>>())?;
        for (one, output) in writing.iter_mut().zip(outputs) {
            let sequence = one.index as SequenceId;
            let Output::Chosen(record) = output else { return Err(SourceError::Sampler(sequence)) };
            let token = record.chosen().ok_or(SourceError::Sampler(sequence))?.token;
            one.completion.push(token);
            one.builder.push(record);
        }
        writing.retain_mut(|one| {
            let full = one.completion.len() as u32 >= one.question.header.max_tokens;
            if !full && !ends(one.question, &one.completion) {
                return true;
            }
            source.close(one.index as SequenceId);
            let builder =
                std::mem::replace(&mut one.builder, TranscriptBuilder::new(one.question.header.clone()));
            if let Some(place) = transcripts.get_mut(one.index) {
                *place = Some(builder.finish().0);
            }
            progress.inc(1);
            false
        });
    }
    Ok(transcripts.into_iter().flatten().collect())
}

/// Replays all transcripts and measures what replays in teacher-forced passes of `batch` transcripts at most; outcomes
/// in their order.
pub(crate) fn check(
    source: &mut dyn TokenSource,
    questions: &[Question],
    transcripts: &[Transcript],
    batch: usize,
    progress: &ProgressBar,
) -> Result<Vec<VerifyOutcome>, SourceError> {
    source.reserve(room(questions, batch))?;
    let shape = source.shape();
    let mut outcomes = Vec::with_capacity(questions.len());
    let mut ready: Vec<(usize, Ready)> = Vec::new();
    for (index, (question, transcript)) in questions.iter().zip(transcripts).enumerate() {
        let item = VerifyItem {
            transcript: transcript.encode(),
            prompt_tokens: question.prompt.clone(),
            tape_seed: question.tape_seed,
            constraint: None,
        };
        match replay_item(&item, &shape) {
            Ok(one) => {
                outcomes.push(VerifyOutcome::Failed { reason: "it was not checked".into() });
                ready.push((index, one));
            }
            Err(outcome) => {
                outcomes.push(outcome);
                progress.inc(1);
            }
        }
    }
    let mut rest = ready.as_slice();
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = rest.iter().take(batch.max(1)).take_while(|(_, one)| {
            tokens += one.tokens.len();
            tokens <= STEP_CHECKED
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        rest = later;
        for (output, (index, _)) in measure(source, now)?.into_iter().zip(now) {
            let Output::Measured(figures) = output else {
                return Err(SourceError::Sampler(*index as SequenceId));
            };
            if let Some(place) = outcomes.get_mut(*index) {
                *place = VerifyOutcome::Figures(figures);
            }
        }
        progress.inc(now.len() as u64);
    }
    Ok(outcomes)
}

fn measure(source: &mut dyn TokenSource, ready: &[(usize, Ready)]) -> Result<Vec<Output>, SourceError> {
    let mut chunks = Vec::with_capacity(ready.len());
    for (index, one) in ready {
        let sequence = *index as SequenceId;
        source.open(sequence, one.capacity())?;
        // The rows of the chunk's last tokens are those of the records: one for each token of the completion.
        let draw = Draw {
            tape: &one.tape,
            params: &one.params,
            completion: &one.completion,
            position: 0,
            bias: &[],
            allowed: &[],
            perturbation: None,
        };
        chunks.push(Chunk { sequence, tokens: &one.tokens, task: Task::Measure(draw, &one.records) });
    }
    let outputs = source.step(&chunks)?;
    for chunk in &chunks {
        source.close(chunk.sequence);
    }
    Ok(outputs)
}
