//! The answer to a fetch, without touching the records.
//!
//! 1. Everything that is not records is written, one piece after another, into one buffer; at each partition's records the place is noted.
//! 2. The size is the buffer's length plus the records' lengths; it is written in front.
//! 3. The buffer is cut at the places noted, without a copy, and the caller's handles are put between the pieces: sending the parts in order
//!    sends the frame.
//!
//! Written by hand for versions 4 to 18; kafka-protocol, which would copy the records, checks it byte for byte in the tests.
//! Invariants: the parts' lengths sum to the frame's length; records handed in come out once each, in order.
//! Knows nothing of what is inside the records.

use bytes::{BufMut, Bytes, BytesMut};
use millrace_base::ids::Uuid;

use super::response::{EncodeError, begin, put_count, put_size, put_string, put_varint};
use super::table::Api;

/// One piece of a frame; sent in order they are the frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part<R> {
    Bytes(Bytes),
    /// A handle that the caller put in; never empty.
    Records(R),
}

impl<R: AsRef<[u8]>> Part<R> {
    /// In bytes.
    pub fn len(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::Records(records) => records.as_ref().len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer. Fields that a version lacks are left out without complaint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FetchResponse<'a, R> {
    pub throttle_time_ms: i32,
    /// From version 7.
    pub error_code: i16,
    /// From version 7; 0 is no session.
    pub session_id: i32,
    pub topics: Vec<FetchedTopic<'a, R>>,
    /// Brokers that `current_leader` fields name; from version 16.
    pub node_endpoints: Vec<NodeEndpoint<'a>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FetchedTopic<'a, R> {
    /// To version 12.
    pub name: &'a str,
    /// From version 13.
    pub topic_id: Uuid,
    pub partitions: Vec<FetchedPartition<R>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedPartition<R> {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    /// From version 5.
    pub log_start_offset: i64,
    /// From version 12: where the fetcher's log leaves ours.
    pub diverging_epoch: Option<EpochEnd>,
    /// From version 12.
    pub current_leader: Option<CurrentLeader>,
    /// Sorted by first offset. None is null: the fetch reads uncommitted.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// From version 11; -1 is none.
    pub preferred_read_replica: i32,
    /// Slices of the log, which together are whole batches; none are zero bytes of records.
    pub records: Vec<R>,
}

impl<R> Default for FetchedPartition<R> {
    fn default() -> Self {
        FetchedPartition {
            index: 0,
            error_code: 0,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    pub epoch: i32,
    pub end_offset: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CurrentLeader {
    pub leader_id: i32,
    pub leader_epoch: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeEndpoint<'a> {
    pub node_id: i32,
    pub host: &'a str,
    pub port: i32,
    pub rack: Option<&'a str>,
}

/// The frame's parts, size prefix included, for a served version.
pub fn encode<R: AsRef<[u8]>>(version: i16, correlation_id: i32, response: FetchResponse<'_, R>) -> Result<Vec<Part<R>>, EncodeError> {
    assert!(Api::Fetch.serves(version), "the dispatcher lets served versions through only");
    let mut writer = Writer {
        out: begin(Api::Fetch, version, correlation_id),
        version,
        flexible: Api::Fetch.flexible(version),
        cuts: Vec::new(),
        record_bytes: 0,
    };
    writer.response(response)?;
    writer.into_parts()
}

struct Writer<R> {
    out: BytesMut,
    version: i16,
    flexible: bool,
    /// Where in `out` each handle belongs; places ascend.
    cuts: Vec<(usize, R)>,
    record_bytes: usize,
}

impl<R: AsRef<[u8]>> Writer<R> {
    fn response(&mut self, response: FetchResponse<'_, R>) -> Result<(), EncodeError> {
        self.out.put_i32(response.throttle_time_ms);
        if self.version >= 7 {
            self.out.put_i16(response.error_code);
            self.out.put_i32(response.session_id);
        }
        self.array(response.topics.len())?;
        for topic in response.topics {
            self.topic(topic)?;
        }
        if self.flexible {
            self.endpoints(&response.node_endpoints);
        }
        Ok(())
    }

    fn topic(&mut self, topic: FetchedTopic<'_, R>) -> Result<(), EncodeError> {
        if self.version >= 13 {
            self.out.put_slice(&topic.topic_id.0);
        } else if self.flexible {
            put_string(&mut self.out, topic.name);
        } else {
            let length = i16::try_from(topic.name.len()).map_err(|_| EncodeError::TooLarge { bytes: topic.name.len() })?;
            self.out.put_i16(length);
            self.out.put_slice(topic.name.as_bytes());
        }
        self.array(topic.partitions.len())?;
        for partition in topic.partitions {
            self.partition(partition)?;
        }
        self.no_tags();
        Ok(())
    }

    fn partition(&mut self, partition: FetchedPartition<R>) -> Result<(), EncodeError> {
        self.out.put_i32(partition.index);
        self.out.put_i16(partition.error_code);
        self.out.put_i64(partition.high_watermark);
        self.out.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.out.put_i64(partition.log_start_offset);
        }
        match &partition.aborted_transactions {
            Some(aborted) => {
                self.array(aborted.len())?;
                for transaction in aborted {
                    self.out.put_i64(transaction.producer_id);
                    self.out.put_i64(transaction.first_offset);
                    self.no_tags();
                }
            }
            None if self.flexible => self.out.put_u8(0),
            None => self.out.put_i32(-1),
        }
        if self.version >= 11 {
            self.out.put_i32(partition.preferred_read_replica);
        }
        self.records(partition.records)?;
        if self.flexible {
            self.partition_tags(partition.diverging_epoch, partition.current_leader);
        }
        Ok(())
    }

    fn records(&mut self, records: Vec<R>) -> Result<(), EncodeError> {
        let bytes = records.iter().map(|slice| slice.as_ref().len()).sum();
        self.array(bytes)?;
        self.record_bytes += bytes;
        for slice in records {
            if !slice.as_ref().is_empty() {
                self.cuts.push((self.out.len(), slice));
            }
        }
        Ok(())
    }

    /// Both are structs of an i32, an i64 or i32 and an empty tagged section: 13 and 9 bytes.
    fn partition_tags(&mut self, diverging: Option<EpochEnd>, leader: Option<CurrentLeader>) {
        put_varint(&mut self.out, usize::from(diverging.is_some()) + usize::from(leader.is_some()));
        if let Some(diverging) = diverging {
            self.out.put_slice(&[0, 13]);
            self.out.put_i32(diverging.epoch);
            self.out.put_i64(diverging.end_offset);
            self.out.put_u8(0);
        }
        if let Some(leader) = leader {
            self.out.put_slice(&[1, 9]);
            self.out.put_i32(leader.leader_id);
            self.out.put_i32(leader.leader_epoch);
            self.out.put_u8(0);
        }
    }

    fn endpoints(&mut self, endpoints: &[NodeEndpoint<'_>]) {
        if self.version < 16 || endpoints.is_empty() {
            self.out.put_u8(0);
            return;
        }
        let mut field = BytesMut::new();
        put_count(&mut field, endpoints.len());
        for endpoint in endpoints {
            field.put_i32(endpoint.node_id);
            put_string(&mut field, endpoint.host);
            field.put_i32(endpoint.port);
            match endpoint.rack {
                Some(rack) => put_string(&mut field, rack),
                None => field.put_u8(0),
            }
            field.put_u8(0);
        }
        self.out.put_slice(&[1, 0]); // one tagged field, tag 0
        put_varint(&mut self.out, field.len());
        self.out.put_slice(&field);
    }

    /// An array's count, or the length of records, which has the same form.
    fn array(&mut self, count: usize) -> Result<(), EncodeError> {
        if self.flexible {
            put_count(&mut self.out, count);
        } else {
            self.out.put_i32(i32::try_from(count).map_err(|_| EncodeError::TooLarge { bytes: count })?);
        }
        Ok(())
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.out.put_u8(0);
        }
    }

    fn into_parts(mut self) -> Result<Vec<Part<R>>, EncodeError> {
        let bytes = self.out.len() + self.record_bytes;
        put_size(&mut self.out, bytes)?;
        let mut head = self.out.freeze();
        let mut parts = Vec::with_capacity(2 * self.cuts.len() + 1);
        let mut cut_off = 0;
        for (place, slice) in self.cuts {
            if place > cut_off {
                parts.push(Part::Bytes(head.split_to(place - cut_off)));
                cut_off = place;
            }
            parts.push(Part::Records(slice));
        }
        if !head.is_empty() {
            parts.push(Part::Bytes(head));
        }
        Ok(parts)
    }
}
