//! Another engine, in a process of its own, which measures when asked.

use anyhow::{ensure, Context, Result};
use clap::ValueEnum;
use serde_json::{json, Value};
use starling_e2e::paths;
use std::{path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// What hosts run today.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The reference.
    Transformers,
    /// Through llama-cpp-python.
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// Its build for processors, with compilation.
    Vllm,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transformers => "transformers",
            Self::LlamaCpp => "llama.cpp",
            Self::Vllm => "vllm",
        }
    }

    /// Folder of its Python environment, and its script.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Transformers => ("peers", "bench_transformers.py"),
            Self::LlamaCpp => ("llama", "bench_llama.py"),
            Self::Vllm => ("vllm", "bench_vllm.py"),
        }
    }
}

pub(crate) struct Peer {
    pub(crate) kind: Kind,
    /// Its versions and settings.
    pub(crate) about: Value,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Peer {
    /// Starts one and waits until it has loaded the model.
    pub(crate) async fn start(kind: Kind, model: &Path, threads: u32, dtype: &str) -> Result<Self> {
        let (environment, script) = kind.program();
        let python = paths::root().join(".tools").join(environment).join("bin/python");
        ensure!(python.is_file(), "{} does not exist; run scripts/setup --bench", python.display());
        let mut command = Command::new(python);
        command.arg(paths::clients().join(script)).arg(model).arg(threads.to_string());
        command.args(["--dtype", dtype]).env("OMP_NUM_THREADS", threads.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {script}"))?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut peer = Self { kind, about: Value::Null, input, output, _child: child };
        peer.about = peer.line().await?;
        Ok(peer)
    }

    async fn line(&mut self) -> Result<Value> {
        let line = self.output.next_line().await?.with_context(|| format!("{} ended", self.kind.name()))?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Tokens per second of prefill and of decoding: `batch` times the same prompt, without a prefix cache.
    pub(crate) async fn measure(&mut self, prompt: &[u32], batch: u32, tokens: u32) -> Result<(f64, f64)> {
        let order = json!({ "prompt": prompt, "batch": batch, "tokens": tokens });
        self.input.write_all(format!("{order}\n").as_bytes()).await?;
        let times = self.line().await?;
        let seconds = |name: &str| times[name].as_f64().with_context(|| format!("{name} in {times}"));
        let read = batch as usize * prompt.len();
        let decoded = f64::from(batch * (tokens - 1));
        Ok((read as f64 / seconds("prefill")?, decoded / seconds("decode")?))
    }
}
