//! What memory allows: a step of decoding one sequence reads every weight once.

use anyhow::{ensure, Context, Result};
use serde_json::Value;
use starling_e2e::paths;
use std::{fs, path::Path, process::Command};

/// GB/s that the threads of an engine read just now, as `starling-mlnode doctor` measures it. On a shared machine it changes from
/// minute to minute, so it is measured in turn with everything else.
pub(crate) fn read_bandwidth(threads: u32) -> Result<f64> {
    let mut doctor = Command::new(paths::binary("starling-mlnode")?);
    let output = doctor.args(["doctor", "--json", "--threads", &threads.to_string()]).output()?;
    ensure!(output.status.success(), "the doctor failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let mut figures = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = figures.find(|figure| figure["name"] == "read_bandwidth").context("no bandwidth")?;
    found["value"].as_f64().context("the bandwidth is no number")
}

/// Bytes of weights that a step reads: all of the folder's, without the table of embeddings where the output has weights of its own.
pub(crate) fn weight_bytes(model: &Path) -> Result<f64> {
    let mut bytes = 0;
    for entry in fs::read_dir(model)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            bytes += fs::metadata(&path)?.len();
        }
    }
    let config: Value = serde_json::from_slice(&fs::read(model.join("config.json"))?)?;
    if config["tie_word_embeddings"].as_bool().unwrap_or(false) {
        return Ok(bytes as f64);
    }
    let size = |name: &str| config[name].as_u64().with_context(|| format!("config.json has no {name}"));
    let dtype = config.get("dtype").or(config.get("torch_dtype")).and_then(Value::as_str);
    let width = if dtype == Some("float32") { 4 } else { 2 };
    Ok((bytes - size("vocab_size")? * size("hidden_size")? * width) as f64)
}
