//! The service's durable state: one SQLite database (write-ahead log), and models and datasets beside it (`super::files`).
//!
//! Guarantees: a transaction that was committed survives a crash of the process or the machine (`synchronous = FULL`);
//! the schema moves forward by numbered migrations (`user_version`) and a database of a newer build is refused. All
//! access goes through one connection on the blocking pool, so that a transaction never interleaves with another.
//!
//! Each function of the modules below is one whole transaction; no connection leaves them. What is asked and told are plain
//! structures, states are enums with their SQL forms, so that another database can stand behind the same functions. A
//! refusal that depends on the state (a taken name, a quota) is made here, where it cannot change any more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::faults::Fault;
use super::files::Files;
use crate::disk::clean::CleanStop;

pub mod datasets;
pub mod events;
pub mod executions;
pub mod imports;
pub mod ingestion;
pub mod labels;
mod leftovers;
pub mod making;
pub mod models;
mod once;
mod opening;
pub mod past;
pub mod policies;
pub mod reading;
mod registering;
pub mod retraining;
pub mod schedulers;
pub mod tags;
mod takeover;
pub mod transitions;
pub mod versions;
mod words;

pub use leftovers::{Swept, unlike};
pub use once::Once;
pub use opening::examine;
pub use registering::{NewModel, schema_json, with_range};

/// Forward migrations; the database's `user_version` counts how many were applied.
const MIGRATIONS: [&str; 9] = [
    include_str!("store/0001_inference.sql"),
    include_str!("store/0002_training.sql"),
    include_str!("store/0003_leftovers.sql"),
    include_str!("store/0004_tokens.sql"),
    include_str!("store/0005_failures.sql"),
    include_str!("store/0006_files.sql"),
    include_str!("store/0007_past.sql"),
    include_str!("store/0008_scores.sql"),
    include_str!("store/0009_configurations.sql"),
];
/// The migration that gives files of earlier builds their names.
const FILES: usize = 5;

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be created or written.
    #[error("cannot create the state directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The database is gone, but what it described is there.
    #[error(
        "the state database {path} is missing or empty, but {models} model files and {datasets} ingested datasets lie \
         beside it: nothing was started or removed. Put state.db (and state.db-wal, if there is one) back from a backup; or \
         move models, datasets and any state.db-wal away to begin with an empty state, and take each model up again with \
         `lookoutd model register FILE --name NAME`"
    )]
    Lost {
        /// The database file.
        path: PathBuf,
        /// Model files beside it.
        models: usize,
        /// Ingested datasets beside it.
        datasets: usize,
    },
    /// The database does not hold what was written.
    #[error(
        "the state database {path} is damaged: {what}. Nothing was started or changed. Put it back from a backup, without \
         the state.db-wal that lies there; or move it, models and datasets away to begin with an empty state, and take each \
         model up again with `lookoutd model register FILE --name NAME`"
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// SQLite refused.
    #[error("cannot open the state database {path}: {source}")]
    Database {
        /// The database file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// The database was written by a newer build.
    #[error(
        "the state database {path} has schema {found}, this build knows {known}: start the newer lookoutd again, or \
         restore the backup made before the upgrade"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its schema number.
        found: usize,
        /// The newest schema this build knows.
        known: usize,
    },
}

impl StoreError {
    fn of(path: &Path, source: rusqlite::Error) -> Self {
        let damage = matches!(
            source.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
        ) || matches!(source, rusqlite::Error::SqlInputError { .. })
            // A schema that SQLite cannot read, such as "unsupported file format", has no code of its own.
            || source.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_ERROR);
        let path = path.to_owned();
        match damage {
            true => Self::Damaged {
                path,
                what: source.to_string(),
            },
            false => Self::Database { path, source },
        }
    }
}

/// The state. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    // Dropped after the connection, with which the database is closed.
    stop: Arc<CleanStop>,
    files: Files,
}

