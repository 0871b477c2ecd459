//! The rows of inference schedulers: reading one, and the status changes that more than one part makes.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use crate::service::faults::Fault;

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
    /// `PENDING`, `RUNNING`, `STOPPING` or `STOPPED`.
    pub status: String,
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
    /// `ANOMALOUS` or `NORMAL` once there was a result.
    pub latest_result: Option<String>,
}

/// The columns `read` expects, from `scheduler s JOIN model m`.
pub const COLUMNS: &str = "s.name, s.uuid, s.arn, s.model_name, m.arn, s.status, s.delay_minutes, s.frequency, s.input, \
     s.output, s.role_arn, s.kms_key, s.created_us, s.updated_us, s.next_boundary_us, s.latest_result";

/// Reads one row of [`COLUMNS`].
pub fn read(row: &Row<'_>) -> rusqlite::Result<Scheduler> {
    let json = |index: usize| -> rusqlite::Result<Value> {
        let text: String = row.get(index)?;
        serde_json::from_str(&text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(
                index,
                rusqlite::types::Type::Text,
                Box::new(error),
            )
        })
    };
    Ok(Scheduler {
        name: row.get(0)?,
        uuid: row.get(1)?,
        arn: row.get(2)?,
        model_name: row.get(3)?,
        model_arn: row.get(4)?,
        status: row.get(5)?,
        delay_minutes: row.get(6)?,
        frequency: row.get(7)?,
        input: json(8)?,
        output: json(9)?,
        role_arn: row.get(10)?,
        kms_key: row.get(11)?,
        created_us: row.get(12)?,
        updated_us: row.get(13)?,
        next_boundary_us: row.get(14)?,
        latest_result: row.get(15)?,
    })
}

/// The scheduler of that name.
pub fn by_name(db: &Connection, name: &str) -> Result<Option<Scheduler>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM scheduler s JOIN model m ON m.name = s.model_name WHERE s.name = ?1"
    );
    Ok(db
        .prepare_cached(&sql)?
        .query_row([name], read)
        .optional()?)
}

/// Moves the scheduler `uuid` from one status to another; false if it was in neither.
pub fn transition(db: &Connection, uuid: &str, from: &str, to: &str) -> Result<bool, Fault> {
    let changed = db.execute(
        "UPDATE scheduler SET status = ?3 WHERE uuid = ?1 AND status = ?2",
        params![uuid, from, to],
    )?;
    Ok(changed == 1)
}
