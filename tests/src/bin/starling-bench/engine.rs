//! An ML node of one's own, and what it is asked.

use anyhow::{bail, Context, Result};
use futures::StreamExt;
use serde_json::{json, Value};
use starling_e2e::{network::PROFILE, paths, poll, ports::Ports, process::Process};
use starling_mlnode::model::Precision;
use starling_mlnode_api::{ClientConfig, Done, GenerateEvent, GenerateRequest, MlNode, MlNodeClient};
use starling_primitives::{
    request::{prompt_hash, RequestHeader, SamplingParams},
    tape::tape_seed,
    H256,
};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Tempered sampling without filters: every token depends on the tape.
pub(crate) const SAMPLED: SamplingParams =
    SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };

/// How one runs.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) threads: u32,
    /// What it computes with; the default of the node is f32.
    pub(crate) precision: Precision,
    /// Lets a step take so many tokens however long that is; by default streams are kept smooth.
    pub(crate) step_tokens: Option<u32>,
}

impl Settings {
    /// As nodes run by default.
    pub(crate) fn threads(threads: u32) -> Self {
        Self { threads, precision: Precision::F32, step_tokens: None }
    }
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

    pub(crate) fn first(&self) -> Result<Instant> {
        self.tokens.first().copied().context("an answer without tokens")
    }

    pub(crate) fn last(&self) -> Result<Instant> {
        self.tokens.last().copied().context("an answer without tokens")
    }
}

impl Engine {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(model: &Path, settings: Settings) -> Result<Self> {
        let Settings { threads, precision, step_tokens } = settings;
        let folder = tempfile::Builder::new().prefix("starling-bench-").tempdir()?;
        let ports = Ports::free_block()?;
        let (inference, management) = (ports.inference(0), ports.management(0));
        let token = hex::encode(rand::random::<[u8; 32]>());
        fs::write(folder.path().join("token"), &token)?;
        let model = model.canonicalize().with_context(|| format!("no folder {}", model.display()))?;
        let limits = step_tokens.map_or(String::new(), |tokens| {
            format!("[limits]\nstep_tokens = {tokens}\nstep_tokens_max = {tokens}\n")
        });
        let config = format!(
            "threads = {threads}\nprecision = \"{precision}\"\ntoken_file = \"token\"\n[inference]\nlisten = \"127.0.0.1:{inference}\"\n\
             [management]\nlisten = \"127.0.0.1:{management}\"\n[model]\nname = \"{PROFILE}\"\n\
             folder = \"{}\"\n{limits}[log]\nfilter = \"warn\"\n",
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

    /// Requests made so far.
    pub(crate) fn asked(&self) -> u64 {
        self.nonces
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
