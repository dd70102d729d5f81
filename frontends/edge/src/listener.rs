//! What the settings say about listeners: where each binds and what clients are told to connect to.
//!
//! 1. `listeners` is a list of `NAME://host:port`; a name is a word of letters, digits, `_` and `-`, and case does not matter.
//! 2. `advertised.listeners` says by name where clients reach a listener; without it they are told the address that it binds.
//! 3. `listener.security.protocol.map` gives each name a protocol; PLAINTEXT is the only one served.
//!
//! A wildcard address can be bound but never advertised: a client elsewhere would connect to itself.
//!
//! Invariants: names are unique; no two listeners bind the same host and port (0, any free port, apart); every advertised host can be dialled.
//! Knows nothing of sockets and name servers: a host may be a name, and whoever binds resolves it.

use std::fmt;
use std::net::IpAddr;

use millrace_base::settings::{Error, Settings};

/// Kafka's protocols; all but the first wait for authentication and TLS.
const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// A host, as a name or a bare address, and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// An IPv6 address stands here without its brackets.
    pub host: String,
    /// 0 is a port that the system chooses when it binds.
    pub port: u16,
}

/// One place where clients connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// In capitals.
    pub name: String,
    pub bind: Endpoint,
    /// Its port is 0 where clients are to be told the port that was bound: see `advertised_at`.
    pub advertised: Endpoint,
}

impl Listener {
    /// What clients are told, once the listener is bound at `port`.
    pub fn advertised_at(&self, port: u16) -> Endpoint {
        let port = if self.advertised.port == 0 { port } else { self.advertised.port };
        Endpoint { host: self.advertised.host.clone(), port }
    }

    /// Whether only this machine can connect.
    pub fn is_loopback(&self) -> bool {
        match self.bind.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.bind.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl Endpoint {
    /// From `host:port`, with an IPv6 address in brackets. The host may be empty.
    pub fn parse(text: &str) -> Option<Endpoint> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(inner)) => inner.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
            Some(None) => return None,
            None => host.to_owned(),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_host = bare.parse::<IpAddr>().is_ok() || (bare.len() <= 253 && bare.chars().all(is_name));
        let is_port = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
        if !is_host || !is_port || (bare.contains(':') && !host.starts_with('[')) {
            return None;
        }
        Some(Endpoint { host: bare, port: port.parse().ok()? })
    }

