//! Operations on a state of their own, without HTTP.

use serde_json::json;

use super::*;
use crate::model::Span;
use crate::service::store::NewModel;
use crate::service::store::ingestion::Ingested;

struct Api {
    _directory: tempfile::TempDir,
    store: Store,
    identity: Identity,
}

impl Api {
    fn new() -> Api {
        let directory = tempfile::tempdir().unwrap();
        Api {
            store: Store::open(directory.path()).unwrap(),
            _directory: directory,
            identity: Identity {
                region: "eu-west-1".into(),
                account: "123456789012".into(),
            },
        }
    }

    async fn call(&self, operation: &str, body: Value) -> Result<Value, Fault> {
        let now = "2024-03-01T00:00:00Z".parse().unwrap();
        let answer = call(&self.store, &self.identity, now, operation, &body).await;
        if let Ok(answer) = &answer {
            assert_eq!(shapes::misfit(operation, answer), None);
        }
        answer
    }

    async fn ok(&self, operation: &str, body: Value) -> Value {
        self.call(operation, body).await.unwrap()
    }

    async fn code(&self, operation: &str, body: Value) -> &'static str {
        self.call(operation, body).await.unwrap_err().code
    }

    async fn model(&self, name: &str) {
        let model = NewModel {
            name: name.into(),
            components: vec![("c".into(), vec!["s".into()])],
            sampling_us: None,
            trained: Span { start: 0, end: 0 },
            file: vec![1],
            region: "eu-west-1".into(),
            account: "123456789012".into(),
        };
        let now = "2024-03-01T00:00:00Z".parse().unwrap();
        self.store.register_model(model, now).await.unwrap();
    }
}

fn label(token: &str) -> Value {
    json!({"LabelGroupName": "g", "StartTime": 1, "EndTime": 2, "Rating": "ANOMALY", "ClientToken": token})
}

#[tokio::test]
async fn a_label_group_that_a_model_uses_is_not_deleted() {
    let api = Api::new();
    api.model("m").await;
    for group in ["g", "other"] {
        api.ok("CreateLabelGroup", json!({"LabelGroupName": group}))
            .await;
    }
    api.ok("CreateLabel", label("t")).await;
    let with = |group: &str| json!({"ModelName": "m", "LabelsInputConfiguration": {"LabelGroupName": group}});
    api.ok("UpdateModel", with("g")).await;
    let group = json!({"LabelGroupName": "g"});
    let fault = api
        .call("DeleteLabelGroup", group.clone())
        .await
        .unwrap_err();
    assert_eq!(fault.code, "ConflictException");
    assert!(fault.message.contains("model 'm'"), "{fault}");
    let labels = api.ok("ListLabels", group.clone()).await;
    assert_eq!(labels["LabelSummaries"].as_array().unwrap().len(), 1);
    api.ok("UpdateModel", with("other")).await;
    api.ok("DeleteLabelGroup", group).await;
    api.ok("DeleteModel", json!({"ModelName": "m"})).await;
    api.ok("DeleteLabelGroup", json!({"LabelGroupName": "other"}))
        .await;
}

