//! `find`: the records of a range, a time, a key or a pattern.
//!
//! Invariants: every intact record is looked at; each one found is told as it is found.

use crate::Outcome;
use crate::error::InspectError;
use crate::export::{record_json, tell_lost};
use crate::log::Seen;
use crate::output::{Format, Output};
use crate::read_only::ReadOnly;
use crate::records::{Opener, Record, Records, bytes_fields, control_name};
use crate::source::Source;
use crate::time::{self, Window};
use millrace_base::batch::Header;
use millrace_base::offset::Offset;
use millrace_base::value::field;
use regex::bytes::Regex;
use std::ops::Range;
use std::path::Path;

/// What is looked for: all of it must be so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Find {
    pub what: Vec<String>,
    pub offsets: Range<Offset>,
    pub times: Window,
    /// The whole key.
    pub key: Option<Vec<u8>>,
    /// A regular expression that the key, the value, or a header's name or value has.
    pub pattern: Option<String>,
    /// No more than so many.
    pub limit: Option<u64>,
}

pub fn find(path: &Path, find: &Find, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let pattern = match find.pattern.as_deref().map(Regex::new).transpose() {
        Ok(pattern) => pattern,
        Err(error) => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().to_owned();
            return Err(InspectError::Usage(format!("the pattern cannot be read: {last}")));
        }
    };
    let mut disk = ReadOnly::default();
    let mut source = Source::open(&mut disk, path)?;
    let logs = source.logs(&mut disk, &find.what)?;
    let mut spare = source.spare();
    let (mut opener, mut outcome) = (Opener::default(), Outcome::Clean);
    let (mut found, mut looked_at, mut line) = (0u64, 0u64, String::new());
    let is_enough = |found: u64| find.limit.is_some_and(|limit| found >= limit);
    for log in &logs {
        let name = log.name();
        log.scan(&mut disk, &mut spare, find.offsets.clone(), &mut |seen| match seen {
            Seen::Lost(lost) => {
                outcome = Outcome::Damaged;
                Ok(tell_lost(&name, &lost, output)?)
            }
            Seen::Batch { .. } if is_enough(found) => Ok(()),
            Seen::Batch { header, bytes, file, place } => {
                if !find.times.may_have(&header) {
                    return Ok(());
                }
                let opened = match opener.open(&header, bytes) {
                    Ok(opened) => opened,
                    Err(why) => {
                        outcome = Outcome::Damaged;
                        return Ok(output
                            .note(format_args!("{name}: {file} at byte {place}: offset {} stays closed: {why}", header.base_offset))?);
                    }
                };
                for record in Records::new(&header, opened) {
                    let record = match record {
                        Ok(record) => record,
                        Err(why) => {
                            outcome = Outcome::Damaged;
                            output.note(format_args!(
                                "{name}: {file} at byte {place}: a record of offset {} and on cannot be read: {why}",
                                header.base_offset
                            ))?;
                            continue;
                        }
                    };
                    looked_at += 1;
                    let is_in = find.offsets.contains(&record.offset) && find.times.has(record.timestamp);
                    if !is_in || is_enough(found) || !matches(&record, find, pattern.as_ref()) {
                        continue;
                    }
                    found += 1;
                    line.clear();
                    match output.format {
                        Format::Text => output.line(text(&name, &header, &record))?,
                        Format::Json => {
                            record_json(log, &header, &record, None, &mut line);
                            output.line(&line)?;
                        }
                        Format::Yaml => {
                            let mut fields = vec![
                                field("topic", log.topic.as_str()),
                                field("partition", log.partition),
                                field("offset", record.offset),
                                field("timestamp", record.timestamp),
                            ];
                            bytes_fields(&mut fields, &record);
                            output.item("record", fields)?;
                        }
                    }
                }
                Ok(())
            }
        })?;
        if is_enough(found) {
            break;
        }
    }
    writeln!(output.talk, "{found} found, {looked_at} records looked at")?;
    Ok(outcome)
}

fn matches(record: &Record<'_>, find: &Find, pattern: Option<&Regex>) -> bool {
    if find.key.as_ref().is_some_and(|key| record.key != Some(key)) {
        return false;
    }
    pattern.is_none_or(|pattern| {
        let has = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| pattern.is_match(bytes));
        has(record.key) || has(record.value) || record.headers().any(|(name, value)| has(Some(name)) || has(value))
    })
}

fn text(name: &str, header: &Header, record: &Record<'_>) -> String {
    let escaped = |bytes: Option<&[u8]>| bytes.map_or("null".to_owned(), |bytes| format!("\"{}\"", bytes.escape_ascii()));
    let mut line = format!("{name} {} {}", record.offset, time::text(record.timestamp));
    if header.is_control() {
        line.push_str(&format!(" control: {}", control_name(record.key)));
        return line;
    }
    line.push_str(&format!(" key={} value={}", escaped(record.key), escaped(record.value)));
    for (name, value) in record.headers() {
        line.push_str(&format!(" {}={}", escaped(Some(name)), escaped(value)));
    }
    line
}
