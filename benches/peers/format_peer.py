"""Formats windows of a frame that is in memory into memory: one CSV per component and window, with pandas or polars.

Reading the history is not timed. Prints how long the formatting alone took.
"""

import argparse
import datetime
import io
import json
import time

from windows import FREQUENCY, components

parser = argparse.ArgumentParser()
parser.add_argument("peer", choices=["pandas", "polars"])
parser.add_argument("--parquet", required=True)
parser.add_argument("--tags", required=True)
parser.add_argument("--windows", type=int, default=288)
given = parser.parse_args()
parts = components(given.tags)
size = files = 0


def report(began):
    cpu_s = time.process_time() - began
    print(json.dumps({"name": given.peer, "cpu_s": cpu_s, "items": files, "bytes": size}))


if given.peer == "pandas":
    import pandas as pd

    table = pd.read_parquet(given.parquet)
    end = table.index.max() + datetime.timedelta(minutes=1)
    frames = []
    for n in range(given.windows):
        start = end - datetime.timedelta(minutes=FREQUENCY * (given.windows - n))
        rows = table.loc[start:start + datetime.timedelta(minutes=FREQUENCY - 1)]
        frames += [rows[tags].reset_index() for tags in parts.values()]
    del table
    began = time.process_time()
    for frame in frames:
        frame["Timestamp"] = frame["Timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S.%f")
        out = io.StringIO()
        frame.to_csv(out, index=None)
        size += out.tell()
        files += 1
    report(began)
else:
    import polars as pl

    end = pl.scan_parquet(given.parquet).select(pl.col("Timestamp").max()).collect().item() + datetime.timedelta(minutes=1)
    first = end - datetime.timedelta(minutes=FREQUENCY * given.windows)
    table = pl.scan_parquet(given.parquet).filter(pl.col("Timestamp") >= first).collect()
    frames = []
    for n in range(given.windows):
        start = first + datetime.timedelta(minutes=FREQUENCY * n)
        rows = table.filter(pl.col("Timestamp").is_between(start, start + datetime.timedelta(minutes=FREQUENCY - 1)))
        frames += [rows.select(["Timestamp", *tags]) for tags in parts.values()]
    began = time.process_time()
    for frame in frames:
        out = io.BytesIO()
        frame.write_csv(out, datetime_format="%Y-%m-%dT%H:%M:%S.%6f")
        size += out.tell()
        files += 1
    report(began)
