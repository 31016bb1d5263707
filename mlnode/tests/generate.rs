//! Generation, verification and sprints over HTTP, on the demo model.

mod common;

use common::{
    config, demo_model, eventually, rambling_model, request, write_other_model, Running, MODEL, SAMPLED,
};
use futures::StreamExt;
use starling_mlnode::{
    config::Limits,
    loader::{FolderLoader, LoadError, LoadSpec, Loaded, Loader},
    model::Rates,
    source::{Chunk, Output, Resources, SequenceId, Shape, SourceError, TokenSource, Waker},
};
use starling_mlnode_api::{
    codes, FinishReason, GenerateRequest, MlNode, NonceRange, Perturbation, SprintEvent, SprintRunRequest,
    VerifyItem, VerifyOutcome, VerifyRequest,
};
use starling_primitives::{
    records::{response_hash, Finished},
    replay::{replay_sprint, replay_with, Checks},
    request::SamplingParams,
    sprint::SprintTask,
    transcript::{window_hash, Transcript},
    verdict::Figures,
    AccountId, H256,
};
use std::time::Duration;

const LONG: &str =
    "Tell me about the history of the city, its rivers and its people, and why it was built there.";

fn item(request: &GenerateRequest, transcript: &Transcript) -> VerifyItem {
    VerifyItem {
        transcript: codec::Encode::encode(transcript),
        prompt_tokens: request.prompt_tokens.clone(),
        tape_seed: request.tape_seed,
        constraint: request.constraint.clone(),
    }
}

async fn verify(node: &Running, items: Vec<VerifyItem>) -> Vec<VerifyOutcome> {
    let answer = node.client.verify(&VerifyRequest { model: MODEL.into(), items }).await.unwrap();
    answer.outcomes
}

fn figures(outcome: &VerifyOutcome) -> Figures {
    match outcome {
        VerifyOutcome::Figures(figures) => *figures,
        other => panic!("{other:?}"),
    }
}

/// Means per token in 1/1024 nat.
fn means(figures: &Figures) -> (f64, f64) {
    let tokens = f64::from(figures.tokens);
    (figures.distance_sum as f64 / tokens, figures.margin_sum as f64 / tokens)
}

#[tokio::test]
async fn an_answer_comes_with_its_transcript() {
    let node = Running::demo(Limits::default()).await;
    let request = request(node.tokens(LONG), SAMPLED, 150);
    let answer = node.run(&request).await;
    let (done, transcript) = (answer.done(), answer.transcript());
    assert_eq!(transcript.header, request.header);
    assert_eq!(transcript.tokens().unwrap(), answer.tokens);
    assert_eq!(done.completion_tokens as usize, answer.tokens.len());
    assert_eq!(done.prompt_tokens as usize, request.prompt_tokens.len());
    assert_eq!(done.response_hash, response_hash(&answer.tokens));
    assert_eq!(done.transcript_root, transcript.root());
    let mut hash = request.header.id();
    for (sent, (bytes, running)) in transcript.windows.iter().zip(&answer.windows) {
        hash = window_hash(&hash, bytes);
        assert_eq!((sent, running), (bytes, &hash));
    }
    assert_eq!(transcript.windows.len(), answer.windows.len());
    let tokenizer = &node.node.engine().model().unwrap().tokenizer;
    assert_eq!(answer.text, tokenizer.decode(&answer.tokens));
    assert!(answer.candidates.iter().all(Vec::is_empty));

    // The same request gives the same answer; with candidates too.
    let again = node.run(&GenerateRequest { logprobs: true, ..request }).await;
    assert_eq!(again.tokens, answer.tokens);
    for (candidates, record) in again.candidates.iter().zip(transcript.records().unwrap()) {
        let expected: Vec<_> = record.candidates.iter().map(|c| (c.token, c.q)).collect();
        assert_eq!(*candidates, expected);
    }
}

