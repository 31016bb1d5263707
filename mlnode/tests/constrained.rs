//! Constraints: what is generated under one keeps to it, verifies with it, and with nothing else.

mod common;

use common::{config, constrained, demo_model, Answer, Running, MODEL, SAMPLED};
use serde::Deserialize;
use serde_json::json;
use starling_mlnode::{
    config::Limits,
    loader::{FolderLoader, LoadError, LoadSpec, Loaded, Loader},
    model::Rates,
    source::{Chunk, Draw, Output, Resources, SequenceId, Shape, SourceError, Task, TokenSource, Waker},
};
use starling_mlnode_api::{FinishReason, GenerateRequest, MlNode, VerifyItem, VerifyOutcome, VerifyRequest};
use starling_primitives::{
    constraint::{Constraint, Grammar, TokenBias},
    request::SamplingParams,
    verdict::Figures,
};

use std::time::Duration;

const PROMPT: &str = "<|im_start|>user\nWhat is a river?<|im_end|>\n<|im_start|>assistant\n";
const HOT: SamplingParams = SamplingParams { temperature_milli: 2_000, ..SamplingParams::GREEDY };

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    name: String,
    length: u16,
    kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    River,
    Lake,
}

fn place() -> Constraint {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "length": {"type": "integer", "minimum": 0, "maximum": 9_999},
            "kinds": {"type": "array", "items": {"enum": ["river", "lake"]}, "maxItems": 3},
        },
        "required": ["name", "length", "kinds"],
        "additionalProperties": false,
    });
    let grammar = Grammar { before: String::new(), schema: schema.to_string(), after: String::new() };
    Constraint { logit_bias: Vec::new(), grammar: Some(grammar) }
}

fn bias(token: u32, milli: i32) -> Constraint {
    Constraint { logit_bias: vec![TokenBias { token, milli }], grammar: None }
}

fn ask(node: &Running, seed: u8, sampling: SamplingParams, constraint: Constraint) -> GenerateRequest {
    let mut request = constrained(node.tokens(PROMPT), sampling, 120, Some(constraint));
    request.header.nonce = [seed; 32];
    request.tape_seed.0[0] = seed;
    request
}

fn item(request: &GenerateRequest, answer: &Answer) -> VerifyItem {
    VerifyItem {
        transcript: answer.done().transcript.clone(),
        prompt_tokens: request.prompt_tokens.clone(),
        tape_seed: request.tape_seed,
        constraint: request.constraint.clone(),
    }
}

async fn verify(node: &Running, items: Vec<VerifyItem>) -> Vec<VerifyOutcome> {
    node.client.verify(&VerifyRequest { model: MODEL.into(), items }).await.unwrap().outcomes
}

fn near(outcome: &VerifyOutcome) -> Figures {
    let VerifyOutcome::Figures(figures) = outcome else { panic!("{outcome:?}") };
    let mean = |sum: u64| sum as f64 / f64::from(figures.tokens);
    let (distance, margin) = (mean(figures.distance_sum), mean(figures.margin_sum));
    assert!(distance < 8.0 && margin < 2.0, "{distance} {margin}");
    *figures
}

fn contradicted(outcome: &VerifyOutcome, part: &str) {
    match outcome {
        VerifyOutcome::ReplayFailed { reason } => assert!(reason.contains(part), "{reason}"),
        other => panic!("{part}: {other:?}"),
    }
}

#[tokio::test]
async fn every_answer_satisfies_its_schema_and_verifies() {
    let node = Running::demo(Limits::default()).await;
    // Other steps, so that what is allowed is asked for in other pieces; and no common memory of prompts.
    let limits = Limits {
        step_tokens: 16,
        step_tokens_max: 16,
        background_tokens: 16,
        verify_batch: 2,
        ..Limits::default()
    };
    let verifier = Running::demo(limits).await;
    let requests: Vec<_> =
        (0..12).map(|seed| ask(&node, seed, if seed % 2 == 0 { SAMPLED } else { HOT }, place())).collect();
    let answers = futures::future::join_all(requests.iter().map(|request| node.run(request))).await;
    let mut whole = 0;
    for answer in &answers {
        if answer.done().finish_reason == FinishReason::Length {
            continue;
        }
        whole += 1;
        let place: Place =
            serde_json::from_str(&answer.text).unwrap_or_else(|e| panic!("{e}: {}", answer.text));
        assert!(place.name.chars().count() <= 40 && place.length <= 9_999 && place.kinds.len() <= 3);
    }
    assert!(whole >= 6, "{whole}");
    let items = requests.iter().zip(&answers).map(|(request, answer)| item(request, answer)).collect();
    for (outcome, answer) in verify(&verifier, items).await.iter().zip(&answers) {
        assert_eq!(near(outcome).tokens as usize, answer.tokens.len());
    }
}

