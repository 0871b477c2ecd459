//! What is due, and claiming it.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::rewind::{self, Rewound};
use super::{Claim, ExecutionStatus, Failed, FailureKind, options, scoring_state};
use crate::service::faults::Fault;
use crate::service::store::Store;
use crate::service::store::schedulers::{self, COLUMNS, Scheduler};
use crate::signal::{Cadence, Window};

/// Windows that are overdue for longer are a backlog, which goes after what has just become due.
const BACKLOG: TimeDelta = TimeDelta::hours(1);

/// Whether and how far back windows that passed are run afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUp {
    /// For every scheduler; else for those whose tags ask for it.
    pub all: bool,
    /// Windows that end further back are given up.
    pub max_age: TimeDelta,
}

/// A look at the schedules.
#[derive(Debug, Clone)]
pub struct Look {
    /// The time.
    pub now: DateTime<Utc>,
    /// What to do about windows that passed.
    pub catch_up: CatchUp,
    /// Schedulers whose execution is still under way here.
    pub busy: HashSet<String>,
    /// Claims at most.
    pub most: usize,
    /// Put back first what a clock that was ahead left in the future.
    pub rewind: bool,
}

/// What a look at the schedules gave.
#[derive(Debug, Default)]
pub struct Due {
    /// To be executed.
    pub claims: Vec<Claim>,
    /// More is due than was asked for.
    pub more: bool,
    /// When the next scheduler that is not due yet will be.
    pub next: Option<DateTime<Utc>>,
    /// Windows that were recorded as FAILED since this build cannot execute them.
    pub refused: Vec<Refused>,
    /// Schedulers and how many of their windows passed without an execution.
    pub passed: Vec<(String, i64)>,
    /// Schedulers that were ahead of the clock.
    pub rewound: Vec<Rewound>,
}

/// A window that failed as it was claimed.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The scheduler's name.
    pub scheduler: String,
    /// Its window.
    pub window: Window,
    /// Why.
    pub failed: Failed,
}

impl Store {
    /// Claims what is due of the schedulers that run.
    pub async fn claim_due(&self, look: Look) -> Result<Due, Fault> {
        self.transact(move |db| claim(db, &look)).await
    }
}

/// The boundary to run at `now` for a scheduler whose next one is `next`, and how many before it are given up.
///
/// Without `catch_up` only the latest due boundary is run: one whose successor is due as well was missed. With it, all that
/// are no older than it says.
pub fn due(
    next: Window,
    delay: TimeDelta,
    now: DateTime<Utc>,
    catch_up: Option<TimeDelta>,
) -> Option<(Window, i64)> {
    if next.end() + delay > now {
        return None;
    }
    // The window that contains `now - delay` is the first that is not due.
    let latest = Window::containing(now - delay, next.cadence()).previous();
    let first = catch_up.map_or(latest, |max_age| {
        let oldest = Window::containing(now - max_age, next.cadence());
        if oldest.end() < latest.end() {
            oldest
        } else {
            latest
        }
    });
    let window = if first.end() > next.end() {
        first
    } else {
        next
    };
    let missed = (window.end() - next.end()).num_seconds() / next.cadence().seconds();
    Some((window, missed))
}

fn claim(db: &Connection, look: &Look) -> Result<Due, Fault> {
    let mut found = Due::default();
    if look.rewind {
        found.rewound = rewind::all(db, look.now)?;
    }
    let now_us = look.now.timestamp_micros();
    let mut statement = db.prepare_cached(
        "SELECT uuid FROM scheduler WHERE status = 'RUNNING' AND due_us <= ?1 ORDER BY due_us < ?2, due_us",
    )?;
    let waiting: Vec<String> = statement
        .query_map(
            params![now_us, (look.now - BACKLOG).timestamp_micros()],
            |row| row.get(0),
        )?
        .collect::<rusqlite::Result<_>>()?;
    for uuid in waiting.iter().filter(|uuid| !look.busy.contains(*uuid)) {
        if found.claims.len() >= look.most {
            found.more = true;
            break;
        }
        one(db, look, uuid, &mut found)?;
    }
    let sql = "SELECT min(due_us) FROM scheduler WHERE status = 'RUNNING' AND due_us > ?1";
    let next: Option<i64> = db
        .prepare_cached(sql)?
        .query_row([now_us], |row| row.get(0))?;
    found.next = next.and_then(DateTime::from_timestamp_micros);
    Ok(found)
}

