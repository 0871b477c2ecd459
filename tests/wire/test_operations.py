"""All 49 operations through boto3: success, and every error each can raise here, by typed exception."""

import datetime
import gzip
import json
import os
import uuid

import boto3
import botocore
import pytest
from botocore.awsrequest import AWSRequest
from botocore.auth import SigV4Auth
from botocore.credentials import Credentials
import urllib.request
import urllib.error

from conftest import (
    BUCKET, COMPONENT, DAYS, ENDPOINT, REGION, ROLE, SENSORS, START, UTC, csv, ingest, schema, train, wait,
)

FAR = datetime.datetime(2100, 1, 1, tzinfo=UTC)


def scheduler(model, name, **more):
    request = dict(
        ModelName=model,
        InferenceSchedulerName=name,
        DataUploadFrequency="PT5M",
        DataInputConfiguration={
            "S3InputConfiguration": {"Bucket": BUCKET, "Prefix": f"{name}/input/"},
            "InferenceInputNameConfiguration": {
                "TimestampFormat": "yyyyMMddHHmmss", "ComponentTimestampDelimiter": "_",
            },
        },
        DataOutputConfiguration={"S3OutputConfiguration": {"Bucket": BUCKET, "Prefix": f"{name}/output/"}},
        RoleArn=ROLE,
    )
    request.update(more)
    return request


def stopped(api, name):
    api.stop_inference_scheduler(InferenceSchedulerName=name)
    wait(lambda: api.describe_inference_scheduler(InferenceSchedulerName=name), lambda s: s["Status"] == "STOPPED")


# --- datasets and ingestion ---


def test_dataset_create_describe_list_delete(api):
    created = api.create_dataset(
        DatasetName="short-lived", DatasetSchema={"InlineDataSchema": schema()}, Tags=[{"Key": "a", "Value": "b"}]
    )
    assert created["Status"] == "CREATED"
    assert [created[key] for key in ("DatasetName", "Status")] == ["short-lived", "CREATED"]
    described = api.describe_dataset(DatasetName="short-lived")
    assert json.loads(described["Schema"])["Components"][0]["ComponentName"] == COMPONENT
    assert eval(described["Schema"])["Components"]  # the official SDK does this
    names = [d["DatasetName"] for d in api.list_datasets(DatasetNameBeginsWith="short")["DatasetSummaries"]]
    assert names == ["short-lived"]
    assert api.list_tags_for_resource(ResourceArn=created["DatasetArn"])["Tags"] == [{"Key": "a", "Value": "b"}]
    with pytest.raises(api.exceptions.ConflictException):
        api.create_dataset(DatasetName="short-lived", DatasetSchema={"InlineDataSchema": schema()})
    assert api.delete_dataset(DatasetName="short-lived")["ResponseMetadata"]["HTTPStatusCode"] == 200
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_dataset(DatasetName="short-lived")
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.delete_dataset(DatasetName="short-lived")
    for bad in ("{", "{}", schema(sensors=["a", "a"]), schema(component="no spaces")):
        with pytest.raises(api.exceptions.ValidationException):
            api.create_dataset(DatasetName="bad-schema", DatasetSchema={"InlineDataSchema": bad})


def test_ingestion_job_and_what_the_dataset_then_says(api, dataset, recorded):
    summaries = api.list_data_ingestion_jobs(DatasetName=dataset, Status="SUCCESS")["DataIngestionJobSummaries"]
    job = api.describe_data_ingestion_job(JobId=summaries[0]["JobId"])
    job.pop("ResponseMetadata")
    reference = recorded("describe_data_ingestion_job_response_2022.json")
    assert list(job) == list(reference)
    assert len(job["JobId"]) == 32
    same_shape(job["DataQualitySummary"], reference["DataQualitySummary"])
    assert job["IngestedFilesSummary"] == {
        "TotalNumberOfFiles": 1, "IngestedNumberOfFiles": 1, "DiscardedFiles": [],
    }
    assert job["DataStartTime"].timestamp() == START.timestamp()
    described = api.describe_dataset(DatasetName=dataset)
    assert described["Status"] == "ACTIVE"
    assert described["IngestionInputConfiguration"]["S3InputConfiguration"]["Prefix"] == "training-data/"
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_data_ingestion_job(JobId="0" * 32)
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        ingest(api, "no-such-dataset", {"Bucket": BUCKET, "Prefix": "training-data/"})


