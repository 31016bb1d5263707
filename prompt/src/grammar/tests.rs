use super::*;
use crate::test_support;
use proptest::prelude::*;
use serde::Deserialize;

fn grammar(schema: Value) -> Grammar {
    Grammar { before: String::new(), schema: schema.to_string(), after: String::new() }
}

/// Writes tokens that the grammar allows, chosen by the numbers given; `None` when the numbers run out first.
fn write(grammar: &Grammar, choices: impl IntoIterator<Item = u32>) -> Option<String> {
    let tokenizer = test_support::tokenizer();
    let mut state = GrammarState::new(Arc::clone(&tokenizer), grammar);
    let mut written = Vec::new();
    for choice in choices {
        let allowed = state.allowed().unwrap();
        let list: Vec<u32> = (0..tokenizer.vocab_size()).filter(|t| allowed.contains(*t)).collect();
        let token = list[choice as usize % list.len()];
        if tokenizer.is_eos(token) {
            return Some(tokenizer.decode(&written));
        }
        state.accept(token);
        written.push(token);
    }
    None
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    age: u8,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tag {
    Red,
    Green,
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
        },
        "required": ["name", "age"],
        "additionalProperties": false,
        "$defs": {"tag": {"enum": ["red", "green"]}},
    })
}

#[test]
fn an_end_comes_where_the_text_is_complete_and_nowhere_else() {
    let tokenizer = test_support::tokenizer();
    let mut state = GrammarState::new(Arc::clone(&tokenizer), &grammar(json!({"const": {"a": true}})));
    let text = "{\"a\": true}";
    for token in tokenizer.encode(text).unwrap() {
        let allowed = state.allowed().unwrap();
        assert!(allowed.contains(token) && !allowed.contains(test_support::IM_END), "{token}");
        assert!(!allowed.contains(test_support::IM_START) && !allowed.contains(1_000_000));
        state.accept(token);
    }
    assert!(state.allowed().unwrap().contains(test_support::IM_END));
    assert!(state.allowed().unwrap().contains(256), "every end token of the model");
    // What was not allowed leaves only the end.
    state.accept('x' as u32);
    assert_eq!(state.allowed(), Some(TokenSet::of(&[256, test_support::IM_END])));
}

#[test]
fn texts_around_the_value_are_kept() {
    let call = Grammar {
        before: "<tool_call>\n".into(),
        schema: r#"{"const":"x"}"#.into(),
        after: "\n</tool_call>".into(),
    };
    assert_eq!(check(&call), Ok(()));
    let text = write(&call, (0..100).map(|i| i * 7)).unwrap();
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["<tool_call>", "\"x\"", "</tool_call>"],
        "{text:?}"
    );
}

#[test]
fn white_space_ends() {
    // The last allowed token is white space wherever white space is allowed: the longest way through.
    let text = write(&grammar(json!({"const": [1, 2]})), std::iter::repeat_n(u32::MAX, 400));
    assert!(text.is_none_or(|text| text.len() < 400));
}

#[test]
fn what_cannot_be_followed_says_why_and_allows_only_the_end() {
    for (schema, part) in [
        (json!({"type": "wizard"}), "wizard"),
        (json!({"type": "string", "pattern": "("}), ""),
        (json!({"type": "array", "minItems": 3, "maxItems": 2}), "minItems"),
        (json!({"$ref": "#/nowhere"}), "nowhere"),
        (json!({"$ref": "https://example.org/schema"}), ""),
        (json!({"type": "string", "maxLength": u64::MAX}), "maxLength"),
        (json!({"type": "array", "minItems": -1}), "minItems"),
        (json!({"type": "integer", "minimum": -1e300}), "minimum"),
        (json!({"type": "string", "pattern": "((a{1000}){0,1000})"}), "pattern"),
        (json!([1]), "object"),
        (json!({"not": {}}), ""),
    ] {
        let grammar = grammar(schema);
        let error = check(&grammar).expect_err(&grammar.schema);
        assert!(error.0.contains(part) && error.0.len() <= 400, "{error}");
        let mut state = GrammarState::new(test_support::tokenizer(), &grammar);
        assert_eq!(state.allowed(), Some(TokenSet::of(&[256, test_support::IM_END])));
        state.accept('x' as u32);
        assert_eq!(state.allowed(), Some(TokenSet::of(&[256, test_support::IM_END])));
    }
}

