//! The service's durable state: one SQLite database (write-ahead log) and the model files beside it.
//!
//! Guarantees: a transaction that was committed survives a crash of the process or the machine (`synchronous = FULL`);
//! the schema moves forward by numbered migrations (`user_version`) and a database of a newer build is refused. All
//! access goes through one connection on the blocking pool, so that a transaction never interleaves with another.
//!
//! Deliberately no object mapping: the queries stand with the operation or the runner step they belong to.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::faults::Fault;

pub mod events;
pub mod executions;
pub mod schedulers;

/// Forward migrations; the database's `user_version` counts how many were applied.
const MIGRATIONS: [&str; 2] = [
    include_str!("store/0001_inference.sql"),
    include_str!("store/0002_training.sql"),
];

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

/// The state. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    directory: PathBuf,
}

/// A trained model to be put under the service's care without its training API.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// Model name, as in the API.
    pub name: String,
    /// `component, sensors` in the model's order.
    pub components: Vec<(String, Vec<String>)>,
    /// Sampling interval in microseconds if the model has a target rate.
    pub sampling_us: Option<i64>,
    /// The encoded model file.
    pub file: Vec<u8>,
    /// Region for the ARN.
    pub region: String,
    /// Account for the ARN, 12 digits.
    pub account: String,
}

impl Store {
    /// Opens or creates the state under `directory` and brings its schema up to date.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        let models = directory.join("models");
        std::fs::create_dir_all(&models).map_err(|source| StoreError::Directory {
            path: models,
            source,
        })?;
        let path = directory.join("state.db");
        let wrap = |source| StoreError::Database {
            path: path.clone(),
            source,
        };
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
        for (index, migration) in MIGRATIONS.iter().enumerate().skip(found) {
            let transaction = connection.transaction().map_err(wrap)?;
            transaction.execute_batch(migration).map_err(wrap)?;
            transaction
                .pragma_update(None, "user_version", index as i64 + 1)
                .map_err(wrap)?;
            transaction.commit().map_err(wrap)?;
        }
        Ok(Store {
            connection: Arc::new(Mutex::new(connection)),
            directory: directory.to_owned(),
        })
    }

    /// Runs `work` in one transaction on the blocking pool. It is committed if `work` succeeds.
    pub async fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let connection = Arc::clone(&self.connection);
        let joined = tokio::task::spawn_blocking(move || {
            // A panic elsewhere cannot leave a half-done transaction behind: SQLite rolled it back on drop.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let outcome = work(&transaction)?;
            transaction.commit()?;
            Ok(outcome)
        });
        joined.await.unwrap_or_else(|error| {
            tracing::error!(error = %error, "state transaction panicked");
            Err(Fault::internal())
        })
    }

    /// Where the file of a model version lies.
    pub fn model_file(&self, model_uuid: &str, version: i64) -> PathBuf {
        self.model_path(&format!("{model_uuid}-{version}"))
    }

    /// Where the model file of that name lies, `<model uuid>-<version>`.
    pub fn model_path(&self, name: &str) -> PathBuf {
        self.directory.join("models").join(format!("{name}.model"))
    }

    /// Where the rows of an ingestion job lie.
    pub fn dataset_directory(&self, job: &str) -> PathBuf {
        self.directory.join("datasets").join(job)
    }

    /// Removes model files and ingested rows that nothing in the state refers to: of deleted models and datasets, of rows
    /// that a later ingestion replaced, of attempts that a crash cut off.
    pub async fn sweep(&self) -> Result<(), Fault> {
        let directory = self.directory.clone();
        let swept = self.transact(move |db| {
            // Kept: what datasets hold, and what a training or an import is reading or writing.
            let rows = "SELECT job_id FROM dataset WHERE job_id IS NOT NULL
                        UNION SELECT id FROM ingestion_job WHERE status LIKE '%IN_PROGRESS'
                        UNION SELECT source_job FROM ingestion_job WHERE status LIKE '%IN_PROGRESS' AND source_job IS NOT NULL
                        UNION SELECT dataset_job FROM model_version WHERE status = 'IN_PROGRESS' AND dataset_job IS NOT NULL";
            let models = "SELECT model_uuid || '-' || version || '.model' FROM model_version
                          UNION SELECT model_uuid || '-' || version || '.tmp' FROM model_version
                                WHERE status LIKE '%IN_PROGRESS'
                          UNION SELECT source_file || '.model' FROM model_version
                                WHERE status LIKE '%IN_PROGRESS' AND source_file IS NOT NULL";
            let mut removed = 0;
            for (folder, query) in [("datasets", rows), ("models", models)] {
                let mut statement = db.prepare(query)?;
                let kept: HashSet<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
                removed += remove_all_but(&directory.join(folder), &kept);
            }
            Ok(removed)
        });
        let removed = swept.await?;
        if removed > 0 {
            tracing::info!(removed, "files that nothing refers to removed");
        }
        Ok(())
    }

    /// Puts a trained model under `model.name` as its next version, active at once. Returns the version.
    pub async fn register_model(&self, model: NewModel, now: DateTime<Utc>) -> Result<i64, Fault> {
        let store = self.clone();
        self.transact(move |db| {
            let known = db
                .query_row("SELECT uuid, arn FROM model WHERE name = ?1", [&model.name], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
                })
                .optional()?;
            let (uuid, arn) = known.unwrap_or_else(|| {
                let uuid = uuid::Uuid::new_v4().to_string();
                let arn = format!(
                    "arn:aws:lookoutequipment:{}:{}:model/{}/{uuid}",
                    model.region, model.account, model.name
                );
                (uuid, arn)
            });
            let version = 1 + db.query_row(
                "SELECT coalesce(max(version), 0) FROM model_version WHERE model_uuid = ?1",
                [&uuid],
                |row| row.get::<_, i64>(0),
            )?;
            let path = store.model_file(&uuid, version);
            write_durably(&path, &model.file).map_err(|error| {
                tracing::error!(path = %path.display(), %error, "model file not written");
                Fault::internal()
            })?;
            let now = now.timestamp_micros();
            db.execute(
                "INSERT INTO model (name, uuid, arn, status, schema, sampling_us, active_version, created_us, updated_us)
                 VALUES (?1, ?2, ?3, 'SUCCESS', ?4, ?5, ?6, ?7, ?7)
                 ON CONFLICT (name) DO UPDATE SET schema = ?4, sampling_us = ?5, active_version = ?6, updated_us = ?7",
                params![
                    model.name,
                    uuid,
                    arn,
                    schema_json(&model.components),
                    model.sampling_us,
                    version,
                    now
                ],
            )?;
            db.execute(
                "INSERT INTO model_version (model_uuid, version, arn, status, source_type, created_us, updated_us)
                 VALUES (?1, ?2, ?3, 'SUCCESS', 'IMPORT', ?4, ?4)",
                params![uuid, version, format!("{arn}/model-version/{version}"), now],
            )?;
            Ok(version)
        })
        .await
    }
}

