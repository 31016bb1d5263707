//! The tokens that a grammar allows next.
//!
//! What a grammar allows is part of the protocol: the executor removes all other tokens before it takes its candidates,
//! and the verifier does the same before it compares. Both call this with the same tokenizer and the same tokens, and
//! the library underneath is pinned to one version. So nothing here may fail: a grammar that cannot be followed, for
//! whatever reason, allows the end of the answer and nothing else.

use crate::{tokenizer::guarded, Tokenizer};
use llguidance::{
    api::{ParserLimits, TopLevelGrammar},
    earley::SlicedBiasComputer,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
    Matcher, ParserFactory,
};
use serde_json::{json, Value};
use starling_primitives::constraint::Grammar;
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// What one grammar may cost. In the library's own units of work and never in time, so that two machines agree. A schema
/// as long as [`starling_primitives::constraint::MAX_GRAMMAR_BYTES`] allows stays far below, unless it is meant to hurt.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        // One to two kilobytes each.
        max_lexer_states: 10_000,
        max_grammar_size: 100_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

/// The largest `minItems`, `maxLength` and so on of a schema. No answer comes near.
const MAX_COUNT: u64 = 1 << 20;
/// The largest `minimum`, `maximum` and so on: 2^53. The library computes with 64 bits.
const MAX_LIMIT: f64 = 9_007_199_254_740_992.0;
/// Repetitions of one pattern, multiplied: the library writes counted ones out.
const MAX_REPETITIONS: u64 = 10_000;
/// References that a schema may make.
const MAX_REFERENCES: usize = 256;
/// White space that a value may have between its parts, at most once in a place: the usual ways to lay out JSON, and
/// none that never ends.
const WHITE_SPACE: &str = r" |\n {0,32}";

/// Why a grammar cannot be followed; for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct GrammarError(String);

/// Compiles grammars for one vocabulary.
pub(crate) struct Compiler {
    factory: ParserFactory,
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}

impl Compiler {
    /// For the tokens that these bytes belong to; a token without bytes is never allowed.
    pub(crate) fn new(mut tokens: Vec<Vec<u8>>) -> Result<Self, GrammarError> {
        // The library wants an end token of its own. The real ones are looked after by `GrammarState`.
        tokens.push(Vec::new());
        let count =
            u32::try_from(tokens.len()).map_err(|_| GrammarError("the vocabulary is too large".into()))?;
        let build = || {
            let trie = TokTrie::from(&TokRxInfo::new(count, count - 1), &tokens);
            Self::over(Arc::new(ApproximateTokEnv::new(trie)), &SlicedBiasComputer::general_slices())
        };
        guarded(build).map_err(GrammarError)
    }

    fn over(vocabulary: TokEnv, slices: &[String]) -> Result<Self, String> {
        let capabilities = InferenceCapabilities::default();
        let mut factory = ParserFactory::new(&vocabulary, capabilities, slices).map_err(|e| e.to_string())?;
        *factory.limits_mut() = limits();
        factory.quiet();
        Ok(Self { factory })
    }

    /// One that knows single bytes only: enough to say whether a grammar compiles, and made in no time.
    fn of_bytes() -> Option<&'static Self> {
        static BYTES: OnceLock<Option<Compiler>> = OnceLock::new();
        BYTES.get_or_init(|| guarded(|| Self::over(ApproximateTokEnv::single_byte_env(), &[])).ok()).as_ref()
    }

    fn compile(&self, grammar: &Grammar) -> Result<Matcher, GrammarError> {
        let schema = read_schema(&grammar.schema)?;
        let top = if grammar.before.is_empty() && grammar.after.is_empty() {
            TopLevelGrammar::from_json_schema(schema)
        } else {
            let (before, after) = (Value::from(&*grammar.before), Value::from(&*grammar.after));
            TopLevelGrammar::from_lark(format!("start: {before} value {after}\nvalue: %json {schema}\n"))
        };
        let compile = || match self.factory.create_parser(top.clone()) {
            Ok(parser) => Ok(Matcher::new(Ok(parser))),
            Err(error) => Err(first_line(&error.to_string())),
        };
        on_deep_stack(|| guarded(compile)).map_err(GrammarError)
    }
}

/// Runs what goes as deep as a schema does. The library bounds the depth for each reference, [`MAX_REFERENCES`] the
/// references, and together they stay below this stack, of which only what is used takes memory.
fn on_deep_stack<T: Send>(run: impl Fn() -> T + Sync) -> T {
    const STACK_BYTES: usize = 512 << 20;
    let deep = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, &run).ok().and_then(|handle| handle.join().ok())
    });
    // Without a thread the caller's own stack must do: it is deep enough for all but hostile schemas.
    deep.unwrap_or_else(run)
}

/// Whether a grammar can be followed at all.
pub(crate) fn check(grammar: &Grammar) -> Result<(), GrammarError> {
    let unavailable = || GrammarError("grammars cannot be compiled".into());
    let mut matcher = Compiler::of_bytes().ok_or_else(unavailable)?.compile(grammar)?;
    match matcher.compute_mask() {
        Ok(mask) if !mask.is_zero() => Ok(()),
        Ok(_) => Err(GrammarError("no text satisfies it".into())),
        Err(error) => Err(GrammarError(first_line(&error.to_string()))),
    }
}

/// The library's messages go on with a dump of its state.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

