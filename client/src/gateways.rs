//! Which hosts may be asked.

use anyhow::{Context, Result};
use rand::seq::SliceRandom;
use starling_chain_client::{ChainClient, HostStatus};
use starling_primitives::AccountId;
use std::sync::Mutex;

/// A host that takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The host.
    pub host: AccountId,
    /// Base URL of its public API, without a slash at the end.
    pub url: String,
}

/// The active hosts with a public gateway, read once per block.
#[derive(Debug)]
pub struct Gateways {
    chain: ChainClient,
    known: Mutex<(u32, Vec<Gateway>)>,
}

impl Gateways {
    /// Of this chain.
    pub fn new(chain: ChainClient) -> Self {
        Self { chain, known: Mutex::new((0, Vec::new())) }
    }

    /// All of them, in random order: load spreads by itself, and no host is asked first by everybody.
    pub async fn shuffled(&self) -> Result<Vec<Gateway>> {
        let number = self.chain.best_tick().context("the node has no block yet")?.number;
        let cached = {
            let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            (known.0 == number && !known.1.is_empty()).then(|| known.1.clone())
        };
        let mut gateways = match cached {
            Some(gateways) => gateways,
            None => {
                let read = self.read().await?;
                *self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    (number, read.clone());
                read
            }
        };
        gateways.shuffle(&mut rand::rng());
        Ok(gateways)
    }

    async fn read(&self) -> Result<Vec<Gateway>> {
        let hosts = self.chain.best()?.hosts().await.context("cannot read the hosts")?;
        Ok(hosts
            .into_iter()
            .filter(|(_, info)| info.status == HostStatus::Active)
            .filter_map(|(host, info)| {
                let url = info.endpoints?.gateway()?.to_owned();
                Some(Gateway { host, url })
            })
            .collect())
    }
}
