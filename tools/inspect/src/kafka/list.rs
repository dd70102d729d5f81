//! `ls` of what Kafka wrote.

use super::check::read_whole;
use super::directory::{INDEX_BYTES_MAX, KafkaDirectory, KafkaPartition};
use super::formats;
use crate::Outcome;
use crate::error::InspectError;
use crate::output::Output;
use crate::problem::Problem;
use crate::read_only::ReadOnly;
use crate::segment::{At, KAFKA_BATCH_BYTES_MAX, Segment};
use crate::table::Table;
use millrace_base::offset::Offset;
use millrace_base::value::{Fields, Value};
use std::borrow::Cow;

pub fn ls(directory: &KafkaDirectory, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    identity(directory, output)?;
    let mut partitions = Table::new("partition", &["partition", "topic id", "log start", "log end", "epoch", "segments", "bytes"]);
    let mut segments = Table::new("segment", &["segment", "end", "bytes", "file bytes", "max timestamp ms", "index bytes", "files"]);
    let mut outcome = Outcome::of(!directory.problems.is_empty());
    for partition in &directory.partitions {
        let name = partition.name();
        let (mut bytes, mut last) = (0, Facts::default());
        for base in &partition.segments {
            let facts = facts(&mut disk, partition, *base);
            let of_segment = |file: &&String| file.starts_with(&format!("{base:020}.")) && !file.ends_with(".log");
            let beside: Vec<&str> =
                partition.files.iter().filter(of_segment).filter_map(|file| file.split_once('.')).map(|(_, kind)| kind).collect();
            let index_bytes = std::fs::metadata(partition.path(*base, "index")).ok().map(|about| about.len());
            let timestamp = Some(facts.max_timestamp).filter(|timestamp| *timestamp >= 0);
            segments.row(vec![
                format!("{name}/{base:020}.log").into(),
                facts.end.into(),
                facts.bytes.into(),
                facts.file_bytes.into(),
                timestamp.into(),
                index_bytes.into(),
                beside.join(" ").into(),
            ]);
            if facts.is_cut {
                outcome = outcome.max(Outcome::Torn);
            }
            bytes += facts.file_bytes;
            last = facts;
        }
        let start = partition.segments.first().copied().unwrap_or(0).max(partition.log_start);
        partitions.row(vec![
            name.into(),
            partition.topic_id.map(|id| id.to_string()).into(),
            start.into(),
            last.end.into(),
            last.epoch.into(),
            partition.segments.len().into(),
            bytes.into(),
        ]);
    }
    for table in [partitions, segments] {
        if output.is_text() {
            output.line("")?;
        }
        table.print(output)?;
    }
    for note in &directory.notes {
        output.note(note)?;
    }
    for corrupt in &directory.problems {
        Problem { corrupt: corrupt.clone(), at_start: None }.tell(output, None)?;
    }
    Ok(outcome)
}

fn identity(directory: &KafkaDirectory, output: &mut Output<'_>) -> Result<(), InspectError> {
    let stopped = match directory.is_clean {
        _ if directory.is_in_use => "running",
        Some(true) => "stopped cleanly",
        Some(false) => "not stopped cleanly",
        None => "a folder alone",
    };
    if !output.is_text() {
        let pairs = directory.properties.iter().map(|(key, value)| (Cow::Owned(key.clone()), Value::from(value.as_str())));
        let mut fields: Fields = vec![("path".into(), directory.path.display().to_string().into()), ("state".into(), stopped.into())];
        fields.extend(pairs);
        return Ok(output.item("kafka_directory", fields)?);
    }
    let pairs: Vec<String> = directory.properties.iter().map(|(key, value)| format!("{key} {value}")).collect();
    let whose = if pairs.is_empty() { String::new() } else { format!(": {}", pairs.join(", ")) };
    Ok(output.line(format_args!("{}, of Apache Kafka, {stopped}{whose}", directory.path.display()))?)
}

#[derive(Default)]
struct Facts {
    end: Offset,
    bytes: u64,
    file_bytes: u64,
    max_timestamp: i64,
    epoch: Option<i32>,
    /// Other bytes than batches and zeros are at the end.
    is_cut: bool,
}

/// From where the last entries of the indexes point on, or, where that is no batch, from the front.
fn facts(disk: &mut ReadOnly, partition: &KafkaPartition, base: Offset) -> Facts {
    let mut facts = Facts { end: base, max_timestamp: -1, ..Facts::default() };
    let Ok(segment) = Segment::open(disk, &partition.path(base, "log"), false) else { return facts };
    let mut segment = segment.with_batches_up_to(KAFKA_BATCH_BYTES_MAX);
    facts.file_bytes = segment.len();
    let last = |disk: &mut ReadOnly, kind: &str| read_whole(disk, &partition.path(base, kind), INDEX_BYTES_MAX).unwrap_or_default();
    let from = formats::index(&last(disk, "index"), base).0.last().map_or(0, |entry| u64::from(entry.place));
    let known = formats::time_index(&last(disk, "timeindex"), base).0.last().map_or(-1, |entry| entry.timestamp);
    for (from, known) in [(from, known), (0, -1)] {
        facts.max_timestamp = known;
        walk(disk, &mut segment, from, &mut facts);
        if !facts.is_cut || from == 0 {
            break;
        }
    }
    facts
}

fn walk(disk: &mut ReadOnly, segment: &mut Segment, from: u64, facts: &mut Facts) {
    let mut place = from;
    facts.is_cut = false;
    while place < facts.file_bytes {
        match segment.batch_at(disk, place, facts.file_bytes) {
            Ok(At::Batch { header, .. }) => {
                facts.end = facts.end.max(header.next_offset());
                facts.max_timestamp = facts.max_timestamp.max(header.max_timestamp);
                facts.epoch = Some(header.epoch).filter(|epoch| *epoch >= 0);
                place += header.size as u64;
            }
            Ok(At::Zeros) => break,
            Ok(At::Nothing(_)) | Err(_) => {
                facts.is_cut = true;
                break;
            }
        }
    }
    facts.bytes = place;
}
