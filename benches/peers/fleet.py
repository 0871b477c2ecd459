"""Runs many schedulers in one service and prints a JSON line for each boundary; run by the cases `schedulers` and `soak`.

Everything is made through the API with boto3: a dataset of --components components with a sensor each, one model trained on
it, that model imported under a name for each scheduler. The service is `lookoutd serve` with its S3 in process and its state on
the disk of --directory; a boundary comes every --minutes / --speed. All schedulers read the same input files, so that few are
uploaded: what a feeder costs is measured elsewhere. Of every hundred --late ones read files of their own, wait for them, and get
them when all others have ended or half of their wait is over. CPU, memory and files are those of the service's process, S3 included.

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

BUCKET = "lookoutd"
ROLE = "arn:aws:iam::123456789012:role/lookoutd"
UTC = datetime.UTC
# Seconds of the schedules that those wait whose files come late.
WAIT = 300
# Windows whose input stays in the store; the search reaches back two.
KEPT = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--directory", required=True, type=pathlib.Path)
    parser.add_argument("--schedulers", type=int, default=1000)
    parser.add_argument("--boundaries", type=int, default=3)
    parser.add_argument("--speed", type=float, default=5)
    parser.add_argument("--minutes", type=int, default=5, choices=[5, 10, 15, 30, 60])
    parser.add_argument("--components", type=int, default=24)
    parser.add_argument("--late", type=int, default=0, choices=range(100), metavar="PERCENT")
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
        self.components = [f"unit-{n:02}" for n in range(given.components)]
        self.width = datetime.timedelta(minutes=given.minutes)
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
        store = self.process.stdout.readline().split()[1]
        client = lambda service, url: boto3.client(
            service, endpoint_url=url, region_name="us-east-1",
            aws_access_key_id=secrets["aws_access_key_id"], aws_secret_access_key=secrets["aws_secret_access_key"],
            config=Config(retries={"max_attempts": 0}, read_timeout=120))
        self.api, self.s3 = client("lookoutequipment", self.url), client("s3", store)

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
        for component in self.components:
            first = self.began - datetime.timedelta(days=2)
            self.put(f"train/{component}/rows.csv", rows(component, first, 2 * 1440 - 10))
        columns = [{"Name": "Timestamp", "Type": "DATETIME"}, {"Name": "value", "Type": "DOUBLE"}]
        schema = {"Components": [{"ComponentName": component, "Columns": columns} for component in self.components]}
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
        location = lambda prefix: {"Bucket": BUCKET, "Prefix": prefix}
        for n in range(self.given.schedulers):
            late = self.is_late(n)
            wait = [{"Key": "lookoutd:wait", "Value": str(WAIT)}]
            self.api.create_inference_scheduler(
                InferenceSchedulerName=f"s{n}", ModelName=f"m{n}", RoleArn=ROLE, ClientToken=f"create-{n}",
                DataUploadFrequency="PT1H" if self.given.minutes == 60 else f"PT{self.given.minutes}M",
                DataInputConfiguration={"S3InputConfiguration": location("late/" if late else "in/"),
                                        "InferenceInputNameConfiguration": {
                    "TimestampFormat": "yyyyMMddHHmmss", "ComponentTimestampDelimiter": "_"}},
                DataOutputConfiguration={"S3OutputConfiguration": location(f"out-{n}/")}, Tags=wait if late else [])
        running = "SELECT count(*) FROM scheduler WHERE status <> 'RUNNING'"
        self.until("schedulers", lambda: self.count(running) == 0, 300)

    def is_late(self, n):
        return n % 100 >= 100 - self.given.late

    def put(self, key, text):
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode())

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

    def feed(self, window, prefix="in/"):
        """The window's files, and none of the windows that nobody looks for any more."""
        stamp, old = f"{window:%Y%m%d%H%M%S}", f"{window - KEPT * self.width:%Y%m%d%H%M%S}"
        for component in self.components:
            text = rows(component, window + datetime.timedelta(minutes=1), self.given.minutes)
            self.put(f"{prefix}{component}_{stamp}.csv", text)
            self.s3.delete_object(Bucket=BUCKET, Key=f"{prefix}{component}_{old}.csv")

    def run(self):
        if self.given.speed != 1:
            self.serve(self.given.speed)
        now = self.now().replace(second=0, microsecond=0)
        # The window after the one that passes, so that there is time to feed it.
        window = now - datetime.timedelta(minutes=now.minute % self.given.minutes) + self.width
        self.feed(window)
        late = sum(map(self.is_late, range(self.given.schedulers)))
        for turn in range(self.given.boundaries):
            boundary = window + self.width
            self.feed(boundary)
            if self.now() > boundary + self.width:
                sys.exit("feeding took longer than a window: choose a lower --speed")
            time.sleep(max(0, (boundary - self.now()).total_seconds()) / self.given.speed)
            before = self.process_figures()
            began = time.monotonic()
            asked = []
            if late:
                asked = self.ended(boundary, self.given.schedulers - late, WAIT / 2 / self.given.speed)
                self.feed(window, "late/")
            asked += self.ended(boundary, self.given.schedulers)
            took = time.monotonic() - began
            lateness = self.lateness(boundary)
            after = self.process_figures()
            micros = int(boundary.timestamp()) * 1_000_000
            failed = self.count("SELECT count(*) FROM execution WHERE boundary_us = ? AND status = 'FAILED'", micros)
            if failed:
                reason = "SELECT min(failed_reason) FROM execution WHERE boundary_us = ? AND status = 'FAILED'"
                sys.exit(f"{failed} executions failed: {self.count(reason, micros)}")
            number = self.given.schedulers
            print(json.dumps({
                "boundary": turn, "executions": number, "took_s": took, "late_s": lateness,
                "cpu_ms": (after["cpu_s"] - before["cpu_s"]) * 1000 / number, "asked_ms": [value * 1000 for value in asked],
                **after,
            }), flush=True)
            window = boundary

    def ended(self, boundary, number, seconds=math.inf):
        """Waits until so many executions have ended, or so long; seconds that the API took meanwhile."""
        deadline = time.monotonic() + seconds
        micros, asked = int(boundary.timestamp()) * 1_000_000, []
        query = "SELECT count(*) FROM execution WHERE boundary_us = ? AND status <> 'IN_PROGRESS'"
        while self.count(query, micros) < number and time.monotonic() < deadline:
            if self.now() > boundary + self.width:
                sys.exit(f"only {self.count(query, micros)} of {number} executions ended before the next boundary")
            asked.append(self.describe())
            time.sleep(0.25)
        return asked

    def describe(self):
        """Seconds that a DescribeInferenceScheduler takes amid the executions."""
        began = time.perf_counter()
        self.api.describe_inference_scheduler(InferenceSchedulerName=f"s{random.randrange(self.given.schedulers)}")
        return time.perf_counter() - began

    def lateness(self, boundary):
        """Median, 99th percentile and maximum of the real seconds from the due time to the recorded end, of those whose files
        came in time."""
        database = self.state()
        query = ("SELECT finished_us - scheduled_us FROM execution JOIN scheduler ON uuid = scheduler_uuid "
                 "WHERE boundary_us = ? AND instr(scheduler.input, 'late/') = 0")
        micros = int(boundary.timestamp()) * 1_000_000
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
