//! lookoutd: feeds sensor data to S3 on a wall-clock cadence, keeps the inference scheduler that reads it,
//! archives the results, and answers the same API itself where there is no cloud. `ARCHITECTURE.md` is the map.
//!
//! The modules are the stations of one straight line: source, feed, S3, inference; beside it the service and its model.

pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod daemon;
pub mod disk;
pub mod embedded;
pub mod executions;
pub mod feed;
pub mod hold;
pub mod inference;
pub mod input;
pub mod journal;
pub mod model;
pub mod notify;
pub mod ops;
pub mod records;
pub mod s3;
pub mod sample;
pub mod service;
pub mod signal;
pub mod source;
pub mod store;
pub mod vitals;

#[cfg(test)]
#[path = "../tests/it/skipped.rs"]
#[expect(dead_code, reason = "the tests of the library lack less than others")]
mod skipped;
