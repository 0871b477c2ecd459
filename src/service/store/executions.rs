//! The rows of executions.
