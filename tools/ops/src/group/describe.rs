//! `millrace group describe`: a group's members, what they read, and how far they are.

use clap::{ArgMatches, Command};

use crate::arguments::{Context, verb};
use crate::failure::Outcome;
use crate::groups;
use crate::output::{Document, Table};

pub fn command() -> Command {
    verb("describe", "Show groups: members, committed offsets, lag").arg(super::groups())
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let mut documents = Vec::new();
    for group in super::named(matches) {
        let (coordinator, mut found) = groups::describe(&mut context.client, &group)?;
        // Brokers give them in any order.
        found.members.sort_by(|a, b| (&a.client, &a.id).cmp(&(&b.client, &b.id)));
        let progress = groups::progress(&mut context.client, &group, &found.members)?;
        let mut partitions = Table::new(&["topic", "partition", "committed", "log_end", "lag", "member", "client", "host"]);
        for one in &progress {
            let member = one.member.and_then(|at| found.members.get(at));
            partitions.row(vec![
                one.place.0.as_str().into(),
                one.place.1.into(),
                one.committed.into(),
                one.log_end.into(),
                one.lag.into(),
                member.map(|member| member.id.clone()).into(),
                member.map(|member| member.client.clone()).into(),
                member.map(|member| member.host.clone()).into(),
            ]);
        }
        let mut members = Table::new(&["member", "instance", "client", "host", "partitions"]);
        for member in &found.members {
            members.row(vec![
                member.id.clone().into(),
                member.instance.clone().into(),
                member.client.clone().into(),
                member.host.clone().into(),
                member.assigned.len().into(),
            ]);
        }
        let fields = vec![
            ("group", group.into()),
            ("state", found.state.into()),
            ("type", found.kind.into()),
            ("assignor", Some(found.assignor).filter(|assignor| !assignor.is_empty()).into()),
            ("coordinator", coordinator.into()),
            ("member_count", found.members.len().into()),
            ("lag_sum", progress.iter().map(|one| one.lag).sum::<Option<i64>>().into()),
        ];
        documents.push(Document::new().fields(fields).table("partitions", partitions).table("members", members));
    }
    context.output.documents(&documents)
}
