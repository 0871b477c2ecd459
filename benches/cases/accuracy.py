"""The detector's judgement on labelled data: `lookoutd model train` and `model evaluate`, unit by unit."""

import datetime
import gzip
import json
import os
import pathlib
import subprocess
import sys

from harness import ENVIRONMENT, LOOKOUTD, ROOT, scratch

ORDER = 70
OPT_IN = "needs the evaluation data in $LOOKOUTD_SHARED/data/ad"
NOT_MEASURED = ["BATADAL and SKAB, whose data are not at hand here; SMD on 2 of the 3 machines of its bar."]
DATA = pathlib.Path(os.environ.get("LOOKOUTD_SHARED", ROOT / "../shared")) / "data/ad"


def run(_rounds):
    if not DATA.is_dir():
        sys.exit(f"no evaluation data at {DATA}; set LOOKOUTD_SHARED")
    with scratch() as directory:
        groups = {
            "TEP": list(tennessee(directory)),
            "ASD": [folder(directory, unit) for unit in sorted((DATA / "asd").iterdir())],
            "SMD": [folder(directory, unit) for unit in sorted((DATA / "smd").iterdir())],
            "synthetic plant": [folder(directory, DATA / "synthetic-plant", "--off", "control\\motor-rpm<100")],
            "C-MAPSS": list(engines(directory)),
        }
        broken = robustness(directory)
    rows = [[name, f"{len(units)}", *figures(units)] for name, units in groups.items()]
    return [
        {"title": "Accuracy at the automatic threshold, no point adjustment",
         "head": ["", "units", "AUC-PR", "F1", "false alarms", "events found", "false events per week"], "rows": rows},
        {"title": "Robustness on the synthetic plant, trained on clean data",
         "head": ["", "F1", "false alarms"], "rows": broken},
    ]


def figures(units):
    """F1 and alarm rate over all rows of a group together, AUC-PR averaged over the units that have labels."""
    count = {key: sum(unit["points"]["counts"][key] for unit in units) for key in
             ["true_positive", "false_positive", "false_negative", "true_negative"]}
    areas = [unit["points"]["auc_pr"] for unit in units if unit["points"]["auc_pr"] is not None]
    found = sum(unit["labelled_events"]["found"] for unit in units)
    total = sum(unit["labelled_events"]["total"] for unit in units)
    weeks = sum(unlabelled(unit) for unit in units) / datetime.timedelta(days=7).total_seconds()
    false = sum(unit["false_events"] for unit in units)
    hits = 2 * count["true_positive"]
    return [
        f"{sum(areas) / len(areas):.3f}",
        f"{hits / max(hits + count['false_positive'] + count['false_negative'], 1):.3f}",
        f"{count['false_positive'] / (count['false_positive'] + count['true_negative']):.2%}",
        f"{found} of {total}",
        f"{false / weeks:.2f}",
    ]


def unlabelled(unit):
    """Seconds of the rows in which any alarm is a false one."""
    moment = datetime.datetime.fromisoformat
    whole, count = unit["range"], unit["points"]["counts"]
    share = (count["false_positive"] + count["true_negative"]) / sum(count.values())
    return (moment(whole["end"]) - moment(whole["start"])).total_seconds() * share


