//! The engine's thread: waits for work, runs steps, tells the results.

use super::{
    jobs::{Command, GenerateJob, SprintJob, VerifyJob},
    sequence::{server_error, Kind, Progress, Sequence},
    LoadRefusal, Refusal, ServedModel, Shared,
};
use crate::{
    loader::{LoadError, LoadSpec, Loaded, Loader},
    metrics::class,
    pace::Pace,
    scheduler::{plan, Budget, Class, Entry, Share},
    source::{Output, SequenceId, SourceError, TokenSource, Waker},
    verify::Ready,
};
use codec::Encode;
use starling_mlnode_api::{codes, GenerateEvent, ModelInfo, SprintEvent, VerifyOutcome};
use starling_primitives::{sprint::SprintTask, transcript::Transcript};
use starling_prompt::Tokenizer;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    sync::{
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
        Arc,
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{mpsc, oneshot};

/// How often work that waits for room looks again: room may be given back without a command.
const ROOM_RETRY: Duration = Duration::from_millis(20);

/// Offers a source that schedules itself all that there is.
const EVERYTHING: Budget = Budget { step_tokens: u32::MAX, background_tokens: u32::MAX };

/// The thread's state while no model is loaded.
pub(super) struct Worker {
    commands: Receiver<Command>,
    waker: Waker,
    loader: Box<dyn Loader>,
    shared: Arc<Shared>,
}

impl Worker {
    pub(super) fn new(
        commands: Receiver<Command>,
        waker: Waker,
        loader: Box<dyn Loader>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { commands, waker, loader, shared }
    }

    pub(super) fn run(self) {
        while let Ok(command) = self.commands.recv() {
            let Command::Load(spec, reply) = command else {
                refuse(command);
                continue;
            };
            match self.load(spec) {
                Ok((loaded, served)) => {
                    let _ = reply.send(Ok(Arc::clone(&served)));
                    let ended = Serving::new(loaded.source, &loaded.tokenizer, &self.shared, &served)
                        .run(&self.commands);
                    self.shared.set_model(None);
                    if ended.is_break() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the model was not loaded");
                    let _ = reply.send(Err(error));
                }
            }
        }
    }

    fn load(&self, spec: LoadSpec) -> Result<(Loaded, Arc<ServedModel>), LoadRefusal> {
        let started = Instant::now();
        let mut loaded = self.loader.load(&spec).map_err(LoadRefusal::Load)?;
        loaded.source.set_waker(Waker::clone(&self.waker));
        loaded.source.use_resources(&self.shared.limits.resources);
        let reserved = loaded.source.reserve(self.shared.limits.kv_tokens);
        reserved.map_err(|error| LoadRefusal::Load(LoadError::Reserve(error)))?;
        let shape = loaded.source.shape();
        let info = ModelInfo {
            model: spec.name,
            digest: loaded.digest,
            top_k: shape.top_k,
            parameters: shape.parameters,
            numerics: loaded.source.numerics().into(),
            load_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        tracing::info!(
            model = info.model,
            parameters = info.parameters,
            load_ms = info.load_ms,
            "model loaded"
        );
        let served = Arc::new(ServedModel {
            info,
            tokenizer: Arc::clone(&loaded.tokenizer),
            shape,
            loaded_at: SystemTime::now(),
            readiness: loaded.readiness.clone(),
        });
        self.shared.set_model(Some(Arc::clone(&served)));
        Ok((loaded, served))
    }
}

/// Answers a command that needs a model while there is none. The channels of the rest say it by closing.
fn refuse(command: Command) {
    match command {
        Command::Unload(name, reply) => {
            let _ = reply.send(Err(Refusal::ModelNotFound(name)));
        }
        Command::StopSprint(reply) => {
            let _ = reply.send(());
        }
        Command::Generate(job) => {
            let detail = server_error(codes::STOPPING, "The model was unloaded.");
            let _ = job.events.try_send(GenerateEvent::Error(detail));
        }
        Command::Sprint(job) => {
            let detail = server_error(codes::STOPPING, "The model was unloaded.");
            let _ = job.events.try_send(SprintEvent::Error(detail));
        }
        Command::Load(..) | Command::Verify(_) | Command::Wake => {}
    }
}

/// A verification request whose items are not all done.
struct Verification {
    outcomes: Vec<VerifyOutcome>,
    waiting: VecDeque<(usize, Ready)>,
    open: usize,
    reply: oneshot::Sender<Vec<VerifyOutcome>>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

/// A sprint run whose nonces are not all done.
struct Run {
    task: SprintTask,
    next: u32,
    end: u32,
    open: usize,
    results: u32,
    events: mpsc::Sender<SprintEvent>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

/// The thread's state while a model is loaded.
struct Serving<'a> {
    source: Box<dyn TokenSource>,
    tokenizer: &'a Tokenizer,
    shared: &'a Shared,
    served: &'a Arc<ServedModel>,
    /// In order of arrival.
    sequences: Vec<Sequence<'a>>,
    verifications: BTreeMap<u64, Verification>,
    runs: BTreeMap<u64, Run>,
    next_id: u64,
    pace: Pace,
}

impl<'a> Serving<'a> {
    fn new(
        source: Box<dyn TokenSource>,
        tokenizer: &'a Tokenizer,
        shared: &'a Shared,
        served: &'a Arc<ServedModel>,
    ) -> Self {
        Self {
            source,
            tokenizer,
            shared,
            served,
            sequences: Vec::new(),
            verifications: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_id: 0,
            pace: Pace::new(shared.limits.steps),
        }
    }

    /// Serves until the model is unloaded, or (`Break`) nobody is left who could ask.
    fn run(mut self, commands: &Receiver<Command>) -> ControlFlow<()> {
        loop {
            let command = match commands.try_recv() {
                Ok(command) => Some(command),
                Err(TryRecvError::Disconnected) => return ControlFlow::Break(()),
                Err(TryRecvError::Empty) if self.work() => None,
                Err(TryRecvError::Empty) => match self.wait(commands) {
                    Ok(command) => command,
                    Err(()) => return ControlFlow::Break(()),
                },
            };
            if let Some(ControlFlow::Break(reply)) = command.map(|command| self.handle(command)) {
                self.stop_all();
                // The answer means that what ran the model is gone, with its memory.
                drop(self);
                let _ = reply.send(Ok(()));
                return ControlFlow::Continue(());
            }
        }
    }

    /// Waits for a command; shorter while something waits for room, or for a source that has to be asked again: meanwhile
    /// somebody may hang up.
    fn wait(&self, commands: &Receiver<Command>) -> Result<Option<Command>, ()> {
        if self.verifications.is_empty() && self.runs.is_empty() && self.sequences.is_empty() {
            return commands.recv().map(Some).map_err(|_| ());
        }
        match commands.recv_timeout(ROOM_RETRY) {
            Ok(command) => Ok(Some(command)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(()),
        }
    }

    /// `Break`: the model is to be unloaded; whom to tell.
    fn handle(&mut self, command: Command) -> ControlFlow<oneshot::Sender<Result<(), Refusal>>> {
        match command {
            Command::Load(spec, reply) => {
                let loaded = &self.served.info.model;
                let answer = if spec.name == *loaded {
                    Ok(Arc::clone(self.served))
                } else {
                    Err(LoadRefusal::Occupied(loaded.clone()))
                };
                let _ = reply.send(answer);
            }
            Command::Unload(name, reply) if name == self.served.info.model => {
                // Before the answer, so that whoever got it finds no model.
                self.shared.set_model(None);
                return ControlFlow::Break(reply);
            }
            Command::Unload(name, reply) => {
                let _ = reply.send(Err(Refusal::ModelNotFound(name)));
            }
            Command::Generate(job) => self.start_request(*job),
            Command::Verify(job) => self.start_verification(job),
            Command::Sprint(job) => self.start_run(job),
            Command::Wake => {}
            Command::StopSprint(reply) => {
                self.stop_runs("The sprint was stopped.", codes::STOPPED);
                self.note_load();
                let _ = reply.send(());
            }
        }
        ControlFlow::Continue(())
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn start_request(&mut self, job: GenerateJob) {
        let (id, capacity) = (self.new_id(), job.request.capacity());
        let mut sequence = Sequence::request(id, job, self.tokenizer, &self.shared.metrics);
        match self.source.open(id, capacity) {
            Ok(()) => self.begin(sequence),
            Err(error) => {
                log_failure(&error);
                sequence.fail("The engine has no memory for the request.");
            }
        }
    }

    /// Takes up an open sequence where earlier ones left it. Sprint prompts are random: nothing is known of them, and
    /// nothing of them is worth keeping.
    fn begin(&mut self, mut sequence: Sequence<'a>) {
        let asked = sequence.reusable();
        self.shared.metrics.prefix_queries.inc_by(asked.len() as u64);
        let reused = self.source.reuse(sequence.id, asked);
        sequence.set_known(reused);
        self.shared.metrics.prefix_hits.inc_by(u64::from(reused));
        self.sequences.push(sequence);
    }

    fn start_verification(&mut self, job: VerifyJob) {
        let VerifyJob { outcomes, ready, reply, _permit } = job;
        let key = self.new_id();
        let verification = Verification { outcomes, waiting: ready.into(), open: 0, reply, _permit };
        self.verifications.insert(key, verification);
    }

    fn start_run(&mut self, job: SprintJob) {
        let SprintJob { task, nonces, events, _permit } = job;
        let key = self.new_id();
        let run = Run { task, next: nonces.from, end: nonces.to, open: 0, results: 0, events, _permit };
        self.runs.insert(key, run);
    }

    /// Runs one step. False: there was nothing to do, or nothing came of it yet.
    fn work(&mut self) -> bool {
        self.drop_abandoned();
        self.finish_verifications();
        self.open_verifications();
        self.open_nonces();
        self.note_load();
        let entries: Vec<_> = self
            .sequences
            .iter()
            .map(|s| Entry { id: s.id, class: s.class(), pending: s.pending() })
            .collect();
        let budget = match self.source.schedules() {
            true => EVERYTHING,
            false => Budget {
                step_tokens: self.pace.step_tokens(self.is_quiet()),
                background_tokens: self.shared.limits.background_tokens,
            },
        };
        let shares = plan(&entries, &budget);
        if shares.is_empty() {
            if self.source.schedules() {
                // It may have questions about sequences that ended.
                self.source.step(&[]).map_or_else(|error| log_failure(&error), drop);
            }
            return false;
        }
        let shares = self.prepare(shares);
        shares.is_empty() || self.step(&shares)
    }

    /// Whether there are requests, none of which streams. Background work alone is not quiet: whoever comes waits for its step.
    fn is_quiet(&self) -> bool {
        let mut requests = self.sequences.iter().filter(|s| s.class() == Class::Request).peekable();
        requests.peek().is_some() && requests.all(|s| !s.streams())
    }

    /// Asks the constraints what they allow in this step. A transcript that one shows to be false leaves it.
    fn prepare(&mut self, shares: Vec<Share>) -> Vec<Share> {
        let mut kept = Vec::with_capacity(shares.len());
        for share in shares {
            let Some(place) = self.sequences.iter().position(|s| s.id == share.id) else { continue };
            let prepared = self.sequences.get_mut(place).map_or(Ok(()), |s| s.prepare(share.tokens));
            let Err(reason) = prepared else {
                kept.push(share);
                continue;
            };
            let sequence = self.remove(place);
            if let Kind::Verification(checking) = &sequence.kind {
                self.settle(checking.job, checking.item, VerifyOutcome::ConstraintBroken { reason });
            }
        }
        kept
    }

    /// False: nothing came of it yet.
    fn step(&mut self, shares: &[Share]) -> bool {
        let started = Instant::now();
        let chunks: Vec<_> = shares
            .iter()
            .filter_map(|share| Some(self.sequences.iter().find(|s| s.id == share.id)?.chunk(share.tokens)))
            .collect();
        let taken: Vec<_> = chunks.iter().map(|chunk| (chunk.sequence, chunk.tokens.len())).collect();
        let outputs = self.source.step(&chunks);
        if matches!(&outputs, Ok(outputs) if outputs.iter().all(|output| *output == Output::Pending)) {
            return false;
        }
        let metrics = &self.shared.metrics;
        let took = started.elapsed();
        metrics.step_seconds.observe(took.as_secs_f64());
        match outputs {
            Ok(outputs) => {
                self.pace.observe(taken.iter().map(|(_, count)| count).sum(), took);
                let done = taken.iter().zip(&outputs).filter(|(_, output)| **output != Output::Pending);
                metrics.step_tokens.observe(done.map(|((_, count), _)| *count as f64).sum());
                for ((id, count), output) in taken.into_iter().zip(outputs) {
                    self.apply(id, count, output);
                }
            }
            Err(error) => {
                log_failure(&error);
                for (id, _) in taken {
                    self.fail(id, "The engine failed.");
                }
            }
        }
        true
    }

    fn apply(&mut self, id: SequenceId, count: usize, output: Output) {
        let Some(place) = self.sequences.iter().position(|s| s.id == id) else { return };
        match &output {
            Output::Pending => return,
            Output::Failed(reason) => return self.fail(id, reason),
            Output::Extended | Output::Chosen(_) | Output::Measured(_) => {}
        }
        let Some(sequence) = self.sequences.get_mut(place) else { return };
        sequence.take_in(count);
        let progress = match output {
            Output::Extended | Output::Pending | Output::Failed(_) => Progress::Continues,
            Output::Chosen(record) => sequence.accept(record),
            Output::Measured(figures) => {
                if let Kind::Verification(checking) = &mut sequence.kind {
                    checking.figures.tokens += figures.tokens;
                    checking.figures.distance_sum += figures.distance_sum;
                    checking.figures.margin_sum += figures.margin_sum;
                }
                if sequence.pending() == 0 {
                    Progress::Finished
                } else {
                    Progress::Continues
                }
            }
        };
        match progress {
            Progress::Continues => {}
            Progress::Finished => self.finish(place),
            Progress::Raced(transcript) => self.finish_nonce(place, &transcript),
        }
    }

    /// Takes a sequence out.
    fn remove(&mut self, place: usize) -> Sequence<'a> {
        let sequence = self.sequences.remove(place);
        self.source.close(sequence.id);
        sequence
    }

    fn finish(&mut self, place: usize) {
        let sequence = self.remove(place);
        if let Kind::Verification(checking) = &sequence.kind {
            self.settle(checking.job, checking.item, VerifyOutcome::Figures(checking.figures));
        }
    }

    fn settle(&mut self, job: u64, item: usize, outcome: VerifyOutcome) {
        let Some(verification) = self.verifications.get_mut(&job) else { return };
        verification.open = verification.open.saturating_sub(1);
        if let Some(place) = verification.outcomes.get_mut(item) {
            *place = outcome;
        }
    }

    fn finish_nonce(&mut self, place: usize, transcript: &Transcript) {
        let sequence = self.remove(place);
        let Kind::Sprint(racing) = &sequence.kind else { return };
        let Some(run) = self.runs.get_mut(&racing.run) else { return };
        let metrics = &self.shared.metrics;
        metrics.sprint_nonces.inc();
        let decoded = u64::from(run.task.decode_tokens);
        metrics.sprint_tokens.inc_by(decoded);
        let root = transcript.root();
        let event = SprintEvent::Result { nonce: racing.nonce, root, transcript: transcript.encode() };
        let _ = run.events.try_send(event);
        run.open = run.open.saturating_sub(1);
        run.results += 1;
        if run.open == 0 && run.next >= run.end {
            let _ = run.events.try_send(SprintEvent::Done { results: run.results });
            self.runs.remove(&racing.run);
        }
    }

    /// Ends a sequence that is of no more use, for this reason.
    fn fail(&mut self, id: SequenceId, reason: &str) {
        let Some(place) = self.sequences.iter().position(|s| s.id == id) else { return };
        let mut sequence = self.remove(place);
        sequence.fail(reason);
        match &sequence.kind {
            Kind::Request(_) => {}
            Kind::Verification(checking) => {
                let outcome = VerifyOutcome::Failed { reason: reason.into() };
                self.settle(checking.job, checking.item, outcome);
            }
            Kind::Sprint(racing) => {
                if let Some(run) = self.runs.remove(&racing.run) {
                    let detail = server_error(codes::INTERNAL, reason);
                    let _ = run.events.try_send(SprintEvent::Error(detail));
                }
            }
        }
    }

    /// Ends what nobody waits for any more.
    fn drop_abandoned(&mut self) {
        self.verifications.retain(|_, verification| !verification.reply.is_closed());
        self.runs.retain(|_, run| !run.events.is_closed());
        let mut place = 0;
        while let Some(sequence) = self.sequences.get(place) {
            let abandoned = match &sequence.kind {
                Kind::Request(_) => sequence.is_abandoned(),
                Kind::Verification(checking) => !self.verifications.contains_key(&checking.job),
                Kind::Sprint(racing) => !self.runs.contains_key(&racing.run),
            };
            if abandoned {
                self.remove(place).note_cancelled();
            } else {
                place += 1;
            }
        }
    }

    fn finish_verifications(&mut self) {
        let done: Vec<u64> = self
            .verifications
            .iter()
            .filter(|(_, v)| v.open == 0 && v.waiting.is_empty())
            .map(|(key, _)| *key)
            .collect();
        for key in done {
            if let Some(verification) = self.verifications.remove(&key) {
                let _ = verification.reply.send(verification.outcomes);
            }
        }
    }

    fn count(&self, class: Class) -> u32 {
        self.sequences.iter().filter(|s| s.class() == class).count() as u32
    }

    fn open_verifications(&mut self) {
        let mut free = self.shared.limits.verify_batch.saturating_sub(self.count(Class::Verification));
        while free > 0 {
            let Some((key, capacity)) =
                self.verifications.iter().find_map(|(key, v)| Some((*key, v.waiting.front()?.1.capacity())))
            else {
                return;
            };
            let Some(lease) = self.shared.kv.take_background(capacity) else { return };
            let id = self.new_id();
            let Some(verification) = self.verifications.get_mut(&key) else { return };
            let Some((item, ready)) = verification.waiting.pop_front() else { return };
            verification.open += 1;
            match self.source.open(id, capacity) {
                Ok(()) => self.begin(Sequence::verification(id, key, item, ready, lease)),
                Err(error) => {
                    log_failure(&error);
                    self.settle(
                        key,
                        item,
                        VerifyOutcome::Failed { reason: "the engine has no memory".into() },
                    );
                }
            }
            free -= 1;
        }
    }

    fn open_nonces(&mut self) {
        let mut free = self.shared.limits.sprint_batch.saturating_sub(self.count(Class::Sprint));
        while free > 0 {
            let Some((key, capacity)) = self
                .runs
                .iter()
                .find(|(_, run)| run.next < run.end)
                .map(|(key, run)| (*key, run.task.prompt_tokens.saturating_add(run.task.decode_tokens)))
            else {
                return;
            };
            let Some(lease) = self.shared.kv.take_background(capacity) else { return };
            let id = self.new_id();
            if let Err(error) = self.source.open(id, capacity) {
                log_failure(&error);
                return;
            }
            let Some(run) = self.runs.get_mut(&key) else { return };
            self.sequences.push(Sequence::sprint(id, key, run.next, &run.task, lease));
            run.next += 1;
            run.open += 1;
            free -= 1;
        }
    }

    fn stop_runs(&mut self, message: &str, code: &str) {
        for run in std::mem::take(&mut self.runs).into_values() {
            let _ = run.events.try_send(SprintEvent::Error(server_error(code, message)));
        }
        self.drop_abandoned();
    }

    /// Before the model goes away.
    fn stop_all(&mut self) {
        self.stop_runs("The model is being unloaded.", codes::STOPPING);
        self.verifications.clear();
        for sequence in std::mem::take(&mut self.sequences) {
            sequence.stop();
            self.source.close(sequence.id);
        }
        self.note_load();
    }

    fn note_load(&self) {
        let metrics = &self.shared.metrics;
        let classes = [(Class::Verification, class::VERIFICATION), (Class::Sprint, class::SPRINT)];
        for (class, label) in classes {
            metrics.sequences.with_label_values(&[label]).set(i64::from(self.count(class)));
        }
        let queued: u32 = self.runs.values().map(|run| run.end - run.next).fold(0, u32::saturating_add);
        metrics.sprint_queued.set(i64::from(queued));
        let waiting = self.sequences.iter().filter(|s| s.is_waiting()).count() as i64;
        metrics.requests_waiting.set(waiting);
        metrics.requests_running.set(i64::from(self.count(Class::Request)) - waiting);
        metrics.kv_usage.set(self.shared.kv.usage());
    }
}

fn log_failure(error: &SourceError) {
    tracing::error!(error = error as &dyn std::error::Error, "a step failed");
}
