//! `/public_metrics`: what dashboards and alerts look at, under the names and labels that Redpanda gives them, so that theirs work here.
//!
//! Only what there is: a family that Millrace has nothing to tell of is left out, not filled with zeros.

use crate::families::{Page, counter, gauge, histogram, untyped};
use crate::node::{Facts, Look};
use millrace_shard::observe::PartitionFacts;
use std::collections::{BTreeMap, BTreeSet};

const NAMESPACE: (&str, &str) = ("redpanda_namespace", "kafka");

/// Less of a file system than this is low on room, one part in so many; and nearly out of it.
const LOW_PART: u64 = 10;
const DEGRADED_PART: u64 = 20;

pub fn page(look: &Look, facts: &Facts) -> String {
    let mut page = Page::default();
    node(&mut page, look, facts);
    disks(&mut page, look);
    topics(&mut page, look);
    requests(&mut page, look);
    groups(&mut page, look);
    page.text()
}

fn node(page: &mut Page, look: &Look, facts: &Facts) {
    let mut build = gauge("redpanda_application_build", "1, with the version as a label");
    build.value(&[("redpanda_version", &facts.version), ("redpanda_revision", "millrace")], 1.0);
    page.add(build);
    let names: BTreeSet<&str> = look.shards.iter().flat_map(|shard| &shard.partitions).filter_map(|found| found.topic.as_deref()).collect();
    let partitions = || look.shards.iter().flat_map(|shard| &shard.partitions).filter(|found| found.topic.is_some());
    let unavailable = partitions().filter(|found| found.standing != "serving" || !found.is_led).count();
    let used: usize = look.shards.iter().flat_map(|shard| &shard.memory).map(|part| part.used).sum();
    let budget: usize = look.shards.iter().flat_map(|shard| &shard.memory).map(|part| part.budget).sum();
    let connections: usize = look.shards.iter().map(|shard| shard.connections).sum();
    let values = [
        (counter("redpanda_application_uptime_seconds_total", "Seconds since the node began to start"), look.machine.uptime.as_secs_f64()),
        (counter("redpanda_cpu_busy_seconds_total", "Processor time of all threads, in seconds"), look.machine.cpu.as_secs_f64()),
        (gauge("redpanda_cluster_brokers", "Nodes of the cluster"), 1.0),
        (gauge("redpanda_cluster_topics", "Topics"), names.len() as f64),
        (gauge("redpanda_cluster_partitions", "Partitions of topics"), partitions().count() as f64),
        (gauge("redpanda_cluster_unavailable_partitions", "Partitions that cannot be written"), unavailable as f64),
        (gauge("redpanda_memory_allocated_memory", "Bytes of the shards' memory in use"), used as f64),
        (gauge("redpanda_memory_available_memory", "Bytes of the shards' memory free"), budget.saturating_sub(used) as f64),
        (gauge("redpanda_rpc_active_connections", "Connections that are open"), connections as f64),
    ];
    for (mut family, value) in values {
        let labels: &[(&str, &str)] = if family.is("redpanda_rpc_active_connections") { &[("redpanda_server", "kafka")] } else { &[] };
        family.value(labels, value);
        page.add(family);
    }
}

/// The fullest data directory counts.
fn disks(page: &mut Page, look: &Look) {
    let Some((_, total, free)) = look.machine.disks.iter().min_by_key(|(_, _, free)| *free) else { return };
    let alert = if *free < total / DEGRADED_PART { 2.0 } else { f64::from(u8::from(*free < total / LOW_PART)) };
    let values = [
        (gauge("redpanda_storage_disk_total_bytes", "Size of the file system of the data directory with the least room"), *total as f64),
        (gauge("redpanda_storage_disk_free_bytes", "Its room"), *free as f64),
        (gauge("redpanda_storage_disk_free_space_alert", "0 enough, 1 low (below a tenth), 2 nearly none (below a twentieth)"), alert),
    ];
    for (mut family, value) in values {
        family.value(&[], value);
        page.add(family);
    }
}

