//! A sequence in the engine, and what happens to its tokens.

use crate::{
    constraint::Constrained,
    kv::KvLease,
    metrics::{finished, Metrics},
    scheduler::Class,
    source::{Chunk, Draw, SequenceId, Task},
    verify::Ready,
};
use codec::Encode;
use starling_mlnode_api::{codes, Done, ErrorDetail, FinishReason, GenerateEvent, Perturbation};
use starling_primitives::{
    records::response_hash,
    request::SamplingParams,
    tape::Tape,
    transcript::{ClosedWindow, TokenRecord, Transcript, TranscriptBuilder},
    verdict::Figures,
};
use starling_prompt::{Detokenizer, StopMatcher, TokenSet, Tokenizer};
use std::{ops::Range, time::Instant};
use tokio::sync::{mpsc, OwnedSemaphorePermit};

use super::jobs::GenerateJob;

/// Tokens with a place in the source.
pub(super) struct Sequence<'a> {
    pub(super) id: SequenceId,
    /// Everything known: the prompt, and the completion as far as it is to be taken in.
    pub(super) tokens: Vec<u32>,
    /// How many of `tokens` the source has taken in.
    pub(super) computed: usize,
    prompt_len: usize,
    completion: Vec<u32>,
    tape: Tape,
    params: SamplingParams,
    constraint: Option<Constrained>,
    perturbation: Option<Perturbation>,
    /// What may stand at the places that the next chunk says something about.
    allowed: Vec<Option<TokenSet>>,
    /// The chunk that this was found out for: a source may be asked for the same one again.
    prepared: Option<Range<usize>>,
    pub(super) kind: Kind<'a>,
    _kv: Option<KvLease>,
}

/// Whom it is for, with what only they need.
pub(super) enum Kind<'a> {
    Request(Box<Answering<'a>>),
    Verification(Checking),
    Sprint(Racing),
}

/// An answer being written.
pub(super) struct Answering<'a> {
    builder: TranscriptBuilder,
    events: mpsc::Sender<GenerateEvent>,
    tokenizer: &'a Tokenizer,
    detokenizer: Detokenizer<'a>,
    stops: StopMatcher,
    logprobs: bool,
    max_tokens: u32,
    cached_tokens: u32,
    admitted: Instant,
    last_token: Option<Instant>,
    /// Whether any of its tokens went through the source.
    begun: bool,
    metrics: Metrics,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A transcript being checked.
pub(super) struct Checking {
    /// Which verification request it belongs to.
    pub(super) job: u64,
    /// Its place there.
    pub(super) item: usize,
    records: Vec<TokenRecord>,
    pub(super) figures: Figures,
}

/// A sprint nonce being decoded.
pub(super) struct Racing {
    /// Which run it belongs to.
    pub(super) run: u64,
    pub(super) nonce: u32,
    builder: TranscriptBuilder,
    decode_tokens: u32,
}

/// What becomes of a sequence after a step.
pub(super) enum Progress {
    Continues,
    /// Nothing more to do, everybody was told.
    Finished,
    /// The transcript of a nonce is complete.
    Raced(Transcript),
}

impl<'a> Sequence<'a> {
    pub(super) fn request(
        id: SequenceId,
        job: GenerateJob,
        tokenizer: &'a Tokenizer,
        metrics: &Metrics,
    ) -> Self {
        let GenerateJob { request, constraint, events, kv, permit } = job;
        metrics.prompt_tokens.inc_by(request.prompt.len() as u64);
        let params = request.header.sampling;
        let answering = Answering {
            max_tokens: request.header.max_tokens,
            builder: TranscriptBuilder::new(request.header),
            events,
            tokenizer,
            detokenizer: Detokenizer::new(tokenizer),
            stops: StopMatcher::new(request.stop),
            logprobs: request.logprobs,
            cached_tokens: 0,
            admitted: Instant::now(),
            last_token: None,
            begun: false,
            metrics: metrics.clone(),
            _permit: permit,
        };
        Self {
            id,
            prompt_len: request.prompt.len(),
            tokens: request.prompt,
            computed: 0,
            completion: Vec::new(),
            tape: Tape::new(&request.tape_seed),
            params,
            constraint,
            perturbation: request.perturbation,
            allowed: Vec::new(),
            prepared: None,
            kind: Kind::Request(Box::new(answering)),
            _kv: kv,
        }
    }

    pub(super) fn verification(id: SequenceId, job: u64, item: usize, ready: Ready, kv: KvLease) -> Self {
        let checking = Checking { job, item, records: ready.records, figures: Figures::default() };
        Self {
            id,
            tokens: ready.tokens,
            computed: 0,
            prompt_len: ready.prompt_len,
            completion: ready.completion,
            tape: ready.tape,
            params: ready.params,
            constraint: ready.constraint,
            perturbation: None,
            allowed: Vec::new(),
            prepared: None,
            kind: Kind::Verification(checking),
            _kv: Some(kv),
        }
    }

