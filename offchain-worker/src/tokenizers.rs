//! Tokenizers of the profiles: from this host's ML nodes, from disk, or from other hosts; always by digest.

use crate::{
    context::{EndTokens, HelperError},
    fleet::Fleet,
    network::{Network, NetworkView},
};
use async_trait::async_trait;
use starling_primitives::{profile::Profile, AccountId, H256};
use starling_prompt::{Tokenizer, TokenizerBundle};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

/// Time that another host may take to send a bundle.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest bundle that is read from another host, in bytes.
const MAX_BUNDLE_BYTES: usize = 160 << 20;
/// Hosts asked for a bundle at most.
const MAX_HOSTS: usize = 8;

/// No bundle with the profile's digest can be had now.
#[derive(Debug, thiserror::Error)]
#[error("no tokenizer with digest {digest:?} can be had")]
pub struct NoTokenizer {
    digest: H256,
}

/// Tokenizers by digest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokenizers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fleet: Fleet,
    folder: PathBuf,
    host: AccountId,
    http: reqwest::Client,
    known: RwLock<HashMap<H256, Arc<Tokenizer>>>,
    /// One fetch at a time: it is rare, and a burst of first requests needs only one.
    fetching: tokio::sync::Mutex<()>,
}

impl Tokenizers {
    /// Keeps bundles below `folder`.
    pub fn new(fleet: Fleet, folder: PathBuf, host: AccountId) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build()?;
        let inner = Inner {
            fleet,
            folder,
            host,
            http,
            known: RwLock::default(),
            fetching: tokio::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn known(&self, digest: &H256) -> Option<Arc<Tokenizer>> {
        self.inner.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(digest).cloned()
    }

    /// The tokenizer of a profile.
    pub async fn get(&self, profile: &Profile, view: &NetworkView) -> Result<Arc<Tokenizer>, NoTokenizer> {
        let digest = profile.tokenizer_digest;
        if let Some(known) = self.known(&digest) {
            return Ok(known);
        }
        let _one = self.inner.fetching.lock().await;
        if let Some(known) = self.known(&digest) {
            return Ok(known);
        }
        let path = self.inner.folder.join(format!("{}.json", hex::encode(digest)));
        if let Some(tokenizer) = self.read_disk(&path, &digest).await {
            return Ok(self.remember(digest, tokenizer));
        }
        let name = profile.name_lossy();
        let tokenizer = match self.ask_fleet(profile, &name, &digest).await {
            Some(tokenizer) => tokenizer,
            None => self.ask_hosts(&name, &digest, view).await.ok_or(NoTokenizer { digest })?,
        };
        self.store(&path, tokenizer.bundle()).await;
        Ok(self.remember(digest, tokenizer))
    }

    fn remember(&self, digest: H256, tokenizer: Tokenizer) -> Arc<Tokenizer> {
        let tokenizer = Arc::new(tokenizer);
        let mut known = self.inner.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.insert(digest, tokenizer.clone());
        tokenizer
    }

    async fn read_disk(&self, path: &std::path::Path, digest: &H256) -> Option<Tokenizer> {
        let bytes = tokio::fs::read(path).await.ok()?;
        accept(serde_json::from_slice(&bytes).ok()?, digest).await
    }

    async fn ask_fleet(&self, profile: &Profile, name: &str, digest: &H256) -> Option<Tokenizer> {
        for node in self.inner.fleet.serving(profile) {
            match node.client.tokenizer::<TokenizerBundle>(name).await {
                Ok(bundle) => match accept(bundle, digest).await {
                    Some(tokenizer) => return Some(tokenizer),
                    None => {
                        tracing::warn!(target: "starling::tokenizers", node = %node.spec.id, "wrong tokenizer")
                    }
                },
                Err(error) => {
                    tracing::debug!(target: "starling::tokenizers", node = %node.spec.id, %error, "no tokenizer")
                }
            }
        }
        None
    }

    async fn ask_hosts(&self, name: &str, digest: &H256, view: &NetworkView) -> Option<Tokenizer> {
        let others = view.hosts.iter().filter(|(account, _)| **account != self.inner.host);
        let urls = others.filter_map(|(_, info)| {
            let endpoints = info.endpoints.as_ref()?;
            String::from_utf8(endpoints.gateway_url.clone()).ok().filter(|url| !url.is_empty())
        });
        for base in urls.take(MAX_HOSTS) {
            let url = format!("{}/v1/models/{}/tokenizer", base.trim_end_matches('/'), percent_encoded(name));
            if let Some(bundle) = self.fetch(&url).await {
                if let Some(tokenizer) = accept(bundle, digest).await {
                    return Some(tokenizer);
                }
            }
        }
        None
    }

    async fn fetch(&self, url: &str) -> Option<TokenizerBundle> {
        let mut response = self.inner.http.get(url).send().await.ok()?.error_for_status().ok()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if body.len() + chunk.len() > MAX_BUNDLE_BYTES {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).ok()
    }

    /// A bundle that cannot be kept costs a fetch after the next start, nothing else.
    async fn store(&self, path: &std::path::Path, bundle: &TokenizerBundle) {
        let Ok(bytes) = serde_json::to_vec(bundle) else { return };
        let partial = path.with_extension("partial");
        let written = async {
            tokio::fs::create_dir_all(&self.inner.folder).await?;
            tokio::fs::write(&partial, bytes).await?;
            tokio::fs::rename(&partial, path).await
        };
        if let Err(error) = written.await {
            tracing::warn!(target: "starling::tokenizers", %error, "a tokenizer cannot be kept");
        }
    }
}

/// The [`EndTokens`] of profiles, by the chain as it stands.
#[derive(Debug)]
pub struct EndTokensOfProfiles {
    /// Where the tokenizers come from.
    pub tokenizers: Tokenizers,
    /// The chain in memory.
    pub network: Network,
}

#[async_trait]
impl EndTokens for EndTokensOfProfiles {
    async fn end_tokens(&self, profile: &Profile) -> Result<Vec<u32>, HelperError> {
        let tokenizer = self.tokenizers.get(profile, &self.network.view()).await;
        let tokenizer = tokenizer.map_err(|error| HelperError::Unavailable(error.to_string()))?;
        Ok(tokenizer.bundle().eos_token_ids.clone())
    }
}

/// Builds the tokenizer if the bundle is the right one. Off the async threads: a large one takes a second.
async fn accept(bundle: TokenizerBundle, digest: &H256) -> Option<Tokenizer> {
    let digest = *digest;
    let build = move || (bundle.digest() == digest).then(|| Tokenizer::new(bundle).ok()).flatten();
    tokio::task::spawn_blocking(build).await.ok().flatten()
}

/// A name as one segment of a path.
fn percent_encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_with_slashes_are_one_segment() {
        assert_eq!(super::percent_encoded("Qwen/Qwen3-8B"), "Qwen%2FQwen3-8B");
    }
}
