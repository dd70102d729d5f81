//! `millrace topic list`.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::arguments::{Context, switch, verb};
use crate::failure::{Failure, Outcome};
use crate::output::Table;

pub fn command() -> Command {
    verb("list", "List topics")
        .alias("ls")
        .arg(Arg::new("topic").value_name("TOPIC").action(ArgAction::Append).help("These topics only"))
        .arg(switch("internal", "Topics that the cluster keeps for itself too"))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let named = super::named(matches);
    let mut topics = if named.is_empty() {
        context.client.retrying(|client| client.metadata(None))?
    } else {
        super::existing(&mut context.client, &named)?
    };
    topics.retain(|topic| !topic.is_internal || matches.get_flag("internal") || !named.is_empty());
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    let mut table = Table::new(&["topic", "partitions", "replicas"]);
    let mut failures = Vec::new();
    for topic in &topics {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        if let Err(failure) = Failure::check(&format!("topic {name:?}"), topic.error_code, None) {
            failures.push(failure);
            continue;
        }
        let replicas = topic.partitions.iter().map(|partition| partition.replica_nodes.len()).max().unwrap_or(0);
        table.row(vec![name.into(), topic.partitions.len().into(), replicas.into()]);
    }
    context.output.table(&table)?;
    Failure::of_many("topics", topics.len(), &failures)
}
