//! From the command line to what is done.

use crate::{
    cli::{Cli, Command, ExportChainSpec},
    service,
};
use sc_cli::{Error, Result, SubstrateCli};
use sc_network::config::{NetworkBackendType, TransportConfig};
use sc_service::{ChainSpec, Configuration, PartialComponents, TaskManager};
use starling_chain_spec::Overrides;
use starling_runtime::opaque::{Block, Hash};
use std::{fs, io::Write};

impl SubstrateCli for Cli {
    fn impl_name() -> String {
        "Starling Node".into()
    }

    fn impl_version() -> String {
        env!("SUBSTRATE_CLI_IMPL_VERSION").into()
    }

    fn description() -> String {
        env!("CARGO_PKG_DESCRIPTION").into()
    }

    fn author() -> String {
        env!("CARGO_PKG_AUTHORS").into()
    }

    fn support_url() -> String {
        env!("CARGO_PKG_REPOSITORY").into()
    }

    fn copyright_start_year() -> i32 {
        2026
    }

    fn load_spec(&self, id: &str) -> std::result::Result<Box<dyn ChainSpec>, String> {
        starling_chain_spec::load(id, &Overrides::default()).map_err(|error| error_chain(&error))
    }
}

/// An error with everything that caused it.
fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Parses the command line and does what it says.
pub fn run() -> Result<()> {
    let cli = Cli::from_args();
    match &cli.subcommand {
        None => run_node(&cli),
        Some(command) => run_command(&cli, command),
    }
}

fn run_node(cli: &Cli) -> Result<()> {
    let runner = cli.create_runner(&cli.run)?;
    let args = cli.starling.clone();
    runner.run_node_until_exit(|mut config| async move {
        if let TransportConfig::Normal { enable_mdns, .. } = &mut config.network.transport {
            *enable_mdns = args.mdns;
        }
        let tasks = start(config)?;
        #[cfg(feature = "host")]
        if let Some(host_config) = args.host_config {
            service::spawn_host(&tasks, host_config);
        }
        Ok::<_, Error>(tasks)
    })
}

fn start(config: Configuration) -> std::result::Result<TaskManager, sc_service::Error> {
    match config.network.network_backend {
        NetworkBackendType::Libp2p => service::new_full::<sc_network::NetworkWorker<Block, Hash>>(config),
        NetworkBackendType::Litep2p => service::new_full::<sc_network::Litep2pNetworkBackend>(config),
    }
}

fn run_command(cli: &Cli, command: &Command) -> Result<()> {
    match command {
        Command::Key(command) => command.run(cli),
        Command::ExportChainSpec(command) => export_chain_spec(command),
        Command::CheckBlock(command) => cli.create_runner(command)?.async_run(|config| {
            let PartialComponents { client, task_manager, import_queue, .. } = service::new_partial(&config)?;
            Ok((command.run(client, import_queue), task_manager))
        }),
        Command::ExportBlocks(command) => cli.create_runner(command)?.async_run(|config| {
            let PartialComponents { client, task_manager, .. } = service::new_partial(&config)?;
            Ok((command.run(client, config.database), task_manager))
        }),
        Command::ExportState(command) => cli.create_runner(command)?.async_run(|config| {
            let PartialComponents { client, task_manager, .. } = service::new_partial(&config)?;
            Ok((command.run(client, config.chain_spec), task_manager))
        }),
        Command::ImportBlocks(command) => cli.create_runner(command)?.async_run(|config| {
            let PartialComponents { client, task_manager, import_queue, .. } = service::new_partial(&config)?;
            Ok((command.run(client, import_queue), task_manager))
        }),
        Command::PurgeChain(command) => {
            cli.create_runner(command)?.sync_run(|config| command.run(config.database))
        }
        Command::Revert(command) => cli.create_runner(command)?.async_run(|config| {
            let PartialComponents { client, task_manager, backend, .. } = service::new_partial(&config)?;
            let revert_consensus = Box::new(|client: std::sync::Arc<_>, backend, blocks| {
                sc_consensus_babe::revert(std::sync::Arc::clone(&client), backend, blocks)?;
                sc_consensus_grandpa::revert(client, blocks)?;
                Ok(())
            });
            Ok((command.run(client, backend, Some(revert_consensus)), task_manager))
        }),
        Command::ChainInfo(command) => {
            cli.create_runner(command)?.sync_run(|config| command.run::<Block>(&config))
        }
    }
}

fn export_chain_spec(command: &ExportChainSpec) -> Result<()> {
    let overrides = Overrides {
        profile_file: command.overrides.profile_file.clone(),
        schedule_file: command.overrides.schedule_file.clone(),
        slot_duration_ms: command.overrides.slot_duration,
    };
    let spec = starling_chain_spec::load(&command.chain, &overrides)
        .map_err(|error| Error::Input(error_chain(&error)))?;
    let json = sc_service::chain_ops::build_spec(spec.as_ref(), command.raw)?;
    match &command.output {
        Some(path) => fs::write(path, json)?,
        None => std::io::stdout().write_all(json.as_bytes())?,
    }
    Ok(())
}
