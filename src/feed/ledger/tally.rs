//! How many windows are in each state, kept beside them, so that asking costs the same after ten years as after a day.
//!
//! Guarantees: it changes in the transaction that changes a window; after an unclean stop, and where it is not there yet, it is
//! counted anew.

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

/// A skipped range counts as one of this state.
const RANGE: &str = "range";

const KEPT: &str = "
    CREATE TABLE tally (
        asset TEXT NOT NULL, state TEXT NOT NULL, windows INTEGER NOT NULL,
        PRIMARY KEY (asset, state)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER window_added AFTER INSERT ON window BEGIN
        INSERT INTO tally VALUES (new.asset, new.state, 1) ON CONFLICT (asset, state) DO UPDATE SET windows = windows + 1;
    END;
    CREATE TRIGGER window_removed AFTER DELETE ON window BEGIN
        UPDATE tally SET windows = windows - 1 WHERE asset = old.asset AND state = old.state;
    END;
    CREATE TRIGGER window_changed AFTER UPDATE OF asset, state ON window
        WHEN old.state <> new.state OR old.asset <> new.asset BEGIN
        UPDATE tally SET windows = windows - 1 WHERE asset = old.asset AND state = old.state;
        INSERT INTO tally VALUES (new.asset, new.state, 1) ON CONFLICT (asset, state) DO UPDATE SET windows = windows + 1;
    END;
    CREATE TRIGGER range_added AFTER INSERT ON skipped BEGIN
        INSERT INTO tally VALUES (new.asset, 'range', 1) ON CONFLICT (asset, state) DO UPDATE SET windows = windows + 1;
    END;
    CREATE TRIGGER range_removed AFTER DELETE ON skipped BEGIN
        UPDATE tally SET windows = windows - 1 WHERE asset = old.asset AND state = 'range';
    END;";

const COUNTED: &str = "SELECT asset, state, count(*) AS windows FROM window GROUP BY asset, state
    UNION ALL SELECT asset, 'range', count(*) FROM skipped GROUP BY asset";

/// Has it kept from now on; `anew` where what is kept, or how, cannot be relied on.
pub(super) fn keep(connection: &Connection, anew: bool) -> rusqlite::Result<()> {
    if is_kept(connection)? && !anew {
        return Ok(());
    }
    match begin(connection) {
        // What cannot be written now is said by whoever has to write; a full disk keeps no gateway from starting.
        Err(error)
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::ReadOnly | ErrorCode::DiskFull)
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Takes away what there is of it and counts.
fn begin(connection: &Connection) -> rusqlite::Result<()> {
    // At once, so that another process that writes is waited for.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let triggers: Vec<String> = transaction
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for name in triggers {
        let name = name.replace('"', "\"\"");
        transaction.execute_batch(&format!("DROP TRIGGER \"{name}\""))?;
    }
    transaction.execute_batch(&format!(
        "DROP TABLE IF EXISTS tally; {KEPT} INSERT INTO tally {COUNTED};"
    ))?;
    transaction.commit()
}

/// States of an asset's windows with their numbers; a skipped range counts as one skipped window.
pub(super) fn of(connection: &Connection, asset: &str) -> rusqlite::Result<Vec<(String, u64)>> {
    let found = if is_kept(connection)? {
        "SELECT state, windows FROM tally WHERE asset = ?1 AND windows > 0".to_owned()
    } else {
        // A ledger of an earlier format, which may only be read.
        format!("SELECT state, windows FROM ({COUNTED}) WHERE asset = ?1")
    };
    connection
        .prepare_cached(&found)?
        .query_map([asset], |row| {
            let state: String = row.get(0)?;
            let windows: i64 = row.get(1)?;
            let state = match state.as_str() {
                RANGE => "skipped".to_owned(),
                _ => state,
            };
            Ok((state, windows as u64))
        })?
        .collect()
}

fn is_kept(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'tally'",
        [],
        |row| Ok(row.get::<_, i64>(0)? > 0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> (tempfile::TempDir, Connection) {
        let directory = tempfile::tempdir().unwrap();
        drop(super::super::Ledger::open(directory.path(), Default::default()).unwrap());
        let connection = Connection::open(directory.path().join("ledger.db")).unwrap();
        (directory, connection)
    }

    fn counted(connection: &Connection, asset: &str) -> Vec<(String, u64)> {
        let mut counted = connection
            .prepare(&format!(
                "SELECT state, windows FROM ({COUNTED}) WHERE asset = ?1"
            ))
            .unwrap();
        let rows = counted.query_map([asset], |row| {
            let state: String = row.get(0)?;
            Ok((
                state.replace(RANGE, "skipped"),
                row.get::<_, i64>(1)? as u64,
            ))
        });
        let mut rows: Vec<_> = rows.unwrap().collect::<Result<_, _>>().unwrap();
        rows.sort();
        rows
    }

    #[test]
    fn what_is_kept_is_what_is_counted_whatever_changes() {
        let (_directory, connection) = ledger();
        let states = ["due", "spooled", "shipped", "quarantined", "skipped"];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let (asset, start) = (["", "pump"][random.usize(..2)], random.i64(0..40) * 300);
            let state = states[random.usize(..states.len())];
            match random.u8(..5) {
                0 | 1 => connection.execute(
                    "INSERT INTO window (asset, start, end, cadence, state) VALUES (?1, ?2, ?2 + 300, 'PT5M', ?3)
                     ON CONFLICT (asset, start) DO UPDATE SET state = ?3",
                    (asset, start, state),
                ),
                2 => connection.execute(
                    "UPDATE window SET state = ?3 WHERE asset = ?1 AND start >= ?2",
                    (asset, start, state),
                ),
                3 => connection.execute(
                    "DELETE FROM window WHERE asset = ?1 AND start = ?2",
                    (asset, start),
                ),
                _ => connection.execute(
                    "INSERT OR IGNORE INTO skipped VALUES (?1, ?2, ?2 + 600, 'PT5M', 'downtime')",
                    (asset, start),
                ),
            }
            .unwrap();
        }
        for asset in ["", "pump"] {
            // Sums where windows and ranges are skipped alike.
            let mut kept = of(&connection, asset).unwrap();
            kept.sort();
            assert_eq!(kept, counted(&connection, asset));
        }
        keep(&connection, true).unwrap();
        let mut kept = of(&connection, "pump").unwrap();
        kept.sort();
        assert_eq!(kept, counted(&connection, "pump"));
    }

    #[test]
    fn asking_reads_a_row_for_each_state_and_no_window() {
        let (_directory, connection) = ledger();
        let plan: Vec<String> = connection
            .prepare("EXPLAIN QUERY PLAN SELECT state, windows FROM tally WHERE asset = '' AND windows > 0")
            .unwrap()
            .query_map([], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(plan, ["SEARCH tally USING PRIMARY KEY (asset=?)"]);
        connection.execute("DROP TABLE tally", []).unwrap();
        assert_eq!(of(&connection, "").unwrap(), []);
    }

    #[test]
    fn a_ledger_that_was_cut_off_is_counted_anew() {
        let (directory, connection) = ledger();
        connection
            .execute_batch(
                "INSERT INTO window (asset, start, end, cadence, state) VALUES ('', 300, 600, 'PT5M', 'shipped');
                 UPDATE tally SET windows = 9;",
            )
            .unwrap();
        drop(connection);
        // Something has written since the last clean stop.
        drop(std::fs::remove_file(directory.path().join("ledger.clean")));
        let (ledger, _) = super::super::Ledger::open(directory.path(), Default::default()).unwrap();
        assert_eq!(ledger.census().unwrap().shipped, 1);
    }
}
