//! Tools: what a request offers to the model, and what it forces it to call.

use crate::{
    openai::{ApiError, ChatCompletionRequest},
    tool_calls::ToolFormat,
};
use serde_json::{json, Map, Value};
use starling_primitives::constraint::Grammar;

/// Tools that one request may offer, as in the OpenAI API.
const MAX_TOOLS: usize = 128;
/// Characters of a tool's name at most, as in the OpenAI API.
const MAX_NAME: usize = 64;

/// The tools of a request, as far as the model is to know of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tools {
    /// As the client wrote them: what the chat template is given.
    pub(crate) written: Vec<Value>,
    /// How the model writes a call.
    pub(crate) format: ToolFormat,
    /// The only text that may be written, when a call is forced.
    pub(crate) grammar: Option<Grammar>,
}

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`. `None`: the model is to know of no tool.
pub(crate) fn read(request: &ChatCompletionRequest, template: &str) -> Result<Option<Tools>, ApiError> {
    let written = match &request.tools {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(tools)) => tools.clone(),
        Some(_) => return Err(ApiError::invalid_type("tools", "'tools' must be a list.")),
    };
    if written.len() > MAX_TOOLS {
        return Err(ApiError::invalid_value("tools", format!("At most {MAX_TOOLS} tools are supported.")));
    }
    let tools =
        written.iter().enumerate().map(|(i, tool)| read_tool(i, tool)).collect::<Result<Vec<_>, _>>()?;
    let choice = read_choice(request.tool_choice.as_ref(), &tools)?;
    if tools.is_empty() || choice == Choice::None {
        return Ok(None);
    }
    let format = ToolFormat::of_template(template)
        .ok_or_else(|| ApiError::unsupported("tools", "The model's chat template knows no tools."))?;
    if request.parallel_tool_calls == Some(false) && choice == Choice::Auto {
        let message = "One call at most can only be promised for a call that is forced ('tool_choice').";
        return Err(ApiError::unsupported("parallel_tool_calls", message));
    }
    let grammar = match choice {
        Choice::None | Choice::Auto => None,
        Choice::Required => Some(format.grammar(&tools)),
        Choice::Named(index) => tools.get(index).map(|tool| format.grammar(std::slice::from_ref(tool))),
    };
    Ok(Some(Tools { written, format, grammar }))
}

/// A tool by its name and the schema of its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tool {
    name: String,
    parameters: Value,
}

fn read_tool(index: usize, tool: &Value) -> Result<Tool, ApiError> {
    let param = |rest: &str| format!("tools[{index}]{rest}");
    if tool.get("type").and_then(Value::as_str) != Some("function") {
        return Err(ApiError::unsupported(&param(".type"), "Only tools of type 'function' are supported."));
    }
    let function = tool.get("function").ok_or_else(|| ApiError::missing(&param(".function")))?;
    let name = function.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| ApiError::missing(&param(".function.name")))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        let message = format!("A name has 1 to {MAX_NAME} letters, digits, '_' and '-'.");
        return Err(ApiError::invalid_value(&param(".function.name"), message));
    }
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        Some(schema @ Value::Object(_)) => schema.clone(),
        Some(_) => {
            let message = "The parameters must be a JSON schema.";
            return Err(ApiError::invalid_type(&param(".function.parameters"), message));
        }
    };
    Ok(Tool { name: name.into(), parameters })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    None,
    Auto,
    Required,
    Named(usize),
}

fn read_choice(choice: Option<&Value>, tools: &[Tool]) -> Result<Choice, ApiError> {
    let invalid = |message: String| Err(ApiError::invalid_value("tool_choice", message));
    let choice = match choice {
        None | Some(Value::Null) => return Ok(Choice::Auto),
        Some(choice) => choice,
    };
    let choice = match choice.as_str() {
        Some("none") => return Ok(Choice::None),
        Some("auto") => return Ok(Choice::Auto),
        Some("required") => Choice::Required,
        Some(other) => return invalid(format!("'{other}' is not 'none', 'auto', 'required' or a tool.")),
        None => {
            let name = choice.pointer("/function/name").and_then(Value::as_str);
            let name = name.ok_or_else(|| ApiError::missing("tool_choice.function.name"))?;
            match tools.iter().position(|tool| tool.name == name) {
                Some(index) => Choice::Named(index),
                None => return invalid(format!("There is no tool '{name}'.")),
            }
        }
    };
    if tools.is_empty() {
        return invalid("A call cannot be forced without 'tools'.".into());
    }
    Ok(choice)
}

impl ToolFormat {
    /// The text of one call of one of these tools.
    fn grammar(self, tools: &[Tool]) -> Grammar {
        let arguments = self.arguments_field();
        let call = |(index, tool): (usize, &Tool)| {
            let place = match tools.len() {
                1 => format!("#/properties/{arguments}"),
                _ => format!("#/anyOf/{index}/properties/{arguments}"),
            };
            let mut properties = Map::new();
            properties.insert("name".into(), json!({"const": tool.name}));
            properties.insert(arguments.into(), moved(&tool.parameters, &place));
            json!({
                "type": "object", "properties": properties, "required": ["name", arguments],
                "additionalProperties": false,
            })
        };
        let mut calls: Vec<Value> = tools.iter().enumerate().map(call).collect();
        let schema = match calls.len() {
            1 => calls.remove(0),
            _ => json!({ "anyOf": calls }),
        };
        let (before, after) = self.around();
        Grammar { before: before.into(), schema: crate::constraint::text(&schema), after: after.into() }
    }
}

/// A schema inside another one: what it refers to in itself is found at its new place.
fn moved(schema: &Value, place: &str) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(|item| moved(item, place)).collect(),
        Value::Object(fields) => {
            let field =
                |(name, value): (&String, &Value)| match value.as_str().and_then(|v| v.strip_prefix('#')) {
                    Some(rest) if name == "$ref" => (name.clone(), Value::from(format!("{place}{rest}"))),
                    _ => (name.clone(), moved(value, place)),
                };
            Value::Object(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}