#[tokio::test]
async fn a_transcript_verifies_with_its_own_constraint_only() {
    let node = Running::demo(Limits::default()).await;
    let request = ask(&node, 1, SAMPLED, place());
    let answer = node.run(&request).await;
    let honest = item(&request, &answer);
    let with = |constraint| VerifyItem { constraint, ..honest.clone() };
    let mut other = place();
    other.logit_bias.push(TokenBias { token: 5, milli: 1 });
    let mut wide = place();
    wide.grammar.as_mut().unwrap().schema = r#"{"type":"object"}"#.into();
    let items =
        vec![with(None), with(Some(other)), with(Some(wide)), with(Some(Constraint::default())), honest];
    let outcomes = verify(&node, items).await;
    let (last, changed) = outcomes.split_last().unwrap();
    changed.iter().for_each(|outcome| contradicted(outcome, "constraint"));
    near(last);
    // Neither does an answer that was free verify with one.
    let free = common::request(node.tokens(PROMPT), SAMPLED, 20);
    let free_item = VerifyItem { constraint: Some(place()), ..item(&free, &node.run(&free).await) };
    contradicted(&verify(&node, vec![free_item]).await[0], "constraint");
}

#[tokio::test]
async fn a_bias_moves_the_choice_and_verifies() {
    let node = Running::demo(Limits::default()).await;
    let token = node.tokens(" river")[0];
    let pushed = ask(&node, 3, SAMPLED, bias(token, 100_000));
    let answer = node.run(&pushed).await;
    assert_eq!(answer.tokens, [token; 120]);
    near(&verify(&node, vec![item(&pushed, &answer)]).await[0]);

    let free = node.run(&common::request(node.tokens(PROMPT), SamplingParams::GREEDY, 1)).await;
    let banned = ask(&node, 4, SamplingParams::GREEDY, bias(free.tokens[0], -100_000));
    let answer = node.run(&banned).await;
    assert_ne!(answer.tokens[0], free.tokens[0]);
    near(&verify(&node, vec![item(&banned, &answer)]).await[0]);
}

#[tokio::test]
async fn a_grammar_that_cannot_be_followed_ends_the_answer_at_once() {
    let node = Running::demo(Limits::default()).await;
    let mut impossible = place();
    impossible.grammar.as_mut().unwrap().schema = r#"{"type":"wizard"}"#.into();
    let request = ask(&node, 5, SAMPLED, impossible);
    let answer = node.run(&request).await;
    assert_eq!((answer.text.as_str(), answer.tokens.len()), ("", 1));
    assert_eq!(answer.done().finish_reason, FinishReason::Stop);
    near(&verify(&node, vec![item(&request, &answer)]).await[0]);
}

/// Generates as if there were no constraint, while the header names one.
struct Careless(Box<dyn TokenSource>);

impl TokenSource for Careless {
    fn shape(&self) -> Shape {
        self.0.shape()
    }
    fn use_resources(&mut self, resources: &Resources) {
        self.0.use_resources(resources)
    }
    fn set_waker(&mut self, waker: Waker) {
        self.0.set_waker(waker)
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
        self.0.close(sequence)
    }
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        let mut chunks = chunks.to_vec();
        for chunk in &mut chunks {
            if let Task::Choose(draw) = &mut chunk.task {
                *draw = Draw { bias: &[], allowed: &[], ..*draw };
            }
        }
        self.0.step(&chunks)
    }
}

struct CarelessLoader;

impl Loader for CarelessLoader {
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError> {
        let loaded = FolderLoader::default().load(spec)?;
        Ok(Loaded { source: Box::new(Careless(loaded.source)), ..loaded })
    }
}

#[tokio::test]
async fn an_executor_that_ignores_the_constraint_is_found_out() {
    let cheat = Running::start(&config(&demo_model(), Limits::default()), CarelessLoader).await;
    let verifier = Running::demo(Limits::default()).await;
    let schema = ask(&cheat, 6, SAMPLED, place());
    let river = verifier.tokens(" river")[0];
    let biased = ask(&cheat, 7, SAMPLED, bias(river, 8_000));
    let answers = [cheat.run(&schema).await, cheat.run(&biased).await];
    let items = vec![item(&schema, &answers[0]), item(&biased, &answers[1])];
    let outcomes = verify(&verifier, items).await;
    assert!(matches!(outcomes[0], VerifyOutcome::ConstraintBroken { .. }), "{:?}", outcomes[0]);
    let VerifyOutcome::Figures(figures) = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
    let distance = figures.distance_sum as f64 / f64::from(figures.tokens);
    assert!(distance > 60.0, "{distance}");
}
