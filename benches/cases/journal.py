"""The journal of live inputs: samples made durable, a steady rate, a cold start, one asset of a thousand."""

import json
import statistics
import subprocess
import sys

from harness import ENVIRONMENT, ROOT

ORDER = 66
NOT_MEASURED = ["The journal on a disk whose sync is slow: a sync a group of samples is what it costs there."]


def run(rounds):
    figures = {}
    for _ in range(min(rounds, 3)):
        for row in measured():
            figures.setdefault(row["name"], []).append(row)
            print(f"{row['name']:60} {row['wall_s']:8.2f} s {row['cpu_s']:8.2f} s CPU", flush=True)
    rows = []
    for name, turns in figures.items():
        wall, cpu = (statistics.median(row[key] for row in turns) for key in ["wall_s", "cpu_s"])
        items = turns[0]["items"]
        rows.append([name, f"{wall:.2f}", f"{cpu:.2f}", f"{cpu / wall * 100:.0f} %", f"{items / wall:,.0f}", f"{cpu / items * 1e6:,.1f}"])
    return [{
        "title": f"The journal: 24,000 tags; medians of {min(rounds, 3)}",
        "note": "Every batch is acknowledged after a sync. A day at 10,000 samples a second is 1,700 segments.",
        "head": ["", "s", "CPU s", "of a core", "items a second", "CPU us per item"],
        "rows": rows,
    }]


def measured():
    command = ["cargo", "bench", "--locked", "--bench", "lookoutd", "--", "journal"]
    answer = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = [json.loads(line) for line in answer.splitlines() if line.startswith("{")]
    if not rows:
        sys.exit("cargo bench --bench lookoutd -- journal printed no JSON line")
    return rows
