//! Versions of models: which may be imported into which model, what they tell of their training, and that no model goes
//! while one is made. Where a version must stay in the making the operations are called without the service's jobs.

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::model::Span;
use lookoutd::service::faults::Fault;
use lookoutd::service::operations::{self, Identity};
use lookoutd::service::store::{NewModel, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::models::with_dataset;
use super::plant::{START, at, model};

/// The operations over a state, without anything that works on it.
struct Api {
    store: Store,
    _directory: TempDir,
}

/// A model: its name, its components with their sensors, its sampling rate in microseconds.
type Asked<'a> = (&'a str, &'a [(&'a str, &'a [&'a str])], Option<i64>);

impl Api {
    /// With the dataset `d`, and the models whose sensors and sampling rate are given.
    async fn with(models: &[Asked<'_>]) -> Api {
        let directory = tempfile::tempdir().unwrap();
        let api = Api {
            store: Store::open(directory.path()).unwrap(),
            _directory: directory,
        };
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        for (name, components, sampling_us) in models {
            let components = components.iter();
            let new = NewModel {
                components: components
                    .map(|(name, sensors)| ((*name).to_owned(), text(sensors)))
                    .collect(),
                sampling_us: *sampling_us,
                ..NewModel::of(name, model(), "eu-west-1", "123456789012")
            };
            api.store.register_model(new, now()).await.unwrap();
        }
        let dataset = json!({"DatasetName": "d", "ClientToken": "d"});
        api.call("CreateDataset", dataset).await.unwrap();
        api
    }

    async fn call(&self, operation: &str, body: Value) -> Result<Value, Fault> {
        let identity = Identity {
            region: "eu-west-1".into(),
            account: "123456789012".into(),
        };
        operations::call(&self.store, &identity, now(), operation, &body).await
    }

    /// ImportModelVersion of the first version of `source` into `name`, with more members.
    async fn import(&self, source: &str, name: &str, more: Value) -> Result<Value, Fault> {
        let version = json!({"ModelName": source, "ModelVersion": 1});
        let version = self.call("DescribeModelVersion", version).await?;
        let mut body = json!({
            "SourceModelVersionArn": version["ModelVersionArn"],
            "ModelName": name,
            "DatasetName": "d",
            "ClientToken": format!("{source}-{name}-{more}"),
        });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.call("ImportModelVersion", body).await
    }
}

fn now() -> DateTime<Utc> {
    at(START)
}

#[tokio::test]
async fn a_model_stays_while_a_version_of_it_is_made() {
    let pump: &[(&str, &[&str])] = &[("pump", &["flow"])];
    let api = Api::with(&[("a", pump, None), ("b", pump, None)]).await;
    api.import("a", "b", json!({})).await.unwrap();
    let delete = |name: &str| api.call("DeleteModel", json!({"ModelName": name}));
    let refused = delete("b").await.unwrap_err();
    assert_eq!(refused.code, "ConflictException");
    assert!(
        refused
            .message
            .contains("Version 2 of model 'b' is IMPORT_IN_PROGRESS"),
        "{refused}"
    );
    delete("a").await.unwrap();
}

#[tokio::test]
async fn only_a_version_with_a_models_own_sensors_and_sampling_is_imported_into_it() {
    let minute = Some(60_000_000);
    let api = Api::with(&[
        ("fan", &[("fan", &["x", "y"]), ("motor", &["z"])], minute),
        ("sorted", &[("motor", &["z"]), ("fan", &["y", "x"])], minute),
        ("pump", &[("pump", &["x", "y"]), ("motor", &["z"])], minute),
        ("fewer", &[("fan", &["x"]), ("motor", &["z"])], minute),
        (
            "more",
            &[("fan", &["x", "y"]), ("motor", &["z", "a"])],
            minute,
        ),
        (
            "slower",
            &[("fan", &["x", "y"]), ("motor", &["z"])],
            Some(300_000_000),
        ),
    ])
    .await;
    for (source, named) in [
        ("pump", "it lacks 'fan'"),
        ("fewer", "it lacks 'fan\\y'"),
        ("more", "it has 'motor\\a'"),
        ("slower", "its sampling rate is 300 s, the model's is 60 s"),
    ] {
        let refused = api.import(source, "fan", json!({})).await.unwrap_err();
        assert_eq!(refused.code, "ValidationException", "{source}");
        assert!(refused.message.contains(named), "{source}: {refused}");
        // As a model of its own it is welcome.
        let own = format!("{source}-2");
        api.import(source, &own, json!({})).await.unwrap();
    }
    let tags = json!({"Tags": [{"Key": "k", "Value": "v"}]});
    let refused = api.import("sorted", "fan", tags.clone()).await.unwrap_err();
    assert!(refused.message.contains("Tags"), "{refused}");
    api.import("sorted", "with-tags", tags).await.unwrap();
    let imported = api.import("sorted", "fan", json!({})).await.unwrap();
    assert_eq!(imported["ModelVersion"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_model_tells_the_range_that_it_was_trained_on() {
    let plant = with_dataset().await;
    let begun = at(START) - TimeDelta::days(3);
    let split = begun + TimeDelta::hours(24);
    let time = |at: DateTime<Utc>| {
        aws_sdk_lookoutequipment::primitives::DateTime::from_secs(at.timestamp())
    };
    let create = |name: &str| {
        plant
            .api
            .create_model()
            .model_name(name)
            .dataset_name("day")
    };
    create("plain").send().await.unwrap();
    let evaluated = create("evaluated").evaluation_data_start_time(time(split));
    let evaluated = evaluated.evaluation_data_end_time(time(split + TimeDelta::hours(20)));
    evaluated.send().await.unwrap();
    let given = (begun + TimeDelta::minutes(61), begun + TimeDelta::hours(30));
    let asked = create("given").training_data_start_time(time(given.0));
    asked
        .training_data_end_time(time(given.1))
        .send()
        .await
        .unwrap();
    let last = begun + TimeDelta::minutes(2 * 24 * 60 - 1);
    let Span { start, end } = model().training_range();
    let micros = |at: i64| DateTime::from_timestamp_micros(at).unwrap();
    for (name, range) in [
        ("plain", (begun, last)),
        ("evaluated", (begun, split)),
        ("given", given),
        ("model-1", (micros(start), micros(end))),
    ] {
        let told = loop {
            let told = plant
                .api
                .describe_model()
                .model_name(name)
                .send()
                .await
                .unwrap();
            if told.status().unwrap().as_str() != "IN_PROGRESS" {
                break told;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert_eq!(told.status().unwrap().as_str(), "SUCCESS", "{told:?}");
        let version = plant
            .api
            .describe_model_version()
            .model_name(name)
            .model_version(1);
        let version = version.send().await.unwrap();
        for told in [
            (
                told.training_data_start_time(),
                told.training_data_end_time(),
            ),
            (
                version.training_data_start_time(),
                version.training_data_end_time(),
            ),
        ] {
            for (told, wanted) in [(told.0, range.0), (told.1, range.1)] {
                let away = (told.unwrap().secs() - wanted.timestamp()).abs();
                assert!(away <= 60, "{name}: {told:?} is not {wanted}");
            }
        }
    }
}
