//! `logit_bias` and `response_format` in numbers: the constraint that a header binds.

use crate::openai::{ApiError, ChatCompletionRequest};
use serde_json::{Map, Number, Value};
use starling_primitives::constraint::{Constraint, Grammar, TokenBias, MAX_BIASED_TOKENS, MAX_GRAMMAR_BYTES};

/// The constraint of a request. `forced` is the grammar of a call that `tool_choice` forces; `tools` says whether the
/// model may call one.
pub(crate) fn read(
    request: &ChatCompletionRequest,
    forced: Option<Grammar>,
    tools: bool,
    vocab_size: u32,
) -> Result<Option<Constraint>, ApiError> {
    let logit_bias = read_bias(request.logit_bias.as_ref(), vocab_size)?;
    let format = read_format(request.response_format.as_ref())?;
    let (grammar, param) = match (forced, format) {
        // The answer is the call.
        (Some(forced), _) => (Some(forced), "tools"),
        (None, Some(_)) if tools => {
            let message = "An answer cannot be both a call and in a format of its own; set 'tool_choice'.";
            return Err(ApiError::unsupported("response_format", message));
        }
        (None, format) => (format, "response_format"),
    };
    if let Some(grammar) = &grammar {
        let length = grammar.before.len() + grammar.schema.len() + grammar.after.len();
        if length > MAX_GRAMMAR_BYTES {
            let message = format!("The schema has more than {MAX_GRAMMAR_BYTES} bytes.");
            return Err(ApiError::invalid_value(param, message));
        }
        crate::grammar::check(grammar).map_err(|error| {
            ApiError::invalid_value(
                param,
                format!("Invalid '{param}': the schema cannot be followed: {error}."),
            )
        })?;
    }
    let constraint = Constraint { logit_bias, grammar };
    Ok((constraint != Constraint::default()).then_some(constraint))
}

fn read_bias(bias: Option<&Map<String, Value>>, vocab_size: u32) -> Result<Vec<TokenBias>, ApiError> {
    let invalid = |message: String| ApiError::invalid_value("logit_bias", message);
    let mut list = Vec::new();
    for (token, value) in bias.into_iter().flatten() {
        let id = token.parse().ok().filter(|id: &u32| *id < vocab_size);
        let id = id.ok_or_else(|| invalid(format!("'{token}' is not a token of the model.")))?;
        let value = value.as_f64().filter(|value| (-100.0..=100.0).contains(value));
        let value = value.ok_or_else(|| invalid(format!("The bias of {id} is not between -100 and 100.")))?;
        // Within plus and minus 100,000.
        list.push(TokenBias { token: id, milli: (value * 1_000.0).round() as i32 });
    }
    list.retain(|bias| bias.milli != 0);
    if list.len() > MAX_BIASED_TOKENS {
        return Err(invalid(format!("At most {MAX_BIASED_TOKENS} tokens may have a bias.")));
    }
    list.sort_unstable_by_key(|bias| bias.token);
    // "7" and "07" are two fields of one object.
    if list.windows(2).any(|pair| pair[0].token == pair[1].token) {
        return Err(invalid("A token has two biases.".into()));
    }
    Ok(list)
}

fn read_format(format: Option<&Value>) -> Result<Option<Grammar>, ApiError> {
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    let kind = format.get("type").ok_or_else(|| ApiError::missing("response_format.type"))?;
    let schema = match kind.as_str() {
        Some("text") => return Ok(None),
        Some("json_object") => r#"{"type":"object"}"#.to_owned(),
        Some("json_schema") => {
            let schema = format.pointer("/json_schema/schema");
            let schema = schema.ok_or_else(|| ApiError::missing("response_format.json_schema.schema"))?;
            if !schema.is_object() {
                let message = "The schema must be a JSON object.";
                return Err(ApiError::invalid_type("response_format.json_schema.schema", message));
            }
            text(schema)
        }
        _ => {
            let message = "Supported are the types \"text\", \"json_object\" and \"json_schema\".";
            return Err(ApiError::unsupported("response_format", message));
        }
    };
    Ok(Some(Grammar { before: String::new(), schema, after: String::new() }))
}

/// A JSON value as the one text that every program makes of it. With serde_json's `arbitrary_precision`, which any crate
/// of a build may switch on, numbers would keep the spelling that they came with, and two programs would hash two texts.
pub(crate) fn text(value: &Value) -> String {
    plain(value).to_string()
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => value.into(),
            (_, Some(value), _) => value.into(),
            (_, _, Some(value)) => Number::from_f64(value).map_or(Value::Null, Value::Number),
            _ => Value::Null,
        },
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        other => other.clone(),
    }
}
