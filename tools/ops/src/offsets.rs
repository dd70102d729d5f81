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

/// From one place to another, the second one left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub begin: Where,
    /// `None`: what is still to come, too.
    pub end: Option<Where>,
}

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

/// What [`parse_range`] understands, for help texts.
pub const RANGE_FORMS: &str =
    "Where to begin: start, end, a number, -N for N before the end, or @TIME; or FROM:TO, without what is at TO, as in 5:10 or @-1h:end";

/// A place, or two with a colon between them; nothing before the colon is the start, nothing behind it no end. `-N` is `end-N` here.
///
/// # Errors
/// `text` names no places.
pub fn parse_range(text: &str, now_ms: i64) -> Outcome<Range> {
    let one = |text: &str| match text.strip_prefix('-') {
        Some(back) => parse(&format!("end-{back}"), now_ms),
        None => parse(text, now_ms),
    };
    // Times have colons too.
    let whole = one(text);
    if let Ok(begin) = whole {
        return Ok(Range { begin, end: None });
    }
    for (at, _) in text.match_indices(':') {
        let (from, to) = (&text[..at], &text[at + 1..]);
        let begin = if from.is_empty() { Ok(Where::Start) } else { one(from) };
        let end = if to.is_empty() { Ok(None) } else { one(to).map(Some) };
        if let (Ok(begin), Ok(end)) = (begin, end) {
            return Ok(Range { begin, end });
        }
    }
    whole.map(|begin| Range { begin, end: None })
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
    fn two_places_are_a_range() {
        let check =
            |text: &str, begin: Where, end: Option<Where>| assert_eq!(parse_range(text, 1_000_000), Ok(Range { begin, end }), "{text}");
        check("5", Where::At(5), None);
        check("5:10", Where::At(5), Some(Where::At(10)));
        check(":end", Where::Start, Some(Where::End { back: 0 }));
        check("5:", Where::At(5), None);
        check("-3", Where::End { back: 3 }, None);
        check("-3:-1", Where::End { back: 3 }, Some(Where::End { back: 1 }));
        check("@-10s:@-5s", Where::Time(990_000), Some(Where::Time(995_000)));
        check("@1970-01-01T00:01:@1970-01-01T00:02:03", Where::Time(60_000), Some(Where::Time(123_000)));
        check("@1970-01-01T00:01:05", Where::Time(65_000), None);
        check("@1970-01-01T00:01:5", Where::Time(60_000), Some(Where::At(5)));
        for text in ["", "x:5", "5:x", "5:10:15", "--3"] {
            assert!(parse_range(text, 0).is_err(), "{text}");
        }
    }

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
