//! Replicated state machines: pure.
