//! What is due, and claiming it.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::rewind::{self, Rewound};
use super::{Claim, ExecutionStatus, Failed, FailureKind, not_understood, options, scoring_state};
use crate::clock;
use crate::service::faults::Fault;
use crate::service::store::Store;
use crate::service::store::schedulers::{self, Schedule, Scheduler};
use crate::signal::Window;

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
    /// The end of its window.
    pub end: DateTime<Utc>,
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
    // Nothing is due in 1970, and what was recorded is not of a time to come.
    if !clock::is_set(look.now) {
        return Ok(found);
    }
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

/// Claims the window that is due of one scheduler; one that cannot be run is recorded as FAILED, and its schedule goes on.
fn one(db: &Connection, look: &Look, uuid: &str, found: &mut Due) -> Result<(), Fault> {
    let Some(schedule) = schedulers::schedule(db, uuid)? else {
        return Ok(());
    };
    let options = options(db, &schedule.arn)?;
    let next = schedule.next_boundary.unwrap_or(look.now);
    let next = Window::containing(next, schedule.cadence).previous();
    let scheduler = schedulers::by_uuid(db, uuid)?;
    // No window passed before the scheduler was made, wherever a clock that was behind has put the schedule.
    let made = scheduler
        .as_ref()
        .ok()
        .map(|scheduler| scheduler.created_us);
    let made = made
        .and_then(DateTime::from_timestamp_micros)
        .filter(|made| *made <= look.now && next.end() <= *made);
    let next = made.map_or(next, |made| Window::containing(made, schedule.cadence));
    let asked = look.catch_up.all || options.as_ref().is_ok_and(|options| options.catch_up);
    let catch_up = asked.then_some(look.catch_up.max_age);
    let Some((window, missed)) = due(next, schedule.delay, look.now, catch_up) else {
        // It was written down for another time than it is due at, as with a delay that nobody understands.
        return set_next(db, uuid, next, schedule.delay);
    };
    let missed = missed - have_rows(db, uuid, next, window)?;
    if missed > 0 {
        found.passed.push((schedule.name.clone(), missed));
    }
    let window = not_run(db, uuid, window, schedule.delay, look.now)?;
    let after = window.map_or_else(|passed| passed, |taken| taken.next());
    set_next(db, uuid, after, schedule.delay)?;
    let Ok(window) = window else {
        return Ok(());
    };
    let version = active_version(db, &schedule.model_name)?;
    let configuration = match &scheduler {
        Ok(scheduler) => Some(configuration(db, scheduler)?),
        Err(_) => None,
    };
    let scoring_state = scoring_state(db, uuid)?;
    let ready = || {
        let scheduler = match schedule.problem {
            Some(problem) => Err(problem),
            None => scheduler,
        };
        let scheduler = scheduler.map_err(|problem| not_understood(&problem))?;
        let options = options?;
        let Some((model_uuid, model_version, _)) = &version else {
            return Err(Failed::new(
                FailureKind::Model,
                format!(
                    "Model '{}' has no active version that is there: activate one with UpdateActiveModelVersion",
                    schedule.model_name
                ),
            ));
        };
        Ok(Claim {
            scheduler,
            options,
            window,
            model_uuid: model_uuid.clone(),
            model_version: *model_version,
            scoring_state,
        })
    };
    let claim = ready();
    let failed = claim.as_ref().err();
    db.prepare_cached(
            "INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, failed_kind,
                                    failed_reason, finished_us, input, output, model_version, model_version_arn,
                                    configuration_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'null', 'null', ?9, ?10, ?11)
             ON CONFLICT (scheduler_uuid, boundary_us) DO UPDATE SET start_us = ?3, scheduled_us = ?4, status = ?5,
                 failed_kind = ?6, failed_reason = ?7, finished_us = ?8, input = 'null', output = 'null', model_version = ?9,
                 model_version_arn = ?10, configuration_id = ?11, looked_us = NULL",
        )?
        .execute(params![
            uuid,
            window.end().timestamp_micros(),
            window.start().timestamp_micros(),
            (window.end() + schedule.delay).timestamp_micros(),
            if failed.is_some() { ExecutionStatus::Failed } else { ExecutionStatus::InProgress },
            failed.map(|failed| failed.kind),
            failed.map(|failed| &failed.reason),
            failed.map(|_| look.now.timestamp_micros()),
            version.as_ref().map_or(1, |(_, version, _)| *version),
            version.as_ref().map_or("", |(_, _, arn)| arn),
            configuration,
        ])?;
    match claim {
        Ok(claim) => found.claims.push(claim),
        Err(failed) => found.refused.push(Refused {
            scheduler: schedule.name,
            end: window.end(),
            failed,
        }),
    }
    Ok(())
}

