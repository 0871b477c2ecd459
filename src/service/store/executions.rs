//! The rows of executions and events: claiming what is due, and recording how it ended.
//!
//! Guarantees: an execution's identity is (scheduler, boundary), so a boundary is claimed once; the claim is committed
//! before any work, and its end, the scoring state and the events are committed together, so that whatever crashes in
//! between is redone from the state before it. What is due is a pure function of the rows and `now`.

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::events::{self, Anomaly};
use super::schedulers::{self, COLUMNS, Scheduler};
use super::{parse, tags};
use crate::service::faults::Fault;

use crate::service::options::Options;
use crate::signal::{Cadence, Window};

/// A claimed execution with everything it needs.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The scheduler as it was when the execution was claimed.
    pub scheduler: Scheduler,
    /// The options its tags ask for.
    pub options: Options,
    /// The window to score.
    pub window: Window,
    /// Identity of the model.
    pub model_uuid: String,
    /// The model's active version.
    pub model_version: i64,
    /// The model's running state after the last execution.
    pub scoring_state: Option<Vec<u8>>,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// Results are in S3.
    Success {
        /// Bucket of the results object.
        bucket: String,
        /// Its key.
        key: String,
        /// The model's running state after the window; `None` leaves the stored one.
        scoring_state: Option<Vec<u8>>,
        /// Lines written.
        rows: usize,
        /// The lines with prediction 1, in time order.
        anomalies: Vec<Anomaly>,
        /// Anomalies at most this far apart are one event.
        step_us: i64,
    },
    /// No results; the reason is what the client reads.
    Failed(String),
}

/// The boundary to run at `now` for a scheduler whose next one is `next`, and how many before it are given up.
///
/// Without `catch_up` only the latest due boundary is run: one whose successor is due as well was missed.
pub fn due(
    next: Window,
    delay: TimeDelta,
    now: DateTime<Utc>,
    catch_up: bool,
) -> Option<(Window, i64)> {
    if next.end() + delay > now {
        return None;
    }
    if catch_up {
        return Some((next, 0));
    }
    // The window that contains `now - delay` is the first that is not due.
    let latest = Window::containing(now - delay, next.cadence()).previous();
    let missed = (latest.end() - next.end()).num_seconds() / next.cadence().seconds();
    Some((latest, missed))
}

/// Claims every due boundary of RUNNING schedulers that `busy` does not hold back.
pub fn claim(
    db: &Connection,
    now: DateTime<Utc>,
    catch_up: bool,
    busy: impl Fn(&str) -> bool,
) -> Result<Vec<Claim>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM scheduler s JOIN model m ON m.name = s.model_name
         WHERE s.status = 'RUNNING' AND s.due_us <= ?1"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let found: Vec<Scheduler> = statement
        .query_map([now.timestamp_micros()], schedulers::read)?
        .collect::<rusqlite::Result<_>>()?;
    let mut claims = Vec::new();
    for scheduler in found.into_iter().filter(|scheduler| !busy(&scheduler.uuid)) {
        let options = options(db, &scheduler)?;
        let cadence: Cadence = scheduler.frequency.parse().map_err(|_| Fault::internal())?;
        let delay = TimeDelta::minutes(scheduler.delay_minutes);
        let Some(next) = scheduler
            .next_boundary_us
            .and_then(DateTime::from_timestamp_micros)
        else {
            continue;
        };
        let next = Window::containing(next, cadence).previous();
        let Some((window, missed)) = due(next, delay, now, catch_up || options.catch_up) else {
            continue;
        };
        if missed > 0 {
            tracing::warn!(
                scheduler = scheduler.name,
                missed,
                "windows passed without an execution"
            );
        }
        set_next(db, &scheduler.uuid, window.next(), delay)?;
        let (model_uuid, model_version, version_arn) = active_version(db, &scheduler.model_name)?;
        let inserted = db.execute(
            "INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output,
                                    model_version, model_version_arn)
             VALUES (?1, ?2, ?3, ?4, 'IN_PROGRESS', ?5, ?6, ?7, ?8)
             ON CONFLICT (scheduler_uuid, boundary_us) DO NOTHING",
            params![
                scheduler.uuid,
                window.end().timestamp_micros(),
                window.start().timestamp_micros(),
                (window.end() + delay).timestamp_micros(),
                scheduler.input.to_string(),
                scheduler.output.to_string(),
                model_version,
                version_arn,
            ],
        )?;
        // A boundary that was run before (the clock went back) is not run again.
        if inserted == 1 {
            let scoring_state = scoring_state(db, &scheduler.uuid)?;
            claims.push(Claim {
                scheduler,
                options,
                window,
                model_uuid,
                model_version,
                scoring_state,
            });
        }
    }
    Ok(claims)
}

