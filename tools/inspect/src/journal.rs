//! What stands in a journal: entries, their records, and what the records' payloads hold.
//!
//! Knows nothing of which entries are live.

use crate::batches::{Found, Printer};
use crate::commands::Meaning;
use crate::files;
use crate::output::Output;
use millrace_base::batch;
use millrace_base::ids::PartitionId;
use millrace_base::value::{Fields, Value, field};
use millrace_log::journal::layout::Header;
use millrace_log::journal::{PayloadRange, Record};
use millrace_log::partition_state::{Checkpoint, Large, LargeAt, Note, PartitionState};
use millrace_log::producers::Remembered;
use millrace_log::walk;
use std::io;

/// An entry's header.
pub fn print_header(output: &mut Output<'_>, header: &Header, slot: u32, place: u64) -> io::Result<()> {
    let fields = || {
        vec![
            field("entry", header.sequence),
            field("file", format!("{slot}.journal")),
            field("place", place),
            field("bytes", header.entry_bytes),
            field("incarnation", format!("{:016x}", header.incarnation)),
            field("chain", format!("{:08x}", header.chain)),
            field("header_crc", format!("{:08x}", header.header_crc)),
            field("oldest_live", header.oldest_live),
            field("synced", header.synced),
            field("extents", header.extents_before),
            field("extents_durable", header.extents_durable),
        ]
    };
    let line = format_args!(
        "entry {}: {slot}.journal at byte {place}, {} bytes; incarnation {:016x}, chain {:08x}, header crc {:08x}; oldest live {}, synced {}, extents {} of which durable {}",
        header.sequence,
        header.entry_bytes,
        header.incarnation,
        header.chain,
        header.header_crc,
        header.oldest_live,
        header.synced,
        header.extents_before,
        header.extents_durable
    );
    output.tell("entry", fields, line)
}

/// One record. `payload`: that of its entry; `name`: what its partition is called.
pub struct Told<'a> {
    pub record: &'a Record,
    pub payload: &'a [u8],
    pub name: Option<String>,
    /// Payloads too.
    pub whole: bool,
}

