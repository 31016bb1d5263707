//! Tokenizer, chat template and defaults of a model as one value.

use serde::{de::DeserializeOwned, Deserialize, Serialize};
use serde_json::Value;
use starling_primitives::{hashing::hash_of, H256};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Largest file that is read from a model folder. The largest tokenizers in use have about 33 MB.
const MAX_FILE_BYTES: u64 = 128 << 20;

/// Everything that turns a chat request into tokens and tokens into text.
///
/// Served by hosts to clients, who check [`TokenizerBundle::digest`] against the profile on chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerBundle {
    /// Text of `tokenizer.json`.
    pub tokenizer_json: String,
    /// The Jinja chat template.
    pub chat_template: String,
    /// Beginning-of-sequence token, a variable of the template.
    pub bos_token: Option<String>,
    /// End-of-sequence token, a variable of the template.
    pub eos_token: Option<String>,
    /// Padding token, a variable of the template.
    pub pad_token: Option<String>,
    /// Token of the unknown, a variable of the template.
    pub unk_token: Option<String>,
    /// Tokens that end a generation, ascending.
    pub eos_token_ids: Vec<u32>,
    /// Sampling where a request says nothing.
    pub defaults: GenerationDefaults,
}

/// Sampling parameters that the model's authors recommend (`generation_config.json`), as integers like in
/// [`starling_primitives::request::SamplingParams`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationDefaults {
    /// In 1/1000; 1000 when absent.
    pub temperature_milli: Option<u16>,
    /// In 1/10000; 10000 when absent.
    pub top_p: Option<u16>,
    /// In 1/10000; 0 when absent.
    pub min_p: Option<u16>,
    /// The profile's K when absent.
    pub top_k: Option<u8>,
}

/// Why a model folder gave no bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file is missing or cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not the JSON that it should be.
    #[error("cannot parse {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A file is larger than any real one.
    #[error("{path} has {bytes} bytes, more than is allowed")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The model cannot chat.
    #[error(
        "{folder} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)"
    )]
    NoChatTemplate {
        /// The model folder.
        folder: PathBuf,
    },
}

impl TokenizerBundle {
    /// Reads a Hugging Face model folder: `tokenizer.json` and a chat template, and, where they exist,
    /// `tokenizer_config.json`, `generation_config.json` and `config.json`.
    pub fn load_from_folder(folder: &Path) -> Result<Self, BundleError> {
        let tokenizer_json = read_text(&folder.join("tokenizer.json"))?;
        let config: TokenizerConfig = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let generation: Option<GenerationConfig> = read_json(&folder.join("generation_config.json"))?;
        let model: ModelConfig = read_json(&folder.join("config.json"))?.unwrap_or_default();
        let chat_template = match read_optional(&folder.join("chat_template.jinja"))? {
            Some(template) => template,
            None => config
                .chat_template
                .as_ref()
                .and_then(default_template)
                .ok_or_else(|| BundleError::NoChatTemplate { folder: folder.into() })?,
        };
        let generation = generation.unwrap_or_default();
        let mut eos_token_ids = generation
            .eos_token_id
            .as_ref()
            .or(model.eos_token_id.as_ref())
            .map(token_ids)
            .unwrap_or_default();
        let eos_token = config.eos_token.as_ref().and_then(token_text);
        eos_token_ids.extend(eos_token.as_deref().and_then(|token| added_token_id(&tokenizer_json, token)));
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        Ok(Self {
            tokenizer_json,
            chat_template,
            bos_token: config.bos_token.as_ref().and_then(token_text),
            eos_token,
            pad_token: config.pad_token.as_ref().and_then(token_text),
            unk_token: config.unk_token.as_ref().and_then(token_text),
            eos_token_ids,
            defaults: generation.defaults(),
        })
    }

    /// Digest over every field: what `Profile::tokenizer_digest` is.
    ///
    /// `blake2_256("starling/tokenizer" ++ SCALE(fields in the order of their declaration))`.
    pub fn digest(&self) -> H256 {
        let GenerationDefaults { temperature_milli, top_p, min_p, top_k } = self.defaults;
        hash_of(
            b"starling/tokenizer",
            &(
                self.tokenizer_json.as_bytes(),
                self.chat_template.as_bytes(),
                (&self.bos_token, &self.eos_token, &self.pad_token, &self.unk_token),
                &self.eos_token_ids,
                (temperature_milli, top_p, min_p, top_k),
            ),
        )
    }
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    chat_template: Option<Value>,
    #[serde(default)]
    bos_token: Option<Value>,
    #[serde(default)]
    eos_token: Option<Value>,
    #[serde(default)]
    pad_token: Option<Value>,
    #[serde(default)]
    unk_token: Option<Value>,
}

#[derive(Default, Deserialize)]
struct ModelConfig {
    #[serde(default)]
    eos_token_id: Option<Value>,
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    #[serde(default)]
    eos_token_id: Option<Value>,
    #[serde(default)]
    do_sample: Option<bool>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    min_p: Option<f64>,
    #[serde(default)]
    top_k: Option<i64>,
}

impl GenerationConfig {
    /// Values outside their range are left out: they are recommendations, and clients may always give their own.
    fn defaults(&self) -> GenerationDefaults {
        if self.do_sample == Some(false) {
            return GenerationDefaults { temperature_milli: Some(0), ..GenerationDefaults::default() };
        }
        let scaled = |v: Option<f64>, scale: f64, max: f64| {
            v.filter(|v| (0.0..=max).contains(v)).map(|v| (v * scale).round() as u16)
        };
        GenerationDefaults {
            temperature_milli: scaled(self.temperature, 1_000.0, 2.0),
            top_p: scaled(self.top_p, 10_000.0, 1.0).map(|p| p.max(1)),
            min_p: scaled(self.min_p, 10_000.0, 1.0),
            top_k: self.top_k.and_then(|k| u8::try_from(k).ok()).filter(|k| *k > 0),
        }
    }
}

