//! How models write calls of tools, and reading them out of the text while it arrives.

use crate::stop::overlap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a model writes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolFormat {
    /// `<tool_call>{"name": .., "arguments": ..}</tool_call>`, also amid text: Qwen, Hermes.
    Tagged,
    /// The whole answer is `{"name": .., "parameters": ..}`, or several of them with `;` between: Llama 3.
    Bare,
}

const BEGIN: &str = "<tool_call>";
const END: &str = "</tool_call>";

impl ToolFormat {
    /// By what the chat template tells the model. `None`: it tells nothing that is known here.
    pub fn of_template(template: &str) -> Option<Self> {
        if !template.contains("tools") {
            return None;
        }
        if template.contains(BEGIN) {
            // Some write the arguments as XML inside of the tag.
            return (!template.contains("<function=")).then_some(Self::Tagged);
        }
        template.contains(r#""parameters": "#).then_some(Self::Bare)
    }

    pub(crate) fn arguments_field(self) -> &'static str {
        match self {
            Self::Tagged => "arguments",
            Self::Bare => "parameters",
        }
    }

    /// Texts around a call.
    pub(crate) fn around(self) -> (&'static str, &'static str) {
        match self {
            Self::Tagged => ("<tool_call>\n", "\n</tool_call>"),
            Self::Bare => ("", ""),
        }
    }

    fn read(self, text: &str) -> Option<Call> {
        let call: Value = serde_json::from_str(text).ok()?;
        let name = call.get("name")?.as_str()?.to_owned();
        let arguments = call.get(self.arguments_field())?;
        // Some models write the arguments as a text that holds JSON.
        let arguments = arguments.as_str().map_or_else(|| arguments.to_string(), Into::into);
        Some(Call { name, arguments })
    }
}

/// A call as the model wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// Text of a JSON object, if the model keeps to what it was told.
    pub(crate) arguments: String,
}

/// What a piece of text turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) content: String,
    pub(crate) calls: Vec<Call>,
}

/// Takes calls out of a text that arrives in pieces. What looks like a call and is none stays text.
#[derive(Clone, Debug)]
pub(crate) struct ToolReader {
    format: ToolFormat,
    /// Text that may belong to a call.
    held: String,
    /// Whether `held` comes after a begin.
    inside: bool,
    /// Whether only white space came since the last call: it separates calls and is no content.
    after_call: bool,
    /// Whether there was any text: a bare call begins the answer.
    started: bool,
}

impl ToolReader {
    pub(crate) fn new(format: ToolFormat) -> Self {
        Self { format, held: String::new(), inside: false, after_call: false, started: false }
    }

    pub(crate) fn push(&mut self, piece: &str) -> Pieces {
        self.held.push_str(piece);
        match self.format {
            ToolFormat::Tagged => self.tagged(),
            ToolFormat::Bare => self.bare(),
        }
    }

    fn tagged(&mut self) -> Pieces {
        let mut pieces = Pieces::default();
        loop {
            if !self.inside {
                let Some(at) = self.held.find(BEGIN) else {
                    let rest = self.held.split_off(self.held.len() - overlap(&self.held, BEGIN));
                    let text = std::mem::replace(&mut self.held, rest);
                    self.show(&mut pieces, &text);
                    return pieces;
                };
                let rest = self.held.split_off(at + BEGIN.len());
                let mut text = std::mem::replace(&mut self.held, rest);
                text.truncate(at);
                self.show(&mut pieces, &text);
                self.inside = true;
            }
            let Some(at) = self.held.find(END) else { return pieces };
            let rest = self.held.split_off(at + END.len());
            let mut text = std::mem::replace(&mut self.held, rest);
            self.inside = false;
            text.truncate(at);
            match self.format.read(text.trim()) {
                Some(call) => {
                    self.after_call = true;
                    pieces.calls.push(call);
                }
                None => self.show(&mut pieces, &format!("{BEGIN}{text}{END}")),
            }
        }
    }

    fn show(&mut self, pieces: &mut Pieces, text: &str) {
        let text = if self.after_call { text.trim_start() } else { text };
        self.after_call &= text.is_empty();
        pieces.content.push_str(text);
    }

    fn bare(&mut self) -> Pieces {
        let begins_call = self.held.trim_start().chars().next().map(|first| first == '{');
        match (self.started, begins_call) {
            // Nothing to judge by yet, or a call that goes on.
            (false, None | Some(true)) => Pieces::default(),
            _ => {
                self.started = true;
                Pieces { content: std::mem::take(&mut self.held), calls: Vec::new() }
            }
        }
    }