    pub(super) fn sprint(
        id: SequenceId,
        run: u64,
        nonce: u32,
        task: &starling_primitives::sprint::SprintTask,
        kv: KvLease,
    ) -> Self {
        let header = task.header(nonce);
        let tokens = task.prompt(nonce);
        let params = header.sampling;
        let builder = TranscriptBuilder::new(header);
        Self {
            id,
            prompt_len: tokens.len(),
            tokens,
            computed: 0,
            completion: Vec::new(),
            tape: Tape::new(&task.tape_seed(nonce)),
            params,
            constraint: None,
            perturbation: None,
            allowed: Vec::new(),
            prepared: None,
            kind: Kind::Sprint(Racing { run, nonce, builder, decode_tokens: task.decode_tokens }),
            _kv: Some(kv),
        }
    }

    /// The tokens that may be known from earlier sequences. Of a transcript being checked only the prompt: the rows of its
    /// completion are wanted.
    pub(super) fn reusable(&self) -> &[u32] {
        self.tokens.get(..self.prompt_len).unwrap_or_default()
    }

    /// The first of these tokens are known from earlier sequences.
    pub(super) fn set_known(&mut self, tokens: u32) {
        self.computed = tokens as usize;
        if let Kind::Request(answering) = &mut self.kind {
            answering.cached_tokens = tokens;
        }
    }

    pub(super) fn class(&self) -> Class {
        match self.kind {
            Kind::Request(_) => Class::Request,
            Kind::Verification(_) => Class::Verification,
            Kind::Sprint(_) => Class::Sprint,
        }
    }

    /// So many more of its tokens went through the source.
    pub(super) fn take_in(&mut self, count: usize) {
        self.computed += count;
        if let Kind::Request(answering) = &mut self.kind {
            answering.begun = true;
        }
    }

    pub(super) fn pending(&self) -> u32 {
        (self.tokens.len() - self.computed) as u32
    }

    /// Whether it is a request whose next token is the only one to be computed.
    pub(super) fn streams(&self) -> bool {
        self.class() == Class::Request && self.pending() == 1
    }

    /// Whether it is a request of which nothing was computed yet.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(&self.kind, Kind::Request(answering) if !answering.begun)
    }

    /// Whether the one who asked is gone. Background work is asked for as a whole, so its owner knows.
    pub(super) fn is_abandoned(&self) -> bool {
        matches!(&self.kind, Kind::Request(answering) if answering.events.is_closed())
    }

    /// Counts an abandoned request.
    pub(super) fn note_cancelled(&self) {
        if let Kind::Request(answering) = &self.kind {
            answering.count(finished::ABORT);
        }
    }

    /// Finds out what the constraint allows at the places that the next `count` tokens say something about; once for
    /// each chunk. An error says why a transcript being checked cannot have come about.
    pub(super) fn prepare(&mut self, count: u32) -> Result<(), String> {
        let end = self.end_of(count);
        if self.prepared.replace(self.computed..end) == Some(self.computed..end) {
            return Ok(());
        }
        self.allowed.clear();
        let committed = self.committed(end);
        let Some(constraint) = &mut self.constraint else { return Ok(()) };
        match &self.kind {
            Kind::Verification(checking) => {
                let records = checking.records.get(committed.clone()).unwrap_or_default();
                for (position, record) in committed.zip(records) {
                    let allowed = constraint.follow(record).map_err(|token| {
                        format!("the constraint does not allow candidate {token} of token {position}")
                    })?;
                    self.allowed.push(allowed);
                }
            }
            _ if end == self.tokens.len() => self.allowed.push(constraint.allowed()),
            _ => {}
        }
        Ok(())
    }

    fn end_of(&self, count: u32) -> usize {
        (self.computed + count as usize).min(self.tokens.len())
    }

    /// Places in the completion that the tokens up to `end` say something about: the row of token i says what follows it,
    /// place i + 1 - prompt_len.
    fn committed(&self, end: usize) -> Range<usize> {
        let place = |token: usize| (token + 1).max(self.prompt_len) - self.prompt_len;
        place(self.computed)..place(end)
    }

    /// The next `count` tokens, and what is wanted of them.
    pub(super) fn chunk(&self, count: u32) -> Chunk<'_> {
        let end = self.end_of(count);
        let tokens = self.tokens.get(self.computed..end).unwrap_or_default();
        Chunk { sequence: self.id, tokens, task: self.task(end) }
    }

    fn task(&self, end: usize) -> Task<'_> {
        let draw = |position: usize| Draw {
            tape: &self.tape,
            params: &self.params,
            completion: &self.completion,
            position: position as u32,
            bias: self.constraint.as_ref().map_or(&[], |constraint| &constraint.bias),
            allowed: &self.allowed,
            perturbation: self.perturbation,
        };
        match &self.kind {
            Kind::Verification(checking) => {
                let committed = self.committed(end);
                match checking.records.get(committed.clone()) {
                    Some(records) if !records.is_empty() => Task::Measure(draw(committed.start), records),
                    _ => Task::Extend,
                }
            }
            _ if end == self.tokens.len() => Task::Choose(draw(self.completion.len())),
            _ => Task::Extend,
        }
    }

    /// Takes a chosen token.
    pub(super) fn accept(&mut self, record: TokenRecord) -> Progress {
        let Some(token) = record.chosen().map(|chosen| chosen.token) else {
            return self.fail("no token was chosen");
        };
        self.completion.push(token);
        self.tokens.push(token);
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token);
        }
        match &mut self.kind {
            Kind::Request(answering) => answering.accept(token, record, &self.completion, self.prompt_len),
            Kind::Sprint(racing) => {
                racing.builder.push(record);
                if racing.builder.token_count() < racing.decode_tokens {
                    return Progress::Continues;
                }
                Progress::Raced(racing.builder.clone().finish().0)
            }
            Kind::Verification(_) => Progress::Continues,
        }
    }

    /// Tells the one who asked that it failed.
    pub(super) fn fail(&mut self, message: &str) -> Progress {
        if let Kind::Request(answering) = &self.kind {
            answering.count(finished::ERROR);
            answering.send(GenerateEvent::Error(server_error(codes::INTERNAL, message)));
        }
        Progress::Finished
    }

    /// Tells the one who asked that the model goes away.
    pub(super) fn stop(&self) {
        if let Kind::Request(answering) = &self.kind {
            answering.count(finished::ERROR);
            let message = "The model is being unloaded.";
            answering.send(GenerateEvent::Error(server_error(codes::STOPPING, message)));
        }
    }
}

