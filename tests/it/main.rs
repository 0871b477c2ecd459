//! Whole parts against real clients and real peers. One binary, so that it is linked once.
//!
//! What needs something that may be absent (a peer, a Python, the shared data) skips loudly and says which environment
//! variable provides it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and tests measure real time"
)]

mod ad;
mod admin;
mod assets;
mod awsclients;
mod backlog;
mod backup;
mod chaos;
mod commands;
mod configure;
mod corpus;
mod crash;
mod damage;
mod diag;
mod differential;
mod disk;
mod docs;
mod errors;
mod faults;
mod feeder;
mod fleet;
mod golden;
mod imports;
mod inference;
mod journal;
mod judgement;
mod listing;
mod live;
mod model;
mod mqtt;
mod notify;
mod peers;
mod plant_pages;
mod preload;
mod proxy;
mod quirks;
mod restarts;
mod rig;
mod s3_server;
mod security;
mod service;
mod sim;
mod skipped;
mod store;
mod strangers;
mod time;
mod tls;
mod training;
mod wire;
