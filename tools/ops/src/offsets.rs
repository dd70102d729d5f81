//! Where in a partition: by offset, by its ends, or by time; and what offset that is, asked of the leaders.
//!
//! Written as `start`, `end`, a number, `end-100`, or `@` and a point in time ([`crate::moment`]).
//!
//! Knows nothing of groups and of what is done at the offset.

use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use crate::client::{Client, To, no_replica, topic_name};
use crate::failure::{Failure, Kind, Outcome};
use crate::moment;

/// Kafka's timestamps for the ends of a log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Up to here an answer has the same shape, and no version gives a timestamp another meaning.
const LIST_OFFSETS_NEWEST: i16 = 7;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// The first offset that is kept.
    Start,
    /// Behind the last record that consumers can read, or so many records before that.
    End {
        back: i64,
    },
    At(i64),
    /// The first record at or after this time (ms); the end where there is none.
    Time(i64),
}

/// What [`parse`] understands, for help texts.
pub const FORMS: &str = "start, end, a number, end-N for N before the end, or @TIME";

/// # Errors
/// `text` names no place.
pub fn parse(text: &str, now_ms: i64) -> Outcome<Where> {
    let wrong = || Failure::usage(format!("{text:?} is no offset")).with_hint(format!("write {FORMS}; TIME is {}", moment::FORMS));
    match text {
        "start" | "beginning" | "earliest" | "oldest" => return Ok(Where::Start),
        "end" | "latest" | "newest" => return Ok(Where::End { back: 0 }),
        _ => {}
    }
    if let Some(back) = text.strip_prefix("end-") {
        return back.parse().ok().filter(|back| *back >= 0).map(|back| Where::End { back }).ok_or_else(wrong);
    }
    if let Some(time) = text.strip_prefix('@') {
        // Not below 0: there Kafka's own marks are.
        return moment::parse(time, now_ms).filter(|ms| *ms >= 0).map(Where::Time).ok_or_else(wrong);
    }
    text.parse().ok().filter(|offset| *offset >= 0).map(Where::At).ok_or_else(wrong)
}

/// A partition of a topic.
pub type Place = (String, i32);

/// The offset of each place, one result each in their order. Numbers stand as they are.
///
/// # Errors
/// No broker answers.
pub fn find(client: &mut Client, wanted: &[(Place, Where)]) -> Outcome<Vec<Outcome<i64>>> {
    let mut offsets = list(client, wanted)?;
    let mut starts: Vec<(usize, Place)> = Vec::new();
    let mut late: Vec<(usize, Place)> = Vec::new();
    for (at, ((place, wanted), offset)) in wanted.iter().zip(&mut offsets).enumerate() {
        match (wanted, &offset) {
            (Where::End { back: 1.. }, Ok(_)) => starts.push((at, place.clone())),
            // No record is that young.
            (Where::Time(_), Ok(-1)) => late.push((at, place.clone())),
            _ => {}
        }
    }
    let all = |places: &[(usize, Place)], which| places.iter().map(|(_, place)| (place.clone(), which)).collect::<Vec<_>>();
    let found = list(client, &all(&late, Where::End { back: 0 }))?;
    late.iter().zip(found).for_each(|((at, _), end)| offsets[*at] = end);
    let found = list(client, &all(&starts, Where::Start))?;
    for ((at, _), start) in starts.iter().zip(found) {
        let Where::End { back } = wanted[*at].1 else { unreachable!("only ends have starts asked for") };
        offsets[*at] = offsets[*at].clone().and_then(|end| Ok(end.saturating_sub(back).max(start?)));
    }
    Ok(offsets)
}

/// The first offset kept, and the end, of each place.
///
/// # Errors
/// No broker answers.
pub fn ends(client: &mut Client, places: &[Place]) -> Outcome<Vec<Outcome<(i64, i64)>>> {
    let both = |which| places.iter().map(|place| (place.clone(), which)).collect::<Vec<_>>();
    let starts = list(client, &both(Where::Start))?;
    let ends = list(client, &both(Where::End { back: 0 }))?;
    Ok(starts.into_iter().zip(ends).map(|(start, end)| Ok((start?, end?))).collect())
}

/// What ListOffsets says; ends without going back.
fn list(client: &mut Client, wanted: &[(Place, Where)]) -> Outcome<Vec<Outcome<i64>>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    client.each(wanted, |client, asked| {
        let mut results: Vec<Outcome<i64>> = asked
            .iter()
            .map(|((topic, partition), _)| Err(Failure::new(Kind::Failed, format!("{topic}-{partition}: no answer"))))
            .collect();
        let mut sent = Vec::new();
        for (at, (_, wanted)) in asked.iter().enumerate() {
            match wanted {
                Where::At(offset) => results[at] = Ok(*offset),
                _ => sent.push((at, asked[at].clone())),
            }
        }
        let led = client.by_leader(&sent, |(_, ((topic, partition), _))| (topic, *partition))?;
        for (at, failure) in led.without {
            results[sent[at].0] = Err(failure);
        }
        for (node, things) in led.nodes {
            let things: Vec<(usize, (Place, Where))> = things.into_iter().map(|(_, thing)| thing).collect();
            match ask(client, node, &things) {
                Ok(found) => found.into_iter().for_each(|(at, result)| results[at] = result),
                Err(failure) => things.iter().for_each(|(at, _)| results[*at] = Err(failure.clone())),
            }
        }
        Ok(results)
    })
}

fn ask(client: &mut Client, node: i32, things: &[(usize, (Place, Where))]) -> Outcome<Vec<(usize, Outcome<i64>)>> {
    let mut topics: Vec<ListOffsetsTopic> = Vec::new();
    for (_, ((topic, partition), wanted)) in things {
        let timestamp = match wanted {
            Where::Start => EARLIEST,
            Where::End { .. } => LATEST,
            Where::Time(ms) => *ms,
            Where::At(_) => unreachable!("a number is not asked for"),
        };
        let asked =
            ListOffsetsPartition::default().with_partition_index(*partition).with_timestamp(timestamp).with_current_leader_epoch(-1);
        match topics.iter_mut().find(|known| known.name.as_str() == topic) {
            Some(known) => known.partitions.push(asked),
            None => topics.push(ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked])),
        }
    }
    let request = ListOffsetsRequest::default().with_replica_id(no_replica()).with_topics(topics);
    let answer = client.call(To::Node(node), LIST_OFFSETS_NEWEST, |_| request)?;
    let result = |(at, ((topic, partition), _)): &(usize, (Place, Where))| {
        let found = answer.topics.iter().find(|found| found.name.as_str() == topic);
        let found = found.and_then(|found| found.partitions.iter().find(|found| found.partition_index == *partition));
        let subject = format!("{topic}-{partition}");
        let result = match found {
            Some(found) => Failure::check(&subject, found.error_code, None).map(|()| found.offset),
            None => Err(Failure::new(Kind::Failed, format!("{subject}: the answer leaves it out"))),
        };
        (*at, result)
    };
    Ok(things.iter().map(result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_in_words_numbers_and_times() {
        let check = |text: &str, expected: Where| assert_eq!(parse(text, 1_000_000), Ok(expected), "{text}");
        check("start", Where::Start);
        check("end", Where::End { back: 0 });
        check("end-5", Where::End { back: 5 });
        check("17", Where::At(17));
        check("@1700000000", Where::Time(1_700_000_000_000));
        check("@-10s", Where::Time(990_000));
        for text in ["", "-1", "@", "@now", "end--1", "x", "@1969-01-01"] {
            assert_eq!(parse(text, 0).expect_err("no offset").kind, Kind::Usage, "{text}");
        }
    }
}
