//! How a command fails: one line for a person, one stable exit code for a script.
//!
//! The line says what happened, where, and after a semicolon what to do next. Which exit code it ends with is said by [`Kind`], and every
//! `--help` prints that table.
//!
//! Invariants: the text has no line break; an error that is worth another try says so, and no other does.

use std::fmt;
use std::process::ExitCode;

use kafka_protocol::error::ResponseError;

/// What went wrong, as far as a script may tell it apart. The numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Whoever reads the output has gone (`| head`): the end, but no failure.
    Closed = 0,
    /// The broker refused, or something went wrong here.
    Failed = 1,
    /// What was asked for cannot be meant.
    Usage = 2,
    /// A topic, partition, group or config is not there.
    NotFound = 3,
    /// It is there already, or in use.
    Conflict = 4,
    /// Not allowed.
    Denied = 5,
    /// No broker answered in time.
    Unreachable = 6,
    /// Of several things some were done and some not.
    Partly = 7,
}

/// What `--help` says of exit codes.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 not found; 4 exists already or in use; 5 not allowed; \
                              6 unreachable or timed out; 7 done in part.";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub kind: Kind,
    /// What the broker said, if it was the broker.
    pub code: Option<ResponseError>,
    text: String,
    hint: Option<String>,
    retriable: bool,
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(kind: Kind, text: impl Into<String>) -> Failure {
        Failure { kind, code: None, text: one_line(&text.into()), hint: None, retriable: false }
    }

    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, text)
    }

    /// A connection that failed: another try may do better.
    pub fn unreachable(text: impl Into<String>) -> Failure {
        Failure { retriable: true, ..Failure::new(Kind::Unreachable, text) }
    }

    /// An error code that came for `subject`, with the broker's own words where it sent some.
    pub fn refused(subject: &str, code: ResponseError, message: Option<&str>) -> Failure {
        let name = name(code);
        let said = message.filter(|message| !message.is_empty());
        let text = match (said, meaning(code)) {
            (Some(said), _) => format!("{subject}: {} ({name})", said.trim_end_matches('.')),
            (None, Some(meaning)) => format!("{subject}: {meaning} ({name})"),
            (None, None) => format!("{subject}: refused with {name}"),
        };
        Failure { code: Some(code), retriable: is_retriable(code), ..Failure::new(kind(code), text) }
    }

    /// What an answer's error code says of `subject`.
    ///
    /// # Errors
    /// The code is not 0.
    pub fn check(subject: &str, code: i16, message: Option<&str>) -> Outcome<()> {
        match ResponseError::try_from_code(code) {
            None => Ok(()),
            Some(code) => Err(Failure::refused(subject, code, message)),
        }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(one_line(&hint.into()));
        self
    }

    /// Another try would end the same.
    pub fn for_good(mut self) -> Failure {
        self.retriable = false;
        self
    }

    pub fn is_retriable(&self) -> bool {
        self.retriable
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }

    /// The failure of several things of which `failures` went wrong: its own if it was the only thing, else a count.
    pub fn of_many(things: &str, asked: usize, failures: &[Failure]) -> Outcome<()> {
        match failures {
            [] => Ok(()),
            [only] if asked == 1 => Err(only.clone()),
            [first, ..] if failures.len() == asked => {
                Err(Failure::new(first.kind, format!("all {asked} {things} failed")).with_hint("the table says why"))
            }
            _ => Err(Failure::new(Kind::Partly, format!("{} of {asked} {things} failed", failures.len())).with_hint("the table says why")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{}; {hint}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Kafka's name of a code, as its documentation writes it.
pub fn name(code: ResponseError) -> String {
    if let ResponseError::Unknown(number) = code {
        return format!("error code {number}");
    }
    let mut name = String::new();
    for c in code.to_string().chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Kafka calls a missing topic retriable, since news of one may be late; who mistyped a name must not wait for that.
fn is_retriable(code: ResponseError) -> bool {
    use ResponseError as E;
    code.is_retriable() && !matches!(code, E::UnknownTopicOrPartition | E::UnknownTopicId | E::CorruptMessage | E::ElectionNotNeeded)
}

fn kind(code: ResponseError) -> Kind {
    use ResponseError as E;
    match code {
        E::UnknownTopicOrPartition
        | E::UnknownTopicId
        | E::GroupIdNotFound
        | E::ResourceNotFound
        | E::LogDirNotFound
        | E::TransactionalIdNotFound
        | E::BrokerIdNotRegistered => Kind::NotFound,
        E::TopicAlreadyExists
        | E::NonEmptyGroup
        | E::DuplicateResource
        | E::GroupSubscribedToTopic
        | E::ReassignmentInProgress
        | E::UnknownMemberId
        | E::RebalanceInProgress => Kind::Conflict,
        E::TopicAuthorizationFailed
        | E::GroupAuthorizationFailed
        | E::ClusterAuthorizationFailed
        | E::TransactionalIdAuthorizationFailed
        | E::SaslAuthenticationFailed
        | E::UnsupportedSaslMechanism
        | E::IllegalSaslState
        | E::SecurityDisabled => Kind::Denied,
        code if is_retriable(code) => Kind::Unreachable,
        _ => Kind::Failed,
    }
}

fn meaning(code: ResponseError) -> Option<&'static str> {
    use ResponseError as E;
    Some(match code {
        E::UnknownTopicOrPartition | E::UnknownTopicId => "there is no such topic or partition",
        E::TopicAlreadyExists => "there is such a topic already",
        E::InvalidTopicException => "a topic cannot have this name",
        E::InvalidPartitions => "a topic cannot have this number of partitions",
        E::InvalidReplicationFactor => "there are not as many nodes",
        E::InvalidConfig => "a config has a value that it cannot have",
        E::OffsetOutOfRange => "the partition has no such offset",
        E::GroupIdNotFound => "there is no such group",
        E::NonEmptyGroup => "the group has members",
        E::GroupSubscribedToTopic => "a member of the group reads the topic",
        E::UnknownMemberId => "the group has members",
        E::RebalanceInProgress => "the group's members are being assigned their partitions",
        E::TopicAuthorizationFailed => "not allowed on this topic",
        E::GroupAuthorizationFailed => "not allowed on this group",
        E::ClusterAuthorizationFailed => "not allowed on this cluster",
        E::UnsupportedVersion => "the broker does not serve this request",
        E::LeaderNotAvailable => "a partition has no leader",
        E::NotLeaderOrFollower => "the leader has moved",
        E::RequestTimedOut => "the broker did not finish in time",
        E::CoordinatorNotAvailable => "the group has no coordinator",
        E::CoordinatorLoadInProgress => "the group's coordinator is still loading",
        E::PolicyViolation => "a policy of the cluster forbids it",
        E::KafkaStorageError => "the broker cannot use its disk",
        E::UnknownServerError => "the broker met an error of its own",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kafkas_names_and_stable_exit_codes() {
        let check = |code: i16, expected_name: &str, expected: Kind| {
            let code = ResponseError::try_from_code(code).expect("not 0");
            assert_eq!((name(code).as_str(), kind(code)), (expected_name, expected));
        };
        check(3, "UNKNOWN_TOPIC_OR_PARTITION", Kind::NotFound);
        check(36, "TOPIC_ALREADY_EXISTS", Kind::Conflict);
        check(29, "TOPIC_AUTHORIZATION_FAILED", Kind::Denied);
        check(5, "LEADER_NOT_AVAILABLE", Kind::Unreachable);
        check(40, "INVALID_CONFIG", Kind::Failed);
        check(999, "error code 999", Kind::Failed);
        let kinds =
            [Kind::Closed, Kind::Failed, Kind::Usage, Kind::NotFound, Kind::Conflict, Kind::Denied, Kind::Unreachable, Kind::Partly];
        for (number, kind) in kinds.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert!(EXIT_CODES.contains(&format!(" {number} ")));
        }
    }

    #[test]
    fn a_failure_is_one_line_with_its_hint_last() {
        let failure = Failure::refused("topic \"a\"", ResponseError::InvalidConfig, Some("bad\n  value.")).with_hint("say\nother");
        assert_eq!(failure.to_string(), "topic \"a\": bad value (INVALID_CONFIG); say other");
        assert!(!failure.is_retriable());
        assert!(Failure::unreachable("x").is_retriable());
    }

    #[test]
    fn some_of_many_is_told_from_all_and_from_one() {
        let failure = Failure::new(Kind::NotFound, "gone");
        assert_eq!(Failure::of_many("topics", 2, &[]), Ok(()));
        assert_eq!(Failure::of_many("topics", 1, std::slice::from_ref(&failure)), Err(failure.clone()));
        let kind = |asked, failures: &[Failure]| Failure::of_many("topics", asked, failures).expect_err("failures").kind;
        assert_eq!(kind(2, std::slice::from_ref(&failure)), Kind::Partly);
        assert_eq!(kind(2, &[failure.clone(), failure]), Kind::NotFound);
    }
}
