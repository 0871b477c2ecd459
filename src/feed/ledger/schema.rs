//! The tables of the ledger: made, brought from an earlier format, and looked at from a program that may only read them.
//!
//! Guarantees: an earlier format is brought over in place by one transaction, after a whole copy of it was made durable beside
//! it; a crash in between leaves the earlier format or the new one, never a mixture.
//! Deliberately absent: what the rows mean.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{COLUMNS, LedgerError};

/// The format that this version writes.
pub(super) const FORMAT: i64 = 2;

/// Rows are kept per asset, of which there is one without a name as long as the tag list names none. `journal` is where
/// in the journal of a live source a window was cut, `late` what came for it afterwards.
const TABLES: &str = "
    CREATE TABLE window (
        asset      TEXT NOT NULL,
        start      INTEGER NOT NULL,
        end        INTEGER NOT NULL,
        cadence    TEXT NOT NULL,
        state      TEXT NOT NULL,
        reason     TEXT,
        files      INTEGER NOT NULL DEFAULT 0,
        components INTEGER NOT NULL DEFAULT 0,
        rows       INTEGER NOT NULL DEFAULT 0,
        bytes      INTEGER NOT NULL DEFAULT 0,
        blank      TEXT,
        infinite   INTEGER NOT NULL DEFAULT 0,
        doubled    INTEGER NOT NULL DEFAULT 0,
        journal    INTEGER,
        cut_at     INTEGER,
        shipped_at INTEGER,
        attempts   INTEGER NOT NULL DEFAULT 0,
        last_error TEXT,
        PRIMARY KEY (asset, start)
    ) STRICT;
    CREATE INDEX window_state ON window (asset, state, start);
    CREATE TABLE skipped (
        asset TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, cadence TEXT NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY (asset, start)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE late (
        asset TEXT NOT NULL, start INTEGER NOT NULL, component TEXT NOT NULL, samples INTEGER NOT NULL,
        PRIMARY KEY (asset, start, component)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 2;";

/// What format 1 had is everything about the one asset.
const FROM_1: &str = "
    DROP INDEX window_state;
    ALTER TABLE window RENAME TO window_1;
    ALTER TABLE skipped RENAME TO skipped_1;";
const INTO_2: &str = "
    INSERT INTO window (asset, start, end, cadence, state, reason, files, components, rows, bytes, cut_at, shipped_at,
            attempts, last_error)
        SELECT '', start, end, cadence, state, reason, files, components, rows, bytes, cut_at, shipped_at, attempts,
            last_error FROM window_1;
    INSERT INTO skipped (asset, start, end, cadence, reason)
        SELECT '', start, max(end), cadence, reason FROM skipped_1 GROUP BY start;
    DROP TABLE window_1;
    DROP TABLE skipped_1;";

/// A ledger of format 1, seen as one of format 2 by a program that only reads it.
const AS_2: &str = "
    CREATE TEMP VIEW window AS SELECT '' AS asset, start, end, cadence, state, reason, files, components, rows, bytes,
        NULL AS blank, 0 AS infinite, 0 AS doubled, NULL AS journal, cut_at, shipped_at, attempts, last_error
        FROM main.window;
    CREATE TEMP VIEW skipped AS SELECT '' AS asset, start, max(end) AS end, cadence, reason FROM main.skipped
        GROUP BY start;
    CREATE TEMP VIEW late AS SELECT '' AS asset, 0 AS start, '' AS component, 0 AS samples WHERE 0;";

/// Counts rows that no version of this program wrote. A flipped bit in a start, an end, a cadence or a state is one of them:
/// they say the same twice over.
const ODD: &str = "SELECT
    (SELECT count(*) FROM window WHERE start % 300 <> 0
        OR end - start IS NOT CASE cadence WHEN 'PT5M' THEN 300 WHEN 'PT10M' THEN 600 WHEN 'PT15M' THEN 900
                                           WHEN 'PT30M' THEN 1800 WHEN 'PT1H' THEN 3600 END
        OR state NOT IN ('due', 'spooled', 'shipped', 'partial', 'covered', 'empty', 'skipped', 'quarantined')
        OR rows < 0 OR bytes < 0 OR attempts < 0 OR files < 0 OR (state = 'shipped' AND files < components))
  + (SELECT count(*) FROM skipped WHERE start >= end OR cadence NOT IN ('PT5M', 'PT10M', 'PT15M', 'PT30M', 'PT1H'))";

/// The format of a ledger; 0 where nothing was written yet.
pub(super) fn format_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Makes the tables of a new ledger.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))
}

