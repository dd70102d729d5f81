//! The table of served APIs: the one source for ApiVersions answers, dispatch, metrics and the documentation.
//!
//! A row: name, key, lowest and highest version served, first flexible version (of request, of answer and of the request header: Kafka never
//! lets them differ), lowest version advertised. What is not in the table is not served: its key closes the connection.
//!
//! Produce is advertised from 0 although 0 to 2 are answered UNSUPPORTED_VERSION, or closed with acks=0: librdkafka before 2.11.1 switches
//! compression off when the range lacks version 0 (KAFKA-18659). The highest versions are those of Kafka 4.4 as far as they are stable.
//!
//! Invariants: keys ascend; advertised from <= min <= max.
//! Knows nothing of bodies.

/// No version is flexible.
const NEVER: i16 = i16::MAX;

macro_rules! table {
    ($($name:ident = $key:literal, versions $min:literal to $max:literal, flexible from $flexible:expr, advertised from $advertised:literal;)*) => {
        /// A served API.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        pub enum Api {
            $($name = $key,)*
        }

        /// Every served API, keys ascending.
        pub const APIS: &[Row] = &[$(Row {
            api: Api::$name,
            key: $key,
            name: stringify!($name),
            min: $min,
            max: $max,
            flexible_from: $flexible,
            advertised_min: $advertised,
        },)*];

        impl Api {
            pub fn from_key(key: i16) -> Option<Api> {
                match key {
                    $($key => Some(Api::$name),)*
                    _ => None,
                }
            }

            pub fn row(self) -> &'static Row {
                match self {
                    $(Api::$name => &const {
                        Row {
                            api: Api::$name,
                            key: $key,
                            name: stringify!($name),
                            min: $min,
                            max: $max,
                            flexible_from: $flexible,
                            advertised_min: $advertised,
                        }
                    },)*
                }
            }
        }
    };
}

/// One API's line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub api: Api,
    pub key: i16,
    /// As in Kafka's schemas, without "Request".
    pub name: &'static str,
    /// Lowest version served.
    pub min: i16,
    /// Highest version served.
    pub max: i16,
    /// First version with compact lengths and tagged sections; `i16::MAX` if there is none.
    pub flexible_from: i16,
    /// Lowest version that ApiVersions names.
    pub advertised_min: i16,
}

table! {
    Produce = 0, versions 3 to 13, flexible from 9, advertised from 0;
    Fetch = 1, versions 4 to 18, flexible from 12, advertised from 4;
    ListOffsets = 2, versions 1 to 11, flexible from 6, advertised from 1;
    Metadata = 3, versions 0 to 13, flexible from 9, advertised from 0;
    OffsetCommit = 8, versions 2 to 10, flexible from 8, advertised from 2;
    OffsetFetch = 9, versions 1 to 10, flexible from 6, advertised from 1;
    FindCoordinator = 10, versions 0 to 6, flexible from 3, advertised from 0;
    JoinGroup = 11, versions 0 to 9, flexible from 6, advertised from 0;
    Heartbeat = 12, versions 0 to 4, flexible from 4, advertised from 0;
    LeaveGroup = 13, versions 0 to 5, flexible from 4, advertised from 0;
    SyncGroup = 14, versions 0 to 5, flexible from 4, advertised from 0;
    DescribeGroups = 15, versions 0 to 6, flexible from 5, advertised from 0;
    ListGroups = 16, versions 0 to 5, flexible from 3, advertised from 0;
    ApiVersions = 18, versions 0 to 5, flexible from 3, advertised from 0;
    CreateTopics = 19, versions 2 to 7, flexible from 5, advertised from 2;
    DeleteTopics = 20, versions 1 to 6, flexible from 4, advertised from 1;
    DeleteRecords = 21, versions 0 to 2, flexible from 2, advertised from 0;
    InitProducerId = 22, versions 0 to 5, flexible from 2, advertised from 0;
    OffsetForLeaderEpoch = 23, versions 2 to 4, flexible from 4, advertised from 2;
    DescribeAcls = 29, versions 1 to 3, flexible from 2, advertised from 1;
    DescribeConfigs = 32, versions 1 to 4, flexible from 4, advertised from 1;
    AlterConfigs = 33, versions 0 to 2, flexible from 2, advertised from 0;
    DescribeLogDirs = 35, versions 1 to 5, flexible from 2, advertised from 1;
    CreatePartitions = 37, versions 0 to 3, flexible from 2, advertised from 0;
    DeleteGroups = 42, versions 0 to 2, flexible from 2, advertised from 0;
    IncrementalAlterConfigs = 44, versions 0 to 1, flexible from 1, advertised from 0;
    OffsetDelete = 47, versions 0 to 0, flexible from NEVER, advertised from 0;
    DescribeCluster = 60, versions 0 to 2, flexible from 0, advertised from 0;
    DescribeProducers = 61, versions 0 to 0, flexible from 0, advertised from 0;
    ListConfigResources = 74, versions 0 to 1, flexible from 0, advertised from 0;
    DescribeTopicPartitions = 75, versions 0 to 0, flexible from 0, advertised from 0;
}

