//! What executions and events of the past are told, and how long they are kept.
//!
//! Guarantees: a page costs what its items cost, however much lies before and after it; what is kept is bounded, and no clock
//! that is ahead for a day takes the history: as many windows as the time to be kept has are kept of each scheduler whatever
//! their age, and only what is older than that time goes.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::executions::ExecutionStatus;
use super::{Store, events, stored_json};
use crate::service::faults::Fault;
use crate::signal::Cadence;

/// Only events longer than this are listed (contract 5.4).
const LONGER_THAN_US: i64 = 300_000_000;
/// Characters that the API allows for an event's diagnostics.
const LONGEST_DIAGNOSTICS: usize = 50_000;
/// Rows that one transaction removes.
const BATCH: i64 = 5_000;

/// Which executions of a scheduler are asked for.
#[derive(Debug)]
pub struct ExecutionsAsked {
    /// The scheduler.
    pub scheduler_uuid: String,
    /// Those whose window ends before, microseconds.
    pub before_us: i64,
    /// Those whose window starts then or later, microseconds.
    pub from_us: i64,
    /// Those whose window ends then or earlier, microseconds.
    pub to_us: i64,
    /// Those in this status.
    pub status: Option<ExecutionStatus>,
    /// So many at most.
    pub limit: i64,
    /// One that failed for a window that begins later is void, microseconds.
    pub now_us: i64,
}

/// One execution as it is told.
#[derive(Debug)]
pub struct Past {
    /// End of the window, microseconds.
    pub boundary_us: i64,
    /// Its start.
    pub start_us: i64,
    /// When it was to run.
    pub scheduled_us: i64,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// `DataInputConfiguration` then.
    pub input: Value,
    /// `DataOutputConfiguration` then.
    pub output: Value,
    /// The version it was scored with.
    pub model_version: i64,
    /// That version's ARN.
    pub model_version_arn: String,
    /// Bucket and key of the results.
    pub result: Option<(String, String)>,
    /// Why it failed.
    pub failed_reason: Option<String>,
}

/// One event as it is told.
#[derive(Debug)]
pub struct PastEvent {
    /// Its first anomalous row, microseconds.
    pub start_us: i64,
    /// Its last.
    pub end_us: i64,
    /// Mean shares, as JSON.
    pub diagnostics: String,
}