#[test]
fn hostile_schemas_cost_little() {
    let nested =
        (0..100).fold(json!({"type": "string"}), |inner, _| json!({"type": "array", "items": inner}));
    let doubled =
        (0..40).fold(json!({"type": "string"}), |inner, _| json!({"anyOf": [inner, {"allOf": [{}]}]}));
    let powers: serde_json::Map<String, Value> = (0..30)
        .map(|i| {
            let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
            (
                format!("d{i}"),
                json!({"allOf": [{"anyOf": [next.clone(), {"minLength": i}]}, {"anyOf": [next]}]}),
            )
        })
        .collect();
    for schema in [
        nested,
        doubled,
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"$defs": powers, "$ref": "#/$defs/d0"}),
        json!({"type": "string", "pattern": "^(((a{1000}){1000}){1000}){1000}$"}),
        json!({"type": "string", "pattern": "^(a|b|ab)*(a|b|ab){500}c$"}),
        json!({"type": "string", "pattern": "(.*a){200}"}),
        json!({"type": "array", "items": {"type": "array", "minItems": 1 << 20}, "minItems": 1 << 20}),
        json!({"type": "number", "multipleOf": 1e-300}),
        json!({"type": "integer", "minimum": -1e300, "maximum": 1e300}),
        json!({"enum": (0..3_000).map(|i| format!("v{i}")).collect::<Vec<_>>()}),
    ] {
        let grammar = grammar(schema);
        let started = std::time::Instant::now();
        let checked = check(&grammar);
        println!("{:?} {checked:?} {:.60}", started.elapsed(), grammar.schema);
        let mut state = GrammarState::new(test_support::tokenizer(), &grammar);
        for _ in 0..20 {
            let Some(allowed) = state.allowed() else { break };
            let Some(token) = (0..256).find(|t| allowed.contains(*t)) else { break };
            state.accept(token);
        }
        println!("{:?}", started.elapsed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_written_satisfies_the_schema(choices in proptest::collection::vec(any::<u32>(), 400)) {
        let Some(text) = write(&grammar(person()), choices) else { return Ok(()) };
        let person: Person = serde_json::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
        prop_assert!(person.name.chars().count() <= 6 && person.age <= 120 && person.tags.len() <= 2, "{}", text);
    }

    #[test]
    fn any_schema_is_judged(text in "[\\[\\]{}\",:a-z0-9$#/]{0,60}", fields in proptest::collection::vec(
        (proptest::sample::select(vec!["type", "items", "anyOf", "allOf", "enum", "const", "pattern", "properties", "required", "minimum", "$ref"]),
         proptest::sample::select(vec![json!("string"), json!("object"), json!([1, "a"]), json!({"a": {"type": "integer"}}), json!("[a-c"), json!("#"), json!(-3.5), json!(null)])), 0..5)) {
        let _ = check(&Grammar { before: text.clone(), schema: text.clone(), after: String::new() });
        let schema: serde_json::Map<String, Value> = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        for before in ["", text.as_str()] {
            let grammar = Grammar { before: before.into(), schema: Value::Object(schema.clone()).to_string(), after: String::new() };
            let judged = check(&grammar);
            let mut state = GrammarState::new(test_support::tokenizer(), &grammar);
            prop_assert!(!state.allowed().unwrap().is_empty());
            if before.is_empty() && judged.is_ok() {
                prop_assert!(state.allowed().unwrap() != TokenSet::of(&[256, test_support::IM_END]));
            }
        }
    }
}
