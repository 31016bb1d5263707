//! A request, what its executor made of it, and what a verifier finds.

use crate::model::{measure, Distribution, SAMPLING};
use starling_primitives::{
    fraud::{Evidence, OpenedWindow},
    profile::Profile,
    records::{response_hash, Finished},
    replay::{replay_window, replay_with, Checks},
    request::{prompt_hash, RequestHeader},
    tape::{tape_seed, Tape},
    transcript::{TokenRecord, Transcript, TranscriptBuilder},
    verdict::{Figures, Outcome},
    RequestId, H256,
};

/// Tokens of every prompt.
pub const PROMPT_TOKENS: u32 = 8;

/// What an executor is asked.
#[derive(Clone, Debug)]
pub struct Task {
    /// The request.
    pub header: RequestHeader,
    /// Its id.
    pub request: RequestId,
    /// Seed of its tape.
    pub tape_seed: H256,
    /// The tape.
    pub tape: Tape,
}

impl Task {
    /// Request number `n` for a completion of this many tokens, in an epoch with this seed.
    pub fn new(n: u64, tokens: u32, epoch_seed: &H256) -> Self {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&n.to_le_bytes());
        let prompt: Vec<u32> = (0..PROMPT_TOKENS).collect();
        let header = RequestHeader {
            profile: 0,
            prompt_hash: prompt_hash(&prompt),
            sampling: SAMPLING,
            max_tokens: tokens,
            constraint: None,
            nonce,
        };
        let request = header.id();
        let tape_seed = tape_seed(epoch_seed, &request);
        Self { header, request, tape_seed, tape: Tape::new(&tape_seed) }
    }

    /// What the true model says at a position.
    pub fn says(&self, position: u32) -> Distribution {
        Distribution::at(&self.request, position)
    }

    /// Positions of the completion.
    pub fn positions(&self) -> std::ops::Range<u32> {
        0..self.header.max_tokens
    }
}

/// What an executor wrote.
#[derive(Clone, Debug)]
pub struct Written {
    /// One record for each token.
    pub records: Vec<TokenRecord>,
    /// What a verifier measures, where that is prescribed and not computed.
    pub figures: Option<Figures>,
    /// Whether an honest host would have sold it.
    pub honest: bool,
}

impl Written {
    /// Records that cheat.
    pub fn dishonest(records: Vec<TokenRecord>) -> Self {
        Self { records, figures: None, honest: false }
    }

    /// The true model's records.
    pub fn honest(task: &Task) -> Self {
        let records = task.positions().map(|position| task.says(position).record(&task.tape, position));
        Self { records: records.collect(), figures: None, honest: true }
    }
}

/// An answer with all that it commits to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The transcript.
    pub transcript: Transcript,
    /// What the executor puts on chain.
    pub finished: Finished,
    /// What a verifier finds that gets the transcript.
    pub found: Outcome,
    /// Whether an honest host would have sold it.
    pub honest: bool,
}

impl Answer {
    /// Builds the transcript, and checks it as a verifier does: replay, then figures.
    pub fn new(task: &Task, written: Written, profile: &Profile) -> Self {
        let Written { records, figures, honest } = written;
        let mut builder = TranscriptBuilder::new(task.header.clone());
        for record in &records {
            builder.push(record.clone());
        }
        let (transcript, _) = builder.finish();
        let tokens: Vec<u32> = records.iter().filter_map(|r| r.chosen()).map(|chosen| chosen.token).collect();
        let finished = Finished {
            request_id: task.request,
            response_hash: response_hash(&tokens),
            transcript_root: transcript.root(),
            prompt_tokens: PROMPT_TOKENS,
            completion_tokens: tokens.len() as u32,
        };
        let found = match replay_with(&transcript, &task.tape_seed, &finished, &checks(profile)) {
            Ok(replayed) => Outcome::Measured(
                figures.unwrap_or_else(|| measure(&task.request, &task.tape, &replayed.records)),
            ),
            Err(_) => Outcome::ReplayFailed,
        };
        Self { transcript, finished, found, honest }
    }

    /// The first window that does not replay, opened.
    pub fn evidence(&self, task: &Task, profile: &Profile) -> Option<Evidence> {
        let header = &self.transcript.header;
        let bad = (0u32..).zip(&self.transcript.windows).find(|(index, bytes)| {
            let tokens = self.finished.completion_tokens;
            replay_window(header, &task.tape_seed, *index, bytes, tokens, &checks(profile)).is_err()
        });
        let opened = OpenedWindow::new(self.transcript.window_proof(bad?.0)?)?;
        Some(Evidence::Window { header: header.clone(), opened })
    }
}

fn checks(profile: &Profile) -> Checks<'static> {
    Checks { prompt: None, vocab_size: Some(profile.vocab_size), top_k: Some(profile.top_k) }
}
