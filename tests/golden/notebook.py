"""Input files as the sample notebook writes them: its "prepare inference data" cell, with its constants as arguments.

The cell's slicing, re-indexing, formatting and to_csv are kept as they are; only the wall clock (and the cell's fixed
nine-hour correction) is replaced by --at, and the first recorded minute can be given by --start.
"""

import argparse
import datetime
import os

import pandas as pd
import pyarrow.parquet as pq

parser = argparse.ArgumentParser()
parser.add_argument('--parquet', required=True)
parser.add_argument('--tags', required=True)
parser.add_argument('--start', type=datetime.datetime.fromisoformat, help='recorded; default: the end of the history')
parser.add_argument('--at', type=datetime.datetime.fromisoformat, required=True, help='wall clock, naive UTC')
parser.add_argument('--windows', type=int, default=3)
parser.add_argument('--frequency', type=int, default=5, help='minutes')
parser.add_argument('--out', required=True)
arguments = parser.parse_args()

num_sequences = arguments.windows
frequency = arguments.frequency
os.makedirs(arguments.out, exist_ok=True)

table = pq.read_table(arguments.parquet)
all_tags_df = table.to_pandas()
del table
tags_description_df = pd.read_csv(arguments.tags)
components = tags_description_df['Subsystem'].unique()

start = all_tags_df.index.max() + datetime.timedelta(minutes=-frequency * (num_sequences) + 1)
if arguments.start is not None:
    start = pd.Timestamp(arguments.start)
for i in range(num_sequences):
    end = start + datetime.timedelta(minutes=+frequency - 1)

    tm = arguments.at
    tm = tm - datetime.timedelta(
        minutes=tm.minute % frequency,
        seconds=tm.second,
        microseconds=tm.microsecond
    )
    tm = tm + datetime.timedelta(minutes=+frequency * (i))
    current_timestamp = (tm).strftime(format='%Y%m%d%H%M%S')

    new_index = None
    for component in components:
        signals = list(tags_description_df.loc[(tags_description_df['Subsystem'] == component), 'Tag'])
        signals_df = all_tags_df.loc[start:end, signals]

        if new_index is None:
            new_index = pd.date_range(
                start=tm,
                periods=signals_df.shape[0],
                freq='1min'
            )
        signals_df.index = new_index
        signals_df.index.name = 'Timestamp'
        signals_df = signals_df.reset_index()
        signals_df['Timestamp'] = signals_df['Timestamp'].dt.strftime('%Y-%m-%dT%H:%M:%S.%f')

        component_fname = os.path.join(arguments.out, f'{component}_{current_timestamp}.csv')
        signals_df.to_csv(component_fname, index=None)

    start = start + datetime.timedelta(minutes=+frequency)
