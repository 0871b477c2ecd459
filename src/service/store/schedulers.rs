//! Inference schedulers: their rows, and the states an operation moves them between (contract section 2).
//!
//! ```text
//!  (none) --create--> PENDING --> RUNNING --stop--> STOPPING --> STOPPED --delete--> (none)
//!                        ^                                         |
//!                        +------------------ start ----------------+
//! ```
//!
//! The two plain arrows are the runner's (`super::transitions`).

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::models::ModelStatus;
use super::words::words;
use super::{Once, Store, json_column, stored_json, tags, understood};
use crate::service::faults::Fault;
use crate::signal::Cadence;

words! {
    /// Where an inference scheduler stands.
    #[derive(Hash)]
    pub enum SchedulerStatus {
        /// Created or started, and not running yet.
        Pending = "PENDING",
        /// Its windows are executed.
        Running = "RUNNING",
        /// Told to stop.
        Stopping = "STOPPING",
        /// At rest: it may be changed and deleted.
        Stopped = "STOPPED",
    }
}

words! {
    /// What the last window with results said.
    pub enum LatestResult {
        /// A row of it was anomalous.
        Anomalous = "ANOMALOUS",
        /// None was.
        Normal = "NORMAL",
    }
}

/// An inference scheduler to be made.
#[derive(Debug)]
pub struct NewScheduler {
    /// Name, unique.
    pub name: String,
    /// Identity.
    pub uuid: String,
    /// ARN.
    pub arn: String,
    /// The model it is to score with.
    pub model: String,
    /// Delay offset, minutes.
    pub delay_minutes: i64,
    /// `PT5M` ... `PT1H`.
    pub frequency: String,
    /// `DataInputConfiguration` as given.
    pub input: Value,
    /// `DataOutputConfiguration` as given.
    pub output: Value,
    /// Stored for the client; nothing is assumed with it.
    pub role_arn: String,
    /// `ServerSideKmsKeyId` as given.
    pub kms_key: Option<String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// The answer to CreateInferenceScheduler.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadeScheduler {
    /// ARN.
    pub inference_scheduler_arn: String,
    /// Its name.
    pub inference_scheduler_name: String,
    /// Where it stood.
    pub status: SchedulerStatus,
    /// Verdict of its model's evaluation.
    pub model_quality: Option<String>,
}

/// What is to change of a scheduler; `None` stays as it is.
#[derive(Debug)]
pub struct SchedulerChange {
    /// Delay offset, minutes.
    pub delay_minutes: Option<i64>,
    /// `PT5M` ... `PT1H`.
    pub frequency: Option<String>,
    /// `DataInputConfiguration`.
    pub input: Option<Value>,
    /// `DataOutputConfiguration`.
    pub output: Option<Value>,
    /// Its role.
    pub role_arn: Option<String>,
}

/// Which schedulers are asked for.
#[derive(Debug)]
pub struct SchedulersAsked {
    /// Those whose name begins so.
    pub prefix: String,
    /// That of this model.
    pub model: Option<String>,
    /// Those that stand there.
    pub status: Option<SchedulerStatus>,
    /// Name of the one before the first.
    pub after: String,
    /// So many at most.
    pub limit: i64,
}

/// One inference scheduler as stored.
#[derive(Debug, Clone)]
pub struct Scheduler {
    /// Name, unique.
    pub name: String,
    /// Identity; a scheduler deleted and created again under its name has another.
    pub uuid: String,
    /// ARN.
    pub arn: String,
    /// The model it scores with.
    pub model_name: String,
    /// That model's ARN.
    pub model_arn: String,
    /// Where it stands.
    pub status: SchedulerStatus,
    /// Delay offset, minutes.
    pub delay_minutes: i64,
    /// `PT5M` ... `PT1H`.
    pub frequency: String,
    /// `DataInputConfiguration` as given.
    pub input: Value,
    /// `DataOutputConfiguration` as given.
    pub output: Value,
    /// Stored for the client; nothing is assumed with it.
    pub role_arn: String,
    /// `ServerSideKmsKeyId` as given.
    pub kms_key: Option<String>,
    /// Creation, microseconds.
    pub created_us: i64,
    /// Last edit, microseconds.
    pub updated_us: i64,
    /// End of the next window to run, microseconds.
    pub next_boundary_us: Option<i64>,
    /// What the last result said, once there was one.
    pub latest_result: Option<LatestResult>,
}