/// The executions a crash left IN_PROGRESS, oldest first, to be done again as they were claimed.
pub fn interrupted(db: &Connection) -> Result<Vec<Claim>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS}, e.boundary_us, e.start_us, e.input, e.output, e.model_version, m.uuid
         FROM execution e JOIN scheduler s ON s.uuid = e.scheduler_uuid JOIN model m ON m.name = s.model_name
         WHERE e.status = 'IN_PROGRESS' ORDER BY e.boundary_us"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut claims = Vec::new();
    while let Some(row) = rows.next()? {
        let mut scheduler = schedulers::read(row)?;
        let (boundary_us, start_us): (i64, i64) = (row.get(16)?, row.get(17)?);
        scheduler.input = parse(&row.get::<_, String>(18)?)?;
        scheduler.output = parse(&row.get::<_, String>(19)?)?;
        let window = window_of(start_us, boundary_us)?;
        let options = options(db, &scheduler)?;
        let scoring_state = scoring_state(db, &scheduler.uuid)?;
        let (model_version, model_uuid) = (row.get(20)?, row.get(21)?);
        claims.push(Claim {
            scheduler,
            options,
            window,
            model_uuid,
            model_version,
            scoring_state,
        });
    }
    Ok(claims)
}

/// Executions of a scheduler that failed for want of data, or of the store, since `since`, newest first, to be looked at again: with the
/// version they were claimed with and a fresh scoring state, since later windows have moved the stored one on.
pub fn without_data(
    db: &Connection,
    scheduler: &Scheduler,
    since: DateTime<Utc>,
) -> Result<Vec<Claim>, Fault> {
    let sql = "SELECT e.start_us, e.boundary_us, e.model_version, m.uuid FROM execution e
               JOIN scheduler s ON s.uuid = e.scheduler_uuid JOIN model m ON m.name = s.model_name
               WHERE e.scheduler_uuid = ?1 AND e.boundary_us > ?2 AND e.status = 'FAILED'
                 AND (e.failed_reason LIKE 'Could not find data%' OR e.failed_reason LIKE 'Could not read ''s3:%'
                      OR e.failed_reason LIKE 'Could not write ''s3:%' OR e.failed_reason LIKE 'cannot list s3:%')
               ORDER BY e.boundary_us DESC LIMIT 12";
    let options = options(db, scheduler)?;
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![scheduler.uuid, since.timestamp_micros()])?;
    let mut claims = Vec::new();
    while let Some(row) = rows.next()? {
        let (start_us, boundary_us): (i64, i64) = (row.get(0)?, row.get(1)?);
        let window = window_of(start_us, boundary_us)?;
        let options = Options {
            wait: std::time::Duration::ZERO,
            ..options
        };
        let (model_version, model_uuid) = (row.get(2)?, row.get(3)?);
        let scheduler = scheduler.clone();
        claims.push(Claim {
            scheduler,
            options,
            window,
            model_uuid,
            model_version,
            scoring_state: None,
        });
    }
    Ok(claims)
}

/// Turns a failed execution into the success it became when its data had come.
pub fn finish_late(
    db: &Connection,
    claim: &Claim,
    now: DateTime<Utc>,
    end: &End,
) -> Result<(), Fault> {
    let End::Success {
        bucket,
        key,
        rows,
        anomalies,
        step_us,
        ..
    } = end
    else {
        return Ok(());
    };
    let changed = db.execute(
        "UPDATE execution SET status = 'SUCCESS', failed_reason = NULL, result_bucket = ?3, result_key = ?4,
                              finished_us = ?5, rows = ?6, anomalous = ?7
         WHERE scheduler_uuid = ?1 AND boundary_us = ?2 AND status = 'FAILED'",
        params![
            claim.scheduler.uuid,
            claim.window.end().timestamp_micros(),
            bucket,
            key,
            now.timestamp_micros(),
            *rows as i64,
            anomalies.len() as i64
        ],
    )?;
    for anomaly in anomalies.iter().filter(|_| changed == 1) {
        events::extend(db, &claim.scheduler.uuid, anomaly, *step_us)?;
    }
    Ok(())
}

/// Records how an execution ended; nothing if its scheduler was deleted meanwhile or it has ended already.
pub fn finish(
    db: &Connection,
    scheduler_uuid: &str,
    boundary_us: i64,
    now: DateTime<Utc>,
    end: &End,
) -> Result<(), Fault> {
    let now = now.timestamp_micros();
    match end {
        End::Failed(reason) => {
            db.execute(
                "UPDATE execution SET status = 'FAILED', failed_reason = ?3, finished_us = ?4
                 WHERE scheduler_uuid = ?1 AND boundary_us = ?2 AND status = 'IN_PROGRESS'",
                params![scheduler_uuid, boundary_us, reason, now],
            )?;
        }
        End::Success {
            bucket,
            key,
            scoring_state,
            rows,
            anomalies,
            step_us,
        } => {
            let changed = db.execute(
                "UPDATE execution SET status = 'SUCCESS', result_bucket = ?3, result_key = ?4, finished_us = ?5,
                                      rows = ?6, anomalous = ?7
                 WHERE scheduler_uuid = ?1 AND boundary_us = ?2 AND status = 'IN_PROGRESS'",
                params![scheduler_uuid, boundary_us, bucket, key, now, *rows as i64, anomalies.len() as i64],
            )?;
            if changed == 0 {
                return Ok(());
            }
            let latest = if anomalies.is_empty() {
                "NORMAL"
            } else {
                "ANOMALOUS"
            };
            db.execute(
                "UPDATE scheduler SET latest_result = ?2, scoring_state = coalesce(?3, scoring_state) WHERE uuid = ?1",
                params![scheduler_uuid, latest, scoring_state],
            )?;
            for anomaly in anomalies {
                events::extend(db, scheduler_uuid, anomaly, *step_us)?;
            }
        }
    }
    Ok(())
}

