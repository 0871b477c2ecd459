"""One window as the history grows."""

from harness import record, replay, sample, scratch, table

ORDER = 50
NOT_MEASURED = ["Growth with signals, schedulers and backlog."]


def run(rounds):
    runs = {}
    with scratch() as directory:
        for turn in range(rounds):
            for days in [30, 334, 3650]:
                plant = sample(days)
                command = replay(plant / "signals.parquet", plant / "tags_description.csv", 1, directory / f"{days}-{turn}")
                record(runs, f"lookoutd, {days} days", command, 24)
    return [table("One window as the history grows", runs, "lookoutd, 30 days")]
