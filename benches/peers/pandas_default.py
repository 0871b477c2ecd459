"""Rewrites a Parquet history the way the notebook's author had it: pandas defaults, Timestamp as index, one row group."""

import sys

import pandas as pd
import pyarrow.parquet as pq

source, target = sys.argv[1:]
frame = pd.read_parquet(source)
if "Timestamp" in frame.columns:
    frame = frame.set_index("Timestamp")
frame.to_parquet(target)
found = pq.ParquetFile(target).metadata
print(f"{target}: {found.num_rows} rows in {found.num_row_groups} row group(s)", file=sys.stderr)
