//! Receipts: everything needed to check an answer without trusting anybody.

use anyhow::{bail, Context, Result};
use codec::Decode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use starling_chain_client::ChainClient;
use starling_primitives::{
    constraint::{check_bound, Constraint},
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
    /// SCALE of the [`Constraint`] that the answer had to keep to, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
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
        let constraint = self.proof.constraint.as_ref();
        let constraint: Option<Constraint> = constraint.map(|text| decode("constraint", text)).transpose()?;
        // Whether its tokens are the vocabulary's, and whether it was kept, is for verifiers to say: they have a model.
        check_bound(constraint.as_ref(), &header, u32::MAX)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use codec::Encode;
    use starling_chain_client::Keypair;
    use starling_primitives::{
        constraint::TokenBias,
        receipt::Receipt,
        records::{response_hash, Finished},
        request::{prompt_hash, SamplingParams},
        sampler::sample,
        transcript::{Candidate, TokenRecord, TranscriptBuilder},
    };

    const PROMPT: [u32; 3] = [4, 5, 6];
    const TOKENS: u32 = 40;

    fn genesis() -> H256 {
        H256::repeat_byte(0xee)
    }

    /// An answer as an honest executor signs it, with every record changed by `change` before it is committed to.
    fn receipt_of(change: impl Fn(&mut TokenRecord)) -> SavedReceipt {
        let constraint = Constraint { logit_bias: vec![TokenBias { token: 9, milli: 1 }], grammar: None };
        let header = RequestHeader {
            profile: 0,
            prompt_hash: prompt_hash(&PROMPT),
            sampling: SamplingParams { temperature_milli: 900, ..SamplingParams::GREEDY },
            max_tokens: TOKENS,
            constraint: Some(constraint.hash()),
            nonce: [7; 32],
        };
        let epoch_seed = H256::repeat_byte(3);
        let tape = tape_seed(&epoch_seed, &header.id());
        let mut builder = TranscriptBuilder::new(header.clone());
        for position in 0..TOKENS {
            let candidates =
                vec![Candidate { token: position, q: 60 }, Candidate { token: position + 1, q: 120 }];
            let chosen = sample(&tape, position, &candidates, &header.sampling).unwrap() as u8;
            let mut record = TokenRecord { candidates, chosen };
            change(&mut record);
            builder.push(record);
        }
        let (transcript, _) = builder.finish();
        let tokens = transcript.tokens().unwrap();
        let finished = Finished {
            request_id: header.id(),
            response_hash: response_hash(&tokens),
            transcript_root: transcript.root(),
            prompt_tokens: PROMPT.len() as u32,
            completion_tokens: TOKENS,
        };
        let receipt = Receipt { epoch: 5, epoch_seed, executor: AccountId::new([2; 32]), finished };
        let worker = Keypair::from_suri("//Bob//worker").unwrap();
        let signature = worker.sign(receipt.signing_hash(&genesis()).as_bytes());
        let signed = SignedReceipt { receipt, worker: worker.public(), signature };
        SavedReceipt {
            genesis: genesis(),
            model: "demo".into(),
            gateway: AccountId::new([1; 32]),
            proof: Tail {
                request_id: header.id(),
                receipt: hex::encode(signed.encode()),
                header: hex::encode(header.encode()),
                transcript: hex::encode(transcript.encode()),
                prompt_tokens: PROMPT.to_vec(),
                constraint: Some(hex::encode(constraint.encode())),
            },
            answer: "forty tokens".into(),
        }
    }

    fn honest() -> SavedReceipt {
        receipt_of(|_| {})
    }

    fn error_of(receipt: &SavedReceipt) -> String {
        format!("{:#}", receipt.check().unwrap_err())
    }

    #[test]
    fn an_honest_answer_passes_and_survives_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let receipt = honest();
        let loaded = SavedReceipt::load(&receipt.save(folder.path()).unwrap()).unwrap();
        assert_eq!(loaded, receipt);
        let checked = loaded.check().unwrap();
        assert_eq!(checked.tokens, TOKENS as usize);
        assert!(checked.to_string().contains("40 tokens, each the sampler's own choice"));
    }

    #[test]
    fn a_choice_that_is_not_the_samplers_is_seen_though_everything_is_signed() {
        let dressed_up = receipt_of(|record| record.chosen = 1 - record.chosen);
        assert!(error_of(&dressed_up).contains("does not replay"), "{}", error_of(&dressed_up));
    }

    #[test]
    fn every_changed_byte_of_the_signed_receipt_is_seen() {
        let receipt = honest();
        let bytes = hex::decode(&receipt.proof.receipt).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let proof = Tail { receipt: hex::encode(changed), ..receipt.proof.clone() };
            assert!(SavedReceipt { proof, ..receipt.clone() }.check().is_err(), "byte {place}");
        }
    }

    #[test]
    fn every_changed_byte_of_header_and_transcript_is_seen() {
        let receipt = honest();
        let flipped = |text: &str, place: usize| {
            let mut bytes = hex::decode(text).unwrap();
            bytes[place] ^= 1;
            hex::encode(bytes)
        };
        for place in 0..receipt.proof.header.len() / 2 {
            let header = flipped(&receipt.proof.header, place);
            let proof = Tail { header, ..receipt.proof.clone() };
            assert!(SavedReceipt { proof, ..receipt.clone() }.check().is_err(), "header byte {place}");
        }
        for place in 0..receipt.proof.transcript.len() / 2 {
            let transcript = flipped(&receipt.proof.transcript, place);
            let proof = Tail { transcript, ..receipt.proof.clone() };
            assert!(SavedReceipt { proof, ..receipt.clone() }.check().is_err(), "transcript byte {place}");
        }
    }

    #[test]
    fn another_prompt_chain_or_request_is_seen() {
        let receipt = honest();
        let other_prompt = Tail { prompt_tokens: vec![4, 5, 7], ..receipt.proof.clone() };
        assert!(error_of(&SavedReceipt { proof: other_prompt, ..receipt.clone() }).contains("replay"));
        for constraint in [None, Some("0000".into())] {
            let other = Tail { constraint, ..receipt.proof.clone() };
            assert!(error_of(&SavedReceipt { proof: other, ..receipt.clone() }).contains("constraint"));
        }
        let other_chain = SavedReceipt { genesis: H256::zero(), ..receipt.clone() };
        assert!(error_of(&other_chain).contains("signature"));
        let other_request = Tail { request_id: H256::zero(), ..receipt.proof.clone() };
        assert!(error_of(&SavedReceipt { proof: other_request, ..receipt.clone() })
            .contains("different requests"));
    }

    #[test]
    fn garbage_is_refused_by_name() {
        let receipt = honest();
        let no_hex = Tail { header: "zz".into(), ..receipt.proof.clone() };
        assert!(error_of(&SavedReceipt { proof: no_hex, ..receipt.clone() }).contains("header is not hex"));
        let longer = Tail { transcript: receipt.proof.transcript.clone() + "00", ..receipt.proof.clone() };
        assert!(error_of(&SavedReceipt { proof: longer, ..receipt.clone() }).contains("1 more bytes"));
        let empty = Tail { receipt: String::new(), ..receipt.proof.clone() };
        assert!(
            error_of(&SavedReceipt { proof: empty, ..receipt.clone() }).contains("receipt does not decode")
        );
    }
}