impl Store {
    /// Opens or creates the state under `directory` and brings its schema up to date.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        Store::open_with(directory, Files::new(directory))
    }

    /// As [`Store::open`], with the files on a disk of the caller's choice.
    pub fn open_with(directory: &Path, files: Files) -> Result<Store, StoreError> {
        let path = directory.join("state.db");
        opening::refuse_if_lost(&path, directory)?;
        files.prepare().map_err(|source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let wrap = |source| StoreError::of(&path, source);
        let clean = CleanStop::was(&path);
        let mut connection = Connection::open(&path).map_err(wrap)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                 PRAGMA busy_timeout = 5000;",
            )
            .map_err(wrap)?;
        let found: usize = connection
            .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
            .map(|version| usize::try_from(version).unwrap_or(usize::MAX))
            .map_err(wrap)?;
        if found > MIGRATIONS.len() {
            return Err(StoreError::Newer {
                path,
                found,
                known: MIGRATIONS.len(),
            });
        }
        if !clean {
            opening::refuse_if_damaged(&connection, &path)?;
        }
        opening::refuse_if_emptied(found, &path, directory)?;
        if (1..MIGRATIONS.len()).contains(&found) {
            opening::keep_copy(&connection, &path, found).map_err(wrap)?;
        }
        for (index, migration) in MIGRATIONS.iter().enumerate().skip(found) {
            let transaction = connection.transaction().map_err(wrap)?;
            transaction.execute_batch(migration).map_err(wrap)?;
            if index == FILES {
                takeover::take_over(&transaction, &files).map_err(wrap)?;
            }
            transaction
                .pragma_update(None, "user_version", index as i64 + 1)
                .map_err(wrap)?;
            transaction.commit().map_err(wrap)?;
        }
        if !clean || found < MIGRATIONS.len() {
            opening::refuse_if_odd(&connection, &path)?;
            opening::tell_if_odd_alone(&connection, &path).map_err(wrap)?;
        }
        Ok(Store {
            connection: Arc::new(Mutex::new(connection)),
            stop: Arc::new(CleanStop::of(&path)),
            files,
        })
    }

    /// Runs `work` in one transaction on the blocking pool. It is committed if `work` succeeds. Nobody outside this module
    /// gets a connection.
    async fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let store = self.clone();
        let joined = tokio::task::spawn_blocking(move || {
            // A panic elsewhere cannot leave a half-done transaction behind: SQLite rolled it back on drop.
            let mut connection = store
                .connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let done = in_one(&mut connection, work);
            if let Err(fault) = &done
                && fault.status >= 500
            {
                store.stop.distrust();
            }
            done
        });
        joined.await.unwrap_or_else(|error| {
            tracing::error!(error = %error, "state transaction panicked");
            Err(Fault::internal())
        })
    }

    /// Models and datasets, which lie beside the database.
    pub fn files(&self) -> &Files {
        &self.files
    }
}

/// One transaction, committed if `work` succeeds.
fn in_one<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let outcome = work(&transaction)?;
    transaction.commit()?;
    Ok(outcome)
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        tracing::error!(error = %error, "state database failed");
        Fault::internal()
    }
}

/// What was read of a row, or why this build does not understand it; a failure of the database stays one. For the rows of many
/// that are read together, of which none is to stop the others.
fn understood<T>(read: rusqlite::Result<T>) -> rusqlite::Result<Result<T, String>> {
    use rusqlite::Error;
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(Error::FromSqlConversionFailure(_, _, problem)) => Ok(Err(problem.to_string())),
        Err(error @ (Error::InvalidColumnType(..) | Error::IntegralValueOutOfRange(..))) => {
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// A JSON column that holds a value of that type.
fn json_column<T: serde::de::DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    index: usize,
) -> rusqlite::Result<T> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text).map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
    })
}

