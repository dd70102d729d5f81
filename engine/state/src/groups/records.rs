//! The records of `__consumer_offsets`, in Kafka's formats: what is durable of consumer groups.
//!
//! Key: version (int16), then fields. 0 and 1: an offset (group, topic, partition); 2: a group (group). Value: version (int16), then
//! fields; none is a tombstone. Strings and bytes are length-prefixed (int16, int32; -1 is null); value versions from 4 on are flexible
//! (unsigned varint of length + 1, tagged fields at the end of each structure).
//! Written: keys 1 and 2, values of version 3. Read: offsets 0-4, groups 0-4.
//!
//! Invariants: decode(encode(c)) == c; decoding takes no more memory than a constant times the input.
//! Knows nothing of when a record is written.

use millrace_base::fault::Fault;
use std::collections::BTreeSet;

/// Key and value of one record to write; no value is a tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// A committed offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedOffset {
    pub offset: i64,
    /// -1: not known.
    pub leader_epoch: i32,
    pub metadata: String,
    /// Wall clock, milliseconds.
    pub commit_timestamp: i64,
    /// Only in values of version 1, which old brokers wrote.
    pub expire_timestamp: Option<i64>,
}

/// A member as the log remembers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberRecord {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// Its metadata for the group's protocol.
    pub subscription: Vec<u8>,
    pub assignment: Vec<u8>,
}

/// A group as the log remembers it: of its last stable or empty generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupRecord {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// Wall clock, milliseconds; None in old versions.
    pub state_timestamp: Option<i64>,
    pub members: Vec<MemberRecord>,
}

/// A record's meaning; None removes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Offset { group: String, topic: String, partition: i32, value: Option<CommittedOffset> },
    Group { group: String, value: Option<GroupRecord> },
}

/// Why a record cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// Of a kind that this release does not know: skip it or refuse to serve, as the caller decides.
    UnknownKey {
        version: i16,
    },
    UnknownValue {
        version: i16,
    },
    /// The bytes end early, or a length is impossible.
    Malformed {
        what: &'static str,
    },
}

impl RecordError {
    pub fn fault(&self) -> Fault {
        match self {
            RecordError::UnknownKey { .. } | RecordError::UnknownValue { .. } => Fault::Broken,
            RecordError::Malformed { .. } => Fault::Corrupt,
        }
    }
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordError::UnknownKey { version } => write!(f, "unknown key version {version} in __consumer_offsets"),
            RecordError::UnknownValue { version } => write!(f, "unknown value version {version} in __consumer_offsets"),
            RecordError::Malformed { what } => write!(f, "malformed record in __consumer_offsets: {what}"),
        }
    }
}

impl std::error::Error for RecordError {}

const KEY_OFFSET_LEGACY: i16 = 0;
const KEY_OFFSET: i16 = 1;
const KEY_GROUP: i16 = 2;
const VALUE_VERSION: i16 = 3;
const VALUE_VERSION_MAX: i16 = 4;
const FLEXIBLE_FROM: i16 = 4;

/// The partition of `__consumer_offsets` that holds a group: Kafka's rule, |hash| mod n with Java's string hash over UTF-16 units.
pub fn partition_for(group: &str, partitions: u32) -> u32 {
    assert!(partitions > 0);
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash.wrapping_abs() as u32 & 0x7fff_ffff) % partitions
}

impl Change {
    pub fn encode(&self) -> Record {
        let mut key = Vec::new();
        match self {
            Change::Offset { group, topic, partition, value } => {
                key.extend(KEY_OFFSET.to_be_bytes());
                put_string(&mut key, Some(group));
                put_string(&mut key, Some(topic));
                key.extend(partition.to_be_bytes());
                Record { key, value: value.as_ref().map(encode_offset) }
            }
            Change::Group { group, value } => {
                key.extend(KEY_GROUP.to_be_bytes());
                put_string(&mut key, Some(group));
                Record { key, value: value.as_ref().map(encode_group) }
            }
        }
    }

    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Change, RecordError> {
        let mut key = Reader { rest: key, flexible: false };
        match key.i16()? {
            KEY_OFFSET_LEGACY | KEY_OFFSET => Ok(Change::Offset {
                group: key.string()?,
                topic: key.string()?,
                partition: key.i32()?,
                value: value.map(decode_offset).transpose()?,
            }),
            KEY_GROUP => Ok(Change::Group { group: key.string()?, value: value.map(decode_group).transpose()? }),
            version => Err(RecordError::UnknownKey { version }),
        }
    }
}

