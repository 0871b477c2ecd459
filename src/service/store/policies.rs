//! Resource policies of datasets, models and model versions.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{Once, Store};
use crate::service::faults::Fault;

/// The answer to PutResourcePolicy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadePolicy {
    /// What it is the policy of.
    pub resource_arn: String,
    /// Its revision.
    pub policy_revision_id: String,
}

/// A policy as stored.
#[derive(Debug)]
pub struct Policy {
    /// Its text.
    pub text: String,
    /// Its revision.
    pub revision: String,
    /// Creation, microseconds.
    pub created_us: i64,
    /// Last edit, microseconds.
    pub updated_us: i64,
}

impl Store {
    /// Sets the policy of a resource; only over the revision `expected`, if there is one.
    pub async fn put_policy(
        &self,
        once: Option<Once>,
        arn: &str,
        text: &str,
        expected: Option<String>,
        now: DateTime<Utc>,
    ) -> Result<MadePolicy, Fault> {
        let (arn, text) = (arn.to_owned(), text.to_owned());
        self.make(once, now, move |db| {
            must_exist(db, &arn)?;
            let sql = "SELECT revision FROM resource_policy WHERE arn = ?1";
            let current: Option<String> =
                db.query_row(sql, [&arn], |row| row.get(0)).optional()?;
            if let Some(expected) = expected
                && current.as_ref() != Some(&expected)
            {
                return Err(Fault::conflict(format!(
                    "The policy of {arn} has the revision {}, not {expected}: read it again",
                    current.as_deref().unwrap_or("(none)")
                )));
            }
            let revision = uuid::Uuid::new_v4().simple().to_string();
            db.execute(
                "INSERT INTO resource_policy (arn, policy, revision, created_us, updated_us) VALUES (?1, ?2, ?3, ?4, ?4)
                 ON CONFLICT (arn) DO UPDATE SET policy = ?2, revision = ?3, updated_us = ?4",
                params![arn, text, revision, now.timestamp_micros()],
            )?;
            Ok(MadePolicy {
                resource_arn: arn,
                policy_revision_id: revision,
            })
        })
        .await
    }

    /// The policy of a resource.
    pub async fn policy(&self, arn: &str) -> Result<Policy, Fault> {
        let arn = arn.to_owned();
        self.transact(move |db| {
            let sql = "SELECT policy, revision, created_us, updated_us FROM resource_policy WHERE arn = ?1";
            let read = |row: &rusqlite::Row<'_>| {
                Ok(Policy {
                    text: row.get(0)?,
                    revision: row.get(1)?,
                    created_us: row.get(2)?,
                    updated_us: row.get(3)?,
                })
            };
            db.query_row(sql, [&arn], read).optional()?.ok_or_else(|| none(&arn))
        })
        .await
    }

    /// Deletes the policy of a resource.
    pub async fn delete_policy(&self, arn: &str) -> Result<(), Fault> {
        let arn = arn.to_owned();
        self.transact(move |db| {
            match db.execute("DELETE FROM resource_policy WHERE arn = ?1", [&arn])? {
                0 => Err(none(&arn)),
                _ => Ok(()),
            }
        })
        .await
    }
}

fn none(arn: &str) -> Fault {
    Fault::not_found(format!("Resource {arn} has no policy"))
}

fn must_exist(db: &Connection, arn: &str) -> Result<(), Fault> {
    let sql =
        "SELECT 1 FROM dataset WHERE arn = ?1 UNION SELECT 1 FROM model_version WHERE arn = ?1
               UNION SELECT 1 FROM model WHERE arn = ?1";
    let found: Option<i64> = db.query_row(sql, [arn], |row| row.get(0)).optional()?;
    found
        .map(drop)
        .ok_or_else(|| Fault::not_found(format!("Dataset or model {arn} does not exist")))
}
