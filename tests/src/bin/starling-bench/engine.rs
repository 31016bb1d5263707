//! The engine over its HTTP, and `transformers` in turn with it.

use crate::stats::{median, round, spread};
use anyhow::{bail, ensure, Context, Result};
use clap::Args;
use futures::{future::try_join_all, StreamExt};
use serde_json::{json, Value};
use starling_e2e::{network::PROFILE, paths, poll, ports::Ports, process::Process};
use starling_mlnode_api::{ClientConfig, Done, GenerateEvent, GenerateRequest, MlNode, MlNodeClient};
use starling_primitives::{
    request::{prompt_hash, RequestHeader, SamplingParams},
    tape::tape_seed,
    H256,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Tempered sampling without filters: every token depends on the tape.
pub(crate) const SAMPLED: SamplingParams =
    SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };

#[derive(Args)]
pub(crate) struct Plan {
    /// Model folder.
    #[arg(long, default_value_os_t = paths::demo_model())]
    model: PathBuf,
    /// Threads of both.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Tokens of the prompt whose prefill is measured.
    #[arg(long, default_value_t = 512)]
    prompt: u32,
    /// Tokens to generate after a short prompt.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Sequences decoded together, beside a single one.
    #[arg(long, default_value_t = 4)]
    batch: u32,
    /// Turns of each.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// A `starling-mlnode` of one's own; it dies with this value.
pub(crate) struct Engine {
    pub(crate) client: MlNodeClient,
    nonces: u64,
    _process: Process,
    _folder: tempfile::TempDir,
}

/// A generation, with when each of its tokens came.
pub(crate) struct Generated {
    pub(crate) request: GenerateRequest,
    pub(crate) sent: Instant,
    pub(crate) tokens: Vec<Instant>,
    pub(crate) ended: Instant,
    pub(crate) done: Done,
}

impl Generated {
    pub(crate) fn seconds(&self) -> f64 {
        (self.ended - self.sent).as_secs_f64()
    }

    fn first(&self) -> Result<Instant> {
        self.tokens.first().copied().context("an answer without tokens")
    }

    fn last(&self) -> Result<Instant> {
        self.tokens.last().copied().context("an answer without tokens")
    }
}

impl Engine {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(model: &Path, threads: u32) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("starling-bench-").tempdir()?;
        let ports = Ports::free_block()?;
        let (inference, management) = (ports.inference(0), ports.management(0));
        let token = hex::encode(rand::random::<[u8; 32]>());
        fs::write(folder.path().join("token"), &token)?;
        let model = model.canonicalize().with_context(|| format!("no folder {}", model.display()))?;
        let config = format!(
            "threads = {threads}\ntoken_file = \"token\"\n[inference]\nlisten = \"127.0.0.1:{inference}\"\n\
             [management]\nlisten = \"127.0.0.1:{management}\"\n[model]\nname = \"{PROFILE}\"\n\
             folder = \"{}\"\n[log]\nfilter = \"warn\"\n",
            model.display()
        );
        let file = folder.path().join("mlnode.toml");
        fs::write(&file, config)?;
        let mut command = std::process::Command::new(paths::binary("starling-mlnode")?);
        command.arg("--config").arg(&file);
        let mut process = Process::start("mlnode", command, folder.path())?;
        let url = |port| format!("http://127.0.0.1:{port}");
        let client = MlNodeClient::new(ClientConfig::new(url(inference), url(management), token))?;
        poll::until("the ML node", Duration::from_secs(120), || {
            let (alive, health) = (process.check_alive(), client.health());
            async move {
                alive?;
                Ok(health.await.ok().map(|_| ()))
            }
        })
        .await?;
        Ok(Self { client, nonces: 0, _process: process, _folder: folder })
    }

    /// A request that differs from all others.
    pub(crate) fn request(
        &mut self,
        prompt_tokens: Vec<u32>,
        sampling: SamplingParams,
        max_tokens: u32,
    ) -> GenerateRequest {
        self.nonces += 1;
        let nonce = H256::from_low_u64_be(self.nonces).0;
        let prompt_hash = prompt_hash(&prompt_tokens);
        let header = RequestHeader { profile: 0, prompt_hash, sampling, max_tokens, constraint: None, nonce };
        let tape_seed = tape_seed(&H256::repeat_byte(1), &header.id());
        GenerateRequest {
            model: PROFILE.into(),
            header,
            prompt_tokens,
            tape_seed,
            constraint: None,
            stop: vec![],
            logprobs: false,
            perturbation: None,
        }
    }

    pub(crate) async fn generate(&self, request: GenerateRequest) -> Result<Generated> {
        let sent = Instant::now();
        let mut events = self.client.generate(&request).await?;
        let mut tokens = Vec::new();
        while let Some(event) = events.next().await {
            match event? {
                GenerateEvent::Token { .. } => tokens.push(Instant::now()),
                GenerateEvent::Window { .. } => {}
                GenerateEvent::Done(done) => {
                    return Ok(Generated { request, sent, tokens, ended: Instant::now(), done })
                }
                GenerateEvent::Error(detail) => bail!("the generation failed: {detail:?}"),
            }
        }
        bail!("the stream was cut off")
    }

    /// Tokens per second of prefill: of a prompt until its first token is here.
    async fn prefill(&mut self, prompt: u32) -> Result<f64> {
        let request = self.request(self::prompt(prompt, self.nonces), SAMPLED, 1);
        let generated = self.generate(request).await?;
        Ok(f64::from(prompt) / (generated.first()? - generated.sent).as_secs_f64())
    }

