"""The official notebooks 1 to 7 from first to last, through the official SDK, on the sample plant.

LOOKOUTD_PLANT is a directory of `lookoutd sample`. The SDK's own loader downloads its example, so the data are laid out
here as it lays them out; everything after that is the SDK's code. Its clock is the service's, which may run ahead.
"""

import collections
import datetime
import json
import os
import pathlib

import pytest

from conftest import BUCKET, ENDPOINT, ROLE, S3_ENDPOINT, UTC, wait

PLANT = os.environ.get("LOOKOUTD_PLANT")
PREFIX = "notebooks/"
DATASET, MODEL, SCHEDULER = "plant-dataset", "plant-model", "plant-scheduler"

pytestmark = pytest.mark.skipif(not PLANT, reason="LOOKOUTD_PLANT is not set to a sample plant")


@pytest.fixture(scope="module")
def sdk():
    os.environ["AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT"] = ENDPOINT
    os.environ["AWS_ENDPOINT_URL_S3"] = S3_ENDPOINT
    return pytest.importorskip("lookoutequipment")


def load(root):
    """What the SDK's load_dataset('expander') makes of its download: a CSV per component, and a dictionary."""
    pandas = pytest.importorskip("pandas")
    plant = pathlib.Path(PLANT)
    data = pandas.read_parquet(plant / "signals.parquet")
    tags = pandas.read_csv(plant / "tags_description.csv")
    stamps = data.index.strftime("%Y-%m-%dT%H:%M:%S.%f")
    for component in tags["Subsystem"].unique():
        frame = data[list(tags[tags["Subsystem"] == component]["Tag"])].copy()
        frame.insert(0, "Timestamp", stamps)
        folder = root / "training-data" / component
        folder.mkdir(parents=True)
        frame.to_csv(folder / f"{component}.csv", index=None)
    (root / "labels.csv").write_bytes((plant / "labels.csv").read_bytes())
    labels = pandas.read_csv(plant / "labels.csv", header=None, names=["start", "end"])
    ranges = [pandas.to_datetime(line) for line in (plant / "timeranges.txt").read_text().split("\n")[:4]]
    names = ["training_start", "training_end", "evaluation_start", "evaluation_end"]
    return {"data": data, "labels": labels, "tags_description": tags, **dict(zip(names, ranges))}


def service_time(api):
    """Now, by the service's clock."""
    api.create_label_group(LabelGroupName="clock")
    now = api.describe_label_group(LabelGroupName="clock")["CreatedAt"].astimezone(UTC)
    api.delete_label_group(LabelGroupName="clock")
    return now


def leading_component(shares):
    """The component with the largest sum of shares."""
    sums = collections.Counter()
    for name, share in shares:
        sums[name.split("\\")[0]] += share
    return sums.most_common(1)[0][0]


