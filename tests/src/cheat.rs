//! ML nodes that cheat, for the tests that show that it does not pay.
//!
//! Both kinds run the true weights for everything that decides whether they get work: the sprint, and the verification
//! of others. Only answers to clients come from other weights. They tell their agent the true weights' digest, which
//! stands for a dishonest host that takes the check out of its agent.

use anyhow::{bail, ensure, Context, Result};
use serde_json::{Map, Value};
use starling_mlnode::{
    loader::{FolderLoader, LoadError, LoadSpec, Loaded, Loader},
    model::Rates,
    source::{Chunk, Output, Resources, SequenceId, Shape, SourceError, Task, TokenSource, Waker},
};
use starling_primitives::transcript::{Candidate, TokenRecord, MAX_TAIL_Q};
use starling_prompt::{openai::ChatMessage, ApiError, Tokenizer};
use std::{collections::HashMap, fs, path::Path, str::FromStr, time::Duration};

/// Name of the environment variable that says how `cheating-mlnode` cheats.
pub const CHEAT: &str = "STARLING_CHEAT";
/// The weights, in the folders that can be cheated with.
const WEIGHTS: &str = "model.safetensors";
/// Bytes of a safetensors file before its header: the header's length.
const LENGTH: usize = 8;

/// How an ML node cheats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cheat {
    /// Serves other weights under the profile's name, and commits to what they say.
    OtherWeights,
    /// Writes with other weights, and commits to what the true ones say of it.
    BackFilled,
}

impl Cheat {
    /// Value of [`CHEAT`].
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherWeights => "other-weights",
            Self::BackFilled => "back-filled",
        }
    }
}

impl FromStr for Cheat {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::OtherWeights, Self::BackFilled];
        let found = all.into_iter().find(|cheat| cheat.name() == text);
        found.with_context(|| format!("{CHEAT} is {text:?}; it must be other-weights or back-filled"))
    }
}

/// Loads a folder twice: as it is, and with other weights.
#[derive(Clone, Copy, Debug)]
pub struct CheatingLoader(
    /// How it cheats.
    pub Cheat,
);

impl Loader for CheatingLoader {
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError> {
        tracing::warn!(cheat = self.0.name(), "this node cheats");
        let other = |error: anyhow::Error| LoadError::Other(format!("{error:#}"));
        let honest = FolderLoader::default().load(spec)?;
        // Gone when both are loaded.
        let folder = tempfile::tempdir().map_err(|error| LoadError::Other(error.to_string()))?;
        write_other_weights(&spec.folder, folder.path()).map_err(other)?;
        let dishonest = FolderLoader::default().load(&LoadSpec {
            folder: folder.path().into(),
            weights_digest: None,
            ..spec.clone()
        })?;
        let opening = opening(&honest.tokenizer).map_err(|error| LoadError::Other(error.to_string()))?;
        let source = CheatingSource {
            cheat: self.0,
            honest: honest.source,
            dishonest: dishonest.source,
            opening,
            sequences: HashMap::new(),
        };
        Ok(Loaded { source: Box::new(source), ..honest })
    }
}

/// Copies a model folder, with two neighbouring layers in the middle swapped: the same architecture, and an answer that
/// still reads like one.
pub fn write_other_weights(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != WEIGHTS {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    let config: Value = serde_json::from_slice(&fs::read(from.join("config.json"))?)?;
    let layers = config["num_hidden_layers"].as_u64().context("a config without layers")?;
    ensure!(layers >= 2, "a model of {layers} layers cannot have two swapped");
    let first = (layers / 2).saturating_sub(1);
    let weights = fs::read(from.join(WEIGHTS)).context("the cheats need weights in one file")?;
    fs::write(to.join(WEIGHTS), swap_layers(&weights, first, first + 1)?)?;
    Ok(())
}

/// A safetensors file in which two layers have each other's names. The tensors stay where they are.
fn swap_layers(file: &[u8], a: u64, b: u64) -> Result<Vec<u8>> {
    let (length, rest) = file.split_first_chunk::<LENGTH>().context("no header")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let (header, data) = rest.split_at_checked(length).context("the header is cut off")?;
    let tensors: Map<String, Value> = serde_json::from_slice(header)?;
    let prefix = |layer: u64| format!("model.layers.{layer}.");
    let (a, b) = (prefix(a), prefix(b));
    let mut swapped = 0;
    let renamed: Map<String, Value> = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let other = name
                .strip_prefix(&a)
                .map(|rest| format!("{b}{rest}"))
                .or_else(|| name.strip_prefix(&b).map(|rest| format!("{a}{rest}")));
            swapped += u32::from(other.is_some());
            (other.unwrap_or(name), tensor)
        })
        .collect();
    if swapped == 0 {
        bail!("the weights have no tensors named {a}* and {b}*");
    }
    let mut header = serde_json::to_vec(&renamed)?;
    // The data begins at a multiple of eight.
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    let length = u64::try_from(header.len())?;
    Ok([&length.to_le_bytes(), header.as_slice(), data].concat())
}

