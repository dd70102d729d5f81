//! Latencies counted in buckets whose width follows their value.
//!
//! 1. Values below 2^7 ns have a bucket each; above, every power of two is cut into 64 buckets of equal width.
//! 2. A quantile is the highest value of the bucket in which it falls, so it is never too small and at most 1/64 too large.
//!
//! The maximum is kept exactly. A histogram takes 30 KB whatever it counts, and two of them add up.
//!
//! Invariants: count = sum of the buckets; quantile(a) <= quantile(b) for a <= b; no quantile is above the maximum.

use std::time::Duration;

const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB;

pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max_ns: u64,
}

fn bucket(value: u64) -> usize {
    let shift = (63 - (value | 1).leading_zeros()).saturating_sub(SUB_BITS);
    (shift as usize) * SUB + (value >> shift) as usize
}

/// The highest value that falls into a bucket.
fn highest(bucket: usize) -> u64 {
    let shift = (bucket / SUB).saturating_sub(1) as u32;
    let head = (bucket - shift as usize * SUB) as u64;
    (head << shift) | ((1 << shift) - 1)
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    pub fn new() -> Histogram {
        Histogram { buckets: vec![0; BUCKETS], count: 0, max_ns: 0 }
    }

    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    pub fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The smallest bucket end that at least `share` of all values do not exceed; zero when there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        assert!((0.0..=1.0).contains(&share));
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(highest(i).min(self.max_ns));
            }
        }
        self.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::prng::Prng;

    #[test]
    fn every_value_lies_in_its_bucket_and_no_bucket_is_wider_than_a_64th() {
        let mut prng = Prng::new(7);
        let random = (0..10_000).map(|_| prng.next_u64() >> prng.clone().below(64));
        for value in (0..1000).chain([u64::MAX, u64::MAX - 1, 1 << 63]).chain(random.collect::<Vec<_>>()) {
            let end = highest(bucket(value));
            assert!(end >= value, "{value} is above its bucket's end {end}");
            assert!(end - value <= value / SUB as u64, "{value} counts as {end}");
            assert!(bucket(end) == bucket(value));
            assert!(end == u64::MAX || bucket(end + 1) == bucket(value) + 1, "buckets leave no gap behind {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_a_sorted_list_within_a_64th() {
        let mut prng = Prng::new(1);
        let mut values: Vec<u64> = (0..5000).map(|_| 50_000 + prng.below(10_000_000)).collect();
        let (mut one, mut two) = (Histogram::new(), Histogram::new());
        for (i, value) in values.iter().enumerate() {
            if i % 3 == 0 { &mut one } else { &mut two }.record(Duration::from_nanos(*value));
        }
        one.add(&two);
        values.sort_unstable();
        for share in [0.0f64, 0.5, 0.99, 0.999, 1.0] {
            let exact = values[((5000.0 * share).ceil() as usize).max(1) - 1];
            let found = one.quantile(share).as_nanos() as u64;
            assert!(found >= exact && found <= exact + exact / 64, "{share}: {found} for {exact}");
        }
        assert_eq!((one.count(), one.max()), (5000, Duration::from_nanos(values[4999])));
    }

    #[test]
    fn an_empty_histogram_has_only_zeros() {
        assert_eq!(Histogram::new().quantile(0.99), Duration::ZERO);
    }
}