/// A JSON column, null where it is empty.
fn stored_json(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<serde_json::Value> {
    let text: Option<String> = row.get(index)?;
    Ok(text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}

/// `micros` since the epoch as the API's number of seconds.
pub fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::model::Span;
    use crate::service::files;

    #[test]
    fn a_database_of_a_newer_build_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let connection = Connection::open(directory.path().join("state.db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(
            Store::open(directory.path()),
            Err(StoreError::Newer { found: 99, .. })
        ));
    }

    fn new_model(name: &str) -> NewModel {
        NewModel {
            name: name.into(),
            components: vec![("c".into(), vec!["s".into()])],
            sampling_us: None,
            trained: Span {
                start: 0,
                end: 86_400_000_000,
            },
            file: vec![1],
            region: "r".into(),
            account: "123456789012".into(),
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let read = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = read
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn only_what_the_state_gave_up_is_swept_and_strangers_stay_and_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let now = DateTime::from_timestamp(0, 0).unwrap();
        for (name, byte) in [("kept", 1), ("deleted", 2)] {
            let new = NewModel {
                file: vec![byte],
                ..new_model(name)
            };
            store.register_model(new, now).await.unwrap();
        }
        let file = |name: &'static str| {
            store.transact(move |db| {
                let sql = "SELECT file FROM model_version v JOIN model m ON m.uuid = v.model_uuid WHERE m.name = ?1";
                Ok(db.query_row(sql, [name], |row| row.get::<_, String>(0))?)
            })
        };
        let kept = file("kept").await.unwrap();
        let insert = store.transact(|db| {
            db.execute_batch(
                "INSERT INTO dataset (name, uuid, arn, status, job_id, created_us, updated_us)
                     VALUES ('d', 'du', 'da', 'ACTIVE', 'held', 0, 0), ('e', 'eu', 'ea', 'ACTIVE', 'gone', 0, 0);
                 INSERT INTO ingestion_job (id, dataset_uuid, status, created_us, file)
                     VALUES ('held', 'du', 'SUCCESS', 0, 'held.index'), ('replaced', 'du', 'SUCCESS', 0, 'replaced.index'),
                            ('failed', 'du', 'FAILED', 0, NULL), ('busy', 'du', 'IN_PROGRESS', 0, NULL),
                            ('gone', 'eu', 'SUCCESS', 0, 'gone.index'), ('twin', 'du', 'SUCCESS', 0, 'twin.index');
                 INSERT INTO dataset_part VALUES ('held.index', 'held.rows'), ('held.index', 'shared.rows'),
                     ('replaced.index', 'replaced.rows'), ('gone.index', 'gone.rows'), ('gone.index', 'shared.rows');
                 UPDATE ingestion_job SET file = NULL WHERE id = 'replaced';",
            )?;
            Ok(())
        });
        insert.await.unwrap();
        let datasets = store.files().folder(files::Folder::Datasets);
        for name in ["held", "replaced", "gone", "shared", "stranger"] {
            for kind in ["index", "rows"] {
                std::fs::write(datasets.join(format!("{name}.{kind}")), [1]).unwrap();
            }
        }
        for name in [".making-busy", ".making-failed", "old-job"] {
            std::fs::create_dir(datasets.join(name)).unwrap();
        }
        let models = store.files().folder(files::Folder::Models);
        for name in ["stranger.model", "cut-off-2.tmp", ".making-cut-off-3"] {
            std::fs::write(models.join(name), [1]).unwrap();
        }
        store
            .transact(|db| {
                db.execute("DELETE FROM model WHERE name = 'deleted'", [])?;
                db.execute("DELETE FROM dataset WHERE name = 'e'", [])?;
                Ok(())
            })
            .await
            .unwrap();
        let swept = store.sweep().await.unwrap();
        assert_eq!(
            names(&datasets),
            [
                ".making-busy",
                "held.index",
                "held.rows",
                "old-job",
                "shared.index",
                "shared.rows",
                "stranger.index",
                "stranger.rows"
            ]
        );
        let mut left = vec![kept.clone(), "stranger.model".to_owned()];
        left.sort();
        assert_eq!(names(&models), left);
        assert_eq!((swept.removed, swept.unknown.len()), (8, 5), "{swept:?}");
        assert!(swept.missing.is_empty());
        std::fs::remove_file(models.join(&kept)).unwrap();
        assert_eq!(store.sweep().await.unwrap().missing.len(), 1);
    }

    #[tokio::test]
    async fn a_file_that_two_models_share_goes_with_the_second() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let now = DateTime::from_timestamp(0, 0).unwrap();
        for name in ["a", "b"] {
            store.register_model(new_model(name), now).await.unwrap();
        }
        let models = store.files().folder(files::Folder::Models);
        for (name, left) in [("a", 1), ("b", 0)] {
            assert_eq!(names(&models).len(), 1);
            let delete = store
                .transact(move |db| Ok(db.execute("DELETE FROM model WHERE name = ?1", [name])?));
            delete.await.unwrap();
            assert_eq!(store.sweep().await.unwrap().unknown.len(), 0);
            assert_eq!(names(&models).len(), left);
        }
        store.sweep().await.unwrap();
        let left = store.transact(|db| {
            let sql = "SELECT count(*) FROM leftover";
            Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        });
        assert_eq!(left.await, Ok(0));
    }

    #[tokio::test]
    async fn a_state_that_is_gone_beside_its_models_or_datasets_is_refused_and_nothing_swept() {
        for (file, content) in [("state.db", None), ("state.db", Some(&b""[..]))] {
            for with_log in [false, true] {
                let directory = tempfile::tempdir().unwrap();
                let store = Store::open(directory.path()).unwrap();
                let now = DateTime::from_timestamp(0, 0).unwrap();
                store.register_model(new_model("m"), now).await.unwrap();
                std::fs::create_dir(directory.path().join("datasets/job")).unwrap();
                let log = std::fs::read(directory.path().join("state.db-wal")).unwrap();
                drop(store);
                match content {
                    None => std::fs::remove_file(directory.path().join(file)).unwrap(),
                    Some(bytes) => std::fs::write(directory.path().join(file), bytes).unwrap(),
                }
                if with_log {
                    std::fs::write(directory.path().join("state.db-wal"), &log).unwrap();
                }
                let Err(error) = Store::open(directory.path()) else {
                    panic!("opened without its database");
                };
                assert!(
                    matches!(
                        error,
                        StoreError::Lost {
                            models: 1,
                            datasets: 1,
                            ..
                        }
                    ),
                    "{error}"
                );
                assert!(error.to_string().contains("model register"), "{error}");
                assert_eq!(names(&directory.path().join("models")).len(), 1);
                assert_eq!(names(&directory.path().join("datasets")), ["job"]);
                let there = std::fs::read(directory.path().join("state.db-wal"));
                assert_eq!(there.is_ok_and(|bytes| bytes == log), with_log);
            }
        }
    }

    #[tokio::test]
    async fn rows_that_no_build_wrote_are_refused() {
        for damage in [
            "UPDATE model SET status = 'SUCCESR'",
            "UPDATE model SET schema = '{\"Components'",
            "UPDATE model_version SET version = -1",
            "PRAGMA foreign_keys = OFF; UPDATE model SET uuid = 'other'",
        ] {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path()).unwrap();
            let now = DateTime::from_timestamp(0, 0).unwrap();
            store.register_model(new_model("m"), now).await.unwrap();
            drop(store);
            drop(Store::open(directory.path()).unwrap());
            let connection = Connection::open(directory.path().join("state.db")).unwrap();
            connection.execute_batch(damage).unwrap();
            drop(connection);
            let refused = Store::open(directory.path());
            assert!(
                matches!(refused, Err(StoreError::Damaged { .. })),
                "{damage}"
            );
        }
    }

    #[tokio::test]
    async fn a_failed_transaction_leaves_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let failed: Result<(), Fault> = store
            .transact(|db| {
                db.execute(
                    "INSERT INTO tag (arn, key, value) VALUES ('a', 'k', 'v')",
                    [],
                )?;
                Err(Fault::conflict("no"))
            })
            .await;
        assert_eq!(failed, Err(Fault::conflict("no")));
        let count = store.transact(|db| {
            Ok(db.query_row("SELECT count(*) FROM tag", [], |r| r.get::<_, i64>(0))?)
        });
        assert_eq!(count.await, Ok(0));
    }
}
