"""The notebook's windows with DuckDB: the windows' rows into a temporary table, one COPY per file."""

import os

import duckdb

from measure import Measure
from windows import arguments, components, file_name, windows, written

given = arguments()
measure = Measure("duckdb")
database = duckdb.connect()
last = database.execute("SELECT max(Timestamp) FROM read_parquet(?)", [given.parquet]).fetchone()[0]
spans = list(windows(last, given.at, given.sequences))
database.execute(
    "CREATE TEMP TABLE rows AS SELECT * FROM read_parquet(?) WHERE Timestamp BETWEEN ? AND ? ORDER BY Timestamp",
    [given.parquet, spans[0][0], spans[-1][1]],
)
for first, end, at in spans:
    stamp = f"strftime(Timestamp + (TIMESTAMP '{at}' - TIMESTAMP '{first}'), '%Y-%m-%dT%H:%M:%S.%f') AS Timestamp"
    for component, tags in components(given.tags).items():
        columns = ", ".join([stamp, *(f'"{tag}"' for tag in tags)])
        target = os.path.join(given.out, file_name(component, at))
        database.execute(
            f"COPY (SELECT {columns} FROM rows WHERE rows.Timestamp BETWEEN TIMESTAMP '{first}' AND TIMESTAMP '{end}'"
            f" ORDER BY rows.Timestamp) TO '{target}' (HEADER, DELIMITER ',')"
        )
measure.report(*written(given.out))
