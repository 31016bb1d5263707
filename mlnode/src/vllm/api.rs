//! What the node asks of a vLLM server, over HTTP.

use crate::config::Secret;
use eventsource_stream::Eventsource;
use futures::StreamExt;
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::{json, Value};
use std::{collections::HashMap, path::Path, time::Duration};

/// Time within which a connection must stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Characters of an error's text that are passed on.
const MAX_ERROR: usize = 500;

/// Why a server did not do what it was asked for; a sentence without its full stop.
pub(super) type Failure = String;

/// A server. Cheap to clone; keeps connections open.
#[derive(Clone, Debug)]
pub(super) struct Api {
    http: reqwest::Client,
    url: String,
    key: Option<Secret>,
}

/// A request whose tokens the node draws.
#[derive(Clone, Debug)]
pub(super) struct Completion {
    /// Names it to the sampler.
    pub(super) key: u64,
    /// How many of the most probable tokens the sampler sends.
    pub(super) top: u8,
    /// Whether the sampler asks what to do with the logits.
    pub(super) asks: bool,
    /// Tokens of the prompt.
    pub(super) prompt: Vec<u32>,
    /// Tokens to write.
    pub(super) max_tokens: u32,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<ModelEntry>,
}

#[derive(Deserialize)]
struct ModelEntry {
    id: String,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    token_ids: Option<Vec<u32>>,
    #[serde(default)]
    prompt_logprobs: Option<Vec<Option<HashMap<u32, LogProb>>>>,
}

#[derive(Deserialize)]
struct LogProb {
    logprob: f32,
}

impl Api {
    /// A server at a Unix socket.
    pub(super) fn at_socket(path: &Path) -> Result<Self, Failure> {
        let http = client().unix_socket(path).build().map_err(describe)?;
        Ok(Self { http, url: "http://localhost".into(), key: None })
    }

    /// A server at a base URL, with the key that it wants.
    pub(super) fn at_url(url: &str, key: Option<Secret>) -> Result<Self, Failure> {
        let http = client().build().map_err(describe)?;
        Ok(Self { http, url: url.trim_end_matches('/').into(), key })
    }

    /// Name of the model that it serves; an error while it does not serve.
    pub(super) async fn model(&self) -> Result<String, Failure> {
        let response = self.send(self.http.get(self.address("/v1/models"))).await?;
        let models: Models = response.json().await.map_err(describe)?;
        let first = models.data.into_iter().next().map(|entry| entry.id);
        first.ok_or_else(|| "it serves no model".into())
    }

    /// Has it write one token of its own choice.
    pub(super) async fn probe(&self, model: &str) -> Result<(), Failure> {
        let body = json!({"model": model, "prompt": [0], "max_tokens": 1, "temperature": 0, "ignore_eos": true, "return_token_ids": true});
        let answer = self.completion(&body).await?;
        match answer.choices.first().and_then(|choice| choice.token_ids.as_deref()) {
            Some([_]) => Ok(()),
            _ => Err("it wrote no token".into()),
        }
    }

    /// Runs a request; `wrote` is told of the tokens as they come.
    pub(super) async fn run(
        &self,
        model: &str,
        request: &Completion,
        mut wrote: impl FnMut(Vec<u32>),
    ) -> Result<(), Failure> {
        let body = json!({
            "model": model, "prompt": request.prompt, "max_tokens": request.max_tokens,
            // The sampler leaves one token possible.
            "temperature": 0, "ignore_eos": true,
            "stream": true, "return_token_ids": true,
            "vllm_xargs": {"starling_key": request.key, "starling_top": request.top, "starling_asks": u8::from(request.asks)},
        });
        let response = self.send(self.http.post(self.address("/v1/completions")).json(&body)).await?;
        let mut events = response.bytes_stream().eventsource();
        while let Some(event) = events.next().await {
            let data = event.map_err(|error| describe_any(&error))?.data;
            if data == "[DONE]" {
                return Ok(());
            }
            let chunk: Chunk = serde_json::from_str(&data).map_err(|error| describe_any(&error))?;
            if let Some(error) = chunk.error {
                return Err(shortened(error.to_string()));
            }
            chunk.choices.into_iter().filter_map(|choice| choice.token_ids).for_each(&mut wrote);
        }
        Err("it ended the answer too early".into())
    }

