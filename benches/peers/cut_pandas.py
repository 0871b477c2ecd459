"""The notebook's cell with pandas: whole table into memory, one to_csv per component and window.

Kept in the notebook's words; only the wall time is given instead of read from the clock.
"""

import datetime
import os

import pandas as pd
import pyarrow.parquet as pq

from measure import Measure
from windows import FREQUENCY, arguments, written

given = arguments()
measure = Measure("pandas")
all_tags_df = pq.read_table(given.parquet).to_pandas()
tags_description_df = pd.read_csv(given.tags)
components = tags_description_df["Subsystem"].unique()
start = all_tags_df.index.max() + datetime.timedelta(minutes=-FREQUENCY * given.sequences + 1)
for i in range(given.sequences):
    end = start + datetime.timedelta(minutes=+FREQUENCY - 1)
    tm = given.at + datetime.timedelta(minutes=+FREQUENCY * i)
    current_timestamp = tm.strftime(format="%Y%m%d%H%M%S")
    new_index = None
    for component in components:
        signals = list(tags_description_df.loc[(tags_description_df["Subsystem"] == component), "Tag"])
        signals_df = all_tags_df.loc[start:end, signals]
        if new_index is None:
            new_index = pd.date_range(start=tm, periods=signals_df.shape[0], freq="1min")
        signals_df.index = new_index
        signals_df.index.name = "Timestamp"
        signals_df = signals_df.reset_index()
        signals_df["Timestamp"] = signals_df["Timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S.%f")
        signals_df.to_csv(os.path.join(given.out, f"{component}_{current_timestamp}.csv"), index=None)
    start = start + datetime.timedelta(minutes=+FREQUENCY)
measure.report(*written(given.out))
