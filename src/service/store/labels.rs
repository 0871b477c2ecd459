//! Label groups and their labels.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::words::words;
use super::{Once, Store, json_column, tags};
use crate::model::Span;
use crate::service::faults::Fault;

/// Labels per group (contract 4.4).
const MOST_LABELS: i64 = 5_000;

words! {
    /// What a label says about its range.
    pub enum Rating {
        /// A fault.
        Anomaly = "ANOMALY",
        /// Healthy.
        NoAnomaly = "NO_ANOMALY",
        /// Neither.
        Neutral = "NEUTRAL",
    }
}

/// A label group to be made.
#[derive(Debug)]
pub struct NewLabelGroup {
    /// Name, unique.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// Codes its labels may have.
    pub fault_codes: Vec<String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// The answer to CreateLabelGroup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadeLabelGroup {
    /// Its name.
    pub label_group_name: String,
    /// Its ARN.
    pub label_group_arn: String,
}

/// One label group.
#[derive(Debug)]
pub struct LabelGroup {
    /// Name, unique.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// Codes its labels may have.
    pub fault_codes: Vec<String>,
    /// Creation, microseconds.
    pub created_us: i64,
    /// Last edit, microseconds.
    pub updated_us: i64,
}

/// One label; to be made, or as stored.
#[derive(Debug)]
pub struct Label {
    /// Identity, 32 hexadecimal digits.
    pub id: String,
    /// Begin of its range, microseconds.
    pub start_us: i64,
    /// End of its range, microseconds.
    pub end_us: i64,
    /// What it says.
    pub rating: Rating,
    /// One of its group's codes.
    pub fault_code: Option<String>,
    /// Anything.
    pub notes: Option<String>,
    /// Whom it concerns.
    pub equipment: Option<String>,
    /// Creation, microseconds.
    pub created_us: i64,
}

/// The answer to CreateLabel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadeLabel {
    /// Its identity.
    pub label_id: String,
}

/// Which labels of a group are asked for.
#[derive(Debug)]
pub struct LabelsAsked {
    /// Those that end then or later, microseconds.
    pub from_us: i64,
    /// Those that start before, microseconds.
    pub to_us: i64,
    /// Those with this code.
    pub fault_code: Option<String>,
    /// Those with this equipment.
    pub equipment: Option<String>,
    /// Start and identity of the one before the first.
    pub after: Option<(i64, String)>,
    /// So many at most.
    pub limit: i64,
}

impl Store {
    /// Makes a label group; a taken name is a conflict.
    pub async fn create_label_group(
        &self,
        once: Option<Once>,
        new: NewLabelGroup,
        now: DateTime<Utc>,
    ) -> Result<MadeLabelGroup, Fault> {
        self.make(once, now, move |db| {
            if find_group(db, &new.name)?.is_some() {
                return Err(Fault::conflict(format!("Label group '{}' already exists", new.name)));
            }
            db.execute(
                "INSERT INTO label_group (name, arn, fault_codes, created_us, updated_us) VALUES (?1, ?2, ?3, ?4, ?4)",
                params![
                    new.name,
                    new.arn,
                    serde_json::json!(new.fault_codes).to_string(),
                    now.timestamp_micros()
                ],
            )?;
            tags::set(db, &new.arn, &new.tags)?;
            Ok(MadeLabelGroup {
                label_group_name: new.name,
                label_group_arn: new.arn,
            })
        })
        .await
    }

    /// The label group of that name.
    pub async fn label_group(&self, name: &str) -> Result<LabelGroup, Fault> {
        let name = name.to_owned();
        self.transact(move |db| group(db, &name)).await
    }

