//! A node of one's own, as a process.

use super::{LoadPlan, LoadTestError};
use crate::config::ENV_PREFIX;
use serde_json::Value;
use starling_mlnode_api::{ClientConfig, MlNode, MlNodeClient};
use std::{
    io,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

/// Name of the model in the node.
pub(super) const MODEL: &str = "model";
/// Time until a node listens, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// How often it is asked whether its model is there.
const LOADED_INTERVAL: Duration = Duration::from_millis(50);
/// Warnings that are kept.
const WARNINGS_MAX: usize = 20;

/// A `starling-mlnode` on free ports; it is killed with this value.
#[derive(Debug)]
pub(super) struct NodeProcess {
    pub(super) client: MlNodeClient,
    process: Child,
    warnings: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
}

impl NodeProcess {
    /// Starts it and waits until it listens.
    pub(super) async fn start(plan: &LoadPlan) -> Result<Self, LoadTestError> {
        let folder = tempfile::tempdir()?;
        let token = hex::encode(rand::random::<[u8; 32]>());
        std::fs::write(folder.path().join("token"), &token)?;
        let file = folder.path().join("mlnode.toml");
        std::fs::write(&file, config(plan)?)?;
        let mut command = Command::new(&plan.program);
        command.arg("--config").arg(&file);
        // Whoever runs this may run a node too.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(ENV_PREFIX))
        {
            command.env_remove(name);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = process.stderr.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        let mut lines = BufReader::new(stderr).lines();
        let late = |_| LoadTestError::NotStarted("it takes too long".into());
        let (inference, management) =
            tokio::time::timeout(START_DEADLINE, addresses(&mut lines)).await.map_err(late)??;
        let url = |address| format!("http://{address}");
        let client = ClientConfig::new(url(inference), url(management), token);
        let client =
            MlNodeClient::new(client).map_err(|error| LoadTestError::NotStarted(error.to_string()))?;
        let warnings = Arc::default();
        tokio::spawn(keep_warnings(lines, Arc::clone(&warnings)));
        // It listens before its model is there.
        tokio::time::timeout(START_DEADLINE, loaded(&client, &mut process)).await.map_err(late)??;
        Ok(Self { client, process, warnings, _folder: folder })
    }

    /// Bytes of memory that it holds (resident), where the system says so.
    pub(super) fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kibibytes * 1_024)
    }

    /// What it warned of so far.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn config(plan: &LoadPlan) -> io::Result<String> {
    let folder = plan.folder.canonicalize()?;
    // JSON strings are TOML strings.
    let folder = Value::from(folder.to_string_lossy());
    let library = plan.cuda_library.as_ref().map(|library| Value::from(library.to_string_lossy()));
    let library = library.map(|library| format!("cuda_library = {library}\n")).unwrap_or_default();
    Ok(format!(
        "threads = {}\ndevice = \"{}\"\nprecision = \"{}\"\n{library}token_file = \"token\"\n[inference]\nlisten = \"127.0.0.1:0\"\n[management]\n\
         listen = \"127.0.0.1:0\"\n[model]\nname = \"{MODEL}\"\nfolder = {folder}\n[limits]\n\
         requests_max = {}\n[log]\njson = true\nfilter = \"warn,starling_mlnode::node=info\"\n",
        plan.threads, plan.device, plan.precision, plan.streams,
    ))
}

/// Reads the log as far as the line that says where the node listens.
async fn addresses(lines: &mut Lines<BufReader<ChildStderr>>) -> Result<(String, String), LoadTestError> {
    let mut last = String::from("its log is empty");
    while let Some(line) = lines.next_line().await? {
        let fields = serde_json::from_str::<Value>(&line).map(|mut entry| entry["fields"].take());
        if let Ok(fields) = fields {
            if let (Some(inference), Some(management)) =
                (fields["inference"].as_str(), fields["management"].as_str())
            {
                return Ok((inference.into(), management.into()));
            }
        }
        last = line;
    }
    Err(LoadTestError::NotStarted(last))
}

/// Waits until its model is there, or it has ended. Asking for its health before would leave errors in its log.
async fn loaded(client: &MlNodeClient, process: &mut Child) -> Result<(), LoadTestError> {
    while !client.state().await.is_ok_and(|state| state.model.is_some()) {
        if let Some(status) = process.try_wait()? {
            return Err(LoadTestError::NotStarted(format!("it ended with {status}")));
        }
        tokio::time::sleep(LOADED_INTERVAL).await;
    }
    Ok(())
}

/// Reads the log to its end: a full pipe would hold the node up.
async fn keep_warnings(mut lines: Lines<BufReader<ChildStderr>>, warnings: Arc<Mutex<Vec<String>>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut kept = warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < WARNINGS_MAX {
            kept.push(line);
        }
    }
}
