"""One window of five rows through the detector: read, scored, written; S3 left out."""

import subprocess

from harness import ENVIRONMENT, LOOKOUTD, PYTHON, record, sample, scratch, table

ORDER = 55
# A process of its own per window: its start and the loading of the model count, which the service does once.
NAMES = {5: "a window of 5 rows", 60: "a window of 60 rows", 20_000: "20,000 rows"}


def run(rounds):
    plant = sample(60)
    runs = {}
    with scratch() as directory:
        model = directory / "plant.model"
        train = [LOOKOUTD, "model", "train", "--parquet", str(plant / "signals.parquet"), "--tags",
                 str(plant / "tags_description.csv"), "--sampling", "PT1M", "--out", str(model)]
        subprocess.run(train, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        histories = {rows: window(plant, directory, rows) for rows in NAMES}
        for _ in range(max(rounds, 11)):
            for rows, name in NAMES.items():
                command = [LOOKOUTD, "model", "score", str(model), "--parquet", str(histories[rows]), "--out",
                           str(directory / "scores.csv")]
                record(runs, name, command, rows)
    return [table("Read a CSV of 122 signals, score it, write the result", runs, NAMES[5], "row")]


def window(plant, directory, rows):
    """The last rows of the plant as one CSV."""
    script = ("import sys, polars; frame = polars.scan_parquet(sys.argv[1]).tail(int(sys.argv[2])).collect();"
              "components = dict(polars.read_csv(sys.argv[3]).select('Tag', 'Subsystem').iter_rows());"
              "frame.rename(lambda name: f'{components[name]}__{name}' if name in components else name)"
              ".with_columns(polars.col('Timestamp').dt.strftime('%Y-%m-%dT%H:%M:%S')).write_csv(sys.argv[4])")
    path = directory / f"window-{rows}.csv"
    subprocess.run([PYTHON, "-c", script, str(plant / "signals.parquet"), str(rows), str(plant / "tags_description.csv"),
                    str(path)], check=True)
    return path