#[tokio::test]
async fn generation_ends_at_max_tokens_eos_and_stop_strings() {
    let node = Running::demo(Limits::default()).await;
    let prompt = node.tokens("<|im_start|>user\nWhat is a river?<|im_end|>\n<|im_start|>assistant\n");
    let short = node.run(&request(node.tokens(LONG), SAMPLED, 5)).await;
    assert_eq!((short.tokens.len(), short.done().finish_reason), (5, FinishReason::Length));

    let whole = node.run(&request(prompt.clone(), SamplingParams::GREEDY, 400)).await;
    let tokenizer = node.node.engine().model().unwrap().tokenizer.clone();
    assert_eq!(whole.done().finish_reason, FinishReason::Stop);
    assert!(tokenizer.is_eos(*whole.tokens.last().unwrap()));

    let (before, stop) = whole.text.split_at(whole.text.len() / 2);
    let stop: String = stop.chars().take(6).collect();
    let cut = whole.text.find(&stop).unwrap().min(before.len());
    let mut stopping = request(prompt, SamplingParams::GREEDY, 400);
    stopping.stop = vec!["never written".into(), stop];
    let stopped = node.run(&stopping).await;
    assert_eq!(stopped.done().finish_reason, FinishReason::Stop);
    assert_eq!(stopped.text, whole.text[..cut]);
    assert!(stopped.tokens.len() < whole.tokens.len() && whole.tokens.starts_with(&stopped.tokens));
}

#[tokio::test]
async fn a_perturbed_answer_replays_and_is_far_from_the_model() {
    let node = Running::demo(Limits::default()).await;
    let plain = request(node.tokens(&LONG.repeat(4)), SAMPLED, 120);
    let noise = |seed| Perturbation { seed: H256::repeat_byte(seed), strength_milli: 500 };
    let perturbed = |seed| GenerateRequest { perturbation: Some(noise(seed)), ..plain.clone() };
    let alone = node.run(&plain).await;
    // In one batch, and in both orders: the prefix of the one is the other's.
    let (first, wrong, beside) = (perturbed(1), perturbed(2), plain.clone());
    let (first, beside, wrong) = tokio::join!(node.run(&first), node.run(&beside), node.run(&wrong));
    assert_eq!(beside.done().transcript, alone.done().transcript);
    let afterwards = node.run(&plain).await;
    assert!(afterwards.done().cached_tokens > 0);
    assert_eq!(afterwards.done().transcript, alone.done().transcript);
    // The noise follows from its seed.
    assert_eq!(node.run(&perturbed(1)).await.done().transcript, first.done().transcript);
    assert_ne!(first.done().transcript, wrong.done().transcript);
    assert_ne!(first.done().transcript, alone.done().transcript);

    for answer in [&first, &wrong] {
        let (done, transcript) = (answer.done(), answer.transcript());
        let finished = Finished {
            request_id: plain.header.id(),
            response_hash: done.response_hash,
            transcript_root: done.transcript_root,
            prompt_tokens: done.prompt_tokens,
            completion_tokens: done.completion_tokens,
        };
        let checks = Checks { prompt: Some(&plain.prompt_tokens), vocab_size: None, top_k: Some(20) };
        replay_with(&transcript, &plain.tape_seed, &finished, &checks).unwrap();
    }
    let answers = [&alone, &first, &wrong].map(|answer| item(&plain, &answer.transcript()));
    let outcomes = verify(&node, answers.to_vec()).await;
    let (distance, margin) = means(&figures(&outcomes[0]));
    assert!(distance < 8.0 && margin < 8.0, "{distance} {margin}");
    for outcome in &outcomes[1..] {
        let (distance, _) = means(&figures(outcome));
        assert!(distance > 64.0, "the limits of the demo model are 8: {distance}");
    }
}

#[tokio::test]
async fn honest_transcripts_verify_near_zero() {
    let node = Running::demo(Limits::default()).await;
    // Another node with other steps and a shorter batch, as another host has.
    let limits = Limits {
        step_tokens: 16,
        step_tokens_max: 16,
        requests_max: 16,
        verify_batch: 1,
        ..Limits::default()
    };
    let verifier = Running::demo(limits).await;
    let params = [
        SAMPLED,
        SamplingParams::GREEDY,
        SamplingParams { temperature_milli: 700, top_p: 9_500, top_k: 20, ..SAMPLED },
        SamplingParams { temperature_milli: 2_000, min_p: 300, ..SAMPLED },
        SamplingParams { frequency_penalty_milli: 700, presence_penalty_milli: -300, ..SAMPLED },
    ];
    let mut items = Vec::new();
    // All at once, so that batches form.
    let requests: Vec<_> = params.iter().map(|p| request(node.tokens(LONG), *p, 100)).collect();
    let answers = futures::future::join_all(requests.iter().map(|request| node.run(request))).await;
    for (request, answer) in requests.iter().zip(&answers) {
        items.push(item(request, &answer.transcript()));
    }
    let outcomes = verify(&verifier, items).await;
    for ((outcome, answer), params) in outcomes.iter().zip(&answers).zip(params) {
        let found = figures(outcome);
        let (distance, margin) = means(&found);
        println!(
            "{params:?}: distance {distance:.2}, margin {margin:.3} of 1024 over {} tokens",
            found.tokens
        );
        assert_eq!(found.tokens as usize, answer.tokens.len());
        assert!(distance < 8.0 && margin < 2.0, "{distance} {margin} {params:?}");
    }
    let bytes: usize = answers.iter().map(|a| a.transcript().encoded_len()).sum();
    let tokens: usize = answers.iter().map(|a| a.tokens.len()).sum();
    println!("{:.1} bytes per token", bytes as f64 / tokens as f64);
}