fn topics(page: &mut Page, look: &Look) {
    let mut by_topic: BTreeMap<&str, Vec<&PartitionFacts>> = BTreeMap::new();
    for found in look.shards.iter().flat_map(|shard| &shard.partitions) {
        if let Some(topic) = &found.topic {
            by_topic.entry(topic).or_default().push(found);
        }
    }
    let mut partitions = gauge("redpanda_kafka_partitions", "Partitions of a topic");
    let mut replicas = gauge("redpanda_kafka_replicas", "Replicas of each partition of a topic");
    let mut end = gauge("redpanda_kafka_max_offset", "The high watermark");
    let mut behind = gauge("redpanda_kafka_under_replicated_replicas", "Replicas that are behind");
    let mut produced = counter("redpanda_kafka_records_produced_total", "Records produced");
    let mut bytes = counter("redpanda_kafka_request_bytes_total", "Bytes of batches produced or consumed");
    for (topic, all) in &by_topic {
        let name = [NAMESPACE, ("redpanda_topic", *topic)];
        partitions.value(&name, all.len() as f64);
        replicas.value(&name, 1.0);
        produced.value(&name, all.iter().map(|found| found.traffic.produced_records).sum::<u64>() as f64);
        let sums = [
            ("produce", all.iter().map(|found| found.traffic.produced_bytes).sum::<u64>()),
            ("consume", all.iter().map(|found| found.traffic.fetched_bytes).sum::<u64>()),
        ];
        for (request, sum) in sums {
            bytes.value(&[NAMESPACE, ("redpanda_topic", topic), ("redpanda_request", request)], sum as f64);
        }
        for found in all {
            let index = found.index.to_string();
            let labels = [NAMESPACE, ("redpanda_topic", *topic), ("redpanda_partition", index.as_str())];
            end.value(&labels, found.high_watermark as f64);
            behind.value(&labels, 0.0);
        }
    }
    for family in [partitions, replicas, end, behind, produced, bytes] {
        page.add(family);
    }
}

fn requests(page: &mut Page, look: &Look) {
    let mut latency = histogram("redpanda_kafka_request_latency_seconds", "From when a request had come whole until it was answered");
    let mut handler = histogram("redpanda_kafka_handler_latency_seconds", "The same, of every kind of request");
    let mut errors =
        counter("redpanda_rpc_request_errors_total", "Partitions of Produce and Fetch, and whole requests, answered with an error");
    let mut failed = 0;
    for request in look.requests() {
        let known = match request.name {
            "Produce" => Some("produce"),
            "Fetch" => Some("consume"),
            _ => None,
        };
        if let Some(name) = known {
            latency.counted(&[("redpanda_request", name)], &request.latency);
        }
        handler.counted(&[("handler", request.name)], &request.latency);
        failed += request.errors.iter().map(|(_, count)| count).sum::<u64>();
    }
    errors.value(&[("redpanda_server", "kafka")], failed as f64);
    for family in [latency, handler, errors] {
        page.add(family);
    }
}

fn groups(page: &mut Page, look: &Look) {
    let mut consumers = gauge("redpanda_kafka_consumer_group_consumers", "Members of a consumer group");
    let mut read = gauge("redpanda_kafka_consumer_group_topics", "Topics that a consumer group has committed offsets of");
    for found in look.shards.iter().flat_map(|shard| &shard.groups) {
        let labels = [("redpanda_group", found.group.as_str())];
        consumers.value(&labels, found.members as f64);
        let names: BTreeSet<&str> = found.offsets.iter().map(|(topic, ..)| topic.as_str()).collect();
        read.value(&labels, names.len() as f64);
    }
    let mut committed = gauge("redpanda_kafka_consumer_group_committed_offset", "The offset that a consumer group has committed");
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let lags = look.lags();
    for found in &lags {
        let partition = found.partition.to_string();
        let labels = [("redpanda_group", found.group), ("redpanda_topic", found.topic), ("redpanda_partition", partition.as_str())];
        committed.value(&labels, found.committed as f64);
        let lag = found.lag.unwrap_or(0);
        let (sum, most) = sums.entry(found.group).or_default();
        (*sum, *most) = (*sum + lag, lag.max(*most));
    }
    let mut sum_of = untyped("redpanda_kafka_consumer_group_lag_sum", "Records behind a consumer group's committed offsets, together");
    let mut most_of =
        gauge("redpanda_kafka_consumer_group_lag_max", "Records behind a consumer group's committed offset, the most of one partition");
    for (group, (sum, most)) in sums {
        sum_of.value(&[("redpanda_group", group)], sum as f64);
        most_of.value(&[("redpanda_group", group)], most as f64);
    }
    for family in [consumers, read, committed, sum_of, most_of] {
        page.add(family);
    }
}
