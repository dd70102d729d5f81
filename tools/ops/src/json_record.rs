//! A record as one value of JSON or YAML: what `consume --format json` prints, and `produce --format json` takes.
//!
//! `{"topic":"t","partition":0,"offset":5,"timestamp":1700000000000,"key":"k","value":"v","headers":[{"name":"a","value":"1"}]}`; a key or value that
//! is there is text, or `{"base64":"..."}` where its bytes are no text, and null where there is none.
//!
//! Invariant: what is read from what was written is the same record.

use serde_json::{Map, Value as Json};

use crate::failure::{Failure, Kind, Outcome};
use crate::percent::{base64, unbase64};
use crate::records::{Record, RecordHeader};
use millrace_base::value::Value;

/// The fields of a record that can be given; the others of [`write`] are the broker's to say, and passed over.
const GIVEN: [&str; 5] = ["partition", "timestamp", "key", "value", "headers"];
const PASSED_OVER: [&str; 2] = ["topic", "offset"];

pub fn write(topic: &str, partition: i32, record: &Record) -> Value {
    let headers = record.headers.iter().map(|(name, value)| Value::map([("name", shown(Some(name))), ("value", shown(value.as_deref()))]));
    Value::map([
        ("topic", topic.into()),
        ("partition", partition.into()),
        ("offset", record.offset.into()),
        ("timestamp", record.timestamp.into()),
        ("key", shown(record.key.as_deref())),
        ("value", shown(record.value.as_deref())),
        ("headers", Value::List(headers.collect())),
    ])
}

/// The record, its partition if it is given, and whether a time is.
///
/// # Errors
/// The text is not one JSON value, or no record.
pub fn read(text: &[u8]) -> Outcome<(Record, Option<i32>, bool)> {
    let value: Json = serde_json::from_slice(text).map_err(|error| failed(format!("it is not JSON: {error}")))?;
    let Json::Object(fields) = value else { return Err(failed("it is not an object of JSON, {...}".to_owned())) };
    let known = |name: &&String| !GIVEN.contains(&name.as_str()) && !PASSED_OVER.contains(&name.as_str());
    if let Some(unknown) = fields.keys().find(known) {
        return Err(failed(format!("{unknown:?} is no field of a record")).with_hint(format!("there are {}", GIVEN.join(", "))));
    }
    let number = |name: &str| match fields.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(found) => match found.as_i64() {
            Some(number) if number >= 0 => Ok(Some(number)),
            _ => Err(failed(format!("{name} is {found}, and no number from 0 on"))),
        },
    };
    let partition = number("partition")?.map(|number| i32::try_from(number).map_err(|_| failed("partition is too large".to_owned())));
    let timestamp = number("timestamp")?;
    let record = Record {
        offset: 0,
        timestamp: timestamp.unwrap_or(0),
        key: part(&fields, "key")?,
        value: part(&fields, "value")?,
        headers: headers(fields.get("headers"))?,
    };
    Ok((record, partition.transpose()?, timestamp.is_some()))
}

fn failed(what: String) -> Failure {
    Failure::new(Kind::Failed, what)
}

/// Text as text; other bytes as `{"base64": ...}`.
fn shown(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(bytes)) => Value::map([("base64", base64(bytes).into())]),
    }
}

/// What [`shown`] wrote.
fn part(fields: &Map<String, Json>, name: &str) -> Outcome<Option<Vec<u8>>> {
    let wrong = || failed(format!("{name} is neither text nor {{\"base64\": ...}}")).with_hint("put JSON into quotes to make it a value");
    match fields.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.as_bytes().to_vec())),
        Some(Json::Object(coded)) if coded.len() == 1 => {
            let text = coded.get("base64").and_then(Json::as_str).ok_or_else(wrong)?;
            unbase64(text.as_bytes()).map(Some).ok_or_else(|| failed(format!("{name}: {text:?} is not base64")))
        }
        Some(_) => Err(wrong()),
    }
}

fn headers(found: Option<&Json>) -> Outcome<Vec<RecordHeader>> {
    let wrong = || failed("headers are not a list of {\"name\": ..., \"value\": ...}".to_owned());
    match found {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(list)) => list
            .iter()
            .map(|one| {
                let fields = one.as_object().ok_or_else(wrong)?;
                Ok((part(fields, "name")?.ok_or_else(wrong)?, part(fields, "value")?))
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = |bytes: &[u8]| Some(bytes.to_vec());
        for record in [
            Record { offset: 0, timestamp: 1_700_000_000_000, key: None, value: None, headers: Vec::new() },
            Record {
                offset: 0,
                timestamp: 7,
                key: bytes(b"\xff\x00"),
                value: bytes("a \"quoted\"\n\t\u{1}\u{7f} \u{2028} line".as_bytes()),
                headers: vec![(b"a".to_vec(), bytes(b"1")), (b"a".to_vec(), None), (b"\xfe".to_vec(), bytes(b""))],
            },
        ] {
            let line = write("t", 3, &record).json_line();
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(read(line.as_bytes()), Ok((record, Some(3), true)));
        }
    }

    #[test]
    fn what_is_left_out_is_none_and_what_is_no_record_is_refused() {
        assert_eq!(read(b"{}"), Ok((Record::default(), None, false)));
        let refused = |text: &str, part: &str| {
            let failure = read(text.as_bytes()).expect_err("no record").to_string();
            assert!(failure.contains(part), "{failure:?} does not say {part:?}");
        };
        refused("", "not JSON");
        refused("{} {}", "not JSON");
        refused("[]", "not an object");
        refused(r#"{"vlaue":"x"}"#, "\"vlaue\" is no field");
        refused(r#"{"value":5}"#, "value is neither text");
        refused(r#"{"value":{"a":1}}"#, "into quotes");
        refused(r#"{"key":{"base64":"A"}}"#, "not base64");
        refused(r#"{"partition":-1}"#, "no number from 0 on");
        refused(r#"{"partition":4294967296}"#, "too large");
        refused(r#"{"timestamp":"now"}"#, "timestamp is");
        refused(r#"{"headers":{"a":"1"}}"#, "not a list");
        refused(r#"{"headers":[{"value":"1"}]}"#, "not a list");
        refused(&format!("{}1{}", "[".repeat(5000), "]".repeat(5000)), "not JSON");
    }
}
