//! What the tests and the benchmark share: strategies, a realistic model of next-token distributions, and a
//! generation loop.
#![allow(dead_code, reason = "the benchmark uses a part")]

use proptest::prelude::*;
use rand_chacha::{
    rand_core::{RngCore, SeedableRng},
    ChaCha8Rng,
};
use starling_primitives::{
    records::{response_hash, Finished},
    request::{prompt_hash, RequestHeader, SamplingParams},
    sampler,
    transcript::{Candidate, TokenRecord, Transcript, TranscriptBuilder, MAX_TAIL_Q, Q_UNIT},
    H256,
};
use std::collections::BTreeMap;

/// Temperature 1 without filters.
pub(crate) const PLAIN: SamplingParams =
    SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY };

pub(crate) fn header(sampling: SamplingParams, max_tokens: u32) -> RequestHeader {
    RequestHeader {
        profile: 3,
        prompt_hash: prompt_hash(&PROMPT),
        sampling,
        max_tokens,
        constraint: None,
        nonce: [7; 32],
    }
}

pub(crate) const PROMPT: [u32; 4] = [1, 22, 333, 4_444];

/// Sorts and keeps one candidate for each token.
pub(crate) fn sorted(candidates: impl IntoIterator<Item = (u32, u16)>) -> Vec<Candidate> {
    let distinct: BTreeMap<u32, u16> = candidates.into_iter().collect();
    let mut candidates: Vec<_> = distinct.into_iter().map(|(token, q)| Candidate { token, q }).collect();
    candidates.sort_by_key(|candidate| (candidate.q, candidate.token));
    candidates
}

pub(crate) fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let token = prop_oneof![0u32..40, 0u32..4_096, 0u32..151_936, any::<u32>()];
    let q = prop_oneof![0u16..12, 0..=MAX_TAIL_Q];
    let lone = prop_oneof![0u16..=4_095];
    prop_oneof![
        20 => prop::collection::vec((token.clone(), q), 1..=20).prop_map(sorted),
        1 => (token, lone).prop_map(|one| sorted([one])),
    ]
}

pub(crate) fn any_record() -> impl Strategy<Value = TokenRecord> {
    (any_candidates(), any::<prop::sample::Index>()).prop_map(|(candidates, chosen)| {
        let chosen = chosen.index(candidates.len()) as u8;
        TokenRecord { candidates, chosen }
    })
}

pub(crate) fn any_params() -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![Just(0u16), Just(1_000u16), 1u16..=2_000];
    let top_p = prop_oneof![Just(10_000u16), 1u16..=10_000];
    let min_p = prop_oneof![Just(0u16), 0u16..=10_000];
    (temperature, top_p, min_p, 0u8..=20).prop_map(|(temperature_milli, top_p, min_p, top_k)| {
        SamplingParams { temperature_milli, top_p, min_p, top_k, ..SamplingParams::GREEDY }
    })
}

/// How token ids lie in the vocabulary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ids {
    /// Frequent tokens have small ids, as byte-pair tokenizers number them: log-uniform.
    ByFrequency,
    /// The worst case: uniform.
    Uniform,
}

/// A stand-in for a language model: draws distributions, not text.
pub(crate) struct Model {
    pub(crate) rng: ChaCha8Rng,
    pub(crate) vocab: u32,
    pub(crate) ids: Ids,
}

impl Model {
    pub(crate) fn new(seed: u64, vocab: u32, ids: Ids) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), vocab, ids }
    }

    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn id(&mut self) -> u32 {
        let u = self.uniform();
        match self.ids {
            Ids::Uniform => (u * f64::from(self.vocab)) as u32,
            Ids::ByFrequency => (f64::from(self.vocab).powf(u)) as u32 - 1,
        }
    }

    /// The top 20 of a peaked distribution, as instruction-tuned models have them: 45 % of the positions are all but
    /// certain, 30 % confident, 25 % open; what the best token leaves is a Zipf tail.
    pub(crate) fn peaked(&mut self) -> Vec<Candidate> {
        let kind = self.uniform();
        let u = self.uniform();
        let rest = match kind {
            _ if kind < 0.45 => 10f64.powf(-2.0 - 4.0 * u),
            _ if kind < 0.75 => 10f64.powf(-0.7 - 1.3 * u),
            _ => 0.2 + 0.7 * u,
        };
        let exponent = 1.2 + 0.6 * self.uniform();
        self.zipf(1.0 - rest, rest, exponent)
    }

    /// 20 candidates of a flat distribution: no best token, a slow tail.
    pub(crate) fn flat(&mut self) -> Vec<Candidate> {
        self.zipf(0.0, 1.0, 0.8)
    }

    fn zipf(&mut self, best: f64, rest: f64, exponent: f64) -> Vec<Candidate> {
        let norm: f64 = (1..2_000).map(|rank| f64::from(rank).powf(-exponent)).sum();
        let mut probabilities: Vec<f64> =
            (1..=20).map(|rank| rest * f64::from(rank).powf(-exponent) / norm).collect();
        probabilities.push(best);
        probabilities.sort_by(|a, b| b.total_cmp(a));
        probabilities.truncate(20);
        probabilities.retain(|p| *p >= 2f64.powi(-16));
        let mut candidates = BTreeMap::new();
        for p in probabilities {
            let mut id = self.id();
            while candidates.contains_key(&id) {
                id = (id + 1) % self.vocab;
            }
            candidates.insert(id, (-p.ln() * f64::from(Q_UNIT)).round() as u16);
        }
        sorted(candidates)
    }
}

/// Runs a generation over the distributions that `next` gives.
pub(crate) fn generate(
    header: RequestHeader,
    tape_seed: &H256,
    tokens: u32,
    mut next: impl FnMut() -> Vec<Candidate>,
) -> (Transcript, Finished) {
    let request_id = header.id();
    let sampling = header.sampling;
    let mut builder = TranscriptBuilder::new(header);
    let mut chosen_tokens = Vec::new();
    for position in 0..tokens {
        let candidates = next();
        let chosen = sampler::sample(tape_seed, position, &candidates, &sampling).expect("valid candidates");
        chosen_tokens.push(candidates[chosen].token);
        builder.push(TokenRecord { candidates, chosen: chosen as u8 });
    }
    let (transcript, _) = builder.finish();
    let finished = Finished {
        request_id,
        response_hash: response_hash(&chosen_tokens),
        transcript_root: transcript.root(),
        prompt_tokens: PROMPT.len() as u32,
        completion_tokens: tokens,
    };
    (transcript, finished)
}
