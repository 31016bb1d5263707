//! `starling-mlnode`: the ML node as a program.

use anyhow::Context;
use clap::{Parser, Subcommand};
use starling_mlnode::{
    bench::{bench, compare_device, BenchPlan, Lengths, PeerCommand},
    config::{Config, Log},
    device::DeviceChoice,
    digest::folder_digest,
    loader::{device_loader, LibtorchLoader, LoadSpec, Loader},
    model::Precision,
    node::Node,
};
use starling_primitives::profile::MAX_K;
use std::path::PathBuf;
use tokio::signal::unix::{signal, SignalKind};
use tracing_subscriber::EnvFilter;

/// Threads of HTTP and tokenising; the engine has its own.
const SERVER_THREADS: usize = 2;

/// Runs models, makes and checks transcripts.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    /// Threads of the engine's arithmetic, instead of the configured number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Print the digests of a model folder as JSON: what a profile on chain names.
    Digest {
        /// A Hugging Face model folder.
        folder: PathBuf,
    },
    /// Measure prefill, decode, replay and verification; one JSON object per line.
    Bench {
        /// A Hugging Face model folder.
        folder: PathBuf,
        /// Tokens of the prompt.
        #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
        prompt: u32,
        /// Tokens to generate.
        #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..))]
        tokens: u32,
        /// Sequences decoded together; several numbers, with commas between them, for a list of figures each.
        #[arg(long, value_name = "N,...", default_value = "8", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
        batch: Vec<u32>,
        /// Threads of every engine.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: u32,
        /// Turns; the median of each figure is printed.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Another engine to take turns with; see docs/mlnode.md. May be repeated.
        #[arg(long = "peer", value_name = "NAME=PROGRAM ARGUMENT ...")]
        peers: Vec<PeerCommand>,
        /// Run the model with libtorch instead of the engine's own kernels, on the processor too.
        #[arg(long)]
        libtorch: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Compare the log-probabilities that a device gives with those of the engine's own kernels; one JSON object per line.
    Compare {
        /// A Hugging Face model folder.
        folder: PathBuf,
        /// Threads of the processor.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: u32,
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// Where models run, as in the configuration.
#[derive(clap::Args)]
struct DeviceArgs {
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// stored (as wide as the weights) or f32.
    #[arg(long, default_value = "stored")]
    precision: Precision,
    /// libtorch's CUDA library, or its folder.
    #[arg(long, value_name = "PATH")]
    cuda_library: Option<PathBuf>,
}

impl DeviceArgs {
    /// libtorch's device; the processor where there is no other.
    fn libtorch(&self) -> anyhow::Result<LibtorchLoader> {
        let number = self.device.resolve(self.cuda_library.as_deref())?;
        let device = number.map_or(tch::Device::Cpu, tch::Device::Cuda);
        Ok(LibtorchLoader { device, precision: self.precision })
    }

    fn loader(&self) -> anyhow::Result<Box<dyn Loader>> {
        Ok(device_loader(self.device, self.cuda_library.as_deref(), self.precision)?)
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(command) = args.command {
        start_log(&Log::default())?;
        return run_command(command);
    }
    let path = args.config.context("--config is missing")?;
    let mut config = Config::load(&path).with_context(|| format!("cannot use {}", path.display()))?;
    if let Some(threads) = args.threads {
        config.threads = threads;
    }
    if args.check_config {
        println!("{} is usable", path.display());
        return Ok(());
    }
    start_log(&config.log)?;
    let loader = device_loader(config.device, config.cuda_library.as_deref(), config.precision)
        .context("cannot use the configured device")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SERVER_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let node = Node::start(&config, loader).await?;
        node.run_until(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        })
        .await?;
        Ok(())
    })
}

fn run_command(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Digest { folder } => {
            let digest =
                folder_digest(&folder).with_context(|| format!("no digest of {}", folder.display()))?;
            println!("{}", serde_json::to_string_pretty(&digest)?);
        }
        Command::Bench { folder, prompt, tokens, batch, threads, rounds, peers, libtorch, device } => {
            let (name, max_context) = ("bench".into(), prompt.saturating_add(tokens));
            let spec = LoadSpec { name, folder, top_k: MAX_K, max_context, weights_digest: None };
            let plan = BenchPlan { prompt, tokens, batches: batch, threads, rounds, peers };
            let lines = if libtorch {
                bench(&device.libtorch()?, &spec, &plan)?
            } else {
                bench(&device.loader()?, &spec, &plan)?
            };
            for line in lines {
                println!("{}", serde_json::to_string(&line)?);
            }
        }
        Command::Compare { folder, threads, device } => {
            for line in compare_device(&folder, threads, &device.libtorch()?, &Lengths::default())? {
                println!("{}", serde_json::to_string(&line)?);
            }
        }
    }
    Ok(())
}

fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter).context("log.filter is not usable")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.json {
        builder.json().init();
    } else {
        builder.with_ansi(false).init();
    }
    Ok(())
}
