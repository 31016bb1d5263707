//! Receipts: everything needed to check an answer without trusting anybody.

use anyhow::{bail, Context, Result};
use codec::Decode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use starling_chain_client::ChainClient;
use starling_primitives::{
    receipt::SignedReceipt,
    replay::{replay_with, Checks},
    request::RequestHeader,
    tape::tape_seed,
    traits::Round,
    transcript::Transcript,
    AccountId, H256,
};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// What a gateway sends with the end of an answer (`starling` in the last chunk or in the body).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Id of the request.
    pub request_id: H256,
    /// SCALE of the executor's [`SignedReceipt`], in hex.
    pub receipt: String,
    /// SCALE of the [`RequestHeader`], in hex.
    pub header: String,
    /// SCALE of the [`Transcript`], in hex.
    pub transcript: String,
    /// Token ids of the prompt.
    pub prompt_tokens: Vec<u32>,
}

/// An answer as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedReceipt {
    /// Hash of block 0 of the chain.
    pub genesis: H256,
    /// Name of the profile.
    pub model: String,
    /// Host that was asked.
    pub gateway: AccountId,
    /// The proof.
    pub proof: Tail,
    /// The text that reached the client; for people, no part of the check.
    pub answer: String,
}

/// A receipt that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The receipt.
    pub receipt: SignedReceipt,
    /// Tokens replayed.
    pub tokens: usize,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receipt = &self.receipt.receipt;
        let finished = &receipt.finished;
        writeln!(f, "request      {:?}", finished.request_id)?;
        writeln!(f, "executor     {} (epoch {})", receipt.executor, receipt.epoch)?;
        writeln!(f, "signature    valid")?;
        writeln!(f, "prompt       {} tokens, hash agrees", finished.prompt_tokens)?;
        writeln!(f, "transcript   root {:?} agrees", finished.transcript_root)?;
        write!(f, "replay       {} tokens, each the sampler's own choice", self.tokens)
    }
}

impl Tail {
    /// Reads the `starling` object of an answer; `None` when it is none (a window hash in a chunk, for instance).
    pub fn from_json(value: &Value) -> Option<Self> {
        value.get("receipt").is_some().then(|| serde_json::from_value(value.clone()).ok()).flatten()
    }
}

impl SavedReceipt {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no receipt", path.display()))
    }

    /// Writes the receipt into a folder, named after the request; an interrupted write leaves no half file.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}.json", hex::encode(self.proof.request_id)));
        let unfinished = path.with_extension("tmp");
        fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&unfinished, &path)?;
        Ok(path)
    }

    /// Checks hashes, signature and the replay of the sampler. Needs nothing but this receipt.
    pub fn check(&self) -> Result<Checked> {
        let receipt: SignedReceipt = decode("receipt", &self.proof.receipt)?;
        let header: RequestHeader = decode("header", &self.proof.header)?;
        let transcript: Transcript = decode("transcript", &self.proof.transcript)?;
        let finished = &receipt.receipt.finished;
        if !receipt.verify(&self.genesis) {
            bail!("the executor's signature is not valid");
        }
        if header.id() != self.proof.request_id
            || transcript.header != header
            || finished.request_id != header.id()
        {
            bail!("header, transcript and receipt belong to different requests");
        }
        let seed = tape_seed(&receipt.receipt.epoch_seed, &finished.request_id);
        let checks = Checks { prompt: Some(&self.proof.prompt_tokens), ..Checks::default() };
        let replayed =
            replay_with(&transcript, &seed, finished, &checks).context("the transcript does not replay")?;
        Ok(Checked { receipt, tokens: replayed.tokens.len() })
    }

    /// Compares executor key and epoch seed with the chain.
    pub async fn check_on_chain(&self, chain: &ChainClient) -> Result<()> {
        if chain.genesis() != self.genesis {
            bail!("the receipt is from another chain (genesis {:?})", self.genesis);
        }
        let signed: SignedReceipt = decode("receipt", &self.proof.receipt)?;
        let view = chain.best()?;
        let Some(host) = view.host(&signed.receipt.executor).await? else {
            bail!("the executor is not registered")
        };
        if host.worker != AccountId::from(signed.worker) {
            bail!("the receipt is not signed by the executor's worker key");
        }
        match view.seed(Round::Epoch(signed.receipt.epoch)).await? {
            Some(seed) if seed == signed.receipt.epoch_seed => Ok(()),
            Some(_) => bail!("the epoch seed in the receipt is not the chain's"),
            None => bail!("the node does not keep the seed of epoch {} any more", signed.receipt.epoch),
        }
    }
}

fn decode<T: Decode>(what: &str, hex_text: &str) -> Result<T> {
    let bytes =
        hex::decode(hex_text.trim_start_matches("0x")).with_context(|| format!("{what} is not hex"))?;
    let mut input = bytes.as_slice();
    let value = T::decode(&mut input).with_context(|| format!("{what} does not decode"))?;
    if !input.is_empty() {
        bail!("{what} is followed by {} more bytes", input.len());
    }
    Ok(value)
}