/// Makes a scheduler that has just become RUNNING run from its next boundary on: the first after `now`, or the one it
/// stopped at if the windows since are to be caught up.
pub fn begin(
    db: &Connection,
    scheduler: &Scheduler,
    now: DateTime<Utc>,
    catch_up: bool,
) -> Result<(), Fault> {
    let cadence: Cadence = scheduler.frequency.parse().map_err(|_| Fault::internal())?;
    let left_at = scheduler
        .next_boundary_us
        .and_then(DateTime::from_timestamp_micros);
    let window = match left_at {
        Some(boundary) if catch_up || options(db, scheduler)?.catch_up => {
            Window::containing(boundary, cadence).previous()
        }
        _ => Window::containing(now, cadence),
    };
    set_next(
        db,
        &scheduler.uuid,
        window,
        TimeDelta::minutes(scheduler.delay_minutes),
    )
}

/// When the next scheduler that is not due yet will be.
pub fn next_due(db: &Connection, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Fault> {
    let sql = "SELECT min(due_us) FROM scheduler WHERE status = 'RUNNING' AND due_us > ?1";
    let due: Option<i64> = db
        .prepare_cached(sql)?
        .query_row([now.timestamp_micros()], |row| row.get(0))?;
    Ok(due.and_then(DateTime::from_timestamp_micros))
}

/// Whether the scheduler has an execution IN_PROGRESS.
pub fn in_progress(db: &Connection, scheduler_uuid: &str) -> Result<bool, Fault> {
    let sql =
        "SELECT 1 FROM execution WHERE status = 'IN_PROGRESS' AND scheduler_uuid = ?1 LIMIT 1";
    let found: Option<i64> = db
        .prepare_cached(sql)?
        .query_row([scheduler_uuid], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

/// The window of a stored execution.
fn window_of(start_us: i64, boundary_us: i64) -> Result<Window, Fault> {
    let cadence = Cadence::ALL
        .into_iter()
        .find(|cadence| cadence.micros() == boundary_us - start_us);
    match (cadence, DateTime::from_timestamp_micros(start_us)) {
        (Some(cadence), Some(start)) => Ok(Window::containing(start, cadence)),
        _ => Err(Fault::internal()),
    }
}

fn set_next(db: &Connection, uuid: &str, window: Window, delay: TimeDelta) -> Result<(), Fault> {
    let boundary = window.end();
    db.execute(
        "UPDATE scheduler SET next_boundary_us = ?2, due_us = ?3 WHERE uuid = ?1",
        params![
            uuid,
            boundary.timestamp_micros(),
            (boundary + delay).timestamp_micros()
        ],
    )?;
    Ok(())
}

fn options(db: &Connection, scheduler: &Scheduler) -> Result<Options, Fault> {
    let tags = tags::of(db, &scheduler.arn)?;
    Options::from_tags(
        tags.iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    )
}

fn active_version(db: &Connection, model: &str) -> Result<(String, i64, String), Fault> {
    let sql = "SELECT m.uuid, v.version, v.arn FROM model m
               JOIN model_version v ON v.model_uuid = m.uuid AND v.version = m.active_version WHERE m.name = ?1";
    Ok(db
        .prepare_cached(sql)?
        .query_row([model], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
}

fn scoring_state(db: &Connection, uuid: &str) -> Result<Option<Vec<u8>>, Fault> {
    let sql = "SELECT scoring_state FROM scheduler WHERE uuid = ?1";
    Ok(db
        .prepare_cached(sql)?
        .query_row([uuid], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn window(start: &str) -> Window {
        Window::new(at(start), Cadence::Pt5m).unwrap()
    }

    #[test]
    fn a_window_is_due_at_its_end_plus_the_delay() {
        let next = window("2022-05-13T09:05:00Z");
        let delay = TimeDelta::minutes(5);
        assert_eq!(
            due(next, delay, at("2022-05-13T09:14:59.999Z"), false),
            None
        );
        assert_eq!(
            due(next, delay, at("2022-05-13T09:15:00Z"), false),
            Some((next, 0))
        );
        assert_eq!(
            due(next, TimeDelta::zero(), at("2022-05-13T09:10:00Z"), false),
            Some((next, 0))
        );
    }

    #[test]
    fn missed_windows_are_given_up_unless_they_are_to_be_caught_up() {
        let next = window("2022-05-13T09:05:00Z");
        let now = at("2022-05-13T10:02:00Z");
        assert_eq!(
            due(next, TimeDelta::zero(), now, false),
            Some((window("2022-05-13T09:55:00Z"), 10))
        );
        assert_eq!(due(next, TimeDelta::zero(), now, true), Some((next, 0)));
    }
}
