//! Consumer groups: committed offsets, assignments, and that nothing is passed over.
//!
//! 1. A commit takes effect at one moment between being sent and being answered; without an answer, by the end of the node's process or
//!    never. What is fetched is a commit that no acknowledged one has certainly followed.
//! 2. All that members are given in one generation comes from one plan, in which every partition is given once. A generation in which
//!    somebody was given something is not given to others again.
//! 3. What is acknowledged and still there at the end was read by a member of every group that committed beyond it.
//!
//! Knows nothing of how groups are led.

use super::{Rule, Violation, rises};
use crate::history::{Event, History, Partition, Span};
use std::collections::{BTreeMap, BTreeSet};

struct Commit {
    sent: u64,
    /// By when it has happened, or never will.
    end: u64,
    is_certain: bool,
    offset: i64,
}

#[derive(Default)]
struct Register {
    commits: Vec<Commit>,
    fetched: Vec<(Span, i64)>,
}

pub(super) fn check_commits(history: &History, found: &mut Vec<Violation>) {
    let mut registers: BTreeMap<(&String, &Partition), Register> = BTreeMap::new();
    let downs: Vec<u64> = history.events.iter().filter_map(|event| if let Event::Down { at } = event { Some(*at) } else { None }).collect();
    for event in &history.events {
        match event {
            Event::CommitSent { at, group, partition, offset } => {
                let end = downs.iter().copied().find(|down| down >= at).unwrap_or(u64::MAX);
                let commit = Commit { sent: *at, end, is_certain: false, offset: *offset };
                registers.entry((group, partition)).or_default().commits.push(commit);
            }
            Event::Committed { span, group, partition, offset } => {
                let commits = &mut registers.entry((group, partition)).or_default().commits;
                let is_it = |commit: &&mut Commit| commit.sent == span.invoked && commit.offset == *offset && !commit.is_certain;
                if let Some(commit) = commits.iter_mut().find(is_it) {
                    (commit.end, commit.is_certain) = (span.completed, true);
                }
            }
            Event::CommittedFetched { span, group, partition, offset } => {
                registers.entry((group, partition)).or_default().fetched.push((*span, *offset));
            }
            _ => {}
        }
    }
    for ((group, partition), register) in registers {
        register.judge(group, partition, found);
    }
}

impl Register {
    fn judge(&self, group: &str, partition: &Partition, found: &mut Vec<Violation>) {
        for (span, offset) in &self.fetched {
            let certain = self.commits.iter().filter(|commit| commit.is_certain && commit.end < span.invoked);
            let followed = certain.max_by_key(|commit| commit.sent);
            let may_be = |commit: &Commit| {
                commit.offset == *offset && commit.sent < span.completed && followed.is_none_or(|last| commit.end >= last.sent)
            };
            let is_sound = if *offset < 0 { followed.is_none() } else { self.commits.iter().any(may_be) };
            if !is_sound {
                let last = followed.map(|commit| commit.offset);
                let what = format!("{group} {partition:?}: {offset} was given at {}, {last:?} was acknowledged last", span.completed);
                found.push(Violation { rule: Rule::CommittedOffset, what });
            }
        }
    }
}

/// By member.
type Plan = BTreeMap<String, Vec<Partition>>;

#[derive(Default)]
struct Generation<'a> {
    /// Each with all partitions that there were.
    plans: Vec<(&'a Plan, &'a Vec<Partition>)>,
    assigned: Vec<(&'a String, &'a Vec<Partition>)>,
}

