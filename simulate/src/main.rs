//! `starling-simulate`: runs scenarios and prints what they came to.

use anyhow::{ensure, Context, Result};
use clap::{Args, Parser, Subcommand};
use starling_runtime::genesis;
use starling_simulate::{
    crowd::{self, CrowdSize},
    scenario::{self, Scenario, SCENARIOS},
    tables,
    world::Size,
};

#[derive(Parser)]
#[command(about = "Simulates Starling networks on the real rules and the real pallets.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Networks on the whole runtime: every call real, adversaries among the hosts.
    Network(Network),
    /// Many hosts under the rules alone, as noisy as the calibration allows.
    Crowd(Crowd),
    /// Names of the scenarios.
    List,
}

#[derive(Args)]
struct Network {
    /// Scenarios, by name; all of them by default. The honest one always runs first, to compare with.
    scenarios: Vec<String>,
    /// Hosts of each.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(12..=1_000))]
    hosts: u32,
    /// Epochs of each.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(3..))]
    epochs: u32,
    /// Requests an epoch.
    #[arg(long, default_value_t = 96)]
    requests: u32,
    /// Tokens of each completion.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=512))]
    tokens: u32,
    /// Everything that is random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// JSON lines instead of markdown.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Crowd {
    /// Hosts.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    hosts: u32,
    /// Epochs.
    #[arg(long, default_value_t = 1_000)]
    epochs: u32,
    /// Answers of an epoch for each host, on average.
    #[arg(long, default_value_t = 4)]
    answers: u32,
    /// Hosts that reject whatever they see, in percent.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=33))]
    liars: u32,
    /// Everything that is random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Network(network) => network.run(),
        Command::Crowd(crowd) => crowd.run(),
        Command::List => {
            SCENARIOS.iter().for_each(|scenario| println!("{}", scenario.name));
            Ok(())
        }
    }
}

impl Network {
    fn run(&self) -> Result<()> {
        let size = Size {
            hosts: self.hosts,
            epochs: self.epochs,
            requests: self.requests,
            tokens: self.tokens,
            seed: self.seed,
        };
        let mut chosen: Vec<&'static Scenario> = vec![&SCENARIOS[0]];
        for name in &self.scenarios {
            let scenario = scenario::named(name).with_context(|| format!("no scenario is called {name}"))?;
            if scenario.name != SCENARIOS[0].name {
                chosen.push(scenario);
            }
        }
        if self.scenarios.is_empty() {
            chosen.extend(&SCENARIOS[1..]);
        }
        let (mut rows, mut summaries, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        let mut honest_mean = None;
        for scenario in chosen {
            let outcome = scenario.run(size)?;
            wrong.extend(outcome.check().err());
            let baseline = *honest_mean.get_or_insert(outcome.honest_mean());
            let summary = tables::summary(&outcome, baseline);
            eprintln!("{}", serde_json::to_string(&summary)?);
            rows.extend(tables::rows(&outcome));
            summaries.push(summary);
        }
        if self.json {
            for row in &rows {
                println!("{}", serde_json::to_string(row)?);
            }
            for summary in &summaries {
                println!("{}", serde_json::to_string(summary)?);
            }
        } else {
            let (all, summed) = (tables::markdown_rows(&rows), tables::markdown_summaries(&summaries));
            println!("{all}\n{}\n{summed}", tables::markdown_plants(&rows));
        }
        ensure!(wrong.is_empty(), "what must not happen: {wrong:#?}");
        Ok(())
    }
}

impl Crowd {
    fn run(&self) -> Result<()> {
        let size = CrowdSize {
            hosts: self.hosts,
            epochs: self.epochs,
            answers: self.answers,
            liars_percent: self.liars,
            seed: self.seed,
        };
        let result = crowd::run(size, genesis::demo_profile().calibration)?;
        println!("{}", serde_json::to_string(&result)?);
        Ok(())
    }
}
