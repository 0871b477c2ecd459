"""A window of 24 files, 2 MB in all, over an uplink of 25 kB/s: beside boto3 that uploads one after the other."""

import subprocess
import sys

from harness import CACHE, ENVIRONMENT, LOOKOUTD, PEERS, PYTHON, record, scratch, table, tags
from seaweedfs import SeaweedFs
from wire import Wire

ORDER = 46
OPT_IN = "takes a minute and a half for each turn of each contender"
BYTES_PER_S = 25_000
START, END = "2015-06-01T00:00:00", "2015-06-01T01:00:00"


def run(rounds):
    runs = {}
    with scratch() as directory, SeaweedFs(directory / "weed") as store:
        files = directory / "files"
        cut = [LOOKOUTD, "replay", "--history", str(dense()), "--tags", str(tags()), "--from", START, "--to", END, "--at",
               "2026-01-01T00:00:00Z", "--cadence", "PT1H", "--out", str(files)]
        subprocess.run(cut, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        written = [path.stat().st_size for path in files.iterdir()]
        for turn in range(min(rounds, 3)):
            for name in ["boto3, sequential", "lookoutd"]:
                prefix = f"{turn}-{name[:5]}/"
                with Wire(store.endpoint, bytes_per_s=BYTES_PER_S) as wire:
                    if name == "lookoutd":
                        command, environment = [LOOKOUTD, "run", "--once"], gateway(store, wire, prefix, directory / f"data-{turn}")
                    else:
                        command, environment = [PYTHON, str(PEERS / "upload_boto3.py"), "--endpoint", wire.endpoint, "--bucket",
                                                store.bucket, "--prefix", prefix, "--threads", "1", str(files)], {}
                    record(runs, name, command, len(written), environment)
                    check(store, prefix, len(written), sum(written))
    made = table(f"One window, {len(written)} files, {sum(written) / 1e6:.1f} MB, over {BYTES_PER_S / 1000:.0f} kB/s", runs, "lookoutd")
    return [{**made, "note": f"The bytes alone take {sum(written) / BYTES_PER_S:.0f} s. lookoutd cuts the window first."}]


def check(store, prefix, count, size):
    objects = store.call("list_objects_v2", {"Bucket": store.bucket, "Prefix": prefix})["Contents"]
    sizes = [one["Size"] for one in objects if "_lookoutd/" not in one["Key"]]
    if len(sizes) != count or abs(sum(sizes) - size) > size / 50:
        sys.exit(f"{len(sizes)} objects of {sum(sizes)} bytes under {prefix}, expected {count} of {size}")


def gateway(store, wire, prefix, data):
    return {**store.environment(prefix, data), "LOOKOUTD__S3__ENDPOINT_URL": wire.endpoint, "LOOKOUTD__FEED__CADENCE": "PT1H",
            "LOOKOUTD__SOURCE__HISTORY": str(dense()), "LOOKOUTD__SOURCE__TAGS": str(tags()), "LOOKOUTD__ADMIN__LISTEN": ""}


def dense():
    """A row every two seconds for two hours and the tags of the sample plant: an hour of it is 2 MB of files."""
    path = CACHE / "dense.parquet"
    if not path.exists():
        script = """
import csv, datetime, random, sys
import polars
# The first window ends an hour later: it begins before its first row.
start = datetime.datetime(2015, 6, 1, 0, 0, 2)
random.seed(1)
tags = [row["Tag"] for row in csv.DictReader(open(sys.argv[1]))]
columns = {"Timestamp": [start + datetime.timedelta(seconds=2 * row) for row in range(3600)]}
columns |= {tag: [round(random.gauss(10, 1), 1) for _ in range(3600)] for tag in tags}
polars.DataFrame(columns).write_parquet(sys.argv[2])
"""
        subprocess.run([PYTHON, "-c", script, str(tags()), str(path) + ".new"], check=True, env=ENVIRONMENT)
        (path.parent / (path.name + ".new")).rename(path)
    return path
