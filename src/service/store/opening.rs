//! Opening the database: what must hold before anything is started over it.
//!
//! Guarantees: a database that is gone while models or datasets lie beside it, that SQLite finds damaged, or that holds
//! what no build wrote, is refused before anything is changed, and the refusal says how to go on. It never begins an empty
//! state over what is there.
//!
//! A flipped bit inside a text or a number that stays plausible is not seen here: SQLite has no checksum of a row.

use std::path::Path;

use rusqlite::Connection;

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

/// Refuses a database that is damaged as far as that can be seen. `version` is its schema's number.
pub fn refuse_if_damaged(
    connection: &Connection,
    version: usize,
    path: &Path,
    directory: &Path,
) -> Result<(), StoreError> {
    let wrap = |source| StoreError::of(path, source);
    let damaged = |what: String| StoreError::Damaged {
        path: path.to_owned(),
        what,
    };
    let check: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(wrap)?;
    if check != "ok" {
        return Err(damaged(check));
    }
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
pub fn refuse_if_odd(connection: &Connection, path: &Path) -> Result<(), StoreError> {
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
