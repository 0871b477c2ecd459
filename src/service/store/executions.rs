//! The rows of executions: claiming what is due, and recording how it ended.
//!
//! Guarantees: an execution's identity is (scheduler, boundary), so a boundary is claimed once; the claim is committed
//! before any work, and its end, the scoring state and the events are committed together, so that whatever crashes in
//! between is redone from the state before it. What is due is a pure function of the rows and `now`: a boundary that a clock
//! which was ahead left in the future is moved back, a SUCCESS of the future stays, a FAILED one is void until its window is
//! run again, and nothing is due while the clock has not been set. A row that this build does not understand fails its own
//! scheduler's window and holds up no other.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::events::{self, Anomaly};
use super::schedulers::{self, COLUMNS, Scheduler};
use super::words::words;
use super::{Store, json_column, understood};
use crate::service::faults::Fault;
use crate::service::options::Options;
use crate::signal::{Cadence, Window};

mod claim;
mod late;
mod rewind;

pub(super) use claim::begin;
pub use claim::{CatchUp, Due, Look, Refused, due};
pub use rewind::Rewound;

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

words! {
    /// Where an execution stands.
    pub enum ExecutionStatus {
        /// It was claimed and has not ended.
        InProgress = "IN_PROGRESS",
        /// Its results are in S3.
        Success = "SUCCESS",
        /// It has none.
        Failed = "FAILED",
    }
}

words! {
    /// Why an execution failed, as far as somebody decides by it. The text for people stands beside it.
    pub enum FailureKind {
        /// A component has no file.
        NoFile = "NO_FILE",
        /// A component has no row in the window.
        NoRows = "NO_ROWS",
        /// The store did not answer, refused or broke off.
        Store = "STORE",
        /// A file cannot be read, or lacks a column.
        Input = "INPUT",
        /// More files, bytes or rows than a window may have.
        InputTooLarge = "INPUT_TOO_LARGE",
        /// The results' place holds what this scheduler did not write.
        Output = "OUTPUT",
        /// The model's file or version is not there or cannot be used.
        Model = "MODEL",
        /// The scheduler's own configuration or tags cannot be used.
        Configuration = "CONFIGURATION",
        /// It took too long.
        Timeout = "TIMEOUT",
        /// A fault of the service.
        Internal = "INTERNAL",
    }
}

/// Why an execution failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// For decisions.
    pub kind: FailureKind,
    /// For people: the API's `FailedReason`.
    pub reason: String,
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
        /// The highest score of them, where they have one.
        score: Option<f64>,
        /// The lines with prediction 1, in time order.
        anomalies: Vec<Anomaly>,
        /// The model's step, by which anomalies join into events.
        step_us: i64,
    },
    /// No results.
    Failed(Failed),
}

impl FailureKind {
    /// The data may come later, or were there and could not be had: the window is worth another look.
    pub const fn may_come(self) -> bool {
        matches!(
            self,
            Self::NoFile | Self::NoRows | Self::Store | Self::Timeout
        )
    }
}

impl Failed {
    /// A failure of that kind.
    pub fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }
}

impl Store {
    /// The executions a crash left IN_PROGRESS, oldest first, to be done again as they were claimed; and those that cannot be
    /// done again, which are recorded as FAILED.
    pub async fn interrupted(
        &self,
        now: DateTime<Utc>,
    ) -> Result<(Vec<Claim>, Vec<Refused>), Fault> {
        self.transact(move |db| interrupted(db, now)).await
    }

    /// Records how an execution ended; nothing if its scheduler was deleted meanwhile or it has ended already.
    pub async fn end_execution(
        &self,
        scheduler_uuid: &str,
        boundary_us: i64,
        now: DateTime<Utc>,
        end: End,
    ) -> Result<(), Fault> {
        let uuid = scheduler_uuid.to_owned();
        self.transact(move |db| match &end {
            End::Failed(failed) => fail(db, &uuid, boundary_us, now, failed),
            End::Success { .. } => succeed(db, &uuid, boundary_us, now, &end),
        })
        .await
    }
}

