//! The integration tests: whole loops over real clients, one binary so that it links once.

mod crash;
mod disk;
mod errors;
mod faults;
mod peers;
mod proxy;
mod rig;
mod time;
