//! What a clock that was ahead left in the future, and putting it back.
//!
//! A window that begins after `now` cannot have been executed in its time. Its SUCCESS stays, since a client may have read
//! the results, and counts when its time comes; its FAILED is void and the window is run when it is due; a schedule that
//! waits for a boundary beyond the current window goes on after the last execution that is not of the future.

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, params};

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
    /// Failed executions of the future that were forgotten.
    pub void: usize,
}

/// Puts every scheduler back that is ahead of `now`; returns what was changed.
pub(super) fn all(db: &Connection, now: DateTime<Utc>) -> Result<Vec<Rewound>, Fault> {
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
        let void = void(db, &uuid, current)?;
        let ahead = next_us.filter(|next| runs && *next > current.end().timestamp_micros());
        let mut rewound = Rewound {
            scheduler,
            from: None,
            to: None,
            void,
        };
        if let Some(next_us) = ahead {
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
                rewound.from = DateTime::from_timestamp_micros(next_us);
                rewound.to = Some(next.end());
            }
        }
        if void > 0 || rewound.to.is_some() {
            changed.push(rewound);
        }
    }
    Ok(changed)
}

/// Forgets failed executions of windows that begin after the `current` one; returns how many there were.
pub(super) fn void(db: &Connection, uuid: &str, current: Window) -> Result<usize, Fault> {
    let sql = "DELETE FROM execution WHERE scheduler_uuid = ?1 AND boundary_us > ?2 AND status = 'FAILED'";
    Ok(db
        .prepare_cached(sql)?
        .execute(params![uuid, current.end().timestamp_micros()])?)
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
