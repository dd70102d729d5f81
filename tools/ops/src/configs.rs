//! Configs of topics and brokers: asked for, and changed one key at a time.
//!
//! Requests about a broker go to that broker, all others to any.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::client::{Client, NEWEST, To, text};
use crate::failure::{Failure, Kind, Outcome};
use millrace_base::value::Value;

/// What has configs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resource {
    Topic(String),
    Node(i32),
    /// All brokers, as a default.
    Cluster,
}

impl Resource {
    fn kind(&self) -> i8 {
        match self {
            Resource::Topic(_) => 2,
            Resource::Node(_) | Resource::Cluster => 4,
        }
    }

    /// Its name on the wire.
    fn name(&self) -> String {
        match self {
            Resource::Topic(name) => name.clone(),
            Resource::Node(node) => node.to_string(),
            Resource::Cluster => String::new(),
        }
    }

    /// In words.
    pub fn subject(&self) -> String {
        match self {
            Resource::Topic(name) => format!("topic {name:?}"),
            Resource::Node(node) => format!("node {node}"),
            Resource::Cluster => "the cluster".to_owned(),
        }
    }

    fn to(&self) -> To {
        match self {
            Resource::Node(node) => To::Node(*node),
            Resource::Topic(_) | Resource::Cluster => To::Any,
        }
    }
}

/// One config and where its value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub key: String,
    /// `None` when there is none, or it is not shown.
    pub value: Option<String>,
    pub source: &'static str,
    pub read_only: bool,
    pub sensitive: bool,
}

impl Config {
    fn of(found: &DescribeConfigsResourceResult) -> Config {
        let source = match found.config_source {
            1 => "topic",
            2 => "node, at run time",
            3 => "cluster, at run time",
            4 => "node",
            5 => "default",
            6 => "node, logger",
            7 => "client metrics",
            8 => "group",
            _ => "unknown",
        };
        let value = found.value.as_ref().map(ToString::to_string).filter(|_| !found.is_sensitive);
        Config { key: found.name.to_string(), value, source, read_only: found.read_only, sensitive: found.is_sensitive }
    }

    /// Set for `resource` itself, or for its broker, and not just what every one has.
    pub fn is_own(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Topic(_) => self.source == "topic",
            Resource::Node(_) | Resource::Cluster => self.source != "default",
        }
    }

    pub fn shown(&self) -> Value {
        if self.sensitive { "(hidden)".into() } else { self.value.clone().into() }
    }
}

/// All configs of `resource`, or those named, by name.
///
/// # Errors
/// It is not there, or no broker answers.
pub fn describe(client: &mut Client, resource: &Resource, keys: Option<&[String]>) -> Outcome<Vec<Config>> {
    let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect::<Vec<_>>());
    client.retrying(|client| {
        let asked = DescribeConfigsResource::default()
            .with_resource_type(resource.kind())
            .with_resource_name(text(&resource.name()))
            .with_configuration_keys(keys.clone());
        let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
        let answer = client.call(resource.to(), NEWEST, |_| request)?;
        let Some(found) = answer.results.first() else {
            return Err(Failure::new(Kind::Failed, format!("{}: the answer leaves it out", resource.subject())));
        };
        Failure::check(&resource.subject(), found.error_code, found.error_message.as_deref())?;
        let mut configs: Vec<Config> = found.configs.iter().map(Config::of).collect();
        configs.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(configs)
    })
}

/// What becomes of one config.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Set(String),
    Delete,
    /// To a list.
    Append(String),
    /// From a list.
    Subtract(String),
}

/// Changes configs of `resource`, all of them or none; with `dry` only asks whether the broker would.
///
/// # Errors
/// The broker refuses, or none answers.
pub fn alter(client: &mut Client, resource: &Resource, changes: &[(String, Change)], dry: bool) -> Outcome<()> {
    let one = |(key, change): &(String, Change)| {
        let (operation, value) = match change {
            Change::Set(value) => (0, Some(text(value))),
            Change::Delete => (1, None),
            Change::Append(value) => (2, Some(text(value))),
            Change::Subtract(value) => (3, Some(text(value))),
        };
        AlterableConfig::default().with_name(text(key)).with_config_operation(operation).with_value(value)
    };
    client.retrying(|client| {
        let asked = AlterConfigsResource::default()
            .with_resource_type(resource.kind())
            .with_resource_name(text(&resource.name()))
            .with_configs(changes.iter().map(one).collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![asked]).with_validate_only(dry);
        let answer = client.call(resource.to(), NEWEST, |_| request)?;
        match answer.responses.first() {
            Some(found) => Failure::check(&resource.subject(), found.error_code, found.error_message.as_deref()),
            None => Err(Failure::new(Kind::Failed, format!("{}: the answer leaves it out", resource.subject()))),
        }
    })
}