#[tokio::test]
async fn a_client_token_is_forgotten_with_what_it_made() {
    let api = Api::new();
    let create = json!({"LabelGroupName": "g", "ClientToken": "t"});
    let first = api.ok("CreateLabelGroup", create.clone()).await;
    assert_eq!(api.ok("CreateLabelGroup", create.clone()).await, first);
    let other = json!({"LabelGroupName": "h", "ClientToken": "t"});
    assert_eq!(
        api.code("CreateLabelGroup", other).await,
        "ConflictException"
    );
    let made = api.ok("CreateLabel", label("t")).await;
    assert_eq!(api.ok("CreateLabel", label("t")).await, made);
    api.ok("DeleteLabelGroup", json!({"LabelGroupName": "g"}))
        .await;
    let second = api.ok("CreateLabelGroup", create).await;
    assert_ne!(second, first);
    api.ok("DescribeLabelGroup", json!({"LabelGroupName": "g"}))
        .await;
    assert_ne!(
        api.ok("CreateLabel", label("t")).await,
        made,
        "its group was deleted"
    );
    let dataset = json!({"DatasetName": "d", "ClientToken": "t"});
    let first = api.ok("CreateDataset", dataset.clone()).await;
    api.ok("DeleteDataset", json!({"DatasetName": "d"})).await;
    assert_ne!(api.ok("CreateDataset", dataset).await, first);
    api.ok("DescribeDataset", json!({"DatasetName": "d"})).await;
    let policy = json!({"ResourceArn": api.ok("DescribeDataset", json!({"DatasetName": "d"})).await["DatasetArn"],
        "ResourcePolicy": "{}", "ClientToken": "t"});
    let first = api.ok("PutResourcePolicy", policy.clone()).await;
    assert_eq!(api.ok("PutResourcePolicy", policy.clone()).await, first);
    api.ok(
        "DeleteResourcePolicy",
        json!({"ResourceArn": policy["ResourceArn"]}),
    )
    .await;
    assert_ne!(api.ok("PutResourcePolicy", policy).await, first);
}

#[tokio::test]
async fn an_empty_next_token_is_the_first_page_and_a_made_up_one_is_refused() {
    let api = Api::new();
    api.model("m").await;
    for number in 0..3 {
        let name = format!("d{number}");
        api.ok("CreateDataset", json!({"DatasetName": name})).await;
    }
    api.ok("CreateLabelGroup", json!({"LabelGroupName": "g"}))
        .await;
    for (operation, mut body) in [
        ("ListDatasets", json!({})),
        ("ListDataIngestionJobs", json!({})),
        ("ListSensorStatistics", json!({"DatasetName": "d0"})),
        ("ListModels", json!({})),
        ("ListModelVersions", json!({"ModelName": "m"})),
        ("ListLabelGroups", json!({})),
        ("ListLabels", json!({"LabelGroupName": "g"})),
        ("ListRetrainingSchedulers", json!({})),
        ("ListInferenceSchedulers", json!({})),
    ] {
        let first = api.ok(operation, body.clone()).await;
        body["NextToken"] = json!("");
        assert_eq!(api.ok(operation, body.clone()).await, first, "{operation}");
        body["NextToken"] = json!("no-such-token");
        assert_eq!(
            api.code(operation, body).await,
            "ValidationException",
            "{operation}"
        );
    }
    let (mut seen, mut next) = (Vec::new(), json!(""));
    while !next.is_null() {
        let page = json!({"NextToken": next, "MaxResults": 2});
        let page = api.ok("ListDatasets", page).await;
        let names = page["DatasetSummaries"].as_array().unwrap().iter();
        seen.extend(names.map(|dataset| dataset["DatasetName"].clone()));
        next = page["NextToken"].clone();
    }
    assert_eq!(seen, ["d0", "d1", "d2"]);
}

#[tokio::test]
async fn a_tag_key_given_twice_is_refused_and_changes_nothing() {
    let api = Api::new();
    let twice = json!([{"Key": "team", "Value": "a"}, {"Key": "new", "Value": ""}, {"Key": "team", "Value": "b"}]);
    let create = json!({"DatasetName": "d", "Tags": twice});
    assert_eq!(
        api.code("CreateDataset", create).await,
        "ValidationException"
    );
    let dataset = json!({"DatasetName": "d"});
    assert_eq!(
        api.code("DescribeDataset", dataset.clone()).await,
        "ResourceNotFoundException"
    );
    let create = json!({"LabelGroupName": "g", "Tags": twice});
    assert_eq!(
        api.code("CreateLabelGroup", create).await,
        "ValidationException"
    );
    let arn = api.ok("CreateDataset", dataset).await["DatasetArn"].clone();
    let tag = |tags: Value| json!({"ResourceArn": arn, "Tags": tags});
    let two = json!([{"Key": "team", "Value": "old"}, {"Key": "Team", "Value": "other"}]);
    api.ok("TagResource", tag(two)).await;
    assert_eq!(
        api.code("TagResource", tag(twice)).await,
        "ValidationException"
    );
    let tags = api
        .ok("ListTagsForResource", json!({"ResourceArn": arn}))
        .await;
    assert_eq!(
        tags["Tags"],
        json!([{"Key": "Team", "Value": "other"}, {"Key": "team", "Value": "old"}])
    );
    api.ok("TagResource", tag(json!([{"Key": "team", "Value": "new"}])))
        .await;
}