fn interrupted(db: &Connection, now: DateTime<Utc>) -> Result<(Vec<Claim>, Vec<Refused>), Fault> {
    let sql = format!(
        "SELECT {COLUMNS}, e.boundary_us, e.start_us, coalesce(c.input, e.input), coalesce(c.output, e.output), e.model_version,
                m.uuid
         FROM execution e JOIN scheduler s ON s.uuid = e.scheduler_uuid JOIN model m ON m.name = s.model_name
         LEFT JOIN scheduler_configuration c ON c.id = e.configuration_id
         WHERE e.status = 'IN_PROGRESS' ORDER BY e.boundary_us"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let (mut claims, mut refused) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let failed = match again(db, row)? {
            Ok(claim) => {
                claims.push(claim);
                continue;
            }
            Err(failed) => failed,
        };
        let (scheduler, uuid): (String, String) = (row.get(0)?, row.get(1)?);
        let boundary_us = row.get(16)?;
        fail(db, &uuid, boundary_us, now, &failed)?;
        refused.push(Refused {
            scheduler,
            end: DateTime::from_timestamp_micros(boundary_us).unwrap_or(now),
            failed,
        });
    }
    Ok((claims, refused))
}

/// The claim of an execution to be done again, or why this build cannot.
fn again(db: &Connection, row: &Row<'_>) -> Result<Result<Claim, Failed>, Fault> {
    let claimed = || {
        let mut scheduler = schedulers::read(row)?;
        (scheduler.input, scheduler.output) = (json_column(row, 18)?, json_column(row, 19)?);
        Ok(scheduler)
    };
    let scheduler = match understood(claimed())? {
        Ok(scheduler) => scheduler,
        Err(problem) => return Ok(Err(not_understood(&problem))),
    };
    let schedule = schedulers::schedule(db, &scheduler.uuid)?;
    if let Some(problem) = schedule.and_then(|schedule| schedule.problem) {
        return Ok(Err(not_understood(&problem)));
    }
    let Some(window) = window_of(row.get(17)?, row.get(16)?) else {
        return Ok(Err(not_understood("its window has an unknown length")));
    };
    let options = match options(db, &scheduler.arn)? {
        Ok(options) => options,
        Err(failed) => return Ok(Err(failed)),
    };
    let scoring_state = scoring_state(db, &scheduler.uuid)?;
    Ok(Ok(Claim {
        scheduler,
        options,
        window,
        model_uuid: row.get(21)?,
        model_version: row.get(20)?,
        scoring_state,
    }))
}

/// What a scheduler fails with that another build may understand, or that is damaged.
fn not_understood(problem: &str) -> Failed {
    Failed::new(
        FailureKind::Configuration,
        format!(
            "This build of the service does not understand the scheduler: {problem}. Start the build that stored it, or delete \
             the scheduler and create it again"
        ),
    )
}

fn fail(
    db: &Connection,
    uuid: &str,
    boundary_us: i64,
    now: DateTime<Utc>,
    failed: &Failed,
) -> Result<(), Fault> {
    db.prepare_cached(
        "UPDATE execution SET status = 'FAILED', failed_kind = ?3, failed_reason = ?4, finished_us = ?5
         WHERE scheduler_uuid = ?1 AND boundary_us = ?2 AND status = 'IN_PROGRESS'",
    )?
    .execute(params![
        uuid,
        boundary_us,
        failed.kind,
        failed.reason,
        now.timestamp_micros()
    ])?;
    Ok(())
}

fn succeed(
    db: &Connection,
    uuid: &str,
    boundary_us: i64,
    now: DateTime<Utc>,
    end: &End,
) -> Result<(), Fault> {
    let End::Success { scoring_state, .. } = end else {
        return Ok(());
    };
    if !record(db, uuid, boundary_us, now, end, ExecutionStatus::InProgress)? {
        return Ok(());
    }
    latest(db, uuid, now, scoring_state.as_deref())
}

