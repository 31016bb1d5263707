//! `starling-mlnode` of a dishonest host. Takes the same configuration; `STARLING_CHEAT` says how it cheats.
//! For tests only.

use anyhow::Context;
use clap::Parser;
use starling_e2e::cheat::{Cheat, CheatingLoader, CHEAT};
use starling_mlnode::{config::Config, node::Node};
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Serves other weights under the name of a profile.
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
    let cheat: Cheat = std::env::var(CHEAT).with_context(|| format!("{CHEAT} is not set"))?.parse()?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&config.log.filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    tracing::warn!(cheat = cheat.name(), "this node cheats");
    let node = Node::start(&config, Box::new(CheatingLoader(cheat))).await?;
    node.run_until(async {
        // Without a handler the signal would end the process all the same.
        tokio::signal::ctrl_c().await.ok();
    })
    .await?;
    Ok(())
}
