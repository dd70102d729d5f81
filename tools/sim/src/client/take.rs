//! Takes down what an answer to a fetch brought.

use super::Shared;
use crate::history::{Event, Partition, Span};
use crate::value;
use kafka_protocol::messages::fetch_response::PartitionData;
use millrace_base::batch;

/// Bounds and batches of one partition that was fetched well, as `reader` at `asked` got them; the next offset and the number of records.
pub(super) fn part(shared: &mut Shared, partition: &Partition, reader: u32, asked: i64, part: &PartitionData, span: Span) -> (i64, u64) {
    let (high_watermark, stable, log_start) = (part.high_watermark, part.last_stable_offset, part.log_start_offset);
    let high = shared.high.entry(partition.clone()).or_insert(0);
    *high = (*high).max(high_watermark);
    shared.history.push(Event::Bounds { span, partition: partition.clone(), high_watermark, stable, log_start });
    let (mut next, mut count) = (asked, 0);
    let mut rest: &[u8] = part.records.as_ref().map_or(&[], |records| records);
    while !rest.is_empty() {
        let header = match batch::Header::parse(rest).and_then(|header| batch::check_stored(&rest[..header.size.min(rest.len())])) {
            Ok(header) => header,
            Err(error) => {
                shared.wrong(format!("{partition:?}: a fetch from {asked} gave a batch that is none: {error}"));
                break;
            }
        };
        let base = header.base_offset;
        let values = value::records(&rest[..header.size], &header);
        if values.len() as i64 != header.next_offset() - base {
            shared.wrong(format!("{partition:?}: the batch at {base} has {} records", values.len()));
        }
        if header.next_offset() > high_watermark {
            shared.wrong(format!("{partition:?}: offset {} was shown, the high watermark is {high_watermark}", header.last_offset()));
        }
        if header.next_offset() <= log_start {
            shared.wrong(format!("{partition:?}: offset {} was shown, the log starts at {log_start}", header.last_offset()));
        }
        let append_time = header.is_append_time();
        if append_time != shared.append_time.contains(&partition.0) {
            shared.wrong(format!("{partition:?}: the batch at {base} has the other type of timestamp"));
        }
        shared.saw(if header.codec() == 0 { "plain batch" } else { "compressed batch" });
        count += values.len() as u64;
        next = header.next_offset();
        shared.history.push(Event::Read { span, partition: partition.clone(), reader, asked, base, append_time, values });
        rest = &rest[header.size..];
    }
    (next, count)
}
