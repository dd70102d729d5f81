//! `millrace group delete`.

use clap::{ArgMatches, Command};
use kafka_protocol::messages::{DeleteGroupsRequest, GroupId};

use crate::arguments::{Context, confirm, switch, verb, yes};
use crate::client::{NEWEST, text};
use crate::failure::{Failure, Kind, Outcome, name};
use crate::groups::subject;
use crate::output::{Format, Table};
use millrace_base::value::Value;

pub fn command() -> Command {
    verb("delete", "Delete groups without members, and what they have committed")
        .alias("rm")
        .arg(super::groups())
        .arg(yes())
        .arg(switch("if-exists", "A group that is not there is no failure"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let groups = super::named(matches);
    confirm(matches, &format!("delete {} and all committed offsets?", groups.join(", ")))?;
    let results = context.client.each(&groups, |client, groups| {
        let mut results = Vec::new();
        // One by one: each group may have another coordinator.
        for group in groups {
            results.push(client.coordinator(group).and_then(|to| {
                let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
                let answer = client.call(to, NEWEST, |_| request)?;
                match answer.results.first() {
                    Some(found) => Failure::check(&subject(group), found.error_code, None),
                    None => Err(Failure::new(Kind::Failed, format!("{}: the answer leaves it out", subject(group)))),
                }
            }));
        }
        Ok(results)
    })?;
    let forgive = |result: Outcome<()>| match result {
        Err(Failure { kind: Kind::NotFound, .. }) if matches.get_flag("if-exists") => Ok(()),
        Err(failure) if failure.kind == Kind::NotFound => Err(failure.with_hint("`millrace group list` shows what there is")),
        Err(failure) if failure.kind == Kind::Conflict => Err(failure.with_hint("stop them first")),
        other => other,
    };
    let results: Vec<Outcome<()>> = results.into_iter().map(forgive).collect();
    let failures: Vec<Failure> = results.iter().filter_map(|result| result.as_ref().err().cloned()).collect();
    if groups.len() == 1 && !failures.is_empty() && context.output.format == Format::Text {
        return Failure::of_many("groups", 1, &failures);
    }
    let mut table = Table::new(&["group", "status", "error"]);
    for (group, result) in groups.iter().zip(&results) {
        let (status, error) = match result {
            Ok(()) => ("deleted", Value::Null),
            Err(failure) => ("failed", failure.code.map_or_else(|| failure.to_string(), name).into()),
        };
        table.row(vec![group.as_str().into(), status.into(), error]);
    }
    context.output.table(&table)?;
    Failure::of_many("groups", groups.len(), &failures)
}
