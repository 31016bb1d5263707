//! `scripts/bench`: measures real processes and prints JSON lines.

mod compare;
mod engine;
mod latency;
mod memory;
mod peer;
mod stats;
mod transcripts;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What the way over gateway and executor adds to calling the ML node.
    Latency(latency::Plan),
    /// Prefill and decoding, beside what hosts run today.
    Engine(compare::Plan),
    /// Replay and verification against generation.
    Verify(transcripts::VerifyPlan),
    /// Size of the demo model's transcripts.
    Transcript(transcripts::SizePlan),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Latency(plan) => latency::run(&plan).await,
        Command::Engine(plan) => compare::run(&plan).await,
        Command::Verify(plan) => transcripts::verify(&plan).await,
        Command::Transcript(plan) => transcripts::sizes(&plan).await,
    }
}