/// The template itself, or the one named `default` of several.
fn default_template(value: &Value) -> Option<String> {
    match value {
        Value::String(template) => Some(template.clone()),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template"))
            .and_then(Value::as_str)
            .map(Into::into),
        _ => None,
    }
}

/// A special token is written as text or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str)).map(Into::into)
}

/// One id or a list of them.
fn token_ids(value: &Value) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}

fn added_token_id(tokenizer_json: &str, token: &str) -> Option<u32> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    #[derive(Deserialize)]
    struct Added {
        id: u32,
        content: String,
    }
    let file: File = serde_json::from_str(tokenizer_json).ok()?;
    file.added_tokens.into_iter().find(|added| added.content == token).map(|added| added.id)
}

fn read_text(path: &Path) -> Result<String, BundleError> {
    let failed = |source| BundleError::Read { path: path.into(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        // A pipe or a device may have no end, or keep whoever opens it waiting for ever.
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let bytes = metadata.len();
    if bytes > MAX_FILE_BYTES {
        return Err(BundleError::TooLarge { path: path.into(), bytes });
    }
    fs::read_to_string(path).map_err(failed)
}

fn read_optional(path: &Path) -> Result<Option<String>, BundleError> {
    match read_text(path) {
        Err(BundleError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, BundleError> {
    read_optional(path)?
        .map(|text| {
            serde_json::from_str(&text).map_err(|source| BundleError::Parse { path: path.into(), source })
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_read_whole() {
        let bundle = test_support::bundle();
        let folder = folder_with(&[
            ("tokenizer.json", &bundle.tokenizer_json),
            ("chat_template.jinja", &bundle.chat_template),
            (
                "tokenizer_config.json",
                r#"{"eos_token": {"content": "<|im_end|>"}, "bos_token": null, "chat_template": "no"}"#,
            ),
            (
                "generation_config.json",
                r#"{"eos_token_id": [257, 256], "temperature": 0.7, "top_p": 0.95, "top_k": 20, "min_p": 3.0}"#,
            ),
        ]);
        let loaded = TokenizerBundle::load_from_folder(folder.path()).unwrap();
        assert_eq!(loaded.chat_template, bundle.chat_template);
        assert_eq!(loaded.eos_token.as_deref(), Some("<|im_end|>"));
        assert_eq!(loaded.eos_token_ids, [256, 257, 258]);
        let expected = GenerationDefaults {
            temperature_milli: Some(700),
            top_p: Some(9_500),
            min_p: None,
            top_k: Some(20),
        };
        assert_eq!(loaded.defaults, expected);
    }

    #[test]
    fn eos_falls_back_to_the_model_config_and_the_template_to_the_tokenizer_config() {
        let bundle = test_support::bundle();
        let folder = folder_with(&[
            ("tokenizer.json", &bundle.tokenizer_json),
            (
                "tokenizer_config.json",
                r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#,
            ),
            ("config.json", r#"{"eos_token_id": 7}"#),
        ]);
        let loaded = TokenizerBundle::load_from_folder(folder.path()).unwrap();
        assert_eq!((loaded.chat_template.as_str(), loaded.eos_token_ids.as_slice()), ("d", &[7][..]));
    }

    #[test]
    fn missing_and_broken_files_are_errors() {
        let empty = folder_with(&[]);
        assert!(matches!(TokenizerBundle::load_from_folder(empty.path()), Err(BundleError::Read { .. })));
        let no_template = folder_with(&[("tokenizer.json", "{}")]);
        let error = TokenizerBundle::load_from_folder(no_template.path());
        assert!(matches!(error, Err(BundleError::NoChatTemplate { .. })));
        let broken = folder_with(&[("tokenizer.json", "{}"), ("config.json", "{")]);
        assert!(matches!(TokenizerBundle::load_from_folder(broken.path()), Err(BundleError::Parse { .. })));
    }

    #[test]
    fn the_digest_covers_every_field() {
        let base = test_support::bundle();
        let mut variants = vec![base.clone()];
        let mut vary = |change: fn(&mut TokenizerBundle)| {
            let mut bundle = base.clone();
            change(&mut bundle);
            variants.push(bundle);
        };
        vary(|b| b.tokenizer_json.push(' '));
        vary(|b| b.chat_template.push(' '));
        vary(|b| b.bos_token = Some("b".into()));
        vary(|b| b.eos_token = None);
        vary(|b| b.pad_token = Some("b".into()));
        vary(|b| b.unk_token = Some("b".into()));
        vary(|b| b.eos_token_ids.push(9));
        vary(|b| b.defaults.temperature_milli = Some(1));
        vary(|b| b.defaults.top_p = Some(1));
        vary(|b| b.defaults.min_p = Some(1));
        vary(|b| b.defaults.top_k = Some(1));
        let mut digests: Vec<_> = variants.iter().map(TokenizerBundle::digest).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), variants.len());
    }

    #[test]
    fn json_keeps_the_digest() {
        let bundle = test_support::bundle();
        let json = serde_json::to_string(&bundle).unwrap();
        let back: TokenizerBundle = serde_json::from_str(&json).unwrap();
        assert_eq!(back.digest(), bundle.digest());
    }
}
