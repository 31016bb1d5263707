//! The client's side of Starling.
//!
//! - [`proxy`]: an OpenAI API on localhost that signs each request, picks a random active host as its gateway, retries
//!   another one, and keeps a receipt of every answer.
//! - [`receipt`]: checks a saved answer on its own: hashes, signatures, and the replay of the sampler.
//! - [`account`]: deposits, withdrawals, delegated keys.
//!
//! A client trusts nobody: it tokenises the prompt itself, with a tokenizer whose digest stands on chain, and signs the
//! hash of the tokens.

#![forbid(unsafe_code)]

pub mod account;
mod amount;
mod chat;
mod cli;
pub mod gateways;
pub mod models;
pub mod proxy;
pub mod receipt;
pub mod signer;

use clap::Parser;
use std::process::ExitCode;

/// Parses the command line and runs the command.
pub async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| cli.log.as_str().into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match cli::run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("starling: {error:#}");
            ExitCode::FAILURE
        }
    }
}
