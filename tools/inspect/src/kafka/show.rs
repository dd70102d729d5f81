//! `show` of what Kafka wrote: partitions, and the files beside their segments.

use super::check::read_whole;
use super::directory::{
    EPOCHS_NAME, INDEX_BYTES_MAX, KafkaDirectory, KafkaPartition, OFFSETS_NAMES, PARTITION_NAME, TEXT_BYTES_MAX, base_of, in_file,
};
use super::formats;
use crate::commands::Meaning;
use crate::error::InspectError;
use crate::output::Output;
use crate::problem::Problem;
use crate::read_only::ReadOnly;
use crate::segment::{KAFKA_BATCH_BYTES_MAX, Segment};
use crate::show::segment_batches;
use crate::spare::Spare;
use crate::transactions::Fates;
use crate::{Outcome, Show};
use millrace_base::fault::Corrupt;
use millrace_base::offset::Offset;
use millrace_base::value::field;
use std::path::Path;

/// Partitions, or the one that `show` names.
pub fn show(directory: &KafkaDirectory, show: &Show, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    let mut disk = ReadOnly::default();
    let is_wanted = |partition: &&KafkaPartition| {
        let (topic, index) = (&partition.topic, partition.index);
        show.what.as_ref().is_none_or(|what| *what == format!("{topic}-{index}") || *what == format!("{topic}/{index}"))
    };
    let wanted: Vec<&KafkaPartition> = directory.partitions.iter().filter(is_wanted).collect();
    if let (true, Some(what)) = (wanted.is_empty(), &show.what) {
        let path = directory.path.join(what);
        if Path::new(what).components().all(|part| matches!(part, std::path::Component::Normal(_))) && path.is_file() {
            return match file(&mut disk, &path, output)? {
                Some(outcome) => Ok(outcome),
                None => crate::files::show(&mut disk, &path, show, output),
            };
        }
        return Err(InspectError::Usage(format!(
            "{} has no partition or file {what}; `ls` lists those that are there",
            directory.path.display()
        )));
    }
    let mut damaged = false;
    for partition in wanted {
        if output.is_text() {
            output.line(format_args!("partition {}", partition.name()))?;
        }
        let meaning = Meaning::of(None, Some(&partition.topic));
        let log = partition.log();
        let mut fates = Fates::new(&log, Spare::default());
        let next = partition.segments.iter().skip(1).copied().chain([Offset::MAX]);
        for (base, next) in partition.segments.iter().zip(next) {
            if show.from.is_some_and(|from| next <= from) {
                continue;
            }
            let path = partition.path(*base, "log");
            let segment = Segment::open(&mut disk, &path, false).map_err(InspectError::io("open", &path))?;
            let mut segment = segment.with_batches_up_to(KAFKA_BATCH_BYTES_MAX);
            damaged |= segment_batches(&mut disk, &mut segment, &path, None, show, meaning, Some(&mut fates), output)?;
        }
    }
    for note in &directory.notes {
        output.note(note)?;
    }
    Ok(Outcome::of(damaged))
}

