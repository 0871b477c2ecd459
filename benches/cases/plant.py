"""Many assets from one gateway: windows of 24 files each at PT5M, to SeaweedFS."""

import datetime
import json
import os
import pathlib
import sys
import time

from harness import cpu_of, daemon, memory, sample, scratch
from seaweedfs import SeaweedFs

ORDER = 56
ASSETS = [int(count) for count in os.environ.get("LOOKOUTD_BENCH_ASSETS", "12,1000").split(",")]
OPT_IN = "waits for two boundaries of five minutes for each of four plants: three quarters of an hour"
# Whole windows that are looked at, after the one that is live at the start.
BOUNDARIES = 2
CADENCE_S = 300


def run(_rounds):
    rows = []
    for assets in ASSETS:
        for own in [False, True]:
            with scratch() as directory, SeaweedFs(directory / "weed") as store:
                rows.append(boundaries(assets, own, store, directory))
            print(" ".join(rows[-1]), flush=True)
    return [{
        "title": "A plant from one gateway: every asset's window of 24 files of five rows, every five minutes",
        "note": "Acknowledged: from the boundary until the last file of the last asset is in the store, of the worst boundary. CPU: of the "
                "gateway, as a share of one core, from boundary to boundary. In common: all assets read the same columns of one file; "
                "otherwise each has a file of its own.",
        "head": ["assets", "history", "files a boundary", "acknowledged after s", "half of the assets after s", "CPU of one core",
                 "RSS MB", "peak RSS MB"],
        "rows": rows,
    }]


def boundaries(assets, own, store, directory):
    configuration = configure(assets, own, store, directory)
    with daemon(["run", "--config", str(configuration)], {}, directory / "log") as process:
        log = Log(directory / "log")
        # What is live at the start is no boundary: all histories are opened first.
        log.wait(assets, process, 900)
        last, half, shares = 0.0, 0.0, []
        for _ in range(BOUNDARIES):
            boundary = (int(time.time()) // CADENCE_S + 1) * CADENCE_S
            time.sleep(boundary - 1 - time.time())
            before = cpu_of(process.pid)
            log.begin()
            log.wait(assets, process, CADENCE_S - 10)
            late = sorted(at - boundary for at in log.shipped)
            last, half = max(last, late[-1]), max(half, late[len(late) // 2])
            time.sleep(max(0, boundary + CADENCE_S - 2 - time.time()))
            shares.append((cpu_of(process.pid) - before) / CADENCE_S)
        _, _, rss, peak, _ = memory(process.pid)
    return [f"{assets:,}", "each its own" if own else "in common", f"{assets * 24:,}", f"{last:.1f}", f"{half:.1f}",
            f"{sum(shares) / len(shares):.1%}", f"{rss:.0f}", f"{peak:.0f}"]


class Log:
    """What the log says of windows that are shipped."""

    def __init__(self, path):
        self.lines, self.shipped = open(path), []

    def begin(self):
        self.read()
        self.shipped = []

    def read(self):
        while True:
            place = self.lines.tell()
            line = self.lines.readline()
            if not line.endswith("\n"):
                self.lines.seek(place)
                return
            entry = json.loads(line)
            if entry.get("message") == "window shipped":
                self.shipped.append(datetime.datetime.fromisoformat(entry["timestamp"]).timestamp())

    def wait(self, count, process, seconds):
        began = time.monotonic()
        while len(self.shipped) < count:
            if time.monotonic() - began > seconds:
                sys.exit(f"{len(self.shipped)} of {count} windows were shipped within {seconds} s")
            os.kill(process.pid, 0)
            time.sleep(0.2)
            self.read()


def configure(assets, own, store, directory):
    """A tag list whose assets all have the tags of the sample plant, and a gateway of it."""
    plant = sample(2)
    names = [f"machine-{number:04}" for number in range(1, assets + 1)]
    tags = (plant / "tags_description.csv").read_text().splitlines()[1:]
    lines = "".join(f"{name},{line}\n" for name in names for line in tags)
    (directory / "tags.csv").write_text("Asset,Tag,UOM,Subsystem\n" + lines)
    history = plant / "signals.parquet"
    if own:
        for name in names:
            (directory / "histories" / name).mkdir(parents=True)
            os.link(history, directory / "histories" / name / "signals.parquet") if same_disk(history, directory) else (
                os.symlink(history, directory / "histories" / name / "signals.parquet"))
        history = directory / "histories/{asset}/signals.parquet"
    path = directory / "lookoutd.toml"
    text = lambda value: json.dumps(str(value))
    path.write_text(f"""data_dir = {text(directory / "data")}
[source]
history = {text(history)}
tags = {text(directory / "tags.csv")}
[feed]
cadence = "PT5M"
[s3]
bucket = {text(store.bucket)}
input_prefix = "input/{{asset}}/"
endpoint_url = {text(store.endpoint)}
region = "us-east-1"
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
""")
    return path


def same_disk(one, other):
    return pathlib.Path(one).stat().st_dev == pathlib.Path(other).stat().st_dev
