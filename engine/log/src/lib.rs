//! One partition's segments and indexes; the journal; recovery.
