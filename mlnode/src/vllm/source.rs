//! The source that has vLLM run the model.
//!
//! vLLM schedules: each step offers it all that is known. What it asks while it samples is answered in a step, from the draws
//! of that step, by the code that answers for the engine's own models; vLLM waits for the answer. So a step here is an
//! exchange, not a computation, and what nothing came of yet is [`Output::Pending`].

use super::{
    api::Completion,
    sequence::{look_up, Following, Kind, Remote, Work, Writing},
    server::Server,
    socket::Connection,
    wire::{Answer, Hello, Message, Place, PROTOCOL, UNKNOWN},
    Event,
};
use crate::{
    distribution::Distribution,
    model::Rates,
    source::{
        choose, measure, Chunk, Draw, Output, Resources, SequenceId, Shape, SourceError, Task, TokenSource,
        Waker, Wanted,
    },
};
use starling_primitives::{transcript::TokenRecord, verdict::Figures};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

/// Log-probabilities of a token that are asked for when a text is read, where the server gives so many: a committed candidate
/// is rarely missing among twice as many as were committed.
pub(super) const READ_TOP: u32 = 40;

/// The source.
pub struct VllmSource {
    pub(super) server: Server,
    pub(super) shape: Shape,
    /// Name of the model at the server; none while there are no tokens.
    model: Result<String, String>,
    connections: BTreeMap<u64, Sampler>,
    sequences: HashMap<SequenceId, Remote>,
    /// The sequences that vLLM runs, by their keys.
    keys: HashMap<u64, SequenceId>,
    next_key: u64,
    transcript_time: Duration,
}

/// A process of vLLM that samples.
#[derive(Debug)]
struct Sampler {
    connection: Connection,
    hello: Option<Hello>,
    question: Option<Question>,
}

/// What it waits for the answer to.
#[derive(Debug)]
enum Question {
    Ask(Vec<Place>),
    Rows(Vec<(Place, Distribution)>),
}

impl Question {
    fn places(&self) -> Vec<Place> {
        match self {
            Self::Ask(places) => places.clone(),
            Self::Rows(rows) => rows.iter().map(|(place, _)| *place).collect(),
        }
    }
}

