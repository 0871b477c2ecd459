"""What has no process of its own: formatting into memory and resident windows, from the Rust bench."""

import json
import subprocess
import sys

from harness import ENVIRONMENT, ROOT

ORDER = 30


def run(_rounds):
    answer = subprocess.run(["cargo", "bench", "--locked", "--bench", "lookoutd"], cwd=ROOT, env=ENVIRONMENT, check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    rows = [json.loads(line) for line in answer.splitlines() if line.startswith("{")]
    if not rows:
        sys.exit("cargo bench --bench lookoutd printed no JSON line")
    return [{
        "title": "In process, one thread",
        "head": ["", "CPU s", "items", "MB", "MB per CPU-s", "us per item"],
        "rows": [[row["name"], f"{row['cpu_s']:.3f}", f"{row['items']:,}", f"{row['bytes'] / 1e6:.1f}",
                  f"{row['bytes'] / 1e6 / row['cpu_s']:,.0f}", f"{row['cpu_s'] / row['items'] * 1e6:,.1f}"] for row in rows],
    }]
