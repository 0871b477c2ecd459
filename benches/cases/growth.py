"""One window as the history and its signals grow."""

from harness import record, replay, sample, scratch, table

ORDER = 50
DAYS = [30, 334, 3650]
SIGNALS = [30, 122, 480]


def run(rounds):
    history, signals = {}, {}
    with scratch() as directory:
        for turn in range(rounds):
            for days in DAYS:
                cut(history, f"{days} days", sample(days), 24, directory / f"{days}-{turn}")
            for count in SIGNALS:
                cut(signals, f"{count} signals", sample(30, count), count, directory / f"{count}-of-30-{turn}")
    return [table("One window as the history grows", history, f"{DAYS[0]} days"),
            table("One window as the signals grow, 30 days", signals, f"{SIGNALS[0]} signals", "signal")]


def cut(runs, name, plant, items, out):
    record(runs, name, replay(plant / "signals.parquet", plant / "tags_description.csv", 1, out), items)
