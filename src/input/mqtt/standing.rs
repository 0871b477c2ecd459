//! What an MQTT input must know after a restart: who it is to the broker, and what it asked for.
//!
//! Guarantees: the id is made once and stays; a filter is noted before it is subscribed, so that none outlives its configuration
//! unseen. A file that is lost or cannot be read costs what the broker has queued for the old id, and that is told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The file's name.
const NAME: &str = "session.json";

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The id of the session.
    pub id: String,
    /// The broker it is with; empty: none has been reached yet.
    pub broker: String,
    /// The filters that may be subscribed there.
    pub filters: Vec<String>,
}

impl Standing {
    /// What is known in a directory, with the id that is configured or one that is made; the second says what was wrong with the file.
    pub fn load(directory: &Path, id: &str) -> (Self, Option<String>) {
        let (mut standing, problem) = match fs::read(directory.join(NAME)) {
            Ok(bytes) => match serde_json::from_slice::<Standing>(&bytes) {
                Ok(standing) => (standing, None),
                Err(error) => (Standing::default(), Some(error.to_string())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Standing::default(), None),
            Err(error) => (Standing::default(), Some(error.to_string())),
        };
        let wanted = match id {
            "" if standing.id.starts_with(PREFIX) => standing.id.clone(),
            "" => made_up(),
            id => id.to_owned(),
        };
        if standing.id != wanted {
            standing = Standing {
                id: wanted,
                ..Standing::default()
            };
        }
        (standing, problem)
    }

    /// Makes it durable.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        let whole = directory.join(NAME);
        let part = directory.join("session.json.part");
        let mut file = File::create(&part)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&part, &whole)?;
        File::open(directory)?.sync_all()
    }
}

/// Begins every id that is made; MQTT 3.1.1 promises 23 letters and digits.
const PREFIX: &str = "lookoutd";

fn made_up() -> String {
    let digits = fastrand::u64(..) & ((1 << 60) - 1);
    format!("{PREFIX}{digits:015x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once_and_a_broken_file_makes_another() {
        let directory = tempfile::tempdir().unwrap();
        let (first, problem) = Standing::load(directory.path(), "");
        assert_eq!((first.id.len(), problem), (23, None));
        first.save(directory.path()).unwrap();
        assert_eq!(Standing::load(directory.path(), ""), (first.clone(), None));
        // One that is configured is another session, of which nothing is known.
        let (named, _) = Standing::load(directory.path(), "gateway-1");
        assert_eq!((named.id.as_str(), named.filters.len()), ("gateway-1", 0));
        fs::write(directory.path().join(NAME), b"{\"id\":").unwrap();
        let (other, problem) = Standing::load(directory.path(), "");
        assert!(problem.is_some() && other.id != first.id);
    }
}