/// What the times of a scheduler go by, as far as this build understands its row.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Name, unique.
    pub name: String,
    /// Identity.
    pub uuid: String,
    /// ARN.
    pub arn: String,
    /// The model it scores with.
    pub model_name: String,
    /// Delay offset.
    pub delay: TimeDelta,
    /// How long its windows are.
    pub cadence: Cadence,
    /// End of the next window to run.
    pub next_boundary: Option<DateTime<Utc>>,
    /// Why this build cannot run it. Then delay and cadence are such that it fails now and then.
    pub problem: Option<String>,
}

/// Delay offsets that the API takes, minutes.
const DELAYS: std::ops::RangeInclusive<i64> = 0..=60;
/// How often a scheduler fails whose frequency is unknown.
const UNKNOWN: Cadence = Cadence::Pt1h;

/// The columns `read` expects, from `scheduler s JOIN model m`.
pub(super) const COLUMNS: &str = "s.name, s.uuid, s.arn, s.model_name, m.arn, s.status, s.delay_minutes, s.frequency, s.input, \
     s.output, s.role_arn, s.kms_key, s.created_us, s.updated_us, s.next_boundary_us, s.latest_result";

impl Store {
    /// Makes an inference scheduler, which starts by itself: of a model that is SUCCESS and has no other.
    pub async fn create_scheduler(
        &self,
        once: Option<Once>,
        new: NewScheduler,
        now: DateTime<Utc>,
    ) -> Result<MadeScheduler, Fault> {
        self.make(once, now, move |db| {
            if by_name(db, &new.name)?.is_some() {
                return Err(Fault::conflict(format!(
                    "Inference scheduler '{}' already exists",
                    new.name
                )));
            }
            let quality = refuse_model(db, &new)?;
            let status = SchedulerStatus::Pending;
            db.execute(
                "INSERT INTO scheduler (name, uuid, arn, model_name, status, delay_minutes, frequency, input, output, role_arn,
                                        kms_key, created_us, updated_us)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12)",
                params![
                    new.name,
                    new.uuid,
                    new.arn,
                    new.model,
                    status,
                    new.delay_minutes,
                    new.frequency,
                    new.input.to_string(),
                    new.output.to_string(),
                    new.role_arn,
                    new.kms_key,
                    now.timestamp_micros(),
                ],
            )?;
            tags::set(db, &new.arn, &new.tags)?;
            Ok(MadeScheduler {
                inference_scheduler_arn: new.arn,
                inference_scheduler_name: new.name,
                status,
                model_quality: quality,
            })
        })
        .await
    }

    /// The inference scheduler of that name.
    pub async fn scheduler(&self, name: &str) -> Result<Scheduler, Fault> {
        let name = name.to_owned();
        self.transact(move |db| named(db, &name)).await
    }

    /// Inference schedulers, by name.
    pub async fn schedulers(&self, asked: SchedulersAsked) -> Result<Vec<Scheduler>, Fault> {
        self.transact(move |db| {
            let sql = format!(
                "SELECT {COLUMNS} FROM scheduler s JOIN model m ON m.name = s.model_name
                 WHERE s.name > ?1 AND substr(s.name, 1, length(?2)) = ?2
                   AND (?3 IS NULL OR s.model_name = ?3) AND (?4 IS NULL OR s.status = ?4)
                 ORDER BY s.name LIMIT ?5"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let bounds = params![
                asked.after,
                asked.prefix,
                asked.model,
                asked.status,
                asked.limit
            ];
            let rows = statement.query_map(bounds, read)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Starts a scheduler that is STOPPED; as it is then.
    pub async fn start_scheduler(&self, name: &str) -> Result<Scheduler, Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let mut scheduler = at_rest(db, &name, "started")?;
            scheduler.status = SchedulerStatus::Pending;
            set_status(db, &scheduler)?;
            Ok(scheduler)
        })
        .await
    }

    /// Stops a scheduler; one that is stopping or stopped stays so. As it is then.
    pub async fn stop_scheduler(&self, name: &str) -> Result<Scheduler, Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let mut scheduler = named(db, &name)?;
            match scheduler.status {
                SchedulerStatus::Pending | SchedulerStatus::Running => {
                    scheduler.status = SchedulerStatus::Stopping;
                    set_status(db, &scheduler)?;
                }
                SchedulerStatus::Stopping | SchedulerStatus::Stopped => {}
            }
            Ok(scheduler)
        })
        .await
    }

    /// Changes a scheduler that is STOPPED.
    pub async fn update_scheduler(
        &self,
        name: &str,
        change: SchedulerChange,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let scheduler = at_rest(db, &name, "updated")?;
            let frequency = change.frequency.unwrap_or(scheduler.frequency);
            let sampling_us = db.query_row(
                "SELECT sampling_us FROM model WHERE name = ?1",
                [&scheduler.model_name],
                |row| row.get::<_, Option<i64>>(0),
            )?;
            refuse_rates(&scheduler.model_name, sampling_us, &frequency)?;
            db.execute(
                "UPDATE scheduler SET delay_minutes = ?2, frequency = ?3, input = ?4, output = ?5, role_arn = ?6, updated_us = ?7
                 WHERE uuid = ?1",
                params![
                    scheduler.uuid,
                    change.delay_minutes.unwrap_or(scheduler.delay_minutes),
                    frequency,
                    change.input.unwrap_or(scheduler.input).to_string(),
                    change.output.unwrap_or(scheduler.output).to_string(),
                    change.role_arn.unwrap_or(scheduler.role_arn),
                    now.timestamp_micros(),
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Deletes a scheduler that is STOPPED, with its history. The result objects in S3 stay.
    pub async fn delete_scheduler(&self, name: &str) -> Result<(), Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let scheduler = at_rest(db, &name, "deleted")?;
            db.execute("DELETE FROM scheduler WHERE uuid = ?1", [&scheduler.uuid])?;
            tags::forget(db, &scheduler.arn)
        })
        .await
    }
}

