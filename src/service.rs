//! The Lookout-compatible service: protocol, state, operations and the runner that scores windows.

use serde::{Deserialize, Serialize};

/// Where the embedded parts listen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address of the Lookout-compatible API.
    pub listen: String,
    /// Address of the embedded S3.
    pub s3_listen: String,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9180".into(),
            s3_listen: "127.0.0.1:9190".into(),
        }
    }
}
