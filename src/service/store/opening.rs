//! Opening the database: what must hold before anything is started over it.
//!
//! Guarantees: a database that is gone while models or datasets lie beside it, that SQLite finds damaged, or that holds
//! what no build wrote, is refused before anything is changed, and the refusal says how to go on. It never begins an empty
//! state over what is there.
//!
//! To look at every page and row takes longer the more there was: it is done where the last stop was not a clean one, where
//! the file is not the one that was left then, after an upgrade, and in `lookoutd check`.
//!
//! A flipped bit inside a text or a number that stays plausible is not seen here: SQLite has no checksum of a row.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, leftovers};

/// Rows that no build wrote: the table, and the condition that finds them.
const ODD: [(&str, &str); 9] = [
    (
        "model",
        "status NOT IN ('IN_PROGRESS', 'SUCCESS', 'FAILED', 'IMPORT_IN_PROGRESS') OR NOT json_valid(schema)
         OR NOT json_valid(detail) OR coalesce(active_version, 1) < 1",
    ),
    (
        "model_version",
        "status NOT IN ('IN_PROGRESS', 'SUCCESS', 'FAILED', 'IMPORT_IN_PROGRESS', 'CANCELED') OR version < 1
         OR NOT json_valid(detail)",
    ),
    (
        "scheduler",
        "status NOT IN ('PENDING', 'RUNNING', 'STOPPING', 'STOPPED') OR delay_minutes NOT BETWEEN 0 AND 60
         OR frequency NOT IN ('PT5M', 'PT10M', 'PT15M', 'PT30M', 'PT1H') OR NOT json_valid(input) OR NOT json_valid(output)
         OR coalesce(next_boundary_us, 0) % 300000000 <> 0
         OR latest_result NOT IN ('ANOMALOUS', 'NORMAL')",
    ),
    (
        "execution",
        "status NOT IN ('IN_PROGRESS', 'SUCCESS', 'FAILED') OR boundary_us % 300000000 <> 0
         OR (failed_kind IS NOT NULL AND status <> 'FAILED')
         OR boundary_us - start_us NOT IN (300000000, 600000000, 900000000, 1800000000, 3600000000)
         OR NOT json_valid(input) OR NOT json_valid(output) OR rows < 0 OR anomalous < 0 OR anomalous > rows",
    ),
    (
        "event",
        "start_us > end_us OR rows < 1 OR NOT json_valid(diagnostics)",
    ),
    (
        "dataset",
        "status NOT IN ('CREATED', 'INGESTION_IN_PROGRESS', 'ACTIVE', 'IMPORT_IN_PROGRESS') OR NOT json_valid(coalesce(schema, '0'))",
    ),
    (
        "ingestion_job",
        "status NOT IN ('IN_PROGRESS', 'SUCCESS', 'FAILED', 'IMPORT_IN_PROGRESS') OR NOT json_valid(coalesce(input, '0'))",
    ),
    ("label_group", "NOT json_valid(fault_codes)"),
    ("label", "rating NOT IN ('ANOMALY', 'NO_ANOMALY', 'NEUTRAL')"),
];

/// SQLite's smallest page; over what is shorter it begins an empty database.
const LEAST: u64 = 512;

/// Refuses a directory whose database is gone, or cut to nothing, although it was there.
pub fn refuse_if_lost(path: &Path, directory: &Path) -> Result<(), StoreError> {
    let is_there = |path: &Path| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    if std::fs::metadata(path).is_ok_and(|file| file.len() >= LEAST) {
        return Ok(());
    }
    let log = path.with_extension("db-wal");
    let (models, datasets) = leftovers::kept_beside(directory);
    if models + datasets == 0 && !is_there(&log) {
        return Ok(());
    }
    Err(StoreError::Lost {
        path: path.to_owned(),
        models,
        datasets,
    })
}

