//! Configuration: one TOML file, every field overridable by environment, secrets only by file or environment.
//!
//! A field `x` of section `[s]` is overridden by `STARLING_HOST__S__X`. Unknown fields are refused, so a typing
//! error never becomes a silently ignored setting. `config.sample.toml` shows every field with its default.

mod secret;

pub use secret::Secret;

use figment::{
    providers::{Env, Format, Toml},
    Figment,
};
use serde::{Deserialize, Serialize};
use starling_primitives::AccountId;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Prefix of the environment variables that override fields.
pub const ENV_PREFIX: &str = "STARLING_HOST__";

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not a configuration.
    #[error("invalid configuration: {0}")]
    Invalid(Box<figment::Error>),
    /// A secret stands in the file itself.
    #[error("`{field}` is a secret: give it by `{field}_file` or by the environment variable {variable}")]
    SecretInFile {
        /// The field.
        field: &'static str,
        /// What to set instead.
        variable: String,
    },
    /// A secret is neither given by file nor by environment.
    #[error("`{field}` is missing: give `{field}_file` or the environment variable {variable}")]
    SecretMissing {
        /// The field.
        field: &'static str,
        /// What to set.
        variable: String,
    },
    /// A value is outside its documented range.
    #[error("`{field}`: {reason}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Everything that the operator of a host decides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this host is.
    pub host: HostConfig,
    /// Its secret keys.
    #[serde(default)]
    pub keys: KeysConfig,
    /// The node it reads the chain from.
    #[serde(default)]
    pub chain: ChainConfig,
    /// Public HTTP.
    #[serde(default)]
    pub gateway: GatewayConfig,
    /// libp2p between hosts.
    #[serde(default)]
    pub peer: PeerConfig,
    /// ML nodes.
    #[serde(default)]
    pub fleet: FleetConfig,
    /// The operator's HTTP.
    #[serde(default)]
    pub admin: AdminConfig,
    /// What the clock asks of a host.
    #[serde(default)]
    pub duties: DutiesConfig,
    /// Bad answers on purpose, by which verifiers show whether they look.
    #[serde(default)]
    pub plants: PlantsConfig,
    /// Logging of the stand-alone binary.
    #[serde(default)]
    pub log: LogConfig,
}

/// `[host]`: who this host is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Account of the host as SS58 address. Its key is *not* needed here: it stays cold.
    pub account: AccountId,
    /// Folder for everything that must survive a restart: payloads, transcripts, outbox, registry of ML nodes.
    pub data_dir: PathBuf,
}

/// `[keys]`: secret keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// File with the sr25519 worker key that the account granted: a secret URI (`//Alice//worker`, a phrase, or a
    /// `0x` seed of 32 bytes).
    pub worker_file: Option<PathBuf>,
    /// The worker key itself; by environment only.
    pub worker: Option<Secret>,
    /// File with the ed25519 seed (hex, 32 bytes) of the libp2p identity. Default: `peer.key` in the data folder,
    /// made at the first start.
    pub peer_file: Option<PathBuf>,
    /// The ed25519 seed itself (hex); by environment only.
    pub peer: Option<Secret>,
    /// File with the sr25519 key (secret URI) that accounts delegate spending to, for requests with an API key.
    /// Default: `delegate.key` in the data folder, made at the first start.
    pub delegate_file: Option<PathBuf>,
    /// The delegate key itself; by environment only.
    pub delegate: Option<Secret>,
}

/// `[chain]`: the node to read from and submit to.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainConfig {
    /// WebSocket URL of the node's RPC.
    pub url: String,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self { url: "ws://127.0.0.1:9944".into() }
    }
}

