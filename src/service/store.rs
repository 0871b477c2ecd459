//! The service's durable state: one SQLite database (write-ahead log) and the model files beside it.
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

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::faults::Fault;
use crate::model::{Model, Span};

pub mod datasets;
pub mod events;
pub mod executions;
pub mod ingestion;
pub mod labels;
mod leftovers;
mod once;
mod opening;
pub mod policies;
pub mod schedulers;
pub mod tags;
pub mod transitions;
mod words;

pub use leftovers::Swept;
pub use once::Once;

/// Forward migrations; the database's `user_version` counts how many were applied.
const MIGRATIONS: [&str; 5] = [
    include_str!("store/0001_inference.sql"),
    include_str!("store/0002_training.sql"),
    include_str!("store/0003_leftovers.sql"),
    include_str!("store/0004_tokens.sql"),
    include_str!("store/0005_failures.sql"),
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
    /// The range it was trained on.
    pub trained: Span,
    /// The encoded model file.
    pub file: Vec<u8>,
    /// Region for the ARN.
    pub region: String,
    /// Account for the ARN, 12 digits.
    pub account: String,
}

impl NewModel {
    /// `model` under `name`, active at once.
    pub fn of(name: &str, model: &Model, region: &str, account: &str) -> Self {
        let mut components: Vec<(String, Vec<String>)> = Vec::new();
        for sensor in model.sensors() {
            let known = components
                .iter_mut()
                .find(|(name, _)| *name == sensor.component);
            match known {
                Some((_, signals)) => signals.push(sensor.signal.clone()),
                None => components.push((sensor.component.clone(), vec![sensor.signal.clone()])),
            }
        }
        Self {
            name: name.to_owned(),
            components,
            sampling_us: model.sampling().map(|sampling| sampling.micros()),
            trained: model.training_range(),
            file: model.encode(),
            region: region.to_owned(),
            account: account.to_owned(),
        }
    }
}

impl Store {
    /// Opens or creates the state under `directory` and brings its schema up to date.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        let path = directory.join("state.db");
        opening::refuse_if_lost(&path, directory)?;
        let models = directory.join("models");
        std::fs::create_dir_all(&models).map_err(|source| StoreError::Directory {
            path: models,
            source,
        })?;
        let wrap = |source| StoreError::of(&path, source);
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
        opening::refuse_if_damaged(&connection, found, &path, directory)?;
        for (index, migration) in MIGRATIONS.iter().enumerate().skip(found) {
            let transaction = connection.transaction().map_err(wrap)?;
            transaction.execute_batch(migration).map_err(wrap)?;
            transaction
                .pragma_update(None, "user_version", index as i64 + 1)
                .map_err(wrap)?;
            transaction.commit().map_err(wrap)?;
        }
        opening::refuse_if_odd(&connection, &path)?;
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
                "INSERT INTO model_version (model_uuid, version, arn, status, source_type, created_us, updated_us, detail)
                 VALUES (?1, ?2, ?3, 'SUCCESS', 'IMPORT', ?4, ?4, ?5)",
                params![
                    uuid,
                    version,
                    format!("{arn}/model-version/{version}"),
                    now,
                    with_range(&serde_json::json!({}), model.trained).to_string()
                ],
            )?;
            Ok(version)
        })
        .await
    }
}

/// The members of a version with the range it was trained on, where none was asked for: clients rely on it.
pub fn with_range(detail: &serde_json::Value, trained: Span) -> serde_json::Value {
    let mut detail = match detail.is_object() {
        true => detail.clone(),
        false => serde_json::json!({}),
    };
    for (name, micros) in [
        ("TrainingDataStartTime", trained.start),
        ("TrainingDataEndTime", trained.end),
    ] {
        if detail[name].is_null() {
            detail[name] = seconds(micros).into();
        }
    }
    detail
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

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        tracing::error!(error = %error, "state database failed");
        Fault::internal()
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
pub fn stored_json(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<serde_json::Value> {
    let text: Option<String> = row.get(index)?;
    Ok(text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
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
        for name in ["kept", "deleted"] {
            store.register_model(new_model(name), now).await.unwrap();
        }
        let uuid = |name: &'static str| {
            store.transact(move |db| {
                let sql = "SELECT uuid FROM model WHERE name = ?1";
                Ok(db.query_row(sql, [name], |row| row.get::<_, String>(0))?)
            })
        };
        let kept = format!("{}-1.model", uuid("kept").await.unwrap());
        let rows = |job: &str| {
            let path = store.dataset_directory(job);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("rows"), [1]).unwrap();
        };
        let insert = store.transact(|db| {
            db.execute_batch(
                "INSERT INTO dataset (name, uuid, arn, status, job_id, created_us, updated_us)
                     VALUES ('d', 'du', 'da', 'ACTIVE', 'held', 0, 0), ('e', 'eu', 'ea', 'ACTIVE', 'gone', 0, 0);
                 INSERT INTO ingestion_job (id, dataset_uuid, status, created_us)
                     VALUES ('held', 'du', 'SUCCESS', 0), ('replaced', 'du', 'SUCCESS', 0), ('failed', 'du', 'FAILED', 0),
                            ('gone', 'eu', 'SUCCESS', 0);",
            )?;
            Ok(())
        });
        insert.await.unwrap();
        for job in ["held", "replaced", "failed", "gone", "stranger"] {
            rows(job);
        }
        std::fs::write(store.model_path("stranger-1"), [1]).unwrap();
        std::fs::write(directory.path().join("models/cut-off-2.tmp"), [1]).unwrap();
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
            names(&directory.path().join("datasets")),
            ["held", "stranger"]
        );
        let mut models = vec![kept.clone(), "stranger-1.model".to_owned()];
        models.sort();
        assert_eq!(names(&directory.path().join("models")), models);
        assert_eq!((swept.removed, swept.unknown.len()), (5, 2), "{swept:?}");
        assert!(swept.missing.is_empty());
        let left = store.transact(|db| {
            Ok(db.query_row("SELECT count(*) FROM leftover", [], |row| {
                row.get::<_, i64>(0)
            })?)
        });
        assert_eq!(left.await, Ok(0));
        std::fs::remove_file(directory.path().join("models").join(&kept)).unwrap();
        assert_eq!(store.sweep().await.unwrap().missing.len(), 1);
    }

    #[tokio::test]
    async fn a_state_that_is_gone_beside_its_models_or_datasets_is_refused_and_nothing_swept() {
        for (file, content) in [("state.db", None), ("state.db", Some(&b""[..]))] {
            for with_log in [false, true] {
                let directory = tempfile::tempdir().unwrap();
                let store = Store::open(directory.path()).unwrap();
                let now = DateTime::from_timestamp(0, 0).unwrap();
                store.register_model(new_model("m"), now).await.unwrap();
                std::fs::create_dir_all(store.dataset_directory("job")).unwrap();
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
