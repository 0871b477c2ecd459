//! The integration tests: whole loops against real clients, real files and the programs we are compared with.

mod golden;