impl Api {
    pub fn key(self) -> i16 {
        self.row().key
    }

    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether a request of this version is decoded and answered.
    pub fn serves(self, version: i16) -> bool {
        (self.row().min..=self.row().max).contains(&version)
    }

    /// Whether this version has compact lengths and tagged sections.
    pub fn flexible(self, version: i16) -> bool {
        version >= self.row().flexible_from
    }

    /// The served version nearest to one that is not.
    pub fn nearest(self, version: i16) -> i16 {
        version.clamp(self.row().min, self.row().max)
    }

    /// Elements that all arrays of one request may have together (topics, partitions, groups, names...). A handler answers each, holds it while
    /// it waits, and asks shards about it, which costs many times the few bytes that it takes on the wire: so that the memory of a request
    /// stays below some 70 MiB whatever it names, and a turn below a few tens of milliseconds. No client of a node comes near it.
    pub fn elements_max(self) -> usize {
        match self {
            Api::FindCoordinator
            | Api::JoinGroup
            | Api::Heartbeat
            | Api::LeaveGroup
            | Api::DescribeGroups
            | Api::ListGroups
            | Api::ApiVersions
            | Api::InitProducerId
            | Api::DescribeAcls
            | Api::DescribeConfigs
            | Api::AlterConfigs
            | Api::DeleteGroups
            | Api::IncrementalAlterConfigs
            | Api::DescribeCluster
            | Api::ListConfigResources => 10_000,
            Api::Produce
            | Api::Fetch
            | Api::ListOffsets
            | Api::Metadata
            | Api::OffsetCommit
            | Api::OffsetFetch
            | Api::SyncGroup
            | Api::CreateTopics
            | Api::DeleteTopics
            | Api::DeleteRecords
            | Api::OffsetForLeaderEpoch
            | Api::DescribeLogDirs
            | Api::CreatePartitions
            | Api::OffsetDelete
            | Api::DescribeProducers
            | Api::DescribeTopicPartitions => 100_000,
        }
    }

    /// Dense number of this API, below `APIS.len()`: an index for counters.
    pub fn index(self) -> usize {
        APIS.iter().position(|row| row.api == self).expect("every API has its row, the table makes both")
    }
}

/// The table as the documentation shows it, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| key | API | served | advertised | flexible from |\n|--:|---|---|---|---|\n");
    for row in APIS {
        let Row { key, name, min, max, advertised_min, .. } = row;
        let flexible = if row.flexible_from == NEVER { "-".to_string() } else { row.flexible_from.to_string() };
        text.push_str(&format!("| {key} | {name} | {min}-{max} | {advertised_min}-{max} | {flexible} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_consistent() {
        assert!(APIS.is_sorted_by(|a, b| a.key < b.key));
        for row in APIS {
            assert!(row.advertised_min <= row.min && row.min <= row.max, "{row:?}");
            assert_eq!(Api::from_key(row.key), Some(row.api));
            assert_eq!(row.api.row(), row);
            assert_eq!(row.api as i16, row.key);
            assert_eq!(APIS[row.api.index()], *row);
        }
    }

    #[test]
    fn the_documentation_names_every_api() {
        let text = markdown();
        assert_eq!(text.lines().count(), APIS.len() + 2);
        assert!(text.contains("| 0 | Produce | 3-13 | 0-13 | 9 |\n"));
        assert!(text.contains("| 47 | OffsetDelete | 0-0 | 0-0 | - |\n"));
    }

    #[test]
    fn only_produce_is_advertised_below_what_is_served() {
        let lower: Vec<&str> = APIS.iter().filter(|row| row.advertised_min < row.min).map(|row| row.name).collect();
        assert_eq!(lower, ["Produce"]);
    }
}
