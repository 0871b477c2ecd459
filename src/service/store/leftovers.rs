//! Files beside the database: what is swept, and what is only reported.
//!
//! Guarantees: a file is removed only if the database proves that this service gave it up (a deleted model or dataset, rows
//! that a later ingestion replaced, the rows of a failed attempt), or if it is an unfinished temporary of a model file.
//! Whatever else lies there stays: a database that was lost, or put back from an older backup, takes no model with it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::Store;
use crate::service::faults::Fault;

/// What a sweep did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files and directories that were removed.
    pub removed: usize,
    /// What nothing refers to and nothing proves to be given up: it stays.
    pub unknown: Vec<PathBuf>,
    /// Model files that a finished version needs and that are not there.
    pub missing: Vec<PathBuf>,
}

/// What datasets hold, and what an ingestion, a training or an import is reading or writing.
const ROWS_KEPT: &str = "SELECT job_id FROM dataset WHERE job_id IS NOT NULL
    UNION SELECT id FROM ingestion_job WHERE status LIKE '%IN_PROGRESS'
    UNION SELECT source_job FROM ingestion_job WHERE status LIKE '%IN_PROGRESS' AND source_job IS NOT NULL
    UNION SELECT dataset_job FROM model_version WHERE status = 'IN_PROGRESS' AND dataset_job IS NOT NULL";
const ROWS_GIVEN_UP: &str =
    "SELECT id FROM ingestion_job UNION SELECT name FROM leftover WHERE folder = 'datasets'";
const MODELS_KEPT: &str = "SELECT model_uuid || '-' || version || '.model' FROM model_version
    UNION SELECT model_uuid || '-' || version || '.tmp' FROM model_version WHERE status LIKE '%IN_PROGRESS'
    UNION SELECT source_file || '.model' FROM model_version
          WHERE status LIKE '%IN_PROGRESS' AND source_file IS NOT NULL";
const MODELS_GIVEN_UP: &str = "SELECT name FROM leftover WHERE folder = 'models'";
const MODELS_NEEDED: &str =
    "SELECT model_uuid || '-' || version || '.model' FROM model_version WHERE status = 'SUCCESS'";

impl Store {
    /// Removes what this service gave up, and says what else lies there without being known.
    pub async fn sweep(&self) -> Result<Swept, Fault> {
        let directory = self.directory.clone();
        let swept = self.transact(move |db| {
            let mut swept = Swept::default();
            for (folder, kept, given_up) in [
                ("datasets", ROWS_KEPT, ROWS_GIVEN_UP),
                ("models", MODELS_KEPT, MODELS_GIVEN_UP),
            ] {
                let (kept, given_up) = (names(db, kept)?, names(db, given_up)?);
                let folder_path = directory.join(folder);
                for path in entries(&folder_path) {
                    let name = path
                        .file_name()
                        .map(|name| name.to_string_lossy().into_owned())
                        .unwrap_or_default();
                    if kept.contains(&name) {
                        continue;
                    }
                    let unfinished = folder == "models" && name.ends_with(".tmp");
                    if !(unfinished || given_up.contains(&name)) {
                        swept.unknown.push(path);
                    } else if remove(&path).is_ok() {
                        swept.removed += 1;
                    }
                }
                // What cannot be removed is tried again next time.
                for name in given_up
                    .iter()
                    .filter(|name| !folder_path.join(name).exists())
                {
                    db.execute(
                        "DELETE FROM leftover WHERE folder = ?1 AND name = ?2",
                        [folder, name],
                    )?;
                }
            }
            let models = directory.join("models");
            let needed = names(db, MODELS_NEEDED)?;
            let gone = needed.iter().map(|name| models.join(name));
            swept.missing = gone.filter(|path| !path.exists()).collect();
            swept.missing.sort();
            Ok(swept)
        });
        let swept = swept.await?;
        if swept.removed > 0 {
            tracing::info!(removed = swept.removed, "files that were given up removed");
        }
        Ok(swept)
    }
}

/// How many model files and ingested datasets lie in a state directory.
pub fn kept_beside(directory: &Path) -> (usize, usize) {
    let models = entries(&directory.join("models"));
    let is_model = |path: &&PathBuf| path.extension().is_some_and(|it| it == "model");
    let datasets = entries(&directory.join("datasets"));
    (models.iter().filter(is_model).count(), datasets.len())
}

fn names(db: &Connection, query: &str) -> rusqlite::Result<HashSet<String>> {
    db.prepare(query)?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// The entries of a directory by name; none where it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = read.map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}