/// A file that Kafka keeps beside segments, by its name. None: it is none.
pub fn file(disk: &mut ReadOnly, path: &Path, output: &mut Output<'_>) -> Result<Option<Outcome>, InspectError> {
    let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let of = |kind: &str| base_of(&name, kind);
    let is_text = name == EPOCHS_NAME || name == PARTITION_NAME || OFFSETS_NAMES.contains(&name.as_str());
    let is_binary = ["index", "timeindex", "txnindex", "snapshot"].iter().any(|kind| of(kind).is_some());
    if !is_text && !is_binary {
        return Ok(None);
    }
    let bytes = match read_whole(disk, path, if is_text { TEXT_BYTES_MAX } else { INDEX_BYTES_MAX }) {
        Ok(bytes) => bytes,
        Err(corrupt) => return tell_problem(corrupt, output).map(Some),
    };
    if of("index").is_some() && bytes.starts_with(b"MLIX") {
        return Ok(None); // one of ours
    }
    let wrong = if let Some(base) = of("index") {
        let (entries, wrong) = formats::index(&bytes, base);
        for entry in entries {
            let line = format_args!("offset {:>12} at byte {:>10}", entry.offset, entry.place);
            output.tell("index_entry", || vec![field("offset", entry.offset), field("place", entry.place)], line)?;
        }
        wrong
    } else if let Some(base) = of("timeindex") {
        let (entries, wrong) = formats::time_index(&bytes, base);
        for entry in entries {
            let line = format_args!("timestamp {} at offset {}", entry.timestamp, entry.offset);
            output.tell("time_entry", || vec![field("timestamp", entry.timestamp), field("offset", entry.offset)], line)?;
        }
        wrong
    } else if of("txnindex").is_some() {
        let (entries, wrong) = formats::transaction_index(&bytes);
        for entry in entries {
            let fields = || {
                vec![
                    field("producer_id", entry.producer_id),
                    field("first", entry.first),
                    field("last", entry.last),
                    field("last_stable", entry.last_stable),
                ]
            };
            let line = format_args!(
                "aborted: producer {} offsets {} to {}, last stable offset {}",
                entry.producer_id, entry.first, entry.last, entry.last_stable
            );
            output.tell("aborted", fields, line)?;
        }
        wrong
    } else if of("snapshot").is_some() {
        match formats::snapshot(&bytes) {
            Ok(producers) => {
                producers.iter().try_for_each(|producer| print_producer(output, producer))?;
                None
            }
            Err(wrong) => Some(wrong),
        }
    } else {
        text(&name, &bytes, output)?
    };
    match wrong {
        None => Ok(Some(Outcome::Clean)),
        Some(wrong) => tell_problem(in_file(wrong, path), output).map(Some),
    }
}

fn text(name: &str, bytes: &[u8], output: &mut Output<'_>) -> Result<Option<formats::Wrong>, InspectError> {
    if name == EPOCHS_NAME {
        return match formats::epochs(bytes) {
            Ok(epochs) => {
                for (epoch, start) in epochs {
                    let line = format_args!("epoch {epoch} begins at offset {start}");
                    output.tell("epoch", || vec![field("epoch", epoch), field("start", start)], line)?;
                }
                Ok(None)
            }
            Err(wrong) => Ok(Some(wrong)),
        };
    }
    if name == PARTITION_NAME {
        return match formats::partition_metadata(bytes) {
            Ok(id) => {
                output.tell("partition_metadata", || vec![field("topic_id", id.to_string())], format_args!("topic id {id}"))?;
                Ok(None)
            }
            Err(wrong) => Ok(Some(wrong)),
        };
    }
    match formats::offsets(bytes) {
        Ok(offsets) => {
            for (topic, partition, offset) in offsets {
                let line = format_args!("{topic}-{partition} {offset}");
                let fields = || vec![field("topic", topic.as_str()), field("partition", partition), field("offset", offset)];
                output.tell("offset", fields, line)?;
            }
            Ok(None)
        }
        Err(wrong) => Ok(Some(wrong)),
    }
}

fn print_producer(output: &mut Output<'_>, producer: &formats::Producer) -> std::io::Result<()> {
    let fields = || {
        vec![
            field("producer_id", producer.id),
            field("epoch", producer.epoch),
            field("last_sequence", producer.last_sequence),
            field("last_offset", producer.last_offset),
            field("offset_delta", producer.offset_delta),
            field("timestamp", producer.timestamp),
            field("coordinator_epoch", producer.coordinator_epoch),
            field("open_transaction", Some(producer.open_transaction).filter(|offset| *offset >= 0)),
        ]
    };
    let open = if producer.open_transaction >= 0 {
        format!(", in a transaction from offset {}", producer.open_transaction)
    } else {
        String::new()
    };
    let line = format_args!(
        "producer {} epoch {} last sequence {} at offset {}, {} ms{open}",
        producer.id, producer.epoch, producer.last_sequence, producer.last_offset, producer.timestamp
    );
    output.tell("producer", fields, line)
}

fn tell_problem(corrupt: Corrupt, output: &mut Output<'_>) -> Result<Outcome, InspectError> {
    Problem { corrupt, at_start: None }.tell(output, None)?;
    Ok(Outcome::Damaged)
}
