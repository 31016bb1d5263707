//! What is sent to the engine's thread.

use super::{LoadRefusal, ServedModel};
use crate::{constraint::Constrained, kv::KvLease, loader::LoadSpec, source::Shape, verify::Ready};
use starling_mlnode_api::{
    GenerateEvent, GenerateRequest, NonceRange, Perturbation, SprintEvent, VerifyOutcome,
};
use starling_primitives::{
    constraint::{check_bound, Constraint},
    request::{prompt_hash, RequestHeader, SamplingParams},
    sprint::SprintTask,
    transcript::WINDOW_TOKENS,
    H256,
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, OwnedSemaphorePermit};

/// Stop strings at most.
pub const MAX_STOP_STRINGS: usize = starling_prompt::MAX_STOP_STRINGS;
/// Bytes of one stop string at most.
pub const MAX_STOP_BYTES: usize = starling_prompt::MAX_STOP_BYTES;

/// Events of a generation. Dropping it ends the generation at the next step.
pub type Generation = mpsc::Receiver<GenerateEvent>;

/// Why the engine did not take something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Every permit or all room is taken.
    #[error("all slots of this node are taken")]
    Overloaded,
    /// No such model is loaded.
    #[error("the model {0:?} is not loaded")]
    ModelNotFound(String),
    /// Prompt and completion do not fit.
    #[error("the prompt's {prompt} tokens and {max_tokens} more exceed the context of {max_context}")]
    ContextLength {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens to generate.
        max_tokens: u32,
        /// The context.
        max_context: u32,
    },
    /// The request contradicts itself or a limit.
    #[error("{message}")]
    Invalid {
        /// Parameter at fault.
        param: String,
        /// What is wrong, for the one who asks.
        message: String,
    },
    /// The engine failed.
    #[error("the engine failed: {0}")]
    Failed(String),
    /// What runs the model is not there at the moment; the reason is a sentence.
    #[error("{0}")]
    NotReady(String),
    /// The node is going down, or its model is being unloaded.
    #[error("the node is stopping")]
    Stopping,
}

/// A request that was checked against the model: nothing later can find it wrong.
#[derive(Clone, Debug)]
pub struct ValidRequest {
    /// What the generation is bound to.
    pub header: RequestHeader,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Seed of the tape.
    pub tape_seed: H256,
    /// What the answer keeps to.
    pub constraint: Option<Constraint>,
    /// Stop strings.
    pub stop: Vec<String>,
    /// Whether events carry the candidates.
    pub logprobs: bool,
    /// Noise on the logits.
    pub perturbation: Option<Perturbation>,
}

impl ValidRequest {
    /// Checks a request.
    pub fn new(request: &GenerateRequest, shape: &Shape) -> Result<Self, Refusal> {
        let header = &request.header;
        let prompt = &request.prompt_tokens;
        let refuse = |param: &str, message: String| Err(Refusal::Invalid { param: param.into(), message });
        if prompt.is_empty() {
            return refuse("prompt_tokens", "The prompt is empty.".into());
        }
        if header.max_tokens == 0 {
            return refuse("header.max_tokens", "At least one token must be allowed.".into());
        }
        let room = u32::try_from(prompt.len()).ok().and_then(|n| shape.max_context.checked_sub(n));
        if room.is_none_or(|room| room < header.max_tokens) {
            return Err(Refusal::ContextLength {
                prompt: prompt.len(),
                max_tokens: header.max_tokens,
                max_context: shape.max_context,
            });
        }
        if let Some(token) = prompt.iter().find(|t| **t >= shape.vocab_size) {
            return refuse("prompt_tokens", format!("The token {token} is not in the vocabulary."));
        }
        if prompt_hash(prompt) != header.prompt_hash {
            return refuse("header.prompt_hash", "The prompt is not the one in the header.".into());
        }
        if let Some(param) = out_of_range(&header.sampling, shape.top_k) {
            return refuse(param, "The value is out of range.".into());
        }
        let strengths = 1..=Perturbation::MAX_STRENGTH;
        if request.perturbation.is_some_and(|noise| !strengths.contains(&noise.strength_milli)) {
            let most = Perturbation::MAX_STRENGTH;
            return refuse("perturbation.strength_milli", format!("The value must be 1 to {most}."));
        }
        if let Err(error) = check_bound(request.constraint.as_ref(), header, shape.vocab_size) {
            return refuse("constraint", format!("The constraint cannot be taken: {error}."));
        }
        let stops = &request.stop;
        if stops.len() > MAX_STOP_STRINGS || stops.iter().any(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
            let message = format!("At most {MAX_STOP_STRINGS} stop strings of 1 to {MAX_STOP_BYTES} bytes.");
            return refuse("stop", message);
        }
        Ok(Self {
            header: header.clone(),
            prompt: prompt.clone(),
            tape_seed: request.tape_seed,
            constraint: request.constraint.clone(),
            stop: stops.clone(),
            logprobs: request.logprobs,
            perturbation: request.perturbation,
        })
    }

    /// Tokens that its keys and values take at most.
    pub fn capacity(&self) -> u32 {
        (self.prompt.len() as u32).saturating_add(self.header.max_tokens)
    }

    /// Events that it gives at most: a token each, the windows, and the end.
    pub fn events_max(&self) -> usize {
        let tokens = self.header.max_tokens as usize;
        tokens.saturating_add(tokens.div_ceil(WINDOW_TOKENS)).saturating_add(2)
    }
}

