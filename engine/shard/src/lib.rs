//! One loop per core: joins log, raftlog, state and io.
