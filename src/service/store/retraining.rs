//! Retraining schedulers: when a model is trained again. The training itself runs in the background (`super::making`).

use chrono::{DateTime, Months, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::models::{self, Model, ModelStatus};
use super::versions::{SourceType, VersionStatus};
use super::words::words;
use super::{Once, Store, stored_json};
use crate::service::faults::Fault;

words! {
    /// Where a retraining scheduler stands.
    pub enum RetrainingStatus {
        /// Created or started, and not running yet.
        Pending = "PENDING",
        /// Its retrainings begin when they are due.
        Running = "RUNNING",
        /// Told to stop.
        Stopping = "STOPPING",
        /// At rest: it may be changed and deleted.
        Stopped = "STOPPED",
    }
}

words! {
    /// Who decides whether a retrained version becomes active.
    pub enum PromoteMode {
        /// The service, by its evaluation.
        Managed = "MANAGED",
        /// A person.
        Manual = "MANUAL",
    }
}

/// A retraining scheduler to be made.
#[derive(Debug)]
pub struct NewRetraining {
    /// Its model.
    pub model: String,
    /// The first day, microseconds.
    pub start_us: Option<i64>,
    /// `P30D` ... `P1Y`.
    pub frequency: String,
    /// `P180D` ...
    pub lookback: String,
    /// Who decides.
    pub promote: PromoteMode,
}

/// The answer to CreateRetrainingScheduler.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadeRetraining {
    /// Its model.
    pub model_name: String,
    /// The model's ARN.
    pub model_arn: String,
    /// Where it stood.
    pub status: RetrainingStatus,
}

/// What is to change of a retraining scheduler; `None` stays as it is.
#[derive(Debug)]
pub struct RetrainingChange {
    /// The first day, microseconds.
    pub start_us: Option<i64>,
    /// `P30D` ... `P1Y`.
    pub frequency: Option<String>,
    /// `P180D` ...
    pub lookback: Option<String>,
    /// Who decides.
    pub promote: Option<PromoteMode>,
}

/// Which retraining schedulers are asked for.
#[derive(Debug)]
pub struct RetrainingsAsked {
    /// Those whose model's name begins so.
    pub prefix: String,
    /// Those that stand there.
    pub status: Option<RetrainingStatus>,
    /// The model of the one before the first.
    pub after: String,
    /// So many at most.
    pub limit: i64,
}

/// A retraining scheduler as stored.
#[derive(Debug, Clone)]
pub struct Retraining {
    /// Its model.
    pub model_name: String,
    /// The model's ARN.
    pub model_arn: String,
    /// Where it stands.
    pub status: RetrainingStatus,
    /// The first day, microseconds.
    pub start_us: Option<i64>,
    /// The next retraining, microseconds.
    pub next_us: Option<i64>,
    /// `P30D` ... `P1Y`.
    pub frequency: String,
    /// `P180D` ...
    pub lookback: String,
    /// Who decides.
    pub promote: PromoteMode,
    /// Creation, microseconds.
    pub created_us: i64,
    /// Last edit, microseconds.
    pub updated_us: i64,
}

/// What is told of a model's retraining.
#[derive(Debug, Default)]
pub struct RetrainingTold {
    /// The newest version that came of it.
    pub latest: Option<Retrained>,
    /// Where its scheduler stands.
    pub status: Option<RetrainingStatus>,
    /// When the next one begins, microseconds.
    pub next_us: Option<i64>,
}

/// A version that came of a retraining.
#[derive(Debug)]
pub struct Retrained {
    /// Its number.
    pub version: i64,
    /// Where it stands.
    pub status: VersionStatus,
    /// Why it failed.
    pub failed_reason: Option<String>,
    /// When it was begun, microseconds.
    pub created_us: i64,
    /// How many days of data there were.
    pub available_days: Value,
}

const COLUMNS: &str = "r.model_name, m.arn, r.status, r.start_us, r.next_us, r.frequency, r.lookback, r.promote, r.created_us, \
     r.updated_us";