/// `[gateway]`: public HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// URL under which clients reach it; published on chain. Empty: the host takes no requests of clients.
    pub public_url: String,
    /// Requests in flight at most; more are answered 429.
    pub max_in_flight: usize,
    /// Size of a request's body at most, in bytes.
    pub max_body_bytes: usize,
    /// Time from the request to the first token, over all attempts, in ms; then 504.
    pub first_token_timeout_ms: u64,
    /// Time between two tokens at most, in ms; then the stream ends with an error.
    pub token_timeout_ms: u64,
    /// Executors tried before the first token at most, 1..=8.
    pub max_attempts: u8,
    /// Blocks for which an authorization signed for an API key stays valid.
    pub authorization_blocks: u32,
    /// Events between the peer's stream and a client that reads slowly, per request.
    pub stream_buffer: usize,
    /// Origins allowed to call from a browser (`*` for all). Empty: none.
    pub cors_origins: Vec<String>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8000)),
            public_url: String::new(),
            max_in_flight: 256,
            max_body_bytes: 2 << 20,
            first_token_timeout_ms: 120_000,
            token_timeout_ms: 60_000,
            max_attempts: 4,
            authorization_blocks: 20,
            stream_buffer: 64,
            cors_origins: Vec::new(),
        }
    }
}

/// `[peer]`: libp2p between hosts.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerConfig {
    /// Multiaddrs to listen on.
    pub listen: Vec<String>,
    /// Multiaddrs under which other hosts reach this one; published on chain. Empty: those that were bound, when
    /// they name an address (not 0.0.0.0).
    pub public_addresses: Vec<String>,
    /// Time to connect and open a stream, in ms.
    pub connect_timeout_ms: u64,
    /// Time for a whole exchange that is no token stream (transcripts, sprint leaves), in ms.
    pub exchange_timeout_ms: u64,
    /// Streams served at the same time for one peer at most.
    pub max_streams_per_peer: usize,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            listen: vec!["/ip4/0.0.0.0/tcp/4001".into()],
            public_addresses: Vec::new(),
            connect_timeout_ms: 3_000,
            exchange_timeout_ms: 20_000,
            max_streams_per_peer: 256,
        }
    }
}

/// `[fleet]`: ML nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetConfig {
    /// File with the bearer token of the ML nodes.
    pub token_file: Option<PathBuf>,
    /// The token itself; by environment only.
    pub token: Option<Secret>,
    /// Time between two health checks of an ML node, in ms.
    pub health_interval_ms: u64,
    /// Time a health check may take, in ms.
    pub health_timeout_ms: u64,
    /// Nonces that an ML node takes from the sprint's queue at a time.
    pub sprint_chunk: u32,
    /// Whether a node whose model has other digests than the chain's profile of that name is kept from serving.
    /// Off is for tests only: what such a node answers gets its host convicted.
    pub check_digests: bool,
    /// ML nodes known from the start. They are merged into the registry by id; those added over HTTP stay.
    pub nodes: Vec<NodeSpec>,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            token_file: None,
            token: None,
            health_interval_ms: 2_000,
            health_timeout_ms: 10_000,
            sprint_chunk: 16,
            check_digests: true,
            nodes: Vec::new(),
        }
    }
}

/// An ML node as the operator registers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Name chosen by the operator, unique within the host.
    pub id: String,
    /// Host name or IP address.
    pub host: String,
    /// Port of the inference API.
    pub inference_port: u16,
    /// Port of the management API: state, sprint, verification.
    pub poc_port: u16,
    /// Requests at the same time at most.
    pub max_concurrent: u32,
    /// Models it serves, by profile name.
    pub models: BTreeMap<String, ModelSpec>,
}

/// How an ML node is to run one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSpec {
    /// Arguments for loading it into an empty node: `--folder=NAME` (or just the name) below the node's folder of
    /// models, `--top-k=N`.
    pub args: Vec<String>,
}

/// `[admin]`: the operator's HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address to listen on. Loopback unless you know why not.
    pub listen: SocketAddr,
    /// File with the token. Default: `admin.token` in the data folder, made at the first start.
    pub token_file: Option<PathBuf>,
    /// The token itself; by environment only.
    pub token: Option<Secret>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9200)), token_file: None, token: None }
    }
}

/// `[duties]`: what the clock asks of a host.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DutiesConfig {
    /// Whether to do them. Off: the host serves only, and earns nothing.
    pub enabled: bool,
    /// Transcripts fetched and verified at the same time at most.
    pub max_parallel_verifications: usize,
}

impl Default for DutiesConfig {
    fn default() -> Self {
        Self { enabled: true, max_parallel_verifications: 4 }
    }
}