/// When the scheduler `uuid` runs; nothing of it has to be understood.
pub(super) fn schedule(db: &Connection, uuid: &str) -> Result<Option<Schedule>, Fault> {
    let sql = "SELECT name, uuid, arn, model_name, delay_minutes, frequency, next_boundary_us FROM scheduler WHERE uuid = ?1";
    let read = |row: &Row<'_>| {
        let (minutes, frequency): (i64, String) = (row.get(4)?, row.get(5)?);
        let cadence = frequency.parse::<Cadence>();
        let problem = match cadence {
            Err(_) => Some(format!("its frequency '{frequency}' is unknown")),
            Ok(_) if !DELAYS.contains(&minutes) => {
                Some(format!("its delay of {minutes} minutes is unknown"))
            }
            Ok(_) => None,
        };
        let next: Option<i64> = row.get(6)?;
        Ok(Schedule {
            name: row.get(0)?,
            uuid: row.get(1)?,
            arn: row.get(2)?,
            model_name: row.get(3)?,
            delay: TimeDelta::minutes(minutes.clamp(*DELAYS.start(), *DELAYS.end())),
            cadence: cadence.unwrap_or(UNKNOWN),
            next_boundary: next.and_then(DateTime::from_timestamp_micros),
            problem,
        })
    };
    Ok(db.prepare_cached(sql)?.query_row([uuid], read).optional()?)
}

/// Reads one row of [`COLUMNS`]. A configuration that is damaged is null: the list of all tells the others, and who goes by it
/// asks [`by_uuid`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Scheduler> {
    Ok(Scheduler {
        name: row.get(0)?,
        uuid: row.get(1)?,
        arn: row.get(2)?,
        model_name: row.get(3)?,
        model_arn: row.get(4)?,
        status: row.get(5)?,
        delay_minutes: row.get(6)?,
        frequency: row.get(7)?,
        input: stored_json(row, 8)?,
        output: stored_json(row, 9)?,
        role_arn: row.get(10)?,
        kms_key: row.get(11)?,
        created_us: row.get(12)?,
        updated_us: row.get(13)?,
        next_boundary_us: row.get(14)?,
        latest_result: latest_result(row, 15)?,
    })
}