/// Lets a ledger of format 1 be read as one of format 2, and not be written.
pub(super) fn read_as_2(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(AS_2)
}

/// Rows that hold values that were never written. SQLite checks its pages, not the values in them, among which are the names of
/// columns.
pub(super) fn odd_rows(connection: &Connection) -> rusqlite::Result<i64> {
    if format_of(connection)? == FORMAT {
        connection.prepare(&format!("SELECT {COLUMNS} FROM window"))?;
        connection.prepare("SELECT asset, start, end, cadence, reason FROM skipped")?;
        connection.prepare("SELECT asset, start, component, samples FROM late")?;
    }
    connection.query_row(ODD, [], |row| row.get(0))
}

/// Brings a ledger of format 1 to format 2. Returns where the copy of what it was lies.
pub(super) fn migrate(connection: &Connection, path: &Path) -> Result<PathBuf, LedgerError> {
    let fail = |source| LedgerError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let assets: i64 = connection
        .query_row(
            "SELECT count(*) FROM pragma_table_info('window') WHERE name = 'asset'",
            [],
            |row| row.get(0),
        )
        .map_err(fail)?;
    if assets > 0 {
        return Err(LedgerError::Content {
            path: path.to_owned(),
            what: "it says that its format is 1, and has the columns of a later one".to_owned(),
        });
    }
    let copy = keep_copy(connection, path)?;
    let done = connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {FROM_1} {TABLES} {INTO_2} COMMIT;"
    ));
    if let Err(source) = done {
        // What was begun is taken back; a transaction that is not open any more is no matter.
        let _ = connection.execute_batch("ROLLBACK;");
        return Err(fail(source));
    }
    Ok(copy)
}