/// Tokens with which every client's question begins; a sprint's prompts are drawn from the whole vocabulary.
fn opening(tokenizer: &Tokenizer) -> Result<Vec<u32>, ApiError> {
    let [one, other] = ["a", "b"].map(|text| tokenizer.render(&[ChatMessage::new("user", text)]));
    let shared = one?.into_iter().zip(other?).take_while(|(a, b)| a == b);
    Ok(shared.map(|(token, _)| token).collect())
}

/// A sequence as far as it was told.
#[derive(Default)]
struct Told {
    capacity: u32,
    tokens: Vec<u32>,
    /// How many of them the dishonest source has taken in; `None` while it does not know the sequence.
    dishonest: Option<usize>,
}

/// Everything goes through the honest source; what is chosen for clients, through the dishonest one too.
struct CheatingSource {
    cheat: Cheat,
    honest: Box<dyn TokenSource>,
    dishonest: Box<dyn TokenSource>,
    opening: Vec<u32>,
    sequences: HashMap<SequenceId, Told>,
}

impl CheatingSource {
    /// The dishonest source's record of a token, if this is a client's.
    fn cheat(&mut self, chunk: &Chunk<'_>) -> Result<Option<TokenRecord>, SourceError> {
        let told = self.sequences.entry(chunk.sequence).or_default();
        told.tokens.extend(chunk.tokens);
        let Task::Choose(draw) = chunk.task else { return Ok(None) };
        if !told.tokens.starts_with(&self.opening) {
            return Ok(None);
        }
        let known = match told.dishonest {
            Some(known) => known,
            None => {
                self.dishonest.open(chunk.sequence, told.capacity)?;
                0
            }
        };
        let tokens = told.tokens.get(known..).unwrap_or_default();
        let late = Chunk { sequence: chunk.sequence, tokens, task: Task::Choose(draw) };
        let output = self.dishonest.step(&[late])?.pop();
        told.dishonest = Some(told.tokens.len());
        match output {
            Some(Output::Chosen(record)) => Ok(Some(record)),
            _ => Err(SourceError::NotOpen(chunk.sequence)),
        }
    }
}

impl TokenSource for CheatingSource {
    fn shape(&self) -> Shape {
        self.honest.shape()
    }

    fn use_resources(&mut self, resources: &Resources) {
        self.honest.use_resources(resources);
        self.dishonest.use_resources(resources);
    }

    fn set_waker(&mut self, waker: Waker) {
        self.honest.set_waker(Waker::clone(&waker));
        self.dishonest.set_waker(waker);
    }

    fn schedules(&self) -> bool {
        self.honest.schedules()
    }

    fn reserve(&mut self, tokens: u32) -> Result<(), SourceError> {
        self.dishonest.reserve(tokens)?;
        self.honest.reserve(tokens)
    }

    fn numerics(&self) -> &'static str {
        self.honest.numerics()
    }

    fn rates(&self) -> Option<Result<Rates, SourceError>> {
        self.honest.rates()
    }

    fn parameters_per_token(&self) -> u64 {
        self.honest.parameters_per_token()
    }

    fn weight_bytes(&self) -> u64 {
        self.honest.weight_bytes()
    }

    fn transcript_time(&self) -> Duration {
        self.honest.transcript_time()
    }

    /// Nothing: the dishonest source must see every token too.
    fn reuse(&mut self, _sequence: SequenceId, _tokens: &[u32]) -> u32 {
        0
    }

    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError> {
        self.sequences.insert(sequence, Told { capacity, ..Told::default() });
        self.honest.open(sequence, capacity)
    }

    fn close(&mut self, sequence: SequenceId) {
        self.sequences.remove(&sequence);
        self.honest.close(sequence);
        self.dishonest.close(sequence);
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        let top_k = self.shape().top_k;
        let mut outputs = self.honest.step(chunks)?;
        for (output, chunk) in outputs.iter_mut().zip(chunks) {
            let Some(dishonest) = self.cheat(chunk)? else { continue };
            let Output::Chosen(honest) = output else { continue };
            *honest = match (self.cheat, dishonest.chosen()) {
                (Cheat::BackFilled, Some(chosen)) => back_fill(honest, chosen.token, top_k),
                _ => dishonest,
            };
        }
        Ok(outputs)
    }
}

/// The honest candidates with another choice among them. A token that is not listed takes the last place, with the
/// highest probability that a missing token can have.
fn back_fill(honest: &TokenRecord, token: u32, top_k: u8) -> TokenRecord {
    let mut candidates = honest.candidates.clone();
    if candidates.iter().all(|candidate| candidate.token != token) {
        let full = candidates.len() >= usize::from(top_k);
        let last = if full { candidates.pop() } else { None };
        candidates.push(Candidate { token, q: last.map_or(MAX_TAIL_Q, |last| last.q) });
        candidates.sort_unstable_by_key(|candidate| (candidate.q, candidate.token));
    }
    let chosen = candidates.iter().position(|candidate| candidate.token == token);
    TokenRecord { candidates, chosen: chosen.and_then(|place| u8::try_from(place).ok()).unwrap_or(0) }
}
