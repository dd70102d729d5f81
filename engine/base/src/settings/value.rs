//! What the text of a setting may be: parsed once, into a value that cannot be wrong.
//!
//! `Kind::parse` turns text into a `Value` or refuses it; `Kind::allowed` says what it would have taken. A value prints in one
//! canonical form (sizes as plain bytes, lists joined by commas), which is what clients are shown.
//!
//! Invariants: printing a value and parsing it again gives the same value; a parsed number lies in min..=max of its kind.
//! Knows nothing of which settings exist.

use std::fmt;

/// Characters of one text value; longer ones are refused, since some are sent to every client.
pub const TEXT_CHARS_MAX: usize = 4096;

/// The type of a setting and what it may hold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// `true` or `false`, in any case.
    Bool,
    /// A whole number that Kafka keeps in 32 bits.
    Int { min: i64, max: i64 },
    /// A whole number of 64 bits.
    Long { min: i64, max: i64 },
    /// A number of bytes: plain, or with KiB, MiB, GiB or TiB behind it.
    Bytes { min: i64, max: i64 },
    /// A finite number.
    Double { min: f64, max: f64 },
    /// Text of one line.
    Text,
    /// Texts separated by commas, none of them empty.
    List,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// One or more of these words, separated by commas, none twice.
    EnumList(&'static [&'static str]),
}

/// A parsed value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Bool(bool),
    Whole(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

impl Kind {
    /// The value in `text`, or nothing if this kind does not allow it (`allowed` says what it allows).
    pub fn parse(self, text: &str) -> Option<Value> {
        let text = text.trim();
        match self {
            Kind::Bool if text.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
            Kind::Bool if text.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
            Kind::Bool => None,
            Kind::Int { min, max } | Kind::Long { min, max } => within(text.parse().ok()?, min, max),
            Kind::Bytes { min, max } => within(bytes(text)?, min, max),
            Kind::Double { min, max } => {
                let number: f64 = text.parse().ok()?;
                (number >= min && number <= max).then_some(Value::Double(number))
            }
            Kind::Text => is_text(text).then(|| Value::Text(text.to_owned())),
            Kind::List => list(text).map(Value::List),
            Kind::Enum(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Kind::EnumList(words) => {
                let items = list(text)?;
                let known = items.iter().all(|item| words.contains(&item.as_str()));
                let once = items.iter().enumerate().all(|(at, item)| !items[..at].contains(item));
                (known && once).then_some(Value::List(items))
            }
        }
    }

    /// What `parse` takes, as the end of a sentence that begins with "allowed: ".
    pub fn allowed(self) -> String {
        match self {
            Kind::Bool => "true or false".to_owned(),
            Kind::Int { min, max } | Kind::Long { min, max } => {
                format!("a whole number from {min} to {max}")
            }
            Kind::Bytes { min, max } => {
                format!("bytes from {min} to {max}, plain or with KiB, MiB, GiB or TiB behind the number")
            }
            Kind::Double { min, max } => format!("a number from {min} to {max}"),
            Kind::Text => format!("text of one line, at most {TEXT_CHARS_MAX} characters"),
            Kind::List => "texts separated by commas, none of them empty".to_owned(),
            Kind::Enum(words) => format!("one of {}", words.join(", ")),
            Kind::EnumList(words) => format!("one or more of {}, separated by commas, none twice", words.join(", ")),
        }
    }

    /// The word for this kind in help and sample.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int { .. } => "int",
            Kind::Long { .. } => "long",
            Kind::Bytes { .. } => "bytes",
            Kind::Double { .. } => "double",
            Kind::Text => "string",
            Kind::List | Kind::EnumList(_) => "list",
            Kind::Enum(_) => "enum",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Whole(value) => write!(f, "{value}"),
            Value::Double(value) => write!(f, "{value}"),
            Value::Text(value) => f.write_str(value),
            Value::List(items) => f.write_str(&items.join(",")),
        }
    }
}

fn within(number: i64, min: i64, max: i64) -> Option<Value> {
    (min..=max).contains(&number).then_some(Value::Whole(number))
}

fn bytes(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "kib" => 10,
        "mib" => 20,
        "gib" => 30,
        "tib" => 40,
        _ => return None,
    };
    let number: i64 = digits.trim_end().parse().ok()?;
    number.checked_mul(1 << shift)
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control)
}

