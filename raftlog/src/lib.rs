//! The consensus core: pure.
