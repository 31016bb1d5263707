//! Configuration: one TOML file, every field overridable by environment (`STARLING_MLNODE__LIMITS__REQUESTS_MAX=4`).

use crate::{
    device::DeviceChoice, engine::EngineLimits, loader::LoadSpec, model::Precision, pace::PaceLimits,
    source::Resources,
};
use figment::{
    providers::{Env, Format, Toml},
    Figment,
};
use serde::Deserialize;
use starling_primitives::{profile::MAX_K, H256};
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

/// Prefix of the environment variables; fields of a table follow after `__`.
pub const ENV_PREFIX: &str = "STARLING_MLNODE__";
/// Characters of a token at least.
const TOKEN_MIN: usize = 16;

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads of the engine's arithmetic; 0 (the default) means one per core.
    #[serde(default)]
    pub threads: u32,
    /// Where models run: `auto` (the default: the first CUDA device where there is one, else the processor), `cpu`, or `cuda:N`.
    #[serde(default)]
    pub device: DeviceChoice,
    /// What they compute with: `f32` (the default) or `stored`, as wide as the checkpoint's weights; it must give the class that
    /// the profile names. On the processor f16 is computed in f32.
    #[serde(default)]
    pub precision: Precision,
    /// libtorch's CUDA library, or its folder; when absent, `libtorch_cuda.so` beside the libtorch that the program is linked
    /// with. Relative to the config file.
    #[serde(default)]
    pub cuda_library: Option<PathBuf>,
    /// File whose trimmed content is the bearer token of both ports, at least 16 characters. Relative to the config file.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The bearer token itself: only by environment (`STARLING_MLNODE__TOKEN`), never in the file.
    #[serde(skip)]
    pub token: Option<Secret>,
    /// Folder below which `POST /api/v1/models/load` may load models. Without it only `[model]` is served. Relative to
    /// the config file.
    #[serde(default)]
    pub models_dir: Option<PathBuf>,
    /// The port that hosts send requests to.
    #[serde(default = "Port::inference")]
    pub inference: Port,
    /// The port for state, models, verification and sprints.
    #[serde(default = "Port::management")]
    pub management: Port,
    /// The model to load at the start; none when absent.
    #[serde(default)]
    pub model: Option<Model>,
    /// Run models with vLLM instead of the engine's own kernels; `device` and `precision` mean nothing then.
    #[serde(default)]
    pub vllm: Option<Vllm>,
    /// How much the node takes on.
    #[serde(default)]
    pub limits: Limits,
    /// What is logged, and how.
    #[serde(default)]
    pub log: Log,
}

/// A port to listen on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Address and port. Defaults: 127.0.0.1:5050 for inference, 127.0.0.1:8080 for management. Port 0 takes a free one.
    pub listen: SocketAddr,
}

/// The model to load at the start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name to serve it under: the profile's.
    pub name: String,
    /// The Hugging Face folder. Relative to the config file.
    pub folder: PathBuf,
    /// Candidates per token, 1 to 20 (the default): the profile's K.
    #[serde(default = "default_top_k")]
    pub top_k: u8,
    /// Tokens of prompt and completion at most; 0 (the default) means as many as the model was made for.
    #[serde(default)]
    pub max_context: u32,
    /// Refuse to start with weights of another digest (`starling-mlnode digest FOLDER`).
    #[serde(default)]
    pub weights_digest: Option<H256>,
}

/// A vLLM server, to be started (`python`) or attached to (`url` and `socket`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vllm {
    /// Python interpreter of the environment that vLLM is installed in: the node starts a server with it, starts it again when it
    /// ends or writes no tokens, and ends it when the model is unloaded. A path with a slash is relative to the config file.
    #[serde(default)]
    pub python: Option<PathBuf>,
    /// Further arguments of the server, such as `["--dtype", "bfloat16", "--tensor-parallel-size", "8"]`.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Further environment variables of the server.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Base URL of a server that somebody else started, such as `http://127.0.0.1:8000`.
    #[serde(default)]
    pub url: Option<String>,
    /// Where the sampler in that server finds this node: the path of a Unix socket, which the node makes; the server has it as
    /// `STARLING_SAMPLER`. Relative to the config file.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// File whose trimmed content is that server's API key. Relative to the config file.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// Seconds that a server may take from its start to its first token (default 1800).
    #[serde(default = "Vllm::start_seconds")]
    pub start_seconds: u32,
    /// Seconds without a token, while some are asked for, after which a server has to prove that it still writes any
    /// (default 60); it has as long for that.
    #[serde(default = "Vllm::stalled_seconds")]
    pub stalled_seconds: u32,
}