/// A whole copy of the ledger beside it, durable when it returns.
fn keep_copy(connection: &Connection, path: &Path) -> Result<PathBuf, LedgerError> {
    let copy = path.with_extension("db.format-1");
    let staging = path.with_extension("db.format-1.new");
    let file = |source: std::io::Error| LedgerError::Copy {
        path: copy.clone(),
        source,
    };
    match std::fs::remove_file(&staging) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    connection
        .execute("VACUUM INTO ?1", [staging.to_string_lossy()])
        .map_err(|source| LedgerError::Sqlite {
            path: path.to_owned(),
            source,
        })?;
    std::fs::File::open(&staging)
        .and_then(|staged| staged.sync_all())
        .map_err(file)?;
    std::fs::rename(&staging, &copy).map_err(file)?;
    if let Some(parent) = copy.parent() {
        std::fs::File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(file)?;
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::super::{Ledger, Opened, State};
    use super::*;
    use crate::feed::Entry;
    use crate::signal::{Cadence, Window};

    /// The tables as version 1 made them, word for word.
    const FORMAT_1: &str = "
        CREATE TABLE window (
            start INTEGER PRIMARY KEY, end INTEGER NOT NULL, cadence TEXT NOT NULL, state TEXT NOT NULL, reason TEXT,
            files INTEGER NOT NULL DEFAULT 0, components INTEGER NOT NULL DEFAULT 0, rows INTEGER NOT NULL DEFAULT 0,
            bytes INTEGER NOT NULL DEFAULT 0, cut_at INTEGER, shipped_at INTEGER, attempts INTEGER NOT NULL DEFAULT 0,
            last_error TEXT
        ) STRICT;
        CREATE INDEX window_state ON window (state, start);
        CREATE TABLE skipped (
            start INTEGER NOT NULL, end INTEGER NOT NULL, cadence TEXT NOT NULL, reason TEXT NOT NULL,
            PRIMARY KEY (start, end)
        ) STRICT, WITHOUT ROWID;
        PRAGMA user_version = 1; PRAGMA application_id = 1282101060;";

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap()
    }

    fn format_1(directory: &Path) {
        let old = Connection::open(directory.join("ledger.db")).unwrap();
        old.execute_batch(FORMAT_1).unwrap();
        old.execute_batch("PRAGMA journal_mode = WAL;").unwrap();
        old.execute(
            "INSERT INTO window VALUES (?1, ?1 + 300, 'PT5M', 'partial', '1/2', 1, 2, 5, 100, 1, 2, 3, 'slow')",
            [at(0).timestamp()],
        )
        .unwrap();
        old.execute(
            "INSERT INTO window (start, end, cadence, state) VALUES (?1, ?1 + 300, 'PT5M', 'due')",
            [at(5).timestamp()],
        )
        .unwrap();
        for end in [30, 20] {
            old.execute(
                "INSERT INTO skipped VALUES (?1, ?2, 'PT5M', 'downtime')",
                [at(10).timestamp(), at(end).timestamp()],
            )
            .unwrap();
        }
    }

    fn what_it_knew() -> Vec<(DateTime<Utc>, DateTime<Utc>, State)> {
        vec![
            (at(10), at(30), State::Skipped),
            (at(5), at(10), State::Due),
            (at(0), at(5), State::Partial),
        ]
    }

    fn known(ledger: &Ledger) -> Vec<(DateTime<Utc>, DateTime<Utc>, State)> {
        let entries = ledger.list(10).unwrap();
        entries.iter().map(|e| (e.start, e.end, e.state)).collect()
    }

    #[test]
    fn only_a_ledger_that_a_clean_stop_left_is_opened_without_reading_it_all() {
        use crate::disk::clean::CleanStop;
        use crate::feed::ledger::{Ledger, Opened};

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let open = || {
            let now = "2026-03-01T10:00:00Z".parse().unwrap();
            Ledger::open(directory.path(), now).unwrap()
        };
        open().0.rebuilt().unwrap();
        let spoil = "INSERT INTO window (asset, start, end, cadence, state) VALUES ('', 301, 601, 'PT5M', 'due')";
        let write = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        write(spoil);
        // Somebody vouches for it: no row is looked at.
        drop(CleanStop::of(&path));
        assert_eq!(open().1, Opened::Existing);
        // As no clean stop leaves it: every row is.
        std::thread::sleep(std::time::Duration::from_millis(20));
        write("UPDATE window SET attempts = 1");
        assert!(matches!(open().1, Opened::Replaced(_)));
    }

    #[test]
    fn a_ledger_of_format_1_is_brought_over_in_place_and_a_copy_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        format_1(directory.path());
        let (ledger, opened) = Ledger::open(directory.path(), at(60)).unwrap();
        assert_eq!(opened, Opened::Existing);
        assert_eq!(known(&ledger), what_it_knew());
        let entry = ledger.get(at(0)).unwrap().unwrap();
        assert_eq!(
            (entry.files, entry.components, entry.rows, entry.attempts),
            (1, 2, 5, 3)
        );
        assert_eq!(entry.last_error.as_deref(), Some("slow"));
        assert_eq!(entry.reason.as_deref(), Some("1/2"));
        let copy = Connection::open(directory.path().join("ledger.db.format-1")).unwrap();
        assert_eq!(format_of(&copy).unwrap(), 1);
        let rows: i64 = copy
            .query_row("SELECT count(*) FROM window", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 2);
        drop(ledger);
        // It is brought over once.
        let (again, _) = Ledger::open(directory.path(), at(61)).unwrap();
        assert_eq!(known(&again), what_it_knew());
    }

    #[test]
    fn a_crash_between_the_copy_and_the_change_is_made_good_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        format_1(directory.path());
        let path = directory.path().join("ledger.db");
        keep_copy(&Connection::open(&path).unwrap(), &path).unwrap();
        std::fs::write(directory.path().join("ledger.db.format-1.new"), b"half").unwrap();
        let (ledger, _) = Ledger::open(directory.path(), at(60)).unwrap();
        assert_eq!(known(&ledger), what_it_knew());
    }

    #[test]
    fn a_command_beside_an_older_daemon_reads_its_ledger_and_leaves_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        format_1(directory.path());
        let ledger = Ledger::open_existing(directory.path()).unwrap().unwrap();
        assert_eq!(known(&ledger), what_it_knew());
        assert_eq!(ledger.census().unwrap().skipped, 1);
        let window = Window::new(at(5), Cadence::Pt5m).unwrap();
        let refused = ledger.record(&Entry::new(&window, State::Empty));
        let said = refused.unwrap_err().to_string();
        assert!(
            said.contains("format 1") && said.contains("start"),
            "{said}"
        );
        drop(ledger);
        let old = Connection::open(directory.path().join("ledger.db")).unwrap();
        assert_eq!(format_of(&old).unwrap(), 1);
    }

    #[test]
    fn a_format_that_its_tables_contradict_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path(), at(0)).unwrap();
        drop(ledger);
        let path = directory.path().join("ledger.db");
        let changed = Connection::open(&path).unwrap();
        changed.pragma_update(None, "user_version", 1).unwrap();
        drop(changed);
        let (_, opened) = Ledger::open(directory.path(), at(1)).unwrap();
        assert!(matches!(opened, Opened::Replaced(_)), "{opened:?}");
    }
}