impl Answering<'_> {
    fn accept(&mut self, token: u32, record: TokenRecord, completion: &[u32], prompt_len: usize) -> Progress {
        let index = (completion.len() - 1) as u32;
        let (now, metrics) = (Instant::now(), &self.metrics);
        match self.last_token.replace(now) {
            None => metrics.first_token_seconds.observe((now - self.admitted).as_secs_f64()),
            Some(last) => metrics.inter_token_seconds.observe((now - last).as_secs_f64()),
        }
        metrics.generation_tokens.inc();
        let piece = self.detokenizer.push(token);
        let text = self.stops.push(&piece);
        let listed = if self.logprobs { record.candidates.as_slice() } else { &[] };
        let candidates = listed.iter().map(|c| (c.token, c.q)).collect();
        self.send(GenerateEvent::Token { index, token, text, candidates });
        let closed = self.builder.push(record);
        self.send_window(closed);
        let reason = if self.tokenizer.is_eos(token) || self.stops.is_stopped() {
            FinishReason::Stop
        } else if completion.len() as u32 >= self.max_tokens {
            FinishReason::Length
        } else {
            return Progress::Continues;
        };
        self.finish(reason, completion, prompt_len);
        Progress::Finished
    }

    fn finish(&mut self, finish_reason: FinishReason, completion: &[u32], prompt_len: usize) {
        let rest = self.detokenizer.finish();
        let mut text = self.stops.push(&rest);
        if !self.stops.is_stopped() {
            text.push_str(&self.stops.finish());
        }
        let (transcript, last) = self.builder.clone().finish();
        self.send_window(last);
        self.count(match finish_reason {
            FinishReason::Length => finished::LENGTH,
            _ => finished::STOP,
        });
        self.send(GenerateEvent::Done(Done {
            finish_reason,
            text,
            prompt_tokens: prompt_len as u32,
            cached_tokens: self.cached_tokens,
            completion_tokens: completion.len() as u32,
            transcript_root: transcript.root(),
            response_hash: response_hash(completion),
            transcript: transcript.encode(),
        }));
    }

    /// Counts a request that ends.
    fn count(&self, reason: &str) {
        self.metrics.finished.with_label_values(&[reason]).inc();
        self.metrics.request_seconds.observe(self.admitted.elapsed().as_secs_f64());
    }

    fn send_window(&self, closed: Option<ClosedWindow>) {
        if let Some(ClosedWindow { index, bytes, hash }) = closed {
            self.send(GenerateEvent::Window { index, bytes, hash });
        }
    }

    /// The channel has room for every event (`ValidRequest::events_max`); a closed one is noticed before the next step.
    fn send(&self, event: GenerateEvent) {
        let _ = self.events.try_send(event);
    }
}

/// An error that is nobody's fault but the node's.
pub(super) fn server_error(code: &str, message: &str) -> ErrorDetail {
    ErrorDetail { message: message.into(), kind: "server_error".into(), param: None, code: Some(code.into()) }
}