#[tokio::test]
async fn a_key_is_told_by_its_arn_however_it_was_given() {
    let api = Api::new();
    let arn = "arn:aws:kms:eu-west-1:123456789012:";
    for (name, given, told) in [
        ("a", "alias/plant", format!("{arn}alias/plant")),
        ("b", "1234abcd-12ab", format!("{arn}key/1234abcd-12ab")),
        ("c", "key/1234abcd", format!("{arn}key/1234abcd")),
        (
            "d",
            "arn:aws:kms:us-east-1:000000000000:key/x",
            "arn:aws:kms:us-east-1:000000000000:key/x".to_owned(),
        ),
    ] {
        let create = json!({"DatasetName": name, "ServerSideKmsKeyId": given});
        api.ok("CreateDataset", create).await;
        let dataset = api
            .ok("DescribeDataset", json!({"DatasetName": name}))
            .await;
        assert_eq!(dataset["ServerSideKmsKeyId"], told);
    }
}

#[tokio::test]
async fn a_copy_has_what_its_source_had_when_the_source_is_deleted_before() {
    let api = Api::new();
    let dataset = |name: &str| json!({"DatasetName": name});
    api.ok("CreateDataset", dataset("source")).await;
    let pattern = json!({"S3InputConfiguration": {"Bucket": "plant", "KeyPattern": "{prefix}/{component_name}/*"}});
    let start = json!({"DatasetName": "source", "IngestionInputConfiguration": pattern,
        "RoleArn": "arn:aws:iam::123456789012:role/x"});
    api.ok("StartDataIngestionJob", start).await;
    let now = "2024-03-01T00:00:00Z".parse().unwrap();
    let due = api.store.due_ingestion().await.unwrap().unwrap();
    let quality = json!({
        "InsufficientSensorData": {"MissingCompleteSensorData": {"AffectedSensorCount": 0},
            "SensorsWithShortDateRange": {"AffectedSensorCount": 1}},
        "MissingSensorData": {"AffectedSensorCount": 0, "TotalNumberOfMissingValues": 0},
        "InvalidSensorData": {"AffectedSensorCount": 0, "TotalNumberOfInvalidValues": 0},
        "UnsupportedTimestamps": {"TotalNumberOfUnsupportedTimestamps": 0},
        "DuplicateTimestamps": {"TotalNumberOfDuplicateTimestamps": 0},
    });
    api.store.files().workspace(&due.id).unwrap();
    let found = Ingested {
        staged: api
            .store
            .files()
            .stage_dataset(&due.id, Vec::new())
            .unwrap(),
        schema: r#"{"Components": []}"#.into(),
        quality: quality.clone(),
        files: json!({"TotalNumberOfFiles": 1, "IngestedNumberOfFiles": 1}),
        size: 7,
        start_us: 1_000_000,
        end_us: 2_000_000,
        statistics: vec![("c".into(), "s".into(), json!({"SensorName": "s"}))],
    };
    api.store
        .ingestion_succeeded(&due, found, now)
        .await
        .unwrap();
    let source = api.ok("DescribeDataset", dataset("source")).await;
    let import = json!({"SourceDatasetArn": source["DatasetArn"], "DatasetName": "copy"});
    let job = api.ok("ImportDataset", import).await["JobId"].clone();
    api.ok("DeleteDataset", dataset("source")).await;
    let due = api.store.due_ingestion().await.unwrap().unwrap();
    assert_eq!(
        (Value::from(due.id.clone()), due.source_job.is_some()),
        (job, true)
    );
    api.store.sweep().await.unwrap();
    let rows = api.store.files().dataset(&due.file.clone().unwrap());
    rows.unwrap().verify().unwrap();
    api.store.dataset_imported(&due, now).await.unwrap();
    let copy = api.ok("DescribeDataset", dataset("copy")).await;
    assert_eq!(copy["Status"], "ACTIVE");
    for member in [
        "Schema",
        "DataStartTime",
        "DataEndTime",
        "DataQualitySummary",
        "IngestedFilesSummary",
    ] {
        assert_eq!(copy[member], source[member], "{member}");
        assert!(!copy[member].is_null(), "{member}");
    }
    let statistics = api.ok("ListSensorStatistics", dataset("copy")).await;
    assert_eq!(
        statistics["SensorStatisticsSummaries"],
        json!([{"SensorName": "s"}])
    );
}

