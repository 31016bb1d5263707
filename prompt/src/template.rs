//! Chat templates: Jinja as `transformers` runs it.

use minijinja::{
    value::{Kwargs, Value},
    Environment, Error, ErrorKind,
};
use serde::Serialize;
use serde_json::ser::Formatter;
use std::io;

/// Instructions that one rendering may take: some hundred times what a long conversation needs.
const FUEL: u64 = 20_000_000;
/// Bytes of a template at most; the longest in use have some thirty thousand.
const SOURCE_MAX: usize = 64 << 10;
/// Stack for compiling one, of which memory is taken as far as it is used: the compiler calls itself for every operator of
/// an expression, so a long sum goes deep.
const COMPILER_STACK: usize = 512 << 20;
const NAME: &str = "chat";

/// A compiled chat template.
pub(crate) struct Template {
    environment: Environment<'static>,
}

impl Template {
    pub(crate) fn compile(source: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        // `strftime_now` is left undefined on purpose (templates test for it): a prompt may not depend on the clock,
        // or gateway and verifier would disagree with the client about its tokens.
        environment.add_function("raise_exception", raise_exception);
        if source.len() > SOURCE_MAX {
            return Err(Error::new(ErrorKind::SyntaxError, "the template is longer than any real one"));
        }
        let source = without_generation_tags(source);
        let failed = |reason: &'static str| Error::new(ErrorKind::InvalidOperation, reason);
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .stack_size(COMPILER_STACK)
                .spawn_scoped(scope, || environment.add_template_owned(NAME, source))
                .map_err(|_| failed("there is no thread to compile it"))?
                .join()
                .map_err(|_| failed("the compiler failed"))?
        })?;
        Ok(Self { environment })
    }

    pub(crate) fn render(&self, variables: Value) -> Result<String, Error> {
        self.environment.get_template(NAME)?.render(variables)
    }
}

/// A JSON value as templates see it. Not through `Serialize`: with serde_json's `arbitrary_precision`, which any crate of
/// a build may switch on, a number would arrive as an object, and two programs would render different prompts.
pub(crate) fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => Value::from(value),
            (_, Some(value), _) => Value::from(value),
            (_, _, Some(value)) => Value::from(value),
            _ => Value::from(number.to_string()),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(from_json).collect(),
        serde_json::Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.as_str(), from_json(value))).collect()
        }
    }
}

/// What a template says about a conversation that it cannot render: the client's mistake.
fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `{% generation %}` only marks what a training run learns from; engines other than `transformers` do not know it.
/// A comment takes its place so that whitespace control stays the same.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start + 2..start + length];
        let word = tag.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        out.push_str(&rest[..start]);
        if matches!(word, "generation" | "endgeneration") {
            out.push_str(if tag.starts_with('-') { "{#-" } else { "{#" });
            out.push_str(if tag.ends_with('-') { "-#}" } else { "#}" });
        } else {
            out.push_str(&rest[start..start + length + 2]);
        }
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    out
}

/// `json.dumps(value, ensure_ascii=False)`, which `transformers` puts in the place of Jinja's own filter.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let failed = |e: serde_json::Error| {
        Error::new(ErrorKind::BadSerialization, "cannot serialize to JSON").with_source(e)
    };
    let indent: Option<usize> = options.get("indent")?;
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let spaces = vec![b' '; width.min(16)];
            let formatter = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            value
                .serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
                .map_err(failed)?;
        }
        None => value
            .serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonJson))
            .map_err(failed)?,
    }
    let text = String::from_utf8(out).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// Python's separators: a space after comma and colon.
struct PythonJson;

impl Formatter for PythonJson {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    fn render(source: &str, variables: Value) -> Result<String, Error> {
        Template::compile(source)?.render(variables)
    }

    #[test]
    fn python_methods_and_slices_work() {
        let source =
            "{% for m in messages[::-1] %}{{ m.strip().upper() }}{{ m.startswith(' a') }}{% endfor %}";
        let out = render(source, context! { messages => [" a ", "b"] }).unwrap();
        assert_eq!(out, "BFalseATrue");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = serde_json::json!({"a": null, "b": [1, "<é'>"]});
        assert_eq!(
            render("{{ v | tojson }}", context! { v => from_json(&value) }).unwrap(),
            r#"{"a": null, "b": [1, "<é'>"]}"#
        );
        assert_eq!(render("{{ v | tojson(indent=1) }}", context! { v => [1] }).unwrap(), "[\n 1\n]");
        let numbers = serde_json::json!([-1, u64::MAX, 0.5]);
        let text = render("{{ v | tojson }}", context! { v => from_json(&numbers) }).unwrap();
        assert_eq!(text, "[-1, 18446744073709551615, 0.5]");
    }

    #[test]
    fn generation_tags_vanish_and_keep_whitespace_control() {
        assert_eq!(render("a {%- generation -%} b {% endgeneration %}c", context! {}).unwrap(), "ab c");
        assert_eq!(without_generation_tags("{{ x }}{% if a %}{% unclosed"), "{{ x }}{% if a %}{% unclosed");
    }

    #[test]
    fn templates_can_refuse() {
        let error = render("{{ raise_exception('roles must alternate') }}", context! {}).unwrap_err();
        assert_eq!(error.detail(), Some("roles must alternate"));
    }

    #[test]
    fn endless_templates_run_out_of_fuel() {
        let source = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
        assert_eq!(render(source, context! {}).unwrap_err().kind(), ErrorKind::OutOfFuel);
    }

    #[test]
    fn there_is_no_clock() {
        assert_eq!(render("{{ strftime_now is defined }}", context! {}).unwrap(), "False");
    }
}
