//! `starling-mlnode` that takes at least ten milliseconds for each step. Takes the same configuration. For tests only.

use anyhow::Context;
use clap::Parser;
use starling_e2e::slow::SlowLoader;
use starling_mlnode::{config::Config, node::Node};
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Serves a profile honestly and slowly.
#[derive(Parser)]
struct Args {
    /// The configuration file of an ML node.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config =
        Config::load(&args.config).with_context(|| format!("cannot use {}", args.config.display()))?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&config.log.filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let node = Node::start(&config, Box::new(SlowLoader)).await?;
    node.run_until(async {
        // Without a handler the signal would end the process all the same.
        tokio::signal::ctrl_c().await.ok();
    })
    .await?;
    Ok(())
}
