//! Kafka's rules for topic names.
//!
//! Knows nothing of topics that exist.

use millrace_base::limits::TOPIC_NAME_BYTES_MAX;

/// The topics that the broker keeps for itself.
pub const INTERNAL: &[&str] = &["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Is it one of the broker's own topics? Clients may not create, delete or write caching on them.
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// What is wrong with the name, in words, or None.
pub fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("the name is empty");
    }
    if name == "." || name == ".." {
        return Some("the name is '.' or '..'");
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Some("the name is longer than 249 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return Some("the name has characters other than ASCII letters, digits, '.', '_' and '-'");
    }
    None
}

/// The name as it stands in the names of metrics, where '.' and '_' are the same: Kafka refuses a topic that would share it with another.
pub(super) fn in_metrics(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_kafka_does() {
        for good in ["a", "A.b_c-9", "...", &"x".repeat(249), "__consumer_offsets"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in ["", ".", "..", &"x".repeat(250), "a b", "a/b", "ä", "a\0"] {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn dots_and_underscores_are_the_same_in_metrics() {
        assert_eq!(in_metrics("a.b_c"), in_metrics("a_b.c"));
        assert_ne!(in_metrics("a.b"), in_metrics("a-b"));
    }
}