/// What the API tells of the last result: that of the newest SUCCESS up to now, `?2`, whichever was recorded last.
const LATEST: &str = "(SELECT CASE WHEN e.anomalous > 0 THEN 'ANOMALOUS' ELSE 'NORMAL' END FROM execution e
     WHERE e.scheduler_uuid = scheduler.uuid AND e.status = 'SUCCESS' AND e.boundary_us <= ?2 + 300000000
     ORDER BY e.boundary_us DESC LIMIT 1)";

/// Notes what is told of the last result, and the running state where it moved on.
fn latest(
    db: &Connection,
    uuid: &str,
    now: DateTime<Utc>,
    scoring_state: Option<&[u8]>,
) -> Result<(), Fault> {
    db.prepare_cached(&format!(
        "UPDATE scheduler SET latest_result = {LATEST}, scoring_state = coalesce(?3, scoring_state) WHERE uuid = ?1"
    ))?
    .execute(params![uuid, now.timestamp_micros(), scoring_state])?;
    Ok(())
}

/// Turns an execution in the status `from` into the SUCCESS it ended as, with its events; false if it is in another.
fn record(
    db: &Connection,
    uuid: &str,
    boundary_us: i64,
    now: DateTime<Utc>,
    end: &End,
    from: ExecutionStatus,
) -> Result<bool, Fault> {
    let End::Success {
        bucket,
        key,
        rows,
        score,
        anomalies,
        step_us,
        ..
    } = end
    else {
        return Ok(false);
    };
    let changed = db
        .prepare_cached(
            "UPDATE execution SET status = 'SUCCESS', failed_kind = NULL, failed_reason = NULL, result_bucket = ?3,
                                  result_key = ?4, finished_us = ?5, rows = ?6, anomalous = ?7,
                                  score = ?9
             WHERE scheduler_uuid = ?1 AND boundary_us = ?2 AND status = ?8",
        )?
        .execute(params![
            uuid,
            boundary_us,
            bucket,
            key,
            now.timestamp_micros(),
            *rows as i64,
            anomalies.len() as i64,
            from,
            score
        ])?;
    for anomaly in anomalies.iter().filter(|_| changed == 1) {
        events::extend(db, uuid, anomaly, *step_us)?;
    }
    Ok(changed == 1)
}

/// Whether the scheduler has an execution IN_PROGRESS.
pub(super) fn in_progress(db: &Connection, scheduler_uuid: &str) -> Result<bool, Fault> {
    let sql =
        "SELECT 1 FROM execution WHERE status = 'IN_PROGRESS' AND scheduler_uuid = ?1 LIMIT 1";
    let found: Option<i64> = db
        .prepare_cached(sql)?
        .query_row([scheduler_uuid], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

/// The window of a stored execution, where it has a length that this build knows.
fn window_of(start_us: i64, boundary_us: i64) -> Option<Window> {
    let length = boundary_us.checked_sub(start_us)?;
    let cadence = Cadence::ALL
        .into_iter()
        .find(|cadence| cadence.micros() == length)?;
    let start = DateTime::from_timestamp_micros(start_us)?;
    Some(Window::containing(start, cadence))
}

/// The options of a scheduler's tags, or why this build cannot go by them.
fn options(db: &Connection, arn: &str) -> Result<Result<Options, Failed>, Fault> {
    let mut statement =
        db.prepare_cached("SELECT key, value FROM tag WHERE arn = ?1 ORDER BY key")?;
    let tags: Vec<(String, String)> = statement
        .query_map([arn], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let options = Options::from_tags(
        tags.iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    );
    Ok(options.map_err(|fault| Failed::new(FailureKind::Configuration, fault.message)))
}

fn scoring_state(db: &Connection, uuid: &str) -> Result<Option<Vec<u8>>, Fault> {
    let sql = "SELECT scoring_state FROM scheduler WHERE uuid = ?1";
    Ok(db
        .prepare_cached(sql)?
        .query_row([uuid], |row| row.get(0))?)
}

/// Options without a wait, for a window whose time to wait is over.
fn at_once(options: Options) -> Options {
    Options {
        wait: Duration::ZERO,
        ..options
    }
}

#[cfg(test)]
mod tests;
