//! The host's secret keys: worker, libp2p identity, delegate.

use crate::config::{Config, Secret, ENV_PREFIX};
use sp_core::{sr25519, Pair as _};
use starling_primitives::{
    receipt::{Receipt, SignedReceipt},
    request::{Authorization, SignedAuthorization},
    AccountId, MultiSignature, H256,
};
use std::path::{Path, PathBuf};

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key is configured.
    #[error("`{field}` is missing: give `{field}_file` or the environment variable {variable}")]
    Missing {
        /// The field.
        field: &'static str,
        /// What to set instead.
        variable: String,
    },
    /// The file cannot be read or made.
    #[error("key file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is no key. It is not repeated here.
    #[error("`{field}` does not hold a valid key")]
    Malformed {
        /// The field.
        field: &'static str,
    },
}

/// The keys of one host.
#[derive(Clone)]
pub struct HostKeys {
    worker: sr25519::Pair,
    delegate: sr25519::Pair,
    peer: libp2p::identity::Keypair,
}

impl std::fmt::Debug for HostKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("HostKeys")
            .field("worker", &self.worker_account())
            .field("delegate", &self.delegate_account())
            .field("peer", &self.peer_id())
            .finish()
    }
}

impl HostKeys {
    /// Loads all keys; makes the libp2p identity and the delegate key when the data folder has none yet.
    pub fn load(config: &Config) -> Result<Self, KeyError> {
        let keys = &config.keys;
        let worker = match given("keys.worker", keys.worker.as_ref(), keys.worker_file.as_deref())? {
            Some(secret) => sr25519_pair("keys.worker", &secret)?,
            None => {
                return Err(KeyError::Missing {
                    field: "keys.worker",
                    variable: format!("{ENV_PREFIX}KEYS__WORKER"),
                })
            }
        };
        let delegate = match given("keys.delegate", keys.delegate.as_ref(), keys.delegate_file.as_deref())? {
            Some(secret) => secret,
            None => read_or_make(&config.data_file("delegate.key"))?,
        };
        let peer = match given("keys.peer", keys.peer.as_ref(), keys.peer_file.as_deref())? {
            Some(secret) => secret,
            None => read_or_make(&config.data_file("peer.key"))?,
        };
        Ok(Self { worker, delegate: sr25519_pair("keys.delegate", &delegate)?, peer: peer_pair(&peer)? })
    }

    /// Keys given directly; for tests.
    pub fn from_parts(
        worker: sr25519::Pair,
        delegate: sr25519::Pair,
        peer: libp2p::identity::Keypair,
    ) -> Self {
        Self { worker, delegate, peer }
    }

    /// The worker key: signs duty calls, receipts and VRF proofs.
    pub fn worker(&self) -> &sr25519::Pair {
        &self.worker
    }

    /// Account of the worker key.
    pub fn worker_account(&self) -> AccountId {
        AccountId::from(self.worker.public())
    }

    /// Account that a client delegates spending to.
    pub fn delegate_account(&self) -> AccountId {
        AccountId::from(self.delegate.public())
    }

    /// The libp2p identity.
    pub fn peer(&self) -> &libp2p::identity::Keypair {
        &self.peer
    }

    /// The peer id that goes on chain.
    pub fn peer_id(&self) -> libp2p::PeerId {
        self.peer.public().to_peer_id()
    }

    /// Signs for a client who delegated spending to this gateway.
    pub fn authorize(&self, genesis: &H256, authorization: Authorization) -> SignedAuthorization {
        let signature = self.delegate.sign(authorization.signing_hash(genesis).as_bytes());
        SignedAuthorization {
            authorization,
            signer: self.delegate_account(),
            signature: MultiSignature::Sr25519(signature),
        }
    }

    /// Signs the executor's word on an answer.
    pub fn sign_receipt(&self, genesis: &H256, receipt: Receipt) -> SignedReceipt {
        let signature = self.worker.sign(receipt.signing_hash(genesis).as_bytes());
        SignedReceipt { receipt, worker: self.worker.public(), signature }
    }
}

/// The keys of the clients that ask for plants, one a line.
pub fn plants_clients(config: &Config) -> Result<Vec<sr25519::Pair>, KeyError> {
    let plants = &config.plants;
    let secrets = given("plants.clients", plants.clients.as_ref(), plants.clients_file.as_deref())?;
    let Some(secrets) = secrets else { return Ok(Vec::new()) };
    let lines = secrets.expose().lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| sr25519_pair("plants.clients", &Secret::new(line))).collect()
}

/// A secret from the environment or its file; `None` when neither is given.
pub(crate) fn given(
    field: &'static str,
    secret: Option<&Secret>,
    file: Option<&Path>,
) -> Result<Option<Secret>, KeyError> {
    match (secret, file) {
        (Some(secret), _) => Ok(Some(secret.clone())),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| KeyError::File { path: path.to_path_buf(), source })?;
            let secret = Secret::new(&text);
            if secret.expose().is_empty() {
                return Err(KeyError::Malformed { field });
            }
            Ok(Some(secret))
        }
        (None, None) => Ok(None),
    }
}

/// Reads 32 random bytes as hex from a file, which is made (readable by the owner only) when it does not exist.
pub(crate) fn read_or_make(path: &Path) -> Result<Secret, KeyError> {
    let failed = |source| KeyError::File { path: path.to_path_buf(), source };
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(Secret::new(&text)),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let text = format!("0x{}", hex::encode(rand::random::<[u8; 32]>()));
    write_private(path, &text).map_err(failed)?;
    Ok(Secret::new(&text))
}

/// Writes a file that only its owner may read; it is complete or absent, whenever the process dies.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let partial = path.with_extension("partial");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

fn sr25519_pair(field: &'static str, secret: &Secret) -> Result<sr25519::Pair, KeyError> {
    sr25519::Pair::from_string(secret.expose(), None).map_err(|_| KeyError::Malformed { field })
}

fn peer_pair(secret: &Secret) -> Result<libp2p::identity::Keypair, KeyError> {
    let malformed = || KeyError::Malformed { field: "keys.peer" };
    let text = secret.expose();
    let seed = hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|_| malformed())?;
    libp2p::identity::Keypair::ed25519_from_bytes(seed).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_keys_are_private_and_stay() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/peer.key");
        let first = read_or_make(&path).unwrap();
        let second = read_or_make(&path).unwrap();
        assert_eq!(first.expose(), second.expose());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(peer_pair(&first).unwrap().public(), peer_pair(&second).unwrap().public());
        assert!(sr25519_pair("x", &first).is_ok());
    }

    #[test]
    fn malformed_keys_are_refused_without_being_repeated() {
        let error = sr25519_pair("keys.worker", &Secret::new("not a key")).err().unwrap().to_string();
        assert!(!error.contains("not a key"));
        assert!(peer_pair(&Secret::new("0xzz")).is_err());
    }
}
