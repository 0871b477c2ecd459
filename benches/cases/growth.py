"""One window as the history and its signals grow: the first of a process, and every further one."""

import statistics

from harness import record, replay, sample, scratch, table

ORDER = 50
DAYS = [30, 334, 3650]
SIGNALS = [12, 30, 122]
# As many windows as are cut beside the first one, to see what a further one costs.
FURTHER = 288


def run(rounds):
    history, signals, longer = {}, {}, {}
    with scratch() as directory:
        for turn in range(rounds):
            for days in DAYS:
                plant = sample(days)
                cut(history, f"{days} days", plant, 24, directory / f"{days}-{turn}")
                cut(longer, f"{days} days", plant, 24 * (FURTHER + 1), directory / f"{days}-{turn}-long", FURTHER + 1)
            for count in SIGNALS:
                cut(signals, f"{count} signals", sample(30, count), count, directory / f"{count}-of-30-{turn}")
    return [
        table("The first window of a process as the history grows", history, f"{DAYS[0]} days"),
        further(history, longer),
        table("The first window of a process as the signals grow, 30 days", signals, f"{SIGNALS[0]} signals", "signal"),
    ]


def cut(runs, name, plant, items, out, windows=1):
    record(runs, name, replay(plant / "signals.parquet", plant / "tags_description.csv", windows, out), items)


def further(first, longer):
    """What is left when the first window, with the start of the process and the opening of the history, is taken off."""
    middle = lambda turns, key: statistics.median(turn[key] for turn in turns)
    rows = []
    for name, turns in longer.items():
        cpu = (middle(turns, "cpu_s") - middle(first[name], "cpu_s")) / FURTHER
        rows.append([name, f"{cpu * 1e6:,.0f}", f"{middle(turns, 'peak_mb'):.1f}"])
    return {"title": f"Every further window of 24 files as the history grows; of {FURTHER}, medians of {len(turns)}",
            "head": ["", "CPU us per window", "peak MB"], "rows": rows}