fn list(text: &str) -> Option<Vec<String>> {
    if !is_text(text) {
        return None;
    }
    let items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
    items.iter().all(|item| !item.is_empty()).then_some(items)
}

/// A field of `Settings` made from a value that its kind has let through.
pub trait Field: Sized {
    /// Nothing if the value is of another type or too large for the field; a test over the table shows that no row allows it.
    fn from_value(value: Option<&Value>) -> Option<Self>;
}

impl Field for bool {
    fn from_value(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::Bool(value) => Some(*value),
            Value::Whole(_) | Value::Double(_) | Value::Text(_) | Value::List(_) => None,
        }
    }
}

macro_rules! whole {
    ($($number:ty)*) => { $(
        impl Field for $number {
            fn from_value(value: Option<&Value>) -> Option<Self> {
                match value? {
                    Value::Whole(value) => <$number>::try_from(*value).ok(),
                    Value::Bool(_) | Value::Double(_) | Value::Text(_) | Value::List(_) => None,
                }
            }
        }
    )* };
}

whole!(i32 u32 i64 u64);

impl Field for f64 {
    fn from_value(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::Double(value) => Some(*value),
            Value::Bool(_) | Value::Whole(_) | Value::Text(_) | Value::List(_) => None,
        }
    }
}

impl Field for String {
    fn from_value(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::Text(value) => Some(value.clone()),
            Value::Bool(_) | Value::Whole(_) | Value::Double(_) | Value::List(_) => None,
        }
    }
}

impl Field for Vec<String> {
    fn from_value(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::List(items) => Some(items.clone()),
            Value::Bool(_) | Value::Whole(_) | Value::Double(_) | Value::Text(_) => None,
        }
    }
}

/// A setting without a default: absent until somebody gives it.
impl<T: Field> Field for Option<T> {
    fn from_value(value: Option<&Value>) -> Option<Self> {
        match value {
            None => Some(None),
            Some(_) => T::from_value(value).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, text: &str, expected: Option<&str>) {
        let printed = kind.parse(text).map(|value| value.to_string());
        assert_eq!(printed.as_deref(), expected, "{kind:?} of {text:?}");
        if let Some(printed) = printed {
            assert_eq!(kind.parse(&printed), kind.parse(text), "{kind:?}: {printed:?} is not canonical");
        }
    }

    #[test]
    fn numbers_outside_their_bounds_are_refused() {
        let port = Kind::Int { min: 1, max: 65535 };
        check(port, "0", None);
        check(port, "1", Some("1"));
        check(port, " 65535 ", Some("65535"));
        check(port, "65536", None);
        check(port, "99999999999999999999", None);
        check(port, "1e3", None);
        check(port, "", None);
        let ratio = Kind::Double { min: 0.0, max: 1.0 };
        check(ratio, "0.5", Some("0.5"));
        check(ratio, "NaN", None);
        check(ratio, "inf", None);
        check(ratio, "1.1", None);
    }

    #[test]
    fn sizes_take_a_unit_and_print_as_bytes() {
        let size = Kind::Bytes { min: -1, max: i64::MAX };
        check(size, "64KiB", Some("65536"));
        check(size, "2 gib", Some("2147483648"));
        check(size, "-1", Some("-1"));
        check(size, "-1KiB", None);
        check(size, "1MB", None);
        check(size, "MiB", None);
        check(size, "9000000TiB", None);
        check(size, "9999999999TiB", None);
        check(size, "1é", None);
    }

    #[test]
    fn words_and_lists_hold_only_what_is_named() {
        let policy = Kind::EnumList(&["compact", "delete"]);
        check(policy, "delete", Some("delete"));
        check(policy, "compact, delete", Some("compact,delete"));
        check(policy, "delete,delete", None);
        check(policy, "delete,", None);
        check(policy, "", None);
        check(Kind::Enum(&["auto"]), "Auto", None);
        check(Kind::Bool, "TRUE", Some("true"));
        check(Kind::Bool, "yes", None);
        check(Kind::List, "a,,b", None);
        check(Kind::Text, "two\nlines", None);
    }
}