def test_the_notebooks_run_from_first_to_last_on_the_sample_plant(sdk, api, s3, tmp_path, monkeypatch):
    from lookoutequipment import dataset, evaluation, model, scheduler

    # 1: data preparation.
    plant = load(tmp_path)
    components = sorted(plant["tags_description"]["Subsystem"].unique())
    assert (len(components), plant["data"].shape[1]) == (24, 122)
    dataset.upload_dataset(str(tmp_path), BUCKET, PREFIX)

    # 2: dataset creation and ingestion.
    data = dataset.LookoutEquipmentDataset(
        dataset_name=DATASET, component_root_dir=str(tmp_path / "training-data"), access_role_arn=ROLE
    )
    assert data.create()["Status"] == "CREATED"
    job = data.ingest_data(BUCKET, PREFIX + "training-data/", wait=True, sleep_time=1)
    assert job["Status"] == "SUCCESS" and job["IngestedFilesSummary"]["IngestedNumberOfFiles"] == 24, job
    assert sorted(data.components_list) == components
    assert DATASET in dataset.list_datasets("plant-")
    assert len(sensor_statistics(api)) == 122

    # 3: model training.
    trained = model.LookoutEquipmentModel(model_name=MODEL, dataset_name=DATASET)
    trained.set_time_periods(
        plant["evaluation_start"], plant["evaluation_end"], plant["training_start"], plant["training_end"]
    )
    trained.set_label_data(bucket=BUCKET, prefix=PREFIX + "label-data/", access_role_arn=ROLE)
    trained.set_target_sampling_rate(sampling_rate="PT5M")
    assert trained.train()["Status"] == "IN_PROGRESS"
    trained.poll_model_training(sleep_time=1)
    described = api.describe_model(ModelName=MODEL)
    assert described["Status"] == "SUCCESS", described
    assert model.list_models(dataset_name_prefix=DATASET) == [MODEL]

    # 4: evaluation.
    analysis = evaluation.LookoutEquipmentAnalysis(model_name=MODEL, tags_df=plant["data"])
    labelled, predicted = analysis.get_labels(), analysis.get_predictions()
    assert len(labelled) == 1 and len(predicted) >= 2
    fault = labelled.iloc[0]
    hits = predicted[(predicted["start"] <= fault["end"]) & (predicted["end"] >= fault["start"])]
    assert len(hits) >= 1, predicted
    shares = [(item["name"], item["value"]) for item in hits.iloc[0]["diagnostics"]]
    assert leading_component(shares) == "subsystem-07"
    metrics = json.loads(described["ModelMetrics"])["labeled_event_metrics"]
    assert (metrics["num_labeled"], metrics["num_identified"]) == (1, 1)
    analysis.compute_histograms()
    assert len(analysis.get_ranked_list(max_signals=12)) == 12
    assert sum(rank > 0 for rank in analysis.rank.values()) > 60

    # 5: scheduling inference. The files are of the fault, and of the service's near future.
    ahead = service_time(api) + datetime.timedelta(minutes=30)
    monkeypatch.setattr(dataset, "datetime", clock_at(ahead.replace(tzinfo=None)))
    start = fault["start"] + datetime.timedelta(hours=16)
    dataset.prepare_inference_data(
        str(tmp_path), plant, BUCKET, PREFIX, num_sequences=6, frequency=5, start_date=start
    )
    life = scheduler.LookoutEquipmentScheduler(scheduler_name=SCHEDULER, model_name=MODEL)
    life.set_parameters(
        input_bucket=BUCKET, input_prefix=PREFIX + "inference-data/input/",
        output_bucket=BUCKET, output_prefix=PREFIX + "inference-data/output/", role_arn=ROLE,
    )
    life.create(wait=True)
    assert life.get_status() == "RUNNING"

    # 6: predictions.
    wait(lambda: life.list_inference_executions(execution_status="SUCCESS"), lambda runs: len(runs) >= 4, 120)
    predictions = life.get_predictions()
    assert list(predictions.columns[:2]) == ["prediction", "anomaly_score"]
    anomalies = predictions[predictions["prediction"] == 1]
    assert len(anomalies) >= 1, predictions
    assert len(predictions.columns) == 2 + 122
    assert leading_component(anomalies.iloc[:, 2:].mean().items()) == "subsystem-07"

    # 7: clean-up: nothing that is in use goes; then schedulers, models, dataset.
    data.delete(force_delete=False)
    assert DATASET in dataset.list_datasets("plant-")
    assert trained.delete() is False
    life.stop(wait=True)
    life.delete()
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_inference_scheduler(InferenceSchedulerName=SCHEDULER)
    trained.delete()
    data.delete()
    assert model.list_models("plant-") == [] and dataset.list_datasets("plant-") == []
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_dataset(DatasetName=DATASET)
    data.delete()


def sensor_statistics(api):
    found, token = [], {}
    while True:
        page = api.list_sensor_statistics(DatasetName=DATASET, **token)
        found += page["SensorStatisticsSummaries"]
        if "NextToken" not in page:
            return found
        token = {"NextToken": page["NextToken"]}


def clock_at(now):
    """The SDK's `datetime`, whose now is the service's."""

    class Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(now.year, now.month, now.day, now.hour, now.minute, now.second)

    return Datetime