/// `[plants]`: bad answers on purpose, by which verifiers show whether they look. Without a client the host commits itself
/// to random bytes each epoch, so that nobody can tell who plants.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlantsConfig {
    /// File with the sr25519 keys (secret URIs, one a line) of client accounts of the operator's own, each with a deposit. Epoch by
    /// epoch in turn they ask one question and have their money back when that is revealed. Whoever has seen an account in a
    /// plant knows it: the more there are, the better, and change them now and then.
    pub clients_file: Option<PathBuf>,
    /// The keys themselves; by environment only.
    pub clients: Option<Secret>,
}

/// `[log]`: logging of the stand-alone binary.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Filter as `tracing` understands it.
    pub filter: String,
    /// JSON lines instead of text.
    pub json: bool,
    /// Time that requests in flight have to end after a signal to stop, in ms.
    pub shutdown_deadline_ms: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), json: false, shutdown_deadline_ms: 10_000 }
    }
}

/// Secrets that may come by environment but never stand in the file.
const SECRETS: [(&str, &str); 6] = [
    ("keys.worker", "KEYS__WORKER"),
    ("keys.peer", "KEYS__PEER"),
    ("keys.delegate", "KEYS__DELEGATE"),
    ("fleet.token", "FLEET__TOKEN"),
    ("admin.token", "ADMIN__TOKEN"),
    ("plants.clients", "PLANTS__CLIENTS"),
];

impl Config {
    /// Reads a file and the environment, and checks the result. Relative paths are meant from the file's folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
        let mut config = Self::from_toml(&text, true)?;
        if let Some(folder) = path.parent() {
            config.resolve_paths(folder);
        }
        Ok(config)
    }

    /// Parses and checks a text; `environment` says whether the environment overrides it.
    pub fn from_toml(text: &str, environment: bool) -> Result<Self, ConfigError> {
        let file = Figment::from(Toml::string(text));
        for (field, variable) in SECRETS {
            if file.find_value(field).is_ok() {
                return Err(ConfigError::SecretInFile { field, variable: format!("{ENV_PREFIX}{variable}") });
            }
        }
        let figment = if environment { file.merge(Env::prefixed(ENV_PREFIX).split("__")) } else { file };
        let config: Self = figment.extract().map_err(|error| ConfigError::Invalid(Box::new(error)))?;
        config.check()?;
        Ok(config)
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
        };
        resolve(&mut self.host.data_dir);
        [
            &mut self.keys.worker_file,
            &mut self.keys.peer_file,
            &mut self.keys.delegate_file,
            &mut self.fleet.token_file,
            &mut self.admin.token_file,
            &mut self.plants.clients_file,
        ]
        .into_iter()
        .flatten()
        .for_each(resolve);
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field, reason: &str| Err(ConfigError::OutOfRange { field, reason: reason.into() });
        if !(1..=8).contains(&self.gateway.max_attempts) {
            return refuse("gateway.max_attempts", "must be 1..=8");
        }
        if self.gateway.max_in_flight == 0 || self.gateway.stream_buffer == 0 {
            return refuse("gateway", "max_in_flight and stream_buffer must be at least 1");
        }
        if self.gateway.authorization_blocks == 0 {
            return refuse("gateway.authorization_blocks", "must be at least 1");
        }
        if self.peer.listen.is_empty() {
            return refuse("peer.listen", "at least one multiaddr");
        }
        for address in self.peer.listen.iter().chain(&self.peer.public_addresses) {
            if let Err(error) = address.parse::<libp2p::Multiaddr>() {
                return refuse("peer", &format!("{address} is no multiaddr: {error}"));
            }
        }
        if self.fleet.health_interval_ms == 0 || self.fleet.sprint_chunk == 0 {
            return refuse("fleet", "health_interval_ms and sprint_chunk must be at least 1");
        }
        for (position, node) in self.fleet.nodes.iter().enumerate() {
            if let Err(reason) = node.check() {
                return refuse("fleet.nodes", &reason);
            }
            if self.fleet.nodes[..position].iter().any(|earlier| earlier.id == node.id) {
                return refuse("fleet.nodes", &format!("two nodes are called {}", node.id));
            }
        }
        if self.duties.max_parallel_verifications == 0 {
            return refuse("duties.max_parallel_verifications", "must be at least 1");
        }
        Ok(())
    }

    /// A file in the data folder.
    pub fn data_file(&self, name: &str) -> PathBuf {
        self.host.data_dir.join(name)
    }

    /// Time that tasks have to end after the signal to stop.
    pub fn shutdown_deadline(&self) -> Duration {
        Duration::from_millis(self.log.shutdown_deadline_ms)
    }
}

