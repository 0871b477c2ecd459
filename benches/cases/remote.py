"""A window from a history in a bucket that is a tenth of a second away, beside the same file on this machine."""

import datetime
import subprocess

from harness import AT, ENVIRONMENT, LOOKOUTD, PYTHON, end_of, history_default, record, sample, scratch, table, tags
from seaweedfs import SeaweedFs
from wire import Wire

ORDER = 22
LATENCY_S = 0.1
FORMS = [("as pandas writes it (one row group)", history_default), ("of the sample plant", lambda: sample() / "signals.parquet")]


def run(rounds):
    tables = []
    with scratch() as directory, SeaweedFs(directory / "weed") as store, Wire(store.endpoint, LATENCY_S) as wire:
        for at, (form, history) in enumerate(FORMS):
            path, key = history(), f"history/{at}.parquet"
            put(store, key, path)
            runs = {}
            for turn in range(rounds):
                for name, place, environment in [
                    ("on this machine", path, {}),
                    (f"{LATENCY_S * 1000:.0f} ms away", f"s3://{store.bucket}/{key}", endpoint(store, wire, directory)),
                ]:
                    record(runs, name, replay(place, path, directory / f"{at}-{turn}-{name}"), 24, environment)
            tables.append(table(f"One window of 122 signals from a file {form}", runs, "on this machine"))
    return tables


def endpoint(store, wire, directory):
    return {**store.environment("unused/", directory / "data"), "LOOKOUTD__S3__ENDPOINT_URL": wire.endpoint}


def put(store, key, path):
    script = "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1]).upload_file(*sys.argv[2:])"
    subprocess.run([PYTHON, "-c", script, store.endpoint, str(path), store.bucket, key], check=True, env=ENVIRONMENT)


def replay(place, local, out):
    """The history's last window."""
    end = end_of(local)
    start = end - datetime.timedelta(minutes=5)
    return [LOOKOUTD, "replay", "--history", str(place), "--tags", str(tags()), "--from", start.isoformat(), "--to",
            end.isoformat(), "--at", f"{AT}Z", "--cadence", "PT5M", "--rows", "notebook", "--out", str(out)]
