"""A backlog that is cut and shipped after downtime, to SeaweedFS."""

import json
import os
import pathlib
import sys
import time

from harness import daemon, memory, sample, scratch
from seaweedfs import SeaweedFs

ORDER = 58
OPT_IN = "takes a quarter of an hour, and needs libfaketime (Debian package faketime) for a start in the past"
LIBRARY = pathlib.Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
# The last is a month.
WINDOWS = [12, 288, 2016, 8640]


def run(_rounds):
    if not LIBRARY.is_file():
        sys.exit(f"{LIBRARY} is missing: apt-get install faketime")
    rows = []
    for windows in WINDOWS:
        with scratch() as directory, SeaweedFs(directory / "weed") as store:
            rows.append(drain(windows, store, directory))
            print(" ".join(rows[-1]), flush=True)
    return [{
        "title": "A gateway that was down: its backlog of windows with 24 files each, cut and shipped to SeaweedFS",
        "note": "Time from the start of the process until the last of them is in the store. The live window goes first.",
        "head": ["windows", "s", "windows/s", "CPU ms per window", "live window in the store after s", "PSS MB", "peak RSS MB"],
        "rows": rows,
    }]


def drain(windows, store, directory):
    environment = {
        **store.gateway("backlog/", directory / "data", sample()),
        "LOOKOUTD__FEED__CATCH_UP": "backfill",
        "LOOKOUTD__FEED__MAX_AGE": "40days",
        # As fast as it goes: the pace that spares the store is for gateways, not for this question.
        "LOOKOUTD__FEED__DRAIN_PER_MINUTE": "1000000",
    }
    # The first start, so long ago, with a store that does not answer: it fixes which windows there are.
    past = {**environment, "LOOKOUTD__S3__ENDPOINT_URL": "http://127.0.0.1:9", "LD_PRELOAD": str(LIBRARY),
            "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME": f"-{windows * 5}m"}
    with daemon(["run"], past, directory / "past") as process:
        wait(directory / "past", "window cut", 1, process)
    with daemon(["run"], environment, directory / "log") as process:
        began = time.monotonic()
        wait(directory / "log", "window shipped", 1, process)
        live = time.monotonic() - began
        # The first window of the past was cut already; with it and the live one there are two more than those missed.
        wait(directory / "log", "window shipped", windows, process)
        took = time.monotonic() - began
        pss, _, _, peak, cpu = memory(process.pid)
    written = [name for name in store.list("backlog/") if not name.startswith("_lookoutd/")]
    if len(written) < windows * 24:
        sys.exit(f"expected {windows * 24} files in the store, found {len(written)}")
    return [f"{windows:,}", f"{took:.1f}", f"{windows / took:.1f}", f"{cpu / windows * 1000:.1f}", f"{live:.2f}", f"{pss:.1f}",
            f"{peak:.1f}"]


def wait(log, message, count, process):
    """Until that many lines of the log say so."""
    began = time.monotonic()
    while True:
        with open(log) as lines:
            seen = sum(json.loads(line).get("message") == message for line in lines if line.endswith("\n"))
        if seen >= count:
            return
        if time.monotonic() - began > 1200:
            sys.exit(f"{log}: {seen} lines say {message!r}, expected {count}, after 20 minutes")
        os.kill(process.pid, 0)
        time.sleep(0.05)