impl NodeSpec {
    /// Longest id, host or model name, in bytes.
    const MAX_TEXT: usize = 128;

    /// Says what is wrong with a registration.
    pub fn check(&self) -> Result<(), String> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.len() <= Self::MAX_TEXT
                && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'@')
        };
        if !plain(&self.id) {
            return Err(format!("id must be 1..={} visible ASCII characters without / or @", Self::MAX_TEXT));
        }
        if !plain(&self.host) {
            return Err("host must be a host name or an IP address".into());
        }
        if self.max_concurrent == 0 {
            return Err("max_concurrent must be at least 1".into());
        }
        if self.models.is_empty() || self.models.len() > 16 {
            return Err("models must name 1..=16 models".into());
        }
        if self.models.keys().any(|name| name.is_empty() || name.len() > 64) {
            return Err("the name of a model has 1..=64 bytes".into());
        }
        if self.models.values().any(|model| model.args.len() > 64) {
            return Err("a model takes at most 64 args".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../config.sample.toml");

    #[test]
    fn sample_parses_and_shows_the_defaults() {
        let config = Config::from_toml(SAMPLE, false).expect("the sample is valid");
        let defaults = GatewayConfig::default();
        assert_eq!(config.gateway.listen, defaults.listen);
        assert_eq!(config.gateway.max_in_flight, defaults.max_in_flight);
        assert_eq!(config.peer.listen, PeerConfig::default().listen);
        assert_eq!(config.admin.listen, AdminConfig::default().listen);
        assert_eq!(config.fleet.nodes.len(), 1);
    }

    #[test]
    fn sample_names_every_field() {
        // A field that the sample forgets would be undocumented.
        for field in [
            "account",
            "data_dir",
            "worker_file",
            "peer_file",
            "delegate_file",
            "url",
            "listen",
            "public_url",
            "max_in_flight",
            "max_body_bytes",
            "first_token_timeout_ms",
            "token_timeout_ms",
            "max_attempts",
            "authorization_blocks",
            "stream_buffer",
            "cors_origins",
            "public_addresses",
            "connect_timeout_ms",
            "exchange_timeout_ms",
            "max_streams_per_peer",
            "token_file",
            "health_interval_ms",
            "health_timeout_ms",
            "sprint_chunk",
            "check_digests",
            "inference_port",
            "poc_port",
            "max_concurrent",
            "enabled",
            "max_parallel_verifications",
            "clients_file",
            "filter",
            "json",
            "shutdown_deadline_ms",
        ] {
            let named = SAMPLE.lines().any(|line| {
                line.trim_start_matches(['#', ' '])
                    .strip_prefix(field)
                    .is_some_and(|rest| rest.starts_with(" ="))
            });
            assert!(named, "{field} is missing in config.sample.toml");
        }
    }

    #[test]
    fn refuses_what_is_unknown_secret_or_out_of_range() {
        let check =
            |extra: &str| Config::from_toml(&format!("{SAMPLE}\n{extra}"), false).unwrap_err().to_string();
        assert!(check("[gatway]\nlisten = \"1.1.1.1:1\"").contains("gatway"));
        let minimal =
            "[host]\naccount = \"5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY\"\ndata_dir = \"/tmp/x\"\n";
        let with = |extra: &str| Config::from_toml(&format!("{minimal}{extra}"), false);
        assert!(with("").is_ok());
        assert!(matches!(
            with("[keys]\nworker = \"//Alice\"").unwrap_err(),
            ConfigError::SecretInFile { .. }
        ));
        assert!(matches!(with("[gateway]\nmax_attempts = 9").unwrap_err(), ConfigError::OutOfRange { .. }));
        assert!(matches!(
            with("[peer]\nlisten = [\"nonsense\"]").unwrap_err(),
            ConfigError::OutOfRange { .. }
        ));
        assert!(matches!(with("[gateway]\nlisten = 5").unwrap_err(), ConfigError::Invalid(_)));
    }
}
