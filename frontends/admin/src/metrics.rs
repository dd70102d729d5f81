//! `/metrics`: everything, by shard and partition, under this project's own names.

use crate::families::{Page, counter, gauge, histogram};
use crate::node::{Facts, Look};
use millrace_shard::observe::{PartitionFacts, Snapshot};

/// What replica set 0 is called where a topic is named.
const META_NAME: &str = "replica-set-0";

pub fn page(look: &Look, facts: &Facts) -> String {
    let mut page = Page::default();
    process(&mut page, look, facts);
    shards(&mut page, look);
    directories(&mut page, look);
    requests(&mut page, look);
    partitions(&mut page, look);
    groups(&mut page, look);
    page.text()
}

fn process(page: &mut Page, look: &Look, facts: &Facts) {
    let machine = &look.machine;
    let mut one = gauge("millrace_build_info", "1, with the version as a label");
    one.value(&[("version", &facts.version), ("node", &facts.node.to_string())], 1.0);
    page.add(one);
    let values = [
        (gauge("millrace_uptime_seconds", "Seconds since the node began to start"), machine.uptime.as_secs_f64()),
        (counter("process_cpu_seconds_total", "Processor time of all threads, in seconds"), machine.cpu.as_secs_f64()),
        (gauge("process_resident_memory_bytes", "Memory that the process occupies"), machine.resident_bytes as f64),
        (gauge("process_open_fds", "Descriptors that are open"), machine.open_files as f64),
        (gauge("process_max_fds", "Descriptors that may be open"), machine.open_files_max as f64),
        (gauge("millrace_ready", "1 if requests are served"), if look.not_ready().is_none() { 1.0 } else { 0.0 }),
        (gauge("millrace_shards_silent", "Shards that did not answer in time, and are missing on this page"), look.silent.len() as f64),
    ];
    for (mut family, value) in values {
        family.value(&[], value);
        page.add(family);
    }
}

fn shards(page: &mut Page, look: &Look) {
    let mut connections = gauge("millrace_connections", "Connections that are open");
    let mut accepted = counter("millrace_connections_accepted_total", "Connections accepted");
    let mut received = counter("millrace_received_bytes_total", "Bytes received from clients");
    let mut sent = counter("millrace_sent_bytes_total", "Bytes sent to clients");
    let mut used = gauge("millrace_memory_used_bytes", "Memory in use, by what for");
    let mut budget = gauge("millrace_memory_budget_bytes", "Memory that may be in use, by what for");
    for shard in &look.shards {
        let name = shard.shard.to_string();
        let labels = [("shard", name.as_str())];
        connections.value(&labels, shard.connections as f64);
        accepted.value(&labels, shard.traffic.connections_accepted as f64);
        received.value(&labels, shard.traffic.received_bytes as f64);
        sent.value(&labels, shard.traffic.sent_bytes as f64);
        for part in &shard.memory {
            let labels = [("shard", name.as_str()), ("part", part.name)];
            used.value(&labels, part.used as f64);
            budget.value(&labels, part.budget as f64);
        }
    }
    for family in [connections, accepted, received, sent, used, budget] {
        page.add(family);
    }
}

fn directories(page: &mut Page, look: &Look) {
    let mut total = gauge("millrace_disk_total_bytes", "Size of a data directory's file system");
    let mut free = gauge("millrace_disk_free_bytes", "Room on a data directory's file system");
    for (path, all, left) in &look.machine.disks {
        total.value(&[("directory", path)], *all as f64);
        free.value(&[("directory", path)], *left as f64);
    }
    let mut failed = gauge("millrace_directory_failed", "1 if nothing of the data directory is served until a restart");
    let mut full = gauge("millrace_directory_full", "1 if produce is refused until there is room");
    let mut files = gauge("millrace_journal_files", "Files of a journal, by whether something in them is needed");
    let mut entries = counter("millrace_journal_entries_total", "Journal entries that are durable");
    let mut bytes = counter("millrace_journal_bytes_total", "Bytes of journal entries written");
    let mut latency = histogram("millrace_journal_entry_seconds", "From the seal of a journal entry until it is durable");
    for shard in &look.shards {
        let name = shard.shard.to_string();
        for directory in &shard.directories {
            let labels = [("shard", name.as_str()), ("directory", directory.path.as_str())];
            failed.value(&labels, f64::from(u8::from(directory.is_failed)));
            full.value(&labels, f64::from(u8::from(directory.is_full)));
            let (used, unused) = directory.journal_files;
            for (state, count) in [("used", used), ("free", unused)] {
                files.value(&[labels[0], labels[1], ("state", state)], count as f64);
            }
            entries.value(&labels, directory.entries.entries as f64);
            bytes.value(&labels, directory.entries.bytes as f64);
            latency.counted(&labels, &directory.entries.latency);
        }
    }
    for family in [total, free, failed, full, files, entries, bytes, latency] {
        page.add(family);
    }
}

