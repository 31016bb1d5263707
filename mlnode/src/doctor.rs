//! `starling-mlnode doctor`: what a machine can do, and whether and how it will serve a model.

use crate::{
    bench::machine,
    config::Limits,
    digest::{folder_digest, DigestError},
    kernel::Pool,
    model::{available, check_room, Decoder, Memory, Model, ModelError, Precision, BLOCK_TOKENS},
};
use serde::Serialize;
use starling_mlnode_api::ModelDigest;
use starling_prompt::{Tokenizer, TokenizerError};
use std::{fmt, io, path::Path};

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was found out.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// Unit of the value; empty for texts and counts.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub unit: &'static str,
}

/// Value of a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A count.
    Count(u64),
    /// A measurement.
    Number(f64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<26} ", self.name)?;
        match &self.value {
            Value::Count(count) => write!(f, "{count:>14}")?,
            Value::Number(number) => write!(f, "{number:>14.1}")?,
            Value::Text(text) => write!(f, "{text:>14}")?,
        }
        if self.unit.is_empty() {
            return Ok(());
        }
        write!(f, " {}", self.unit)
    }
}

/// Everything that was found out.
#[derive(Debug)]
pub struct Examination {
    /// In the order of finding.
    pub findings: Vec<Finding>,
    /// Why the model cannot be served.
    pub refusal: Option<Unservable>,
}

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unservable {
    /// Config or weights cannot be used, or do not fit.
    #[error("the model is not usable")]
    Model(#[from] ModelError),
    /// The folder has no digest.
    #[error("the model folder is not usable")]
    Digest(#[from] DigestError),
    /// The tokenizer cannot be used.
    #[error("the tokenizer is not usable")]
    Tokenizer(#[from] TokenizerError),
    /// The tokenizer has tokens that the model has not.
    #[error("the tokenizer has {tokenizer} tokens, the model only {model}")]
    Vocabulary {
        /// Entries of the tokenizer.
        tokenizer: u32,
        /// Entries of the model.
        model: u32,
    },
    /// The weights leave no room for a conversation.
    #[error("beside the weights there is memory for {fit} tokens of context only")]
    NoContext {
        /// Tokens whose keys and values fit.
        fit: u64,
    },
}

/// What the machine was measured at.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// Bytes per second.
    bandwidth: f64,
    /// Operations per second.
    product: f64,
}

/// Examines the machine, and loads the model of a folder as a node would. An error means that the machine could not even
/// be measured.
pub fn examine(folder: Option<&Path>, threads: u32) -> io::Result<Examination> {
    let pool = Pool::new(threads as usize);
    let memory = available();
    let rates = Rates { bandwidth: machine::read_bandwidth(&pool)?, product: machine::product_rate(&pool)? };
    let mut findings = vec![
        text("device", "cpu"),
        text("instruction_set", &format!("{:?}", pool.isa()).to_lowercase()),
        count("threads", threads.into(), ""),
    ];
    if let Some(Memory { total, free }) = memory {
        findings.extend([count("memory_total", total >> 20, "MiB"), count("memory_free", free >> 20, "MiB")]);
    }
    findings.extend([
        number("read_bandwidth", rates.bandwidth / 1e9, "GB/s"),
        number("product_rate", rates.product / 1e9, "GFLOP/s"),
    ]);
    let refusal = folder.and_then(|folder| examine_model(folder, rates, memory, &mut findings).err());
    Ok(Examination { findings, refusal })
}

fn examine_model(
    folder: &Path,
    rates: Rates,
    before: Option<Memory>,
    findings: &mut Vec<Finding>,
) -> Result<(), Unservable> {
    check_room(folder)?;
    let digest = folder_digest(folder)?;
    let ModelDigest { weights_digest, tokenizer_digest, vocab_size, max_context } = digest;
    findings.extend([
        text("weights_digest", &format!("{weights_digest:?}")),
        text("tokenizer_digest", &format!("{tokenizer_digest:?}")),
        count("vocab_size", vocab_size.into(), "tokens"),
        count("max_context", max_context.into(), "tokens"),
    ]);
    let tokenizer = Tokenizer::load_from_folder(folder)?.vocab_size();
    if tokenizer > vocab_size {
        return Err(Unservable::Vocabulary { tokenizer, model: vocab_size });
    }
    let model = Decoder::load(folder, Precision::F32)?;
    let (read, per_token) = (model.weight_bytes(), model.kv_bytes_per_token());
    findings.extend([
        text("family", &format!("{:?}", model.config().family).to_lowercase()),
        count("parameters", model.parameters(), ""),
        count("weights_in_memory", model.memory_bytes() >> 20, "MiB"),
        count("weights_read_per_token", read >> 20, "MiB"),
        count("kv_per_token", per_token, "bytes"),
        // What bounds any engine: each token reads the weights, and is multiplied with them.
        number("decode_bound_batch_1", rates.bandwidth / read.max(1) as f64, "tokens/s"),
        number("prefill_bound", rates.product / (2.0 * model.parameters_per_token() as f64), "tokens/s"),
    ]);
    let Some(before) = before else { return Ok(()) };
    let fit = before.free.saturating_sub(model.memory_bytes()) / per_token.max(1);
    let defaults = Limits::default();
    findings.extend([
        count("context_that_fits", fit, "tokens"),
        text(
            "default_limits_fit",
            yes(fit >= u64::from(defaults.kv_tokens) + u64::from(defaults.prefix_tokens)),
        ),
    ]);
    if fit < BLOCK_TOKENS as u64 {
        return Err(Unservable::NoContext { fit });
    }
    Ok(())
}

fn yes(holds: bool) -> &'static str {
    if holds {
        "yes"
    } else {
        "no: lower limits.kv_tokens and limits.prefix_tokens"
    }
}

fn text(name: &'static str, text: &str) -> Finding {
    Finding { name, value: Value::Text(text.into()), unit: "" }
}

fn count(name: &'static str, count: u64, unit: &'static str) -> Finding {
    Finding { name, value: Value::Count(count), unit }
}

fn number(name: &'static str, number: f64, unit: &'static str) -> Finding {
    Finding { name, value: Value::Number(number), unit }
}
