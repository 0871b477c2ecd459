"""What has no process of its own: formatting into memory, beside pandas and polars, and resident windows."""

import json
import statistics
import subprocess
import sys

from harness import ENVIRONMENT, PEERS, PYTHON, ROOT, history_default, tags

ORDER = 30
FORMAT = "format a year's input files into memory"


def run(rounds):
    figures = {}
    for _ in range(min(rounds, 3)):
        for row in [*ours(), *(peer(name) for name in ["pandas", "polars"])]:
            row["rate"] = row["bytes"] / 1e6 / row["cpu_s"]
            figures.setdefault(row["name"], []).append(row)
            print(f"{row['name']:44} {row['cpu_s']:8.3f} s CPU {row['rate']:9.1f} MB per CPU-s", flush=True)
    middle = {name: statistics.median(row["rate"] for row in turns) for name, turns in figures.items()}
    mine = middle[FORMAT]
    rows = []
    for name, turns in figures.items():
        row = min(turns, key=lambda row: abs(row["rate"] - middle[name]))
        formats = name in [FORMAT, "pandas", "polars"]
        shown = f"lookoutd: {name}" if name not in ["pandas", "polars"] else f"{name}: format one day's input files into memory"
        rows.append([shown, f"{row['cpu_s']:.3f}", f"{row['items']:,}", f"{row['bytes'] / 1e6:.1f}", f"{row['rate']:,.1f}",
                     f"{row['cpu_s'] / row['items'] * 1e6:,.1f}", f"{mine / row['rate']:.1f}x" if formats else ""])
    return [{
        "title": f"Formatting and resident windows, in process; medians of {len(figures[FORMAT])}",
        "note": "Formatting starts from rows in memory: 24 files of five rows a window. A resident window is cut from a history "
                "that is open already; a cold one opens it first.",
        "head": ["", "CPU s", "items", "MB", "MB per CPU-s", "CPU us per item", "CPU per MB / lookoutd"],
        "rows": rows,
        "chart": {name: mine / middle[name] for name in ["pandas", "polars"]},
    }]


def ours():
    answer = subprocess.run(["cargo", "bench", "--locked", "--bench", "lookoutd"], cwd=ROOT, env=ENVIRONMENT, check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    rows = [json.loads(line) for line in answer.splitlines() if line.startswith("{")]
    if not rows:
        sys.exit("cargo bench --bench lookoutd printed no JSON line")
    return rows


def peer(name):
    command = [PYTHON, str(PEERS / "format_peer.py"), name, "--parquet", str(history_default()), "--tags", str(tags())]
    return json.loads(subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True).stdout)