def same_shape(ours, reference):
    assert list(ours) == list(reference)
    for key, value in reference.items():
        if isinstance(value, dict):
            same_shape(ours[key], value)
        else:
            assert type(ours[key]) is type(value), key


def test_sensor_statistics_in_string_order(api, dataset):
    listed = api.list_sensor_statistics(DatasetName=dataset)["SensorStatisticsSummaries"]
    assert [entry["SensorName"] for entry in listed] == sorted(SENSORS)
    first = listed[0]
    assert first["DataExists"] and first["MissingValues"] == {"Count": 0, "Percentage": 0.0}
    assert first["LargeTimestampGaps"] == {"Status": "NO_ISSUE_DETECTED"}
    page = api.list_sensor_statistics(DatasetName=dataset, MaxResults=3)
    rest = api.list_sensor_statistics(DatasetName=dataset, MaxResults=3, NextToken=page["NextToken"])
    assert page["SensorStatisticsSummaries"] + rest["SensorStatisticsSummaries"] == listed
    assert "NextToken" not in rest
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.list_sensor_statistics(DatasetName="no-such-dataset")


def test_dirty_files_are_counted_and_a_schema_is_detected(api, s3):
    rows = ["time,b,a", "2020-01-01 00:00,1,x", "2020-01-01 00:05,,2", "2020-01-01 00:05,3,3", "never,1,1",
            "2020-01-20 00:00,4,4"]
    s3.put_object(Bucket=BUCKET, Key="dirty/pump_2020.csv", Body="\n".join(rows))
    s3.put_object(Bucket=BUCKET, Key="dirty/fan_2020.csv", Body="t,speed\n2020/1/1 0:00,5\n")
    s3.put_object(Bucket=BUCKET, Key="dirty/fan_empty.csv", Body="")
    s3.put_object(Bucket=BUCKET, Key="dirty/readme.txt", Body="no data")
    api.create_dataset(DatasetName="dirty")
    with pytest.raises(api.exceptions.ValidationException):
        api.start_data_ingestion_job(
            DatasetName="dirty", RoleArn=ROLE,
            IngestionInputConfiguration={"S3InputConfiguration": {"Bucket": BUCKET, "Prefix": "dirty/"}},
        )
    job = ingest(api, "dirty", {"Bucket": BUCKET, "Prefix": "dirty/", "KeyPattern": "{prefix}/{component_name}_*"})
    assert job["Status"] == "SUCCESS", job
    quality = job["DataQualitySummary"]
    assert quality["UnsupportedTimestamps"]["TotalNumberOfUnsupportedTimestamps"] == 1
    assert quality["DuplicateTimestamps"]["TotalNumberOfDuplicateTimestamps"] == 1
    assert quality["InvalidSensorData"] == {"AffectedSensorCount": 1, "TotalNumberOfInvalidValues": 1}
    discarded = [file["Key"] for file in job["IngestedFilesSummary"]["DiscardedFiles"]]
    assert sorted(discarded) == ["dirty/fan_empty.csv", "dirty/readme.txt"]
    components = json.loads(api.describe_dataset(DatasetName="dirty")["Schema"])["Components"]
    assert [component["ComponentName"] for component in components] == ["fan", "pump"]
    assert [column["Name"] for column in components[1]["Columns"]] == ["time", "a", "b"]
    api.create_dataset(DatasetName="misplaced", DatasetSchema={"InlineDataSchema": schema()})
    job = ingest(api, "misplaced", {"Bucket": BUCKET, "Prefix": "dirty/"})
    assert job["Status"] == "FAILED" and "s3://wire/dirty/" in job["FailedReason"]
    assert api.describe_dataset(DatasetName="misplaced")["Status"] == "CREATED"
    with pytest.raises(api.exceptions.ConflictException):
        api.create_model(ModelName="too-early", DatasetName="misplaced")


