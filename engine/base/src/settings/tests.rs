//! Promises of the settings table and of the layers over it.

use super::*;

fn file(key: &str, value: &str) -> Given {
    Given::new(key, value, Source::File { path: "node.yaml".to_owned(), line: 3 })
}

fn flag(key: &str, value: &str) -> Given {
    Given::new(key, value, Source::CommandLine("--set".to_owned()))
}

fn variable(key: &str, value: &str) -> Given {
    let mut given = Given::from_environment([(key.to_owned(), value.to_owned())]).expect("a known variable");
    given.remove(0)
}

fn refused(given: Given) -> String {
    Settings::new([given]).expect_err("a setting that must be refused").to_string()
}

#[test]
fn every_row_fits_its_field_and_prints_its_default() {
    for setting in TABLE {
        let (min, max) = match setting.kind {
            Kind::Int { min, max } | Kind::Long { min, max } | Kind::Bytes { min, max } => (min.to_string(), max.to_string()),
            Kind::Double { min, max } => (min.to_string(), max.to_string()),
            Kind::Bool | Kind::Text | Kind::List | Kind::Enum(_) | Kind::EnumList(_) => continue,
        };
        for text in [min, max] {
            let result = Settings::new([flag(setting.name, &text)]);
            assert!(matches!(result, Ok(_) | Err(Error::Bad { .. })), "{} = {text}", setting.name);
        }
    }
    for entry in Settings::default().entries() {
        assert_eq!(entry.value().as_deref(), entry.setting.default, "{}", entry.setting.name);
        assert_eq!(entry.source(), &Source::Default);
    }
}

#[test]
fn names_are_unique_in_the_file_and_in_the_environment() {
    for (at, setting) in TABLE.iter().enumerate() {
        assert!(TABLE[..at].iter().all(|other| other.variable() != setting.variable()), "{}", setting.name);
        assert!(setting.name.chars().all(|c| c.is_ascii_lowercase() || c == '.'), "{}", setting.name);
        assert!(setting.doc.ends_with(['.', ')']) && !setting.doc.contains('\n'), "{}", setting.name);
    }
}

#[test]
fn the_command_line_wins_over_environment_file_and_default_in_any_order() {
    let all = [flag("num.partitions", "5"), file("num.partitions", "3"), variable("MILLRACE_NUM_PARTITIONS", "4")];
    for rotation in 0..all.len() {
        let mut given = all.to_vec();
        given.rotate_left(rotation);
        let settings = Settings::new(given).expect("allowed values");
        assert_eq!(settings.num_partitions, 5);
        let entry = settings.entry("num.partitions").expect("a setting of the table");
        let values: Vec<String> = entry.layers.iter().flat_map(|layer| &layer.value).map(Value::to_string).collect();
        assert_eq!(values, ["5", "4", "3", "1"]);
    }
    let settings = Settings::new([flag("num.partitions", "5"), flag("num.partitions", "6")]).expect("allowed values");
    assert_eq!(settings.num_partitions, 6);
}

#[test]
fn a_change_at_run_time_wins_until_it_is_taken_back() {
    let started = Settings::new([flag("log.retention.ms", "1000")]).expect("allowed value");
    let cluster = Given::new("log.retention.ms", "2000", Source::Cluster);
    let node = Given::new("log.retention.ms", "3000", Source::Node);
    let changed = started.changed([node.clone(), cluster.clone()]).expect("allowed change");
    assert_eq!(changed.log_retention_ms, Some(3000));
    assert_eq!(changed.changed([cluster]).expect("allowed change").log_retention_ms, Some(2000));
    assert_eq!(changed.changed([]).expect("no change"), started);
    let fixed = started.changed([Given::new("num.partitions", "2", Source::Cluster)]);
    assert_eq!(fixed, Err(Error::Fixed { key: "num.partitions".to_owned() }));
}

#[test]
fn a_bad_value_names_key_value_source_and_what_is_allowed() {
    assert_eq!(
        refused(file("num.partitions", "many")),
        "setting num.partitions cannot be \"many\" (from node.yaml line 3); allowed: a whole number from 1 to 100000"
    );
    assert_eq!(
        refused(variable("MILLRACE_COMPRESSION_TYPE", "lzma")),
        "setting compression.type cannot be \"lzma\" (from environment variable MILLRACE_COMPRESSION_TYPE); allowed: one of producer"
    );
    assert_eq!(
        refused(flag("group.max.session.timeout.ms", "10")),
        "setting group.max.session.timeout.ms cannot be \"10\" (from --set); \
         allowed: at least group.min.session.timeout.ms, which is 6000"
    );
    assert!(refused(flag("log.dirs", "a,b,a")).contains("each data directory once"));
    assert!(refused(flag("num.partitions", "")).contains("cannot be \"\""));
}

