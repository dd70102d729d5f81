//! Plain data on its way to a program: JSON on one line or over several, YAML in blocks.
//!
//! A string is written plainly in YAML only where no reader can take it for anything else; otherwise as JSON writes it, which is YAML too.
//!
//! Invariants: whatever bytes a text was made of, what is written is valid JSON or YAML 1.2 and has no control character but line ends of ours.
//! Knows nothing of what is told.

use std::borrow::Cow;
use std::fmt::Write;

/// One value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    /// Written with three digits behind the point; as null where it is not finite.
    Real(f64),
    Text(String),
    List(Vec<Value>),
    Map(Fields),
}

/// Names and values, in the order in which they are written.
pub type Fields = Vec<(Cow<'static, str>, Value)>;

/// A field of a map.
pub fn field(name: &'static str, value: impl Into<Value>) -> (Cow<'static, str>, Value) {
    (Cow::Borrowed(name), value.into())
}

impl Value {
    pub fn map(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
        Value::Map(fields.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect())
    }

    /// Appends it as JSON, on one line.
    pub fn json(&self, out: &mut String) {
        self.write_json(out, None);
    }

    /// JSON on one line, for streams; ends in a line break.
    pub fn json_line(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, None);
        out.push('\n');
        out
    }

    /// JSON over several lines, for files and eyes; ends in a line break.
    pub fn json_blocks(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, Some(0));
        out.push('\n');
        out
    }

    /// `depth` is that of the indentation, `None` for one line.
    fn write_json(&self, out: &mut String, depth: Option<usize>) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) => write(out, format_args!("{value}")),
            Value::Real(value) if value.is_finite() => write(out, format_args!("{value:.3}")),
            Value::Real(_) => out.push_str("null"),
            Value::Text(text) => quote(text, out),
            Value::List(items) => {
                block(out, ['[', ']'], depth, items, |out, item, depth| item.write_json(out, depth));
            }
            Value::Map(fields) => block(out, ['{', '}'], depth, fields, |out, (name, value), depth| {
                quote(name, out);
                out.push_str(if depth.is_some() { ": " } else { ":" });
                value.write_json(out, depth);
            }),
        }
    }

    /// YAML in blocks.
    pub fn yaml(&self) -> String {
        let mut out = String::new();
        self.write_yaml(&mut out, 0, false);
        out
    }

    /// Appends it as one item of a YAML list, with its line ends.
    pub fn yaml_item(&self, out: &mut String) {
        out.push_str("- ");
        self.write_yaml(out, 1, true);
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
                for (at, (name, value)) in fields.iter().enumerate() {
                    indent(out, if inline && at == 0 { 0 } else { depth });
                    plain_or_quoted(name, out);
                    out.push(':');
                    let is_block = match value {
                        Value::List(items) => !items.is_empty(),
                        Value::Map(fields) => !fields.is_empty(),
                        _ => false,
                    };
                    out.push(if is_block { '\n' } else { ' ' });
                    value.write_yaml(out, depth + 1, false);
                }
            }
            Value::Text(text) => {
                plain_or_quoted(text, out);
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

/// Appends `text` in quotation marks, as both JSON and YAML read it.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    // Most texts need no escape, and are long.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.push_str(text);
        out.push('"');
        return;
    }
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                write(out, format_args!("\\u{:04x}", u32::from(letter)));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

/// Without quotation marks where YAML takes it for a text all the same: words that are no other value's.
fn plain_or_quoted(text: &str, out: &mut String) {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
    let starts_as_word = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_' || letter == '/');
    let others = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    if starts_as_word && text.bytes().all(is_word) && !others.iter().any(|other| text.eq_ignore_ascii_case(other)) {
        out.push_str(text);
    } else {
        quote(text, out);
    }
}

macro_rules! integers {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Value {
            fn from(number: $kind) -> Value {
                Value::Int(number as i128)
            }
        })*
    };
}
integers!(i8, u8, i16, u16, i32, u32, i64, u64, usize);

impl From<bool> for Value {
    fn from(bit: bool) -> Value {
        Value::Bool(bit)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Real(number)
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

impl From<Fields> for Value {
    fn from(fields: Fields) -> Value {
        Value::Map(fields)
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
        Value::List(vec![
            Value::Map(vec![
                field("kind", "a.b"),
                field("base", -1i64),
                field("text", "a\"b\\c\n\u{7f}\u{2028}é"),
                field("none", None::<i64>),
                field("ratio", 1.5),
                field("no", "no"),
                field("items", vec![Value::map([("id", 1.into()), ("list", vec![1u8, 2].into())]), Value::from(3u8)]),
                field("inside", vec![field("a", true), field("b", Value::List(Vec::new()))]),
                field("lists", vec![vec![1u8]]),
            ]),
            Value::from(1u8),
        ])
    }

    #[test]
    fn json_is_written_on_one_line_and_on_many() {
        let line = concat!(
            r#"[{"kind":"a.b","base":-1,"text":"a\"b\\c\n\u007f\u2028é","none":null,"ratio":1.500,"no":"no","#,
            r#""items":[{"id":1,"list":[1,2]},3],"inside":{"a":true,"b":[]},"lists":[[1]]},1]"#
        );
        assert_eq!(sample().json_line().trim_end(), line);
        let blocks = sample().json_blocks();
        assert!(blocks.starts_with("[\n  {\n    \"kind\": \"a.b\",\n"), "{blocks}");
        let squeezed: String = blocks.lines().map(|line| line.trim_start().replace("\": ", "\":")).collect();
        assert_eq!(squeezed, line);
        assert_eq!(Value::Real(f64::NAN).json_line(), "null\n");
    }

    #[test]
    fn yaml_is_in_blocks_and_quotes_what_could_be_taken_for_something_else() {
        let expected = r#"- kind: a.b
  base: -1
  text: "a\"b\\c\n\u007f\u2028é"
  none: null
  ratio: 1.500
  "no": "no"
  items:
    - id: 1
      list:
        - 1
        - 2
    - 3
  inside:
    a: true
    b: []
  lists:
    - - 1
- 1
"#;
        assert_eq!(sample().yaml(), expected);
        let Value::List(items) = sample() else { panic!("a list") };
        let mut out = String::new();
        items.iter().for_each(|item| item.yaml_item(&mut out));
        assert_eq!(out, expected);
        for text in ["yes", "1", "-1", "", "null", "a b", "~", "1e3", ".5", "NaN"] {
            assert_eq!(Value::from(text).yaml(), format!("\"{text}\"\n"));
        }
        assert_eq!(Value::from("retention.ms").yaml(), "retention.ms\n");
    }
}
