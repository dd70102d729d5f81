//! Scenarios of one replica, as text: what it is told, and indented what it then wants done.
//!
//! `restore me 1 voters 1,2,3 term 5 log 1@0,3@5 end 8 [vote 2]` begins a scenario; positions are epoch/offset. `timeout` moves the
//! time to the deadline, `wait N` by N ms. `state` prints the replica. A scenario file says which rule it is about, and how it was
//! seen to fail.
//!
//! Knows nothing of what the rules are: the files say it.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use millrace_base::clock::Nanos;
use millrace_base::ids::Uuid;
use millrace_base::offset::{Epoch, Position};
use millrace_raftlog::*;
use std::fmt::Write;

const TIMING: Timing = Timing { heartbeat_ms: 100, election_ms: 1000 };

#[derive(Default)]
struct Scene {
    core: Option<Core>,
    now: Nanos,
}

/// The words of one line.
struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self) -> &'a str {
        self.0.next().expect("a word is missing")
    }

    fn number(&mut self) -> i64 {
        self.next().parse().expect("a number")
    }

    /// The word behind `name`, if that comes next.
    fn named(&mut self, name: &str) -> Option<&'a str> {
        let mut ahead = self.0.clone();
        if ahead.next() != Some(name) {
            return None;
        }
        let value = ahead.next();
        self.0 = ahead;
        Some(value.expect("a value behind its name"))
    }

    fn must(&mut self, name: &str) -> &'a str {
        self.named(name).unwrap_or_else(|| panic!("{name} is missing"))
    }
}

fn member(node: &str) -> Member {
    let node: i32 = node.parse().expect("a node id");
    Member { node, disk: Uuid([node as u8; 16]) }
}

fn position(text: &str) -> Position {
    let (epoch, offset) = text.split_once('/').expect("epoch/offset");
    Position::new(epoch.parse().expect("an epoch"), offset.parse().expect("an offset"))
}

fn show(position: Position) -> String {
    format!("{}/{}", position.epoch, position.offset)
}

fn configuration(text: &str) -> Configuration {
    let voters: Vec<Member> = text.split(',').map(member).collect();
    Configuration::new(&voters, &[]).expect("voters")
}

impl Scene {
    fn line(&mut self, line: &str) -> String {
        let mut words = Words(line.split_whitespace());
        let mut out = String::new();
        let word = words.next();
        if word == "restore" {
            out = self.restore(&mut words);
        } else {
            let core = self.core.as_mut().expect("restore comes first");
            match word {
                "timeout" => {
                    self.now = core.deadline();
                    core.handle_timeout(self.now);
                }
                "wait" => {
                    self.now = self.now.plus_ms(words.number() as u64);
                    core.handle_timeout(self.now);
                }
                "save" => core.saved(words.number() as u64),
                "persist" => core.persisted(position(words.next())),
                "append" => core.appended(words.number()),
                "from" => {
                    let from = member(words.next());
                    let message = message(&mut words, core.configuration());
                    if let Err(refusal) = core.handle_message(from, message, self.now) {
                        writeln!(out, "refused: {refusal}").unwrap();
                    }
                }
                "state" => writeln!(out, "{}", state(core)).unwrap(),
                other => panic!("unknown word {other}"),
            }
        }
        while let Some(effect) = self.core.as_mut().and_then(Core::poll_effect) {
            writeln!(out, "{}", effect_text(&effect)).unwrap();
        }
        out
    }

    fn restore(&mut self, words: &mut Words) -> String {
        let me = member(words.must("me"));
        let configuration = configuration(words.must("voters"));
        let mut state = State::new(configuration.clone());
        state.term = words.must("term").parse().expect("a term");
        for start in words.must("log").split(',') {
            let (epoch, offset) = start.split_once('@').expect("epoch@offset");
            let (epoch, offset) = (epoch.parse().expect("an epoch"), offset.parse().expect("an offset"));
            state.history.extend(offset);
            state.history.begin(Start { epoch, offset, configuration: configuration.clone() });
        }
        state.history.extend(words.must("end").parse().expect("an offset"));
        state.vote = words.named("vote").map(member);
        self.now = Nanos(0);
        match Core::restore(me, state, TIMING, 1, self.now) {
            Ok(core) => self.core = Some(core),
            Err(error) => return format!("error: {error}\n"),
        }
        String::new()
    }
}