/// The first sampling parameter that lies outside its documented range.
fn out_of_range(params: &SamplingParams, top_k: u8) -> Option<&'static str> {
    let penalty = -2_000..=2_000;
    [
        ("header.sampling.temperature_milli", params.temperature_milli <= SamplingParams::MAX_TEMPERATURE),
        ("header.sampling.top_p", (1..=10_000).contains(&params.top_p)),
        ("header.sampling.min_p", params.min_p <= 10_000),
        ("header.sampling.top_k", params.top_k <= top_k),
        ("header.sampling.frequency_penalty_milli", penalty.contains(&params.frequency_penalty_milli)),
        ("header.sampling.presence_penalty_milli", penalty.contains(&params.presence_penalty_milli)),
    ]
    .into_iter()
    .find_map(|(name, fits)| (!fits).then_some(name))
}

/// A request with its place in the engine.
#[derive(Debug)]
pub(super) struct GenerateJob {
    pub(super) request: ValidRequest,
    /// The request's, compiled.
    pub(super) constraint: Option<Constrained>,
    pub(super) events: mpsc::Sender<GenerateEvent>,
    /// Absent for probes, which are so small that they are not counted.
    pub(super) kv: Option<KvLease>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Transcripts to check.
#[derive(Debug)]
pub(super) struct VerifyJob {
    /// One per item; those in `ready` are overwritten.
    pub(super) outcomes: Vec<VerifyOutcome>,
    /// What needs the model, with its place in `outcomes`.
    pub(super) ready: Vec<(usize, Ready)>,
    pub(super) reply: oneshot::Sender<Vec<VerifyOutcome>>,
    pub(super) _permit: OwnedSemaphorePermit,
}

/// Sprint work.
#[derive(Debug)]
pub(super) struct SprintJob {
    pub(super) task: SprintTask,
    pub(super) nonces: NonceRange,
    pub(super) events: mpsc::Sender<SprintEvent>,
    pub(super) _permit: OwnedSemaphorePermit,
}

/// Everything that the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    Load(LoadSpec, oneshot::Sender<Result<Arc<ServedModel>, LoadRefusal>>),
    Unload(String, oneshot::Sender<Result<(), Refusal>>),
    Generate(Box<GenerateJob>),
    Verify(VerifyJob),
    Sprint(SprintJob),
    StopSprint(oneshot::Sender<()>),
    /// The source has something to say.
    Wake,
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_primitives::constraint::TokenBias;

    const SHAPE: Shape = Shape { vocab_size: 100, max_context: 16, top_k: 5, parameters: 0 };

    fn request() -> GenerateRequest {
        let prompt_tokens = vec![1, 2, 3];
        GenerateRequest {
            model: "m".into(),
            header: RequestHeader {
                profile: 0,
                prompt_hash: prompt_hash(&prompt_tokens),
                sampling: SamplingParams::GREEDY,
                max_tokens: 13,
                constraint: None,
                nonce: [0; 32],
            },
            prompt_tokens,
            tape_seed: H256::zero(),
            constraint: None,
            stop: vec![],
            logprobs: false,
            perturbation: None,
        }
    }

    fn check(change: impl FnOnce(&mut GenerateRequest), param: &str) {
        let mut request = request();
        change(&mut request);
        match ValidRequest::new(&request, &SHAPE) {
            Err(Refusal::Invalid { param: found, .. }) => assert_eq!(found, param),
            other => panic!("{param}: {other:?}"),
        }
    }

    #[test]
    fn a_good_request_passes() {
        let valid = ValidRequest::new(&request(), &SHAPE).unwrap();
        assert_eq!((valid.capacity(), valid.events_max()), (16, 16));
    }

    #[test]
    fn bad_requests_are_refused_by_parameter() {
        check(|r| r.prompt_tokens.clear(), "prompt_tokens");
        check(|r| r.prompt_tokens = vec![1, 2, 100], "prompt_tokens");
        check(|r| r.prompt_tokens = vec![1, 2, 4], "header.prompt_hash");
        check(|r| r.header.max_tokens = 0, "header.max_tokens");
        check(|r| r.header.sampling.temperature_milli = 2_001, "header.sampling.temperature_milli");
        check(|r| r.header.sampling.top_p = 0, "header.sampling.top_p");
        check(|r| r.header.sampling.min_p = 10_001, "header.sampling.min_p");
        check(|r| r.header.sampling.top_k = 6, "header.sampling.top_k");
        check(
            |r| r.header.sampling.presence_penalty_milli = -2_001,
            "header.sampling.presence_penalty_milli",
        );
        let bias = |token, milli| Constraint { logit_bias: vec![TokenBias { token, milli }], grammar: None };
        check(|r| r.constraint = Some(bias(1, 1)), "constraint");
        check(|r| r.header.constraint = Some(bias(1, 1).hash()), "constraint");
        check(
            |r| {
                r.header.constraint = Some(bias(100, 1).hash());
                r.constraint = Some(bias(100, 1));
            },
            "constraint",
        );
        for strength_milli in [0, Perturbation::MAX_STRENGTH + 1] {
            let noise = Perturbation { seed: H256::zero(), strength_milli };
            check(|r| r.perturbation = Some(noise), "perturbation.strength_milli");
        }
        check(|r| r.stop = vec![String::new()], "stop");
        check(|r| r.stop = vec!["x".into(); 5], "stop");
    }

    #[test]
    fn what_does_not_fit_the_context_is_refused() {
        for max_tokens in [14, u32::MAX] {
            let mut request = request();
            request.header.max_tokens = max_tokens;
            assert!(matches!(ValidRequest::new(&request, &SHAPE), Err(Refusal::ContextLength { .. })));
        }
        let mut long = request();
        long.prompt_tokens = vec![1; 17];
        assert!(matches!(ValidRequest::new(&long, &SHAPE), Err(Refusal::ContextLength { .. })));
    }
}
