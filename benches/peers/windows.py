"""What every cutting contender has in common: arguments, components, and the notebook's windows.

The last `--sequences` windows of the history are rebased to wall time `--at`, one file per component, as the notebook's
inference-scheduling cell does.
"""

import argparse
import csv
import datetime
import os

FREQUENCY = 5


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--parquet", required=True)
    parser.add_argument("--tags", required=True)
    parser.add_argument("--at", required=True, help="wall time of the first window, such as 2026-01-01T00:00:00")
    parser.add_argument("--sequences", type=int, default=3)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    given.at = datetime.datetime.fromisoformat(given.at)
    os.makedirs(given.out, exist_ok=True)
    return given


def components(tags):
    """Component name to its tags, both in file order."""
    found = {}
    with open(tags, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["Subsystem"], []).append(row["Tag"])
    return found


def windows(last, at, sequences):
    """(first recorded row, last recorded row, wall time of the first row) of each window; `last` is the history's end."""
    start = last + datetime.timedelta(minutes=-FREQUENCY * sequences + 1)
    for i in range(sequences):
        step = datetime.timedelta(minutes=FREQUENCY * i)
        yield start + step, start + step + datetime.timedelta(minutes=FREQUENCY - 1), at + step


def file_name(component, at):
    return f"{component}_{at:%Y%m%d%H%M%S}.csv"


def written(out):
    """(files, bytes) in the directory."""
    sizes = [entry.stat().st_size for entry in os.scandir(out)]
    return len(sizes), sum(sizes)