/// Looks at every page and row of a state that may be in use: what is wrong with it, if anything is.
pub fn examine(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join("state.db");
    refuse_if_lost(&path, directory)?;
    if !path.exists() {
        return Ok(());
    }
    let wrap = |source| StoreError::of(&path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(wrap)?;
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(wrap)?;
    refuse_if_damaged(&connection, &path)?;
    if usize::try_from(version) == Ok(super::MIGRATIONS.len()) {
        refuse_if_odd(&connection, &path)?;
    }
    Ok(())
}

/// Copies a database of format `found` before it is brought to another: `state.db.format-N` beside it, until the next such time.
pub(super) fn keep_copy(
    connection: &Connection,
    path: &Path,
    found: usize,
) -> rusqlite::Result<()> {
    let name = |found: usize| path.with_extension(format!("db.format-{found}"));
    let making = path.with_extension("db.format.new");
    let _ = std::fs::remove_file(&making);
    connection.execute("VACUUM INTO ?1", [making.to_string_lossy()])?;
    let kept = std::fs::File::open(&making)
        .and_then(|copy| copy.sync_all())
        .and_then(|()| std::fs::rename(&making, name(found)));
    kept.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    for earlier in 0..found {
        let _ = std::fs::remove_file(name(earlier));
    }
    Ok(())
}

/// Refuses a database that is damaged as far as that can be seen.
pub(super) fn refuse_if_damaged(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let check: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| StoreError::of(path, source))?;
    if check != "ok" {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            what: check,
        });
    }
    Ok(())
}

/// Refuses a database without a schema, whose number is `version`, beside what another described.
pub fn refuse_if_emptied(version: usize, path: &Path, directory: &Path) -> Result<(), StoreError> {
    if version == 0 {
        let (models, datasets) = leftovers::kept_beside(directory);
        return match models + datasets {
            0 => Ok(()),
            _ => Err(StoreError::Lost {
                path: path.to_owned(),
                models,
                datasets,
            }),
        };
    }
    Ok(())
}

/// Refuses a database of this build's schema whose rows hold what no build wrote.
pub(super) fn refuse_if_odd(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wrap = |source| StoreError::of(path, source);
    let damaged = |what: String| StoreError::Damaged {
        path: path.to_owned(),
        what,
    };
    for (table, condition) in ODD {
        let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
        let odd: i64 = connection
            .query_row(&sql, [], |row| row.get(0))
            .map_err(wrap)?;
        if odd > 0 {
            return Err(damaged(format!(
                "{odd} rows of {table} hold values that were never written"
            )));
        }
    }
    let dangling: i64 = connection
        .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| {
            row.get(0)
        })
        .map_err(wrap)?;
    if dangling > 0 {
        return Err(damaged(format!(
            "{dangling} rows refer to rows that are not there"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::clean::CleanStop;
    use crate::service::store::Store;

    #[test]
    fn only_a_state_that_a_clean_stop_left_is_opened_without_looking_at_everything() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let (database, note) = (at.join("state.db"), at.join("state.clean"));
        let opens_clean = || CleanStop::was(&database);
        drop(Store::open(at).unwrap());
        assert!(opens_clean());
        assert!(!opens_clean(), "the note is taken once");
        // Killed: the log is there, the note is not.
        let store = Store::open(at).unwrap();
        assert!(!note.exists());
        drop(store);
        assert!(note.exists());
        // Another has written since.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let write = |sql: &str| {
            let connection = Connection::open(&database).unwrap();
            connection.execute_batch(sql).unwrap();
        };
        write("INSERT INTO tag VALUES ('a', 'k', 'v')");
        assert!(!opens_clean());
        // Put back from a backup.
        drop(Store::open(at).unwrap());
        std::fs::copy(&database, at.join("copy")).unwrap();
        std::fs::rename(at.join("copy"), &database).unwrap();
        assert!(!opens_clean());
        // What was refused is refused again.
        write("INSERT INTO label_group VALUES ('g', 'a', 'no list', 0, 0)");
        for _ in 0..2 {
            assert!(Store::open(at).is_err());
        }
    }

    #[test]
    fn check_examines_a_state_that_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        assert!(examine(directory.path()).is_ok(), "none is there yet");
        let store = Store::open(directory.path()).unwrap();
        examine(directory.path()).unwrap();
        let connection = Connection::open(directory.path().join("state.db")).unwrap();
        connection
            .execute_batch("INSERT INTO label_group VALUES ('g', 'a', 'no list', 0, 0)")
            .unwrap();
        let error = examine(directory.path()).unwrap_err().to_string();
        assert!(error.contains("label_group"), "{error}");
        drop(store);
    }
}