    /// Label groups whose name begins with `prefix`, by name, after `after`.
    pub async fn label_groups(
        &self,
        prefix: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<LabelGroup>, Fault> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.transact(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT name, arn, fault_codes, created_us, updated_us FROM label_group
                 WHERE name > ?1 AND substr(name, 1, length(?2)) = ?2 ORDER BY name LIMIT ?3",
            )?;
            let rows = statement.query_map(params![after, prefix, limit], read_group)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Replaces the fault codes of a group, if there are any given. Codes in use by labels stay on those labels.
    pub async fn update_label_group(
        &self,
        name: &str,
        codes: Option<Vec<String>>,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let group = group(db, &name)?;
            let codes = codes.unwrap_or(group.fault_codes);
            db.execute(
                "UPDATE label_group SET fault_codes = ?2, updated_us = ?3 WHERE name = ?1",
                params![
                    name,
                    serde_json::json!(codes).to_string(),
                    now.timestamp_micros()
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Deletes a group with its labels; not while a model is configured with it or learns from it.
    pub async fn delete_label_group(&self, name: &str) -> Result<(), Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let group = group(db, &name)?;
            let user: Option<String> = db
                .query_row(
                    "SELECT m.name FROM model m WHERE json_extract(m.detail, '$.LabelsInputConfiguration.LabelGroupName') = ?1
                     UNION
                     SELECT m.name FROM model_version v JOIN model m ON m.uuid = v.model_uuid
                     WHERE v.status = 'IN_PROGRESS'
                       AND json_extract(v.detail, '$.LabelsInputConfiguration.LabelGroupName') = ?1
                     LIMIT 1",
                    [&name],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(model) = user {
                return Err(Fault::conflict(format!(
                    "Label group '{name}' is used by model '{model}', whose next training learns from its labels: give the \
                     model other labels with UpdateModel, or delete the model first"
                )));
            }
            db.execute("DELETE FROM label_group WHERE name = ?1", [&name])?;
            tags::forget(db, &group.arn)
        })
        .await
    }

    /// Adds a label to a group.
    pub async fn create_label(
        &self,
        once: Option<Once>,
        group_name: &str,
        label: Label,
        now: DateTime<Utc>,
    ) -> Result<MadeLabel, Fault> {
        let name = group_name.to_owned();
        self.make(once, now, move |db| {
            let group = group(db, &name)?;
            if let Some(code) = &label.fault_code
                && !group.fault_codes.contains(code)
            {
                return Err(Fault::validation(format!(
                    "FaultCode '{code}' is not one of label group '{name}': add it with UpdateLabelGroup first"
                )));
            }
            let sql = "SELECT count(*) FROM label WHERE label_group = ?1";
            let count: i64 = db.query_row(sql, [&name], |row| row.get(0))?;
            if count >= MOST_LABELS {
                return Err(Fault::quota(format!(
                    "Label group '{name}' has {count} labels, the quota is {MOST_LABELS}"
                )));
            }
            db.execute(
                "INSERT INTO label (label_group, id, start_us, end_us, rating, fault_code, notes, equipment, created_us)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    name,
                    label.id,
                    label.start_us,
                    label.end_us,
                    label.rating,
                    label.fault_code,
                    label.notes,
                    label.equipment,
                    label.created_us,
                ],
            )?;
            Ok(MadeLabel { label_id: label.id })
        })
        .await
    }

    /// A label with its group.
    pub async fn label(&self, group_name: &str, id: &str) -> Result<(LabelGroup, Label), Fault> {
        let (name, id) = (group_name.to_owned(), id.to_owned());
        self.transact(move |db| {
            let group = group(db, &name)?;
            let label = label(db, &name, &id)?;
            Ok((group, label))
        })
        .await
    }

    /// Labels of a group, by start; `None` if there is no such group.
    pub async fn labels(
        &self,
        group_name: &str,
        asked: LabelsAsked,
    ) -> Result<Option<(LabelGroup, Vec<Label>)>, Fault> {
        let name = group_name.to_owned();
        self.transact(move |db| {
            let Some(group) = find_group(db, &name)? else {
                return Ok(None);
            };
            let mut statement = db.prepare_cached(
                "SELECT id, start_us, end_us, rating, fault_code, notes, equipment, created_us FROM label
                 WHERE label_group = ?1 AND (start_us, id) > (?2, ?3) AND end_us >= ?4 AND start_us < ?5
                   AND (?6 IS NULL OR fault_code = ?6) AND (?7 IS NULL OR equipment = ?7)
                 ORDER BY start_us, id LIMIT ?8",
            )?;
            let (after_us, after_id) = asked.after.unwrap_or((i64::MIN, String::new()));
            let rows = statement.query_map(
                params![
                    name,
                    after_us,
                    after_id,
                    asked.from_us,
                    asked.to_us,
                    asked.fault_code,
                    asked.equipment,
                    asked.limit,
                ],
                read_label,
            )?;
            Ok(Some((group, rows.collect::<rusqlite::Result<_>>()?)))
        })
        .await
    }

    /// The ranges of a group's labels that are rated ANOMALY, by start; `None` if there is no such group.
    pub async fn labelled_spans(&self, group_name: &str) -> Result<Option<Vec<Span>>, Fault> {
        let name = group_name.to_owned();
        self.transact(move |db| {
            if find_group(db, &name)?.is_none() {
                return Ok(None);
            }
            let mut statement = db.prepare_cached(
                "SELECT start_us, end_us FROM label WHERE label_group = ?1 AND rating = ?2 ORDER BY start_us",
            )?;
            let rows = statement.query_map(params![name, Rating::Anomaly], |row| {
                Ok(Span {
                    start: row.get(0)?,
                    end: row.get(1)?,
                })
            })?;
            Ok(Some(rows.collect::<rusqlite::Result<_>>()?))
        })
        .await
    }

    /// Deletes a label.
    pub async fn delete_label(&self, group_name: &str, id: &str) -> Result<(), Fault> {
        let (name, id) = (group_name.to_owned(), id.to_owned());
        self.transact(move |db| {
            group(db, &name)?;
            label(db, &name, &id)?;
            db.execute(
                "DELETE FROM label WHERE label_group = ?1 AND id = ?2",
                [&name, &id],
            )?;
            Ok(())
        })
        .await
    }
}

fn find_group(db: &Connection, name: &str) -> Result<Option<LabelGroup>, Fault> {
    let sql =
        "SELECT name, arn, fault_codes, created_us, updated_us FROM label_group WHERE name = ?1";
    Ok(db
        .prepare_cached(sql)?
        .query_row([name], read_group)
        .optional()?)
}

fn group(db: &Connection, name: &str) -> Result<LabelGroup, Fault> {
    find_group(db, name)?
        .ok_or_else(|| Fault::not_found(format!("Label group '{name}' does not exist")))
}

fn label(db: &Connection, group: &str, id: &str) -> Result<Label, Fault> {
    let sql =
        "SELECT id, start_us, end_us, rating, fault_code, notes, equipment, created_us FROM label
               WHERE label_group = ?1 AND id = ?2";
    db.prepare_cached(sql)?
        .query_row([group, id], read_label)
        .optional()?
        .ok_or_else(|| {
            Fault::not_found(format!(
                "Label '{id}' does not exist in label group '{group}'"
            ))
        })
}

fn read_group(row: &Row<'_>) -> rusqlite::Result<LabelGroup> {
    Ok(LabelGroup {
        name: row.get(0)?,
        arn: row.get(1)?,
        fault_codes: json_column(row, 2)?,
        created_us: row.get(3)?,
        updated_us: row.get(4)?,
    })
}

fn read_label(row: &Row<'_>) -> rusqlite::Result<Label> {
    Ok(Label {
        id: row.get(0)?,
        start_us: row.get(1)?,
        end_us: row.get(2)?,
        rating: row.get(3)?,
        fault_code: row.get(4)?,
        notes: row.get(5)?,
        equipment: row.get(6)?,
        created_us: row.get(7)?,
    })
}
