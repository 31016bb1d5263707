//! An sr25519 key that signs calls and evaluates the VRF.

use sp_core::{sr25519, Pair as _};
use starling_primitives::{
    vrf::{self, VrfInput, VrfProof},
    AccountId, H256,
};
use std::path::{Path, PathBuf};

/// Why a key could not be loaded. Never contains the secret.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is no secret URI (phrase, `//Path`, or `0x` and 32 bytes in hex).
    #[error("not a valid secret URI")]
    Malformed,
    /// The file cannot be read.
    #[error("cannot read key file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// An sr25519 key pair. `Debug` shows the public key only.
#[derive(Clone)]
pub struct Keypair(sr25519::Pair);

impl Keypair {
    /// From a secret URI: a phrase, a development path such as `//Alice//worker`, or `0x` and a seed in hex.
    pub fn from_suri(suri: &str) -> Result<Self, KeyError> {
        sr25519::Pair::from_string(suri.trim(), None).map(Self).map_err(|_| KeyError::Malformed)
    }

    /// From a file that holds a secret URI.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KeyError::File { path: path.to_path_buf(), source })?;
        Self::from_suri(&text)
    }

    /// The public key.
    pub fn public(&self) -> sr25519::Public {
        self.0.public()
    }

    /// The account of the public key.
    pub fn account(&self) -> AccountId {
        AccountId::from(self.0.public())
    }

    /// The pair itself.
    pub fn pair(&self) -> &sr25519::Pair {
        &self.0
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> sr25519::Signature {
        self.0.sign(message)
    }

    /// Proof and 32-byte output of the VRF on `input`. The output is unique: there is nothing to grind.
    pub fn vrf(&self, input: &VrfInput) -> (VrfProof, H256) {
        vrf::sign(&self.0, input)
    }
}

impl From<sr25519::Pair> for Keypair {
    fn from(pair: sr25519::Pair) -> Self {
        Self(pair)
    }
}

impl std::fmt::Debug for Keypair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Keypair").field(&self.account()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let seed = "0x0101010101010101010101010101010101010101010101010101010101010101";
        let text = format!("{:?}", Keypair::from_suri(seed).unwrap());
        assert!(!text.contains("0101"));
    }

    #[test]
    fn vrf_is_unique_per_input_and_key() {
        let key = Keypair::from_suri("//Alice//worker").unwrap();
        let input = VrfInput::Beacon(H256::repeat_byte(1), 3);
        let (_, first) = key.vrf(&input);
        assert_eq!(first, key.vrf(&input).1);
        assert_ne!(first, key.vrf(&VrfInput::Beacon(H256::repeat_byte(1), 4)).1);
        assert_ne!(first, Keypair::from_suri("//Bob//worker").unwrap().vrf(&input).1);
    }

    #[test]
    fn keys_come_from_files_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker");
        std::fs::write(&path, "//Alice//worker\n").unwrap();
        assert_eq!(
            Keypair::from_file(&path).unwrap().account(),
            Keypair::from_suri("//Alice//worker").unwrap().account()
        );
        assert!(matches!(Keypair::from_file(&folder.path().join("absent")), Err(KeyError::File { .. })));
        assert!(matches!(Keypair::from_suri("nonsense ///"), Err(KeyError::Malformed)));
    }
}
