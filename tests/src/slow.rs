//! ML nodes that take their time, as a larger model does: the demo model answers before a host can be seen to be full.

use starling_mlnode::{
    loader::{FolderLoader, LoadError, LoadSpec, Loaded, Loader},
    model::Rates,
    source::{Chunk, Output, Resources, SequenceId, Shape, SourceError, TokenSource, Waker},
};
use std::time::Duration;

/// Least time of a step.
const STEP: Duration = Duration::from_millis(10);

/// Loads folders as they are, to be run slowly.
#[derive(Clone, Copy, Debug)]
pub struct SlowLoader;

impl Loader for SlowLoader {
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError> {
        let loaded = FolderLoader::default().load(spec)?;
        Ok(Loaded { source: Box::new(SlowSource(loaded.source)), ..loaded })
    }
}

struct SlowSource(Box<dyn TokenSource>);

impl TokenSource for SlowSource {
    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn use_resources(&mut self, resources: &Resources) {
        self.0.use_resources(resources);
    }

    fn set_waker(&mut self, waker: Waker) {
        self.0.set_waker(waker);
    }

    fn schedules(&self) -> bool {
        self.0.schedules()
    }

    fn reserve(&mut self, tokens: u32) -> Result<(), SourceError> {
        self.0.reserve(tokens)
    }

    fn numerics(&self) -> &'static str {
        self.0.numerics()
    }

    fn rates(&self) -> Option<Result<Rates, SourceError>> {
        self.0.rates()
    }

    fn parameters_per_token(&self) -> u64 {
        self.0.parameters_per_token()
    }

    fn weight_bytes(&self) -> u64 {
        self.0.weight_bytes()
    }

    fn transcript_time(&self) -> Duration {
        self.0.transcript_time()
    }

    fn reuse(&mut self, sequence: SequenceId, tokens: &[u32]) -> u32 {
        self.0.reuse(sequence, tokens)
    }

    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError> {
        self.0.open(sequence, capacity)
    }

    fn close(&mut self, sequence: SequenceId) {
        self.0.close(sequence);
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        std::thread::sleep(STEP);
        self.0.step(chunks)
    }
}