    /// Tokens per second of decoding, all sequences together, while all of them run.
    async fn decode(&mut self, batch: u32, tokens: u32) -> Result<f64> {
        let requests: Vec<_> =
            (0..batch).map(|n| self.request(prompt(16, u64::from(n)), SAMPLED, tokens)).collect();
        let all = try_join_all(requests.into_iter().map(|request| self.generate(request))).await?;
        let firsts = all.iter().map(Generated::first).collect::<Result<Vec<_>>>()?;
        let lasts = all.iter().map(Generated::last).collect::<Result<Vec<_>>>()?;
        let from = firsts.into_iter().max().context("no sequence")?;
        let to = lasts.into_iter().min().context("no sequence")?;
        let count = all.iter().flat_map(|one| &one.tokens).filter(|at| **at > from && **at <= to).count();
        ensure!(to > from && count > 8, "an answer ended too early to be measured ({count} tokens)");
        Ok(count as f64 / (to - from).as_secs_f64())
    }
}

/// A copy of a model that no token ends: what is compared has the same length every time.
pub(crate) fn endless(model: &Path) -> Result<tempfile::TempDir> {
    let copy = tempfile::Builder::new().prefix("starling-bench-model-").tempdir()?;
    let entries = fs::read_dir(model).with_context(|| format!("no folder {}", model.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
        }
    }
    let changes = [
        ("config.json", "eos_token_id", Value::Null),
        ("generation_config.json", "eos_token_id", json!([])),
        ("tokenizer_config.json", "eos_token", Value::Null),
    ];
    for (name, field, value) in changes {
        let file = copy.path().join(name);
        let mut content: Value = match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text)?,
            Err(_) => json!({}),
        };
        content[field] = value;
        fs::write(&file, content.to_string())?;
    }
    Ok(copy)
}

/// Tokens without a pattern, none of them special.
pub(crate) fn prompt(tokens: u32, salt: u64) -> Vec<u32> {
    let hash = |n: u32| (n ^ (salt as u32) << 12).wrapping_add(1).wrapping_mul(2_654_435_761) >> 9;
    (0..tokens).map(|n| 300 + hash(n) % 3_700).collect()
}

/// `transformers` in a process of its own, which measures when asked.
struct Peer {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    versions: Value,
    _child: Child,
}

impl Peer {
    async fn start(plan: &Plan) -> Result<Self> {
        let mut command = Command::new(paths::python()?);
        command.arg(paths::clients().join("bench_transformers.py")).arg(&plan.model);
        command.arg(plan.threads.to_string()).env("OMP_NUM_THREADS", plan.threads.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start bench_transformers.py")?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut peer = Self { input, output, versions: Value::Null, _child: child };
        peer.versions = peer.line().await?;
        Ok(peer)
    }

    async fn line(&mut self) -> Result<Value> {
        let line = self.output.next_line().await?.context("bench_transformers.py ended")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Tokens per second of prefill and of decoding.
    async fn measure(&mut self, prompt_tokens: u32, batch: u32, tokens: u32) -> Result<(f64, f64)> {
        let order = json!({ "prompt": prompt(prompt_tokens, 0), "batch": batch, "tokens": tokens });
        self.input.write_all(format!("{order}\n").as_bytes()).await?;
        let times = self.line().await?;
        let seconds = |name: &str| times[name].as_f64().with_context(|| format!("{name} in {times}"));
        let decoded = f64::from(batch * (tokens - 1));
        Ok((f64::from(batch * prompt_tokens) / seconds("prefill")?, decoded / seconds("decode")?))
    }
}

/// One thing that both did.
#[derive(Default)]
struct Pair {
    starling: Vec<f64>,
    transformers: Vec<f64>,
}

impl Pair {
    fn print(&self, plan: &Plan, what: &str, batch: u32, versions: &Value) {
        let line = json!({
            "bench": "engine", "what": what, "batch": batch, "threads": plan.threads,
            "prompt_tokens": if what == "prefill" { plan.prompt } else { 16 },
            "tokens": if what == "prefill" { 1 } else { plan.tokens },
            "rounds": plan.rounds, "unit": "tokens/s",
            "starling": spread(&self.starling), "transformers": spread(&self.transformers),
            "ratio_of_medians": round(median(&self.starling) / median(&self.transformers), 2),
            "peer": versions,
        });
        println!("{line}");
    }
}

pub(crate) async fn run(plan: &Plan) -> Result<()> {
    ensure!(plan.tokens > 1 && plan.rounds > 0 && plan.batch > 0, "nothing to measure");
    let model = endless(&plan.model)?;
    let mut engine = Engine::start(model.path(), plan.threads).await?;
    let mut peer = Peer::start(plan).await?;
    let (mut prefill, mut one, mut several) = (Pair::default(), Pair::default(), Pair::default());
    // Round 0 warms both up.
    for turn in 0..=plan.rounds {
        let ours = engine.prefill(plan.prompt).await?;
        let theirs = peer.measure(plan.prompt, 1, 2).await?.0;
        let ours_one = engine.decode(1, plan.tokens).await?;
        let theirs_one = peer.measure(16, 1, plan.tokens).await?.1;
        let ours_several = engine.decode(plan.batch, plan.tokens).await?;
        let theirs_several = peer.measure(16, plan.batch, plan.tokens).await?.1;
        if turn == 0 {
            continue;
        }
        let all = [
            (&mut prefill, ours, theirs),
            (&mut one, ours_one, theirs_one),
            (&mut several, ours_several, theirs_several),
        ];
        for (pair, ours, theirs) in all {
            pair.starling.push(ours);
            pair.transformers.push(theirs);
        }
    }
    prefill.print(plan, "prefill", 1, &peer.versions);
    one.print(plan, "decode", 1, &peer.versions);
    several.print(plan, "decode", plan.batch, &peer.versions);
    Ok(())
}
