//! Plain data on its way to a program: JSON on one line, or YAML in blocks.
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
    /// Written with three digits behind the point.
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

impl From<Vec<Value>> for Value {
    fn from(list: Vec<Value>) -> Value {
        Value::List(list)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl Value {
    /// Appends it as JSON, on one line.
    pub fn json(&self, out: &mut String) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(bit) => out.push_str(if *bit { "true" } else { "false" }),
            Value::Int(number) => drop(write!(out, "{number}")),
            Value::Real(number) if number.is_finite() => drop(write!(out, "{number:.3}")),
            Value::Real(_) => out.push_str("null"),
            Value::Text(text) => quote(text, out),
            Value::List(list) => {
                out.push('[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    value.json(out);
                }
                out.push(']');
            }
            Value::Map(fields) => {
                out.push('{');
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    quote(name, out);
                    out.push(':');
                    value.json(out);
                }
                out.push('}');
            }
        }
    }

    /// Appends it as one item of a YAML list, with its line ends.
    pub fn yaml_item(&self, out: &mut String) {
        self.item(0, out);
    }

    fn item(&self, depth: usize, out: &mut String) {
        out.push_str("- ");
        match self {
            Value::Map(fields) if !fields.is_empty() => map(fields, depth + 2, out),
            Value::List(list) if !list.is_empty() => {
                // A list in a list stays on its line.
                self.json(out);
                out.push('\n');
            }
            scalar => {
                scalar.scalar(out);
                out.push('\n');
            }
        }
    }

    fn scalar(&self, out: &mut String) {
        match self {
            Value::Text(text) if is_plain(text) => out.push_str(text),
            other => other.json(out),
        }
    }
}

/// The first field stands where `out` ends, the others `depth` deep.
fn map(fields: &Fields, depth: usize, out: &mut String) {
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.extend(std::iter::repeat_n(' ', depth));
        }
        Value::Text(name.clone().into_owned()).scalar(out);
        out.push(':');
        match value {
            Value::Map(fields) if !fields.is_empty() => {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', depth + 2));
                map(fields, depth + 2, out);
            }
            Value::List(list) if !list.is_empty() => {
                out.push('\n');
                for value in list {
                    out.extend(std::iter::repeat_n(' ', depth));
                    value.item(depth, out);
                }
            }
            scalar => {
                out.push(' ');
                scalar.scalar(out);
                out.push('\n');
            }
        }
    }
}

/// Whether YAML takes it without quotation marks for a text: words that begin with a letter and are no other value's.
fn is_plain(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/');
    let others = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && text.bytes().all(is_word)
        && !others.iter().any(|other| text.eq_ignore_ascii_case(other))
}

/// A text in quotation marks, as both JSON and YAML read it.
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
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        Value::Map(vec![
            field("kind", "batch"),
            field("base", -1i64),
            field("text", "a\"b\\c\n\u{7f}\u{2028}é"),
            field("none", None::<i64>),
            field("ratio", 1.5),
            field("no", "no"),
            field(
                "records",
                vec![Value::Map(vec![field("key", "k"), field("list", vec![Value::from(1u8), Value::from(2u8)])]), Value::from(3u8)],
            ),
            field("inside", vec![field("a", true), field("b", Value::List(Vec::new()))]),
            field("lists", vec![Value::List(vec![Value::from(1u8)])]),
        ])
    }

    #[test]
    fn json_is_one_line_and_escaped() {
        let mut out = String::new();
        sample().json(&mut out);
        let expected = concat!(
            r#"{"kind":"batch","base":-1,"text":"a\"b\\c\n\u007f\u2028é","none":null,"ratio":1.500,"no":"no","#,
            r#""records":[{"key":"k","list":[1,2]},3],"inside":{"a":true,"b":[]},"lists":[[1]]}"#
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn yaml_is_a_list_in_blocks() {
        let mut out = String::new();
        sample().yaml_item(&mut out);
        Value::from(1u8).yaml_item(&mut out);
        let expected = r#"- kind: batch
  base: -1
  text: "a\"b\\c\n\u007f\u2028é"
  none: null
  ratio: 1.500
  "no": "no"
  records:
  - key: k
    list:
    - 1
    - 2
  - 3
  inside:
    a: true
    b: []
  lists:
  - [1]
- 1
"#;
        assert_eq!(out, expected);
    }
}
