//! What a clock that was ahead left in the future, and putting it back.
//!
//! A window that begins after `now` cannot have been executed in its time. Its SUCCESS stays, since a client may have read
//! the results, and counts when its time comes; its FAILED is void until then and the window is run again when it is due; a
//! schedule that waits for a boundary beyond the current window goes on after the last execution that is not of the future.
//!
//! Nothing is deleted: whether the clock was ahead then or is behind now cannot be told from one reading, and what failed
//! in the right time is to be there when the clock is right again.

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, params};

use super::LATEST;
use super::claim::set_next;
use crate::service::faults::Fault;
use crate::signal::{Cadence, Window};

/// A scheduler that was ahead of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewound {
    /// Its name.
    pub scheduler: String,
    /// The boundary it waited for.
    pub from: Option<DateTime<Utc>>,
    /// The boundary it waits for now.
    pub to: Option<DateTime<Utc>>,
}

/// Puts every scheduler back that is ahead of `now`; returns what was changed.
pub(super) fn all(db: &Connection, now: DateTime<Utc>) -> Result<Vec<Rewound>, Fault> {
    // A result of the future is not told before its time, and is from then on.
    db.prepare_cached(&format!(
        "UPDATE scheduler SET latest_result = {LATEST} WHERE ?1 AND latest_result IS NOT {LATEST}"
    ))?
    .execute(params![true, now.timestamp_micros()])?;
    let mut statement = db.prepare_cached(
        "SELECT uuid, name, frequency, delay_minutes, next_boundary_us, status = 'RUNNING', created_us
         FROM scheduler",
    )?;
    type Row = (String, String, String, i64, Option<i64>, bool, i64);
    let schedulers: Vec<Row> = statement
        .query_map([], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
                row.get(6)?,
            ))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut changed = Vec::new();
    for (uuid, scheduler, frequency, delay_minutes, next_us, runs, created_us) in schedulers {
        let Ok(cadence) = frequency.parse::<Cadence>() else {
            continue;
        };
        let current = Window::containing(now, cadence);
        let ahead = next_us.filter(|next| runs && *next > current.end().timestamp_micros());
        let Some(next_us) = ahead else { continue };
        let delay = TimeDelta::minutes(delay_minutes);
        let next = match after_the_last(db, &uuid, current)? {
            Some(next) => next,
            // It never ran: from the window that was due last, if it was there already.
            None => Some(Window::containing(now - delay, cadence).previous())
                .filter(|due| due.end().timestamp_micros() > created_us)
                .unwrap_or(current),
        };
        if next.end().timestamp_micros() != next_us {
            set_next(db, &uuid, next, delay)?;
            changed.push(Rewound {
                scheduler,
                from: DateTime::from_timestamp_micros(next_us),
                to: Some(next.end()),
            });
        }
    }
    Ok(changed)
}

/// The window after the last execution up to `current`.
fn after_the_last(db: &Connection, uuid: &str, current: Window) -> Result<Option<Window>, Fault> {
    let sql =
        "SELECT max(boundary_us) FROM execution WHERE scheduler_uuid = ?1 AND boundary_us <= ?2";
    let last: Option<i64> = db
        .prepare_cached(sql)?
        .query_row(params![uuid, current.end().timestamp_micros()], |row| {
            row.get(0)
        })?;
    let last = last.and_then(DateTime::from_timestamp_micros);
    Ok(last.map(|last| Window::containing(last, current.cadence())))
}
