//! `millrace group lag`: how many records groups have not committed yet.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::arguments::{Context, switch, verb};
use crate::failure::{Failure, Kind, Outcome};
use crate::groups::{self, Progress};
use crate::output::Table;

pub fn command() -> Command {
    verb("lag", "Show how far groups are behind; all groups if none is named")
        .arg(Arg::new("group").value_name("GROUP").action(ArgAction::Append).help("A group; may be repeated"))
        .arg(switch("partitions", "One line for each partition, and not for each topic"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let mut wanted = super::named(matches);
    let by_name = !wanted.is_empty();
    if !by_name {
        wanted = groups::list(&mut context.client)?.into_iter().map(|found| found.group).collect();
    }
    let each = matches.get_flag("partitions");
    let mut table = if each {
        Table::new(&["group", "topic", "partition", "committed", "log_end", "lag"])
    } else {
        Table::new(&["group", "topic", "partitions", "lag"])
    };
    for group in &wanted {
        let found = match groups::describe(&mut context.client, group) {
            Ok((_, found)) => found,
            // It went while it was listed.
            Err(Failure { kind: Kind::NotFound, .. }) if !by_name => continue,
            Err(failure) => return Err(failure),
        };
        let progress = groups::progress(&mut context.client, group, &found.members)?;
        if each {
            for one in progress {
                table.row(vec![
                    group.as_str().into(),
                    one.place.0.into(),
                    one.place.1.into(),
                    one.committed.into(),
                    one.log_end.into(),
                    one.lag.into(),
                ]);
            }
            continue;
        }
        let mut topics: BTreeMap<String, Vec<Progress>> = BTreeMap::new();
        for one in progress {
            topics.entry(one.place.0.clone()).or_default().push(one);
        }
        for (topic, parts) in topics {
            // Of a partition whose end is not known nobody can say how much is to come.
            let lag = parts.iter().map(|part| part.lag).sum::<Option<i64>>();
            table.row(vec![group.as_str().into(), topic.into(), parts.len().into(), lag.into()]);
        }
    }
    context.output.table(&table)
}
