//! Background jobs: ingestion, training, imports, and retraining schedules.
//!
//! Guarantees: what is to be done is read from the state, so a job that a crash or restart interrupted is done again from
//! its start; a job ends SUCCESS or FAILED with a reason a person can act on. One ingestion and one training at a time:
//! each can use every core there is.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::faults::Fault;
use super::operations::{models, retraining, versions};
use super::store::{Store, Swept};
use crate::clock::Clock;
use crate::vitals::{Code, Trouble, Vitals};

mod csv_file;
mod ingest;
mod key_pattern;
mod labels;
mod statistics;
mod train;

pub use key_pattern::key_pattern;

/// How long a loop may be silent.
const SILENT: Duration = Duration::from_secs(120);
/// How often schedules and queues are looked at without being told, real time.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long PENDING and STOPPING of a retraining scheduler last.
const TRANSITION: Duration = Duration::from_millis(1500);

/// The three kinds of work; the next of each waits for the one before.
#[derive(Clone, Copy)]
enum Queue {
    Ingestion,
    Training,
    Retraining,
}

impl Queue {
    fn name(self) -> &'static str {
        match self {
            Self::Ingestion => "ingestion",
            Self::Training => "training",
            Self::Retraining => "retraining",
        }
    }
}

/// What jobs share.
#[derive(Clone)]
pub struct Jobs {
    /// The state.
    pub store: Store,
    /// Where CSVs and labels are read and diagnostics written.
    pub s3: aws_sdk_s3::Client,
    /// Time of the schedules.
    pub clock: Clock,
    /// Told when something changed.
    pub changed: watch::Receiver<u64>,
    /// The loops of this process.
    pub vitals: Vitals,
}

impl Jobs {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        if let Some(swept) = self.sweep().await {
            say_what_is_odd(&swept);
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.lane(Queue::Ingestion) => {}
            () = self.lane(Queue::Training) => {}
            () = self.lane(Queue::Retraining) => {}
        }
    }

    async fn sweep(&self) -> Option<Swept> {
        let swept = self.store.sweep().await;
        swept
            .inspect_err(|fault| tracing::error!(%fault, "unused files cannot be found"))
            .ok()
    }

    /// Works on a queue until it is empty, then again when something changed; never returns.
    async fn lane(&self, queue: Queue) {
        let mut changed = self.changed.clone();
        let pulse = self.vitals.pulse(queue.name(), SILENT);
        loop {
            // A training takes hours; the loop beats while it waits for one.
            let outcome = match queue {
                Queue::Ingestion => pulse.during(ingest::next(self)).await,
                Queue::Training => pulse.during(train::next(self)).await,
                Queue::Retraining => {
                    pulse.beat();
                    self.retraining_schedules().await
                }
            };
            if outcome.is_ok() {
                pulse.troubles().over(Code::JobsFailing, queue.name());
            }
            match outcome {
                Ok(true) => {
                    self.sweep().await;
                    continue;
                }
                Ok(false) => {}
                Err(fault) => {
                    tracing::error!(%fault, queue = queue.name(), "job queue failed, trying again");
                    pulse.troubles().raise(
                        Trouble::new(
                            Code::JobsFailing,
                            self.clock.now(),
                            format!(
                                "the queue of the {} loop cannot be worked on: {fault}",
                                queue.name()
                            ),
                            "see the log for the cause; check the disk of the data directory",
                        )
                        .about(queue.name()),
                    );
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Completes transitions and starts retrainings that are due. Never has more to do at once.
    async fn retraining_schedules(&self) -> Result<bool, Fault> {
        let moving =
            "SELECT count(*) FROM retraining_scheduler WHERE status IN ('PENDING', 'STOPPING')";
        let count = self
            .store
            .transact(|db| Ok(db.query_row(moving, [], |row| row.get::<_, i64>(0))?))
            .await?;
        if count > 0 {
            tokio::time::sleep(TRANSITION).await;
        }
        let now = self.clock.now();
        self.store
            .transact(move |db| {
                db.execute(
                    "UPDATE retraining_scheduler SET status = 'RUNNING' WHERE status = 'PENDING'",
                    [],
                )?;
                db.execute(
                    "UPDATE retraining_scheduler SET status = 'STOPPED' WHERE status = 'STOPPING'",
                    [],
                )?;
                while retrain_one(db, now)? {}
                Ok(())
            })
            .await?;
        Ok(false)
    }
}

/// Files and state that do not fit, once per start.
fn say_what_is_odd(swept: &Swept) {
    for path in &swept.missing {
        tracing::error!(
            path = %path.display(),
            "a model file is missing: its executions fail; put it back from a backup, or train the model again"
        );
    }
    for path in &swept.unknown {
        tracing::warn!(
            path = %path.display(),
            "the state does not know this file: it is left alone; `lookoutd model register` takes a model up, otherwise remove it"
        );
    }
}

/// Starts one retraining that is due; false if there is none.
fn retrain_one(db: &rusqlite::Connection, now: DateTime<Utc>) -> Result<bool, Fault> {
    let due: Option<(String, String, String, String, i64)> = db
        .query_row(
            "SELECT model_name, frequency, lookback, promote, next_us FROM retraining_scheduler
             WHERE status = 'RUNNING' AND next_us <= ?1 LIMIT 1",
            [now.timestamp_micros()],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            },
        )
        .optional()?;
    let Some((name, frequency, lookback, promote, next_us)) = due else {
        return Ok(false);
    };
    let mut next = DateTime::from_timestamp_micros(next_us).unwrap_or(now);
    while next <= now {
        next = retraining::after(next, &frequency).ok_or_else(Fault::internal)?;
    }
    db.execute(
        "UPDATE retraining_scheduler SET next_us = ?2 WHERE model_name = ?1",
        params![name, next.timestamp_micros()],
    )?;
    let model = models::by_name(db, &name)?.ok_or_else(Fault::internal)?;
    let source: Option<(Option<String>, Option<i64>, Option<i64>)> = match &model.dataset {
        None => None,
        Some((dataset, _)) => db
            .query_row(
                "SELECT d.job_id, j.start_us, j.end_us FROM dataset d LEFT JOIN ingestion_job j ON j.id = d.job_id
                 WHERE d.name = ?1",
                [dataset],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()?,
    };
    let Some((Some(job), Some(start_us), Some(end_us))) = source else {
        tracing::warn!(
            model = name,
            "retraining skipped, the model's dataset holds no data"
        );
        return Ok(true);
    };
    let days: i64 = lookback.trim_matches(['P', 'D']).parse().unwrap_or(180);
    let from_us = start_us.max(end_us - days * 86_400_000_000);
    let mut detail = model.detail.clone();
    detail["TrainingDataStartTime"] = json!(from_us as f64 / 1e6);
    detail["TrainingDataEndTime"] = json!(end_us as f64 / 1e6);
    detail["RetrainingAvailableDataInDays"] = json!((end_us - from_us) / 86_400_000_000);
    detail["PromoteMode"] = json!(promote);
    let now = now.timestamp_micros();
    let version = versions::insert(
        db,
        &model.uuid,
        &model.arn,
        "RETRAINING",
        Some(&job),
        &model.schema,
        &detail,
        now,
    )?;
    tracing::info!(model = name, version, "retraining started");
    Ok(true)
}

/// A `detail` object with one more member.
fn with(detail: &Value, name: &str, value: Value) -> Value {
    let mut detail = if detail.is_object() {
        detail.clone()
    } else {
        json!({})
    };
    detail[name] = value;
    detail
}
