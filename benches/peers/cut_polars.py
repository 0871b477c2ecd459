"""The notebook's windows with polars: one lazy scan that reads the windows' rows only, one write_csv per file."""

import os

import polars as pl

from measure import Measure
from windows import arguments, components, file_name, windows, written

given = arguments()
measure = Measure("polars")
table = pl.scan_parquet(given.parquet)
last = table.select(pl.col("Timestamp").max()).collect().item()
spans = list(windows(last, given.at, given.sequences))
rows = table.filter(pl.col("Timestamp").is_between(spans[0][0], spans[-1][1])).collect()
for first, end, at in spans:
    window = rows.filter(pl.col("Timestamp").is_between(first, end))
    window = window.with_columns((pl.col("Timestamp") - first + at).dt.strftime("%Y-%m-%dT%H:%M:%S.%6f"))
    for component, tags in components(given.tags).items():
        window.select(["Timestamp", *tags]).write_csv(os.path.join(given.out, file_name(component, at)))
measure.report(*written(given.out))