# --- models and versions ---


def test_model_answers(api, model, dataset, recorded):
    described = api.describe_model(ModelName=model)
    keys = recorded("describe_model_response_keys.json")["expander_2021_with_target_sampling_rate"]
    assert [key for key in described if key in keys] == keys
    metrics = json.loads(described["ModelMetrics"])
    reference = recorded("model_metrics_pump_2022_excerpt.json")
    assert set(reference) <= set(metrics)
    assert metrics["labeled_event_metrics"]["num_labeled"] == 2
    assert metrics["labeled_event_metrics"]["num_identified"] == 2
    assert described["ModelQuality"] in ("QUALITY_THRESHOLD_MET", "POOR_QUALITY_DETECTED")
    assert described["ActiveModelVersion"] == 1
    listed = api.list_models(ModelNameBeginsWith="wire-m", Status="SUCCESS", DatasetNameBeginsWith="wire")
    assert [entry["ModelName"] for entry in listed["ModelSummaries"]] == [model]
    with pytest.raises(api.exceptions.ConflictException):
        api.create_model(ModelName=model, DatasetName=dataset)
    with pytest.raises(api.exceptions.ConflictException):
        api.delete_dataset(DatasetName=dataset)
    for change in (
        {"ModelName": "m", "DatasetSchema": {"InlineDataSchema": schema(sensors=["Sensor99"])}},
        {"ModelName": "m", "OffCondition": "nonsense"},
        {"ModelName": "m", "OffCondition": COMPONENT + "\\Sensor99<1"},
        {"ModelName": "m", "TrainingDataStartTime": START, "TrainingDataEndTime": START},
        {"ModelName": "m", "LabelsInputConfiguration": {"S3InputConfiguration": {"Bucket": BUCKET}}},
        {"ModelName": "m", "DataPreProcessingConfiguration": {"TargetSamplingRate": "PT7M"}},
    ):
        with pytest.raises(api.exceptions.ValidationException):
            api.create_model(DatasetName=dataset, **change)
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.create_model(ModelName="m", DatasetName="no-such-dataset")
    for call in (api.describe_model, api.update_model, api.delete_model, api.list_model_versions):
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            call(ModelName="no-such-model")