/// How much the node takes on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests running at once (default 16); one more is answered 429.
    pub requests_max: u32,
    /// Tokens for whose keys and values there is room, all sequences together (default 65536). Each costs
    /// `2 x layers x key heads x head width x 4` bytes (x 2 with 16-bit weights on CUDA, where all of it is taken when the
    /// model is loaded). A quarter is closed to verification and sprints.
    pub kv_tokens: u32,
    /// Tokens that one engine step may always take (default 128): smaller means smoother streams on a slow machine, larger means
    /// faster prompts. At least `requests_max`.
    pub step_tokens: u32,
    /// Tokens that a step may take where the model is fast enough (default 512). At least `step_tokens`.
    pub step_tokens_max: u32,
    /// Time that such a step should take, in ms (default 100); eight times as long while prompts are taken in and nobody streams.
    pub step_ms: u64,
    /// Tokens of verification and sprint work in a step beside requests (default 32).
    pub background_tokens: u32,
    /// Sprint nonces decoded at once (default 32).
    pub sprint_batch: u32,
    /// Transcripts verified at once (default 4).
    pub verify_batch: u32,
    /// Tokens whose keys and values are kept when their sequence has ended, for others that begin alike (default 8192;
    /// 0 keeps nothing). Their memory comes on top of `kv_tokens`.
    pub prefix_tokens: u32,
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `tracing` filter (default `info`), such as `info,starling_mlnode=debug`.
    pub filter: String,
    /// One JSON object per line (default: text).
    pub json: bool,
}

/// A secret; never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

fn default_top_k() -> u8 {
    MAX_K
}

impl Vllm {
    fn start_seconds() -> u32 {
        1_800
    }

    fn stalled_seconds() -> u32 {
        60
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |field, reason: String| Err(ConfigError::Value { field, reason });
        match (&self.python, &self.url) {
            (Some(_), None) | (None, Some(_)) => {}
            _ => {
                return fail(
                    "vllm",
                    "it needs either python, to start a server, or url, to attach to one".into(),
                )
            }
        }
        if let Some(python) = self.python.as_ref().filter(|path| path.components().count() > 1) {
            if !python.is_file() {
                return fail("vllm.python", format!("there is no file {}", python.display()));
            }
        }
        let attached =
            [("vllm.socket", self.socket.is_some()), ("vllm.api_key_file", self.api_key_file.is_some())];
        if self.url.is_none() {
            if let Some((field, _)) = attached.into_iter().find(|(_, set)| *set) {
                return fail(field, "it is for servers that are attached to with url".into());
            }
        } else if self.socket.is_none() {
            return fail("vllm.socket", "it is missing: the server's sampler finds this node there".into());
        } else if !self.arguments.is_empty() || !self.environment.is_empty() {
            return fail("vllm.arguments", "a server that is attached to has its own".into());
        }
        if self.url.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return fail("vllm.url", "it must begin with http:// or https://".into());
        }
        let own = |argument: &&String| {
            let name = argument.split('=').next().unwrap_or_default().replace('_', "-");
            OWN_ARGUMENTS.contains(&name.as_str())
        };
        if let Some(argument) = self.arguments.iter().find(own) {
            return fail("vllm.arguments", format!("{argument} is the node's to set"));
        }
        if let Some(name) = self.environment.keys().find(|name| OWN_VARIABLES.contains(&name.as_str())) {
            return fail("vllm.environment", format!("{name} is the node's to set"));
        }
        if self.start_seconds == 0 || self.stalled_seconds == 0 {
            return fail("vllm", "start_seconds and stalled_seconds must be at least 1".into());
        }
        Ok(())
    }

    /// The attached server's key.
    pub fn api_key(&self) -> Result<Option<Secret>, ConfigError> {
        let Some(path) = &self.api_key_file else { return Ok(None) };
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| ConfigError::TokenFile { path: path.clone(), source })?;
        Ok(Some(Secret::new(text.trim())))
    }
}