    /// At the end of the text.
    pub(crate) fn finish(&mut self) -> Pieces {
        let held = std::mem::take(&mut self.held);
        let calls: Option<Vec<Call>> = match self.format {
            ToolFormat::Tagged if self.inside => self.format.read(held.trim()).map(|call| vec![call]),
            ToolFormat::Tagged => None,
            ToolFormat::Bare if self.started => None,
            ToolFormat::Bare => self.bare_calls(&held),
        };
        let mut pieces = Pieces::default();
        match calls {
            Some(calls) => pieces.calls = calls,
            None if self.inside => self.show(&mut pieces, &format!("{BEGIN}{held}")),
            None => self.show(&mut pieces, &held),
        }
        pieces
    }

    /// All of the text as calls, or nothing of it. A `;` may stand inside of a call's own texts, so the JSON says where a
    /// call ends.
    fn bare_calls(&self, text: &str) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let value = values.next()?.ok()?;
            calls.push(self.format.read(&value.to_string())?);
            rest = rest.get(values.byte_offset()..)?.trim_start();
            rest = rest.strip_prefix(';').unwrap_or(rest).trim_start();
        }
        (!calls.is_empty()).then_some(calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(format: ToolFormat, pieces: &[&str]) -> (String, Vec<Call>) {
        let mut reader = ToolReader::new(format);
        let mut all = Pieces::default();
        let mut take = |pieces: Pieces| {
            all.content.push_str(&pieces.content);
            all.calls.extend(pieces.calls);
        };
        pieces.iter().for_each(|piece| take(reader.push(piece)));
        take(reader.finish());
        (all.content, all.calls)
    }

    fn call(name: &str, arguments: &str) -> Call {
        Call { name: name.into(), arguments: arguments.into() }
    }

    #[test]
    fn tagged_calls_are_taken_out_of_the_text() {
        let text = "I look.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"z\": 1, \"b\": \"<\"}}\n</tool_call>\n\
                    <tool_call>{\"name\": \"b\", \"arguments\": \"{}\"}</tool_call>";
        let expected = ("I look.\n".to_owned(), vec![call("a", r#"{"z":1,"b":"<"}"#), call("b", "{}")]);
        assert_eq!(read(ToolFormat::Tagged, &[text]), expected);
        let single: Vec<String> = text.chars().map(String::from).collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        assert_eq!(read(ToolFormat::Tagged, &single), expected);
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for text in ["a <tool_call>{broken</tool_call> b", "<tool", "x <tool_call>{\"name\":", "<tool_call>"]
        {
            assert_eq!(read(ToolFormat::Tagged, &[text]), (text.to_owned(), vec![]));
        }
        for text in ["{\"a\": 1}", "{", "not {\"name\": \"a\", \"parameters\": {}}", "", "  "] {
            assert_eq!(read(ToolFormat::Bare, &[text]), (text.to_owned(), vec![]));
        }
        let unclosed = "<tool_call>{\"name\": \"a\", \"arguments\": {}}";
        assert_eq!(read(ToolFormat::Tagged, &[unclosed]), (String::new(), vec![call("a", "{}")]));
    }

    #[test]
    fn bare_calls_are_the_whole_answer() {
        let text = r#" {"name": "a", "parameters": {"x": "; }"}}; {"name": "b", "parameters": {}}"#;
        let expected = vec![call("a", r#"{"x":"; }"}"#), call("b", "{}")];
        assert_eq!(read(ToolFormat::Bare, &[text]), (String::new(), expected));
    }

    #[test]
    fn templates_are_told_apart() {
        let of = ToolFormat::of_template;
        assert_eq!(of("{% if tools %}<tool_call>{% endif %}"), Some(ToolFormat::Tagged));
        assert_eq!(of("{% if tools %}<tool_call><function=f>{% endif %}"), None);
        assert_eq!(
            of(r#"{{ tools }}{"name": function name, "parameters": dictionary"#),
            Some(ToolFormat::Bare)
        );
        assert_eq!(of("{{ messages }}"), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_pieces_do_not_matter(
            pieces in proptest::collection::vec("(<tool_call>|</tool_call>|[{}a<]|\\{\"name\":\"a\",\"arguments\":1\\}){0,3}", 0..6),
            bare in any::<bool>(),
        ) {
            let format = if bare { ToolFormat::Bare } else { ToolFormat::Tagged };
            let whole = pieces.concat();
            let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
            let found = read(format, &pieces);
            prop_assert_eq!(&found, &read(format, &[&whole]));
            if found.1.is_empty() {
                prop_assert_eq!(found.0, whole);
            }
        }
    }
}
