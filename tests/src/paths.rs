//! Where things are: the checkout, the binaries, the Python environment.

use anyhow::{bail, Context, Result};
use std::path::{Path, PathBuf};

/// Root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A program of the workspace, built into the same folder as the running one.
pub fn binary(name: &str) -> Result<PathBuf> {
    let current = std::env::current_exe().context("path of this program")?;
    // Tests run from `deps/`, programs from its parent.
    let folder =
        current.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).context("target folder")?;
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{} does not exist; build it first: cargo build --workspace --all-targets", path.display());
    }
    Ok(path)
}

/// The runtime with the next version number, which `scripts/next-runtime` builds beside the programs.
pub fn next_runtime() -> Result<PathBuf> {
    let programs = binary("starling-node")?;
    let folder = programs.parent().context("target folder")?;
    let path = folder.join("wbuild/starling-runtime/starling_next_runtime.wasm");
    if !path.is_file() {
        bail!("{} does not exist; run scripts/next-runtime", path.display());
    }
    Ok(path)
}

/// Interpreter of the environment that `scripts/setup --tests` makes.
pub fn python() -> Result<PathBuf> {
    let path = root().join(".tools/peers/bin/python");
    if !path.is_file() {
        bail!("{} does not exist; run scripts/setup --tests", path.display());
    }
    Ok(path)
}

/// Folder with the stock clients (npm packages and scripts).
pub fn clients() -> PathBuf {
    root().join("tests/clients")
}

/// Folder of the demo model.
pub fn demo_model() -> PathBuf {
    root().join("mlnode/demo-model")
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_mlnode::digest::folder_digest;
    use starling_mlnode_api::ModelDigest;

    #[test]
    fn the_presets_name_the_demo_model_that_is_shipped() {
        let named = std::fs::read_to_string(root().join("chain-spec/demo-model.json")).unwrap();
        let named: ModelDigest = serde_json::from_str(&named).unwrap();
        assert_eq!(folder_digest(&demo_model()).unwrap(), named);
    }
}
