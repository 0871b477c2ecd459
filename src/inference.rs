//! The client half of inference: the wanted scheduler, its executions, their results, the archive.

use serde::{Deserialize, Serialize};

/// The inference scheduler that reads the input files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

impl Config {
    /// What is wrong with the values: key and problem.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
