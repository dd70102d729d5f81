//! `millrace group list`.

use clap::{ArgAction, ArgMatches, Command};

use crate::arguments::{Context, all, flag, verb};
use crate::failure::Outcome;
use crate::groups;
use crate::output::Table;

pub fn command() -> Command {
    verb("list", "List groups")
        .alias("ls")
        .arg(flag("state", "STATE", "Groups in this state only, such as Empty or Stable; may be repeated").action(ArgAction::Append))
}

pub fn run(matches: &ArgMatches, mut context: Context<'_>) -> Outcome<()> {
    let states = all(matches, "state");
    let mut table = Table::new(&["group", "state", "type", "protocol", "coordinator"]);
    for found in groups::list(&mut context.client)? {
        let is_asked_for = |state: &String| found.state.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(state));
        if states.is_empty() || states.iter().any(is_asked_for) {
            let protocol = Some(found.protocol).filter(|protocol| !protocol.is_empty());
            table.row(vec![found.group.into(), found.state.into(), found.kind.into(), protocol.into(), found.coordinator.into()]);
        }
    }
    context.output.table(&table)
}