fn encode_offset(value: &CommittedOffset) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + value.metadata.len());
    // Version 1 alone can say when an offset expires; keeping it is what makes a rewritten log equal to the old one.
    let version = if value.expire_timestamp.is_some() { 1 } else { VALUE_VERSION };
    out.extend(version.to_be_bytes());
    out.extend(value.offset.to_be_bytes());
    if version == VALUE_VERSION {
        out.extend(value.leader_epoch.to_be_bytes());
    }
    put_string(&mut out, Some(&value.metadata));
    out.extend(value.commit_timestamp.to_be_bytes());
    if let Some(expire) = value.expire_timestamp {
        out.extend(expire.to_be_bytes());
    }
    out
}

fn decode_offset(bytes: &[u8]) -> Result<CommittedOffset, RecordError> {
    let (version, mut reader) = Reader::of_value(bytes)?;
    let offset = reader.i64()?;
    let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
    let metadata = reader.string()?;
    let commit_timestamp = reader.i64()?;
    let expire_timestamp = if version == 1 { Some(reader.i64()?).filter(|expire| *expire >= 0) } else { None };
    reader.skip_tags()?;
    Ok(CommittedOffset { offset, leader_epoch, metadata, commit_timestamp, expire_timestamp })
}

fn encode_group(value: &GroupRecord) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(VALUE_VERSION.to_be_bytes());
    put_string(&mut out, Some(&value.protocol_type));
    out.extend(value.generation.to_be_bytes());
    put_string(&mut out, value.protocol.as_deref());
    put_string(&mut out, value.leader.as_deref());
    out.extend(value.state_timestamp.unwrap_or(-1).to_be_bytes());
    out.extend(i32::try_from(value.members.len()).expect("members of a group are bounded far below 2^31").to_be_bytes());
    for member in &value.members {
        put_string(&mut out, Some(&member.member_id));
        put_string(&mut out, member.instance_id.as_deref());
        put_string(&mut out, Some(&member.client_id));
        put_string(&mut out, Some(&member.client_host));
        out.extend(member.rebalance_timeout_ms.to_be_bytes());
        out.extend(member.session_timeout_ms.to_be_bytes());
        put_bytes(&mut out, &member.subscription);
        put_bytes(&mut out, &member.assignment);
    }
    out
}

fn decode_group(bytes: &[u8]) -> Result<GroupRecord, RecordError> {
    let (version, mut reader) = Reader::of_value(bytes)?;
    let protocol_type = reader.string()?;
    let generation = reader.i32()?;
    let protocol = reader.nullable_string()?;
    let leader = reader.nullable_string()?;
    let state_timestamp = if version >= 2 { Some(reader.i64()?).filter(|timestamp| *timestamp >= 0) } else { None };
    let count = reader.count()?;
    let mut members = Vec::new();
    for _ in 0..count {
        let member_id = reader.string()?;
        let instance_id = if version >= 3 { reader.nullable_string()? } else { None };
        let client_id = reader.string()?;
        let client_host = reader.string()?;
        let rebalance_timeout_ms = if version >= 1 { Some(reader.i32()?) } else { None };
        let session_timeout_ms = reader.i32()?;
        let subscription = reader.bytes()?.to_vec();
        let assignment = reader.bytes()?.to_vec();
        reader.skip_tags()?;
        let rebalance_timeout_ms = rebalance_timeout_ms.filter(|timeout| *timeout >= 0).unwrap_or(session_timeout_ms);
        members.push(MemberRecord {
            member_id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms,
            session_timeout_ms,
            subscription,
            assignment,
        });
    }
    reader.skip_tags()?;
    let ids: BTreeSet<&str> = members.iter().map(|member| member.member_id.as_str()).collect();
    if ids.len() < members.len() {
        return Err(RecordError::Malformed { what: "members that are each named once" });
    }
    Ok(GroupRecord { protocol_type, generation, protocol, leader, state_timestamp, members })
}

fn put_string(out: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else {
        out.extend((-1i16).to_be_bytes());
        return;
    };
    out.extend(i16::try_from(text.len()).expect("texts of requests are checked against TEXT_BYTES_MAX").to_be_bytes());
    out.extend(text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(i32::try_from(bytes.len()).expect("bytes come from a frame, which is shorter than 2^31").to_be_bytes());
    out.extend(bytes);
}

const SHORT: RecordError = RecordError::Malformed { what: "it ends early" };

/// Reads Kafka's primitives; every length is checked against what is left.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
    pub(super) flexible: bool,
}