/// Arguments of a vLLM server that the node sets, and those that would take the sampler's place.
const OWN_ARGUMENTS: &[&str] = &[
    "--model",
    "--served-model-name",
    "--host",
    "--port",
    "--uds",
    "--api-key",
    "--max-model-len",
    "--max-logprobs",
    "--logits-processors",
    "--generation-config",
    "--speculative-config",
    "--logprobs-mode",
];
/// The same for its environment.
const OWN_VARIABLES: &[&str] = &[
    "PYTHONPATH",
    "STARLING_SAMPLER",
    "VLLM_USE_V2_MODEL_RUNNER",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
    "VLLM_API_KEY",
];

impl Port {
    fn inference() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 5050)) }
    }

    fn management() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_max: 16,
            kv_tokens: 65_536,
            step_tokens: 128,
            step_tokens_max: 512,
            step_ms: 100,
            background_tokens: 32,
            sprint_batch: 32,
            verify_batch: 4,
            prefix_tokens: 8_192,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), json: false }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is missing.
    #[error("there is no file {}", .0.display())]
    NoFile(PathBuf),
    /// A field is unknown, missing or of another type.
    #[error("the configuration is not usable")]
    Parse(#[source] Box<figment::Error>),
    /// The token stands in the file.
    #[error("the token must not stand in the configuration file: use token_file or {ENV_PREFIX}TOKEN")]
    TokenInFile,
    /// There is no token.
    #[error("no token: set token_file or {ENV_PREFIX}TOKEN")]
    NoToken,
    /// The token's file cannot be read.
    #[error("cannot read the token file {}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The token is too short.
    #[error("the token is shorter than {TOKEN_MIN} characters")]
    ShortToken,
    /// A value is out of range.
    #[error("{field}: {reason}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Config {
    /// Reads file and environment, resolves relative paths and the token, and checks everything that can be checked
    /// without loading the model.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        if !path.is_file() {
            return Err(ConfigError::NoFile(path.into()));
        }
        let file = Figment::from(Toml::file_exact(path));
        if file.contains("token") {
            return Err(ConfigError::TokenInFile);
        }
        let mut config: Self = file
            .merge(Env::prefixed(ENV_PREFIX).ignore(&["token"]).split("__"))
            .extract()
            .map_err(|error| ConfigError::Parse(Box::new(error)))?;
        let base = path.parent().unwrap_or(Path::new("."));
        config.resolve_paths(base);
        config.resolve_token()?;
        config.check()?;
        Ok(config)
    }

    fn resolve_paths(&mut self, base: &Path) {
        let paths = [
            self.token_file.as_mut(),
            self.models_dir.as_mut(),
            self.cuda_library.as_mut(),
            self.model.as_mut().map(|m| &mut m.folder),
        ];
        for path in paths.into_iter().flatten() {
            *path = base.join(&path);
        }
        if let Some(vllm) = &mut self.vllm {
            // A name alone is looked up in PATH.
            let python = vllm.python.as_mut().filter(|path| path.components().count() > 1);
            for path in [python, vllm.socket.as_mut(), vllm.api_key_file.as_mut()].into_iter().flatten() {
                *path = base.join(&path);
            }
        }
    }

    /// The environment wins. It is read as it is: a parser would take a token of digits for a number.
    fn resolve_token(&mut self) -> Result<(), ConfigError> {
        self.token = std::env::var(format!("{ENV_PREFIX}TOKEN")).ok().map(Secret);
        if self.token.is_none() {
            let path = self.token_file.clone().ok_or(ConfigError::NoToken)?;
            let text =
                std::fs::read_to_string(&path).map_err(|source| ConfigError::TokenFile { path, source })?;
            self.token = Some(Secret(text.trim().into()));
        }
        match &self.token {
            Some(token) if token.0.len() >= TOKEN_MIN => Ok(()),
            _ => Err(ConfigError::ShortToken),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |field, reason: &str| Err(ConfigError::Value { field, reason: reason.into() });
        let limits = &self.limits;
        let positive = [
            ("limits.requests_max", limits.requests_max),
            ("limits.kv_tokens", limits.kv_tokens),
            ("limits.background_tokens", limits.background_tokens),
            ("limits.sprint_batch", limits.sprint_batch),
            ("limits.verify_batch", limits.verify_batch),
        ];
        for (field, value) in positive {
            if value == 0 {
                return fail(field, "it must be at least 1");
            }
        }
        if limits.step_tokens < limits.requests_max {
            return fail("limits.step_tokens", "it must be at least limits.requests_max");
        }
        if limits.step_tokens_max < limits.step_tokens {
            return fail("limits.step_tokens_max", "it must be at least limits.step_tokens");
        }
        if let Some(model) = &self.model {
            if !(1..=MAX_K).contains(&model.top_k) {
                return fail("model.top_k", "it must be 1 to 20");
            }
            if model.name.is_empty() || model.name.contains('/') {
                return fail("model.name", "it must not be empty or contain a slash");
            }
            if !model.folder.join("config.json").is_file() {
                return fail("model.folder", "there is no config.json in it");
            }
        }
        if let Some(vllm) = &self.vllm {
            vllm.check()?;
            vllm.api_key()?;
        }
        if self.models_dir.as_ref().is_some_and(|folder| !folder.is_dir()) {
            return fail("models_dir", "it is not a folder");
        }
        Ok(())
    }

    /// The threads to use.
    pub fn thread_count(&self) -> u32 {
        if self.threads > 0 {
            return self.threads;
        }
        thread_per_core()
    }

    /// What the engine takes on.
    pub fn engine_limits(&self) -> EngineLimits {
        let limits = &self.limits;
        EngineLimits {
            requests_max: limits.requests_max,
            kv_tokens: limits.kv_tokens,
            steps: PaceLimits {
                least: limits.step_tokens,
                most: limits.step_tokens_max,
                time: Duration::from_millis(limits.step_ms),
            },
            background_tokens: limits.background_tokens,
            sprint_batch: limits.sprint_batch,
            verify_batch: limits.verify_batch,
            resources: Resources { threads: self.thread_count(), prefix_tokens: limits.prefix_tokens },
        }
    }

    /// What to load at the start.
    pub fn load_spec(&self) -> Option<LoadSpec> {
        let model = self.model.as_ref()?;
        Some(LoadSpec {
            name: model.name.clone(),
            folder: model.folder.clone(),
            top_k: model.top_k,
            max_context: context(model.max_context),
            weights_digest: model.weights_digest,
        })
    }
}