/// Claims the window that is due of one scheduler.
fn one(db: &Connection, look: &Look, uuid: &str, found: &mut Due) -> Result<(), Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM scheduler s JOIN model m ON m.name = s.model_name WHERE s.uuid = ?1"
    );
    let scheduler = db
        .prepare_cached(&sql)?
        .query_row([uuid], schedulers::read)
        .optional()?;
    let Some(scheduler) = scheduler else {
        return Ok(());
    };
    let (Ok(cadence), Some(next)) = (
        scheduler.frequency.parse::<Cadence>(),
        scheduler
            .next_boundary_us
            .and_then(DateTime::from_timestamp_micros),
    ) else {
        return Ok(());
    };
    let options = options(db, &scheduler)?;
    let delay = TimeDelta::minutes(scheduler.delay_minutes);
    let next = Window::containing(next, cadence).previous();
    let asked = look.catch_up.all || options.as_ref().is_ok_and(|options| options.catch_up);
    let catch_up = asked.then_some(look.catch_up.max_age);
    let Some((window, missed)) = due(next, delay, look.now, catch_up) else {
        return Ok(());
    };
    if missed > 0 {
        found.passed.push((scheduler.name.clone(), missed));
    }
    set_next(db, &scheduler.uuid, window.next(), delay)?;
    let version = active_version(db, &scheduler.model_name)?;
    let ready = options.and_then(|options| match &version {
        Some((model_uuid, version, _)) => Ok((options, model_uuid.clone(), *version)),
        None => Err(Failed::new(
            FailureKind::Model,
            format!(
                "Model '{}' has no active version that is there: activate one with UpdateActiveModelVersion",
                scheduler.model_name
            ),
        )),
    });
    let failed = ready.as_ref().err();
    let inserted = db
        .prepare_cached(
            "INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, failed_kind,
                                    failed_reason, finished_us, input, output, model_version, model_version_arn)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (scheduler_uuid, boundary_us) DO NOTHING",
        )?
        .execute(params![
            scheduler.uuid,
            window.end().timestamp_micros(),
            window.start().timestamp_micros(),
            (window.end() + delay).timestamp_micros(),
            if failed.is_some() { ExecutionStatus::Failed } else { ExecutionStatus::InProgress },
            failed.map(|failed| failed.kind),
            failed.map(|failed| &failed.reason),
            failed.map(|_| look.now.timestamp_micros()),
            scheduler.input.to_string(),
            scheduler.output.to_string(),
            version.as_ref().map_or(1, |(_, version, _)| *version),
            version.as_ref().map_or("", |(_, _, arn)| arn),
        ])?;
    // A boundary that was run before (the clock was ahead, or went back) is not run again.
    if inserted == 0 {
        return Ok(());
    }
    match ready {
        Ok((options, model_uuid, model_version)) => {
            let scoring_state = scoring_state(db, &scheduler.uuid)?;
            found.claims.push(Claim {
                scheduler,
                options,
                window,
                model_uuid,
                model_version,
                scoring_state,
            });
        }
        Err(failed) => found.refused.push(Refused {
            scheduler: scheduler.name,
            window,
            failed,
        }),
    }
    Ok(())
}

/// Makes a scheduler that has just become RUNNING run from its next boundary on: the first after `now`, or the one it
/// stopped at if the windows since are to be caught up.
pub fn begin(
    db: &Connection,
    scheduler: &Scheduler,
    now: DateTime<Utc>,
    catch_up: CatchUp,
) -> Result<(), Fault> {
    let cadence: Cadence = scheduler.frequency.parse().map_err(|_| Fault::internal())?;
    let current = Window::containing(now, cadence);
    rewind::void(db, &scheduler.uuid, current)?;
    let left_at = scheduler
        .next_boundary_us
        .and_then(DateTime::from_timestamp_micros)
        .filter(|boundary| *boundary <= current.end());
    let asked = || -> Result<bool, Fault> {
        let options = options(db, scheduler)?;
        Ok(catch_up.all || options.is_ok_and(|options| options.catch_up))
    };
    let window = match left_at {
        Some(boundary) if asked()? => Window::containing(boundary, cadence).previous(),
        _ => current,
    };
    set_next(
        db,
        &scheduler.uuid,
        window,
        TimeDelta::minutes(scheduler.delay_minutes),
    )
}

pub(super) fn set_next(
    db: &Connection,
    uuid: &str,
    window: Window,
    delay: TimeDelta,
) -> Result<(), Fault> {
    let boundary = window.end();
    db.prepare_cached("UPDATE scheduler SET next_boundary_us = ?2, due_us = ?3 WHERE uuid = ?1")?
        .execute(params![
            uuid,
            boundary.timestamp_micros(),
            (boundary + delay).timestamp_micros()
        ])?;
    Ok(())
}

fn active_version(db: &Connection, model: &str) -> Result<Option<(String, i64, String)>, Fault> {
    let sql = "SELECT m.uuid, v.version, v.arn FROM model m
               JOIN model_version v ON v.model_uuid = m.uuid AND v.version = m.active_version WHERE m.name = ?1";
    Ok(db
        .prepare_cached(sql)?
        .query_row([model], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?)
}