/// What the last result said; the next one says it anew, so a word that only another build knows is none.
fn latest_result(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<LatestResult>> {
    let word: Option<String> = row.get(column)?;
    Ok(word.and_then(|word| LatestResult::from_sql(&word)))
}

/// The scheduler of that identity, or why this build does not understand it.
pub(super) fn by_uuid(db: &Connection, uuid: &str) -> Result<Result<Scheduler, String>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM scheduler s JOIN model m ON m.name = s.model_name WHERE s.uuid = ?1"
    );
    let whole = |row: &Row<'_>| {
        Ok(Scheduler {
            input: json_column(row, 8)?,
            output: json_column(row, 9)?,
            ..read(row)?
        })
    };
    Ok(understood(
        db.prepare_cached(&sql)?.query_row([uuid], whole),
    )?)
}

/// The scheduler of that name.
pub(super) fn by_name(db: &Connection, name: &str) -> Result<Option<Scheduler>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM scheduler s JOIN model m ON m.name = s.model_name WHERE s.name = ?1"
    );
    Ok(db
        .prepare_cached(&sql)?
        .query_row([name], read)
        .optional()?)
}

/// The name of the scheduler that a model has.
pub(super) fn of_model(db: &Connection, model: &str) -> Result<Option<String>, Fault> {
    let sql = "SELECT name FROM scheduler WHERE model_name = ?1";
    Ok(db.query_row(sql, [model], |row| row.get(0)).optional()?)
}

/// Moves the scheduler `uuid` from one status to another; false if it was in neither.
pub(super) fn transition(
    db: &Connection,
    uuid: &str,
    from: SchedulerStatus,
    to: SchedulerStatus,
) -> Result<bool, Fault> {
    let changed = db.execute(
        "UPDATE scheduler SET status = ?3 WHERE uuid = ?1 AND status = ?2",
        params![uuid, from, to],
    )?;
    Ok(changed == 1)
}

fn set_status(db: &Connection, scheduler: &Scheduler) -> Result<(), Fault> {
    db.execute(
        "UPDATE scheduler SET status = ?2 WHERE uuid = ?1",
        params![scheduler.uuid, scheduler.status],
    )?;
    Ok(())
}

fn named(db: &Connection, name: &str) -> Result<Scheduler, Fault> {
    by_name(db, name)?
        .ok_or_else(|| Fault::not_found(format!("Inference scheduler '{name}' does not exist")))
}

fn at_rest(db: &Connection, name: &str, wanted: &str) -> Result<Scheduler, Fault> {
    let scheduler = named(db, name)?;
    match scheduler.status {
        SchedulerStatus::Stopped => Ok(scheduler),
        status => Err(Fault::conflict(format!(
            "Inference scheduler '{name}' is {status}: it can be {wanted} only while STOPPED"
        ))),
    }
}

/// Refuses a model that cannot have this scheduler; the verdict of its evaluation otherwise.
fn refuse_model(db: &Connection, new: &NewScheduler) -> Result<Option<String>, Fault> {
    let model = &new.model;
    let found: Option<(ModelStatus, Option<i64>, Option<String>)> = db
        .query_row(
            "SELECT status, sampling_us, quality FROM model WHERE name = ?1",
            [model],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((status, sampling_us, quality)) = found else {
        return Err(Fault::not_found(format!("Model '{model}' does not exist")));
    };
    if status != ModelStatus::Success {
        return Err(Fault::conflict(format!(
            "Model '{model}' is {status}: an inference scheduler needs a model that is SUCCESS"
        )));
    }
    if let Some(other) = of_model(db, model)? {
        return Err(Fault::quota(format!(
            "Model '{model}' already has the inference scheduler '{other}'; the quota is one per model"
        )));
    }
    refuse_rates(model, sampling_us, &new.frequency)?;
    Ok(quality)
}

/// Contract 4.3: a window must hold at least one step of the model's sampling grid.
fn refuse_rates(model: &str, sampling_us: Option<i64>, frequency: &str) -> Result<(), Fault> {
    let cadence: Cadence = frequency.parse().map_err(|_| Fault::internal())?;
    match sampling_us {
        Some(step) if step > cadence.micros() => Err(Fault::validation(format!(
            "DataUploadFrequency {frequency} is shorter than the sampling rate of model '{model}' ({} minutes): choose \
             a frequency of {} minutes or longer",
            step / 60_000_000,
            step / 60_000_000,
        ))),
        _ => Ok(()),
    }
}