def test_versions_imports_diagnostics_update_and_delete(api, s3, model, dataset):
    described = train(
        api, "second", dataset, LabelsInputConfiguration=None, DataPreProcessingConfiguration=None,
        OffCondition=COMPONENT + "\\Sensor0<-100",
        ModelDiagnosticsOutputConfiguration={"S3OutputConfiguration": {"Bucket": BUCKET, "Prefix": "diagnostics/"}},
    )
    assert described["Status"] == "SUCCESS", described
    assert described["ModelQuality"] == "CANNOT_DETERMINE_QUALITY"
    version = api.describe_model_version(ModelName="second", ModelVersion=1)
    assert version["SourceType"] == "TRAINING"
    result = version["ModelDiagnosticsResultsObject"]
    lines = gzip.decompress(s3.get_object(**result)["Body"].read()).decode().splitlines()
    assert len(lines) > 4000 and json.loads(lines[0])["prediction"] in (0, 1)

    # The other model is resampled, this one is not.
    source = api.describe_model(ModelName=model)["ActiveModelVersionArn"]
    with pytest.raises(api.exceptions.ValidationException, match="sampling"):
        api.import_model_version(SourceModelVersionArn=source, ModelName="second", DatasetName=dataset)
    source = described["ActiveModelVersionArn"]
    imported = api.import_model_version(SourceModelVersionArn=source, ModelName="second", DatasetName=dataset)
    assert imported["ModelVersion"] == 2 and imported["Status"] == "IMPORT_IN_PROGRESS"
    version = wait(
        lambda: api.describe_model_version(ModelName="second", ModelVersion=2), lambda v: v["Status"] == "SUCCESS"
    )
    assert version["SourceType"] == "IMPORT" and version["SourceModelVersionArn"] == source
    listed = api.list_model_versions(ModelName="second")["ModelVersionSummaries"]
    assert [entry["ModelVersion"] for entry in listed] == [2, 1]
    activated = api.update_active_model_version(ModelName="second", ModelVersion=2)
    assert (activated["CurrentActiveVersion"], activated["PreviousActiveVersion"]) == (2, 1)
    assert api.describe_model(ModelName="second")["PreviousActiveModelVersion"] == 1
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.update_active_model_version(ModelName="second", ModelVersion=9)
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_model_version(ModelName="second", ModelVersion=9)
    missing = source.rsplit("/", 1)[0] + "/99"
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.import_model_version(SourceModelVersionArn=missing, DatasetName=dataset)
    api.update_model(ModelName="second", RoleArn=ROLE + "2")
    assert api.describe_model(ModelName="second")["RoleArn"] == ROLE + "2"
    api.delete_model(ModelName="second")
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_model(ModelName="second")


def test_a_training_that_cannot_work_fails_with_a_reason(api, dataset):
    described = train(
        api, "hopeless", dataset, TrainingDataEndTime=START + datetime.timedelta(minutes=30), EvaluationDataStartTime=None,
        EvaluationDataEndTime=None,
    )
    assert described["Status"] == "FAILED" and "rows" in described["FailedReason"], described
    with pytest.raises(api.exceptions.ConflictException):
        api.create_inference_scheduler(**scheduler("hopeless", "never"))
    with pytest.raises(api.exceptions.ConflictException):
        api.create_retraining_scheduler(ModelName="hopeless", RetrainingFrequency="P1M", LookbackWindow="P180D")
    api.delete_model(ModelName="hopeless")


def test_dataset_import(api, dataset):
    source = api.describe_dataset(DatasetName=dataset)["DatasetArn"]
    imported = api.import_dataset(SourceDatasetArn=source, DatasetName="copied")
    assert imported["Status"] == "IMPORT_IN_PROGRESS"
    described = wait(lambda: api.describe_dataset(DatasetName="copied"), lambda d: d["Status"] == "ACTIVE")
    assert described["SourceDatasetArn"] == source
    assert len(api.list_sensor_statistics(DatasetName="copied")["SensorStatisticsSummaries"]) == len(SENSORS)
    with pytest.raises(api.exceptions.ConflictException):
        api.import_dataset(SourceDatasetArn=source, DatasetName="copied")
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.import_dataset(SourceDatasetArn=source + "0", DatasetName="other")
    api.delete_dataset(DatasetName="copied")


