//! Taking over the files of builds before 0.2's layout: `models/<model>-<version>.model` and `datasets/<job>/<n>.rows` get
//! the names of what is in them, by a second link to the same bytes.
//!
//! Guarantees: it runs within the migration, so that a crash leaves the old names for the next start; the old names are
//! given up in the same transaction and swept later. What cannot be read stays where it is and is told: nothing is lost by
//! an upgrade, and no start is refused for one file.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, params};
use serde_json::Value;

use super::with_range;
use crate::model::Model;
use crate::service::files::{Files, Folder, Staged};
use crate::service::history::Part;

/// The index of a dataset in the old layout.
#[derive(serde::Deserialize)]
struct OldIndex {
    components: Vec<Part>,
}

/// Names every file that the rows refer to by what is in it.
pub(super) fn take_over(db: &Connection, files: &Files) -> rusqlite::Result<()> {
    let models = rows(
        db,
        "SELECT model_uuid, version, detail FROM model_version WHERE status = 'SUCCESS' AND file IS NULL",
        |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, String>(2)?,
            ))
        },
    )?;
    let mut taken = 0;
    for (uuid, version, detail) in models {
        let old = format!("{uuid}-{version}");
        let Some((name, bytes)) = model(files, &old) else {
            continue;
        };
        let detail = match Model::decode(&bytes) {
            Ok(model) => {
                let given: Value = serde_json::from_str(&detail).unwrap_or_default();
                with_range(&given, model.training_range()).to_string()
            }
            Err(_) => detail,
        };
        db.execute(
            "UPDATE model_version SET file = ?3, detail = ?4 WHERE model_uuid = ?1 AND version = ?2",
            params![uuid, version, name, detail],
        )?;
        give_up(db, Folder::Models, &format!("{old}.model"))?;
        taken += 1;
    }
    let imports = rows(
        db,
        "SELECT model_uuid, version, source_file FROM model_version
         WHERE status = 'IMPORT_IN_PROGRESS' AND source_file IS NOT NULL",
        |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, String>(2)?,
            ))
        },
    )?;
    for (uuid, version, source) in imports {
        let name = model(files, &source).map(|(name, _)| name);
        db.execute(
            "UPDATE model_version SET file = ?3 WHERE model_uuid = ?1 AND version = ?2",
            params![uuid, version, name],
        )?;
    }
    let jobs = rows(
        db,
        "SELECT j.id, j.status LIKE '%IN_PROGRESS'
             OR j.id NOT IN (SELECT job_id FROM dataset WHERE job_id IS NOT NULL
                             UNION SELECT dataset_job FROM model_version WHERE status = 'IN_PROGRESS' AND dataset_job IS NOT NULL
                             UNION SELECT source_job FROM ingestion_job
                                   WHERE status = 'IMPORT_IN_PROGRESS' AND source_job IS NOT NULL)
         FROM ingestion_job j",
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)),
    )?;
    for (job, unused) in jobs {
        if !unused {
            let Some(staged) = dataset(files, &job) else {
                continue;
            };
            insert_parts(db, &staged)?;
            let name = &staged.name;
            db.execute(
                "UPDATE ingestion_job SET file = ?2 WHERE id = ?1",
                params![job, name],
            )?;
            db.execute(
                "UPDATE ingestion_job SET file = ?2 WHERE source_job = ?1 AND status = 'IMPORT_IN_PROGRESS'",
                params![job, name],
            )?;
            db.execute(
                "UPDATE model_version SET dataset_file = ?2 WHERE dataset_job = ?1 AND status = 'IN_PROGRESS'",
                params![job, name],
            )?;
            taken += 1;
        }
        give_up(db, Folder::Datasets, &job)?;
    }
    if taken > 0 {
        tracing::info!(
            taken,
            "models and datasets taken over under the names of what is in them"
        );
    }
    db.execute_batch(
        "ALTER TABLE model_version DROP COLUMN source_file; ALTER TABLE model_version DROP COLUMN dataset_job;",
    )
}

