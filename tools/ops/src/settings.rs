//! How a command reaches the cluster: one table of client settings, under the names that librdkafka and Kafka's own clients use.
//!
//! A setting comes from `-X key=value` or `--brokers`, from the environment, from the profile in use, or is its default; the first of
//! these that has it wins. An unknown name is refused with the nearest that exists, and never passed over.
//!
//! Invariants: every row of [`TABLE`] has a field; all values are checked before anything is sent.

use std::time::Duration;

use millrace_base::settings::nearest;

use crate::failure::{Failure, Outcome};

/// One row: a name, others that mean the same, a default, what it is.
pub struct Row {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub default: &'static str,
    pub doc: &'static str,
}

pub const TABLE: &[Row] = &[
    Row {
        name: "brokers",
        aliases: &["bootstrap.servers", "metadata.broker.list"],
        default: "127.0.0.1:9092",
        doc: "HOST:PORT of one or more brokers, separated by commas; the rest of the cluster is found through them",
    },
    Row { name: "client.id", aliases: &[], default: "millrace", doc: "The name that the brokers see" },
    Row { name: "security.protocol", aliases: &[], default: "plaintext", doc: "plaintext is all that is spoken so far" },
    Row { name: "socket.connection.setup.timeout.ms", aliases: &[], default: "5000", doc: "How long a connection may take to come about" },
    Row { name: "request.timeout.ms", aliases: &["socket.timeout.ms"], default: "10000", doc: "How long one request may take" },
    Row {
        name: "default.api.timeout.ms",
        aliases: &[],
        default: "30000",
        doc: "For how long what may pass by itself (no leader, a lost connection) is tried again",
    },
    Row { name: "retry.backoff.ms", aliases: &[], default: "100", doc: "The pause before the second try; it doubles from try to try" },
    Row { name: "retry.backoff.max.ms", aliases: &[], default: "1000", doc: "The longest pause between two tries" },
];

/// Ports go without saying.
const PORT: u16 = 9092;

/// No time is longer: a day.
const MS_MAX: u64 = 86_400_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientSettings {
    /// Host and port; at least one.
    pub brokers: Vec<(String, u16)>,
    pub client_id: String,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    pub patience: Duration,
    pub backoff: Duration,
    pub backoff_max: Duration,
}

/// A name and its value, and where it comes from, in the words of an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    pub key: String,
    pub value: String,
    pub from: String,
}

impl Given {
    /// From `key=value`, as `-X` takes it.
    ///
    /// # Errors
    /// There is no `=`.
    pub fn from_pair(pair: &str) -> Outcome<Given> {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("-X {pair:?} has no value")).with_hint("write -X key=value; -X list shows the keys"))?;
        Ok(Given { key: key.trim().to_owned(), value: value.trim().to_owned(), from: "-X".to_owned() })
    }
}

/// The row that `key` names.
pub fn row(key: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == key || row.aliases.contains(&key))
}

impl ClientSettings {
    /// The settings of all that is `given`; what comes first wins.
    ///
    /// # Errors
    /// A name or a value that cannot be meant.
    pub fn new(given: &[Given]) -> Outcome<ClientSettings> {
        for one in given {
            if row(&one.key).is_none() {
                let names = TABLE.iter().flat_map(|row| row.aliases.iter().chain([&row.name])).map(|name| (*name).to_owned());
                let failure = Failure::usage(format!("{} has an unknown setting {:?}", one.from, one.key));
                return Err(failure.with_hint(match nearest(&one.key, names) {
                    Some(nearest) => format!("did you mean {nearest}?"),
                    None => "-X list shows all".to_owned(),
                }));
            }
        }
        let ms = |name| milliseconds(&value(given, name));
        let protocol = value(given, "security.protocol");
        if !protocol.value.eq_ignore_ascii_case("plaintext") {
            return Err(bad(&protocol, "only plaintext is spoken so far"));
        }
        let brokers = value(given, "brokers");
        let brokers = brokers.value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| address(part, &brokers));
        let brokers = brokers.collect::<Outcome<Vec<_>>>()?;
        if brokers.is_empty() {
            return Err(bad(&value(given, "brokers"), "name at least one HOST:PORT"));
        }
        Ok(ClientSettings {
            brokers,
            client_id: value(given, "client.id").value,
            connect_timeout: ms("socket.connection.setup.timeout.ms")?,
            request_timeout: ms("request.timeout.ms")?,
            patience: ms("default.api.timeout.ms")?,
            backoff: ms("retry.backoff.ms")?,
            backoff_max: ms("retry.backoff.max.ms")?,
        })
    }
}