impl Store {
    /// Makes a retraining scheduler, which starts by itself: one for each model that is SUCCESS and has a dataset.
    pub async fn create_retraining(
        &self,
        once: Option<Once>,
        new: NewRetraining,
        now: DateTime<Utc>,
    ) -> Result<MadeRetraining, Fault> {
        self.make(once, now, move |db| {
            let model = models::named(db, &new.model)?;
            if by_model(db, &model.name)?.is_some() {
                return Err(Fault::conflict(format!(
                    "Model '{}' already has a retraining scheduler",
                    model.name
                )));
            }
            if model.status != ModelStatus::Success {
                return Err(Fault::conflict(format!(
                    "Model '{}' is {}: only SUCCESS can be retrained",
                    model.name, model.status
                )));
            }
            if model.dataset.is_none() {
                return Err(Fault::conflict(format!(
                    "Model '{}' has no dataset it could be retrained on",
                    model.name
                )));
            }
            let (start_us, next_us) = dates(now, new.start_us, &new.frequency)?;
            let status = RetrainingStatus::Pending;
            db.execute(
                "INSERT INTO retraining_scheduler (model_name, status, start_us, next_us, frequency, lookback, promote,
                                                   created_us, updated_us)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
                params![
                    model.name,
                    status,
                    start_us,
                    next_us,
                    new.frequency,
                    new.lookback,
                    new.promote,
                    now.timestamp_micros(),
                ],
            )?;
            Ok(MadeRetraining {
                model_name: model.name,
                model_arn: model.arn,
                status,
            })
        })
        .await
    }

    /// The retraining scheduler of a model.
    pub async fn retraining(&self, model: &str) -> Result<Retraining, Fault> {
        let model = model.to_owned();
        self.transact(move |db| named(db, &model)).await
    }

    /// Retraining schedulers, by model.
    pub async fn retrainings(&self, asked: RetrainingsAsked) -> Result<Vec<Retraining>, Fault> {
        self.transact(move |db| {
            let sql = format!(
                "SELECT {COLUMNS} FROM retraining_scheduler r JOIN model m ON m.name = r.model_name
                 WHERE r.model_name > ?1 AND substr(r.model_name, 1, length(?2)) = ?2 AND (?3 IS NULL OR r.status = ?3)
                 ORDER BY r.model_name LIMIT ?4"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let bounds = params![asked.after, asked.prefix, asked.status, asked.limit];
            let rows = statement.query_map(bounds, read)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Starts a retraining scheduler that is STOPPED; as it is then.
    pub async fn start_retraining(
        &self,
        model: &str,
        now: DateTime<Utc>,
    ) -> Result<Retraining, Fault> {
        let model = model.to_owned();
        self.transact(move |db| {
            let mut scheduler = at_rest(db, &model, "started")?;
            let (_, next_us) = dates(now, scheduler.next_us, &scheduler.frequency)?;
            (scheduler.status, scheduler.next_us) = (RetrainingStatus::Pending, Some(next_us));
            set_status(db, &scheduler)?;
            Ok(scheduler)
        })
        .await
    }

    /// Stops a retraining scheduler; one that is stopping or stopped stays so. As it is then.
    pub async fn stop_retraining(&self, model: &str) -> Result<Retraining, Fault> {
        let model = model.to_owned();
        self.transact(move |db| {
            let mut scheduler = named(db, &model)?;
            match scheduler.status {
                RetrainingStatus::Pending | RetrainingStatus::Running => {
                    scheduler.status = RetrainingStatus::Stopping;
                    set_status(db, &scheduler)?;
                }
                RetrainingStatus::Stopping | RetrainingStatus::Stopped => {}
            }
            Ok(scheduler)
        })
        .await
    }

    /// Changes a retraining scheduler that is STOPPED.
    pub async fn update_retraining(
        &self,
        model: &str,
        change: RetrainingChange,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let model = model.to_owned();
        self.transact(move |db| {
            let scheduler = at_rest(db, &model, "updated")?;
            let frequency = change.frequency.unwrap_or(scheduler.frequency);
            let (start_us, next_us) = dates(now, change.start_us.or(scheduler.start_us), &frequency)?;
            db.execute(
                "UPDATE retraining_scheduler SET start_us = ?2, next_us = ?3, frequency = ?4, lookback = ?5, promote = ?6,
                                                 updated_us = ?7
                 WHERE model_name = ?1",
                params![
                    model,
                    start_us,
                    next_us,
                    frequency,
                    change.lookback.unwrap_or(scheduler.lookback),
                    change.promote.unwrap_or(scheduler.promote),
                    now.timestamp_micros(),
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Deletes a retraining scheduler that is STOPPED.
    pub async fn delete_retraining(&self, model: &str) -> Result<(), Fault> {
        let model = model.to_owned();
        self.transact(move |db| {
            at_rest(db, &model, "deleted")?;
            db.execute(
                "DELETE FROM retraining_scheduler WHERE model_name = ?1",
                [&model],
            )?;
            Ok(())
        })
        .await
    }
}

/// What is told of a model's retraining.
pub(super) fn told(db: &Connection, model: &Model) -> Result<RetrainingTold, Fault> {
    let latest = db
        .query_row(
            "SELECT version, status, failed_reason, created_us, detail FROM model_version
             WHERE model_uuid = ?1 AND source_type = ?2 ORDER BY version DESC LIMIT 1",
            params![model.uuid, SourceType::Retraining],
            |row| {
                let detail = stored_json(row, 4)?;
                Ok(Retrained {
                    version: row.get(0)?,
                    status: row.get(1)?,
                    failed_reason: row.get(2)?,
                    created_us: row.get(3)?,
                    available_days: detail["RetrainingAvailableDataInDays"].clone(),
                })
            },
        )
        .optional()?;
    let scheduler = by_model(db, &model.name)?;
    let moving = scheduler
        .as_ref()
        .filter(|scheduler| scheduler.status != RetrainingStatus::Stopped);
    Ok(RetrainingTold {
        latest,
        next_us: moving.and_then(|scheduler| scheduler.next_us),
        status: scheduler.map(|scheduler| scheduler.status),
    })
}

/// `at` plus a retraining frequency such as `P1M`; `None` where it is shorter than 30 days or longer than a year.
pub(super) fn after(at: DateTime<Utc>, frequency: &str) -> Option<DateTime<Utc>> {
    let (mut months, mut days, mut number) = (0, 0, 0);
    for letter in frequency.strip_prefix('P')?.chars() {
        match letter {
            'Y' => months += 12 * std::mem::take(&mut number),
            'M' => months += std::mem::take(&mut number),
            'D' => days += i64::from(std::mem::take(&mut number)),
            digit => number = number * 10 + digit.to_digit(10)?,
        }
    }
    let least = i64::from(months) * 30 + days;
    let most = i64::from(months) * 365 / 12 + days;
    (least >= 30 && most <= 365).then_some(())?;
    at.checked_add_months(Months::new(months))?
        .checked_add_signed(TimeDelta::days(days))
}

/// The start date at the beginning of its day (UTC), and the first retraining that is not in the past.
fn dates(
    now: DateTime<Utc>,
    start_us: Option<i64>,
    frequency: &str,
) -> Result<(Option<i64>, i64), Fault> {
    let refuse = || {
        Fault::validation(
            "RetrainingFrequency must be between 30 days (P30D, P1M) and one year (P1Y)",
        )
    };
    let start = start_us.and_then(DateTime::from_timestamp_micros).map(day);
    let mut next = match start {
        Some(start) => start,
        None => after(day(now), frequency).ok_or_else(refuse)?,
    };
    after(next, frequency).ok_or_else(refuse)?;
    while next < day(now) {
        next = after(next, frequency).ok_or_else(refuse)?;
    }
    Ok((
        start.map(|start| start.timestamp_micros()),
        next.timestamp_micros(),
    ))
}

/// Puts dates back that a clock which was ahead has moved on: none is later than the first of its series that is to come.
pub(super) fn rewind(db: &Connection, now: DateTime<Utc>) -> Result<(), Fault> {
    let mut statement = db.prepare_cached(
        "SELECT model_name, start_us, created_us, frequency, next_us FROM retraining_scheduler
         WHERE status = 'RUNNING' AND next_us > ?1",
    )?;
    type Dates = (String, Option<i64>, i64, String, i64);
    let ahead: Vec<Dates> = statement
        .query_map([now.timestamp_micros()], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (model, start_us, created_us, frequency, next_us) in ahead {
        let time = DateTime::from_timestamp_micros;
        let mut right = match start_us {
            Some(start) => time(start),
            // Without a first day the series begins a frequency after it was made.
            None => time(created_us).and_then(|made| after(day(made.min(now)), &frequency)),
        };
        while let Some(date) = right.filter(|date| *date <= now) {
            right = after(date, &frequency);
        }
        let Some(right) = right
            .map(|right| right.timestamp_micros())
            .filter(|right| next_us > *right)
        else {
            continue;
        };
        tracing::warn!(
            model,
            "the next retraining was set by a clock that was ahead: it is moved back"
        );
        db.execute(
            "UPDATE retraining_scheduler SET next_us = ?2 WHERE model_name = ?1",
            params![model, right],
        )?;
    }
    Ok(())
}

/// Whether a retraining of the model was begun since that date, and since its scheduler was last changed.
pub(super) fn was_begun(
    db: &Connection,
    model_uuid: &str,
    date_us: i64,
    now: DateTime<Utc>,
) -> Result<bool, Fault> {
    let sql = "SELECT EXISTS (SELECT 1 FROM model_version
               WHERE model_uuid = ?1 AND source_type = ?2 AND created_us BETWEEN ?3 AND ?4 AND created_us >
                   (SELECT r.updated_us FROM retraining_scheduler r JOIN model m ON m.name = r.model_name WHERE m.uuid = ?1))";
    let bounds = params![
        model_uuid,
        SourceType::Retraining,
        date_us,
        now.timestamp_micros()
    ];
    Ok(db
        .prepare_cached(sql)?
        .query_row(bounds, |row| row.get(0))?)
}

fn day(at: DateTime<Utc>) -> DateTime<Utc> {
    at.date_naive().and_time(chrono::NaiveTime::MIN).and_utc()
}

fn set_status(db: &Connection, scheduler: &Retraining) -> Result<(), Fault> {
    db.execute(
        "UPDATE retraining_scheduler SET status = ?2, next_us = ?3 WHERE model_name = ?1",
        params![scheduler.model_name, scheduler.status, scheduler.next_us],
    )?;
    Ok(())
}

fn named(db: &Connection, model: &str) -> Result<Retraining, Fault> {
    models::named(db, model)?;
    by_model(db, model)?
        .ok_or_else(|| Fault::not_found(format!("Model '{model}' has no retraining scheduler")))
}

fn at_rest(db: &Connection, model: &str, wanted: &str) -> Result<Retraining, Fault> {
    let scheduler = named(db, model)?;
    match scheduler.status {
        RetrainingStatus::Stopped => Ok(scheduler),
        status => Err(Fault::conflict(format!(
            "The retraining scheduler of model '{model}' is {status}: it can be {wanted} only while STOPPED"
        ))),
    }
}

fn by_model(db: &Connection, model: &str) -> Result<Option<Retraining>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM retraining_scheduler r JOIN model m ON m.name = r.model_name WHERE r.model_name = ?1"
    );
    Ok(db
        .prepare_cached(&sql)?
        .query_row([model], read)
        .optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Retraining> {
    Ok(Retraining {
        model_name: row.get(0)?,
        model_arn: row.get(1)?,
        status: row.get(2)?,
        start_us: row.get(3)?,
        next_us: row.get(4)?,
        frequency: row.get(5)?,
        lookback: row.get(6)?,
        promote: row.get(7)?,
        created_us: row.get(8)?,
        updated_us: row.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_added_by_the_calendar_and_bounded() {
        let at: DateTime<Utc> = "2026-01-31T00:00:00Z".parse().unwrap();
        let shown = |frequency: &str| after(at, frequency).map(|at| at.to_rfc3339());
        assert_eq!(shown("P1M").as_deref(), Some("2026-02-28T00:00:00+00:00"));
        assert_eq!(shown("P1Y").as_deref(), Some("2027-01-31T00:00:00+00:00"));
        assert_eq!(
            shown("P2M15D").as_deref(),
            Some("2026-04-15T00:00:00+00:00")
        );
        for bad in ["P", "P29D", "P2Y", "P400D", "P366D", "P1Y1D", "P12M1D"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_puts_no_retraining_off_and_one_that_is_behind_begins_none_again()
     {
        fn at(text: &str) -> DateTime<Utc> {
            format!("{text}T10:00:00Z").parse().unwrap()
        }
        fn us(text: &str) -> i64 {
            at(text).timestamp_micros()
        }
        fn day_us(text: &str) -> i64 {
            day(at(text)).timestamp_micros()
        }
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let filled = store.transact(move |db| {
            for name in ["since", "made", "later"] {
                db.execute(
                    "INSERT INTO model (name, uuid, arn, status, schema, created_us, updated_us) VALUES (?1, ?1, ?1, 'SUCCESS', '{}', 0, 0)",
                    [name],
                )?;
                let start = match name {
                    "since" => Some(day_us("2026-01-31")),
                    "later" => Some(day_us("2026-09-01")),
                    _ => None,
                };
                db.execute(
                    "INSERT INTO retraining_scheduler (model_name, status, start_us, next_us, frequency, lookback, promote, created_us, updated_us)
                     VALUES (?1, 'RUNNING', ?2, ?3, 'P1M', 'P180D', 'MANAGED', ?4, ?4)",
                    params![name, start, day_us("2026-03-28"), us("2026-01-15")],
                )?;
            }
            Ok(())
        });
        filled.await.unwrap();
        let next = async || {
            let read = store.transact(|db| {
                let sql = "SELECT model_name, next_us FROM retraining_scheduler ORDER BY 1 DESC";
                let mut statement = db.prepare(sql)?;
                let rows = statement.query_map([], |row| {
                    let next: i64 = row.get(1)?;
                    let next = DateTime::from_timestamp_micros(next).unwrap();
                    Ok((row.get::<_, String>(0)?, next.date_naive().to_string()))
                })?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            });
            let found = read.await.unwrap();
            found.into_iter().map(|(_, next)| next).collect::<Vec<_>>()
        };
        // Before the clock is set nothing moves; two years ahead everything does, and back again.
        store
            .retrain("1970-01-01T00:00:10Z".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(next().await, ["2026-03-28"; 3]);
        store.retrain(at("2028-03-01")).await.unwrap();
        assert_eq!(next().await, ["2028-03-28"; 3]);
        store.retrain(at("2026-03-20")).await.unwrap();
        assert_eq!(next().await, ["2026-03-28", "2026-04-15", "2026-09-01"]);
        // What was begun at its date is not begun again by a clock that comes to it twice.
        let begun = store.transact(move |db| {
            db.execute(
                "INSERT INTO model_version (model_uuid, version, arn, status, source_type, detail, created_us, updated_us)
                 VALUES ('since', 1, 'a', 'SUCCESS', 'RETRAINING', '{}', ?1, ?1)",
                [us("2026-03-29")],
            )?;
            let known = |date, now| was_begun(db, "since", day_us(date), at(now));
            Ok([
                known("2026-03-28", "2026-03-30")?,
                known("2026-03-28", "2026-03-28")?,
                known("2026-04-28", "2026-04-28")?,
            ])
        });
        assert_eq!(begun.await.unwrap(), [true, false, false]);
    }
}