pub(super) fn check_assignments(history: &History, found: &mut Vec<Violation>) {
    let mut generations: BTreeMap<(&String, i32), Generation<'_>> = BTreeMap::new();
    let (mut floors, mut seen): (BTreeMap<&String, Vec<_>>, BTreeMap<&String, Vec<_>>) = Default::default();
    for event in &history.events {
        match event {
            Event::Planned { group, generation, plan, all } => {
                generations.entry((group, *generation)).or_default().plans.push((plan, all));
            }
            Event::Assigned { span, group, generation, member, partitions } => {
                generations.entry((group, *generation)).or_default().assigned.push((member, partitions));
                floors.entry(group).or_default().push((*span, i64::from(*generation)));
            }
            Event::Joined { span, group, generation } => seen.entry(group).or_default().push((*span, i64::from(*generation))),
            _ => {}
        }
    }
    for ((group, number), generation) in generations {
        let mut wrong =
            |what: String| found.push(Violation { rule: Rule::Assignment, what: format!("{group} generation {number}: {what}") });
        generation.judge(&mut wrong);
    }
    for (group, seen) in seen {
        let floors = floors.remove(group).unwrap_or_default();
        let wrong = &mut |_, what: String| found.push(Violation { rule: Rule::Assignment, what: format!("{group}: {what}") });
        rises("the generation", floors, seen, wrong);
    }
}

impl Generation<'_> {
    fn judge(&self, wrong: &mut impl FnMut(String)) {
        let mut given: BTreeMap<&Partition, &String> = BTreeMap::new();
        for (member, partitions) in &self.assigned {
            for partition in *partitions {
                if let Some(other) = given.insert(partition, member)
                    && other != *member
                {
                    wrong(format!("{partition:?} was given to {other} and to {member}"));
                }
            }
        }
        if self.assigned.is_empty() {
            return;
        }
        let none = Vec::new();
        let fits = |(plan, _): &&(&Plan, &Vec<Partition>)| {
            self.assigned.iter().all(|(member, partitions)| *plan.get(*member).unwrap_or(&none) == **partitions)
        };
        match self.plans.iter().find(fits) {
            None => wrong(format!("{:?} was given, of no plan among {:?}", self.assigned, self.plans)),
            Some((plan, all)) => {
                let shared: BTreeSet<&Partition> = plan.values().flatten().collect();
                if let Some(missing) = all.iter().find(|partition| !shared.contains(partition)) {
                    wrong(format!("nobody was given {missing:?}"));
                }
            }
        }
    }
}

pub(super) fn check_consumed(history: &History, found: &mut Vec<Violation>) {
    let mut groups: BTreeMap<u32, &String> = BTreeMap::new();
    let mut read: BTreeMap<(&String, &Partition), BTreeSet<i64>> = BTreeMap::new();
    let mut consumed: BTreeMap<(&String, &Partition), i64> = BTreeMap::new();
    let mut scanned: BTreeMap<&Partition, i64> = BTreeMap::new();
    for event in &history.events {
        match event {
            Event::ReadsFor { reader, group } => {
                groups.insert(*reader, group);
            }
            Event::Read { reader, partition, base, values, .. } => {
                if let Some(group) = groups.get(reader) {
                    read.entry((group, partition)).or_default().extend(*base..base + values.len() as i64);
                }
            }
            Event::Consumed { group, partition, to } => {
                consumed.insert((group, partition), *to);
            }
            Event::Scanned { partition, from, .. } => {
                scanned.insert(partition, *from);
            }
            _ => {}
        }
    }
    let none = BTreeSet::new();
    for event in &history.events {
        let Event::Acknowledged { partition, first, count, base, .. } = event else { continue };
        let Some(from) = scanned.get(partition) else { continue };
        for ((group, _), to) in consumed.iter().filter(|((_, of), _)| *of == partition) {
            let read = read.get(&(*group, partition)).unwrap_or(&none);
            let (begin, end) = ((*base).max(*from), base + i64::from(*count));
            if end > *to {
                let what = format!("{group} {partition:?}: committed {to} at its end, and {first:?} was acknowledged at {base}");
                found.push(Violation { rule: Rule::Unconsumed, what });
            } else if let Some(offset) = (begin..end).find(|offset| !read.contains(offset)) {
                let what = format!("{group} {partition:?}: offset {offset}, acknowledged, was read by no member");
                found.push(Violation { rule: Rule::Unconsumed, what });
            }
        }
    }
}