/// The configuration that an execution is claimed with: stored with the first one, referred to by all until it is edited.
fn configuration(db: &Connection, scheduler: &Scheduler) -> Result<i64, Fault> {
    let (input, output) = (scheduler.input.to_string(), scheduler.output.to_string());
    let latest: Option<(i64, String, String)> = db
        .prepare_cached(
            "SELECT id, input, output FROM scheduler_configuration WHERE scheduler_uuid = ?1 ORDER BY id DESC LIMIT 1",
        )?
        .query_row([&scheduler.uuid], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    if let Some((id, before_in, before_out)) = latest
        && before_in == input
        && before_out == output
    {
        return Ok(id);
    }
    db.prepare_cached(
        "INSERT INTO scheduler_configuration (scheduler_uuid, input, output) VALUES (?1, ?2, ?3)",
    )?
    .execute(params![scheduler.uuid, input, output])?;
    Ok(db.last_insert_rowid())
}

/// The first window from `window` on that is due and was not run before; an error is the first that is not due. One that was
/// run (the clock was ahead, or went back) is not run again unless it failed.
fn not_run(
    db: &Connection,
    uuid: &str,
    mut window: Window,
    delay: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Result<Window, Window>, Fault> {
    let mut statement = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM execution WHERE scheduler_uuid = ?1 AND boundary_us = ?2 AND status <> 'FAILED')",
    )?;
    while window.end() + delay <= now {
        let row = params![uuid, window.end().timestamp_micros()];
        let was_run: bool = statement.query_row(row, |row| row.get(0))?;
        if !was_run {
            return Ok(Ok(window));
        }
        window = window.next();
    }
    Ok(Err(window))
}

/// How many windows from `next` up to `window`, without it, have an execution.
fn have_rows(db: &Connection, uuid: &str, next: Window, window: Window) -> Result<i64, Fault> {
    if next.end() >= window.end() {
        return Ok(0);
    }
    let sql = "SELECT count(*) FROM execution WHERE scheduler_uuid = ?1 AND boundary_us >= ?2 AND boundary_us < ?3";
    let bounds = params![
        uuid,
        next.end().timestamp_micros(),
        window.end().timestamp_micros()
    ];
    Ok(db
        .prepare_cached(sql)?
        .query_row(bounds, |row| row.get(0))?)
}

/// Makes a scheduler that has just become RUNNING run from its next boundary on: the first after `now`, or the one it
/// stopped at if the windows since are to be caught up.
pub(in crate::service::store) fn begin(
    db: &Connection,
    schedule: &Schedule,
    now: DateTime<Utc>,
    catch_up: CatchUp,
) -> Result<(), Fault> {
    let current = Window::containing(now, schedule.cadence);
    let left_at = schedule
        .next_boundary
        .filter(|boundary| *boundary <= current.end());
    let asked = || -> Result<bool, Fault> {
        let options = options(db, &schedule.arn)?;
        Ok(catch_up.all || options.is_ok_and(|options| options.catch_up))
    };
    let window = match left_at {
        Some(boundary) if asked()? => Window::containing(boundary, schedule.cadence).previous(),
        _ => current,
    };
    set_next(db, &schedule.uuid, window, schedule.delay)
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

/// Of a model's active version: the model's identity, the version's number and ARN.
type Version = (String, i64, String);

fn active_version(db: &Connection, model: &str) -> Result<Option<Version>, Fault> {
    let sql = "SELECT m.uuid, v.version, v.arn FROM model m
               JOIN model_version v ON v.model_uuid = m.uuid AND v.version = m.active_version WHERE m.name = ?1";
    Ok(db
        .prepare_cached(sql)?
        .query_row([model], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?)
}