/// The schema with what is not the client's to say: how white space is laid out.
fn read_schema(text: &str) -> Result<Value, GrammarError> {
    let mut schema: Value =
        serde_json::from_str(text).map_err(|error| GrammarError(format!("it is not JSON: {error}")))?;
    check_counts(&schema)?;
    if references(&schema) > MAX_REFERENCES {
        return Err(GrammarError(format!("it has more than {MAX_REFERENCES} references ('$ref')")));
    }
    let fields = schema.as_object_mut().ok_or_else(|| GrammarError("it is not a JSON object".into()))?;
    fields.insert("x-guidance".into(), json!({"whitespace_pattern": WHITE_SPACE}));
    Ok(schema)
}

/// Recursion is bounded by what the JSON parser lets through.
fn check_counts(schema: &Value) -> Result<(), GrammarError> {
    const COUNTS: [&str; 6] =
        ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"];
    const LIMITS: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
    match schema {
        Value::Array(items) => items.iter().try_for_each(check_counts),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let counts = COUNTS.contains(&name.as_str()) && value.is_number();
            if counts && value.as_u64().is_none_or(|count| count > MAX_COUNT) {
                return Err(GrammarError(format!("'{name}' is not an integer from 0 to {MAX_COUNT}")));
            }
            if LIMITS.contains(&name.as_str()) && value.as_f64().is_some_and(|limit| limit.abs() > MAX_LIMIT)
            {
                return Err(GrammarError(format!(
                    "'{name}' is beyond what a number in JSON can say exactly"
                )));
            }
            match (name.as_str(), value) {
                ("pattern", Value::String(pattern)) => check_pattern(pattern)?,
                ("patternProperties", Value::Object(by_pattern)) => {
                    by_pattern.keys().try_for_each(|pattern| check_pattern(pattern))?;
                }
                _ => {}
            }
            check_counts(value)
        }),
        _ => Ok(()),
    }
}

/// Multiplies what follows a brace: more than the pattern repeats, never less.
fn check_pattern(pattern: &str) -> Result<(), GrammarError> {
    let repetitions = pattern.split('{').skip(1).try_fold(1u64, |product, rest| {
        let counts = rest.split('}').next().unwrap_or_default().split(',');
        let most = counts.filter_map(|count| count.trim().parse().ok()).max().unwrap_or(1u64).max(1);
        product.checked_mul(most).filter(|product| *product <= MAX_REPETITIONS)
    });
    let too_many = || GrammarError(format!("a pattern repeats more than {MAX_REPETITIONS} times"));
    repetitions.map(drop).ok_or_else(too_many)
}

fn references(schema: &Value) -> usize {
    match schema {
        Value::Array(items) => items.iter().map(references).sum(),
        Value::Object(fields) => {
            usize::from(fields.contains_key("$ref")) + fields.values().map(references).sum::<usize>()
        }
        _ => 0,
    }
}

/// Tokens that are allowed; a bit for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u32>,
}

impl TokenSet {
    fn of(tokens: &[u32]) -> Self {
        let mut set = Self { words: Vec::new() };
        tokens.iter().for_each(|token| set.insert(*token));
        set
    }

    fn insert(&mut self, token: u32) {
        let place = token as usize / 32;
        if self.words.len() <= place {
            self.words.resize(place + 1, 0);
        }
        if let Some(word) = self.words.get_mut(place) {
            *word |= 1 << (token % 32);
        }
    }

    fn remove(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word &= !(1 << (token % 32));
        }
    }

    /// Whether a token is in it.
    pub fn contains(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// 32 tokens a word, the lowest in the lowest bit. Tokens behind the last word are not in it.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

/// How far an answer has come in its grammar.
pub struct GrammarState {
    /// Absent when the grammar does not compile.
    matcher: Option<Matcher>,
    tokenizer: Arc<Tokenizer>,
}

impl fmt::Debug for GrammarState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarState").field("compiled", &self.matcher.is_some()).finish_non_exhaustive()
    }
}

impl GrammarState {
    /// Before the first token. Compiling takes milliseconds.
    pub fn new(tokenizer: Arc<Tokenizer>, grammar: &Grammar) -> Self {
        let matcher = tokenizer.compiler().and_then(|compiler| compiler.compile(grammar).ok());
        Self { matcher, tokenizer }
    }

    /// The tokens that may come next. End tokens are among them where the text is complete, and only they are where the
    /// grammar cannot be followed any further. `None`: any token, because the tokenizer knows no end either.
    pub fn allowed(&mut self) -> Option<TokenSet> {
        let ends = &self.tokenizer.bundle().eos_token_ids;
        let allowed = self.matcher.as_mut().and_then(|matcher| text_tokens(matcher, ends));
        Some(allowed.unwrap_or_else(|| TokenSet::of(ends))).filter(|set| !set.is_empty())
    }

    /// Takes the token that was chosen. One that was not allowed leaves a grammar that cannot be followed.
    pub fn accept(&mut self, token: u32) {
        if let Some(matcher) = &mut self.matcher {
            if matcher.consume_token(token).is_err() {
                self.matcher = None;
            }
        }
    }
}

/// `None` when there is no way on but to end.
fn text_tokens(matcher: &mut Matcher, ends: &[u32]) -> Option<TokenSet> {
    if matcher.is_stopped() {
        return None;
    }
    let mut set = TokenSet { words: matcher.compute_mask().ok()?.as_slice().to_vec() };
    let last = matcher.tok_env().ok()?.eos_token();
    set.remove(last);
    if matcher.is_accepting().ok()? {
        ends.iter().for_each(|end| set.insert(*end));
    }
    (!set.is_empty()).then_some(set)
}

#[cfg(test)]
mod tests;