    fn is_wildcard(&self) -> bool {
        self.host.is_empty() || self.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_unspecified())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The listeners of `settings`, in their order; the first is what the node is known by.
///
/// Errors name the setting that is wrong and what to write instead.
pub fn listeners(settings: &Settings) -> Result<Vec<Listener>, Error> {
    let protocols = protocols(settings)?;
    let binds = named(settings, "listeners", &settings.listeners)?;
    let advertised = match &settings.advertised_listeners {
        Some(items) => named(settings, "advertised.listeners", items)?,
        None => Vec::new(),
    };
    if let Some((stray, _)) = advertised.iter().find(|(name, _)| binds.iter().all(|(bound, _)| bound != name)) {
        let names: Vec<&str> = binds.iter().map(|(name, _)| name.as_str()).collect();
        return Err(settings.refuse("advertised.listeners", format!("names of listeners ({}), not {stray}", names.join(", "))));
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for (name, bind) in binds {
        check_protocol(settings, &protocols, &name)?;
        if bind.port != 0 && listeners.iter().any(|other| other.bind == bind) {
            return Err(settings.refuse("listeners", format!("each address once, {bind} is there twice")));
        }
        let advertised = match advertised.iter().find(|(other, _)| *other == name) {
            Some((_, endpoint)) => dialled(settings, "advertised.listeners", &name, endpoint)?,
            None => dialled(settings, "listeners", &name, &bind)?,
        };
        let host = if bind.host.is_empty() { "0.0.0.0".to_owned() } else { bind.host };
        listeners.push(Listener { name, bind: Endpoint { host, port: bind.port }, advertised });
    }
    Ok(listeners)
}

/// The items of a list of `NAME://host:port`.
fn named(settings: &Settings, key: &str, items: &[String]) -> Result<Vec<(String, Endpoint)>, Error> {
    let mut named: Vec<(String, Endpoint)> = Vec::new();
    for item in items {
        let parsed = item.split_once("://").and_then(|(name, rest)| Some((listener_name(name)?, Endpoint::parse(rest)?)));
        let Some((name, endpoint)) = parsed else {
            return Err(settings.refuse(key, format!("NAME://host:port, an IPv6 host in brackets; {item:?} is not")));
        };
        if named.iter().any(|(other, _)| *other == name) {
            return Err(settings.refuse(key, format!("each listener name once, {name} is there twice")));
        }
        named.push((name, endpoint));
    }
    Ok(named)
}

fn listener_name(text: &str) -> Option<String> {
    let is_word = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    is_word.then(|| text.to_ascii_uppercase())
}

fn dialled(settings: &Settings, key: &str, name: &str, endpoint: &Endpoint) -> Result<Endpoint, Error> {
    if !endpoint.is_wildcard() {
        return Ok(endpoint.clone());
    }
    let port = if endpoint.port == 0 { 9092 } else { endpoint.port };
    let allowed = format!(
        "an address that clients can connect to, which {endpoint} is not; say which one they are to use, \
         as advertised.listeners={name}://HOST:{port} or with --advertised-addr HOST:{port}"
    );
    Err(settings.refuse(key, allowed))
}

/// The pairs of `listener.security.protocol.map`. A pair that no listener uses may name any of Kafka's protocols, as copied files do.
fn protocols(settings: &Settings) -> Result<Vec<(String, String)>, Error> {
    let key = "listener.security.protocol.map";
    let mut pairs: Vec<(String, String)> = Vec::new();
    for item in &settings.listener_security_protocol_map {
        let pair = item.split_once(':').and_then(|(name, protocol)| Some((listener_name(name)?, protocol.to_ascii_uppercase())));
        let Some((name, protocol)) = pair.filter(|(_, protocol)| PROTOCOLS.contains(&protocol.as_str())) else {
            return Err(settings.refuse(key, format!("NAME:PROTOCOL with one of {}; {item:?} is not", PROTOCOLS.join(", "))));
        };
        if pairs.iter().any(|(other, _)| *other == name) {
            return Err(settings.refuse(key, format!("each listener name once, {name} is there twice")));
        }
        pairs.push((name, protocol));
    }
    Ok(pairs)
}

fn check_protocol(settings: &Settings, protocols: &[(String, String)], name: &str) -> Result<(), Error> {
    let mapped = protocols.iter().find(|(other, _)| other == name).map(|(_, protocol)| protocol.as_str());
    match mapped.or_else(|| PROTOCOLS.into_iter().find(|protocol| *protocol == name)) {
        Some("PLAINTEXT") => Ok(()),
        Some(protocol) => {
            let key = if mapped.is_some() { "listener.security.protocol.map" } else { "listeners" };
            Err(settings.refuse(key, format!("PLAINTEXT for listener {name}; {protocol} is not served yet")))
        }
        None => Err(settings
            .refuse("listener.security.protocol.map", format!("a protocol for every listener; {name} has none, add {name}:PLAINTEXT"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::settings::{Given, Source};

    fn parsed(pairs: &[(&str, &str)]) -> Result<Vec<Listener>, Error> {
        let given = pairs.iter().map(|(key, value)| Given::new(*key, *value, Source::CommandLine("--set".to_owned())));
        listeners(&Settings::new(given)?)
    }

    fn shown(pairs: &[(&str, &str)]) -> String {
        let listeners = parsed(pairs).expect("allowed listeners");
        let lines: Vec<String> = listeners.iter().map(|l| format!("{} {} {}", l.name, l.bind, l.advertised)).collect();
        lines.join("; ")
    }

    fn refused(pairs: &[(&str, &str)], part: &str) {
        let error = parsed(pairs).expect_err("listeners that must be refused").to_string();
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }

    const MAP: (&str, &str) = ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,SSL:SSL");

    #[test]
    fn the_default_binds_loopback_alone() {
        let listeners = parsed(&[]).expect("defaults are allowed");
        assert_eq!(shown(&[]), "PLAINTEXT 127.0.0.1:9092 127.0.0.1:9092");
        assert!(listeners.iter().all(Listener::is_loopback));
        let open = parsed(&[("listeners", "PLAINTEXT://192.0.2.1:9092")]).expect("an address");
        assert!(!open[0].is_loopback());
    }

    #[test]
    fn several_named_listeners_advertise_what_they_are_told() {
        let pairs = [
            MAP,
            ("listeners", "internal://[::1]:9093, PLAINTEXT://:9092"),
            ("advertised.listeners", "PLAINTEXT://broker-1.example.org:19092"),
        ];
        assert_eq!(shown(&pairs), "INTERNAL [::1]:9093 [::1]:9093; PLAINTEXT 0.0.0.0:9092 broker-1.example.org:19092");
    }

    #[test]
    fn a_port_chosen_by_the_system_is_advertised_once_known() {
        let listeners = parsed(&[("listeners", "PLAINTEXT://127.0.0.1:0")]).expect("port 0 is allowed");
        assert_eq!(listeners[0].advertised_at(40123).to_string(), "127.0.0.1:40123");
        let fixed = parsed(&[("advertised.listeners", "PLAINTEXT://h:1")]).expect("an advertised address");
        assert_eq!(fixed[0].advertised_at(40123).to_string(), "h:1");
    }

    #[test]
    fn a_wildcard_is_bound_only_with_something_to_advertise() {
        for host in ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]", ""] {
            let listener = format!("PLAINTEXT://{host}:9092");
            refused(&[("listeners", &listener)], "--advertised-addr HOST:9092");
            refused(&[("advertised.listeners", &listener)], "setting advertised.listeners cannot be");
            let advertised = ("advertised.listeners", "PLAINTEXT://localhost:9092");
            assert!(parsed(&[("listeners", &listener), advertised]).is_ok());
        }
    }

    #[test]
    fn listeners_that_cannot_work_are_refused_by_name() {
        for listener in
            ["127.0.0.1:9092", "A B://h:1", "PLAINTEXT://h", "PLAINTEXT://h:65536", "PLAINTEXT://::1:9092", "PLAINTEXT://[::1:1"]
        {
            refused(&[("listeners", listener)], "NAME://host:port");
        }
        refused(&[("listeners", "PLAINTEXT://h:+1")], "NAME://host:port");
        refused(&[("listeners", "PLAINTEXT://h/x:1")], "NAME://host:port");
        refused(&[("listeners", "PLAINTEXT://a:1,plaintext://b:1")], "PLAINTEXT is there twice");
        refused(&[MAP, ("listeners", "PLAINTEXT://a:1,INTERNAL://a:1")], "a:1 is there twice");
        refused(&[("advertised.listeners", "OTHER://a:1")], "not OTHER");
        refused(&[("listeners", "INTERNAL://a:1")], "add INTERNAL:PLAINTEXT");
        refused(&[("listeners", "SASL_SSL://a:1")], "SASL_SSL is not served yet");
        refused(&[MAP, ("listeners", "SSL://a:1")], "SSL is not served yet");
        refused(&[("listener.security.protocol.map", "PLAINTEXT:TLS")], "\"PLAINTEXT:TLS\" is not");
        refused(&[("listener.security.protocol.map", "PLAINTEXT:SSL")], "SSL is not served yet");
    }
}