/// Notes the files that an index names.
pub(super) fn insert_parts(db: &Connection, staged: &Staged) -> rusqlite::Result<()> {
    for part in &staged.parts {
        db.execute(
            "INSERT OR IGNORE INTO dataset_part (file, part) VALUES (?1, ?2)",
            [&staged.name, part],
        )?;
    }
    Ok(())
}

fn give_up(db: &Connection, folder: Folder, name: &str) -> rusqlite::Result<usize> {
    db.execute(
        "INSERT OR IGNORE INTO leftover (folder, name) VALUES (?1, ?2)",
        [folder.name(), name],
    )
}

fn model(files: &Files, old: &str) -> Option<(String, Vec<u8>)> {
    let path = files.path(Folder::Models, &format!("{old}.model"));
    let taken =
        std::fs::read(&path).and_then(|bytes| Ok((files.adopt_model(&path, &bytes)?, bytes)));
    said(&path, taken.map_err(Into::into))
}

fn dataset(files: &Files, job: &str) -> Option<Staged> {
    let directory = files.path(Folder::Datasets, job);
    let take = || -> Result<Staged> {
        let text = std::fs::read(directory.join("index.json")).context("cannot read index.json")?;
        let index: OldIndex = serde_json::from_slice(&text).context("index.json is damaged")?;
        files.adopt_dataset(job, &directory, index.components)
    };
    said(&directory, take())
}

fn said<T>(path: &Path, taken: Result<T>) -> Option<T> {
    let absent = |error: &anyhow::Error| {
        let cause = error.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    };
    match taken {
        Ok(taken) => Some(taken),
        // What was missing before is told with what else is missing.
        Err(error) if absent(&error) => None,
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                error = format!("{error:#}"),
                "not taken over by the upgrade: it stays where it is, and what needs it fails"
            );
            None
        }
    }
}

