"""Start and stop of `run` as a gateway, the bucket in SeaweedFS."""

import json
import signal
import statistics
import subprocess
import sys
import time

from harness import ENVIRONMENT, LOOKOUTD, sample, scratch
from seaweedfs import SeaweedFs

ORDER = 62


def run(rounds):
    runs = {"first start": [], "start again": []}
    with scratch() as directory, SeaweedFs(directory / "weed") as store:
        for turn in range(rounds):
            # The second start finds the ledger, and its window in the store.
            for name, told in runs.items():
                told.append(once(store, directory / f"data-{turn}", f"start-{turn}/"))
    keys = ["feeding", "window cut", "window shipped", "stop"]
    rows = []
    for name, told in runs.items():
        middle = [statistics.median(turn[key] for turn in told if key in turn) if any(key in turn for turn in told) else None
                  for key in keys]
        rows.append([name, *("" if value is None else f"{value * 1000:,.0f}" for value in middle)])
    return [{
        "title": f"Start and stop of a gateway, ms; medians of {rounds}",
        "note": "From the start of the process to the line of its log that says so; stop: from SIGTERM to the end of the process.",
        "head": ["", "feeding", "first window cut", "its 24 files in the store", "stop"],
        "rows": rows,
    }]


def once(store, data_dir, prefix):
    environment = {**ENVIRONMENT, **store.gateway(prefix, data_dir, sample())}
    last = "feeding" if data_dir.exists() else "window shipped"
    told = {}
    began = time.monotonic()
    with subprocess.Popen([LOOKOUTD, "run"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as process:
        for line in process.stderr:
            told.setdefault(json.loads(line)["message"], time.monotonic() - began)
            if last in told:
                break
        else:
            sys.exit(f"lookoutd run ended before it said {last!r}")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        process.wait(10)
        told["stop"] = time.monotonic() - began
    return told
