//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// The Starling validator node.
// litep2p, the default of the SDK, dials from the port it listens on. On one machine that means: two nodes on the same port
// share it without an error, and a node that restarts cannot reach its peers before the old connections have timed out.
#[derive(Debug, Parser)]
#[command(mut_arg("network_backend", |backend| backend.default_value("libp2p")))]
pub struct Cli {
    /// What to do instead of running the node.
    #[command(subcommand)]
    pub subcommand: Option<Command>,
    /// How to run the node.
    #[clap(flatten)]
    pub run: sc_cli::RunCmd,
    /// Starling's own options.
    #[clap(flatten)]
    pub starling: StarlingArgs,
}

/// Options of Starling beside those of every Substrate node.
#[derive(Clone, Debug, Args)]
pub struct StarlingArgs {
    /// Run the host agent in this process, with this configuration (see `starling-host`). When the agent ends, the node
    /// ends.
    #[cfg(feature = "host")]
    #[arg(long, value_name = "FILE")]
    pub host_config: Option<PathBuf>,
    /// Look for peers on the local network by multicast. Off by default: nodes of several chains share a network.
    #[arg(long)]
    pub mdns: bool,
}

/// What to do instead of running the node.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, insert and show keys.
    #[command(subcommand)]
    Key(sc_cli::KeySubcommand),
    /// Write a chain specification.
    ///
    /// For a network of several nodes, write one raw specification and give it to all.
    #[command(alias = "build-spec")]
    ExportChainSpec(ExportChainSpec),
    /// Validate blocks.
    CheckBlock(sc_cli::CheckBlockCmd),
    /// Export blocks.
    ExportBlocks(sc_cli::ExportBlocksCmd),
    /// Export the state of a block as a chain specification.
    ExportState(sc_cli::ExportStateCmd),
    /// Import blocks.
    ImportBlocks(sc_cli::ImportBlocksCmd),
    /// Remove the chain's database.
    PurgeChain(sc_cli::PurgeChainCmd),
    /// Take back the newest blocks.
    Revert(sc_cli::RevertCmd),
    /// Show what the database holds.
    ChainInfo(sc_cli::ChainInfoCmd),
}

/// Options of `export-chain-spec`.
#[derive(Clone, Debug, Args)]
pub struct ExportChainSpec {
    /// `dev`, `local`, `test`, `main`, or a specification file.
    #[arg(long, default_value = "local")]
    pub chain: String,
    /// Where to write it. Standard output by default.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the genesis storage instead of the configuration that makes it.
    #[arg(long)]
    pub raw: bool,
    /// What to change in a named specification.
    #[clap(flatten)]
    pub overrides: Overrides,
}

/// Changes of a named specification.
#[derive(Clone, Debug, Default, Args)]
pub struct Overrides {
    /// JSON file with a list of profiles that replaces the preset's.
    #[arg(long, value_name = "FILE")]
    pub profile_file: Option<PathBuf>,
    /// JSON file whose fields replace those of the preset's schedule.
    #[arg(long, value_name = "FILE")]
    pub schedule_file: Option<PathBuf>,
    /// Length of a slot in milliseconds, even.
    #[arg(long, value_name = "MS")]
    pub slot_duration: Option<u64>,
}
