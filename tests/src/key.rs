//! A client with an API key of one gateway: it knows whom it asks.

use crate::{
    network::{Network, PROFILE},
    poll,
};
use anyhow::{bail, Context, Result};
use reqwest::{Method, Response};
use serde_json::{json, Value};
use starling_chain_client::{Call, ChainClient, Keypair};
use starling_primitives::{ids::TOKEN, AccountId, RequestId, H256};
use std::{collections::VecDeque, time::Duration};

/// An answer takes longer only when something hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// Finality is some blocks behind; many more means that the network is stuck.
const FINALIZED: Duration = Duration::from_secs(120);

/// Deposits tokens of a development account.
pub async fn deposit(chain: &ChainClient, suri: &str, tokens: u128) -> Result<()> {
    chain.execute(&Call::deposit(tokens * TOKEN), &Keypair::from_suri(suri)?).await?;
    Ok(())
}

/// An API key for a development account.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Host whose gateway issued it.
    pub gateway: usize,
    base_url: String,
    key: String,
    http: reqwest::Client,
}

impl ApiKey {
    /// Lets a gateway spend from an account's deposit, and has it issue a key.
    pub async fn issue(
        network: &Network,
        chain: &ChainClient,
        gateway: usize,
        suri: &str,
        tokens: u128,
    ) -> Result<Self> {
        let signer = Keypair::from_suri(suri)?;
        let status = network.get(&format!("{}/v1/status", network.gateway(gateway))).await?;
        let delegate: AccountId = status["delegate"]
            .as_str()
            .and_then(|delegate| delegate.parse().ok())
            .context("delegate key in the status")?;
        let limit = tokens * TOKEN;
        chain.execute(&Call::delegate(delegate.clone(), limit), &signer).await?;
        Self::finalized(network, gateway, &signer.account(), &delegate, limit).await?;
        let body = json!({ "account": signer.account().to_string(), "label": "e2e" });
        let issued = network.admin_call(gateway, Method::POST, "/admin/v1/keys", Some(body)).await?;
        Ok(Self {
            gateway,
            base_url: format!("{}/v1", network.gateway(gateway)),
            key: issued["key"].as_str().context("the key")?.to_owned(),
            http: reqwest::Client::builder().timeout(LIMIT).build()?,
        })
    }

    /// Waits until the gateway's own chain has the limit in a block that no other replaces: the one that executed it may be
    /// a block ahead, or on another fork.
    async fn finalized(
        network: &Network,
        gateway: usize,
        client: &AccountId,
        delegate: &AccountId,
        limit: u128,
    ) -> Result<()> {
        let chain = ChainClient::connect(&network.rpc(gateway)).await?;
        poll::until("the delegation at the gateway", FINALIZED, || async {
            let found = chain.finalized()?.delegation(client, delegate).await?;
            Ok(found.filter(|delegation| delegation.limit == limit).map(|_| ()))
        })
        .await
    }

    /// The key itself and the base URL of its gateway, as OpenAI clients take them.
    pub fn for_openai_clients(&self) -> (String, String) {
        (self.base_url.clone(), self.key.clone())
    }

    async fn send(&self, question: &str, max_tokens: u32, stream: bool) -> Result<Response> {
        // Hot, so that answers are long: a test may want to interrupt one.
        let body = json!({
            "model": PROFILE, "max_tokens": max_tokens, "temperature": if stream { 1.8 } else { 1.2 },
            "stream": stream, "messages": [{ "role": "user", "content": question }],
        });
        let url = format!("{}/chat/completions", self.base_url);
        let response = self.http.post(&url).bearer_auth(&self.key).json(&body).send().await?;
        if !response.status().is_success() {
            bail!("{url}: {}: {}", response.status(), response.text().await?);
        }
        Ok(response)
    }

    /// A plain answer.
    pub async fn ask(&self, question: &str, max_tokens: u32) -> Result<Value> {
        Ok(self.send(question, max_tokens, false).await?.json().await?)
    }

    /// A stream whose first token has arrived.
    pub async fn stream(&self, question: &str, max_tokens: u32) -> Result<Streamed> {
        let response = self.send(question, max_tokens, true).await?;
        let id = response.headers().get("x-starling-request-id").context("a stream without request id")?;
        let request = request_id(id.to_str()?)?;
        Ok(Streamed { request, response, text: Vec::new(), events: VecDeque::new() })
    }
}

/// An answer as it comes.
#[derive(Debug)]
pub struct Streamed {
    /// The request.
    pub request: RequestId,
    response: Response,
    text: Vec<u8>,
    events: VecDeque<String>,
}

/// How a stream ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// With its proof: what the last chunk says under `starling`.
    Answered(Value),
    /// With an error that says what happened.
    Error(String),
    /// In the middle: the gateway is gone.
    CutOff(String),
}

impl Streamed {
    /// Reads to the end.
    pub async fn rest(mut self) -> Ended {
        let mut proof = Value::Null;
        loop {
            while let Some(data) = self.events.pop_front() {
                if data == "[DONE]" {
                    return Ended::Answered(proof);
                }
                let chunk: Value = serde_json::from_str(&data).unwrap_or_default();
                if let Some(message) = chunk["error"]["message"].as_str() {
                    return Ended::Error(message.to_owned());
                }
                if chunk["starling"]["receipt"].is_string() {
                    proof = chunk["starling"].clone();
                }
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.take(&bytes),
                Ok(None) => return Ended::CutOff("the stream ended without [DONE]".into()),
                Err(error) => return Ended::CutOff(error.to_string()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.text.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event);
            self.events
                .extend(event.lines().filter_map(|line| line.strip_prefix("data: ").map(str::to_owned)));
        }
    }
}

/// Reads a request id in hex.
pub fn request_id(text: &str) -> Result<RequestId> {
    let bytes = hex::decode(text.trim_start_matches("0x")).with_context(|| format!("request id {text:?}"))?;
    let bytes: [u8; 32] = bytes.try_into().ok().with_context(|| format!("request id {text:?}"))?;
    Ok(H256(bytes))
}