#[tokio::test]
async fn what_is_known_of_a_prompt_changes_no_committed_integer() {
    let folder = rambling_model();
    let reusing = Running::start(&config(folder.path(), Limits::default()), FolderLoader::default()).await;
    let limits = Limits { prefix_tokens: 0, ..Limits::default() };
    let fresh = Running::start(&config(folder.path(), limits), FolderLoader::default()).await;
    let known = async |node: &Running| {
        let text = node.client.metrics().await.unwrap();
        let line = text.lines().find(|line| line.starts_with("vllm:prefix_cache_hits_total{")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let mut prompt = reusing.tokens(LONG).repeat(6);
    let first = request(prompt.clone(), SAMPLED, 60);
    let answer = reusing.run(&first).await;
    assert_eq!(known(&reusing).await, 0);
    // The conversation goes on: prompt and answer stand at the beginning of the next prompt.
    prompt.extend(&answer.tokens);
    prompt.extend(reusing.tokens("And then?"));
    let second = request(prompt.clone(), SAMPLED, 80);
    let answers = [reusing.run(&second).await, fresh.run(&second).await];
    // Whole blocks of what was computed: everything but the first answer's last token.
    let computed = first.prompt_tokens.len() + answer.tokens.len() - 1;
    assert_eq!(known(&reusing).await as usize, computed / 32 * 32);
    assert_eq!(known(&fresh).await, 0);
    assert_eq!(answers[0].transcript(), answers[1].transcript());
    // A verifier that knows the prompt comes to the same figures as one that does not.
    let item = item(&second, &answers[0].transcript());
    let outcomes = [verify(&reusing, vec![item.clone()]).await, verify(&fresh, vec![item]).await];
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(known(&reusing).await as usize, computed / 32 * 32 + (prompt.len() - 1) / 32 * 32);
}

#[tokio::test]
async fn long_and_broad_transcripts_verify_too() {
    let node = Running::rambling(Limits::default()).await;
    let requests = [20, 33, 64, 700].map(|tokens| request(node.tokens(LONG), SAMPLED, tokens));
    let answers = futures::future::join_all(requests.iter().map(|request| node.run(request))).await;
    let items = requests.iter().zip(&answers).map(|(r, a)| item(r, &a.transcript())).collect();
    for (outcome, answer) in verify(&node, items).await.iter().zip(&answers) {
        let found = figures(outcome);
        let (distance, margin) = means(&found);
        let bytes = answer.transcript().encoded_len() as f64 / answer.tokens.len() as f64;
        println!(
            "{} tokens: distance {distance:.2}, margin {margin:.3} of 1024; {bytes:.1} bytes a token",
            found.tokens
        );
        assert_eq!(found.tokens as usize, answer.tokens.len());
        assert!(distance < 8.0 && margin < 4.0, "{distance} {margin}");
    }
}

#[tokio::test]
async fn what_was_tampered_with_does_not_replay() {
    let node = Running::rambling(Limits::default()).await;
    let request = request(node.tokens(LONG), SAMPLED, 70);
    let transcript = node.run(&request).await.transcript();
    let honest = item(&request, &transcript);
    let change = |edit: &dyn Fn(&mut VerifyItem, &mut Transcript)| {
        let (mut changed, mut edited) = (honest.clone(), transcript.clone());
        edit(&mut changed, &mut edited);
        if edited != transcript {
            changed.transcript = codec::Encode::encode(&edited);
        }
        changed
    };
    let items = vec![
        change(&|item, _| item.tape_seed = H256::zero()),
        change(&|item, _| item.prompt_tokens[0] ^= 1),
        change(&|item, _| item.prompt_tokens.clear()),
        change(&|item, _| item.transcript.truncate(40)),
        change(&|_, t| t.header.sampling.temperature_milli = 500),
        change(&|_, t| t.windows.swap(0, 1)),
        change(&|_, t| t.windows.clear()),
        change(&|_, t| t.header.max_tokens = 69),
        honest.clone(),
    ];
    let outcomes = verify(&node, items).await;
    let (last, tampered) = outcomes.split_last().unwrap();
    for outcome in tampered {
        assert!(matches!(outcome, VerifyOutcome::ReplayFailed { .. }), "{outcome:?}");
    }
    figures(last);
}

#[tokio::test]
async fn other_weights_are_far_away() {
    let folder = tempfile::tempdir().unwrap();
    write_other_model(folder.path(), 0.25);
    let verifier = Running::demo(Limits::default()).await;
    let cheat = Running::start(&config(folder.path(), Limits::default()), FolderLoader::default()).await;
    let request = request(verifier.tokens(LONG), SAMPLED, 150);
    let answer = cheat.run(&request).await;
    let found = figures(&verify(&verifier, vec![item(&request, &answer.transcript())]).await[0]);
    let (distance, margin) = means(&found);
    println!(
        "other weights: distance {distance:.1}, margin {margin:.1} of 1024 over {} tokens",
        found.tokens
    );
    assert!(distance > 60.0, "{distance}");
}

/// Generates with one source and reports the candidates of another: what the seam is for in tests.
struct BackFilling {
    shown: Box<dyn TokenSource>,
    generating: Box<dyn TokenSource>,
}

impl TokenSource for BackFilling {
    fn shape(&self) -> Shape {
        self.shown.shape()
    }

    fn use_resources(&mut self, resources: &Resources) {
        self.generating.use_resources(resources);
        self.shown.use_resources(resources);
    }

    fn set_waker(&mut self, waker: Waker) {
        self.generating.set_waker(Waker::clone(&waker));
        self.shown.set_waker(waker);
    }

    fn schedules(&self) -> bool {
        self.shown.schedules()
    }

    fn reserve(&mut self, tokens: u32) -> Result<(), SourceError> {
        self.generating.reserve(tokens)?;
        self.shown.reserve(tokens)
    }

    fn numerics(&self) -> &'static str {
        self.shown.numerics()
    }

    fn rates(&self) -> Option<Result<Rates, SourceError>> {
        self.shown.rates()
    }

    fn parameters_per_token(&self) -> u64 {
        self.shown.parameters_per_token()
    }

    fn weight_bytes(&self) -> u64 {
        self.shown.weight_bytes()
    }

    fn transcript_time(&self) -> Duration {
        self.shown.transcript_time()
    }

    /// Nothing: both would have to know the same.
    fn reuse(&mut self, _sequence: SequenceId, _tokens: &[u32]) -> u32 {
        0
    }

    fn open(&mut self, sequence: SequenceId, capacity: u32) -> Result<(), SourceError> {
        self.generating.open(sequence, capacity)?;
        self.shown.open(sequence, capacity)
    }

    fn close(&mut self, sequence: SequenceId) {
        self.generating.close(sequence);
        self.shown.close(sequence);
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Output>, SourceError> {
        let generated = self.generating.step(chunks)?;
        let mut shown = self.shown.step(chunks)?;
        for (shown, generated) in shown.iter_mut().zip(generated) {
            let (Output::Chosen(shown), Output::Chosen(generated)) = (shown, generated) else { continue };
            let token = generated.chosen().unwrap().token;
            let place = shown.candidates.iter().position(|c| c.token == token);
            shown.chosen = place.unwrap_or(0) as u8;
        }
        Ok(shown)
    }
}

struct BackFillingLoader(std::path::PathBuf);

impl Loader for BackFillingLoader {
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError> {
        let shown = FolderLoader::default().load(spec)?;
        let other = FolderLoader::default().load(&LoadSpec { folder: self.0.clone(), ..spec.clone() })?;
        let source = Box::new(BackFilling { shown: shown.source, generating: other.source });
        Ok(Loaded { source, ..shown })
    }
}

#[tokio::test]
async fn back_filled_candidates_do_not_replay() {
    let folder = tempfile::tempdir().unwrap();
    write_other_model(folder.path(), 0.25);
    let loader = BackFillingLoader(folder.path().into());
    let cheat = Running::start(&config(&demo_model(), Limits::default()), loader).await;
    let verifier = Running::demo(Limits::default()).await;
    let request = request(verifier.tokens(LONG), SAMPLED, 64);
    let answer = cheat.run(&request).await;
    let outcome = verify(&verifier, vec![item(&request, &answer.transcript())]).await;
    assert!(matches!(outcome[0], VerifyOutcome::ReplayFailed { .. }), "{outcome:?}");
}

fn task(vocab_size: u32) -> SprintTask {
    SprintTask {
        seed: H256::repeat_byte(5),
        epoch: 3,
        host: AccountId::new([8; 32]),
        profile: 7,
        vocab_size,
        prompt_tokens: 24,
        decode_tokens: 40,
    }
}

#[tokio::test]
async fn a_sprint_runs_beside_requests_and_its_transcripts_verify() {
    let node = Running::demo(Limits::default()).await;
    let task = task(4_096);
    let run =
        SprintRunRequest { task: task.clone(), model: MODEL.into(), nonces: NonceRange { from: 10, to: 50 } };
    let mut events = node.client.sprint_run(&run).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    // Serving goes on.
    let request = request(node.tokens(LONG), SAMPLED, 30);
    let answer = node.run(&request).await;
    assert!(!answer.tokens.is_empty());
    let mut results = Vec::new();
    let mut done = None;
    let mut event = Some(Ok(first));
    while let Some(next) = event {
        match next.unwrap() {
            SprintEvent::Result { nonce, root, transcript } => results.push((nonce, root, transcript)),
            SprintEvent::Done { results } => done = Some(results),
            SprintEvent::Error(detail) => panic!("{detail:?}"),
        }
        event = events.next().await;
    }
    assert_eq!((done, results.len()), (Some(40), 40));
    results.sort_unstable();
    assert!(results.iter().map(|r| r.0).eq(10..50));
    let items = results.iter().map(|(nonce, root, bytes)| {
        let transcript: Transcript = codec::Decode::decode(&mut bytes.as_slice()).unwrap();
        replay_sprint(&transcript, &task, *nonce, root, 20).unwrap();
        let (prompt_tokens, tape_seed) = (task.prompt(*nonce), task.tape_seed(*nonce));
        VerifyItem { transcript: bytes.clone(), prompt_tokens, tape_seed, constraint: None }
    });
    for outcome in verify(&node, items.collect()).await {
        let (distance, margin) = means(&figures(&outcome));
        assert!(distance < 8.0 && margin < 2.0, "{distance} {margin}");
    }
    let status = node.client.sprint_status().await.unwrap();
    assert_eq!((status.running, status.queued, status.done_total), (0, 0, 40));
}

#[tokio::test]
async fn a_sprint_can_be_stopped_and_is_checked() {
    let node = Running::demo(Limits::default()).await;
    let run =
        |task, from, to| SprintRunRequest { task, model: MODEL.into(), nonces: NonceRange { from, to } };
    let mut events = node.client.sprint_run(&run(task(4_096), 0, 4_000)).await.unwrap();
    assert!(matches!(events.next().await.unwrap().unwrap(), SprintEvent::Result { .. }));
    let status = node.client.sprint_stop().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0));
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event.unwrap());
    }
    assert!(
        matches!(last, Some(SprintEvent::Error(detail)) if detail.code.as_deref() == Some(codes::STOPPED))
    );

    // One that nobody reads ends as well.
    let mut events = node.client.sprint_run(&run(task(4_096), 0, 4_000)).await.unwrap();
    events.next().await.unwrap().unwrap();
    drop(events);
    eventually("the abandoned sprint ends", async || {
        let status = node.client.sprint_status().await.unwrap();
        (status.running, status.queued) == (0, 0)
    })
    .await;

    let mut long = task(4_096);
    long.decode_tokens = 1_020;
    for bad in [run(task(5_000), 0, 1), run(task(4_096), 5, 5), run(task(4_096), 0, 5_000), run(long, 0, 1)] {
        assert!(node.client.sprint_run(&bad).await.is_err());
    }
}
