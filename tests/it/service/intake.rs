//! What the service learns from: files of others as they come, labels, and the ranges of retrainings.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_lookoutequipment::operation::describe_data_ingestion_job::DescribeDataIngestionJobOutput;
use aws_sdk_lookoutequipment::operation::describe_model::DescribeModelOutput;
use aws_sdk_lookoutequipment::primitives::DateTime as Moment;
use aws_sdk_lookoutequipment::types::{
    DatasetSchema, IngestionInputConfiguration, IngestionS3InputConfiguration,
    LabelsInputConfiguration, LabelsS3InputConfiguration, ModelPromoteMode,
    SensorStatisticsSummary,
};
use chrono::{DateTime, TimeDelta, Utc};

use super::models::with_dataset;
use super::plant::{BUCKET, Plant, ROLE, START, at};

/// Rows every five minutes of the sensors a, b and c.
pub fn rows(count: i64) -> Vec<(DateTime<Utc>, [f64; 3])> {
    let row = |n: i64| {
        let wave = (n as f64 / 40.0).sin();
        let noise = |by: i64| (n * by % 17) as f64 / 100.0;
        let values = [
            50.0 + wave + noise(7),
            5.0 + wave / 2.0 + noise(5),
            1000.0 - wave + noise(3),
        ];
        (
            at("2026-01-01T00:00:00Z") + TimeDelta::minutes(5 * n),
            values,
        )
    };
    (0..count).map(row).collect()
}

pub fn csv(rows: &[(DateTime<Utc>, [f64; 3])], columns: &[usize]) -> String {
    let names: Vec<&str> = columns
        .iter()
        .map(|column| ["a", "b", "c"][*column])
        .collect();
    let mut text = format!("Timestamp,{}\n", names.join(","));
    for (time, values) in rows {
        text += &time.format("%F %T").to_string();
        for column in columns {
            text += &format!(",{:.2}", values[*column]);
        }
        text.push('\n');
    }
    text
}