/// The schema string of the API: a DATETIME column first, then one DOUBLE column per sensor (contract 6).
pub fn schema_json(components: &[(String, Vec<String>)]) -> String {
    let components: Vec<serde_json::Value> = components
        .iter()
        .map(|(component, sensors)| {
            let mut columns = vec![serde_json::json!({"Name": "Timestamp", "Type": "DATETIME"})];
            columns.extend(
                sensors
                    .iter()
                    .map(|sensor| serde_json::json!({"Name": sensor, "Type": "DOUBLE"})),
            );
            serde_json::json!({"ComponentName": component, "Columns": columns})
        })
        .collect();
    serde_json::json!({"Components": components}).to_string()
}

/// Removes every entry whose name is not in `kept`; returns how many. What cannot be removed is tried again next time.
fn remove_all_but(directory: &Path, kept: &HashSet<String>) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let strangers =
        entries.filter(|entry| !kept.contains(entry.file_name().to_string_lossy().as_ref()));
    let remove = |path: PathBuf| {
        if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        }
    };
    strangers
        .filter(|entry| remove(entry.path()).is_ok())
        .count()
}

/// Temp file, fsync, rename, fsync of the directory: after this the file is whole or absent, whatever crashes.
pub fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// JSON that this service stored.
pub fn parse(text: &str) -> Result<serde_json::Value, Fault> {
    serde_json::from_str(text).map_err(|error| {
        tracing::error!(%error, "stored JSON is damaged");
        Fault::internal()
    })
}

/// `micros` since the epoch as the API's number of seconds.
pub fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test]
    async fn files_that_nothing_refers_to_are_swept_and_the_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let now = DateTime::from_timestamp(0, 0).unwrap();
        let model = NewModel {
            name: "m".into(),
            components: vec![("c".into(), vec!["s".into()])],
            sampling_us: None,
            file: vec![1],
            region: "r".into(),
            account: "123456789012".into(),
        };
        store.register_model(model, now).await.unwrap();
        std::fs::write(store.model_file("gone", 1), [1]).unwrap();
        std::fs::create_dir_all(store.dataset_directory("gone")).unwrap();
        store.sweep().await.unwrap();
        assert!(!store.model_file("gone", 1).exists() && !store.dataset_directory("gone").exists());
        assert_eq!(
            std::fs::read_dir(directory.path().join("models"))
                .unwrap()
                .count(),
            1
        );
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
