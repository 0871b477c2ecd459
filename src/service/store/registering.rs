//! Models that were trained elsewhere, put under the service's care; and what their rows tell of them.

use chrono::{DateTime, Utc};
use rusqlite::params;
use serde_json::{Value, json};

use super::{Store, imports, leftovers, models, seconds, versions};
use crate::model::{Model, Span};
use crate::service::faults::Fault;
use crate::service::files::{Folder, model_name};

/// A trained model to be put under the service's care without its training API.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// Model name, as in the API.
    pub name: String,
    /// `component, sensors` in the model's order.
    pub components: Vec<(String, Vec<String>)>,
    /// Sampling interval in microseconds if the model has a target rate.
    pub sampling_us: Option<i64>,
    /// The range it was trained on.
    pub trained: Span,
    /// The encoded model file.
    pub file: Vec<u8>,
    /// Region for the ARN.
    pub region: String,
    /// Account for the ARN, 12 digits.
    pub account: String,
}

impl NewModel {
    /// `model` under `name`, active at once.
    pub fn of(name: &str, model: &Model, region: &str, account: &str) -> Self {
        let mut components: Vec<(String, Vec<String>)> = Vec::new();
        for sensor in model.sensors() {
            let known = components
                .iter_mut()
                .find(|(name, _)| *name == sensor.component);
            match known {
                Some((_, signals)) => signals.push(sensor.signal.clone()),
                None => components.push((sensor.component.clone(), vec![sensor.signal.clone()])),
            }
        }
        Self {
            name: name.to_owned(),
            components,
            sampling_us: model.sampling().map(|sampling| sampling.micros()),
            trained: model.training_range(),
            file: model.encode(),
            region: region.to_owned(),
            account: account.to_owned(),
        }
    }
}

impl Store {
    /// Puts a trained model under `model.name` as its next version, active at once. Returns the version. A model that is there
    /// keeps its schema, for which its schedulers' files are made: one of other sensors or another sampling is refused.
    pub async fn register_model(&self, model: NewModel, now: DateTime<Utc>) -> Result<i64, Fault> {
        let name = model_name(&model.file);
        self.announce(Folder::Models, std::iter::once(name.as_str()))
            .await?;
        let files = self.files.clone();
        self.transact(move |db| {
            let schema = schema_json(&model.components);
            let known = models::by_name(db, &model.name)?;
            if let Some(known) = &known {
                imports::refuse_version(known, &schema, model.sampling_us)?;
            }
            let is_known = known.is_some();
            let (uuid, arn) = known.map(|known| (known.uuid, known.arn)).unwrap_or_else(|| {
                let uuid = uuid::Uuid::new_v4().to_string();
                let arn = format!(
                    "arn:aws:lookoutequipment:{}:{}:model/{}/{uuid}",
                    model.region, model.account, model.name
                );
                (uuid, arn)
            });
            let version = versions::next_number(db, &uuid)?;
            // Here and not before: no job is making it, a sweep would take it for unfinished work.
            let staged = files.stage_model(&uuid, &model.file).map_err(|error| {
                tracing::error!(model = model.name, %error, "model file not written");
                Fault::internal()
            })?;
            leftovers::place(db, &files, &staged)?;
            let now = now.timestamp_micros();
            if !is_known {
                db.execute(
                    "INSERT INTO model (name, uuid, arn, status, schema, sampling_us, active_version, created_us, updated_us)
                     VALUES (?1, ?2, ?3, 'SUCCESS', ?4, ?5, ?6, ?7, ?7)",
                    params![model.name, uuid, arn, schema, model.sampling_us, version, now],
                )?;
            }
            db.execute(
                "INSERT INTO model_version (model_uuid, version, arn, status, source_type, created_us, updated_us, detail, file)
                 VALUES (?1, ?2, ?3, 'SUCCESS', 'IMPORT', ?4, ?4, ?5, ?6)",
                params![
                    uuid,
                    version,
                    versions::arn(&arn, version),
                    now,
                    with_range(&json!({}), model.trained).to_string(),
                    staged.name
                ],
            )?;
            if is_known {
                db.execute("UPDATE model SET status = 'SUCCESS' WHERE uuid = ?1", [&uuid])?;
                versions::promote(db, &uuid, version, now)?;
            }
            Ok(version)
        })
        .await
    }
}

/// The members of a version with the range it was trained on, where none was asked for: clients rely on it.
pub fn with_range(detail: &Value, trained: Span) -> Value {
    let mut detail = match detail.is_object() {
        true => detail.clone(),
        false => json!({}),
    };
    for (name, micros) in [
        ("TrainingDataStartTime", trained.start),
        ("TrainingDataEndTime", trained.end),
    ] {
        if detail[name].is_null() {
            detail[name] = seconds(micros).into();
        }
    }
    detail
}

/// The schema string of the API: a DATETIME column first, then one DOUBLE column per sensor (contract 6).
pub fn schema_json(components: &[(String, Vec<String>)]) -> String {
    let components: Vec<Value> = components
        .iter()
        .map(|(component, sensors)| {
            let mut columns = vec![json!({"Name": "Timestamp", "Type": "DATETIME"})];
            columns.extend(
                sensors
                    .iter()
                    .map(|sensor| json!({"Name": sensor, "Type": "DOUBLE"})),
            );
            json!({"ComponentName": component, "Columns": columns})
        })
        .collect();
    json!({"Components": components}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, sensors: &[&str], file: u8) -> NewModel {
        NewModel {
            name: name.into(),
            components: vec![(
                "pump".into(),
                sensors.iter().map(|sensor| (*sensor).to_owned()).collect(),
            )],
            sampling_us: Some(60_000_000),
            trained: Span { start: 0, end: 1 },
            file: vec![file],
            region: "r".into(),
            account: "123456789012".into(),
        }
    }

    #[tokio::test]
    async fn a_model_that_is_there_takes_no_version_of_other_sensors_and_keeps_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let now = DateTime::from_timestamp(0, 0).unwrap();
        let first = store.register_model(model("m", &["a", "b"], 1), now);
        assert_eq!(first.await.unwrap(), 1);
        // As a training from files would have it.
        let named = store.transact(|db| {
            Ok(db.execute(
                "UPDATE model SET schema = replace(schema, 'Timestamp', 'Zeit')",
                [],
            )?)
        });
        named.await.unwrap();
        let other_rate = NewModel {
            sampling_us: None,
            ..model("m", &["a", "b"], 2)
        };
        for (other, word) in [
            (model("m", &["a"], 2), "pump\\b"),
            (model("m", &["a", "b", "c"], 2), "pump\\c"),
            (other_rate, "sampling rate"),
        ] {
            let refused = store.register_model(other, now).await.unwrap_err();
            assert!(refused.message.contains(word), "{}", refused.message);
        }
        let second = store.register_model(model("m", &["a", "b"], 2), now);
        assert_eq!(second.await.unwrap(), 2);
        let told = store.model("m").await.unwrap();
        assert!(told.model.schema.contains("Zeit"), "{}", told.model.schema);
        assert_eq!(
            (told.model.active_version, told.model.previous_version),
            (Some(2), Some(1))
        );
    }
}