/// The first value given for the setting called `name`, else its default.
///
/// # Panics
/// When there is no such row.
pub fn value(given: &[Given], name: &str) -> Given {
    let row = row(name).expect("a name of the table");
    let found = given.iter().find(|one| one.key == row.name || row.aliases.contains(&one.key.as_str()));
    found.cloned().unwrap_or_else(|| Given { key: name.to_owned(), value: row.default.to_owned(), from: "default".to_owned() })
}

fn bad(given: &Given, hint: &str) -> Failure {
    Failure::usage(format!("{} cannot be {:?} (from {})", given.key, given.value, given.from)).with_hint(hint)
}

fn milliseconds(given: &Given) -> Outcome<Duration> {
    match given.value.parse::<u64>() {
        Ok(ms @ 1..=MS_MAX) => Ok(Duration::from_millis(ms)),
        _ => Err(bad(given, &format!("write milliseconds, 1 to {MS_MAX}"))),
    }
}

/// HOST, HOST:PORT, \[V6\] or \[V6\]:PORT.
fn address(text: &str, given: &Given) -> Outcome<(String, u16)> {
    let wrong = || bad(given, "write HOST:PORT, and commas between several");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(wrong()),
            }
        }
        None => match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') && !host.contains('/') => {
                return Err(bad(given, "write an IPv6 address in brackets, as in [::1]:9092"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
        None => PORT,
    };
    if host.is_empty() || host.contains(['/', ' ']) { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[&str]) -> Vec<Given> {
        pairs.iter().map(|pair| Given::from_pair(pair).expect("a pair")).collect()
    }

    fn refused(pair: &str, part: &str) {
        let failure = ClientSettings::new(&given(&[pair])).expect_err("must be refused").to_string();
        assert!(failure.contains(part), "{failure:?} does not say {part:?}");
    }

    #[test]
    fn the_first_that_is_given_wins_whatever_its_name() {
        let settings =
            ClientSettings::new(&given(&["bootstrap.servers=a:1,[::1]:2, b", "brokers=c", "request.timeout.ms=7"])).expect("settings");
        assert_eq!(settings.brokers, [("a".to_owned(), 1), ("::1".to_owned(), 2), ("b".to_owned(), 9092)]);
        assert_eq!((settings.request_timeout, settings.patience), (Duration::from_millis(7), Duration::from_secs(30)));
    }

    #[test]
    fn every_default_is_allowed() {
        let settings = ClientSettings::new(&[]).expect("defaults");
        assert_eq!(settings.brokers, [("127.0.0.1".to_owned(), 9092)]);
        for row in TABLE {
            assert_eq!(value(&[], row.name).value, row.default);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_hint() {
        refused("broker=a", "did you mean brokers?");
        refused("sasl.mechanism=PLAIN", "unknown setting \"sasl.mechanism\"");
        refused("brokers=", "at least one");
        refused("brokers=a:b", "HOST:PORT");
        refused("brokers=http://a:1", "HOST:PORT");
        refused("brokers=::1:9092", "in brackets");
        refused("request.timeout.ms=0", "1 to 86400000");
        refused("security.protocol=ssl", "only plaintext");
        assert!(Given::from_pair("brokers").expect_err("no value").to_string().contains("-X key=value"));
    }
}