impl std::fmt::Debug for VllmSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VllmSource")
            .field("shape", &self.shape)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl VllmSource {
    pub(super) fn new(server: Server, shape: Shape) -> Self {
        Self {
            server,
            shape,
            model: Err("vLLM is not there yet".into()),
            connections: BTreeMap::new(),
            sequences: HashMap::new(),
            keys: HashMap::new(),
            // An attached server may still have requests of an earlier node. JSON's numbers are exact up to 2^53.
            next_key: rand::random::<u64>() >> 12,
            transcript_time: Duration::ZERO,
        }
    }

    /// What a sampler has said of the server that it runs in.
    pub(super) fn hello(&self) -> Option<&Hello> {
        self.connections.values().find_map(|sampler| sampler.hello.as_ref())
    }

    /// Takes what came since.
    fn take_events(&mut self) {
        while let Some(event) = self.server.next_event() {
            self.take_event(event);
        }
    }

    /// Takes one event; loading waits for certain ones.
    pub(super) fn take_event(&mut self, event: Event) {
        match event {
            Event::Up { model } => self.model = Ok(model),
            Event::Down { reason, .. } => {
                for remote in self.sequences.values_mut() {
                    remote.fail(
                        "The vLLM server ended in the middle; try again later, or another node.".into(),
                    );
                }
                self.model = Err(reason);
            }
            Event::Connected(id, connection) => {
                self.connections.insert(id, Sampler { connection, hello: None, question: None });
            }
            Event::Disconnected(id) => drop(self.connections.remove(&id)),
            Event::Said(id, message) => self.take_message(id, message),
            Event::Wrote(key, tokens) => {
                self.server.beat();
                if let Some(remote) = self.remote(key) {
                    let result = match &mut remote.work {
                        Some(Work { kind: Kind::Writing(writing), .. }) => writing.passed_on(&tokens),
                        Some(Work { kind: Kind::Following(following), .. }) => {
                            following.passed_on(tokens.len());
                            Ok(())
                        }
                        _ => Ok(()),
                    };
                    result.unwrap_or_else(|reason| remote.fail(reason));
                }
            }
            Event::Read(key, rows) => {
                self.server.beat();
                if let Some(Remote { work: Some(Work { kind: Kind::Reading(read), .. }), .. }) =
                    self.remote(key)
                {
                    *read = Some(rows);
                }
            }
            Event::Failed(key, failure) => {
                if let Some(remote) = self.remote(key) {
                    tracing::error!(failure, "vLLM failed a request");
                    remote.fail("The vLLM server failed; try again later, or another node.".into());
                }
            }
        }
    }

    fn take_message(&mut self, id: u64, message: Message) {
        self.server.beat();
        let Some(sampler) = self.connections.get_mut(&id) else { return };
        match message {
            Message::Hello(hello) if hello.protocol == PROTOCOL => sampler.hello = Some(hello),
            Message::Hello(hello) => {
                let (theirs, ours) = (hello.protocol, PROTOCOL);
                tracing::error!(
                    theirs,
                    ours,
                    "a sampler speaks another protocol: give vLLM the plug-in of this node"
                );
                self.connections.remove(&id);
            }
            Message::Ask(places) => sampler.question = Some(Question::Ask(places)),
            Message::Rows(rows) => sampler.question = Some(Question::Rows(rows)),
        }
    }

    fn remote(&mut self, key: u64) -> Option<&mut Remote> {
        self.sequences.get_mut(self.keys.get(&key)?)
    }

    /// Finds out which tokens the questions show to be final.
    fn note_questions(&mut self) {
        let questions = self.connections.values().filter_map(|sampler| sampler.question.as_ref());
        let places: Vec<_> = questions.flat_map(Question::places).collect();
        for Place { key, position } in places {
            let Some(remote) = self.remote(key) else { continue };
            let Some(Work { kind: Kind::Writing(writing), .. }) = &mut remote.work else { continue };
            if let Err(reason) = writing.asked_for(position) {
                remote.fail(reason);
            }
        }
    }

    /// What there is for a chunk; starts what it asks for.
    fn output(&mut self, chunk: &Chunk<'_>) -> Output {
        let top_k = self.shape.top_k;
        let Some(remote) = self.sequences.get_mut(&chunk.sequence) else {
            return Output::Failed("The sequence is not open.".into());
        };
        if let Some(reason) = &remote.failed {
            return Output::Failed(reason.clone());
        }
        if matches!(chunk.task, Task::Extend) {
            remote.taken.extend_from_slice(chunk.tokens);
            return Output::Extended;
        }
        // It would have to send a number for each token of the vocabulary, at each place.
        if matches!(&chunk.task, Task::Choose(draw) if draw.perturbation.is_some()) {
            return Output::Failed("A model that vLLM runs cannot be perturbed.".into());
        }
        let Some(work) = &mut remote.work else {
            return self.start(chunk);
        };
        match (&mut work.kind, &chunk.task) {
            (Kind::Writing(writing), Task::Choose(_)) => {
                writing.take_ready().map_or(Output::Pending, Output::Chosen)
            }
            (Kind::Following(following), Task::Measure(..)) => match following.sum() {
                None => Output::Pending,
                Some(Ok(figures)) => Output::Measured(figures),
                Some(Err(reason)) => Output::Failed(reason),
            },
            (Kind::Reading(read), Task::Measure(draw, records)) => {
                let Some(rows) = read.take() else { return Output::Pending };
                // The last ones stand for the records.
                let first = rows.len().saturating_sub(records.len());
                let rows = rows.into_iter().skip(first).zip(*records).map(|(row, record)| {
                    look_up(row, record.candidates.iter().map(|candidate| candidate.token))
                });
                Output::Measured(measure(draw, records, rows, top_k))
            }
            _ => Output::Failed("A sequence is either written or checked.".into()),
        }
    }

    /// Has vLLM begin with a sequence.
    fn start(&mut self, chunk: &Chunk<'_>) -> Output {
        let model = match &self.model {
            Ok(model) => model.clone(),
            Err(_) => {
                return Output::Failed(
                    "The vLLM server is not there; try again later, or another node.".into(),
                )
            }
        };
        let key = self.next_key;
        self.next_key += 1;
        let Some(remote) = self.sequences.get_mut(&chunk.sequence) else { return Output::Pending };
        let mut prompt = std::mem::take(&mut remote.taken);
        prompt.extend_from_slice(chunk.tokens);
        let top = self.shape.top_k;
        let (kind, task) = match &chunk.task {
            Task::Measure(draw, records) if !is_changed(draw) => {
                // The last token's own log-probability is wanted too.
                prompt.extend(draw.completion.last());
                let kind = Kind::Reading(None);
                (kind, self.server.read(key, model, prompt, records.len()))
            }
            Task::Measure(_, records) => {
                // What stands before the first record.
                prompt.truncate(prompt.len() + 1 - records.len());
                let kind = Kind::Following(Following::new(records.len()));
                let max_tokens = records.len() as u32;
                (kind, self.server.write(model, Completion { key, top, asks: true, prompt, max_tokens }))
            }
            Task::Choose(draw) => {
                let max_tokens = remote.capacity.saturating_sub(prompt.len() as u32).max(1);
                let completion = Completion { key, top, asks: is_changed(draw), prompt, max_tokens };
                (Kind::Writing(Writing::default()), self.server.write(model, completion))
            }
            Task::Extend => return Output::Extended,
        };
        self.keys.insert(key, chunk.sequence);
        remote.work = Some(Work { key, kind, task });
        Output::Pending
    }

    /// Answers the questions that this step's draws answer.
    fn answer(
        &mut self,
        chunks: &HashMap<SequenceId, &Chunk<'_>>,
        outputs: &mut HashMap<SequenceId, Output>,
    ) {
        let mut gone = Vec::new();
        let mut connections = std::mem::take(&mut self.connections);
        for (id, sampler) in &mut connections {
            let Some(question) = &sampler.question else { continue };
            if !question.places().iter().all(|place| self.can_answer(place, outputs)) {
                continue;
            }
            let mut answer = Answer::new();
            match sampler.question.take() {
                Some(Question::Ask(places)) => {
                    places.iter().for_each(|place| self.prepare(place, chunks, &mut answer));
                }
                Some(Question::Rows(rows)) => {
                    for (place, row) in rows {
                        answer.push(self.draw(&place, row, chunks, outputs));
                    }
                }
                None => continue,
            }
            if let Err(error) = sampler.connection.send(&answer.into_frame()) {
                tracing::warn!(%error, "a sampler is gone");
                gone.push(*id);
            }
        }
        gone.iter().for_each(|id| drop(connections.remove(id)));
        self.connections = connections;
    }

    /// Whether the engine is where the sampler is. It is behind when it has just got a token.
    fn can_answer(&self, place: &Place, outputs: &HashMap<SequenceId, Output>) -> bool {
        let Some(sequence) = self.keys.get(&place.key) else { return true };
        let Some(output) = outputs.get(sequence) else { return true };
        let remote = self.sequences.get(sequence);
        match remote.and_then(|remote| remote.work.as_ref()).map(|work| &work.kind) {
            Some(Kind::Writing(writing)) if *output == Output::Pending => {
                writing.drawn(place.position).is_some() || writing.is_at(place.position)
            }
            Some(Kind::Writing(writing)) => {
                matches!(output, Output::Failed(_)) || writing.drawn(place.position).is_some()
            }
            _ => true,
        }
    }

    /// What is to be done with the logits at a place.
    fn prepare(&self, place: &Place, chunks: &HashMap<SequenceId, &Chunk<'_>>, answer: &mut Answer) {
        let chunk = self.keys.get(&place.key).and_then(|sequence| chunks.get(sequence));
        let wanted = chunk.and_then(|chunk| wanted(&chunk.task, place.position));
        let Some(wanted) = wanted else { return answer.push_preparation(&[], &[], &[]) };
        let question = wanted.question();
        let allowed = wanted.allowed().map_or(&[][..], |allowed| allowed.words());
        answer.push_preparation(&question.changes, allowed, &question.asked);
    }

    /// The token at a place.
    fn draw(
        &mut self,
        place: &Place,
        row: Distribution,
        chunks: &HashMap<SequenceId, &Chunk<'_>>,
        outputs: &mut HashMap<SequenceId, Output>,
    ) -> u32 {
        let Some(sequence) = self.keys.get(&place.key) else { return UNKNOWN };
        let (Some(chunk), Some(output)) = (chunks.get(sequence), outputs.get_mut(sequence)) else {
            return UNKNOWN;
        };
        let top_k = self.shape.top_k;
        let Some(remote) = self.sequences.get_mut(sequence).filter(|remote| remote.failed.is_none()) else {
            return UNKNOWN;
        };
        if row.top.is_empty() || row.top.iter().any(|(_, log_prob)| log_prob.is_nan()) {
            *output = Output::Failed("The model gave something that is no number.".into());
            return UNKNOWN;
        }
        match (remote.work.as_mut().map(|work| &mut work.kind), &chunk.task) {
            (Some(Kind::Writing(writing)), Task::Choose(draw)) => {
                if let Some(token) = writing.drawn(place.position) {
                    return token;
                }
                match choose(chunk.sequence, draw, row)
                    .ok()
                    .and_then(|record| Some((record.chosen()?.token, record)))
                {
                    Some((token, record)) => {
                        writing.stage(record);
                        token
                    }
                    None => UNKNOWN,
                }
            }
            (Some(Kind::Following(following)), Task::Measure(draw, records)) => {
                let Some(record) = records.get(place.position as usize) else { return UNKNOWN };
                following.found(place.position, figures(draw, record, place.position, row, top_k));
                record.chosen().map_or(UNKNOWN, |chosen| chosen.token)
            }
            _ => UNKNOWN,
        }
    }
}