impl Told<'_> {
    fn part(&self, range: &PayloadRange) -> &[u8] {
        let start = range.start as usize;
        self.payload.get(start..start.saturating_add(range.len as usize)).unwrap_or_default()
    }

    fn id(&self) -> PartitionId {
        self.record.partition()
    }

    fn who(&self) -> String {
        self.name.as_ref().map_or(self.id().to_string(), |name| format!("{} ({name})", self.id()))
    }

    /// For programs: what it is, of whom, and more.
    fn item(&self, output: &mut Output<'_>, record: &'static str, more: Fields) -> io::Result<()> {
        let mut fields = vec![field("record", record), field("partition", self.id().to_string())];
        fields.extend(self.name.as_ref().map(|name| field("name", name.as_str())));
        fields.extend(more);
        output.item("journal_record", fields)
    }

    /// A record as one line or thing, and what its payload holds.
    pub fn print(&self, output: &mut Output<'_>) -> io::Result<()> {
        if output.is_text() { self.print_text(output) } else { self.print_item(output) }
    }

    fn print_text(&self, output: &mut Output<'_>) -> io::Result<()> {
        let id = self.who();
        match self.record {
            Record::Batches { base, end, payload, .. } => {
                output.line(format_args!("  batches    {id} {base}..{end}, {} bytes", payload.len))?;
                if self.whole { self.batches(output, self.part(payload)) } else { Ok(()) }
            }
            Record::Raft { truncate, log_start, step, .. } => {
                let mut line = format!("  raft       {id} step of {} bytes", step.len);
                if let Some(to) = truncate {
                    line.push_str(&format!(", truncates to offset {} of epoch {}", to.offset, to.epoch));
                }
                if let Some(offset) = log_start {
                    line.push_str(&format!(", log start {offset}"));
                }
                output.line(line)?;
                if self.whole { hex_lines(output, self.part(step)) } else { Ok(()) }
            }
            Record::Roll { base, .. } => output.line(format_args!("  roll       {id} a segment begins at {base}")),
            Record::Checkpoint { end, segment, segment_bytes, delta, .. } => {
                output.line(format_args!(
                    "  checkpoint {id} durable below {end}; segment {segment} holds {segment_bytes} bytes; delta of {} bytes",
                    delta.len
                ))?;
                match Checkpoint::decode(self.part(delta)) {
                    Ok(told) => output.line(format_args!(
                        "             {} index entries, {} bytes of producers' changes, largest timestamp {}",
                        told.entries.len(),
                        told.producers.len(),
                        told.facts.max_timestamp
                    )),
                    Err(error) => output.line(format_args!("             {error}")),
                }
            }
            Record::State { state, .. } => {
                output.line(format_args!("  state      {id} {} bytes", state.len))?;
                match PartitionState::decode(self.part(state)) {
                    Ok(told) => print_state(output, &told, self.whole),
                    Err(error) => output.line(format_args!("             {error}")),
                }
            }
            Record::Deleted { .. } => output.line(format_args!("  deleted    {id}")),
            Record::Damaged { reason, .. } => match Note::decode(self.part(reason)) {
                Ok(Note { end: 0, reason }) => output.line(format_args!("  damaged    {id} {}", reason.escape_debug())),
                Ok(Note { end, reason }) => output.line(format_args!("  damaged    {id} was known up to {end}: {}", reason.escape_debug())),
                Err(error) => output.line(format_args!("  damaged    {id} {error}")),
            },
            Record::Extent { base, end, segment, place, bytes, crc, tail, .. } => output.line(format_args!(
                "  extent     {id} {base}..{end} in segment {segment} at byte {place}, {bytes} bytes with crc {crc:08x}, and {} here",
                tail.len
            )),
        }
    }

    fn print_item(&self, output: &mut Output<'_>) -> io::Result<()> {
        match self.record {
            Record::Batches { base, end, payload, .. } => {
                self.item(output, "batches", vec![field("base", *base), field("end", *end), field("bytes", payload.len)])?;
                if self.whole { self.batches(output, self.part(payload)) } else { Ok(()) }
            }
            Record::Raft { truncate, log_start, step, .. } => {
                let mut fields = vec![field("step_bytes", step.len), field("log_start", *log_start)];
                if let Some(to) = truncate {
                    fields.extend([field("truncate_to", to.offset), field("truncate_epoch", to.epoch)]);
                }
                if self.whole {
                    fields.push(field("step", hex(self.part(step))));
                }
                self.item(output, "raft", fields)
            }
            Record::Roll { base, .. } => self.item(output, "roll", vec![field("base", *base)]),
            Record::Checkpoint { end, segment, segment_bytes, delta, .. } => {
                let mut fields = vec![
                    field("durable_end", *end),
                    field("segment", *segment),
                    field("segment_bytes", *segment_bytes),
                    field("delta_bytes", delta.len),
                ];
                match Checkpoint::decode(self.part(delta)) {
                    Ok(told) => fields.extend([
                        field("index_entries", told.entries.len()),
                        field("producer_bytes", told.producers.len()),
                        field("max_timestamp", told.facts.max_timestamp),
                    ]),
                    Err(error) => fields.push(field("error", error.to_string())),
                }
                self.item(output, "checkpoint", fields)
            }
            Record::State { state, .. } => {
                let mut fields = vec![field("bytes", state.len)];
                let decoded = PartitionState::decode(self.part(state));
                match &decoded {
                    Ok(told) => fields.extend(state_fields(told)),
                    Err(error) => fields.push(field("error", error.to_string())),
                }
                self.item(output, "state", fields)?;
                match decoded {
                    Ok(PartitionState { large: LargeAt::Here(large), .. }) if self.whole => print_large(output, &large, true),
                    Ok(_) | Err(_) => Ok(()),
                }
            }
            Record::Deleted { .. } => self.item(output, "deleted", Vec::new()),
            Record::Damaged { reason, .. } => {
                let fields = match Note::decode(self.part(reason)) {
                    Ok(Note { end, reason }) => vec![field("known_end", end), field("reason", reason)],
                    Err(error) => vec![field("error", error.to_string())],
                };
                self.item(output, "damaged", fields)
            }
            Record::Extent { base, end, segment, place, bytes, crc, tail, .. } => {
                let fields = vec![
                    field("base", *base),
                    field("end", *end),
                    field("segment", *segment),
                    field("place", *place),
                    field("bytes", *bytes),
                    field("crc", format!("{crc:08x}")),
                    field("tail_bytes", tail.len),
                ];
                self.item(output, "extent", fields)
            }
        }
    }

    fn batches(&self, output: &mut Output<'_>, bytes: &[u8]) -> io::Result<()> {
        let name = self.name.as_deref().and_then(|name| name.rsplit_once('-')).map(|(topic, _)| topic);
        let meaning = Meaning::of(Some(self.id().topic), name);
        let mut printer = Printer::new(Some(meaning), vec![field("partition", self.id().to_string())]);
        for found in walk::batches(bytes) {
            match found {
                Ok(found) => {
                    let check = batch::check_stored(found.bytes).map(drop);
                    printer
                        .print(output, &Found { place: found.place as u64, header: found.header, bytes: found.bytes, check, fate: None })?;
                }
                Err(error) => {
                    output.tell("unreadable", || vec![field("why", error.to_string())], format_args!("  {error}"))?;
                }
            }
        }
        Ok(())
    }
}

