//! What topics are called: the commands of replica set 0, as far as they can be read.
//!
//! Only the data directory that holds replica set 0 has them; in others topics are known by their ids alone.
//!
//! Invariants: a name is only ever taken from a batch whose CRC is right.

use crate::partition::Partition;
use crate::read_only::ReadOnly;
use crate::records::{Opener, Records};
use crate::segment::{Piece, Segment};
use millrace_base::batch::{self, Header};
use millrace_base::ids::{META_TOPIC, PartitionId, TopicId};
use millrace_log::image::PendingBytes;
use millrace_log::walk;
use millrace_state::meta::Command;
use std::collections::BTreeMap;

/// What replica set 0 is called; no topic can be.
pub const META_NAME: &str = "replica set 0";

#[derive(Default)]
pub struct Names {
    by_id: BTreeMap<TopicId, String>,
    /// What stands in the way of knowing all.
    pub note: Option<String>,
}

impl Names {
    /// From replica set 0's own partition.
    pub fn read(disk: &mut ReadOnly, set: &Partition) -> Names {
        let (mut names, mut opener) = (Names::default(), Opener::default());
        names.by_id.insert(META_TOPIC, META_NAME.to_owned());
        let mut damaged = None;
        for at in &set.segments {
            let Ok(mut segment) = Segment::open(disk, &set.segment_path(at.base), false) else { continue };
            let end = set.batches_end(*at).unwrap_or(segment.len()).min(segment.len());
            let walked = segment.walk(disk, 0..end, &mut |piece| {
                match piece {
                    Piece::Batch { header, bytes, check: Ok(()), .. } => names.take(&header, bytes, &mut opener),
                    Piece::Batch { header, .. } => damaged = Some(header.base_offset),
                    Piece::Corrupt(_) => damaged = Some(at.base),
                    Piece::Zeros { .. } => {}
                }
                Ok(())
            });
            if walked.is_err() {
                damaged = Some(at.base);
            }
        }
        for pending in set.image.iter().flat_map(|image| &image.pending) {
            let PendingBytes::Journal(bytes) = &pending.bytes else { continue };
            for found in walk::batches(bytes).flatten().filter(|found| batch::check_stored(found.bytes).is_ok()) {
                names.take(&found.header, found.bytes, &mut opener);
            }
        }
        if let Some(offset) = damaged {
            names.note = Some(format!("replica set 0 is damaged at offset {offset}: topics may be missing a name, or have an old one"));
        }
        names
    }

    fn take(&mut self, header: &Header, bytes: &[u8], opener: &mut Opener) {
        let Ok(opened) = opener.open(header, bytes) else { return };
        for record in Records::new(header, opened).flatten() {
            if let Some(Ok(Command::CreateTopic { topic, name, .. })) = record.value.map(Command::decode) {
                self.by_id.insert(topic, name);
            }
        }
    }

    /// A deleted topic keeps its name here: its id never comes again.
    pub fn of(&self, topic: TopicId) -> Option<&str> {
        self.by_id.get(&topic).map(String::as_str)
    }

    /// The newest topic of that name.
    pub fn id(&self, name: &str, among: impl Fn(TopicId) -> bool) -> Option<TopicId> {
        self.by_id.iter().filter(|(_, other)| *other == name).map(|(id, _)| *id).find(|id| among(*id))
    }

    /// `name-index`, as Kafka writes it.
    pub fn partition(&self, id: PartitionId) -> Option<String> {
        self.of(id.topic).map(|name| format!("{name}-{}", id.index))
    }

    /// The id, and the name if it is known.
    pub fn both(&self, id: PartitionId) -> String {
        self.partition(id).map_or(id.to_string(), |name| format!("{id} ({name})"))
    }
}
