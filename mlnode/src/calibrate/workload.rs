//! What is asked while calibrating: prompts of many kinds and lengths, sampled in many ways. The same seed asks the same.

use rand::{seq::IndexedRandom, Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use starling_primitives::{
    request::{prompt_hash, RequestHeader, SamplingParams},
    tape::tape_seed,
    H256,
};
use starling_prompt::{openai::ChatMessage, Tokenizer};
use std::sync::Arc;

/// Letters of a word that questions are about, at least.
const WORD_LETTERS: usize = 4;
/// Words that are drawn from the vocabulary at most.
const WORDS_MAX: usize = 4_096;
/// Tokens of a phrase that is repeated, at most.
const PHRASE_MAX: usize = 16;

/// Kinds of prompts, by what the model makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A conversation in the model's own template: sharp distributions. The answer ends where the model ends it.
    Chat,
    /// Tokens without a pattern: flat distributions. Never ends by itself.
    Random,
    /// A phrase again and again: the same distribution, and the same rounding, many times. Never ends by itself.
    Repeated,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Chat, Self::Random, Self::Repeated];
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its kind.
    pub kind: Kind,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// What the generation is bound to.
    pub header: RequestHeader,
    /// Seed of the tape.
    pub tape_seed: H256,
}

impl Question {
    fn new(kind: Kind, prompt: Vec<u32>, sampling: SamplingParams, max_tokens: u32, nonce: [u8; 32]) -> Self {
        let header = RequestHeader {
            profile: 0,
            prompt_hash: prompt_hash(&prompt),
            sampling,
            max_tokens,
            constraint: None,
            nonce,
        };
        let tape_seed = tape_seed(&H256(nonce), &header.id());
        Self { kind, prompt, header, tape_seed }
    }
}

/// Bounds of what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens of a prompt at most. Conversations that would be longer are replaced by other kinds.
    pub prompt_max: u32,
    /// Tokens of an answer at most.
    pub answer_max: u32,
}

/// Makes questions.
#[derive(Debug)]
pub struct Workload {
    rng: ChaCha8Rng,
    tokenizer: Arc<Tokenizer>,
    words: Vec<String>,
    vocab_size: u32,
    top_k: u8,
    sizes: Sizes,
}

impl Workload {
    /// Questions for a model with this tokenizer, so many token ids and `top_k` candidates.
    pub fn new(tokenizer: Arc<Tokenizer>, vocab_size: u32, top_k: u8, sizes: Sizes, seed: u64) -> Self {
        let words =
            (0..tokenizer.vocab_size()).filter_map(|token| word(&tokenizer, token)).take(WORDS_MAX).collect();
        Self { rng: ChaCha8Rng::seed_from_u64(seed), tokenizer, words, vocab_size, top_k, sizes }
    }

    /// The next question of any kind.
    pub fn any(&mut self) -> Question {
        let params = self.params();
        let max_tokens = self.skewed(1, self.sizes.answer_max);
        let kind = *Kind::ALL.choose(&mut self.rng).unwrap_or(&Kind::Random);
        let (kind, prompt) = match kind {
            Kind::Chat => match self.conversation() {
                Some(prompt) => (Kind::Chat, prompt),
                None => (Kind::Random, self.random()),
            },
            Kind::Random => (Kind::Random, self.random()),
            Kind::Repeated => (Kind::Repeated, self.repeated()),
        };
        Question::new(kind, prompt, params, max_tokens, self.rng.random())
    }

    /// A client's question: one sentence in the model's template, sampled with these parameters. `None` where the
    /// template or the vocabulary do not allow it.
    pub fn client(&mut self, params: SamplingParams) -> Option<Question> {
        let text = self.sentence()?;
        let prompt = self.tokenizer.render(&[ChatMessage::new("user", &text)]).ok()?;
        let nonce = self.rng.random();
        Some(Question::new(Kind::Chat, prompt, params, self.sizes.answer_max, nonce))
    }

    /// A prompt without a pattern, as sprints have them: of half the longest prompt's tokens, to be continued to the end.
    pub fn patternless(&mut self, params: SamplingParams) -> Question {
        let length = (self.sizes.prompt_max / 2).max(1);
        let prompt = (0..length).map(|_| self.rng.random_range(0..self.vocab_size.max(1))).collect();
        Question::new(Kind::Random, prompt, params, self.sizes.answer_max, self.rng.random())
    }

    fn params(&mut self) -> SamplingParams {
        let rng = &mut self.rng;
        let mut pick = |choices: &[u16]| choices.choose(rng).copied().unwrap_or_default();
        let mut params = SamplingParams {
            temperature_milli: pick(&[0, 200, 500, 700, 1_000, 1_000, 1_500, 2_000]),
            top_p: pick(&[10_000, 10_000, 9_500, 8_000]),
            min_p: pick(&[0, 0, 0, 500]),
            top_k: pick(&[0, 0, 5, u16::from(self.top_k)]) as u8,
            ..SamplingParams::GREEDY
        };
        params.top_k = params.top_k.min(self.top_k);
        if self.rng.random_ratio(1, 8) {
            params.frequency_penalty_milli = 500;
            params.presence_penalty_milli = 300;
        }
        params
    }

    /// From `low` to `high`, each doubling as likely as the last: lengths of all orders.
    fn skewed(&mut self, low: u32, high: u32) -> u32 {
        let (from, to) = (f64::from(low.max(1)).ln(), (f64::from(high.max(low)) + 1.0).ln());
        let drawn = self.rng.random_range(from..to).exp() as u32;
        drawn.clamp(low, high.max(low))
    }

    fn conversation(&mut self) -> Option<Vec<u32>> {
        let mut messages = Vec::new();
        if self.rng.random_ratio(1, 4) {
            messages.push(ChatMessage::new("system", "Answer in one short sentence."));
        }
        for _ in 0..self.rng.random_range(0..3u32) {
            messages.push(ChatMessage::new("user", &self.sentence()?));
            messages.push(ChatMessage::new("assistant", &self.sentence()?));
        }
        messages.push(ChatMessage::new("user", &self.sentence()?));
        let prompt = self.tokenizer.render(&messages).ok()?;
        (prompt.len() <= self.sizes.prompt_max as usize).then_some(prompt)
    }

    fn sentence(&mut self) -> Option<String> {
        let word = self.words.choose(&mut self.rng)?;
        Some(match self.rng.random_range(0..6u32) {
            0 | 1 => format!("What is a {word}?"),
            2 => format!("Define {word}."),
            3 => format!("Tell me about a {word}."),
            4 => format!("Name some kinds of {word}."),
            _ => format!("Count to {}.", self.rng.random_range(5..150u32)),
        })
    }

    fn random(&mut self) -> Vec<u32> {
        let length = self.skewed(1, self.sizes.prompt_max);
        (0..length).map(|_| self.rng.random_range(0..self.vocab_size.max(1))).collect()
    }

    fn repeated(&mut self) -> Vec<u32> {
        let length = self.skewed(1, self.sizes.prompt_max) as usize;
        let phrase = self.random();
        phrase.iter().take(PHRASE_MAX).cycle().take(length).copied().collect()
    }
}

/// The token as a word of its own, if it is one.
fn word(tokenizer: &Tokenizer, token: u32) -> Option<String> {
    let text = tokenizer.decode(&[token]);
    let word = text.strip_prefix(' ')?;
    let fits = word.len() >= WORD_LETTERS && word.bytes().all(|byte| byte.is_ascii_lowercase());
    fits.then(|| word.to_owned())
}
