"""Runs many schedulers in one service and prints a JSON line for each boundary; run by the cases `schedulers` and `soak`.

Everything is made through the API with boto3: a dataset of 24 components with a sensor each, one model trained on it, that
model imported under a name for each scheduler. The service is `lookoutd serve` with its S3 in process and its state on the
disk of --directory; a boundary comes every 300 s / --speed. Input files are hard links into the store's directory:
what a feeder costs is measured elsewhere. CPU, memory and files are those of the service's process, S3 included.

An execution that is missing or FAILED ends the run with an error.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time

import boto3
from botocore.config import Config

COMPONENTS = [f"unit-{n:02}" for n in range(24)]
BUCKET = "plant"
ROLE = "arn:aws:iam::123456789012:role/lookoutd"
FIVE = datetime.timedelta(minutes=5)
UTC = datetime.UTC
# Windows whose input stays in the store; the search reaches back two.
KEPT = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--directory", required=True, type=pathlib.Path)
    parser.add_argument("--schedulers", type=int, default=1000)
    parser.add_argument("--boundaries", type=int, default=3)
    parser.add_argument("--speed", type=float, default=5)
    given = parser.parse_args()
    shutil.rmtree(given.directory, ignore_errors=True)
    fleet = Fleet(given)
    try:
        fleet.set_up()
        fleet.run()
    finally:
        fleet.stop()


class Fleet:
    def __init__(self, given):
        self.given = given
        self.directory = given.directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.bucket = self.directory / "s3" / BUCKET
        self.began = datetime.datetime.now(UTC).replace(second=0, microsecond=0)
        self.process = None

    # --- the service ---

    def serve(self, speed):
        self.stop()
        command = [self.given.server, "serve", "--data-dir", str(self.directory), "--listen", "127.0.0.1:0",
                   "--s3-listen", "127.0.0.1:0", *(["--speed", str(speed)] if speed != 1 else [])]
        self.origin, self.speed = time.time(), speed
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = self.process.stdout.readline().split()[-1]
        secrets = dict(line.split(" = ") for line in (self.directory / "credentials").read_text().splitlines() if " = " in line)
        self.api = boto3.client(
            "lookoutequipment", endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id=secrets["aws_access_key_id"], aws_secret_access_key=secrets["aws_secret_access_key"],
            config=Config(retries={"max_attempts": 0}, read_timeout=120))

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def now(self):
        return datetime.datetime.fromtimestamp(self.origin + (time.time() - self.origin) * self.speed, UTC)

    def state(self):
        database = sqlite3.connect(f"file:{self.directory / 'service/state.db'}?mode=ro", uri=True, timeout=30)
        return database

    def process_figures(self):
        ticks = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        kib = lambda key: next(int(line.split()[1]) for line in status if line.startswith(key)) / 1024
        return {
            "cpu_s": (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"),
            "rss_mb": kib("VmRSS:"), "peak_mb": kib("VmHWM:"),
            "files": len(os.listdir(f"/proc/{self.process.pid}/fd")),
        }

    # --- what is made once ---

    def set_up(self):
        # The schedules stand still meanwhile, unless they are to run in real time.
        self.serve(1 if self.given.speed == 1 else 1e-6)
        for component in COMPONENTS:
            folder = self.bucket / "train" / component
            folder.mkdir(parents=True)
            first = self.began - datetime.timedelta(days=2)
            (folder / "rows.csv").write_text(rows(component, first, 2 * 1440 - 10))
        columns = [{"Name": "Timestamp", "Type": "DATETIME"}, {"Name": "value", "Type": "DOUBLE"}]
        schema = {"Components": [{"ComponentName": component, "Columns": columns} for component in COMPONENTS]}
        self.api.create_dataset(DatasetName="plant", DatasetSchema={"InlineDataSchema": json.dumps(schema)})
        location = {"S3InputConfiguration": {"Bucket": BUCKET, "Prefix": "train/"}}
        self.api.start_data_ingestion_job(DatasetName="plant", IngestionInputConfiguration=location, RoleArn=ROLE)
        self.until("dataset", lambda: self.api.describe_dataset(DatasetName="plant")["Status"] == "ACTIVE")
        self.api.create_model(ModelName="m0", DatasetName="plant",
                              DataPreProcessingConfiguration={"TargetSamplingRate": "PT1M"})
        self.until("model", lambda: self.api.describe_model(ModelName="m0")["Status"] == "SUCCESS")
        source = self.api.describe_model(ModelName="m0")["ActiveModelVersionArn"]
        for n in range(1, self.given.schedulers):
            self.api.import_model_version(SourceModelVersionArn=source, ModelName=f"m{n}", DatasetName="plant")
        left = "SELECT count(*) FROM model_version WHERE status <> 'SUCCESS'"
        self.until("imports", lambda: self.count(left) == 0, 900)
        for n in range(self.given.schedulers):
            (self.bucket / f"in-{n}").mkdir()
            location = lambda part: {"Bucket": BUCKET, "Prefix": f"{part}-{n}/"}
            self.api.create_inference_scheduler(
                InferenceSchedulerName=f"s{n}", ModelName=f"m{n}", DataUploadFrequency="PT5M", RoleArn=ROLE,
                DataInputConfiguration={"S3InputConfiguration": location("in"), "InferenceInputNameConfiguration": {
                    "TimestampFormat": "yyyyMMddHHmmss", "ComponentTimestampDelimiter": "_"}},
                DataOutputConfiguration={"S3OutputConfiguration": location("out")}, ClientToken=f"create-{n}")
        running = "SELECT count(*) FROM scheduler WHERE status <> 'RUNNING'"
        self.until("schedulers", lambda: self.count(running) == 0, 300)

    def count(self, query, *values):
        database = self.state()
        try:
            return database.execute(query, values).fetchone()[0]
        finally:
            database.close()

    def until(self, what, done, seconds=300):
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                sys.exit(f"{what}: not done in {seconds} s")
            time.sleep(0.2)

    # --- the windows ---

    def feed(self, window):
        """The window's 24 files for every scheduler, and none of the windows that nobody looks for any more."""
        stamp = f"{window:%Y%m%d%H%M%S}"
        pool = self.directory / "pool" / stamp
        pool.mkdir(parents=True)
        for component in COMPONENTS:
            (pool / component).write_text(rows(component, window + datetime.timedelta(minutes=1), 5))
        old = f"{window - KEPT * FIVE:%Y%m%d%H%M%S}"
        for n in range(self.given.schedulers):
            folder = self.bucket / f"in-{n}"
            for component in COMPONENTS:
                os.link(pool / component, folder / f"{component}_{stamp}.csv")
                (folder / f"{component}_{old}.csv").unlink(missing_ok=True)
        shutil.rmtree(pool)

    def run(self):
        if self.given.speed != 1:
            self.serve(self.given.speed)
        now = self.now().replace(second=0, microsecond=0)
        # The window after the one that passes, so that there is time to feed it.
        window = now - datetime.timedelta(minutes=now.minute % 5) + FIVE
        self.feed(window)
        number = self.given.schedulers
        for turn in range(self.given.boundaries):
            boundary = window + FIVE
            self.feed(boundary)
            if self.now() > boundary + FIVE:
                sys.exit("feeding took longer than a window: choose a lower --speed")
            time.sleep(max(0, (boundary - self.now()).total_seconds()) / self.given.speed)
            before = self.process_figures()
            began = time.monotonic()
            micros = int(boundary.timestamp()) * 1_000_000
            ended = "SELECT count(*) FROM execution WHERE boundary_us = ? AND status <> 'IN_PROGRESS'"
            asked = []
            while self.count(ended, micros) < number:
                if self.now() > boundary + FIVE:
                    sys.exit(f"only {self.count(ended, micros)} of {number} executions ended before the next boundary")
                asked.append(self.describe())
                time.sleep(0.25)
            took = time.monotonic() - began
            after = self.process_figures()
            failed = self.count("SELECT count(*) FROM execution WHERE boundary_us = ? AND status = 'FAILED'", micros)
            if failed:
                reason = "SELECT min(failed_reason) FROM execution WHERE boundary_us = ? AND status = 'FAILED'"
                sys.exit(f"{failed} of {number} executions failed: {self.count(reason, micros)}")
            print(json.dumps({
                "boundary": turn, "executions": number, "took_s": took, "late_s": self.lateness(micros),
                "cpu_ms": (after["cpu_s"] - before["cpu_s"]) * 1000 / number, "asked_ms": [value * 1000 for value in asked],
                **after,
            }), flush=True)
            window = boundary

    def describe(self):
        """Seconds that a DescribeInferenceScheduler takes amid the executions."""
        began = time.perf_counter()
        self.api.describe_inference_scheduler(InferenceSchedulerName=f"s{random.randrange(self.given.schedulers)}")
        return time.perf_counter() - began

    def lateness(self, micros):
        """Median, 99th percentile and maximum of the real seconds from the due time to the recorded end."""
        database = self.state()
        query = "SELECT finished_us - scheduled_us FROM execution WHERE boundary_us = ?"
        late = sorted(row[0] / 1e6 / self.given.speed for row in database.execute(query, [micros]))
        database.close()
        return [statistics.median(late), late[math.ceil(len(late) * 0.99) - 1], late[-1]]


def rows(component, first, count):
    """Rows a minute apart: a load that all components share, and a little noise of each one's own."""
    lines = ["Timestamp,value"]
    for minute in range(count):
        time_of = first + datetime.timedelta(minutes=minute)
        at = int(time_of.timestamp()) // 60
        noise = ((at * 2654435761 ^ hash_of(component)) * 2246822519 >> 8) % 65536 / 65536
        lines.append(f"{time_of:%Y-%m-%dT%H:%M:%S},{10 + 2 * math.sin(at / 240) + 0.2 * noise:.6f}")
    return "\n".join(lines) + "\n"


def hash_of(text):
    return sum(ord(character) * 31**at for at, character in enumerate(text))


if __name__ == "__main__":
    main()
