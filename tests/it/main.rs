//! The integration tests: whole loops over real clients, one binary so that it links once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ad;
mod inference;
mod peers;
mod s3_server;
mod service;
