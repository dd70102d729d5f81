//! What a command found, as plain data, written as JSON or YAML.
//!
//! A string is written plainly in YAML only where no reader can take it for anything else; otherwise as JSON writes it, which is YAML too.
//!
//! Knows nothing of Kafka.

use std::fmt::Write;

#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// Finite; anything else is written as null.
    Float(f64),
    Text(String),
    List(Vec<Value>),
    /// In this order.
    Map(Vec<(String, Value)>),
}

impl Value {
    pub fn map<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
        Value::Map(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// JSON over several lines, for files and eyes; ends in a line break.
    pub fn json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, Some(0));
        out.push('\n');
        out
    }

    /// JSON on one line, for streams; ends in a line break.
    pub fn json_line(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, None);
        out.push('\n');
        out
    }

    /// `depth` is that of the indentation, `None` for one line.
    fn write_json(&self, out: &mut String, depth: Option<usize>) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) => write(out, format_args!("{value}")),
            Value::Float(value) if value.is_finite() => write(out, format_args!("{value:?}")),
            Value::Float(_) => out.push_str("null"),
            Value::Text(text) => quote(out, text),
            Value::List(items) => {
                block(out, ['[', ']'], depth, items, |out, item, depth| item.write_json(out, depth));
            }
            Value::Map(fields) => block(out, ['{', '}'], depth, fields, |out, (key, value), depth| {
                quote(out, key);
                out.push_str(if depth.is_some() { ": " } else { ":" });
                value.write_json(out, depth);
            }),
        }
    }

    pub fn yaml(&self) -> String {
        let mut out = String::new();
        self.write_yaml(&mut out, 0, false);
        out
    }

    /// Writes what stands behind `- ` (`inline`) or alone; ends in a line break.
    fn write_yaml(&self, out: &mut String, depth: usize, inline: bool) {
        match self {
            Value::List(items) if !items.is_empty() => {
                for (at, item) in items.iter().enumerate() {
                    indent(out, if inline && at == 0 { 0 } else { depth });
                    out.push_str("- ");
                    item.write_yaml(out, depth + 1, true);
                }
            }
            Value::Map(fields) if !fields.is_empty() => {
                for (at, (key, value)) in fields.iter().enumerate() {
                    indent(out, if inline && at == 0 { 0 } else { depth });
                    yaml_text(out, key);
                    out.push(':');
                    if matches!(value, Value::List(items) if !items.is_empty()) || matches!(value, Value::Map(fields) if !fields.is_empty())
                    {
                        out.push('\n');
                        value.write_yaml(out, depth + 1, false);
                    } else {
                        out.push(' ');
                        value.write_yaml(out, depth, false);
                    }
                }
            }
            Value::Text(text) => {
                yaml_text(out, text);
                out.push('\n');
            }
            other => {
                other.write_json(out, None);
                out.push('\n');
            }
        }
    }
}

fn write(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a string takes all that is written to it");
}

fn block<T>(out: &mut String, ends: [char; 2], depth: Option<usize>, items: &[T], mut one: impl FnMut(&mut String, &T, Option<usize>)) {
    out.push(ends[0]);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        if let Some(depth) = depth {
            out.push('\n');
            indent(out, depth + 1);
        }
        one(out, item, depth.map(|depth| depth + 1));
    }
    if let Some(depth) = depth.filter(|_| !items.is_empty()) {
        out.push('\n');
        indent(out, depth);
    }
    out.push(ends[1]);
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// `text` as a JSON string.
pub fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => write(out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn yaml_text(out: &mut String, text: &str) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let starts_as_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/');
    let reserved = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    if starts_as_word && text.chars().all(is_word) && !reserved.contains(&text.to_ascii_lowercase().as_str()) {
        out.push_str(text);
    } else {
        quote(out, text);
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Value {
        Value::Int(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Value {
        Value::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        let inner = Value::map([("id", Value::from(1)), ("isr", Value::from(vec![1, 2])), ("none", Value::List(Vec::new()))]);
        Value::List(vec![
            Value::map([("topic", "a.b".into()), ("ok", true.into()), ("rack", Value::Null), ("partitions", Value::List(vec![inner]))]),
            Value::map([("topic", "x \"y\"\n".into()), ("ratio", 0.5.into())]),
        ])
    }

    #[test]
    fn json_is_written_on_one_line_and_on_many() {
        let line = concat!(
            r#"[{"topic":"a.b","ok":true,"rack":null,"partitions":[{"id":1,"isr":[1,2],"none":[]}]},"#,
            r#"{"topic":"x \"y\"\n","ratio":0.5}]"#
        );
        assert_eq!(sample().json_line().trim_end(), line);
        let pretty = sample().json();
        assert!(pretty.starts_with("[\n  {\n    \"topic\": \"a.b\",\n"), "{pretty}");
        let squeezed: String = pretty.lines().map(|line| line.trim_start().replace("\": ", "\":")).collect();
        assert_eq!(squeezed, line);
    }

    #[test]
    fn yaml_is_a_block_and_quotes_what_could_be_taken_for_something_else() {
        let expected = "- topic: a.b\n  ok: true\n  rack: null\n  partitions:\n    - id: 1\n      isr:\n        - 1\n        - 2\n      none: []\n\
                        - topic: \"x \\\"y\\\"\\n\"\n  ratio: 0.5\n";
        assert_eq!(sample().yaml(), expected);
        for text in ["yes", "1", "-1", "", "null", "a b", "~", "1e3", ".5"] {
            assert_eq!(Value::from(text).yaml(), format!("\"{text}\"\n"));
        }
        assert_eq!(Value::from("retention.ms").yaml(), "retention.ms\n");
    }
}
