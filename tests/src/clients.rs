//! Stock clients, run as their users run them.

use crate::{network::Network, paths, process::Process};
use anyhow::{bail, Context, Result};
use serde_json::Value;
use std::{fs, path::Path, process::Stdio, time::Duration};
use tokio::process::Command;

/// A client that hangs is a failure.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs a program to its end and returns what it printed; fails, with both outputs, when it fails or hangs.
pub async fn run(mut command: Command) -> Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output())
        .await
        .with_context(|| format!("{command:?} did not end within {LIMIT:?}"))?
        .with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?} failed ({}):\n{}\n{text}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// A Python program of `tests/clients` that talks through the stock `openai` package; the JSON that it prints.
pub async fn openai_python(program: &str, base_url: &str, api_key: &str, model: &str) -> Result<Value> {
    let mut command = Command::new(paths::python()?);
    command.arg(paths::clients().join(program)).args([base_url, api_key, model]);
    Ok(serde_json::from_str(&run(command).await?)?)
}

/// A Node.js program of `tests/clients` that talks through the stock `openai` package; the JSON that it prints.
pub async fn openai_npm(program: &str, base_url: &str, api_key: &str, model: &str) -> Result<Value> {
    let mut command = Command::new("node");
    command.arg(paths::clients().join(program)).args([base_url, api_key, model]);
    Ok(serde_json::from_str(&run(command).await?)?)
}

/// A command of `chain.mjs` (polkadot-js); its JSON lines.
pub async fn polkadot(node: &str, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = Command::new("node");
    command.arg(paths::clients().join("chain.mjs")).arg(node).args(arguments);
    let text = run(command).await?;
    text.lines()
        .filter(|line| line.starts_with(['{', '[']))
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

/// The `starling` client with a development key.
pub async fn starling(network: &Network, suri: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(paths::binary("starling")?);
    command.env("STARLING_NODE", network.rpc(0)).env("STARLING_KEY_FILE", key_file(network.root(), suri)?);
    run({
        command.args(arguments);
        command
    })
    .await
}

/// Starts `starling proxy`; its receipts lie in `receipts/` of the network's folder.
pub fn start_proxy(network: &Network, suri: &str, port: u16) -> Result<Process> {
    let mut command = std::process::Command::new(paths::binary("starling")?);
    command
        .env("STARLING_NODE", network.rpc(0))
        .env("STARLING_KEY_FILE", key_file(network.root(), suri)?)
        .args(["proxy", "--listen", &format!("127.0.0.1:{port}"), "--receipts"])
        .arg(network.root().join("receipts"));
    Process::start("proxy", command, &network.root().join("logs"))
}

fn key_file(root: &Path, suri: &str) -> Result<std::path::PathBuf> {
    let path = root.join(format!("{}.key", suri.trim_start_matches('/').to_lowercase()));
    fs::write(&path, suri)?;
    Ok(path)
}
