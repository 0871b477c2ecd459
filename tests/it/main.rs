//! The integration tests, one binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ad;
mod peers;
mod s3_server;
mod service;