/// Whether logits are changed before tokens are drawn from them.
fn is_changed(draw: &Draw<'_>) -> bool {
    let params = draw.params;
    let penalised = params.frequency_penalty_milli != 0 || params.presence_penalty_milli != 0;
    penalised || !draw.bias.is_empty() || !draw.allowed.is_empty()
}

/// The row at a place of the completion, as the task needs it.
fn wanted<'a>(task: &'a Task<'a>, position: u32) -> Option<Wanted<'a>> {
    match task {
        Task::Extend => None,
        Task::Choose(draw) => Some(Wanted { draw, position: position as usize, asked: &[] }),
        Task::Measure(draw, records) => {
            let record = records.get(position.checked_sub(draw.position)? as usize)?;
            Some(Wanted { draw, position: position as usize, asked: &record.candidates })
        }
    }
}

fn figures(draw: &Draw<'_>, record: &TokenRecord, position: u32, row: Distribution, top_k: u8) -> Figures {
    let draw = Draw { position, ..*draw };
    measure(&draw, std::slice::from_ref(record), std::iter::once(row), top_k)
}

impl Remote {
    fn fail(&mut self, reason: String) {
        self.failed.get_or_insert(reason);
    }
}

impl TokenSource for VllmSource {
    fn shape(&self) -> Shape {
        self.shape
    }