#[test]
fn an_unknown_key_names_the_nearest() {
    assert_eq!(refused(flag("num.partition", "3")), "--set: there is no setting \"num.partition\"; did you mean num.partitions?");
    assert!(refused(file("log_retention_hours", "3")).ends_with("did you mean log.retention.hours?"));
    assert!(refused(file("zookeeper.connect", "h:2181")).ends_with("`millrace settings` lists them all"));
    assert!(refused(file(&"x".repeat(100_000), "3")).len() < 200_000);
    let misspelt = Given::from_environment([("MILLRACE_NUM_PARTITION".to_owned(), "3".to_owned())]);
    assert_eq!(
        misspelt.expect_err("no such setting").to_string(),
        "environment variable \"MILLRACE_NUM_PARTITION\" names no setting; did you mean MILLRACE_NUM_PARTITIONS?"
    );
    assert!(Given::from_pair("num.partitions", "--set").is_err());
}

#[test]
fn variables_of_others_are_passed_over() {
    let others = ["PATH", "MILLRACE_CACHE", "MILLRACE_BROKERS", "MILLRACE_SERVICE_HOST", "MILLRACE_SERVICE_PORT_KAFKA", "MILLRACE_PORT"];
    let more = ["MILLRACE_0_SERVICE_HOST", "MILLRACE_PORT_9092_TCP_ADDR", "MILLRACE_BROKER_PORT_9092_TCP"];
    let variables = others.iter().chain(&more).map(|name| ((*name).to_owned(), "tcp://10.0.0.1".to_owned()));
    assert_eq!(Given::from_environment(variables), Ok(Vec::new()));
    assert!(Given::from_environment([("MILLRACE_PORTS".to_owned(), "1".to_owned())]).is_err());
}

#[test]
fn topic_defaults_take_the_first_synonym_with_a_value() {
    let default = |given: Vec<Given>, config: &str| {
        let defaults = Settings::new(given).expect("allowed values").topic_defaults();
        assert_eq!(defaults.iter().filter(|(name, _)| *name == config).count(), 1, "{config} once");
        defaults.into_iter().find(|(name, _)| *name == config).expect("a default").1
    };
    assert_eq!(default(vec![], "retention.ms"), "604800000");
    assert_eq!(default(vec![flag("log.retention.hours", "1")], "retention.ms"), "3600000");
    assert_eq!(default(vec![flag("log.retention.hours", "-1")], "retention.ms"), "-1");
    let minutes = flag("log.retention.minutes", "2");
    assert_eq!(default(vec![flag("log.retention.hours", "1"), minutes.clone()], "retention.ms"), "120000");
    assert_eq!(default(vec![minutes.clone(), flag("log.retention.ms", "7")], "retention.ms"), "7");
    assert_eq!(default(vec![minutes, flag("log.retention.ms", "")], "retention.ms"), "120000");
    assert_eq!(default(vec![flag("log.segment.bytes", "1MiB")], "segment.bytes"), "1048576");
    assert_eq!(default(vec![flag("log.cleanup.policy", "compact, delete")], "cleanup.policy"), "compact,delete");
    let settings = Settings::new([flag("log.retention.minutes", "2")]).expect("allowed value");
    let synonyms: Vec<&str> = settings.topic_synonyms("retention.ms").map(|entry| entry.setting.name).collect();
    assert_eq!(synonyms, ["log.retention.minutes", "log.retention.hours"]);
}

#[test]
fn help_and_sample_show_every_setting() {
    let (help, sample) = (help(), sample());
    for setting in TABLE {
        assert!(help.contains(&format!("\n{} (", setting.name)) || help.starts_with(setting.name), "{}", setting.name);
        assert!(sample.contains(&format!("\n#{}:", setting.name)), "{}", setting.name);
        assert!(help.contains(&setting.variable()) && help.contains(setting.doc), "{}", setting.name);
    }
}
