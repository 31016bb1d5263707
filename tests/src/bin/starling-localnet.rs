//! `scripts/localnet`: a network of four hosts on this machine, for people.

use anyhow::{bail, Context, Result};
use clap::{Parser, Subcommand};
use sp_core::{sr25519, Pair};
use starling_chain_client::{ChainClient, Keypair};
use starling_e2e::{
    key,
    network::{Network, Role, Spec, HOST_NAMES, PROFILE},
    poll,
    ports::Ports,
    process,
};
use starling_math::clock;
use starling_primitives::AccountId;
use std::{path::PathBuf, time::Duration};

/// The host that plants.
const PLANTER: usize = 0;
/// The development account that asks it for that.
const PLANTS_CLIENT: &str = "//Eve";

#[derive(Parser)]
struct Cli {
    /// Folder of the network's state.
    #[arg(long)]
    state: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start it, or resume it, and wait for an epoch with weights.
    Up {
        /// Added to every port (gateways listen on 8000 to 8003 without one).
        #[arg(long, default_value_t = 0)]
        ports_offset: u16,
        /// Chain specification of a new network: `local`, or `test` with its shorter epochs.
        #[arg(long, default_value = "local")]
        chain: String,
    },
    /// Stop it; the next `up` resumes the same chain.
    Down,
    /// A table of the hosts.
    Status,
    /// Print the end of a log.
    Logs {
        /// alice, bob, charlie, dave or full.
        host: String,
        /// node, agent, mlnode0, ...
        #[arg(default_value = "agent")]
        program: String,
        /// Lines.
        #[arg(long, short, default_value_t = 50)]
        lines: usize,
    },
    /// Stop it and delete its state.
    Purge,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Command::Up { ports_offset, chain } => up(cli.state, &chain, ports_offset).await,
        Command::Down => Network::open(&cli.state)?.stop(),
        Command::Status => status(&Network::open(&cli.state)?).await,
        Command::Logs { host, program, lines } => logs(&Network::open(&cli.state)?, &host, &program, lines),
        Command::Purge => {
            Network::open(&cli.state)?.stop()?;
            std::fs::remove_dir_all(&cli.state)
                .with_context(|| format!("cannot delete {}", cli.state.display()))
        }
    }
}

async fn up(state: PathBuf, chain: &str, offset: u16) -> Result<()> {
    let mut network = if state.join("network.json").exists() {
        println!("resuming the network in {}", state.display());
        Network::open(&state)?
    } else {
        println!("making a network in {}", state.display());
        let mut spec = Spec::four_hosts(chain, Ports::Usual { offset });
        spec.hosts[PLANTER].plants = Some(PLANTS_CLIENT.into());
        Network::prepare(&state, spec)?
    };
    println!("starting {} processes", network.spec().processes().len());
    if let Err(error) = network.start().await {
        network.stop()?;
        return Err(error.context("the network did not start; nothing was left running"));
    }
    let chain = ChainClient::connect(&network.rpc(0)).await?;
    let client = Keypair::from_suri(PLANTS_CLIENT)?.account();
    if chain.best()?.deposit(&client).await?.free == 0 {
        key::deposit(&chain, PLANTS_CLIENT, 100).await?;
    }
    println!(
        "waiting for the first epoch with weights (the first sprint takes one epoch, about three minutes)"
    );
    let weighted = poll::until("weights", Duration::from_secs(1_200), || async {
        let tick = chain.best_tick()?;
        let weights = chain.at(tick.hash).weights(tick.epoch.index).await?;
        Ok((!weights.is_empty()).then_some(tick))
    })
    .await;
    // Whatever happened, people want to look at it.
    let urls = describe(&network);
    network.detach();
    let tick = weighted?;
    println!("epoch {} ({:?}), block {}\n\n{urls}", tick.epoch.index, tick.phase(), tick.number);
    Ok(())
}