/// Makes a dataset, ingests what lies under `<name>/`, and returns the job when it has ended.
pub async fn ingest(
    plant: &Plant,
    name: &str,
    schema: Option<&str>,
) -> DescribeDataIngestionJobOutput {
    let schema = schema.map(|text| DatasetSchema::builder().inline_data_schema(text).build());
    let create = plant.api.create_dataset().dataset_name(name);
    create.set_dataset_schema(schema).send().await.unwrap();
    let place = IngestionS3InputConfiguration::builder()
        .bucket(BUCKET)
        .prefix(format!("{name}/"))
        .key_pattern("{prefix}/{component_name}/*");
    let input = IngestionInputConfiguration::builder()
        .s3_input_configuration(place.build().unwrap())
        .build();
    let start = plant.api.start_data_ingestion_job().dataset_name(name);
    let start = start.ingestion_input_configuration(input).role_arn(ROLE);
    let id = start.send().await.unwrap().job_id.unwrap();
    loop {
        let job = plant.api.describe_data_ingestion_job().job_id(&id);
        let job = job.send().await.unwrap();
        if job.status().unwrap().as_str() != "IN_PROGRESS" {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn statistics(plant: &Plant, dataset: &str) -> BTreeMap<String, SensorStatisticsSummary> {
    let mut found = BTreeMap::new();
    let mut next = None;
    loop {
        let page = plant.api.list_sensor_statistics().dataset_name(dataset);
        let page = page
            .set_next_token(next)
            .max_results(500)
            .send()
            .await
            .unwrap();
        for sensor in page.sensor_statistics_summaries() {
            found.insert(sensor.sensor_name().unwrap().to_owned(), sensor.clone());
        }
        next = page.next_token;
        if next.is_none() {
            return found;
        }
    }
}

async fn schema_of(plant: &Plant, dataset: &str) -> serde_json::Value {
    let described = plant.api.describe_dataset().dataset_name(dataset).send();
    let described = described.await.unwrap();
    serde_json::from_str(described.schema().unwrap()).unwrap()
}

fn discarded(job: &DescribeDataIngestionJobOutput) -> Vec<&str> {
    let files = job.ingested_files_summary().unwrap().discarded_files();
    files.iter().map(|file| file.key()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_names_the_file_and_its_fault_and_no_schema_that_nobody_sent() {
    let plant = Plant::start().await;
    let good = csv(&rows(100), &[0, 1, 2]);
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("semicolon", good.replace(',', ";").into(), "semicolons"),
        ("tab", good.replace(',', "\t").into(), "tabs"),
        ("empty", Vec::new(), "empty"),
        (
            "comment",
            format!("# export of 2024\n{good}").into(),
            "# export of 2024",
        ),
        (
            "twice",
            good.replace("a,b,c", "a,b,b").into(),
            "'b' appears twice",
        ),
        (
            "space",
            good.replace("a,b,c", "a,b (bar),c").into(),
            "b (bar)",
        ),
        ("utf16", utf16, "UTF-16"),
        (
            "commas",
            good.replace('.', ",").into(),
            "line 2: the row has 7 fields, the header 4",
        ),
    ];
    for (name, body, word) in cases {
        plant.put(&format!("{name}/pump/p.csv"), body).await;
        let job = ingest(&plant, name, None).await;
        let reason = job.failed_reason().unwrap_or_default();
        assert!(
            reason.contains("pump/p.csv") && reason.contains(word),
            "{name}: {reason}"
        );
        assert!(
            !reason.contains("InlineDataSchema") && !reason.contains('\0'),
            "{name}: {reason}"
        );
    }
    // The same where the dataset has a schema, which none of the files fits.
    let schema = r#"{"Components":[{"ComponentName":"pump","Columns":[{"Name":"t","Type":"DATETIME"},{"Name":"x","Type":"DOUBLE"}]}]}"#;
    plant.put("given/pump/p.csv", good).await;
    let job = ingest(&plant, "given", Some(schema)).await;
    let reason = job.failed_reason().unwrap();
    assert!(
        reason.contains("'given/pump/p.csv': none of its columns (a,b,c)"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unclosed_quote_costs_a_row_and_hidden_files_are_listed_as_discarded() {
    let plant = Plant::start().await;
    let all = rows(600);
    let mut lines: Vec<String> = csv(&all, &[0, 1, 2]).lines().map(str::to_owned).collect();
    lines[11] = lines[11].replacen(',', ",\"", 1);
    plant.put("d/pump/p.CSV", lines.join("\n")).await;
    for key in [
        "pump/.ipynb_checkpoints/p-checkpoint.csv",
        "pump/._p.csv",
        ".trash/p.csv",
        "pump/notes.txt",
    ] {
        plant.put(&format!("d/{key}"), "x").await;
    }
    let job = ingest(&plant, "d", None).await;
    assert_eq!(job.status().unwrap().as_str(), "SUCCESS", "{job:?}");
    assert_eq!(
        discarded(&job),
        [
            "d/.trash/p.csv",
            "d/pump/._p.csv",
            "d/pump/.ipynb_checkpoints/p-checkpoint.csv",
            "d/pump/notes.txt"
        ]
    );
    assert_eq!(job.data_end_time().unwrap().secs(), all[599].0.timestamp());
    let quality = job.data_quality_summary().unwrap();
    assert_eq!(
        quality
            .invalid_sensor_data()
            .unwrap()
            .total_number_of_invalid_values(),
        3
    );
    assert_eq!(
        quality
            .missing_sensor_data()
            .unwrap()
            .total_number_of_missing_values(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sensors_in_files_of_their_own_are_the_rows_of_one_file() {
    let plant = Plant::start().await;
    let all = rows(600);
    for (column, name) in ["a", "b", "c"].iter().enumerate() {
        plant
            .put(&format!("split/pump/{name}.csv"), csv(&all, &[column]))
            .await;
    }
    plant.put("whole/pump/p.csv", csv(&all, &[0, 1, 2])).await;
    plant
        .put("shared/pump/1.csv", csv(&all[..310], &[0, 1, 2]))
        .await;
    plant
        .put("shared/pump/2.csv", csv(&all[300..], &[0, 1, 2]))
        .await;
    for (name, duplicates) in [("split", 0), ("whole", 0), ("shared", 10)] {
        let job = ingest(&plant, name, None).await;
        let quality = job.data_quality_summary().unwrap();
        let found = quality.duplicate_timestamps().unwrap();
        assert_eq!(
            found.total_number_of_duplicate_timestamps(),
            duplicates,
            "{name}"
        );
    }
    assert_eq!(
        statistics(&plant, "split").await,
        statistics(&plant, "whole").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_of_three_thousand_long_names_is_read_to_its_end() {
    let plant = Plant::start().await;
    let names: Vec<String> = (0..3000).map(|n| format!("{n:x>200}")).collect();
    let mut text = format!("Date,{}\n", names.join(","));
    for hour in 0..3 {
        text += &format!("2026-01-01 0{hour}:00");
        (0..3000).for_each(|n| text += &format!(",{}", n * 7 % 97 + hour));
        text.push('\n');
    }
    plant.put("wide/pump/p.csv", text).await;
    let job = ingest(&plant, "wide", None).await;
    assert_eq!(job.status().unwrap().as_str(), "SUCCESS", "{job:?}");
    let schema = schema_of(&plant, "wide").await;
    let columns = schema["Components"][0]["Columns"].as_array().unwrap();
    let mut sorted = names.clone();
    sorted.sort();
    let found: Vec<&str> = columns
        .iter()
        .map(|column| column["Name"].as_str().unwrap())
        .collect();
    assert_eq!(found[0], "Date");
    assert_eq!(found[1..], sorted);
    let statistics = statistics(&plant, "wide").await;
    assert_eq!(statistics.len(), 3000);
    assert!(
        statistics
            .values()
            .all(SensorStatisticsSummary::data_exists)
    );

    // It is too wide to learn from.
    create(&plant, "wide-model", "wide", None).await;
    let model = ended(&plant, "wide-model").await;
    let reason = model.failed_reason().unwrap();
    assert!(
        reason.contains("3000 sensors") && reason.contains("300"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_column_keeps_its_name_in_dataset_and_model() {
    let plant = Plant::start().await;
    let body = csv(&rows(600), &[0, 1, 2]);
    plant
        .put("two/pump/p.csv", body.replacen("Timestamp", "Date", 1))
        .await;
    plant
        .put(
            "two/fan/p.csv",
            body.replacen("Timestamp,a,b,c", "Zeit,x,y,z", 1),
        )
        .await;
    ingest(&plant, "two", None).await;
    create(&plant, "m", "two", None).await;
    let model = ended(&plant, "m").await;
    let of_model: serde_json::Value = serde_json::from_str(model.schema().unwrap()).unwrap();
    for schema in [schema_of(&plant, "two").await, of_model] {
        let time = |component: usize| &schema["Components"][component]["Columns"][0];
        assert_eq!(
            (time(0)["Name"].as_str(), time(1)["Name"].as_str()),
            (Some("Zeit"), Some("Date"))
        );
        assert_eq!(time(0)["Type"], "DATETIME");
    }
}

pub fn moment(time: DateTime<Utc>) -> Moment {
    Moment::from_secs(time.timestamp())
}

/// Asks for a model whose labels lie under a prefix.
pub async fn create(plant: &Plant, name: &str, dataset: &str, labels: Option<&str>) {
    let labels = labels.map(|prefix| {
        let place = LabelsS3InputConfiguration::builder()
            .bucket(BUCKET)
            .prefix(prefix);
        LabelsInputConfiguration::builder()
            .s3_input_configuration(place.build().unwrap())
            .build()
    });
    let create = plant
        .api
        .create_model()
        .model_name(name)
        .dataset_name(dataset);
    let create = create.set_labels_input_configuration(labels).role_arn(ROLE);
    create.send().await.unwrap();
}

pub async fn ended(plant: &Plant, name: &str) -> DescribeModelOutput {
    loop {
        let model = plant
            .api
            .describe_model()
            .model_name(name)
            .send()
            .await
            .unwrap();
        if model.status().unwrap().as_str() != "IN_PROGRESS" {
            return model;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_are_absent_or_unreadable_fail_the_training_by_name() {
    let plant = with_dataset().await;
    plant.put("hidden/.labels.csv", "").await;
    plant
        .put("wrong/labels.csv", "13/01/2026 00:00,13/01/2026 06:00\n")
        .await;
    plant
        .put("upper/LABELS.CSV", "2026-02-27 00:00,2026-02-27 01:00\n")
        .await;
    for (prefix, word) in [
        (
            "nowhere/",
            "no labels file (.csv) under s3://plant/nowhere/",
        ),
        ("hidden/", "no labels file (.csv) under s3://plant/hidden/"),
        ("wrong/", "s3://plant/wrong/labels.csv: line 1: "),
    ] {
        let name = prefix.trim_end_matches('/');
        create(&plant, name, "day", Some(prefix)).await;
        let model = ended(&plant, name).await;
        let reason = model.failed_reason().unwrap_or_default();
        assert!(reason.contains(word), "{prefix}: {reason}");
    }
    create(&plant, "upper", "day", Some("upper/")).await;
    assert_eq!(
        ended(&plant, "upper").await.status().unwrap().as_str(),
        "SUCCESS"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retrained_version_is_judged_on_rows_that_no_version_has_learnt() {
    let plant = with_dataset().await;
    let begun = at(START) - TimeDelta::days(3);
    let hours = |hours| moment(begun + TimeDelta::hours(hours));
    let create = plant.api.create_model().model_name("m").dataset_name("day");
    let create = create
        .training_data_start_time(hours(0))
        .training_data_end_time(hours(20));
    let create = create
        .evaluation_data_start_time(hours(20))
        .evaluation_data_end_time(hours(30));
    create.role_arn(ROLE).send().await.unwrap();
    assert_eq!(
        ended(&plant, "m").await.status().unwrap().as_str(),
        "SUCCESS"
    );
    let scheduler = plant.api.create_retraining_scheduler().model_name("m");
    let scheduler = scheduler.retraining_start_date(moment(at(START)));
    let scheduler = scheduler
        .retraining_frequency("P30D")
        .lookback_window("P180D");
    let managed = scheduler.promote_mode(ModelPromoteMode::Managed);
    managed.send().await.unwrap();
    let second = loop {
        let version = plant
            .api
            .describe_model_version()
            .model_name("m")
            .model_version(2);
        match version.send().await {
            Ok(version) if version.status().unwrap().as_str() != "IN_PROGRESS" => break version,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert_eq!(second.status().unwrap().as_str(), "SUCCESS", "{second:?}");
    let learnt = second.training_data_end_time().unwrap().secs();
    let judged = second.evaluation_data_start_time().unwrap().secs();
    // Two days were ingested: the last fifth is not learnt.
    assert!(learnt <= judged && learnt > hours(20).secs(), "{second:?}");
    assert_eq!(judged, hours(0).secs() + 60 + (2 * 86_400 - 60) / 5 * 4);
    assert_eq!(
        second.evaluation_data_end_time().unwrap().secs(),
        hours(48).secs()
    );
    assert_eq!(
        second.auto_promotion_result().unwrap().as_str(),
        "MODEL_PROMOTED"
    );
    assert!(
        second.prior_model_metrics().is_some(),
        "the version before is judged on the same rows"
    );
}
