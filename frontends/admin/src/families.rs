//! Metric families in Prometheus' text format, written by the `prometheus` crate from what a look has found.

use millrace_shard::observe::{BOUNDS_NS, Histogram};
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Label names and values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page that is being put together.
#[derive(Default)]
pub struct Page {
    families: Vec<MetricFamily>,
    untyped: Vec<&'static str>,
}

/// One family, to be given its metrics.
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    metrics: Vec<Metric>,
}

pub fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::COUNTER, metrics: Vec::new() }
}

pub fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::GAUGE, metrics: Vec::new() }
}

/// A gauge whose name belongs to another kind by Prometheus' rules: Redpanda's `..._lag_sum`. Only without a type may it be called so.
pub fn untyped(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::UNTYPED, metrics: Vec::new() }
}

pub fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::HISTOGRAM, metrics: Vec::new() }
}

impl Family {
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The value of a counter or gauge.
    pub fn value(&mut self, labels: Labels<'_>, value: f64) {
        let mut metric = labelled(labels);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// What a histogram has counted.
    pub fn counted(&mut self, labels: Labels<'_>, found: &Histogram) {
        let mut metric = labelled(labels);
        let mut below = 0;
        let bucket = |(count, bound): (&u64, &u64)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(below);
            bucket.set_upper_bound(seconds(*bound));
            bucket
        };
        let buckets: Vec<Bucket> = found.counts.iter().zip(&BOUNDS_NS).map(bucket).collect();
        let mut written = prometheus::proto::Histogram::default();
        written.set_bucket(buckets);
        written.set_sample_count(found.count());
        written.set_sample_sum(seconds(found.sum_ns));
        metric.set_histogram(written);
        self.metrics.push(metric);
    }
}

/// Nanoseconds as seconds.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn labelled(labels: Labels<'_>) -> Metric {
    let label = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut metric = Metric::default();
    metric.set_label(labels.iter().map(label).collect());
    metric
}

impl Page {
    /// Takes a family in, if it has anything to tell.
    pub fn add(&mut self, mut family: Family) {
        if family.metrics.is_empty() {
            return;
        }
        let mut written = MetricFamily::default();
        written.set_name(family.name.to_owned());
        written.set_help(family.help.to_owned());
        if family.kind == MetricType::UNTYPED {
            self.untyped.push(family.name);
            family.kind = MetricType::GAUGE; // the encoder knows no other
        }
        written.set_field_type(family.kind);
        written.set_metric(family.metrics);
        self.families.push(written);
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.families, &mut text) {
            // Only a family without metrics or a wrong type is refused, and there is neither.
            text = format!("# {error}\n");
        }
        for name in &self.untyped {
            text = text.replace(&format!("# TYPE {name} gauge\n"), &format!("# TYPE {name} untyped\n"));
        }
        text
    }
}
