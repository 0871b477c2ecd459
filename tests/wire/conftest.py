"""The wire tests: unmodified clients against a running service.

They expect a server with nothing in it, given by the environment:
  LOOKOUTD_ENDPOINT      the API, such as http://127.0.0.1:9180
  LOOKOUTD_S3_ENDPOINT   its S3, such as http://127.0.0.1:9190
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY   the key pair of both
"""

import datetime
import json
import math
import os
import pathlib
import time

import boto3
import pytest

ENDPOINT = os.environ.get("LOOKOUTD_ENDPOINT")
S3_ENDPOINT = os.environ.get("LOOKOUTD_S3_ENDPOINT")
REGION = "us-east-1"
ROLE = "arn:aws:iam::123456789012:role/lookoutd"
BUCKET = "wire"
COMPONENT = "centrifugal-pump"
SENSORS = ["Sensor0", "Sensor1", "Sensor10", "Sensor2"]
UTC = datetime.timezone.utc
START = datetime.datetime(2019, 1, 1, tzinfo=UTC)
DAYS = 40

os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
os.environ.setdefault("AWS_DEFAULT_REGION", REGION)
os.environ.setdefault("AWS_REGION", REGION)


def pytest_collection_modifyitems(items):
    if not (ENDPOINT and S3_ENDPOINT):
        for item in items:
            item.add_marker(pytest.mark.skip(reason="LOOKOUTD_ENDPOINT and LOOKOUTD_S3_ENDPOINT are not set"))


@pytest.fixture(scope="session")
def api():
    return boto3.client("lookoutequipment", endpoint_url=ENDPOINT, region_name=REGION)


@pytest.fixture(scope="session")
def s3():
    client = boto3.client("s3", endpoint_url=S3_ENDPOINT, region_name=REGION)
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    return client


def values(when):
    """Four related sensors with deterministic noise."""
    minute = int(when.timestamp() // 60)

    def noise(seed):
        mixed = (minute * 2654435761 ^ seed * 40503) * 2246822519 % 2**32
        return mixed / 2**32 - 0.5

    load = math.sin(minute / 700.0)
    return [load + 0.1 * noise(s) + 0.3 * s * load for s in range(len(SENSORS))]


def csv(first, count, step_minutes, fault=lambda when: 0.0):
    lines = ["Timestamp," + ",".join(SENSORS)]
    for index in range(count):
        when = first + datetime.timedelta(minutes=index * step_minutes)
        row = values(when)
        row[1] += fault(when)
        lines.append(when.strftime("%Y-%m-%dT%H:%M:%S.%f") + "," + ",".join(f"{value:.6f}" for value in row))
    return "\n".join(lines) + "\n"


def fault(when):
    """One labelled day in ten is odd for six hours."""
    day = (when - START).days
    return 3.0 if day % 10 == 9 and when.hour < 6 else 0.0


def labels():
    lines = []
    for day in range(9, DAYS, 10):
        begin = START + datetime.timedelta(days=day)
        end = begin + datetime.timedelta(days=1)
        lines.append(begin.strftime("%Y-%m-%dT%H:%M:%S.%f") + "," + end.strftime("%Y-%m-%dT%H:%M:%S.%f"))
    return "\n".join(lines) + "\n"


def schema(sensors=SENSORS, component=COMPONENT):
    columns = [{"Name": "Timestamp", "Type": "DATETIME"}] + [{"Name": name, "Type": "DOUBLE"} for name in sensors]
    return json.dumps({"Components": [{"ComponentName": component, "Columns": columns}]})


def wait(describe, done, seconds=120):
    """Polls until done(answer); returns the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = describe()
        if done(answer):
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


@pytest.fixture(scope="session")
def training_data(s3):
    """Five-minute rows of forty days under wire/training-data/, labels under wire/label-data/."""
    body = csv(START, DAYS * 288, 5, fault)
    s3.put_object(Bucket=BUCKET, Key=f"training-data/{COMPONENT}/sensors.csv", Body=body)
    s3.put_object(Bucket=BUCKET, Key="label-data/labels.csv", Body=labels())
    return {"Bucket": BUCKET, "Prefix": "training-data/"}


def ingest(api, dataset, location):
    job = api.start_data_ingestion_job(
        DatasetName=dataset, IngestionInputConfiguration={"S3InputConfiguration": location}, RoleArn=ROLE
    )
    assert job["Status"] == "IN_PROGRESS"
    return wait(lambda: api.describe_data_ingestion_job(JobId=job["JobId"]), lambda job: job["Status"] != "IN_PROGRESS")


@pytest.fixture(scope="session")
def dataset(api, training_data):
    api.create_dataset(DatasetName="wire-dataset", DatasetSchema={"InlineDataSchema": schema()})
    job = ingest(api, "wire-dataset", training_data)
    assert job["Status"] == "SUCCESS", job
    return "wire-dataset"


def train(api, name, dataset, **more):
    split = START + datetime.timedelta(days=25)
    request = dict(
        ModelName=name,
        DatasetName=dataset,
        TrainingDataStartTime=START,
        TrainingDataEndTime=split,
        EvaluationDataStartTime=split + datetime.timedelta(minutes=5),
        EvaluationDataEndTime=START + datetime.timedelta(days=DAYS),
        RoleArn=ROLE,
        LabelsInputConfiguration={"S3InputConfiguration": {"Bucket": BUCKET, "Prefix": "label-data/"}},
        DataPreProcessingConfiguration={"TargetSamplingRate": "PT5M"},
    )
    request.update(more)
    created = api.create_model(**{key: value for key, value in request.items() if value is not None})
    assert created["Status"] == "IN_PROGRESS"
    return wait(lambda: api.describe_model(ModelName=name), lambda model: model["Status"] != "IN_PROGRESS")


@pytest.fixture(scope="session")
def model(api, dataset):
    described = train(api, "wire-model", dataset)
    assert described["Status"] == "SUCCESS", described
    return "wire-model"


@pytest.fixture(scope="session")
def recorded():
    """Reads a recorded answer of the real service."""
    folder = pathlib.Path(__file__).parents[1] / "data" / "contract"
    return lambda name: json.loads((folder / name).read_text())