#[tokio::test]
async fn a_delimiter_that_no_file_name_has_is_refused() {
    let api = Api::new();
    api.model("m").await;
    let with = |delimiter: &str| {
        json!({"ModelName": "m", "InferenceSchedulerName": "s", "DataUploadFrequency": "PT5M",
            "RoleArn": "arn:aws:iam::123456789012:role/x",
            "DataInputConfiguration": {"S3InputConfiguration": {"Bucket": "plant"},
                "InferenceInputNameConfiguration": {"ComponentTimestampDelimiter": delimiter}},
            "DataOutputConfiguration": {"S3OutputConfiguration": {"Bucket": "plant"}}})
    };
    for delimiter in ["\t", "\n", "\r", "\u{c}"] {
        let fault = api.call("CreateInferenceScheduler", with(delimiter)).await;
        assert_eq!(
            fault.unwrap_err().code,
            "ValidationException",
            "{delimiter:?}"
        );
    }
    api.ok("CreateInferenceScheduler", with(" ")).await;
}

#[test]
fn every_operation_of_the_model_has_a_place_in_the_dispatch_table() {
    let declared: Vec<&str> = shapes::INPUTS.iter().map(|(name, _)| *name).collect();
    let dispatched: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(declared, dispatched);
}

#[test]
fn compatibility_md_lists_the_state_of_every_operation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compatibility.md");
    let document = std::fs::read_to_string(path).unwrap();
    for (name, run) in &OPERATIONS {
        let state = if run.is_some() {
            "served"
        } else {
            "not served"
        };
        let row = format!("| {name} | {state} |");
        assert!(
            document.contains(&row),
            "docs/compatibility.md must have the row: {row}"
        );
    }
    let served = OPERATIONS.iter().filter(|(_, run)| run.is_some()).count();
    assert!(
        document.contains(&format!("{served} of 49")),
        "docs/compatibility.md must say: {served} of 49"
    );
}

#[test]
fn a_page_token_opens_only_the_list_it_was_made_for() {
    let page = Page {
        list: "executions of s".into(),
        size: 2,
        after: None,
    };
    let items = ["a", "b", "c"].map(|key| (key.to_owned(), Value::from(key)));
    let (shown, next) = page.cut(items.to_vec());
    assert_eq!(shown, ["a", "b"]);
    let token = next.unwrap();
    assert_eq!(Page::open("executions of s", &token).as_deref(), Some("b"));
    assert_eq!(Page::open("executions of t", &token), None);
    for bad in [
        "",
        "x",
        "00000000",
        "zzzzzzzzzz",
        &token[..token.len() - 1],
        "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
    ] {
        assert_eq!(Page::open("executions of s", bad), None, "{bad}");
    }
    assert_eq!(page.cut(items[..2].to_vec()).1, None);
}
