//! What the members of a consumer group tell each other through its coordinator: who subscribes to what, and who was assigned which
//! partitions (Kafka's consumer protocol, classic groups).
//!
//! 1. A member joins with a subscription; the leader is given those of all, shares the partitions out by [`range`], and sends each member its
//!    assignment.
//! 2. Other members' bytes are read with every length checked; what is not as consumers write it gives `None`.
//!
//! Invariants: every partition goes to one member that subscribes to its topic, if there is any.
//!
//! Knows nothing of connections.

use std::collections::BTreeMap;

use crate::offsets::Place;

/// The assignor that all consumers know, by the name that they give it.
pub const RANGE: &str = "range";

/// Version 0: later ones add what only other assignors need.
const VERSION: [u8; 2] = [0, 0];
const NO_USER_DATA: [u8; 4] = [0xff; 4];

/// # Panics
/// When a topic's name has more than 32,767 bytes, which no broker takes.
pub fn write_subscription(topics: &[String]) -> Vec<u8> {
    let mut out = VERSION.to_vec();
    out.extend(count(topics.len()));
    topics.iter().for_each(|topic| write_name(&mut out, topic));
    out.extend(NO_USER_DATA);
    out
}

/// The topics of a subscription.
pub fn read_subscription(bytes: &[u8]) -> Option<Vec<String>> {
    let mut rest = bytes;
    take::<2>(&mut rest)?;
    let mut topics = Vec::new();
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        topics.push(read_name(&mut rest)?);
    }
    Some(topics)
}

/// # Panics
/// As for [`write_subscription`].
pub fn write_assignment(places: &[Place]) -> Vec<u8> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    places.iter().for_each(|(topic, partition)| topics.entry(topic).or_default().push(*partition));
    let mut out = VERSION.to_vec();
    out.extend(count(topics.len()));
    for (topic, partitions) in topics {
        write_name(&mut out, topic);
        out.extend(count(partitions.len()));
        partitions.iter().for_each(|partition| out.extend(partition.to_be_bytes()));
    }
    out.extend(NO_USER_DATA);
    out
}

/// The partitions of an assignment.
pub fn read_assignment(bytes: &[u8]) -> Option<Vec<Place>> {
    let mut rest = bytes;
    take::<2>(&mut rest)?;
    let mut places = Vec::new();
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let topic = read_name(&mut rest)?;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            places.push((topic.clone(), i32::from_be_bytes(take(&mut rest)?)));
        }
    }
    Some(places)
}

/// Shares each topic's partitions out among the members that subscribe to it: in the order of the members' ids, runs of the same length, the
/// first ones longer by one where they do not come out even. `partitions` says how many a topic has; one that is not in it has none.
pub fn range(members: &BTreeMap<String, Vec<String>>, partitions: &BTreeMap<String, i32>) -> BTreeMap<String, Vec<Place>> {
    let mut shares: BTreeMap<String, Vec<Place>> = members.keys().map(|member| (member.clone(), Vec::new())).collect();
    for (topic, partition_count) in partitions {
        let readers: Vec<&String> = members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(member, _)| member).collect();
        let reader_count = i32::try_from(readers.len()).unwrap_or(i32::MAX);
        let mut next = 0;
        for (at, reader) in (0..).zip(&readers) {
            let length = partition_count / reader_count + i32::from(at < partition_count % reader_count);
            shares.entry((*reader).clone()).or_default().extend((next..next + length).map(|partition| (topic.clone(), partition)));
            next += length;
        }
    }
    shares
}

fn count(length: usize) -> [u8; 4] {
    i32::try_from(length).expect("fewer than a request can hold").to_be_bytes()
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    out.extend(i16::try_from(name.len()).expect("a topic's name is short").to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

fn read_name(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(i16::from_be_bytes(take(rest)?)).ok()?;
    let name = std::str::from_utf8(rest.get(..length)?).ok()?.to_owned();
    *rest = &rest[length..];
    Some(name)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(topic: &str, partition: i32) -> Place {
        (topic.to_owned(), partition)
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_passed_over() {
        let topics = vec!["tx".to_owned(), "other".to_owned()];
        let subscription = write_subscription(&topics);
        assert_eq!(read_subscription(&subscription), Some(topics));
        let places = vec![place("tx", 0), place("tx", 5)];
        let assignment = write_assignment(&places);
        assert_eq!(assignment[..22], [0, 0, 0, 0, 0, 1, 0, 2, b't', b'x', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(read_assignment(&assignment), Some(places));
        for length in 0..22 {
            assert_eq!(read_assignment(&assignment[..length]), None, "{length}");
        }
        for length in 0..subscription.len() - 4 {
            assert_eq!(read_subscription(&subscription[..length]), None, "{length}");
        }
        assert_eq!(read_assignment(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(read_assignment(&[0, 0, 0xff, 0xff, 0xff, 0xff]), Some(Vec::new()));
    }

    #[test]
    fn every_partition_has_one_reader_that_subscribes_to_it() {
        let members = |of: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
            of.iter().map(|(member, topics)| ((*member).to_owned(), topics.iter().map(|topic| (*topic).to_owned()).collect())).collect()
        };
        let partitions = BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 1), ("nobody's".to_owned(), 3)]);
        let shares = range(&members(&[("m1", &["a", "b"]), ("m2", &["a"]), ("m3", &["b", "missing"])]), &partitions);
        assert_eq!(shares["m1"], [place("a", 0), place("a", 1), place("a", 2), place("b", 0)]);
        assert_eq!(shares["m2"], [place("a", 3), place("a", 4)]);
        assert_eq!(shares["m3"], []);
        assert!(range(&BTreeMap::new(), &partitions).is_empty());
    }
}
