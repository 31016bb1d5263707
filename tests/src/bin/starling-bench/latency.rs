//! Client -> gateway -> executor -> ML node, in turn with client -> ML node.

use crate::stats::{median, millis, round};
use anyhow::{bail, ensure, Context, Result};
use clap::Args;
use reqwest::Client;
use serde_json::{json, Value};
use starling_chain_client::ChainClient;
use starling_e2e::{
    key::{self, ApiKey},
    network::{Network, Role, Spec, HOST_NAMES, PROFILE},
    poll,
    ports::Ports,
    watch,
};
use starling_math::clock::Phase;
use starling_primitives::AccountId;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

const CLIENT: &str = "//Ferdie";
/// The host whose gateway is asked.
const GATEWAY: usize = 0;

#[derive(Args)]
pub(crate) struct Plan {
    /// Pairs of requests.
    #[arg(long, default_value_t = 100)]
    pairs: u32,
    /// Tokens of an answer at most.
    #[arg(long, default_value_t = 32)]
    max_tokens: u32,
    /// The question.
    #[arg(long, default_value = "What is a river?")]
    question: String,
    /// Keep the network's folder here (default: a temporary one).
    #[arg(long)]
    state: Option<PathBuf>,
}

/// Seconds of one streamed answer, and what it said.
struct Timed {
    first: f64,
    total: f64,
    text: String,
    proof: Value,
}

pub(crate) async fn run(plan: &Plan) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("starling-bench-").tempdir()?;
    let folder = plan.state.clone().unwrap_or_else(|| temporary.path().to_path_buf());
    let mut spec = Spec::four_hosts("test", Ports::free_block()?);
    spec.full_node = false;
    Network::prepare(&folder, spec)?.run(async |network| measure(network, plan).await).await
}

async fn measure(network: &Network, plan: &Plan) -> Result<()> {
    let chain = ChainClient::connect(&network.rpc(0)).await?;
    key::deposit(&chain, CLIENT, 500).await?;
    let (_, gateway_key) = ApiKey::issue(network, &chain, GATEWAY, CLIENT, 400).await?.for_openai_clients();
    let node_token = std::fs::read_to_string(network.root().join("mlnode.token"))?.trim().to_owned();
    let hosts = watch::all_hosts(network)?;
    watch::fresh_epoch(network, &chain, &[0, 1, 2, 3], 20).await?;
    // One connection to each, kept open: what a busy client has.
    let http = Client::builder().timeout(Duration::from_secs(120)).no_proxy().tcp_nodelay(true).build()?;
    let gateway_url = network.gateway(GATEWAY);
    let (mut path, mut direct) = (Vec::new(), Vec::new());
    let warm_up = 2 * HOST_NAMES.len() as u32;
    for turn in 0..warm_up + plan.pairs {
        serving(network, &chain).await?;
        let through = ask(&http, &gateway_url, &gateway_key, plan).await?;
        let executor = executor(&through.proof, &hosts)?;
        let port = network.spec().ports.inference(network.spec().ml_index(executor, 0));
        let straight = ask(&http, &format!("http://127.0.0.1:{port}"), &node_token, plan).await?;
        ensure!(through.text == straight.text, "{:?} is not {:?}", through.text, straight.text);
        if turn >= warm_up {
            path.push(through);
            direct.push(straight);
        }
    }
    print(plan, &path, &direct);
    ensure!(network.is_running(Role::Node(0)), "a node ended during the measurement");
    Ok(())
}

/// The race and its check use the same ML nodes: measured is what clients have most of the time.
async fn serving(network: &Network, chain: &ChainClient) -> Result<()> {
    poll::until("a serving phase with weights", watch::EPOCHS, || async {
        let tick = chain.best_tick()?;
        let room = tick.epoch.start + tick.epoch.schedule.reveal_start;
        let quiet = tick.phase() == Phase::Serving && tick.number + 1 < room;
        if !quiet {
            return Ok(None);
        }
        if chain.at(tick.hash).weights(tick.epoch.index).await?.is_empty() {
            return Ok(None);
        }
        // The gateway may be a moment behind its node.
        let status = network.get(&format!("{}/v1/status", network.gateway(GATEWAY))).await?;
        Ok(status["models"].as_array().is_some_and(|models| !models.is_empty()).then_some(()))
    })
    .await
}

fn executor(proof: &Value, hosts: &[AccountId]) -> Result<usize> {
    let name = proof["executor"].as_str().context("the executor in the last chunk")?;
    let known =
        |host: &AccountId| host.to_string() == name || hex::encode(host) == name.trim_start_matches("0x");
    hosts.iter().position(known).with_context(|| format!("the executor {name} is no host"))
}

/// Streams one answer.
async fn ask(http: &Client, url: &str, token: &str, plan: &Plan) -> Result<Timed> {
    let body = json!({
        "model": PROFILE, "stream": true, "temperature": 0, "max_tokens": plan.max_tokens,
        "messages": [{ "role": "user", "content": plan.question }],
    });
    let sent = Instant::now();
    let url = format!("{url}/v1/chat/completions");
    let mut response = http.post(&url).bearer_auth(token).json(&body).send().await?;
    if !response.status().is_success() {
        bail!("{url}: {}: {}", response.status(), response.text().await?);
    }
    let (mut buffer, mut text, mut proof, mut first) = (Vec::new(), String::new(), Value::Null, None);
    while let Some(bytes) = response.chunk().await? {
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event).into_owned();
            for data in event.lines().filter_map(|line| line.strip_prefix("data: ")) {
                if data == "[DONE]" {
                    let total = sent.elapsed().as_secs_f64();
                    return Ok(Timed { first: first.context("an answer without text")?, total, text, proof });
                }
                let chunk: Value = serde_json::from_str(data).with_context(|| data.to_owned())?;
                ensure!(chunk["error"].is_null(), "{chunk}");
                let content = chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
                if !content.is_empty() {
                    first.get_or_insert(sent.elapsed().as_secs_f64());
                    text.push_str(content);
                }
                if !chunk["starling"]["executor"].is_null() {
                    proof = chunk["starling"].clone();
                }
            }
        }
    }
    bail!("{url}: the stream ended without [DONE]")
}

/// One figure of a run.
type Figure = fn(&Timed) -> f64;

fn print(plan: &Plan, path: &[Timed], direct: &[Timed]) {
    let parts: [(&str, Figure); 2] =
        [("time_to_first_token", |timed| timed.first), ("total", |timed| timed.total)];
    for (what, part) in parts {
        let through: Vec<f64> = path.iter().map(part).collect();
        let straight: Vec<f64> = direct.iter().map(part).collect();
        let added: Vec<f64> = through.iter().zip(&straight).map(|(a, b)| a - b).collect();
        let line = json!({
            "bench": "latency", "what": what, "pairs": plan.pairs, "max_tokens": plan.max_tokens,
            "through_gateway_and_executor": millis(&through),
            "ml_node_alone": millis(&straight),
            "added_by_pair": millis(&added),
            "difference_of_medians_ms": round((median(&through) - median(&straight)) * 1e3, 2),
        });
        println!("{line}");
    }
}
