//! Digests of a model folder: what a profile on chain names.
//!
//! The *weights digest* is `blake2_256` of a manifest, a text of one line per file:
//!
//! ```text
//! starling-model-v1
//! <blake2_256 of the content, lower-case hex> <size in bytes> <name>
//! ```
//!
//! with `config.json` and the safetensors files (`model.safetensors`, or the index and the files it names), sorted by
//! name, every line ended by a newline. The *tokenizer digest* is `TokenizerBundle::digest`.

use crate::model::{map, weight_files, ModelConfig, ModelError, Progress};
use sp_crypto_hashing::blake2_256;
use starling_mlnode_api::ModelDigest;
use starling_primitives::H256;
use starling_prompt::{BundleError, TokenizerBundle};
use std::{fmt::Write, path::Path};

/// Why a folder has no digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// Config or weights are not usable.
    #[error("the model's weights are not usable")]
    Model(#[from] ModelError),
    /// Tokenizer or template are not usable.
    #[error("the model's tokenizer is not usable")]
    Tokenizer(#[from] BundleError),
}

/// Both digests of a folder, with the sizes that a profile names.
pub fn folder_digest(folder: &Path) -> Result<ModelDigest, DigestError> {
    let config = ModelConfig::load(folder)?;
    Ok(ModelDigest {
        weights_digest: weights_digest(folder)?,
        tokenizer_digest: TokenizerBundle::load_from_folder(folder)?.digest(),
        vocab_size: config.vocab_size,
        max_context: config.max_context,
    })
}

/// Digest of the manifest; see the module's documentation.
pub fn weights_digest(folder: &Path) -> Result<H256, ModelError> {
    Ok(H256(blake2_256(manifest(folder)?.as_bytes())))
}

fn manifest(folder: &Path) -> Result<String, ModelError> {
    let mut names = weight_files(folder)?;
    names.push("config.json".into());
    let index = "model.safetensors.index.json";
    if folder.join(index).exists() {
        names.push(index.into());
    }
    names.sort_unstable();
    // A thread for each file: a large model has many, and each is read once more after this.
    let contents: Vec<_> = names
        .into_iter()
        .map(|name| Ok((map(&folder.join(&name))?, name)))
        .collect::<Result<_, ModelError>>()?;
    let mut progress = Progress::new("hashing weights");
    progress.expect(contents.iter().map(|(content, _)| content.len() as u64).sum());
    let mut manifest = String::from("starling-model-v1\n");
    std::thread::scope(|scope| {
        let hash = |content: &[u8]| hex::encode(blake2_256(content));
        let threads: Vec<_> = contents
            .iter()
            .map(|(content, name)| (scope.spawn(move || hash(content)), content, name))
            .collect();
        for (thread, content, name) in threads {
            let digest = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // Writing to a string cannot fail.
            let _ = writeln!(manifest, "{digest} {} {name}", content.len());
            progress.advance(content.len() as u64);
        }
    });
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_every_file_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "abc");
        let lines = |text: &str| {
            text.lines().map(|l| l.split(' ').skip(1).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(lines(&manifest(folder.path()).unwrap()), ["", "2 config.json", "3 model.safetensors"]);
        let before = weights_digest(folder.path()).unwrap();
        write("b.safetensors", "b");
        write("a.safetensors", "a");
        write(
            "model.safetensors.index.json",
            r#"{"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}"#,
        );
        let names =
            ["", "1 a.safetensors", "1 b.safetensors", "2 config.json", "60 model.safetensors.index.json"];
        let found = lines(&manifest(folder.path()).unwrap());
        assert_eq!(found[..4], names[..4]);
        assert_eq!(found.len(), 5);
        let after = weights_digest(folder.path()).unwrap();
        assert_ne!(before, after);
        write("a.safetensors", "c");
        assert_ne!(weights_digest(folder.path()).unwrap(), after);
    }

    #[test]
    fn an_index_cannot_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../secret", "/etc/passwd", "a/b", ".."] {
            let index = serde_json::json!({"weight_map": {"x": name}}).to_string();
            std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
            assert!(matches!(weight_files(folder.path()), Err(ModelError::Unsupported(_))), "{name}");
        }
    }
}