fn message(words: &mut Words, configuration: &Configuration) -> Message {
    let term: Epoch = words.must("term").parse().expect("a term");
    let body = match words.next() {
        "ask" => Body::VoteRequest { pre: true, last: position(words.must("last")) },
        "vote-request" => Body::VoteRequest { pre: false, last: position(words.must("last")) },
        "would-vote" => Body::VoteResponse { pre: true, granted: true },
        "vote" => Body::VoteResponse { pre: false, granted: true },
        "append" => {
            let before = position(words.must("before"));
            let start = words.named("start").map(|epoch| Start {
                epoch: epoch.parse().expect("an epoch"),
                offset: before.offset,
                configuration: configuration.clone(),
            });
            let end = words.must("end").parse().expect("an offset");
            Body::Append(Append { before, start, end, commit: position(words.must("commit")) })
        }
        "held" => Body::Held { checked: position(words.next()), synced: position(words.must("synced")) },
        "diverged" => Body::Diverged { hint: position(words.next()) },
        other => panic!("unknown message {other}"),
    };
    Message { term, marks: Marks::default(), body }
}

fn state(core: &Core) -> String {
    let starts: Vec<String> = core.history().starts().map(|at| format!("{}@{}", at.epoch, at.offset)).collect();
    let (commit, durable) = (show(core.commit_position()), show(core.durable()));
    let log = format!("log {} end {}", starts[1..].join(","), core.log_end());
    format!("{:?} term {} {log} commit {commit} durable {durable}", core.role(), core.epoch())
}

fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::Truncate { to } => format!("truncate {}", show(*to)),
        Effect::Persist { sequence, record } => {
            let mut out = format!("record {sequence} term {}", record.term);
            if let Some(vote) = record.vote {
                write!(out, " vote {}", vote.node).unwrap();
            }
            if let Some(to) = record.truncate {
                write!(out, " truncate {}", show(to)).unwrap();
            }
            if let Some(start) = &record.start {
                write!(out, " start {}", show(start.position())).unwrap();
            }
            out
        }
        Effect::Append { epoch, from, end } => format!("take {from} to {end} of epoch {epoch}"),
        Effect::Send { to, message } => format!("to {} term {} {}", to.node, message.term, body_text(&message.body)),
        Effect::BecameLeader { epoch, start } => format!("leads epoch {epoch} from {start}"),
        Effect::SteppedDown { term } => format!("stepped down in term {term}"),
        Effect::Committed { commit } => format!("committed {commit}"),
        Effect::Settled { marks } => format!("settled {marks:?}"),
    }
}

fn body_text(body: &Body) -> String {
    match body {
        Body::VoteRequest { pre: true, last } => format!("ask last {}", show(*last)),
        Body::VoteRequest { pre: false, last } => format!("vote-request last {}", show(*last)),
        Body::VoteResponse { pre, granted } => {
            format!("{}{}", if *granted { "" } else { "no-" }, if *pre { "would-vote" } else { "vote" })
        }
        Body::Append(append) => {
            let start = append.start.as_ref().map_or(String::new(), |start| format!(" start {}", start.epoch));
            format!("append before {}{start} end {} commit {}", show(append.before), append.end, show(append.commit))
        }
        Body::Held { checked, synced } => {
            format!("held {} synced {}", show(*checked), show(*synced))
        }
        Body::Diverged { hint } => format!("diverged {}", show(*hint)),
    }
}

/// Runs the commands of a scenario and writes it again with what really happened: the two must be the same text.
fn check(name: &str, expected: &str) {
    let mut scene = Scene::default();
    let mut found = String::new();
    for line in expected.lines() {
        if line.starts_with("    ") {
            continue; // said by the replica, and said again if it still is
        }
        found.push_str(line);
        found.push('\n');
        if !line.is_empty() && !line.starts_with('#') {
            for said in scene.line(line).lines() {
                writeln!(found, "    {said}").unwrap();
            }
        }
    }
    assert!(found == expected, "{name} now goes:\n{found}");
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name), include_str!(concat!("scenarios/", stringify!($name), ".txt")));
            }
        )*
    };
}

scenarios! {
    a_start_without_width_commits_as_rafts_no_op
    a_leader_commits_only_at_or_after_its_own_start
    a_follower_acknowledges_what_it_checked_and_synced
    truncation_removes_foreign_starts_at_the_offset
    votes_compare_the_history_not_the_last_batch
    the_term_is_never_below_the_last_epoch
    a_write_before_a_truncation_does_not_count_after_it
    diverged_logs_find_their_last_common_position
    a_vote_leaves_only_when_it_is_saved_and_once_a_term
    a_replica_that_hears_its_leader_votes_for_nobody
    a_leader_without_a_majority_steps_down
    nothing_committed_is_dropped
}
