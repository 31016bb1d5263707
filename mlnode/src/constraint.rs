//! A request's constraint at work: what it does to the logits before the best candidates are taken.

use starling_primitives::{
    constraint::{Constraint, TokenBias},
    transcript::TokenRecord,
};
use starling_prompt::{GrammarState, TokenSet, Tokenizer};
use std::sync::Arc;

/// Takes the place of the logits of tokens that are not allowed. A number, so that differences of log-probabilities are
/// numbers too; its probability is 0 whatever the others are.
const DISALLOWED: f32 = -1e30;

/// Adds the bias, then takes away what is not allowed. Every engine must do the same in the same order: a verifier
/// repeats it.
pub fn constrain(logits: &mut [f32], bias: &[TokenBias], allowed: Option<&TokenSet>) {
    for TokenBias { token, milli } in bias {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit += *milli as f32 / 1_000.0;
        }
    }
    let Some(allowed) = allowed else { return };
    let words = allowed.words().iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(32).zip(words) {
        match word {
            0 => logits.fill(DISALLOWED),
            u32::MAX => {}
            word => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = DISALLOWED;
                    }
                }
            }
        }
    }
}

/// A constraint and how far an answer has come in it.
#[derive(Debug)]
pub struct Constrained {
    /// Ascending by token.
    pub bias: Vec<TokenBias>,
    grammar: Option<GrammarState>,
}

impl Constrained {
    /// Before the first token. Compiling a grammar takes milliseconds: not for the engine's thread.
    pub fn new(constraint: &Constraint, tokenizer: &Arc<Tokenizer>) -> Self {
        let state = |grammar| GrammarState::new(Arc::clone(tokenizer), grammar);
        Self { bias: constraint.logit_bias.clone(), grammar: constraint.grammar.as_ref().map(state) }
    }

    /// The tokens that may come next; `None`: any.
    pub fn allowed(&mut self) -> Option<TokenSet> {
        self.grammar.as_mut().and_then(GrammarState::allowed)
    }

    /// Takes the token that was chosen.
    pub fn accept(&mut self, token: u32) {
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token);
        }
    }

    /// Takes what an executor committed to next. Returns what was allowed there, or the candidate that was not.
    pub fn follow(&mut self, record: &TokenRecord) -> Result<Option<TokenSet>, u32> {
        let allowed = self.allowed();
        if let Some(set) = &allowed {
            if let Some(wrong) = record.candidates.iter().find(|candidate| !set.contains(candidate.token)) {
                return Err(wrong.token);
            }
        }
        if let Some(chosen) = record.chosen() {
            self.accept(chosen.token);
        }
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_primitives::constraint::Grammar;
    use std::path::Path;

    #[test]
    fn bias_and_grammar_act_on_the_logits() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model");
        let tokenizer = Arc::new(Tokenizer::load_from_folder(&folder).unwrap());
        let schema = r#"{"enum":[true,false]}"#.to_owned();
        let grammar = Some(Grammar { before: String::new(), schema, after: String::new() });
        let logit_bias = vec![TokenBias { token: 1, milli: -1_500 }, TokenBias { token: 9_999, milli: 1 }];
        let mut constrained = Constrained::new(&Constraint { logit_bias, grammar }, &tokenizer);
        let allowed = constrained.allowed().unwrap();
        // More logits than tokens, as models with a padded embedding have.
        let mut logits = vec![0.25; 4_111];
        constrain(&mut logits, &constrained.bias, None);
        assert_eq!((logits[0], logits[1]), (0.25, -1.25));
        constrain(&mut logits, &[], Some(&allowed));
        for (token, logit) in (0u32..).zip(&logits) {
            let text = tokenizer.token_text(token).map(|(text, _)| text).unwrap_or_default();
            let fits = !text.is_empty() && ["true", "false"].iter().any(|whole| whole.starts_with(&text));
            assert_eq!(*logit > DISALLOWED, fits, "{token} {text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_size_of_row_will_do(length in 0usize..200, token in 0u32..300) {
            let mut logits = vec![1.0; length];
            constrain(&mut logits, &[TokenBias { token, milli: 2_000 }], None);
            prop_assert_eq!(logits.iter().filter(|l| **l == 3.0).count(), usize::from((token as usize) < length));
        }
    }
}