fn print_state(output: &mut Output<'_>, state: &PartitionState, whole: bool) -> io::Result<()> {
    output.line(format_args!(
        "             log start {}, durable end {}, log end {}; segment {} of {} bytes; rolls {:?}; consensus of {} bytes",
        state.log_start,
        state.durable_end,
        state.log_end,
        state.segment,
        state.segment_bytes,
        state.rolls,
        state.consensus.len()
    ))?;
    if whole {
        hex_lines(output, &state.consensus)?;
    }
    match &state.large {
        LargeAt::Here(large) => print_large(output, large, whole),
        LargeAt::File(reference) => {
            let (name, bytes, crc) = (reference.name, reference.bytes, reference.crc);
            output.line(format_args!("             index and producers in {name}, {bytes} bytes with crc {crc:08x}"))
        }
        LargeAt::Changed(reference, changes) => {
            let (name, bytes, crc) = (reference.name, reference.bytes, reference.crc);
            let (entries, producers) = (changes.entries.len(), changes.producers.len());
            output.line(format_args!(
                "             index and producers in {name}, {bytes} bytes with crc {crc:08x}; since then {entries} index entries and \
                 {producers} bytes of producers"
            ))
        }
    }
}

fn state_fields(state: &PartitionState) -> Fields {
    let mut fields = vec![
        field("log_start", state.log_start),
        field("durable_end", state.durable_end),
        field("log_end", state.log_end),
        field("segment", state.segment),
        field("segment_bytes", state.segment_bytes),
        field("rolls", state.rolls.iter().map(|base| Value::from(*base)).collect::<Vec<_>>()),
        field("consensus", hex(&state.consensus)),
    ];
    match &state.large {
        LargeAt::Here(large) => {
            fields.extend([field("index_entries", large.index.entries().len()), field("producers", large.producers.len())]);
        }
        LargeAt::File(reference) => fields.extend([
            field("state_file", reference.name.to_string()),
            field("state_file_bytes", reference.bytes),
            field("state_file_crc", format!("{:08x}", reference.crc)),
        ]),
        LargeAt::Changed(reference, changes) => fields.extend([
            field("state_file", reference.name.to_string()),
            field("state_file_bytes", reference.bytes),
            field("state_file_crc", format!("{:08x}", reference.crc)),
            field("index_entries_since", changes.entries.len()),
            field("producer_bytes_since", changes.producers.len()),
        ]),
    }
    fields
}

/// Index and producers of a partition.
pub fn print_large(output: &mut Output<'_>, large: &Large, whole: bool) -> io::Result<()> {
    let producers = &large.producers;
    if output.is_text() {
        output.line(format_args!("             {} index entries, {} producers", large.index.entries().len(), producers.len()))?;
    }
    if !whole {
        return Ok(());
    }
    files::print_index(output, &large.index)?;
    for (id, producer) in producers.committed() {
        let fields = || {
            let batch = |batch: &Remembered| {
                Value::map([
                    ("first_sequence", batch.first_sequence.into()),
                    ("last_sequence", batch.last_sequence.into()),
                    ("base", batch.base.into()),
                    ("end", batch.end.into()),
                    ("timestamp", batch.timestamp.into()),
                ])
            };
            vec![
                field("producer_id", id),
                field("epoch", producer.epoch),
                field("last_use_ms", producer.last_use),
                field("batches", producer.batches.iter().map(batch).collect::<Vec<_>>()),
            ]
        };
        output.tell(
            "producer",
            fields,
            format_args!("             producer {id} epoch {} last used {} ms", producer.epoch, producer.last_use),
        )?;
        if output.is_text() {
            for batch in &producer.batches {
                let Remembered { first_sequence, last_sequence, base, end, timestamp } = batch;
                output.line(format_args!(
                    "               sequences {first_sequence} to {last_sequence}, offsets {base} to {}, max timestamp {timestamp} ms",
                    end - 1
                ))?;
            }
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex_lines(output: &mut Output<'_>, bytes: &[u8]) -> io::Result<()> {
    bytes.chunks(32).try_for_each(|line| output.line(format_args!("             {}", hex(line))))
}