impl<'a> Reader<'a> {
    fn of_value(bytes: &'a [u8]) -> Result<(i16, Reader<'a>), RecordError> {
        let mut reader = Reader { rest: bytes, flexible: false };
        let version = reader.i16()?;
        if !(0..=VALUE_VERSION_MAX).contains(&version) {
            return Err(RecordError::UnknownValue { version });
        }
        reader.flexible = version >= FLEXIBLE_FROM;
        Ok((version, reader))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn i16(&mut self) -> Result<i16, RecordError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0u64;
        for shift in 0..5 {
            let [byte] = self.array::<1>()?;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| RecordError::Malformed { what: "a varint above 32 bits" });
            }
        }
        Err(RecordError::Malformed { what: "a varint of more than five bytes" })
    }

    /// A length; None is null.
    fn length(&mut self, short: bool) -> Result<Option<usize>, RecordError> {
        if self.flexible {
            return Ok(self.varint()?.checked_sub(1).map(|length| length as usize));
        }
        let length = if short { i32::from(self.i16()?) } else { self.i32()? };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| RecordError::Malformed { what: "a negative length" }),
        }
    }

    fn nullable_string(&mut self) -> Result<Option<String>, RecordError> {
        let Some(length) = self.length(true)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| RecordError::Malformed { what: "text is not UTF-8" })?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn string(&mut self) -> Result<String, RecordError> {
        self.nullable_string()?.ok_or(RecordError::Malformed { what: "null where text must be" })
    }

    fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.length(false)?.ok_or(RecordError::Malformed { what: "null where bytes must be" })?;
        self.take(length)
    }

    /// The count of an array, no larger than the bytes left.
    pub(super) fn count(&mut self) -> Result<usize, RecordError> {
        let count = self.length(false)?.ok_or(RecordError::Malformed { what: "null where an array must be" })?;
        if count > self.rest.len() {
            return Err(RecordError::Malformed { what: "an array longer than its record" });
        }
        Ok(count)
    }

    fn skip_tags(&mut self) -> Result<(), RecordError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(length as usize)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::prng::Prng;

    fn offset() -> CommittedOffset {
        CommittedOffset { offset: 7, leader_epoch: 2, metadata: "m".into(), commit_timestamp: 9, expire_timestamp: None }
    }

    fn group() -> GroupRecord {
        let member = |id: &str| MemberRecord {
            member_id: id.into(),
            instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 1,
            session_timeout_ms: 2,
            subscription: vec![1],
            assignment: vec![2, 3],
        };
        GroupRecord {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: Some("a".into()),
            state_timestamp: Some(5),
            members: vec![member("a"), member("b")],
        }
    }

    fn changes() -> Vec<Change> {
        let at = |value| Change::Offset { group: "g".into(), topic: "t".into(), partition: 4, value };
        let expiring = CommittedOffset { leader_epoch: -1, expire_timestamp: Some(11), ..offset() };
        let empty = GroupRecord { protocol: None, leader: None, members: vec![], ..group() };
        vec![
            at(Some(offset())),
            at(Some(expiring)),
            at(None),
            Change::Group { group: "g".into(), value: Some(group()) },
            Change::Group { group: "g".into(), value: Some(empty) },
            Change::Group { group: "g".into(), value: None },
        ]
    }

    fn decoded(record: &Record) -> Result<Change, RecordError> {
        Change::decode(&record.key, record.value.as_deref())
    }

    #[test]
    fn every_change_round_trips() {
        for change in changes() {
            assert_eq!(decoded(&change.encode()), Ok(change));
        }
    }

    #[test]
    fn bytes_are_kafkas() {
        let record = changes()[0].encode();
        assert_eq!(record.key, [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 4]);
        let value = [0, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(record.value.as_deref(), Some(&value[..]));
        assert_eq!(changes()[5].encode().key, [0, 2, 0, 1, b'g']);
    }

    #[test]
    fn older_and_flexible_values_are_read() {
        let key = [0, 0, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 4];
        let v0 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 0, 9];
        let Ok(Change::Offset { value: Some(read), .. }) = Change::decode(&key, Some(&v0)) else { panic!() };
        assert_eq!(read, CommittedOffset { leader_epoch: -1, ..offset() });
        let mut v4 = vec![0, 4, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, 2, b'm', 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 16];
        v4.extend([5; 16]); // tag 0: a topic id
        let Ok(Change::Offset { value: Some(read), .. }) = Change::decode(&key, Some(&v4)) else { panic!() };
        assert_eq!(read, offset());
        // A group of version 0: one member without instance id, timestamps or rebalance timeout.
        let mut v0 = vec![0, 0, 0, 1, b'c', 0, 0, 0, 3, 0xff, 0xff, 0, 1, b'a', 0, 0, 0, 1];
        v0.extend([0, 1, b'a', 0, 1, b'c', 0, 1, b'h', 0, 0, 0, 6, 0, 0, 0, 1, 9, 0, 0, 0, 0]);
        let Ok(Change::Group { value: Some(read), .. }) = Change::decode(&[0, 2, 0, 1, b'g'], Some(&v0)) else { panic!() };
        assert_eq!((read.generation, read.state_timestamp, read.members[0].rebalance_timeout_ms), (3, None, 6));
        // And of version 4, compact throughout.
        let mut v4 = vec![0, 4, 2, b'c', 0, 0, 0, 3, 0, 2, b'a', 0, 0, 0, 0, 0, 0, 0, 5, 2];
        v4.extend([2, b'a', 0, 2, b'c', 2, b'h', 0, 0, 0, 1, 0, 0, 0, 6, 2, 9, 1, 0, 0]);
        let Ok(Change::Group { value: Some(read), .. }) = Change::decode(&[0, 2, 0, 1, b'g'], Some(&v4)) else { panic!() };
        assert_eq!((read.members[0].subscription.as_slice(), read.state_timestamp), (&[9u8][..], Some(5)));
    }

    #[test]
    fn a_member_named_twice_is_refused() {
        let mut v0 = vec![0, 0, 0, 1, b'c', 0, 0, 0, 3, 0xff, 0xff, 0, 1, b'a', 0, 0, 0, 2];
        let member = [0, 1, b'a', 0, 1, b'c', 0, 1, b'h', 0, 0, 0, 6, 0, 0, 0, 1, 9, 0, 0, 0, 0];
        v0.extend([member, member].concat());
        assert!(matches!(Change::decode(&[0, 2, 0, 1, b'g'], Some(&v0)), Err(RecordError::Malformed { .. })));
    }

    #[test]
    fn unknown_versions_are_named() {
        assert_eq!(Change::decode(&[0, 3, 0, 0], None), Err(RecordError::UnknownKey { version: 3 }));
        assert_eq!(Change::decode(&[0, 2, 0, 0], Some(&[0, 5])), Err(RecordError::UnknownValue { version: 5 }));
    }

    #[test]
    fn damaged_records_never_panic_or_allocate_what_they_claim() {
        let mut prng = Prng::new(3);
        for change in changes() {
            let record = change.encode();
            for cut in 0..record.key.len() {
                assert!(Change::decode(&record.key[..cut], None).is_err());
            }
            let Some(value) = record.value else { continue };
            for cut in 0..value.len() {
                assert!(Change::decode(&record.key, Some(&value[..cut])).is_err());
            }
            for _ in 0..2000 {
                let mut value = value.clone();
                let at = prng.below(value.len() as u64) as usize;
                value[at] = prng.next_u64() as u8;
                let _ = Change::decode(&record.key, Some(&value));
            }
        }
        let huge = [0, 3, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];
        assert!(Change::decode(&[0, 2, 0, 0], Some(&huge)).is_err());
    }

    #[test]
    fn groups_lie_where_kafka_puts_them() {
        // Java: "foo".hashCode() == 101574.
        assert_eq!(partition_for("foo", 50), 101_574 % 50);
        assert_eq!(partition_for("", 50), 0);
        // "polygenelubricants".hashCode() is Integer.MIN_VALUE, whose absolute value Kafka takes as 0.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        // "DESIGNING WORKHOUSES" too.
        assert_eq!(partition_for("DESIGNING WORKHOUSES", 7), 0);
        // U+1F600 is two UTF-16 units: 0xd83d * 31 + 0xde00.
        assert_eq!(partition_for("\u{1f600}", 1000), (0xd83d * 31 + 0xde00) % 1000);
    }
}
