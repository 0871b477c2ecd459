"""One recorded day, 288 windows, 6,912 files, into memory."""

from harness import cutting, history_default

ORDER = 20


def run(rounds):
    title = "One day of backfill to tmpfs: 288 windows, one file per component"
    return [cutting(title, history_default(), 288, min(rounds, 3), ["pandas", "polars"])]