    /// What it says of each token but the first: the `count` most probable ones and the token itself, with their
    /// log-probabilities, the best first, of equal ones the lower token id.
    pub(super) async fn log_probs(
        &self,
        model: &str,
        tokens: &[u32],
        count: u32,
    ) -> Result<Vec<Vec<(u32, f32)>>, Failure> {
        let body = json!({"model": model, "prompt": tokens, "max_tokens": 1, "temperature": 0, "ignore_eos": true, "prompt_logprobs": count});
        let answer = self.completion(&body).await?;
        let rows = answer.choices.into_iter().next().and_then(|choice| choice.prompt_logprobs);
        let rows = rows.filter(|rows| rows.len() == tokens.len()).ok_or("it gave no log-probabilities")?;
        let sorted = |row: Option<HashMap<u32, LogProb>>| {
            let mut row: Vec<_> =
                row.unwrap_or_default().into_iter().map(|(token, found)| (token, found.logprob)).collect();
            row.sort_by(|(a, p), (b, q)| q.total_cmp(p).then(a.cmp(b)));
            row
        };
        Ok(rows.into_iter().skip(1).map(sorted).collect())
    }

    /// Tokens for whose keys and values it has room; `None` where it does not say.
    pub(super) async fn kv_tokens(&self) -> Result<Option<u64>, Failure> {
        let response = self.send(self.http.get(self.address("/metrics"))).await?;
        Ok(kv_tokens(&response.text().await.map_err(describe)?))
    }

    async fn completion(&self, body: &Value) -> Result<Chunk, Failure> {
        let response = self.send(self.http.post(self.address("/v1/completions")).json(body)).await?;
        response.json().await.map_err(describe)
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Response, Failure> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose());
        }
        let response = request.send().await.map_err(describe)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(shortened(format!("it answered {status}: {}", response.text().await.unwrap_or_default())))
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).no_proxy()
}

fn describe(error: reqwest::Error) -> Failure {
    // The address says nothing: there is one server.
    describe_any(&error.without_url())
}

/// An error with its causes.
fn describe_any(error: &dyn std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    shortened(text)
}

fn shortened(text: String) -> Failure {
    text.chars().take(MAX_ERROR).collect()
}

/// What `vllm:cache_config_info` says, summed over engines.
fn kv_tokens(metrics: &str) -> Option<u64> {
    let mut lines = metrics.lines().filter(|line| line.starts_with("vllm:cache_config_info{")).peekable();
    lines.peek()?;
    let tokens = lines.map(|line| {
        let label = |name: &str| -> Option<u64> {
            let start = line.split_once(&format!("{name}=\""))?.1;
            start.split_once('"')?.0.parse().ok()
        };
        label("kv_cache_size_tokens").or_else(|| label("num_gpu_blocks")?.checked_mul(label(",block_size")?))
    });
    tokens.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_read_from_the_metrics() {
        let line = |labels: &str| format!("# HELP x\nvllm:cache_config_info{{{labels}}} 1.0\nvllm:x 2\n");
        for (text, tokens) in [
            (line("a=\"1\",block_size=\"16\",num_gpu_blocks=\"10\""), Some(160)),
            (
                line("_x=\"1\",block_size=\"128\",kv_cache_size_tokens=\"999\",num_gpu_blocks=\"10\""),
                Some(999),
            ),
            (line("a=\"1\",block_size=\"16\",num_gpu_blocks=\"None\""), None),
            (String::new(), None),
        ] {
            assert_eq!(kv_tokens(&text), tokens, "{text}");
        }
    }
}
