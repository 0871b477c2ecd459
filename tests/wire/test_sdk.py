"""The official Python SDK (PyPI lookoutequipment 0.1.5) and the AWS CLI, unmodified, against the service.

The SDK makes its own boto3 client: AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT and AWS_ENDPOINT_URL_S3 redirect it, as they do
for its users. The notebooks from first to last are in test_notebooks.py; here is their scheduler part alone, which also runs
against the real binary.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from conftest import BUCKET, COMPONENT, ENDPOINT, ROLE, S3_ENDPOINT, UTC, csv, train, wait

# Simulated minutes per real minute, if the server runs its schedules on an accelerated clock.
SPEED = float(os.environ.get("LOOKOUTD_SPEED", "1"))


@pytest.fixture(scope="module")
def sdk():
    os.environ["AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT"] = ENDPOINT
    os.environ["AWS_ENDPOINT_URL_S3"] = S3_ENDPOINT
    pytest.importorskip("lookoutequipment")
    import lookoutequipment

    return lookoutequipment


def cli(*arguments):
    program = pathlib.Path(sys.executable).parent / "aws"
    environment = {**os.environ, "AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT": ENDPOINT}
    return subprocess.run([program, "lookoutequipment", *arguments], env=environment, capture_output=True, text=True)


def test_the_aws_cli_reads_answers_and_names_errors(model):
    listed = cli("list-models", "--model-name-begins-with", model, "--output", "json")
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout)["ModelSummaries"][0]["ModelName"] == model
    missing = cli("describe-inference-scheduler", "--inference-scheduler-name", "no-such")
    assert missing.returncode != 0 and "(ResourceNotFoundException)" in missing.stderr
    bad = cli("describe-inference-scheduler", "--inference-scheduler-name", "no spaces")
    assert "(ValidationException)" in bad.stderr and "Member must satisfy regular expression pattern" in bad.stderr


def test_the_notebooks_scheduler_part_runs_through_the_sdk(sdk, api, s3, dataset, capsys):
    from lookoutequipment import scheduler as sdk_scheduler

    assert train(api, "sdk-model", dataset)["Status"] == "SUCCESS"
    life = sdk_scheduler.LookoutEquipmentScheduler(scheduler_name="sdk-scheduler", model_name="sdk-model")
    life.set_parameters(
        input_bucket=BUCKET, input_prefix="sdk/input/", output_bucket=BUCKET, output_prefix="sdk/output/",
        role_arn=ROLE, upload_frequency="PT5M", delay_offset=None, timezone_offset="+00:00", component_delimiter="_",
        timestamp_format="yyyyMMddHHmmss",
    )
    life.create(wait=True)
    described = api.describe_inference_scheduler(InferenceSchedulerName="sdk-scheduler")
    assert described["Status"] == "RUNNING"
    printed = capsys.readouterr().out
    assert "PENDING" in printed and "RUNNING" in printed, printed

    if SPEED > 1:
        # The service's clock runs ahead of ours: files for every window of its next two hours.
        now = described["UpdatedAt"].astimezone(UTC)
        first = now.replace(minute=now.minute - now.minute % 5, second=0, microsecond=0)
        for window in range(24):
            start = first + datetime.timedelta(minutes=5 * window)
            key = f"sdk/input/{COMPONENT}_{start:%Y%m%d%H%M%S}.csv"
            body = csv(start + datetime.timedelta(minutes=5), 1, 5, lambda when: 4.0)
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        wait(lambda: life.list_inference_executions(execution_status="SUCCESS"), lambda runs: len(runs) >= 3, 180)
        executions = life.list_inference_executions()
        ends = [execution["DataEndTime"] for execution in executions]
        assert ends == sorted(ends, reverse=True)
        predictions = life.get_predictions()
        assert list(predictions.columns[:2]) == ["prediction", "anomaly_score"], predictions.columns
        assert (predictions["prediction"] == 1).any()

    life.stop(wait=True)
    printed = capsys.readouterr().out
    assert "STOPPING" in printed and "STOPPED" in printed, printed
    life.start(wait=True)
    life.stop(wait=True)
    life.delete()
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_inference_scheduler(InferenceSchedulerName="sdk-scheduler")


@pytest.mark.skipif(SPEED == 1, reason="would wait for windows of real time")
def test_executions_have_the_members_types_and_order_of_the_recorded_ones(api, s3, dataset, recorded):
    assert train(api, "recorded-model", dataset)["Status"] == "SUCCESS"
    location = lambda part: {"S3%sConfiguration" % part: {"Bucket": BUCKET, "Prefix": f"recorded/{part.lower()}/"}}
    api.create_inference_scheduler(
        ModelName="recorded-model", InferenceSchedulerName="recorded-scheduler", DataUploadFrequency="PT5M", RoleArn=ROLE,
        DataInputConfiguration={**location("Input"), "InferenceInputNameConfiguration": {"ComponentTimestampDelimiter": "_"}},
        DataOutputConfiguration=location("Output"), ClientToken="recorded",
    )
    listed = lambda status: api.list_inference_executions(
        InferenceSchedulerName="recorded-scheduler", Status=status)["InferenceExecutionSummaries"]
    # Without files the first windows fail; then files for the next ones.
    [failed, *_] = wait(lambda: listed("FAILED"), bool, 60)
    for window in range(1, 6):
        start = failed["DataEndTime"].astimezone(UTC) + datetime.timedelta(minutes=5 * window)
        body = csv(start + datetime.timedelta(minutes=5), 1, 5, lambda when: 4.0)
        s3.put_object(Bucket=BUCKET, Key=f"recorded/input/{COMPONENT}_{start:%Y%m%d%H%M%S}.csv", Body=body)
    [success, *_] = wait(lambda: listed("SUCCESS"), bool, 60)
    for execution, name in ((success, "2021_success"), (failed, "2022_failed")):
        [reference, *_] = recorded(f"list_inference_executions_{name}.json")["InferenceExecutionSummaries"]
        # What later versions of the service added comes beside the recorded members, not between other ones.
        assert [key for key in execution if key in reference] == list(reference), execution
        for key, value in reference.items():
            time_of = key in ("ScheduledStartTime", "DataStartTime", "DataEndTime")
            assert isinstance(execution[key], datetime.datetime if time_of else type(value)), key
        assert execution["CustomerResultObject"].keys() == reference["CustomerResultObject"].keys() if name == "2021_success" \
            else "CustomerResultObject" not in execution
        assert execution["DataOutputConfiguration"].keys() == reference["DataOutputConfiguration"].keys()
    api.stop_inference_scheduler(InferenceSchedulerName="recorded-scheduler")