impl Store {
    /// Executions of a scheduler, newest first.
    pub async fn executions(&self, asked: ExecutionsAsked) -> Result<Vec<Past>, Fault> {
        self.transact(move |db| {
            let sql = executions_sql(asked.status.is_some());
            let read = |row: &Row<'_>| {
                let bucket: Option<String> = row.get(8)?;
                Ok(Past {
                    boundary_us: row.get(0)?,
                    start_us: row.get(1)?,
                    scheduled_us: row.get(2)?,
                    status: row.get(3)?,
                    input: stored_json(row, 4)?,
                    output: stored_json(row, 5)?,
                    model_version: row.get(6)?,
                    model_version_arn: row.get(7)?,
                    result: bucket.zip(row.get(9)?),
                    failed_reason: row.get(10)?,
                })
            };
            let mut statement = db.prepare_cached(&sql)?;
            let bounds = params![
                asked.scheduler_uuid,
                asked.before_us,
                asked.from_us,
                asked.to_us,
                asked.limit,
                asked.status,
                asked.now_us
            ];
            let rows = statement.query_map(bounds, read)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Events of a scheduler that lasted longer than five minutes, end at or after `from_us` and start before `to_us` and
    /// `before_us`; newest first.
    pub async fn events(
        &self,
        scheduler_uuid: &str,
        (from_us, to_us): (i64, i64),
        before_us: i64,
        limit: i64,
    ) -> Result<Vec<PastEvent>, Fault> {
        let uuid = scheduler_uuid.to_owned();
        self.transact(move |db| {
            // Events do not overlap: of those that start before the interval, only the last can reach into it.
            let mut statement = db.prepare_cached(
                "SELECT start_us, end_us, diagnostics FROM event
                 WHERE scheduler_uuid = ?1 AND start_us < min(?2, ?4)
                   AND start_us >= coalesce((SELECT max(e.start_us) FROM event e
                                             WHERE e.scheduler_uuid = ?1 AND e.start_us <= ?3), ?3)
                   AND end_us >= ?3 AND end_us - start_us > ?5
                 ORDER BY start_us DESC LIMIT ?6",
            )?;
            let read = |row: &Row<'_>| {
                Ok(PastEvent {
                    start_us: row.get(0)?,
                    end_us: row.get(1)?,
                    diagnostics: events::told(row.get(2)?, LONGEST_DIAGNOSTICS),
                })
            };
            let bounds = params![uuid, before_us, from_us, to_us, LONGER_THAN_US, limit];
            let rows = statement.query_map(bounds, read)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Forgets executions and events that are older than `keep`, some at a time; returns how many went. The newest
    /// windows of each scheduler stay, as many as `keep` has.
    pub async fn forget_past(&self, keep: Duration, now: DateTime<Utc>) -> Result<usize, Fault> {
        let schedulers = self
            .transact(|db| {
                let mut statement = db.prepare("SELECT uuid, frequency FROM scheduler")?;
                let rows = statement.query_map([], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
                })?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            })
            .await?;
        let Ok(keep) = TimeDelta::from_std(keep) else {
            return Ok(0);
        };
        let Some(oldest) = now.checked_sub_signed(keep) else {
            return Ok(0);
        };
        let mut gone = 0;
        for (uuid, frequency) in schedulers {
            let Ok(cadence) = frequency.parse::<Cadence>() else {
                continue;
            };
            let windows = keep.num_seconds() / cadence.seconds();
            loop {
                let uuid = uuid.clone();
                let batch = self
                    .transact(move |db| forget(db, &uuid, windows, oldest.timestamp_micros()))
                    .await?;
                gone += batch;
                if batch == 0 {
                    break;
                }
            }
        }
        Ok(gone)
    }
}

/// A window starts before it ends, so that the start is a bound of the end, too. SQLite knows nothing of how rare a status is:
/// it is told which index to walk.
fn executions_sql(by_status: bool) -> String {
    let (index, status) = match by_status {
        true => ("INDEXED BY execution_status", "status = ?6"),
        false => ("", "?6 IS NULL"),
    };
    format!(
        "SELECT boundary_us, start_us, scheduled_us, status, coalesce(c.input, execution.input), coalesce(c.output, execution.output),
                model_version, model_version_arn, result_bucket, result_key, failed_reason
         FROM execution {index} LEFT JOIN scheduler_configuration c ON c.id = execution.configuration_id
         WHERE execution.scheduler_uuid = ?1 AND boundary_us < ?2 AND boundary_us > ?3 AND boundary_us <= ?4 AND start_us >= ?3
               AND {status}
               AND (status <> 'FAILED' OR start_us <= ?7)
         ORDER BY boundary_us DESC LIMIT ?5"
    )
}

/// Removes a batch of the oldest executions of a scheduler that are beyond both bounds, and the events before them.
fn forget(db: &Connection, uuid: &str, windows: i64, oldest_us: i64) -> Result<usize, Fault> {
    let is_old: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM execution WHERE scheduler_uuid = ?1 AND boundary_us <= ?2)",
        params![uuid, oldest_us],
        |row| row.get(0),
    )?;
    if !is_old {
        return Ok(0);
    }
    let first_too_many: Option<i64> = db
        .prepare_cached(
            "SELECT boundary_us FROM execution WHERE scheduler_uuid = ?1 ORDER BY boundary_us DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![uuid, windows], |row| row.get(0))
        .optional()?;
    let Some(first_too_many) = first_too_many else {
        return Ok(0);
    };
    let last_us = first_too_many.min(oldest_us);
    let gone = db
        .prepare_cached(
            "DELETE FROM execution WHERE scheduler_uuid = ?1 AND status <> 'IN_PROGRESS' AND boundary_us IN
                 (SELECT boundary_us FROM execution WHERE scheduler_uuid = ?1 AND boundary_us <= ?2
                  ORDER BY boundary_us LIMIT ?3)",
        )?
        .execute(params![uuid, last_us, BATCH])?;
    if gone > 0 {
        let kept: Option<i64> = db.query_row(
            "SELECT min(boundary_us) FROM execution WHERE scheduler_uuid = ?1",
            [uuid],
            |row| row.get(0),
        )?;
        db.execute(
            "DELETE FROM event WHERE scheduler_uuid = ?1 AND end_us < ?2",
            params![uuid, kept.unwrap_or(last_us).min(last_us)],
        )?;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_US: i64 = 300_000_000;

    /// A scheduler with `count` executions, the newest of which ends at `newest`, and an event over every tenth.
    async fn with_executions(store: &Store, count: i64, newest: i64) {
        let fill = store.transact(move |db| {
            db.execute_batch(
                "INSERT INTO model (name, uuid, arn, status, schema, created_us, updated_us) VALUES ('m', 'mu', 'ma', 'SUCCESS', '{}', 0, 0);
                 INSERT INTO scheduler (name, uuid, arn, model_name, status, delay_minutes, frequency, input, output, role_arn,
                                        created_us, updated_us)
                     VALUES ('s', 'su', 'sa', 'm', 'RUNNING', 0, 'PT5M', '{}', '{}', 'r', 0, 0);",
            )?;
            db.execute(
                "WITH RECURSIVE n (back) AS (SELECT 0 UNION ALL SELECT back + 1 FROM n WHERE back + 1 < ?1)
                 INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output, model_version,
                                        model_version_arn)
                 SELECT 'su', ?2 - back * ?3, ?2 - (back + 1) * ?3, ?2, iif(back = ?1 - 1, 'FAILED', 'SUCCESS'), '{}', '{}', 1, 'v'
                 FROM n",
                params![count, newest, STEP_US],
            )?;
            db.execute(
                "INSERT INTO event (scheduler_uuid, start_us, end_us, rows, diagnostics)
                 SELECT 'su', start_us, boundary_us + 60000000, 5, '[]' FROM execution WHERE boundary_us / ?1 % 10 = 0",
                [STEP_US],
            )?;
            Ok(())
        });
        fill.await.unwrap();
    }

    async fn listed(store: &Store, status: Option<&str>, from_us: i64) -> Vec<i64> {
        let asked = ExecutionsAsked {
            scheduler_uuid: "su".into(),
            before_us: i64::MAX,
            from_us,
            to_us: i64::MAX,
            status: status.and_then(ExecutionStatus::from_sql),
            limit: 1_000_000,
            now_us: i64::MAX,
        };
        let found = store.executions(asked).await.unwrap();
        found.into_iter().map(|past| past.boundary_us).collect()
    }

    #[tokio::test]
    async fn what_is_too_old_is_forgotten_and_no_clock_that_is_ahead_takes_the_history() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let day = 288;
        let newest = 20_000 * day * STEP_US;
        with_executions(&store, 5 * day, newest).await;
        let keep = Duration::from_secs(2 * 24 * 3600);
        let at = |us: i64| DateTime::from_timestamp_micros(us).unwrap();
        // Ten years ahead: nothing of what could be the last two days goes.
        for (now, left) in [
            (at(newest), 2 * day),
            (at(newest + 3650 * day * STEP_US), 2 * day),
        ] {
            store.forget_past(keep, now).await.unwrap();
            let kept = listed(&store, None, i64::MIN).await;
            assert_eq!(kept.len() as i64, left);
            assert_eq!(
                (kept[0], kept[kept.len() - 1]),
                (newest, newest - (left - 1) * STEP_US)
            );
        }
        // Events go with their executions.
        let events = store
            .events("su", (0, i64::MAX), i64::MAX, 1_000_000)
            .await
            .unwrap();
        assert!((57..=59).contains(&events.len()), "{}", events.len());
        // A week later without an execution: there are no more than two days' worth, and they stay.
        store
            .forget_past(keep, at(newest + 7 * day * STEP_US))
            .await
            .unwrap();
        assert_eq!(listed(&store, None, i64::MIN).await.len() as i64, 2 * day);
    }

    #[tokio::test]
    async fn a_page_of_executions_or_events_is_read_through_an_index() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let newest = 20_000 * 288 * STEP_US;
        with_executions(&store, 3_000, newest).await;
        let oldest = newest - 2_999 * STEP_US;
        assert_eq!(listed(&store, Some("FAILED"), i64::MIN).await, [oldest]);
        assert_eq!(listed(&store, None, newest - STEP_US).await, [newest]);
        let plan = store.transact(|db| {
            let mut plans = Vec::new();
            for by_status in [true, false] {
                let sql = format!("EXPLAIN QUERY PLAN {}", executions_sql(by_status));
                let status = by_status.then_some("FAILED");
                let bounds = params!["su", 9, 1, 9, 50, status, 9];
                let mut statement = db.prepare(&sql)?;
                let rows = statement.query_map(bounds, |row| row.get::<_, String>(3))?;
                plans.push(rows.collect::<rusqlite::Result<Vec<_>>>()?.join("; "));
            }
            Ok(plans)
        });
        let plans = plan.await.unwrap();
        assert!(plans[0].contains("execution_status"), "{plans:?}");
        let searches = |plan: &String| plan.contains("SEARCH") && !plan.contains("TEMP B-TREE");
        assert!(plans.iter().all(searches), "{plans:?}");

        // An event that begins before the interval and reaches into it is listed, those before it are not.
        let all = store
            .events("su", (0, i64::MAX), i64::MAX, 1_000)
            .await
            .unwrap();
        let (second, third) = (&all[all.len() - 2], &all[all.len() - 3]);
        let interval = (second.end_us, third.start_us + 1);
        let found = store.events("su", interval, i64::MAX, 1_000).await.unwrap();
        let starts: Vec<i64> = found.iter().map(|event| event.start_us).collect();
        assert_eq!(starts, [third.start_us, second.start_us]);
        let after = (second.end_us + 1, third.start_us);
        assert!(
            store
                .events("su", after, i64::MAX, 1_000)
                .await
                .unwrap()
                .is_empty()
        );
    }
}