fn rows<T>(
    db: &Connection,
    sql: &str,
    read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare(sql)?.query_map([], read)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::history::{History, PartWriter};
    use crate::service::schema::Schema;
    use crate::service::store::{FILES, MIGRATIONS, Store};

    const SCHEMA: &str = r#"{"Components":[{"ComponentName":"c","Columns":[{"Name":"t","Type":"DATETIME"},{"Name":"s","Type":"DOUBLE"}]}]}"#;

    /// A state as the build before wrote it: two versions of a model, a dataset, one whose rows were replaced, an import and a
    /// training that wait.
    fn old_state(directory: &Path) {
        let db = Connection::open(directory.join("state.db")).unwrap();
        for migration in &MIGRATIONS[..FILES] {
            db.execute_batch(migration).unwrap();
        }
        db.pragma_update(None, "user_version", FILES as i64)
            .unwrap();
        db.execute_batch(
            "INSERT INTO model (name, uuid, arn, status, schema, active_version, created_us, updated_us)
                 VALUES ('m', 'mu', 'ma', 'SUCCESS', '{}', 2, 0, 0);
             INSERT INTO model_version (model_uuid, version, arn, status, source_type, created_us, updated_us, dataset_job,
                                        source_file)
                 VALUES ('mu', 1, 'a1', 'SUCCESS', 'TRAINING', 0, 0, 'held', NULL),
                        ('mu', 2, 'a2', 'SUCCESS', 'IMPORT', 0, 0, NULL, 'mu-1'), ('mu', 3, 'a3', 'FAILED', 'TRAINING', 0, 0, 'held', NULL),
                        ('mu', 4, 'a4', 'IN_PROGRESS', 'RETRAINING', 0, 0, 'replaced', NULL),
                        ('mu', 5, 'a5', 'IMPORT_IN_PROGRESS', 'IMPORT', 0, 0, NULL, 'mu-2'),
                        ('mu', 6, 'a6', 'SUCCESS', 'TRAINING', 0, 0, 'held', NULL);
             INSERT INTO dataset (name, uuid, arn, status, job_id, created_us, updated_us)
                 VALUES ('d', 'du', 'da', 'ACTIVE', 'held', 0, 0), ('e', 'eu', 'ea', 'IMPORT_IN_PROGRESS', NULL, 0, 0);
             INSERT INTO ingestion_job (id, dataset_uuid, status, created_us, source_job)
                 VALUES ('held', 'du', 'SUCCESS', 2, NULL), ('replaced', 'du', 'SUCCESS', 1, NULL),
                        ('unused', 'du', 'SUCCESS', 0, NULL), ('copy', 'eu', 'IMPORT_IN_PROGRESS', 3, 'held');",
        )
        .unwrap();
        std::fs::create_dir(directory.join("models")).unwrap();
        for (version, bytes) in [(1, b"one"), (2, b"two")] {
            std::fs::write(directory.join(format!("models/mu-{version}.model")), bytes).unwrap();
        }
        std::fs::write(directory.join("models/mu-4.tmp"), b"cut off").unwrap();
        for (job, value) in [("held", 1.0), ("replaced", 2.0), ("unused", 3.0)] {
            let rows = directory.join("datasets").join(job);
            std::fs::create_dir_all(&rows).unwrap();
            let mut writer = PartWriter::create(&rows, 0, "c", &["s".to_owned()]);
            writer.begin(&[0]).unwrap();
            writer.push(10, &[value]).unwrap();
            let mut part = serde_json::to_value(writer.finish().unwrap()).unwrap();
            part.as_object_mut().unwrap().remove("file");
            let index = serde_json::json!({"components": [part]});
            std::fs::write(rows.join("index.json"), index.to_string()).unwrap();
        }
        // What a copy had written when the service stopped.
        std::fs::create_dir(directory.join("datasets/copy")).unwrap();
    }

    #[tokio::test]
    async fn a_data_directory_of_the_build_before_is_taken_over_whole() {
        let directory = tempfile::tempdir().unwrap();
        old_state(directory.path());
        for _ in 0..2 {
            let store = Store::open(directory.path()).unwrap();
            let swept = store.sweep().await.unwrap();
            assert!(swept.unknown.is_empty(), "{swept:?}");
            // The sixth version's file was gone before.
            assert_eq!(swept.missing, [directory.path().join("models/mu-6.model")]);
            for (version, bytes) in [(1, b"one"), (2, b"two"), (5, b"two")] {
                let path = store.model_file("mu", version).await.unwrap();
                assert_eq!(std::fs::read(path).unwrap(), bytes);
            }
            let making = store
                .next_to_make(chrono::DateTime::UNIX_EPOCH)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(making.version, 4);
            let copy = store.due_ingestion().await.unwrap().unwrap();
            for (file, value) in [(making.dataset_file, 2.0), (copy.file, 1.0)] {
                let dataset = store.files().dataset(&file.unwrap()).unwrap();
                dataset.verify().unwrap();
                let schema = Schema::parse(SCHEMA).unwrap();
                let mut history = History::open(&dataset, &schema, 0, 99).unwrap();
                assert_eq!(history.next_block().unwrap().unwrap().row(0), [value]);
            }
            let names = |folder: &str| {
                let entries = std::fs::read_dir(directory.path().join(folder)).unwrap();
                let mut names: Vec<String> = entries
                    .map(|it| it.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                names
            };
            let (models, datasets) = (names("models"), names("datasets"));
            assert_eq!(
                (models.len(), datasets.len()),
                (2, 4),
                "{models:?} {datasets:?}"
            );
            let named = |name: &String| name.split('.').next().unwrap().len() == 64;
            assert!(
                models.iter().chain(&datasets).all(named),
                "{models:?} {datasets:?}"
            );
        }
    }
}
