//! `starling-mlnode`: the ML node as a program.

use anyhow::Context;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use starling_mlnode::{
    bench::{bench, compare_device, BenchPlan, Lengths, PeerCommand},
    calibrate::{calibrate, CalibrationPlan, Sizes},
    config::{self, Config, Log},
    detect::{detect, DetectionPlan, Row},
    device::DeviceChoice,
    digest::folder_digest,
    doctor::{examine, Examination},
    load_test::{load_test, LoadPlan},
    loader::{device_loader, LibtorchLoader, LoadSpec, Loader},
    model::Precision,
    node::Node,
    vllm::{VllmLoader, SAMPLER, SAMPLER_FILE},
};
use starling_primitives::profile::{Calibration, MAX_K};
use std::path::{Path, PathBuf};
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
    /// Say what this machine can do, and what it will be able to serve; exit code 1 when it cannot serve the model.
    Doctor {
        /// A Hugging Face model folder; without it only the machine is examined.
        folder: Option<PathBuf>,
        /// Threads of the arithmetic; one per core when absent.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: Option<u32>,
        /// One JSON object per line instead of a table.
        #[arg(long)]
        json: bool,
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
    /// Find out what honest hosts differ by: a profile's calibration, as JSON.
    Calibrate {
        /// A Hugging Face model folder.
        folder: PathBuf,
        /// Answers that the limits are made from; half as many fresh ones check them.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(16..=10_000_000))]
        sequences: u32,
        /// Questions follow from this number.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Threads; some answers are repeated on one more.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: u32,
        /// Tokens of a prompt at most.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
        prompt: u32,
        /// Tokens of an answer at most.
        #[arg(long, default_value_t = 192, value_parser = clap::value_parser!(u32).range(1..))]
        tokens: u32,
        /// Leave out libtorch, which runs on the device, and on the processor stands for other devices.
        #[arg(long)]
        without_libtorch: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Put a node of its own under load: streams of all lengths, clients that hang up, read slowly or are refused. One JSON
    /// object per line.
    BenchLoad {
        /// A Hugging Face model folder.
        folder: PathBuf,
        /// Requests: by default one for each second of an hour.
        #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..))]
        requests: u32,
        /// Requests at once; an eighth more clients come, and are refused in turn.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=128))]
        streams: u32,
        /// Threads of the node's engine.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: u32,
        /// Tokens of a prompt at most.
        #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
        prompt: u32,
        /// Tokens of an answer at most.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
        tokens: u32,
        /// Questions follow from this number.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Find out how soon hosts that cheat are found out; one JSON object per line.
    Detect {
        /// A Hugging Face model folder.
        folder: PathBuf,
        /// What `calibrate` printed.
        #[arg(long, value_name = "FILE")]
        calibration: PathBuf,
        /// Answers of each cheat.
        #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        answers: u32,
        /// Tokens of an answer at most.
        #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..))]
        tokens: u32,
        /// Questions follow from this number.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Threads.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: u32,
        /// Ask with prompts without a pattern, as sprints do, instead of clients' questions.
        #[arg(long)]
        patternless: bool,
        /// What everybody computes with: f32, or stored (as wide as the weights).
        #[arg(long, default_value = "f32")]
        precision: Precision,
    },
    /// Write the sampler that a vLLM server needs to be attached to; see docs/mlnode.md.
    VllmSampler {
        /// The folder to write it to; the server needs it in PYTHONPATH.
        folder: PathBuf,
    },
    /// Compare the log-probabilities that a device gives with those of the engine's own kernels; one JSON object per line.
    Compare {
        /// A Hugging Face model folder.
        folder: PathBuf,
        /// Threads of the processor.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: u32,
        /// What the kernels compute with, stored or f32; as the device when absent.
        #[arg(long)]
        reference: Option<Precision>,
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
    /// f32, or stored (as wide as the weights).
    #[arg(long, default_value = "f32")]
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
    let loader: Box<dyn Loader> = match &config.vllm {
        Some(settings) => Box::new(VllmLoader { settings: settings.clone() }),
        None => device_loader(config.device, config.cuda_library.as_deref(), config.precision)
            .context("cannot use the configured device")?,
    };
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
        Command::Doctor { folder, threads, json } => {
            let threads = threads.unwrap_or_else(config::thread_per_core);
            let Examination { findings, refusal } = examine(folder.as_deref(), threads)?;
            for finding in findings {
                if json {
                    println!("{}", serde_json::to_string(&finding)?);
                } else {
                    println!("{finding}");
                }
            }
            if let Some(reason) = refusal {
                return Err(reason).context("this machine cannot serve the model");
            }
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
        Command::Calibrate { folder, sequences, seed, threads, prompt, tokens, without_libtorch, device } => {
            let sizes = Sizes { prompt_max: prompt, answer_max: tokens };
            let libtorch = (!without_libtorch).then(|| device.libtorch()).transpose()?;
            let precision = device.precision;
            let plan = CalibrationPlan { folder, sequences, seed, threads, sizes, precision, libtorch };
            let report = calibrate(&plan, &progress_bar())?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            anyhow::ensure!(report.holds, "the limits do not hold on fresh answers");
        }
        Command::Detect { folder, calibration, answers, tokens, seed, threads, patternless, precision } => {
            let calibration = read_calibration(&calibration)
                .with_context(|| format!("no calibration in {}", calibration.display()))?;
            let plan =
                DetectionPlan { folder, precision, calibration, answers, tokens, seed, threads, patternless };
            let bar = progress_bar();
            let print = |row: &Row| {
                // Nothing in a row can fail to be written.
                let line = serde_json::to_string(row).unwrap_or_default();
                bar.suspend(|| println!("{line}"));
            };
            detect(&plan, &bar, print)?;
        }
        Command::BenchLoad { folder, requests, streams, threads, prompt, tokens, seed, device } => {
            let sizes = Sizes { prompt_max: prompt, answer_max: tokens };
            let program = std::env::current_exe().context("cannot find this program")?;
            let DeviceArgs { device, precision, cuda_library } = device;
            let plan = LoadPlan {
                program,
                folder,
                device,
                precision,
                cuda_library,
                requests,
                streams,
                threads,
                sizes,
                seed,
            };
            let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
            let report = runtime.block_on(load_test(&plan, &progress_bar()))?;
            for line in report.lines() {
                println!("{}", serde_json::to_string(&line)?);
            }
            anyhow::ensure!(report.errors.is_empty(), "errors: {:#?}", report.errors);
        }
        Command::VllmSampler { folder } => {
            let path = folder.join(SAMPLER_FILE);
            std::fs::write(&path, SAMPLER).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", path.display());
        }
        Command::Compare { folder, threads, reference, device } => {
            let reference = reference.unwrap_or(device.precision);
            let lengths = Lengths::default();
            for line in compare_device(&folder, threads, &device.libtorch()?, reference, &lengths)? {
                println!("{}", serde_json::to_string(&line)?);
            }
        }
    }
    Ok(())
}

/// The limits in the output of `calibrate`.
fn read_calibration(path: &Path) -> anyhow::Result<Calibration> {
    let mut report: serde_json::Value = serde_json::from_slice(&std::fs::read(path)?)?;
    Ok(serde_json::from_value(report["calibration"].take())?)
}

/// A bar on standard error; it hides itself where that is no terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:8} {wide_bar} {pos}/{len} {elapsed} left {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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
