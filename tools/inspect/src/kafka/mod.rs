//! Directories that Apache Kafka wrote, and single folders of segments: no journal speaks of them, every file speaks for itself.

pub mod check;
pub mod directory;
pub mod formats;
pub mod list;
pub mod show;