fn requests(page: &mut Page, look: &Look) {
    let mut latency =
        histogram("millrace_kafka_request_seconds", "From when a request had come whole until it was answered, long polls included");
    let mut received = counter("millrace_kafka_request_bytes_total", "Bytes of requests");
    let mut answered = counter("millrace_kafka_response_bytes_total", "Bytes of answers");
    let mut errors = counter("millrace_kafka_errors_total", "Partitions of Produce and Fetch, and whole requests, answered with an error");
    for shard in &look.shards {
        let name = shard.shard.to_string();
        for request in &shard.requests {
            let labels = [("shard", name.as_str()), ("request", request.name)];
            latency.counted(&labels, &request.latency);
            received.value(&labels, request.request_bytes as f64);
            answered.value(&labels, request.response_bytes as f64);
            for (error, count) in &request.errors {
                errors.value(&[labels[0], labels[1], ("error", error)], *count as f64);
            }
        }
    }
    for family in [latency, received, answered, errors] {
        page.add(family);
    }
}

fn partitions(page: &mut Page, look: &Look) {
    type Value = fn(&PartitionFacts) -> f64;
    let families: [(_, Value); 9] = [
        (gauge("millrace_partition_leader", "1 if the partition is led here"), |found| f64::from(u8::from(found.is_led))),
        (gauge("millrace_partition_log_start_offset", "The first offset that can be read"), |found| found.log_start as f64),
        (gauge("millrace_partition_high_watermark", "The offset behind the last record that can be read"), |found| {
            found.high_watermark as f64
        }),
        (gauge("millrace_partition_bytes", "Bytes of records kept"), |found| found.bytes as f64),
        (gauge("millrace_partition_segments", "Segments"), |found| found.segments as f64),
        (counter("millrace_partition_produced_records_total", "Records appended since the start"), |found| {
            found.traffic.produced_records as f64
        }),
        (counter("millrace_partition_produced_bytes_total", "Bytes of batches appended since the start"), |found| {
            found.traffic.produced_bytes as f64
        }),
        (counter("millrace_partition_fetched_bytes_total", "Bytes of batches read since the start"), |found| {
            found.traffic.fetched_bytes as f64
        }),
        (gauge("millrace_partition_serving", "1 if the partition is read and written; else why not is a label"), |found| {
            f64::from(u8::from(found.standing == "serving"))
        }),
    ];
    for (mut family, value) in families {
        let tells_why = family.is("millrace_partition_serving");
        for shard in &look.shards {
            each(shard, |topic, index, found| {
                let standing = [("topic", topic), ("partition", index), ("standing", found.standing)];
                let labels = if tells_why { &standing[..] } else { &standing[..2] };
                family.value(labels, value(found));
            });
        }
        page.add(family);
    }
}

fn each(shard: &Snapshot, mut tell: impl FnMut(&str, &str, &PartitionFacts)) {
    for found in &shard.partitions {
        tell(found.topic.as_deref().unwrap_or(META_NAME), &found.index.to_string(), found);
    }
}

fn groups(page: &mut Page, look: &Look) {
    let mut members = gauge("millrace_group_members", "Members of a consumer group");
    for found in look.shards.iter().flat_map(|shard| &shard.groups) {
        members.value(&[("group", &found.group)], found.members as f64);
    }
    let mut committed = gauge("millrace_group_committed_offset", "The offset that a consumer group has committed");
    let mut lag = gauge("millrace_group_lag", "Records behind a consumer group's committed offset");
    for found in look.lags() {
        let partition = found.partition.to_string();
        let labels = [("group", found.group), ("topic", found.topic), ("partition", partition.as_str())];
        committed.value(&labels, found.committed as f64);
        if let Some(behind) = found.lag {
            lag.value(&labels, behind as f64);
        }
    }
    for family in [members, committed, lag] {
        page.add(family);
    }
}
