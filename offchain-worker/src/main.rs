//! The Starling host agent as a program of its own.

use anyhow::Context;
use clap::{Parser, Subcommand};
use starling_host::{config::LogConfig, keys::HostKeys, Config};
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// The Starling host agent: serves large language models and does a host's duties.
#[derive(Debug, Parser)]
#[command(name = "starling-host", version)]
struct Arguments {
    /// Configuration file (see config.sample.toml).
    #[arg(long, env = "STARLING_HOST_CONFIG", global = true, default_value = "starling-host.toml")]
    config: PathBuf,
    /// Check the configuration and the keys, then exit.
    #[arg(long)]
    check_config: bool,
    /// What to do instead of running.
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do instead of running.
#[derive(Debug, Subcommand)]
enum Command {
    /// Print the libp2p peer id that goes on chain.
    PeerId,
    /// Print the account that clients delegate spending to, for requests with an API key.
    Delegate,
    /// Print the account of the worker key.
    Worker,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = Config::load(&arguments.config)
        .with_context(|| format!("the configuration {} is not usable", arguments.config.display()))?;
    if let Some(command) = arguments.command {
        let keys = HostKeys::load(&config).context("the keys are not usable")?;
        match command {
            Command::PeerId => println!("{}", keys.peer_id()),
            Command::Delegate => println!("{}", keys.delegate_account()),
            Command::Worker => println!("{}", keys.worker_account()),
        }
        return Ok(());
    }
    if arguments.check_config {
        HostKeys::load(&config).context("the keys are not usable")?;
        println!("{} is valid", arguments.config.display());
        return Ok(());
    }
    start_logging(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(starling_host::run_with(config, wait_for_signal())).context("the agent has failed")
}

fn start_logging(config: &LogConfig) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter),
        _ => EnvFilter::try_new(&config.filter),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter.context("the log filter is not valid")?);
    if config.json {
        builder.json().init();
    } else {
        builder.with_ansi(false).init();
    }
    Ok(())
}

/// Ctrl-C or SIGTERM.
async fn wait_for_signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}
