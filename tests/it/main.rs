//! The integration tests: whole loops over real clients, one binary so that it links once.

mod peers;
