//! The program around an ML node that is not quite the real one: same configuration, another loader.

use anyhow::{Context, Result};
use clap::Parser;
use starling_mlnode::{config::Config, loader::Loader, node::Node};
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Serves a profile, for tests only.
#[derive(Parser)]
struct Args {
    /// The configuration file of an ML node.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Reads the configuration that the command line names, and serves what `loader` loads until an interrupt.
pub async fn serve(loader: impl Loader) -> Result<()> {
    let args = Args::parse();
    let config =
        Config::load(&args.config).with_context(|| format!("cannot use {}", args.config.display()))?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&config.log.filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let node = Node::start(&config, Box::new(loader)).await?;
    node.run_until(async {
        // Without a handler the signal would end the process all the same.
        tokio::signal::ctrl_c().await.ok();
    })
    .await?;
    Ok(())
}
