//! The integration tests: whole loops against real clients, real files and the programs we are compared with.

// Clippy's exception for tests covers test functions only, not what they share.
#![allow(clippy::unwrap_used)]

mod golden;
