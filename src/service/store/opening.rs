//! Opening the database: what must hold before anything is started over it.
//!
//! Guarantees: a database that is gone while models or datasets lie beside it, that SQLite finds damaged, or that holds
//! what no build wrote, is refused before anything is changed, and the refusal says how to go on. What is odd of one scheduler
//! alone is said, and that scheduler's trouble. It never begins an empty state over what is there.
//!
//! To look at every page and row takes longer the more there was: it is done where the last stop was not a clean one, where
//! the file is not the one that was left then, after an upgrade, and in `lookoutd check`.
//!
//! A flipped bit inside a text or a number that stays plausible is not seen here: SQLite has no checksum of a row.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, leftovers};
use crate::disk::{Disk, LocalDisk};

/// Rows that no build wrote, in which nothing can be relied on: the table, and the condition that finds them.
const ODD: [(&str, &str); 8] = [
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
        "status NOT IN ('PENDING', 'RUNNING', 'STOPPING', 'STOPPED')",
    ),
    (
        "execution",
        "status NOT IN ('IN_PROGRESS', 'SUCCESS', 'FAILED')",
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

/// Rows that no build wrote, or another one, and that are their own scheduler's trouble alone: what cannot be run of it fails, by
/// name. The table, the scheduler's identity in it, and the condition.
const ODD_ALONE: [(&str, &str, &str); 3] = [
    (
        "scheduler",
        "uuid",
        "delay_minutes NOT BETWEEN 0 AND 60 OR frequency NOT IN ('PT5M', 'PT10M', 'PT15M', 'PT30M', 'PT1H')
         OR NOT json_valid(input) OR NOT json_valid(output) OR coalesce(next_boundary_us, 0) % 300000000 <> 0
         OR latest_result NOT IN ('ANOMALOUS', 'NORMAL')",
    ),
    (
        "execution",
        "scheduler_uuid",
        "boundary_us % 300000000 <> 0 OR (failed_kind IS NOT NULL AND status <> 'FAILED')
         OR boundary_us - start_us NOT IN (300000000, 600000000, 900000000, 1800000000, 3600000000)
         OR NOT json_valid(input) OR NOT json_valid(output) OR rows < 0 OR anomalous < 0 OR anomalous > rows",
    ),
    (
        "event",
        "scheduler_uuid",
        "start_us > end_us OR rows < 1 OR NOT json_valid(diagnostics)",
    ),
];
/// Schedulers that are named.
const NAMED: usize = 5;

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
        if let Some(what) = odd_alone(&connection).map_err(wrap)? {
            return Err(StoreError::Damaged { path, what });
        }
    }
    Ok(())
}

/// Says which schedulers have rows that are their trouble alone; they are started over, since the others have none.
pub(super) fn tell_if_odd_alone(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    if let Some(what) = odd_alone(connection)? {
        tracing::warn!(
            path = %path.display(),
            what,
            "the state holds what this build does not understand: what cannot be run of it fails by name, everything else runs"
        );
    }
    Ok(())
}

/// What rows there are that are their own scheduler's trouble alone.
fn odd_alone(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut found = Vec::new();
    for (table, uuid, condition) in ODD_ALONE {
        let sql = format!("SELECT {uuid}, count(*) FROM {table} WHERE {condition} GROUP BY 1");
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })?;
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        if rows.is_empty() {
            continue;
        }
        let mut named = Vec::new();
        for (uuid, _) in rows.iter().take(NAMED) {
            let sql = "SELECT name FROM scheduler WHERE uuid = ?1";
            let name = connection.query_row(sql, [uuid], |row| row.get::<_, String>(0));
            named.push(name.unwrap_or_else(|_| uuid.clone()));
        }
        let count: i64 = rows.iter().map(|(_, count)| count).sum();
        let more = match rows.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        found.push(format!(
            "{count} rows of {table} hold values that this build never wrote, of the schedulers {}{more}",
            named.join(", ")
        ));
    }
    Ok((!found.is_empty()).then(|| found.join("; ")))
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
    let directory = path.parent().unwrap_or(Path::new("."));
    let kept = std::fs::File::open(&making)
        .and_then(|copy| copy.sync_all())
        .and_then(|()| std::fs::rename(&making, name(found)))
        // Or a power cut after the migration leaves neither name.
        .and_then(|()| LocalDisk.sync_dir(directory));
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
    fn what_is_odd_of_one_scheduler_stops_no_service_and_check_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        drop(Store::open(at).unwrap());
        let database = at.join("state.db");
        Connection::open(&database)
            .unwrap()
            .execute_batch(
                "INSERT INTO model (name, uuid, arn, status, schema, created_us, updated_us) VALUES ('m', 'mu', 'ma', 'SUCCESS', '{}', 0, 0);
                 INSERT INTO scheduler (name, uuid, arn, model_name, status, delay_minutes, frequency, input, output, role_arn,
                                        created_us, updated_us, latest_result)
                     VALUES ('odd-one', 'su', 'sa', 'm', 'RUNNING', 0, 'PT2H', '{', '{}', 'r', 0, 0, 'UNCLEAR');
                 INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output, model_version,
                                        model_version_arn)
                     VALUES ('su', 7200000000, 0, 7200000000, 'SUCCESS', '{}', '{}', 1, 'v');",
            )
            .unwrap();
        // Another has written since the clean stop: everything is looked at.
        drop(Store::open(at).unwrap());
        let error = examine(at).unwrap_err().to_string();
        assert!(
            error.contains("1 rows of scheduler")
                && error.contains("odd-one")
                && error.contains("1 rows of execution"),
            "{error}"
        );
        // A state that nobody could go by is refused as before.
        Connection::open(&database)
            .unwrap()
            .execute_batch("UPDATE scheduler SET status = 'DREAMING'")
            .unwrap();
        std::fs::remove_file(at.join("state.clean")).unwrap();
        assert!(Store::open(at).is_err());
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
