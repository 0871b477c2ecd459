//! Jobs and the stores of others: what passes ends no job, a listing is read to its end, and what is over a quota by the sizes
//! that it tells is not read.

use aws_sdk_lookoutequipment::types::{
    LabelRating, LabelsInputConfiguration, ModelDiagnosticsOutputConfiguration,
    ModelDiagnosticsS3OutputConfiguration,
};
use chrono::TimeDelta;
use hyper::Method;

use super::faults::behind_a_proxy;
use super::intake::{create, csv, ended, ingest, moment, rows};
use super::models::{with_dataset, with_dataset_in};
use super::plant::{BUCKET, ROLE, START, at};
use crate::proxy::{Fault, Rule};

/// The next request of this method whose path has that.
fn once(method: Method, path: &str, fault: Fault) -> Rule {
    Rule {
        method: Some(method),
        ..Rule::puts(path, 1, fault)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_tokens_is_ingested_to_its_end() {
    const FIRST: &str = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                         <Contents><Key>d/pump/1.csv</Key><Size>9000</Size></Contents></ListBucketResult>";
    let (plant, proxy) = behind_a_proxy().await;
    let all = rows(600);
    for (nth, part) in all.chunks(200).enumerate() {
        let key = format!("d/pump/{}.csv", nth + 1);
        plant.put(&key, csv(part, &[0, 1, 2])).await;
    }
    // The paginator of the SDK takes the absent token for the end.
    proxy.inject(once(Method::GET, "/plant", Fault::Document(FIRST)));
    let job = ingest(&plant, "d", None).await;
    assert_eq!(job.status().unwrap().as_str(), "SUCCESS", "{job:?}");
    let files = job.ingested_files_summary().unwrap();
    assert_eq!(files.ingested_number_of_files(), 3);
    assert_eq!(job.data_end_time().unwrap().secs(), all[599].0.timestamp());
    // The same for labels, of which the second file has one that the first has not.
    const LABELS: &str = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                          <Contents><Key>labels/1.csv</Key><Size>34</Size></Contents></ListBucketResult>";
    plant
        .put("labels/1.csv", "2026-01-01 06:00,2026-01-01 07:00\n")
        .await;
    plant.put("labels/2.csv", "13/01/2026 06:00,x\n").await;
    proxy.inject(once(Method::GET, "/plant", Fault::Document(LABELS)));
    create(&plant, "m", "d", Some("labels/")).await;
    let model = ended(&plant, "m").await;
    let reason = model.failed_reason().unwrap_or_default();
    assert!(
        reason.contains("s3://plant/labels/2.csv: line 1"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_store_that_passes_ends_no_job() {
    let (plant, proxy) = behind_a_proxy().await;
    for (path, fault) in [
        ("/plant", Fault::Answer(409, "OperationAborted")),
        ("pump-1/rows.csv", Fault::Answer(400, "RequestTimeout")),
        ("pump-1/rows.csv", Fault::Portal),
        ("fan/rows.csv", Fault::CutBefore),
        ("fan/rows.csv", Fault::Answer(409, "OperationAborted")),
    ] {
        proxy.inject(once(Method::GET, path, fault));
    }
    let plant = with_dataset_in(plant).await;
    assert_eq!(proxy.pending(), 0);

    for (method, path, fault) in [
        (
            Method::GET,
            "/plant",
            Fault::Answer(409, "OperationAborted"),
        ),
        (Method::GET, "labels.csv", Fault::Portal),
        (Method::PUT, "diag/", Fault::Answer(409, "OperationAborted")),
        (Method::PUT, "diag/", Fault::Portal),
    ] {
        proxy.inject(once(method, path, fault));
    }
    let labels = aws_sdk_lookoutequipment::types::LabelsS3InputConfiguration::builder()
        .bucket(BUCKET)
        .prefix("labels/");
    let labels = LabelsInputConfiguration::builder()
        .s3_input_configuration(labels.build().unwrap())
        .build();
    let output = ModelDiagnosticsS3OutputConfiguration::builder()
        .bucket(BUCKET)
        .prefix("diag/");
    let output = ModelDiagnosticsOutputConfiguration::builder()
        .s3_output_configuration(output.build().unwrap())
        .build();
    // A model of that name was there before.
    let key = "diag/m/1/model_diagnostics_results.json.gz";
    plant.put(key, "another's").await;
    let create = plant.api.create_model().model_name("m").dataset_name("day");
    let create = create
        .labels_input_configuration(labels)
        .model_diagnostics_output_configuration(output)
        .role_arn(ROLE);
    create.send().await.unwrap();
    let model = ended(&plant, "m").await;
    assert_eq!(
        model.status().unwrap().as_str(),
        "SUCCESS",
        "{:?}",
        model.failed_reason()
    );
    assert_eq!(proxy.pending(), 0);
    let written = plant.s3.get_object().bucket(BUCKET).key(key).send();
    let written = written.await.unwrap().body.collect().await.unwrap();
    assert_eq!(written.to_vec()[..2], [0x1f, 0x8b]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_quota_by_the_listing_is_not_read() {
    const FILE: &str = "<ListBucketResult><IsTruncated>false</IsTruncated>\
                        <Contents><Key>d/pump/p.csv</Key><Size>5368709121</Size></Contents></ListBucketResult>";
    const LABELS: &str = "<ListBucketResult><IsTruncated>false</IsTruncated>\
                          <Contents><Key>l/labels.csv</Key><Size>16777217</Size></Contents></ListBucketResult>";
    let (plant, proxy) = behind_a_proxy().await;
    plant.put("d/pump/p.csv", csv(&rows(10), &[0, 1, 2])).await;
    proxy.inject(once(Method::GET, "/plant", Fault::Document(FILE)));
    let job = ingest(&plant, "d", None).await;
    let reason = job.failed_reason().unwrap_or_default();
    assert!(
        reason.contains("'d/pump/p.csv' has 5368709121 bytes"),
        "{reason}"
    );

    let plant = with_dataset_in(plant).await;
    proxy.inject(once(Method::GET, "/plant", Fault::Document(LABELS)));
    create(&plant, "m", "day", Some("l/")).await;
    let model = ended(&plant, "m").await;
    let reason = model.failed_reason().unwrap_or_default();
    assert!(
        reason.contains("s3://plant/l/labels.csv has 16777217 bytes"),
        "{reason}"
    );
    let seen = proxy.seen();
    let read = |key: &str| seen.iter().any(|seen| seen.path.ends_with(key));
    assert!(!read("pump/p.csv") && !read("l/labels.csv"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_which_there_are_none_fail_the_training_by_name() {
    let plant = with_dataset().await;
    plant.put("empty/labels.csv", "").await;
    plant.put("header/labels.csv", "start,end\n").await;
    plant.put("header/LABELS-2.csv", "").await;
    for prefix in ["empty/", "header/"] {
        let name = prefix.trim_end_matches('/');
        create(&plant, name, "day", Some(prefix)).await;
        let model = ended(&plant, name).await;
        let reason = model.failed_reason().unwrap_or_default();
        assert!(
            reason.contains(&format!("labels files under s3://plant/{prefix}")),
            "{prefix}: {reason}"
        );
    }
    // An empty file beside one that has a label is no fault.
    plant.put("both/1.csv", "").await;
    plant
        .put("both/2.csv", "2026-02-27 00:00,2026-02-27 01:00\n")
        .await;
    create(&plant, "both", "day", Some("both/")).await;
    let model = ended(&plant, "both").await;
    assert_eq!(model.status().unwrap().as_str(), "SUCCESS", "{model:?}");

    // A group without an anomaly, and the same when it has one.
    let group = plant.api.create_label_group().label_group_name("group");
    group.send().await.unwrap();
    let begun = at(START) - TimeDelta::hours(48);
    for (rating, status) in [
        (LabelRating::Neutral, "FAILED"),
        (LabelRating::Anomaly, "SUCCESS"),
    ] {
        let label = plant.api.create_label().label_group_name("group");
        let label = label
            .start_time(moment(begun))
            .end_time(moment(begun + TimeDelta::hours(1)))
            .rating(rating);
        label.send().await.unwrap();
        let labels = LabelsInputConfiguration::builder().label_group_name("group");
        let name = format!("of-group-{}", status.to_lowercase());
        let create = plant
            .api
            .create_model()
            .model_name(&name)
            .dataset_name("day");
        let create = create.labels_input_configuration(labels.build());
        create.role_arn(ROLE).send().await.unwrap();
        let model = ended(&plant, &name).await;
        assert_eq!(model.status().unwrap().as_str(), status, "{model:?}");
        if status == "FAILED" {
            let reason = model.failed_reason().unwrap();
            assert!(
                reason.contains("label group 'group' has no label"),
                "{reason}"
            );
        }
    }
}