    /// vLLM takes what its arguments say.
    fn use_resources(&mut self, _resources: &Resources) {}

    fn set_waker(&mut self, waker: Waker) {
        self.server.set_waker(waker);
    }

    fn schedules(&self) -> bool {
        true
    }

    fn reserve(&mut self, tokens: u32) -> Result<(), SourceError> {
        match self.server.kv_tokens() {
            Ok(Some(room)) if room < u64::from(tokens) => Err(SourceError::Other(format!(
                "vLLM has room for the keys and values of {room} tokens, limits.kv_tokens asks for {tokens}: lower it, or give vLLM more memory"
            ))),
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                tracing::warn!("vLLM does not say for how many tokens it has room");
                Ok(())
            }
            Err(failure) => Err(SourceError::Other(format!("vLLM's metrics cannot be read: {failure}"))),
        }
    }

    fn numerics(&self) -> &'static str {
        self.hello().map_or("unknown", Hello::numerics)
    }

    fn rates(&self) -> Option<Result<Rates, SourceError>> {
        None
    }

    fn parameters_per_token(&self) -> u64 {
        self.shape.parameters
    }

    fn weight_bytes(&self) -> u64 {
        0
    }

    fn transcript_time(&self) -> Duration {
        self.transcript_time
    }

    /// vLLM has a cache of its own for what begins alike.
    fn reuse(&mut self, _sequence: SequenceId, _tokens: &[u32]) -> u32 {
        0
    }

    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError> {
        let remote = Remote { capacity, taken: Vec::new(), work: None, failed: None };
        self.sequences.insert(sequence, remote);
        Ok(())
    }

    fn close(&mut self, sequence: SequenceId) {
        if let Some(work) = self.sequences.remove(&sequence).and_then(|remote| remote.work) {
            self.keys.remove(&work.key);
        }
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        self.take_events();
        let started = Instant::now();
        self.note_questions();
        let mut outputs = chunks.iter().map(|chunk| (chunk.sequence, self.output(chunk))).collect();
        let by_sequence = chunks.iter().map(|chunk| (chunk.sequence, chunk)).collect();
        self.answer(&by_sequence, &mut outputs);
        self.transcript_time += started.elapsed();
        let taken = chunks.iter().map(|chunk| outputs.remove(&chunk.sequence));
        // Twice the same sequence is a mistake of the engine's.
        taken.zip(chunks).map(|(output, chunk)| output.ok_or(SourceError::NotOpen(chunk.sequence))).collect()
    }
}