/// As many threads as there are cores.
pub fn thread_per_core() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

/// A context limit where 0 means none.
fn context(tokens: u32) -> u32 {
    if tokens == 0 {
        u32::MAX
    } else {
        tokens
    }
}

/// A folder below `models_dir`, if the name does not lead out of it.
pub fn folder_below(models_dir: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
    (inside && name.components().next().is_some()).then(|| models_dir.join(name))
}

/// Entries of a model folder that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// Whether a folder and what lies in it stay below `models_dir` when symbolic links are followed: whoever may fill the
/// folder must not choose what else the node reads. Links that lead nowhere harm nobody.
pub fn stays_below(models_dir: &Path, folder: &Path) -> std::io::Result<bool> {
    let root = models_dir.canonicalize()?;
    if !folder.canonicalize()?.starts_with(&root) {
        return Ok(false);
    }
    for (count, entry) in std::fs::read_dir(folder)?.enumerate() {
        let leaves = entry?.path().canonicalize().is_ok_and(|path| !path.starts_with(&root));
        if leaves || count >= ENTRIES_MAX {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("model")).unwrap();
        std::fs::write(folder.path().join("model/config.json"), "{}").unwrap();
        std::fs::write(folder.path().join("token"), "0123456789abcdef\n").unwrap();
        std::fs::write(folder.path().join("short"), "0123").unwrap();
        let path = folder.path().join("mlnode.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn defaults_need_only_a_token() {
        let config = check("token_file = \"token\"").unwrap();
        assert_eq!(config.token.as_ref().unwrap().expose(), "0123456789abcdef");
        assert_eq!(config.inference.listen.port(), 5050);
        assert_eq!(config.management.listen.port(), 8080);
        assert!(config.load_spec().is_none());
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn the_example_is_complete_and_loads() {
        let text = include_str!("../mlnode.example.toml").replace("demo-model", "model");
        let config = check(&text).unwrap();
        assert_eq!(config.load_spec().unwrap().top_k, 20);
        for field in [
            "threads",
            "device",
            "precision",
            "cuda_library",
            "token_file",
            "models_dir",
            "[inference]",
            "[management]",
            "[model]",
            "name",
            "folder",
            "top_k",
            "max_context",
            "weights_digest",
            "[vllm]",
            "python",
            "arguments",
            "environment",
            "url",
            "socket",
            "api_key_file",
            "start_seconds",
            "stalled_seconds",
            "[limits]",
            "requests_max",
            "kv_tokens",
            "step_tokens",
            "step_tokens_max",
            "step_ms",
            "background_tokens",
            "sprint_batch",
            "verify_batch",
            "prefix_tokens",
            "[log]",
            "filter",
            "json",
        ] {
            assert!(text.contains(field), "{field}");
        }
    }

    #[test]
    fn mistakes_are_refused() {
        let bad = [
            "",
            "token = \"0123456789abcdef\"",
            "token_file = \"short\"",
            "token_file = \"missing\"",
            "token_file = \"token\"\nunknown = 1",
            "token_file = \"token\"\ndevice = \"gpu\"",
            "token_file = \"token\"\nprecision = \"int8\"",
            "token_file = \"token\"\n[limits]\nrequests_max = 0",
            "token_file = \"token\"\n[limits]\nrequests_max = 300",
            "token_file = \"token\"\n[model]\nname = \"m\"\nfolder = \"nowhere\"",
            "token_file = \"token\"\n[model]\nname = \"a/b\"\nfolder = \"model\"",
            "token_file = \"token\"\n[model]\nname = \"m\"\nfolder = \"model\"\ntop_k = 21",
            "token_file = \"token\"\nmodels_dir = \"nowhere\"",
        ];
        for text in bad {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_vllm_server_is_started_or_attached_to() {
        let with = |lines: &str| check(&format!("token_file = \"token\"\n[vllm]\n{lines}"));
        let vllm =
            with("python = \"python3\"\narguments = [\"--dtype\", \"bfloat16\"]").unwrap().vllm.unwrap();
        assert_eq!((vllm.python, vllm.start_seconds), (Some("python3".into()), 1_800));
        let attached = "url = \"http://127.0.0.1:8000\"\nsocket = \"sampler.sock\"\napi_key_file = \"token\"";
        let vllm = with(attached).unwrap().vllm.unwrap();
        assert!(vllm.socket.as_ref().unwrap().is_absolute());
        // Loading has read it; by now its folder is gone.
        assert!(vllm.api_key_file.as_ref().unwrap().is_absolute());
        for (lines, reason) in [
            ("", "either python"),
            ("python = \"python3\"\nurl = \"http://x\"\nsocket = \"s\"", "either python"),
            ("python = \"./nowhere/python\"", "there is no file"),
            ("python = \"python3\"\nsocket = \"s\"", "vllm.socket"),
            ("url = \"http://x\"", "vllm.socket: it is missing"),
            ("url = \"x\"\nsocket = \"s\"", "must begin with"),
            ("url = \"http://x\"\nsocket = \"s\"\narguments = [\"-v\"]", "has its own"),
            ("url = \"http://x\"\nsocket = \"s\"\napi_key_file = \"missing\"", "missing"),
            ("python = \"python3\"\narguments = [\"--max_model_len=9\"]", "--max_model_len=9 is the node's"),
            ("python = \"python3\"\nenvironment = { PYTHONPATH = \"x\" }", "PYTHONPATH is the node's"),
            ("python = \"python3\"\nstalled_seconds = 0", "at least 1"),
        ] {
            let error = with(lines).unwrap_err().to_string();
            assert!(error.contains(reason), "{lines}: {error}");
        }
    }

    #[test]
    fn links_cannot_lead_out_of_the_models_folder() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let models = root.path().join("models");
        std::fs::create_dir_all(models.join("good")).unwrap();
        std::fs::create_dir_all(models.join("blobs")).unwrap();
        std::fs::write(root.path().join("secret"), "x").unwrap();
        std::fs::write(models.join("blobs/weights"), "x").unwrap();
        // As the Hugging Face cache has it.
        symlink("../blobs/weights", models.join("good/model.safetensors")).unwrap();
        symlink("nowhere", models.join("good/dangling")).unwrap();
        let below = |name: &str| stays_below(&models, &models.join(name)).ok();
        assert_eq!(below("good"), Some(true));
        symlink("../../secret", models.join("good/config.json")).unwrap();
        assert_eq!(below("good"), Some(false));
        symlink("..", models.join("up")).unwrap();
        assert_eq!(below("up"), Some(false));
        assert_eq!(below("missing"), None);
    }

    #[test]
    fn a_model_name_cannot_lead_out_of_the_models_folder() {
        let below = |name| folder_below(Path::new("/models"), name);
        assert_eq!(below("a/b"), Some("/models/a/b".into()));
        for name in ["", "..", "../x", "a/../../x", "/etc", "."] {
            assert_eq!(below(name), None, "{name}");
        }
    }
}
