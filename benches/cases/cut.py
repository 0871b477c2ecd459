"""The notebook's three windows, 72 files: beside pandas, polars and duckdb on the same history."""

from harness import cutting, history_default, sample

ORDER = 10


def run(rounds):
    return [cutting(title, history, 3, rounds, ["pandas", "polars", "duckdb"]) for history, title in [
        (history_default(), "Three windows from a file as pandas writes it (one row group)"),
        (sample() / "signals.parquet", "Three windows from the sample plant's own file"),
    ]]
