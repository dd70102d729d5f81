//! `millrace recover`: what damaged partitions have lost, told in words or as JSON, and given up when that is asked for.
//!
//! What was found goes to standard output, one partition after the other; the broker's own log to standard error.
//!
//! Invariants: nothing is given up without `--accept-loss`; the exit code is 0 when nothing is damaged or what was asked for is done.

use std::fmt::Write;

use millrace_base::value::Value;
use millrace_io::blocking::BlockingDisk;
use millrace_io::system;
use millrace_shard::boot::Plan;
use millrace_shard::recover::{self, Accept, Loss, Report};

use millrace::failure::Failure;

/// How what was found is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Text,
    Json,
}

/// Looks, gives up what `accept` says, and gives the text to be printed; and the failure to end with, if there is one.
///
/// # Errors
/// Nothing can be said.
pub fn run(plan: &Plan, accept: &Accept, format: Format) -> Result<(String, Option<Failure>), Failure> {
    let mut disk = BlockingDisk::new();
    let report = recover::recover(&mut disk, plan, accept, &mut system::entropy).map_err(|error| Failure::Run(error.to_string()))?;
    let text = match format {
        Format::Text => text(&report),
        Format::Json => json(&report),
    };
    Ok((text, failure(&report, accept)))
}

fn failure(report: &Report, accept: &Accept) -> Option<Failure> {
    if let Some((path, reason)) = report.unusable.first() {
        return Some(Failure::Run(format!("data directory {} could not be looked at: {reason}", path.display())));
    }
    let left = report.losses.iter().filter(|loss| !loss.accepted).count();
    match (left, accept) {
        (0, _) | (_, Accept::All | Accept::Named(_)) => None,
        (count, Accept::Nothing) => {
            let partitions = if count == 1 { "1 partition is".to_owned() } else { format!("{count} partitions are") };
            Some(Failure::Run(format!("{partitions} damaged; `millrace recover --accept-loss` gives up what is said above")))
        }
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for loss in &report.losses {
        let verb = if loss.accepted { "given up" } else { "lost" };
        let _ = writeln!(out, "{} in {}: {verb}: {}; {}", loss.name, loss.directory.display(), what(loss), kept(loss));
        let _ = writeln!(out, "  reason: {}", loss.reason);
        for (path, bytes) in &loss.cut {
            let _ = writeln!(out, "  cut at byte {bytes}: {}", path.display());
        }
        for path in &loss.removed {
            let _ = writeln!(out, "  removed: {}", path.display());
        }
        if loss.producers {
            let _ = writeln!(out, "  idempotent producers are forgotten: a batch that one of them sends again is appended again");
        }
    }
    for (path, reason) in &report.unusable {
        let _ = writeln!(out, "{}: not looked at: {reason}", path.display());
    }
    if report.losses.is_empty() && report.unusable.is_empty() {
        out.push_str("no partition is damaged\n");
    }
    out
}

fn what(loss: &Loss) -> String {
    match (loss.reached, loss.records()) {
        _ if loss.from < loss.next => format!("every record below offset {}", loss.next),
        (Some(_), Some(0)) => "no record that is known".to_owned(),
        (Some(reached), Some(1)) => format!("at least 1 record, offset {}", reached - 1),
        (Some(reached), Some(records)) => format!("at least {records} records, offsets {} to {}", loss.from, reached - 1),
        _ => format!("records from offset {} on, how many is not known", loss.from),
    }
}

fn kept(loss: &Loss) -> String {
    if loss.from > loss.log_start {
        format!("offsets {} to {} are intact", loss.log_start, loss.from - 1)
    } else {
        format!("nothing is left, the next record gets offset {}", loss.next)
    }
}

fn json(report: &Report) -> String {
    let path = |path: &std::path::Path| Value::from(path.display().to_string());
    let cut = |(file, byte): &(std::path::PathBuf, u64)| Value::map([("file", path(file)), ("byte", (*byte).into())]);
    let loss = |loss: &Loss| {
        Value::map([
            ("partition", loss.name.as_str().into()),
            ("directory", path(&loss.directory)),
            ("log_start", loss.log_start.into()),
            ("intact_end", loss.from.into()),
            ("next_offset", loss.next.into()),
            ("lost_end", loss.reached.into()),
            ("lost_records", loss.records().into()),
            ("cut", Value::List(loss.cut.iter().map(cut).collect())),
            ("removed", Value::List(loss.removed.iter().map(|file| path(file)).collect())),
            ("producers_forgotten", loss.producers.into()),
            ("reason", loss.reason.as_str().into()),
            ("accepted", loss.accepted.into()),
        ])
    };
    let unusable = |(directory, reason): &(std::path::PathBuf, String)| {
        Value::map([("directory", path(directory)), ("reason", reason.as_str().into())])
    };
    Value::map([
        ("partitions", Value::List(report.losses.iter().map(loss).collect())),
        ("unusable", Value::List(report.unusable.iter().map(unusable).collect())),
    ])
    .json_line()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(from: i64, reached: Option<i64>) -> Loss {
        Loss {
            name: "t-1".to_owned(),
            directory: "/d".into(),
            log_start: 2,
            from,
            next: from,
            reached,
            cut: vec![("/d/a.log".into(), 7)],
            removed: vec!["/d/b.log".into()],
            producers: true,
            reason: "a \"bit\"\n".to_owned(),
            accepted: false,
        }
    }

    #[test]
    fn what_is_lost_is_told_with_its_offsets() {
        let told = |from, reached| {
            let text = text(&Report { losses: vec![loss(from, reached)], unusable: Vec::new() });
            text.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(told(9, Some(12)), "t-1 in /d: lost: at least 3 records, offsets 9 to 11; offsets 2 to 8 are intact");
        assert_eq!(told(9, Some(10)), "t-1 in /d: lost: at least 1 record, offset 9; offsets 2 to 8 are intact");
        assert_eq!(told(9, Some(9)), "t-1 in /d: lost: no record that is known; offsets 2 to 8 are intact");
        assert_eq!(
            told(2, None),
            "t-1 in /d: lost: records from offset 2 on, how many is not known; nothing is left, the next record gets offset 2"
        );
    }

    #[test]
    fn json_is_one_object_with_escaped_strings() {
        let json = json(&Report { losses: vec![loss(9, None)], unusable: vec![("/e".into(), "gone".to_owned())] });
        let expected = "{\"partitions\":[{\"partition\":\"t-1\",\"directory\":\"/d\",\"log_start\":2,\"intact_end\":9,\"next_offset\":9,\"lost_end\":null,\
                        \"lost_records\":null,\"cut\":[{\"file\":\"/d/a.log\",\"byte\":7}],\"removed\":[\"/d/b.log\"],\
                        \"producers_forgotten\":true,\"reason\":\"a \\\"bit\\\"\\n\",\"accepted\":false}],\
                        \"unusable\":[{\"directory\":\"/e\",\"reason\":\"gone\"}]}\n";
        assert_eq!(json, expected);
    }

    #[test]
    fn damage_that_stays_ends_in_a_failure_and_what_was_asked_for_does_not() {
        let report = Report { losses: vec![loss(9, None)], unusable: Vec::new() };
        assert!(failure(&report, &Accept::Nothing).is_some_and(|failure| failure.to_string().starts_with("1 partition is damaged; ")));
        assert_eq!(failure(&report, &Accept::Named(vec!["t-2".to_owned()])), None);
        assert_eq!(failure(&Report::default(), &Accept::Nothing), None);
        let unusable = Report { unusable: vec![("/e".into(), "gone".to_owned())], ..Report::default() };
        assert!(failure(&unusable, &Accept::All).is_some());
    }
}
