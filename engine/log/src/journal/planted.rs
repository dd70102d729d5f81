//! Bugs that the checker must convict: a checker that has caught none is no evidence.
//!
//! Without the feature `planted` every switch is a constant `false` and nothing of this is left in a build.

/// One planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// An opening goes on with the incarnation of the one before, so a tail that was cut can come back.
    KeepIncarnation,
    /// The latest completed write counts as durable, whatever is missing before it.
    AcknowledgeOutOfOrder,
    /// Entries never state what was synced.
    SkipSynced,
    /// A file is free as soon as its entries are released, before a durable entry says so.
    ReuseEarly,
    /// An opening serves what it read without syncing it.
    ServeUnsynced,
    /// Bytes are not compared with their CRC at recovery.
    IgnoreCrc,
    /// Entries count without following on the one before.
    IgnoreChain,
}

#[cfg(feature = "planted")]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants `bug` for this thread, or none.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(feature = "planted")]
pub(super) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(feature = "planted"))]
pub(super) const fn is_planted(_: Bug) -> bool {
    false
}
