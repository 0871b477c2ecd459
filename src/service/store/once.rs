//! `ClientToken`: what a request made is made once.
//!
//! Guarantees: the answer is remembered in the transaction that makes the thing; the same request with the same token is
//! answered the same again while the thing is there, and another request with that token is a conflict (contract 1.1). A
//! thing that is deleted takes its token with it, in the transaction that deletes it (triggers in `0004_tokens.sql`).

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Store;
use crate::service::faults::Fault;

/// How long a token is remembered. The original's lifetime is not documented; SDK retries are seconds apart.
const LIFETIME: TimeDelta = TimeDelta::days(7);

/// A request that is to make its thing once.
#[derive(Debug, Clone)]
pub struct Once {
    operation: &'static str,
    token: String,
    request: String,
}

impl Once {
    /// `request` is the request without its token.
    pub fn new(operation: &'static str, token: &str, request: String) -> Once {
        Once {
            operation,
            token: token.to_owned(),
            request,
        }
    }

    /// Runs `make` unless the token was answered before; then its answer comes again.
    pub fn run<T: Serialize + DeserializeOwned>(
        &self,
        db: &Connection,
        now: DateTime<Utc>,
        make: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let Once {
            operation,
            token,
            request,
        } = self;
        let known: Option<(String, String)> = db
            .query_row(
                "SELECT request, response FROM idempotency WHERE operation = ?1 AND token = ?2",
                [operation, token.as_str()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        if let Some((before, response)) = known {
            if before != *request {
                return Err(Fault::conflict(format!(
                    "ClientToken '{token}' was used by another {operation} request: use a new token for a new request"
                )));
            }
            return serde_json::from_str(&response).map_err(|error| {
                tracing::error!(%error, operation, "a stored answer is damaged");
                Fault::internal()
            });
        }
        let made = make()?;
        let response = serde_json::to_value(&made).map_err(|_| Fault::internal())?;
        let horizon = (now - LIFETIME).timestamp_micros();
        db.execute("DELETE FROM idempotency WHERE created_us < ?1", [horizon])?;
        db.execute(
            "INSERT INTO idempotency (operation, token, request, response, created_us, subject) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                operation,
                token,
                request,
                response.to_string(),
                now.timestamp_micros(),
                subject(operation, &response)
            ],
        )?;
        Ok(made)
    }
}

impl Store {
    /// One transaction that makes something, once if the request says so.
    pub(super) async fn make<T>(
        &self,
        once: Option<Once>,
        now: DateTime<Utc>,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        self.transact(move |db| match once {
            Some(once) => once.run(db, now, || work(db)),
            None => work(db),
        })
        .await
    }
}

/// What an answer says was made, as the triggers name it when it is deleted.
fn subject(operation: &str, answer: &Value) -> Option<String> {
    let member = |name: &str| answer[name].as_str().map(str::to_owned);
    match operation {
        "CreateDataset" | "ImportDataset" => member("DatasetArn"),
        "CreateInferenceScheduler" => member("InferenceSchedulerArn"),
        "CreateLabel" => member("LabelId"),
        "CreateLabelGroup" => member("LabelGroupArn"),
        "CreateModel" => member("ModelArn"),
        "CreateRetrainingScheduler" => {
            member("ModelName").map(|name| format!("retraining of {name}"))
        }
        "ImportModelVersion" => member("ModelVersionArn"),
        "PutResourcePolicy" => member("ResourceArn").map(|arn| format!("policy of {arn}")),
        "StartDataIngestionJob" => member("JobId"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::service::shapes::INPUTS;

    #[test]
    fn every_operation_with_a_client_token_says_what_it_made() {
        let all = json!({
            "DatasetArn": "d", "InferenceSchedulerArn": "s", "LabelId": "l", "LabelGroupArn": "g", "ModelArn": "m",
            "ModelName": "n", "ModelVersionArn": "v", "ResourceArn": "r", "JobId": "j",
        });
        let mut found = 0;
        for (operation, members) in &INPUTS {
            let carries = members.iter().any(|member| member.name == "ClientToken");
            assert_eq!(subject(operation, &all).is_some(), carries, "{operation}");
            found += usize::from(carries);
        }
        assert_eq!(found, 10);
    }

    #[test]
    fn tokens_of_an_older_state_are_kept_only_with_what_they_made() {
        let directory = tempfile::tempdir().unwrap();
        let db = Connection::open(directory.path().join("state.db")).unwrap();
        for migration in &super::super::MIGRATIONS[..3] {
            db.execute_batch(migration).unwrap();
        }
        db.execute_batch(
            r#"PRAGMA user_version = 3;
            INSERT INTO label_group VALUES ('g', 'arn-of-g', '[]', 0, 0);
            INSERT INTO idempotency VALUES ('CreateLabelGroup', 'kept', '', '{"LabelGroupArn": "arn-of-g"}', 0),
                ('CreateLabelGroup', 'gone', '', '{"LabelGroupArn": "arn-of-h"}', 0),
                ('CreateLabel', 'gone', '', '{"LabelId": "1"}', 0);"#,
        )
        .unwrap();
        drop(db);
        drop(Store::open(directory.path()).unwrap());
        // What it was is kept beside it, with what it held then.
        let before = Connection::open(directory.path().join("state.db.format-3")).unwrap();
        let kept: (i64, i64) = before
            .query_row(
                "SELECT (SELECT user_version FROM pragma_user_version), count(*) FROM idempotency",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(kept, (3, 3));
        let db = Connection::open(directory.path().join("state.db")).unwrap();
        let tokens = || -> Vec<String> {
            let mut statement = db.prepare("SELECT token FROM idempotency").unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        assert_eq!(tokens(), ["kept"]);
        db.execute("DELETE FROM label_group", []).unwrap();
        assert!(tokens().is_empty());
    }
}
