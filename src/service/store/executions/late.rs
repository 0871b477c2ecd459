//! Windows that failed for want of data, and looking at them again.
//!
//! Every one of the last day is reached, in turns: those that were looked at longest ago come first. A turn is used up when
//! its look begins, and not before: what is never come to keeps its place, and windows whose data never come, or whose look is
//! cut off each time, hold up no other.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::{
    Claim, End, ExecutionStatus, FailureKind, at_once, latest, options, record, window_of,
};
use crate::service::faults::Fault;
use crate::service::store::Store;
use crate::service::store::schedulers::Scheduler;

impl Store {
    /// Up to `most` executions of a scheduler that failed for want of data, or of the store, and end after `since` and before
    /// `until`, to be looked at again: with the version they were claimed with and a fresh scoring state, since later windows
    /// have moved the stored one on.
    pub async fn late_windows(
        &self,
        scheduler: Scheduler,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
        now: DateTime<Utc>,
        most: usize,
    ) -> Result<Vec<Claim>, Fault> {
        self.transact(move |db| choose(db, &scheduler, since, until, now, most))
            .await
    }

    /// Notes that a look for the data of a late window begins.
    pub async fn late_look(&self, claim: &Claim, now: DateTime<Utc>) -> Result<(), Fault> {
        let uuid = claim.scheduler.uuid.clone();
        let boundary_us = claim.window.end().timestamp_micros();
        self.transact(move |db| {
            db.prepare_cached(
                "UPDATE execution SET looked_us = ?3 WHERE scheduler_uuid = ?1 AND boundary_us = ?2",
            )?
            .execute(params![uuid, boundary_us, now.timestamp_micros()])?;
            Ok(())
        })
        .await
    }

    /// Turns a failed execution into the success it became when its data had come.
    pub async fn end_late(&self, claim: &Claim, now: DateTime<Utc>, end: End) -> Result<(), Fault> {
        let uuid = claim.scheduler.uuid.clone();
        let boundary_us = claim.window.end().timestamp_micros();
        self.transact(move |db| {
            if record(db, &uuid, boundary_us, now, &end, ExecutionStatus::Failed)? {
                latest(db, &uuid, now, None)?;
            }
            Ok(())
        })
        .await
    }
}

fn choose(
    db: &Connection,
    scheduler: &Scheduler,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    now: DateTime<Utc>,
    most: usize,
) -> Result<Vec<Claim>, Fault> {
    let Ok(options) = options(db, &scheduler.arn)? else {
        return Ok(Vec::new());
    };
    let options = at_once(options);
    let mut statement = db.prepare_cached(
        "SELECT e.start_us, e.boundary_us, e.model_version, m.uuid, e.failed_kind FROM execution e
         JOIN scheduler s ON s.uuid = e.scheduler_uuid JOIN model m ON m.name = s.model_name
         WHERE e.scheduler_uuid = ?1 AND e.boundary_us > ?2 AND e.boundary_us < ?3 AND e.status = 'FAILED'
         ORDER BY CASE WHEN e.looked_us > ?4 THEN 0 ELSE coalesce(e.looked_us, 0) END, e.boundary_us DESC",
    )?;
    let mut rows = statement.query(params![
        scheduler.uuid,
        since.timestamp_micros(),
        until.timestamp_micros(),
        now.timestamp_micros()
    ])?;
    let mut claims = Vec::new();
    while let Some(row) = rows.next()?
        && claims.len() < most
    {
        // A kind that only another build knows is none that this one can do something about.
        let kind: Option<String> = row.get(4)?;
        let kind = kind.and_then(|word| FailureKind::from_sql(&word));
        if !kind.is_some_and(FailureKind::may_come) {
            continue;
        }
        let Some(window) = window_of(row.get(0)?, row.get(1)?) else {
            continue;
        };
        claims.push(Claim {
            scheduler: scheduler.clone(),
            options,
            window,
            model_uuid: row.get(3)?,
            model_version: row.get(2)?,
            scoring_state: None,
        });
    }
    Ok(claims)
}