fn describe(network: &Network) -> String {
    let mut text = String::new();
    for (host, name) in HOST_NAMES.iter().enumerate() {
        text += &format!(
            "{name:<9} gateway {}   admin {}   node {}\n",
            network.gateway(host),
            network.admin(host),
            network.rpc(host)
        );
    }
    let full = network.spec().hosts.len();
    let node = network.rpc(full);
    format!(
        "{text}full node {node}\n\n\
         A first request, as Ferdie (a development account):\n\n\
         . scripts/env; export PATH=$CARGO_TARGET_DIR/debug:$PATH STARLING_NODE={node}\n\
         echo //Ferdie > ferdie.key; export STARLING_KEY_FILE=ferdie.key\n\
         starling deposit 100\n\
         starling proxy &\n\n\
         curl -s http://127.0.0.1:8800/v1/chat/completions -H 'content-type: application/json' \\\n\
         \x20 -d '{{\"model\": \"{PROFILE}\", \"messages\": [{{\"role\": \"user\", \"content\": \"What is a dog?\"}}]}}'\n\n\
         python3 - <<'PY'\n\
         from openai import OpenAI\n\
         client = OpenAI(base_url=\"http://127.0.0.1:8800/v1\", api_key=\"any\")\n\
         for chunk in client.chat.completions.create(model=\"{PROFILE}\", stream=True,\n\
         \x20       messages=[{{\"role\": \"user\", \"content\": \"What is a river?\"}}]):\n\
         \x20   print(chunk.choices[0].delta.content or \"\", end=\"\", flush=True)\n\
         PY\n"
    )
}

async fn status(network: &Network) -> Result<()> {
    let node = (0..network.spec().hosts.len())
        .find(|&host| network.is_running(Role::Node(host)))
        .context("no node is running; start the network with scripts/localnet up")?;
    let chain = ChainClient::connect(&network.rpc(node)).await?;
    let tick = chain.best_tick()?;
    let view = chain.at(tick.hash);
    let epoch = tick.epoch.index;
    let weights = view.weights(epoch).await?;
    let total: u64 = weights.iter().map(|entry| entry.weight).sum();
    let hosts: Vec<AccountId> = HOST_NAMES.iter().map(|name| account(name)).collect::<Result<_>>()?;
    let count = view.inference_count(epoch).await?;
    let records = view.inferences(epoch, &(0..count).collect::<Vec<_>>()).await?;
    println!(
        "epoch {epoch}, {:?}, {} blocks to the next one; {count} requests in this epoch\n",
        tick.phase(),
        clock::epoch_end(&tick.epoch).saturating_sub(tick.number)
    );
    println!(
        "{:<9} {:>8} {:>7} {:>9} {:>9}  {:<24} last verdict",
        "host", "weight", "height", "finalised", "executed", "processes"
    );
    for (host, name) in HOST_NAMES.iter().enumerate().take(network.spec().hosts.len()) {
        let account = account(name)?;
        let weight = weights.iter().find(|entry| entry.host == account).map_or(0, |entry| entry.weight);
        let share =
            if total == 0 { "-".into() } else { format!("{:.1} %", 100.0 * weight as f64 / total as f64) };
        let height = |finalised| async move {
            network.height(host, finalised).await.map_or("-".into(), |height| height.to_string())
        };
        let executed: Vec<_> = records.iter().filter(|placed| placed.record.executor == account).collect();
        let verdict = match executed.iter().rev().find(|placed| placed.record.first_verdict_at.is_some()) {
            Some(placed) => {
                let verdicts = view.verdicts(placed.id, &hosts).await?;
                verdicts.last().map_or("-".into(), |entry| {
                    if entry.verdict.passed {
                        "passed".into()
                    } else {
                        format!("{:?}", entry.verdict.outcome)
                    }
                })
            }
            None => "-".into(),
        };
        println!(
            "{name:<9} {share:>8} {:>7} {:>9} {:>9}  {:<24} {verdict}",
            height(false).await,
            height(true).await,
            executed.len(),
            processes(network, host),
        );
    }
    Ok(())
}

/// Which of a host's processes run.
fn processes(network: &Network, host: usize) -> String {
    let ml_nodes = network.spec().hosts[host].ml_nodes.len();
    let mut names = vec![("node".to_owned(), Role::Node(host)), ("agent".to_owned(), Role::Agent(host))];
    names.extend((0..ml_nodes).map(|n| (format!("mlnode{n}"), Role::MlNode(host, n))));
    let running: Vec<String> =
        names.into_iter().filter(|(_, role)| network.is_running(*role)).map(|(name, _)| name).collect();
    running.join(" ")
}

fn logs(network: &Network, host: &str, program: &str, lines: usize) -> Result<()> {
    let name = if host == "full" { "full-node".to_owned() } else { format!("{host}-{program}") };
    let role = network.spec().processes().into_iter().find(|role| role.name() == name);
    let Some(role) = role else {
        let known: Vec<String> = network.spec().processes().iter().map(Role::name).collect();
        bail!("there is no {name}; known are {}", known.join(", "));
    };
    println!("{}", process::tail(&network.log(role), lines));
    Ok(())
}

fn account(name: &str) -> Result<AccountId> {
    let suri = format!("//{}{}", name[..1].to_uppercase(), &name[1..]);
    Ok(sr25519::Pair::from_string(&suri, None).context("development account")?.public().into())
}
