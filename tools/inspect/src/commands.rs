//! What the records of internal partitions mean: the commands of replica set 0, and the group records of `__consumer_offsets`.

use crate::records::Record;
use millrace_base::ids::META_TOPIC;
use millrace_base::ids::TopicId;
use millrace_base::value::{Fields, Value, field};
use millrace_state::groups::records::Change;
use millrace_state::meta::{Command, NodeScope};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Whose records they are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Meaning {
    /// What producers sent.
    #[default]
    Theirs,
    /// Commands of replica set 0.
    Commands,
    /// Groups and their offsets.
    Groups,
}

impl Meaning {
    /// Of a topic's records. `name`: what the topic is called, if that is known.
    pub fn of(topic: Option<TopicId>, name: Option<&str>) -> Meaning {
        match name {
            _ if topic == Some(META_TOPIC) => Meaning::Commands,
            Some("__consumer_offsets") => Meaning::Groups,
            Some(_) | None => Meaning::Theirs,
        }
    }
}

/// What a record means. None: nothing to us. The error says why it cannot be read.
pub fn meaning(meaning: Meaning, record: &Record<'_>) -> Option<Result<Fields, String>> {
    match meaning {
        Meaning::Theirs => None,
        Meaning::Commands => {
            let command = record.value.ok_or("a record without a command".to_owned());
            let command = command.and_then(|bytes| Command::decode(bytes).map_err(|error| error.to_string()));
            Some(command.map(|command| command_fields(&command)))
        }
        Meaning::Groups => {
            let change = Change::decode(record.key.unwrap_or_default(), record.value);
            Some(change.map(|change| group_fields(&change)).map_err(|error| error.to_string()))
        }
    }
}

fn command_fields(command: &Command) -> Fields {
    let name = |name: &'static str| field("command", name);
    match command {
        Command::RegisterNode(node) => {
            let listener =
                |listener: &millrace_state::meta::Listener| Value::Text(format!("{}://{}:{}", listener.name, listener.host, listener.port));
            let directory = |directory: &millrace_state::meta::Directory| {
                Value::Map(vec![field("id", directory.id.to_string()), field("path", directory.path.clone())])
            };
            vec![
                name("register node"),
                field("node", node.id),
                field("listeners", node.listeners.iter().map(listener).collect::<Vec<_>>()),
                field("directories", node.directories.iter().map(directory).collect::<Vec<_>>()),
            ]
        }
        Command::CreateTopic { topic, name: topic_name, directories, configs } => vec![
            name("create topic"),
            field("topic", topic_name.clone()),
            field("id", topic.to_string()),
            field("partitions", directories.len()),
            field("directories", ids(directories)),
            field("configs", texts(configs)),
        ],
        Command::DeleteTopic { topic } => vec![name("delete topic"), field("id", topic.to_string())],
        Command::CreatePartitions { topic, first, directories } => vec![
            name("create partitions"),
            field("id", topic.to_string()),
            field("first", *first),
            field("partitions", directories.len()),
            field("directories", ids(directories)),
        ],
        Command::AlterTopicConfigs { topic, set, remove } => vec![
            name("alter topic configs"),
            field("id", topic.to_string()),
            field("set", texts(set)),
            field("remove", remove.iter().map(|key| Value::from(key.as_str())).collect::<Vec<_>>()),
        ],
        Command::AlterNodeConfigs { scope, set, remove } => vec![
            name("alter node configs"),
            field("node", if let NodeScope::One(node) = scope { Value::from(*node) } else { Value::from("every") }),
            field("set", texts(set)),
            field("remove", remove.iter().map(|key| Value::from(key.as_str())).collect::<Vec<_>>()),
        ],
        Command::AllocateProducerIds { count, at_least } => {
            vec![name("allocate producer ids"), field("count", *count), field("at_least", *at_least)]
        }
        Command::SetFeatureLevel { level } => vec![name("set feature level"), field("level", *level)],
        Command::SetClusterId { id } => vec![name("set cluster id"), field("id", id.to_string())],
    }
}

fn ids(ids: &[millrace_base::ids::Uuid]) -> Vec<Value> {
    ids.iter().map(|id| Value::Text(id.to_string())).collect()
}

fn texts(map: &BTreeMap<String, String>) -> Value {
    Value::Map(map.iter().map(|(key, value)| (Cow::Owned(key.clone()), Value::from(value.as_str()))).collect())
}

fn group_fields(change: &Change) -> Fields {
    match change {
        Change::Offset { group, topic, partition, value } => {
            let mut fields = vec![
                field("group", group.clone()),
                field("topic", topic.clone()),
                field("partition", *partition),
                field("committed", value.as_ref().map(|value| value.offset)),
            ];
            if let Some(value) = value {
                fields.push(field("commit_ms", value.commit_timestamp));
                fields.push(field("leader_epoch", value.leader_epoch));
                fields.push(field("metadata", value.metadata.clone()));
            }
            fields
        }
        Change::Group { group, value } => {
            let mut fields = vec![field("group", group.clone())];
            match value {
                None => fields.push(field("removed", true)),
                Some(value) => fields.extend([
                    field("generation", value.generation),
                    field("protocol_type", value.protocol_type.clone()),
                    field("protocol", value.protocol.clone()),
                    field("leader", value.leader.clone()),
                    field("members", value.members.iter().map(|member| Value::from(member.member_id.as_str())).collect::<Vec<_>>()),
                ]),
            }
            fields
        }
    }
}