def test_retraining_scheduler(api, model):
    created = api.create_retraining_scheduler(
        ModelName=model, RetrainingFrequency="P1M", LookbackWindow="P180D", RetrainingStartDate=FAR
    )
    assert created["Status"] == "PENDING"
    with pytest.raises(api.exceptions.ConflictException):
        api.create_retraining_scheduler(ModelName=model, RetrainingFrequency="P1M", LookbackWindow="P180D")
    describe = lambda: api.describe_retraining_scheduler(ModelName=model)
    wait(describe, lambda s: s["Status"] == "RUNNING")
    assert describe()["PromoteMode"] == "MANAGED"
    for call in (api.start_retraining_scheduler, api.update_retraining_scheduler, api.delete_retraining_scheduler):
        with pytest.raises(api.exceptions.ConflictException):
            call(ModelName=model)
    assert api.stop_retraining_scheduler(ModelName=model)["Status"] == "STOPPING"
    wait(describe, lambda s: s["Status"] == "STOPPED")
    with pytest.raises(api.exceptions.ValidationException):
        api.update_retraining_scheduler(ModelName=model, RetrainingFrequency="P1D")
    # Due at once: a retraining with the promotion left to us.
    api.update_retraining_scheduler(ModelName=model, RetrainingStartDate=datetime.datetime.now(UTC))
    api.start_retraining_scheduler(ModelName=model)
    version = wait(
        lambda: api.list_model_versions(ModelName=model, SourceType="RETRAINING")["ModelVersionSummaries"],
        lambda versions: versions and versions[0]["Status"] != "IN_PROGRESS",
    )[0]
    assert version["Status"] == "SUCCESS", version
    detail = api.describe_model_version(ModelName=model, ModelVersion=version["ModelVersion"])
    assert detail["AutoPromotionResult"] in ("MODEL_PROMOTED", "MODEL_NOT_PROMOTED")
    assert api.describe_model(ModelName=model)["LatestScheduledRetrainingStatus"] == "SUCCESS"
    assert [s["ModelName"] for s in api.list_retraining_schedulers()["RetrainingSchedulerSummaries"]] == [model]
    api.stop_retraining_scheduler(ModelName=model)
    wait(describe, lambda s: s["Status"] == "STOPPED")
    api.delete_retraining_scheduler(ModelName=model)
    for call in (api.describe_retraining_scheduler, api.start_retraining_scheduler, api.stop_retraining_scheduler,
                 api.update_retraining_scheduler, api.delete_retraining_scheduler):
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            call(ModelName=model)


