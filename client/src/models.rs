//! Profiles, and tokenizers that are what the chain says they are.

use crate::gateways::Gateway;
use anyhow::{Context, Result};
use starling_chain_client::ChainClient;
use starling_primitives::{profile::Profile, ProfileId, H256};
use starling_prompt::{ApiError, Tokenizer, TokenizerBundle};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// A profile ready to be asked.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its number on chain.
    pub id: ProfileId,
    /// The profile.
    pub profile: Profile,
    /// Its tokenizer and chat template.
    pub tokenizer: Arc<Tokenizer>,
}

/// Profiles of a chain and their tokenizers, fetched from hosts once and checked against the chain.
#[derive(Debug)]
pub struct Models {
    chain: ChainClient,
    http: reqwest::Client,
    tokenizers: Mutex<HashMap<H256, Arc<Tokenizer>>>,
}

impl Models {
    /// Of this chain.
    pub fn new(chain: ChainClient, http: reqwest::Client) -> Self {
        Self { chain, http, tokenizers: Mutex::new(HashMap::new()) }
    }

    /// All registered profiles.
    pub async fn profiles(&self) -> Result<Vec<(ProfileId, Profile)>> {
        self.chain.best()?.profiles().await.context("cannot read the profiles")
    }

    /// The profile of this name with its tokenizer; a gateway is asked for the tokenizer when it is not known yet.
    pub async fn find(&self, name: &str, gateways: &[Gateway]) -> Result<Model, ApiError> {
        let unreachable = |error: anyhow::Error| {
            tracing::error!(error = format!("{error:#}"), "the chain cannot be read");
            ApiError::unavailable("The Starling node does not answer; try again later.")
        };
        let profiles = self.profiles().await.map_err(unreachable)?;
        let found = profiles.into_iter().find(|(_, profile)| profile.name_lossy() == name);
        let (id, profile) = found.ok_or_else(|| ApiError::model_not_found(name))?;
        let tokenizer = self.tokenizer(name, &profile, gateways).await?;
        Ok(Model { id, profile, tokenizer })
    }

    async fn tokenizer(
        &self,
        name: &str,
        profile: &Profile,
        gateways: &[Gateway],
    ) -> Result<Arc<Tokenizer>, ApiError> {
        let digest = profile.tokenizer_digest;
        if let Some(known) = self.lock().get(&digest) {
            return Ok(known.clone());
        }
        for gateway in gateways {
            match self.fetch(name, digest, gateway).await {
                Ok(tokenizer) => {
                    let tokenizer = Arc::new(tokenizer);
                    self.lock().insert(digest, tokenizer.clone());
                    return Ok(tokenizer);
                }
                Err(error) => tracing::warn!(
                    gateway = gateway.url,
                    error = format!("{error:#}"),
                    "no tokenizer from this host"
                ),
            }
        }
        Err(ApiError::unavailable(format!(
            "No host offers the tokenizer of '{name}' that the chain names; try again later."
        )))
    }

    async fn fetch(&self, name: &str, digest: H256, gateway: &Gateway) -> Result<Tokenizer> {
        let url = format!("{}/v1/models/{name}/tokenizer", gateway.url);
        let bundle: TokenizerBundle = self.http.get(&url).send().await?.error_for_status()?.json().await?;
        anyhow::ensure!(bundle.digest() == digest, "{url}: the digest is not the one on chain");
        Ok(Tokenizer::new(bundle)?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<H256, Arc<Tokenizer>>> {
        self.tokenizers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
