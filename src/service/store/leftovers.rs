//! Files beside the database: what is announced, what is swept, and what is only reported.
//!
//! Guarantees: a file is removed only if the database proves that this service made or gave it up (`leftover`), or if it is
//! the unfinished work of a job that is over. Whatever else lies there stays: a database that was lost, or put back from an
//! older backup, takes no model with it. What is made is announced as given up before it gets its name, and taken off that
//! list by the transaction that refers to it, so that no crash leaves a file that nobody knows.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{Store, StoreError, takeover};
use crate::hold;
use crate::service::faults::Fault;
use crate::service::files::{Files, Folder, Staged, maker};

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

/// Indexes that datasets hold, and that an import or a training is reading.
const INDEXES_KEPT: &str = "SELECT file FROM ingestion_job WHERE file IS NOT NULL
    UNION SELECT dataset_file FROM model_version WHERE status = 'IN_PROGRESS' AND dataset_file IS NOT NULL";
const MODELS_KEPT: &str = "SELECT file FROM model_version WHERE file IS NOT NULL";
/// Where a version's file could not be taken over from an earlier layout, the name it had there.
const MODELS_NEEDED: &str = "SELECT coalesce(file, model_uuid || '-' || version || '.model') FROM model_version WHERE status = 'SUCCESS'";
/// Whose unfinished work is being made.
const MAKERS: &str = "SELECT id FROM ingestion_job WHERE status LIKE '%IN_PROGRESS'
    UNION SELECT model_uuid || '-' || version FROM model_version WHERE status LIKE '%IN_PROGRESS'";

impl Store {
    /// Removes what this service gave up, and says what else lies there without being known.
    pub async fn sweep(&self) -> Result<Swept, Fault> {
        let files = self.files.clone();
        let swept = self.transact(move |db| {
            let mut swept = Swept::default();
            if hold::is_held(files.root()) {
                return Ok(swept);
            }
            let makers = names(db, MAKERS)?;
            for folder in [Folder::Datasets, Folder::Models] {
                let kept = kept(db, folder)?;
                let given_up = names(
                    db,
                    &format!(
                        "SELECT name FROM leftover WHERE folder = '{}'",
                        folder.name()
                    ),
                )?;
                for path in entries(&files.folder(folder)) {
                    let name = path
                        .file_name()
                        .map(|name| name.to_string_lossy().into_owned())
                        .unwrap_or_default();
                    if kept.contains(&name) {
                        continue;
                    }
                    let unfinished = match maker(&name) {
                        Some(maker) if makers.contains(maker) => continue,
                        Some(_) => true,
                        // What earlier builds called it.
                        None => folder == Folder::Models && name.ends_with(".tmp"),
                    };
                    if !(unfinished || given_up.contains(&name)) {
                        swept.unknown.push(path);
                    } else if remove(&path).is_ok() {
                        swept.removed += 1;
                    }
                }
                // What cannot be removed is tried again next time; what is being made may be announced and not there yet.
                for name in given_up
                    .iter()
                    .filter(|name| makers.is_empty() && !files.path(folder, name).exists())
                {
                    db.execute(
                        "DELETE FROM leftover WHERE folder = ?1 AND name = ?2",
                        [folder.name(), name],
                    )?;
                }
            }
            db.execute(
                &format!("DELETE FROM dataset_part WHERE file NOT IN ({INDEXES_KEPT})"),
                [],
            )?;
            let needed = names(db, MODELS_NEEDED)?;
            let gone = needed.iter().map(|name| files.path(Folder::Models, name));
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

    /// Notes names that files are about to get, so that they are swept if nothing comes to refer to them.
    pub(super) async fn announce(
        &self,
        folder: Folder,
        names: impl Iterator<Item = &str>,
    ) -> Result<(), Fault> {
        let names: Vec<String> = names.map(str::to_owned).collect();
        self.transact(move |db| {
            for name in names {
                db.execute(
                    "INSERT OR IGNORE INTO leftover (folder, name) VALUES (?1, ?2)",
                    [folder.name(), &name],
                )?;
            }
            Ok(())
        })
        .await
    }
}

/// Puts `staged` in its place, in the transaction that refers to it by its name: a sweep comes before or after both.
pub(super) fn place(db: &Connection, files: &Files, staged: &Staged) -> Result<(), Fault> {
    files.place(staged).map_err(|error| {
        tracing::error!(folder = staged.folder.name(), name = staged.name, %error, "a file was not put in its place");
        Fault::internal()
    })?;
    takeover::insert_parts(db, staged)?;
    for name in staged.names() {
        db.execute(
            "DELETE FROM leftover WHERE folder = ?1 AND name = ?2",
            [staged.folder.name(), name],
        )?;
    }
    Ok(())
}

/// How many model files and ingested datasets lie in a state directory.
pub fn kept_beside(directory: &Path) -> (usize, usize) {
    let models = entries(&directory.join(Folder::Models.name()));
    let is_model = |path: &&PathBuf| path.extension().is_some_and(|it| it == "model");
    let datasets = entries(&directory.join(Folder::Datasets.name()));
    // Each has one index, or one directory in the layout of earlier builds; unfinished work is no dataset.
    let is_dataset = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        maker(&name).is_none() && path.extension().is_none_or(|it| it != "rows")
    };
    (
        models.iter().filter(is_model).count(),
        datasets.iter().filter(is_dataset).count(),
    )
}

fn kept(db: &Connection, folder: Folder) -> rusqlite::Result<HashSet<String>> {
    match folder {
        Folder::Models => names(db, MODELS_KEPT),
        Folder::Datasets => {
            let parts = format!("SELECT part FROM dataset_part WHERE file IN ({INDEXES_KEPT})");
            let mut kept = names(db, INDEXES_KEPT)?;
            kept.extend(names(db, &parts)?);
            Ok(kept)
        }
    }
}

/// Files that the state in `directory` refers to, and that are gone or not what their names say.
pub fn unlike(directory: &Path) -> Result<Vec<String>, StoreError> {
    let path = directory.join("state.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let files = Files::new(directory);
    let look = || -> rusqlite::Result<Vec<String>> {
        let db = Connection::open_with_flags(&path, flags)?;
        let mut unlike = Vec::new();
        for folder in [Folder::Models, Folder::Datasets] {
            for name in kept(&db, folder)? {
                if !files.is_whole(folder, &name) {
                    unlike.push(format!("service/{}/{name}", folder.name()));
                }
            }
        }
        unlike.sort();
        Ok(unlike)
    };
    look().map_err(|source| StoreError::of(&path, source))
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
