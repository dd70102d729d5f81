//! Bugs that a checker must convict: a checker that has caught none is no evidence.
//!
//! Each is a switch at the place where the code would be wrong. A test plants one for its own thread, and demands that a named check finds
//! it: `engine/log/tests/journal_planted.rs` for the journal alone, `tools/sim/tests/planted_bugs.rs` for the whole broker.
//!
//! Invariants: without the feature `planted` every switch is the constant `false`, and nothing of this is left in a build.

/// One planted bug.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bug {
    // The journal.
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
    /// Bytes of an entry are not compared with their CRC at recovery.
    IgnoreCrc,
    /// Entries count without following on the one before.
    IgnoreChain,
    /// Entries are written without a sync.
    SkipEntrySync,
    /// The journal is released although batches and states in it stand nowhere else.
    ReleaseTooMuch,

    // Segments and direct appends.
    /// A checkpoint's write is taken for durable without a sync.
    SkipSegmentSync,
    /// Files and folders get their names without a sync of the folder above.
    SkipDirectorySync,
    /// A sync that fails is taken for one that went well.
    IgnoreSyncError,
    /// A synced write whose sync fails is taken for one that went well.
    IgnoreSettleError,
    /// A write of the journal that fails is taken for one that went well.
    IgnoreWriteError,
    /// A checkpoint is acted upon, and never stated in the journal.
    LoseCheckpoint,
    /// The core is told of a journal entry although direct appends before it are not durable.
    IgnoreDirects,
    /// The blocks of a direct append are not compared with their CRC at recovery.
    IgnoreExtentCrc,
    /// What recovery cuts off a log with a torn direct append is not stated.
    ForgetTruncation,

    // Acknowledgements and bounds.
    /// A produce is answered when it is appended.
    AnswerEarly,
    /// A duplicate is answered before the first copy is committed.
    AnswerDuplicateEarly,
    /// Readers are given what is not committed.
    ReadUncommitted,
    /// A batch gets the offset of the one before it in the same turn.
    ReuseOffset,
    /// Retention takes one segment more than is due.
    RetainTooLittle,
    /// Retention takes nothing.
    SkipRetention,
    /// A group's commit is answered when it is appended.
    AnswerCommitEarly,

    // Producers.
    /// Recovery knows no producers but those of the journal's last entries.
    ForgetProducers,
    /// A checkpoint states no producers.
    ForgetSequence,
    /// A state beside its file does not say which producers have changed since the file was written.
    ForgetBehindFile,
    /// Only the last batch of a producer is remembered.
    RememberOne,
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
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(feature = "planted"))]
pub const fn is_planted(_: Bug) -> bool {
    false
}
