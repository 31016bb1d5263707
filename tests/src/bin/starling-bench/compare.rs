//! The engine over its HTTP, with transcripts, and what hosts run today in turn with it.

use crate::{
    engine::{endless, prompt, Engine, Generated, Settings, SAMPLED},
    memory::{read_bandwidth, weight_bytes},
    peer::{Kind, Peer},
    stats::{median, round, spread},
};
use anyhow::{ensure, Context, Result};
use clap::Args;
use futures::future::try_join_all;
use serde_json::{json, Map, Value};
use starling_e2e::paths;
use starling_mlnode::model::Precision;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Plan {
    /// Model folder.
    #[arg(long, default_value_os_t = paths::demo_model())]
    model: PathBuf,
    /// Folder for the peers, where they cannot read the engine's: the same shape, stored in another way.
    #[arg(long)]
    peers_model: Option<PathBuf>,
    /// What it is compared with.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Transformers, Kind::LlamaCpp, Kind::Vllm])]
    peers: Vec<Kind>,
    /// The peers' weights: float32, bfloat16, or q8_0 for llama.cpp. The engine takes those of the folder.
    #[arg(long, default_value = "float32")]
    dtype: String,
    /// Threads of each.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Tokens of the prompts.
    #[arg(long, value_delimiter = ',', default_values_t = [32, 512])]
    prompts: Vec<u32>,
    /// Sequences together.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    batches: Vec<u32>,
    /// Tokens to generate after a prompt.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Let a step of the engine take so many tokens, as peers do that have no streams to keep smooth.
    #[arg(long)]
    step_tokens: Option<u32>,
    /// Turns of each.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// Tokens per second, one value for each round.
#[derive(Default)]
struct Rates {
    prefill: Vec<f64>,
    decode: Vec<f64>,
}

impl Rates {
    fn push(&mut self, (prefill, decode): (f64, f64)) {
        self.prefill.push(prefill);
        self.decode.push(decode);
    }
}

/// Prompts of one length, so many together: what each engine did.
struct Cell {
    prompt: u32,
    batch: u32,
    starling: Rates,
    /// In the order of the peers.
    peers: Vec<Rates>,
    /// GB/s that memory gave meanwhile.
    bandwidth: Vec<f64>,
}

impl Engine {
    /// Tokens per second of prefill (until the last prompt's first token is here) and of decoding, all sequences together,
    /// while all of them run. No two prompts have a beginning in common.
    async fn measure(&mut self, prompt_tokens: u32, batch: u32, tokens: u32) -> Result<(f64, f64)> {
        let requests: Vec<_> = (0..batch)
            .map(|_| {
                let salt = self.asked();
                self.request(prompt(prompt_tokens, salt), SAMPLED, tokens)
            })
            .collect();
        let all = try_join_all(requests.into_iter().map(|request| self.generate(request))).await?;
        let firsts = all.iter().map(Generated::first).collect::<Result<Vec<_>>>()?;
        let lasts = all.iter().map(Generated::last).collect::<Result<Vec<_>>>()?;
        let sent = all.iter().map(|one| one.sent).min().context("no sequence")?;
        let from = firsts.into_iter().max().context("no sequence")?;
        let to = lasts.into_iter().min().context("no sequence")?;
        let count = all.iter().flat_map(|one| &one.tokens).filter(|at| **at > from && **at <= to).count();
        ensure!(to > from && count > 8, "an answer ended too early to be measured ({count} tokens)");
        let prefill = f64::from(batch * prompt_tokens) / (from - sent).as_secs_f64();
        Ok((prefill, count as f64 / (to - from).as_secs_f64()))
    }
}

pub(crate) async fn run(plan: &Plan) -> Result<()> {
    ensure!(plan.tokens > 1 && plan.rounds > 0 && !plan.batches.contains(&0), "nothing to measure");
    let model = endless(&plan.model)?;
    // The class of the peers: bf16 only where they multiply in it.
    let precision = if plan.dtype == "bfloat16" { Precision::Stored } else { Precision::F32 };
    let settings = Settings { threads: plan.threads, precision, step_tokens: plan.step_tokens };
    let mut engine = Engine::start(model.path(), settings).await?;
    let peers_model = plan.peers_model.as_deref().map(endless).transpose()?;
    let of_peers = peers_model.as_ref().unwrap_or(&model).path();
    let mut peers = Vec::new();
    for kind in &plan.peers {
        peers.push(Peer::start(*kind, of_peers, plan.threads, &plan.dtype).await?);
    }
    // The first use of anything compiles, packs and reserves.
    for batch in &plan.batches {
        engine.measure(32, *batch, 16).await?;
        for peer in &mut peers {
            peer.measure(&prompt(32, 0), *batch, 16).await?;
        }
    }
    let mut cells: Vec<Cell> = Vec::new();
    for prompt in &plan.prompts {
        for batch in &plan.batches {
            let of_peers = peers.iter().map(|_| Rates::default()).collect();
            cells.push(Cell {
                prompt: *prompt,
                batch: *batch,
                starling: Rates::default(),
                peers: of_peers,
                bandwidth: Vec::new(),
            });
        }
    }
    for _ in 0..plan.rounds {
        for cell in &mut cells {
            cell.bandwidth.push(read_bandwidth(plan.threads)?);
            // What ran before has left each of them cold: the first moments of a turn are nobody's figures.
            engine.measure(32, 1, 16).await?;
            cell.starling.push(engine.measure(cell.prompt, cell.batch, plan.tokens).await?);
            for (peer, rates) in peers.iter_mut().zip(&mut cell.peers) {
                peer.measure(&prompt(32, 0), 1, 16).await?;
                rates.push(peer.measure(&prompt(cell.prompt, 0), cell.batch, plan.tokens).await?);
            }
        }
    }
    let bytes = weight_bytes(model.path())?;
    for cell in &cells {
        println!("{}", cell.line(plan, &peers, "prefill", |rates| &rates.prefill));
        let mut decode = cell.line(plan, &peers, "decode", |rates| &rates.decode);
        if cell.batch == 1 {
            let bound = median(&cell.bandwidth) * 1e9 / bytes;
            decode["memory"] = json!({
                "read_bandwidth_gb_s": spread(&cell.bandwidth), "weight_bytes": bytes, "bound": round(bound, 1),
                "starling_of_bound": round(median(&cell.starling.decode) / bound, 2),
            });
        }
        println!("{decode}");
    }
    Ok(())
}

impl Cell {
    fn line(&self, plan: &Plan, peers: &[Peer], what: &str, of: impl Fn(&Rates) -> &Vec<f64>) -> Value {
        let ours = of(&self.starling);
        let mut line = json!({
            "bench": "engine", "what": what, "prompt_tokens": self.prompt, "batch": self.batch,
            "tokens": plan.tokens, "threads": plan.threads, "rounds": plan.rounds, "dtype": plan.dtype,
            "step_tokens": plan.step_tokens,
            "unit": "tokens/s", "starling": spread(ours),
        });
        let mut ratios = Map::new();
        let mut about = Map::new();
        for (peer, rates) in peers.iter().zip(&self.peers) {
            let name = peer.kind.name();
            line[name] = spread(of(rates));
            ratios.insert(name.into(), round(median(ours) / median(of(rates)), 2).into());
            about.insert(name.into(), peer.about.clone());
        }
        line["ratios_of_medians"] = Value::Object(ratios);
        line["peers"] = Value::Object(about);
        line
    }
}
