//! Asking from a terminal.

use crate::proxy::{Proxy, Read};
use anyhow::{bail, Context, Result};
use eventsource_stream::Eventsource;
use futures::StreamExt;
use serde_json::{json, Value};
use starling_prompt::AnyRequest;
use std::{
    io::{self, BufRead, Write},
    sync::Arc,
};

/// What the person wants.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) model: Option<String>,
    pub(crate) max_tokens: u32,
    pub(crate) temperature: f64,
}

/// Answers one message, or every line of standard input as one conversation.
pub(crate) async fn run(proxy: Proxy, message: Option<&str>, options: Options) -> Result<()> {
    let model = match &options.model {
        Some(model) => model.clone(),
        None => {
            proxy.model_names().await?.into_iter().next().context("no model is registered on this chain")?
        }
    };
    let mut messages = Vec::new();
    if let Some(message) = message {
        return turn(&proxy, &model, &options, &mut messages, message).await;
    }
    for line in io::stdin().lock().lines() {
        let line = line?;
        if !line.trim().is_empty() {
            turn(&proxy, &model, &options, &mut messages, &line).await?;
        }
    }
    Ok(())
}

async fn turn(
    proxy: &Proxy,
    model: &str,
    options: &Options,
    messages: &mut Vec<Value>,
    text: &str,
) -> Result<()> {
    messages.push(json!({ "role": "user", "content": text }));
    let body = json!({
        "model": model, "messages": messages, "stream": true,
        "max_tokens": options.max_tokens, "temperature": options.temperature,
    })
    .to_string();
    let request = Arc::new(AnyRequest::chat(body.as_bytes())?);
    let asked = proxy.ask(&request, &body.into()).await?;
    let mut read = Read::default();
    let mut events = asked.response.bytes_stream().eventsource();
    let mut shown = 0;
    while let Some(event) = events.next().await {
        let data = event.context("the host's answer was cut off")?.data;
        if !read.take(&data) {
            bail!("the host gave up: {data}");
        }
        print!("{}", read.text.get(shown..).unwrap_or_default());
        shown = read.text.len();
        io::stdout().flush()?;
    }
    println!();
    proxy.keep_receipt(model, &asked.gateway, read.proof, read.text.clone());
    messages.push(json!({ "role": "assistant", "content": read.text }));
    Ok(())
}
