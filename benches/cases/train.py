"""Training on a history of 122 signals, one row a minute, and scoring it."""

from harness import LOOKOUTD, record, sample, scratch, table

ORDER = 54
NOT_MEASURED = ["Training beside other detectors: none of them makes the same model."]
DAYS = {30: 43_200, 120: 172_800, 334: 480_960}


def run(rounds):
    training, scoring = {}, {}
    with scratch() as directory:
        for _ in range(min(rounds, 3)):
            for days, rows in DAYS.items():
                plant, model = sample(days), directory / f"{days}.model"
                history = ["--parquet", str(plant / "signals.parquet"), "--tags", str(plant / "tags_description.csv")]
                record(training, f"train on {days} days",
                       [LOOKOUTD, "model", "train", *history, "--sampling", "PT1M", "--out", str(model)], rows)
                record(scoring, f"score {days} days",
                       [LOOKOUTD, "model", "score", str(model), *history, "--out", str(directory / "scores.csv")], rows)
    return [table("Training, 122 signals, a row a minute", training, "train on 334 days", "row"),
            table("Scoring, 122 signals, with every contribution written as CSV", scoring, "score 334 days", "row")]
