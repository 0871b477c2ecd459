//! Whole parts against real clients and real peers. One binary, so that it is linked once.
//!
//! What needs something that may be absent (a peer, a Python, the shared data) skips loudly and says which environment
//! variable provides it.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod ad;
mod admin;
mod golden;
mod peers;
mod s3_server;
mod service;
