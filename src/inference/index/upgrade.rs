//! An index of an earlier format becomes one of this: what it lacks is read from the archive's files.

use std::path::Path;

use rusqlite::{Connection, params};
use tracing::info;

use super::{Archived, COLUMNS, FORMAT, IndexError, json, read_row};
use crate::inference::archive::Archive;
use crate::inference::result::Summary;

/// From format 1: the runs of anomalous lines, which events are put together from.
const FROM_1: &str = "
ALTER TABLE execution ADD COLUMN runs TEXT NOT NULL DEFAULT '[]';
ALTER TABLE execution ADD COLUMN step_us INTEGER NOT NULL DEFAULT 0;
CREATE INDEX anomalous ON execution (scheduler, start_us) WHERE anomalous > 0;
";

/// Brings an index of format 1 to this one: only windows with anomalous lines are read again.
pub(super) fn from_1(
    connection: &mut Connection,
    archive: &Archive,
    path: &Path,
) -> Result<(), IndexError> {
    let fail = |source| IndexError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let transaction = connection.transaction().map_err(fail)?;
    transaction.execute_batch(FROM_1).map_err(fail)?;
    let query = format!("SELECT {COLUMNS} FROM execution WHERE anomalous > 0");
    let anomalous: Vec<Archived> = {
        let mut statement = transaction.prepare(&query).map_err(fail)?;
        let rows = statement.query_map([], read_row).map_err(fail)?;
        rows.collect::<rusqlite::Result<_>>().map_err(fail)?
    };
    for row in &anomalous {
        let Some(summary) = archive
            .results(&row.execution)?
            .and_then(|bytes| Summary::of(&bytes).ok())
        else {
            continue;
        };
        transaction
            .prepare_cached(
                "UPDATE execution SET runs = ?3, step_us = ?4 WHERE scheduler = ?1 AND start_us = ?2",
            )
            .and_then(|mut update| {
                update.execute(params![
                    row.execution.scheduler,
                    row.execution.data_start.timestamp_micros(),
                    json(&summary.runs),
                    summary.step_us
                ])
            })
            .map_err(fail)?;
    }
    transaction
        .pragma_update(None, "user_version", FORMAT)
        .map_err(fail)?;
    transaction.commit().map_err(fail)?;
    info!(
        windows = anomalous.len(),
        "the index of the archive knows the runs of anomalous rows now"
    );
    Ok(())
}
