//! Constraints: their bounds, and how a header binds them.

use crate::common::{header, PLAIN};
use ::codec::{Decode, Encode};
use proptest::prelude::*;
use starling_primitives::constraint::{
    check_bound, Constraint, ConstraintError, Grammar, TokenBias, MAX_BIASED_TOKENS, MAX_BIAS_MILLI,
    MAX_GRAMMAR_BYTES,
};

const VOCAB: u32 = 4_096;

fn bias(list: &[(u32, i32)]) -> Constraint {
    let logit_bias = list.iter().map(|&(token, milli)| TokenBias { token, milli }).collect();
    Constraint { logit_bias, grammar: None }
}

fn grammar(schema: &str) -> Constraint {
    let grammar = Grammar { before: String::new(), schema: schema.into(), after: String::new() };
    Constraint { logit_bias: Vec::new(), grammar: Some(grammar) }
}

#[test]
fn bounds_are_named() {
    let many: Vec<_> = (0..=MAX_BIASED_TOKENS as u32).map(|token| (token, 1)).collect();
    let cases = [
        (Constraint::default(), ConstraintError::Empty),
        (bias(&many), ConstraintError::BiasCount),
        (bias(&[(1, 0)]), ConstraintError::BiasRange),
        (bias(&[(1, MAX_BIAS_MILLI + 1)]), ConstraintError::BiasRange),
        (bias(&[(1, i32::MIN)]), ConstraintError::BiasRange),
        (bias(&[(2, 1), (2, 1)]), ConstraintError::BiasOrder),
        (bias(&[(2, 1), (1, 1)]), ConstraintError::BiasOrder),
        (bias(&[(VOCAB, 1)]), ConstraintError::BiasToken),
        (grammar(&"x".repeat(MAX_GRAMMAR_BYTES + 1)), ConstraintError::GrammarLength),
    ];
    for (constraint, error) in cases {
        assert_eq!(constraint.check(VOCAB), Err(error));
    }
    assert_eq!(bias(&many[1..]).check(VOCAB), Ok(()));
    assert_eq!(bias(&[(0, -MAX_BIAS_MILLI), (VOCAB - 1, MAX_BIAS_MILLI)]).check(VOCAB), Ok(()));
    assert_eq!(grammar(&"x".repeat(MAX_GRAMMAR_BYTES)).check(VOCAB), Ok(()));
}

#[test]
fn a_header_is_bound_to_its_constraint_and_to_no_other() {
    let free = header(PLAIN, 9);
    let (one, other) = (bias(&[(1, 5)]), grammar("{}"));
    let mut bound = free.clone();
    bound.constraint = Some(one.hash());
    assert_ne!(bound.id(), free.id());
    assert_eq!(check_bound(None, &free, VOCAB), Ok(()));
    assert_eq!(check_bound(Some(&one), &bound, VOCAB), Ok(()));
    for (constraint, header) in [(None, &bound), (Some(&one), &free), (Some(&other), &bound)] {
        assert_eq!(check_bound(constraint, header, VOCAB), Err(ConstraintError::OtherHash));
    }
}

fn any_constraint() -> impl Strategy<Value = Constraint> {
    let bias = prop::collection::vec((any::<u32>(), any::<i32>()), 0..5);
    let text = || ".{0,20}";
    let grammar = prop::option::of((text(), text(), text()));
    (bias, grammar).prop_map(|(bias, grammar)| Constraint {
        logit_bias: bias.into_iter().map(|(token, milli)| TokenBias { token, milli }).collect(),
        grammar: grammar.map(|(before, schema, after)| Grammar { before, schema, after }),
    })
}

proptest! {
    #[test]
    fn both_encodings_keep_the_hash(constraint in any_constraint(), other in any_constraint()) {
        let scale = Constraint::decode(&mut &constraint.encode()[..]).expect("own encoding");
        let json = serde_json::to_string(&constraint).expect("JSON");
        let json: Constraint = serde_json::from_str(&json).expect("own JSON");
        prop_assert_eq!((scale.hash(), json.hash()), (constraint.hash(), constraint.hash()));
        prop_assert_eq!(other.hash() == constraint.hash(), other == constraint);
    }

    #[test]
    fn foreign_bytes_are_refused_or_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(constraint) = Constraint::decode(&mut &bytes[..]) {
            let _ = constraint.check(VOCAB);
        }
    }
}