def test_resource_policies(api, dataset):
    arn = api.describe_dataset(DatasetName=dataset)["DatasetArn"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_resource_policy(ResourceArn=arn)
    put = api.put_resource_policy(ResourceArn=arn, ResourcePolicy=policy)
    described = api.describe_resource_policy(ResourceArn=arn)
    assert described["ResourcePolicy"] == policy and described["PolicyRevisionId"] == put["PolicyRevisionId"]
    with pytest.raises(api.exceptions.ConflictException):
        api.put_resource_policy(ResourceArn=arn, ResourcePolicy=policy, PolicyRevisionId="00")
    with pytest.raises(api.exceptions.ValidationException):
        api.put_resource_policy(ResourceArn=arn, ResourcePolicy="no json")
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.put_resource_policy(ResourceArn=arn + "0", ResourcePolicy=policy)
    api.delete_resource_policy(ResourceArn=arn)
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.delete_resource_policy(ResourceArn=arn)


# --- inference ---


def test_inference_scheduler_life(api, model):
    created = api.create_inference_scheduler(**scheduler(model, "wire-scheduler"))
    assert created["Status"] == "PENDING" and "ModelQuality" in created
    with pytest.raises(api.exceptions.ConflictException):
        api.create_inference_scheduler(**scheduler(model, "wire-scheduler"))
    with pytest.raises(api.exceptions.ServiceQuotaExceededException):
        api.create_inference_scheduler(**scheduler(model, "another"))
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.create_inference_scheduler(**scheduler("no-such-model", "another"))
    for change in (
        {"DataUploadFrequency": "PT7M"},
        {"DataDelayOffsetInMinutes": 61},
        {"InferenceSchedulerName": "no spaces"},
        {"RoleArn": "arn:aws:iam::1:role/x-x-x"},
        {"DataInputConfiguration": {}},
        {"DataInputConfiguration": {"S3InputConfiguration": {"Bucket": BUCKET, "Prefix": "no-slash"}}},
        {"Tags": [{"Key": "aws:x", "Value": ""}]},
        {"Tags": [{"Key": "lookoutd:results-format", "Value": "v9"}]},
    ):
        with pytest.raises(api.exceptions.ValidationException):
            api.create_inference_scheduler(**{**scheduler("no-such-model", "another"), **change})
    describe = lambda: api.describe_inference_scheduler(InferenceSchedulerName="wire-scheduler")
    wait(describe, lambda s: s["Status"] == "RUNNING")
    described = describe()
    assert described["DataDelayOffsetInMinutes"] == 0
    assert described["DataInputConfiguration"]["InputTimeZoneOffset"] == "+00:00"
    assert described["DataInputConfiguration"]["InferenceInputNameConfiguration"]["ComponentTimestampDelimiter"] == "_"
    with pytest.raises(api.exceptions.ConflictException):
        api.delete_model(ModelName=model)
    for call in (api.start_inference_scheduler, api.update_inference_scheduler, api.delete_inference_scheduler):
        with pytest.raises(api.exceptions.ConflictException):
            call(InferenceSchedulerName="wire-scheduler")
    assert api.stop_inference_scheduler(InferenceSchedulerName="wire-scheduler")["Status"] == "STOPPING"
    wait(describe, lambda s: s["Status"] == "STOPPED")
    assert api.stop_inference_scheduler(InferenceSchedulerName="wire-scheduler")["Status"] == "STOPPED"
    updated = api.update_inference_scheduler(InferenceSchedulerName="wire-scheduler", DataDelayOffsetInMinutes=5)
    assert updated["ResponseMetadata"]["HTTPHeaders"]["content-length"] == "0"
    assert describe()["DataDelayOffsetInMinutes"] == 5
    summaries = api.list_inference_schedulers(ModelName=model, Status="STOPPED")["InferenceSchedulerSummaries"]
    assert [s["InferenceSchedulerName"] for s in summaries] == ["wire-scheduler"]
    assert api.list_inference_schedulers()["InferenceSchedulerSummaries"]
    # A boundary may have passed while it ran; there was nothing to score.
    executions = api.list_inference_executions(InferenceSchedulerName="wire-scheduler")["InferenceExecutionSummaries"]
    assert all(execution["Status"] == "FAILED" for execution in executions)
    events = api.list_inference_events(
        InferenceSchedulerName="wire-scheduler", IntervalStartTime=START, IntervalEndTime=FAR
    )
    assert events["InferenceEventSummaries"] == []
    with pytest.raises(api.exceptions.ValidationException):
        api.list_inference_events(
            InferenceSchedulerName="wire-scheduler", IntervalStartTime=FAR, IntervalEndTime=START
        )
    with pytest.raises(api.exceptions.ValidationException):
        api.list_inference_executions(InferenceSchedulerName="wire-scheduler", NextToken="made-up")
    assert api.start_inference_scheduler(InferenceSchedulerName="wire-scheduler")["Status"] == "PENDING"
    stopped(api, "wire-scheduler")
    api.delete_inference_scheduler(InferenceSchedulerName="wire-scheduler")
    for call in (
        api.describe_inference_scheduler, api.start_inference_scheduler, api.stop_inference_scheduler,
        api.update_inference_scheduler, api.delete_inference_scheduler, api.list_inference_executions,
    ):
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            call(InferenceSchedulerName="wire-scheduler")
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.list_inference_events(
            InferenceSchedulerName="wire-scheduler", IntervalStartTime=START, IntervalEndTime=FAR
        )


def test_idempotency_tokens(api):
    token = uuid.uuid4().hex
    first = api.create_label_group(LabelGroupName="once", ClientToken=token)
    again = api.create_label_group(LabelGroupName="once", ClientToken=token)
    assert first["LabelGroupArn"] == again["LabelGroupArn"]
    with pytest.raises(api.exceptions.ConflictException):
        api.create_label_group(LabelGroupName="twice", ClientToken=token)
    api.delete_label_group(LabelGroupName="once")


# --- labels and tags ---


def test_label_groups_and_labels(api):
    group = api.create_label_group(LabelGroupName="pumps", FaultCodes=["F1"], Tags=[{"Key": "k", "Value": "v"}])
    assert group["LabelGroupName"] == "pumps"
    with pytest.raises(api.exceptions.ConflictException):
        api.create_label_group(LabelGroupName="pumps")
    api.update_label_group(LabelGroupName="pumps", FaultCodes=["F1", "F2"])
    assert api.describe_label_group(LabelGroupName="pumps")["FaultCodes"] == ["F1", "F2"]
    assert api.list_label_groups(LabelGroupNameBeginsWith="pu")["LabelGroupSummaries"][0]["LabelGroupName"] == "pumps"
    hour = datetime.timedelta(hours=1)
    ids = [
        api.create_label(
            LabelGroupName="pumps", StartTime=START + n * hour, EndTime=START + (n + 1) * hour, Rating="ANOMALY",
            FaultCode="F2" if n else "F1", Notes="it shook", Equipment="pump 3",
        )["LabelId"]
        for n in range(3)
    ]
    described = api.describe_label(LabelGroupName="pumps", LabelId=ids[0])
    assert described["Notes"] == "it shook" and described["StartTime"].timestamp() == START.timestamp()
    listed = api.list_labels(LabelGroupName="pumps", FaultCode="F2")["LabelSummaries"]
    assert [label["LabelId"] for label in listed] == ids[1:]
    inside = api.list_labels(
        LabelGroupName="pumps", IntervalStartTime=START + 2.5 * hour, IntervalEndTime=START + 9 * hour
    )
    assert [label["LabelId"] for label in inside["LabelSummaries"]] == ids[2:]
    page = api.list_labels(LabelGroupName="pumps", MaxResults=2)
    rest = api.list_labels(LabelGroupName="pumps", MaxResults=2, NextToken=page["NextToken"])
    assert [label["LabelId"] for label in page["LabelSummaries"] + rest["LabelSummaries"]] == ids
    for change in ({"FaultCode": "F9"}, {"EndTime": START}, {"Rating": "BAD"}):
        request = dict(LabelGroupName="pumps", StartTime=START, EndTime=START + hour, Rating="NEUTRAL")
        with pytest.raises(api.exceptions.ValidationException):
            api.create_label(**{**request, **change})
    api.delete_label(LabelGroupName="pumps", LabelId=ids[0])
    for call in (api.describe_label, api.delete_label):
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            call(LabelGroupName="pumps", LabelId=ids[0])
    api.delete_label_group(LabelGroupName="pumps")
    for call in (api.describe_label_group, api.update_label_group, api.delete_label_group):
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            call(LabelGroupName="pumps")
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.create_label(LabelGroupName="pumps", StartTime=START, EndTime=START + hour, Rating="NEUTRAL")
    assert api.list_labels(LabelGroupName="pumps")["LabelSummaries"] == []


def test_tags(api, model):
    arn = api.describe_model(ModelName=model)["ModelArn"]
    api.tag_resource(ResourceArn=arn, Tags=[{"Key": "site", "Value": "north"}, {"Key": "unit", "Value": "7"}])
    api.tag_resource(ResourceArn=arn, Tags=[{"Key": "unit", "Value": "8"}])
    tags = api.list_tags_for_resource(ResourceArn=arn)["Tags"]
    assert tags == [{"Key": "site", "Value": "north"}, {"Key": "unit", "Value": "8"}]
    api.untag_resource(ResourceArn=arn, TagKeys=["unit", "absent"])
    assert api.list_tags_for_resource(ResourceArn=arn)["Tags"] == tags[:1]
    with pytest.raises(api.exceptions.ServiceQuotaExceededException):
        api.tag_resource(ResourceArn=arn, Tags=[{"Key": f"k{n}", "Value": ""} for n in range(60)])
    with pytest.raises(api.exceptions.ValidationException):
        api.tag_resource(ResourceArn="arn:aws:s3:::bucket", Tags=[])
    for call, more in ((api.tag_resource, {"Tags": []}), (api.untag_resource, {"TagKeys": []}),
                       (api.list_tags_for_resource, {})):
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            call(ResourceArn=arn + "0", **more)


# --- the wire itself ---


def post(body, target="ListModels", content_type="application/x-amz-json-1.0", sign=True, change=None):
    """A raw signed request; change(request) edits it after signing. Returns status, headers, body."""
    headers = {"Content-Type": content_type, "X-Amz-Target": f"AWSLookoutEquipmentFrontendService.{target}"}
    request = AWSRequest("POST", ENDPOINT + "/", headers, body)
    keys = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    if sign:
        SigV4Auth(keys, "lookoutequipment", REGION).add_auth(request)
    if change:
        change(request)
    raw = urllib.request.Request(ENDPOINT + "/", request.data, dict(request.headers), method="POST")
    try:
        with urllib.request.urlopen(raw) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_unknown_operations_malformed_bodies_and_foreign_types(api):
    def code(answer):
        status, headers, body = answer
        error = json.loads(body)
        assert headers["x-amzn-errortype"] == error["__type"] and error["Message"]
        assert uuid.UUID(headers["x-amzn-requestid"])
        return status, error["__type"]

    assert code(post(b"{}", "MakeCoffee")) == (404, "UnknownOperationException")
    assert code(post(b"{", "ListModels")) == (400, "SerializationException")
    assert code(post(b"[]", "ListModels")) == (400, "SerializationException")
    assert code(post(b'{"MaxResults": "5"}')) == (400, "SerializationException")
    assert code(post(b'{"MaxResults": 501}')) == (400, "ValidationException")
    assert code(post(b"{}", "DescribeModel")) == (400, "ValidationException")
    assert code(post(b"{}", content_type="text/plain")) == (400, "SerializationException")
    assert code(post(b" " * (5 << 20)))[0] == 413
    assert post(b'{"Unknown": 1}')[0] == 200
    assert post(b"")[0] == 200


def test_requests_are_refused_unless_signed_by_a_known_key_over_this_body():
    def code(answer):
        return answer[0], json.loads(answer[2])["__type"]

    assert code(post(b"{}", sign=False)) == (403, "MissingAuthenticationTokenException")

    def other_body(request):
        request.data = b'{"MaxResults": 1}'

    assert code(post(b"{}", change=other_body)) == (403, "InvalidSignatureException")

    def other_operation(request):
        request.headers.replace_header("X-Amz-Target", "AWSLookoutEquipmentFrontendService.ListDatasets")

    assert code(post(b"{}", change=other_operation)) == (403, "InvalidSignatureException")

    def old(request):
        request.headers.replace_header("X-Amz-Date", "20200101T000000Z")

    assert code(post(b"{}", change=old)) == (403, "InvalidSignatureException")
    for key, secret, expected in (
        ("AKIDNOBODY", "x", "UnrecognizedClientException"),
        (os.environ["AWS_ACCESS_KEY_ID"], "wrong", "InvalidSignatureException"),
    ):
        client = boto3.client(
            "lookoutequipment", endpoint_url=ENDPOINT, region_name=REGION, aws_access_key_id=key,
            aws_secret_access_key=secret,
        )
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            client.list_models()
        assert refused.value.response["Error"]["Code"] == expected


def test_recorded_create_answers(api, recorded):
    created = api.create_dataset(DatasetName="getting-started-pump", DatasetSchema={"InlineDataSchema": schema()})
    metadata = created.pop("ResponseMetadata")
    reference = recorded("create_dataset_response_2022.json")
    assert list(created) == list(reference) and created["Status"] == reference["Status"]
    seen = recorded("response_metadata_2022.json")["HTTPHeaders"]
    assert set(seen) <= set(metadata["HTTPHeaders"])
    assert metadata["HTTPHeaders"]["content-type"] == seen["content-type"]
    # eu-west-1 and us-east-1 have the same length: the recorded byte count holds.
    assert metadata["HTTPHeaders"]["content-length"] == seen["content-length"]
    api.delete_dataset(DatasetName="getting-started-pump")