def lookoutd(*arguments):
    run = subprocess.run([LOOKOUTD, "model", *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"lookoutd model {arguments[0]}: {run.stderr[-2000:]}")
    return run.stdout


def evaluate(model, history, labels, *more):
    return json.loads(lookoutd("evaluate", model, "--parquet", history, "--labels", labels, "--output", "json", *more))


def folder(directory, unit, *more, history=None, train=None):
    """Fits on the rows before eval_start, scores the rest; labels are left out of fitting."""
    meta = json.loads((unit / "meta.json").read_text())
    ranges = directory / "timeranges.txt"
    ranges.write_text("".join(meta[key] + "\n" for key in ["train_start", "train_end", "eval_start", "eval_end"]))
    model, data, labels = directory / f"{unit.name}.model", unit / "sensors.csv.gz", unit / "labels.csv"
    if history is None or not model.exists():
        lookoutd("train", "--parquet", train or data, "--labels", labels, "--timeranges", ranges, "--out", model, *more)
    return evaluate(model, history or data, labels, "--timeranges", ranges)


def tennessee(directory):
    model, labels = directory / "tep.model", directory / "tep.labels"
    lookoutd("train", "--parquet", DATA / "tep/train_d00.csv.gz", "--out", model)
    for path in sorted((DATA / "tep").glob("*_test.csv.gz")):
        times = [line.split(",")[0] for line in gzip.open(path, "rt").read().splitlines()[1:]]
        # The fault begins with row 161; test file 00 has none.
        labels.write_text("" if "-00_" in path.name else f"{times[160]},{times[-1]}\n")
        yield evaluate(model, path, labels)


def engines(directory):
    """Trained on the first 30 % of engines 1 to 50, a step a day; engines 51 to 70, labelled in their last 50 cycles."""
    stamp = lambda day: (datetime.datetime(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
    head = "Timestamp," + ",".join(f"engine__s{n}" for n in range(1, 25)) + "\n"
    all_engines = {}
    for line in gzip.open(DATA / "cmapss/train_FD001_engines.txt.gz", "rt"):
        engine, _, *cells = line.split()
        all_engines.setdefault(int(engine), []).append(cells)
    history, day = [head], 0
    for number in range(1, 51):
        for cells in all_engines[number][:len(all_engines[number]) * 3 // 10]:
            history.append(f"{stamp(day)},{','.join(cells)}\n")
            day += 1
        history.append(stamp(day) + "," * 24 + "\n")
        day += 1
    model, path, labels = directory / "engine.model", directory / "engine.csv", directory / "engine.labels"
    path.write_text("".join(history))
    lookoutd("train", "--parquet", path, "--rate", 1, "--out", model)
    for number in range(51, 71):
        rows = all_engines[number]
        path.write_text(head + "".join(f"{stamp(at + 1)},{','.join(cells)}\n" for at, cells in enumerate(rows)))
        labels.write_text(f"{stamp(len(rows) - 49)},{stamp(len(rows))}\n")
        yield evaluate(model, path, labels)


def robustness(directory):
    """The synthetic plant with sensors broken in the rows to judge, or absent from those to learn from."""
    unit, off = DATA / "synthetic-plant", ["--off", "control\\motor-rpm<100"]
    start = json.loads((unit / "meta.json").read_text())["eval_start"]
    lines = gzip.open(unit / "sensors.csv.gz", "rt").read().splitlines()
    head, cells = lines[0], [line.split(",") for line in lines[1:]]
    first = next(at for at, row in enumerate(cells) if row[0] >= start)
    switch = head.split(",").index("control__motor-rpm") - 1
    frozen = cells[first + 960][14]

    def changed(change, before=False):
        path = directory / "broken.csv"
        out = [head]
        for at, row in enumerate(cells):
            touched = at < first if before else at >= first
            values = [change(at - first, column, value) if touched and column != switch else value
                      for column, value in enumerate(row[1:])]
            out.append(",".join([row[0], *values]))
        path.write_text("\n".join(out) + "\n")
        return path

    cases = {
        "nothing broken": None,
        "every tenth sensor missing": lambda row, column, value: "" if column % 10 == 1 else value,
        "every fourth sensor missing": lambda row, column, value: "" if column % 4 == 1 else value,
        "a tenth of the cells missing": lambda row, column, value: "" if (row * 31 + column * 17) % 10 == 0 else value,
        "one sensor stuck from a third on": lambda row, column, value: frozen if column == 13 and row >= 960 else value,
    }
    table = []
    for name, change in cases.items():
        judged = folder(directory, unit, *off, history=changed(change) if change else None)["points"]
        table.append([name, f"{judged['f1']:.3f}", f"{judged['false_alarm_rate']:.3f}"])
    holed = changed(lambda row, column, value: "" if column in (3, 11) else value, before=True)
    (directory / f"{unit.name}.model").unlink()
    judged = folder(directory, unit, *off, train=holed)["points"]
    table.append(["two sensors absent in training", f"{judged['f1']:.3f}", f"{judged['false_alarm_rate']:.3f}"])
    return table
