//! Listeners and who may speak on them.
