"""Reads of the API over HTTP with SigV4, beside moto's answers to the comparable operations of Step Functions."""

import collections
import json
import statistics
import subprocess
import sys

from harness import ENVIRONMENT, LOOKOUTD, PEERS, PYTHON, VENV, free_ports, scratch

ORDER = 75
NOT_MEASURED = ["API: moto checks no signature, and has no Lookout for Equipment; its Step Functions stands for it."]


def run(rounds):
    with scratch() as directory:
        command = [PYTHON, str(PEERS / "api.py"), "--server", LOOKOUTD, "--moto", str(VENV / "bin/moto_server"), "--port",
                   str(free_ports(1)[0]), "--directory", str(directory / "data"), "--rounds", str(rounds)]
        answer = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    if answer.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {answer.returncode}")
    turns = collections.defaultdict(list)
    for line in map(json.loads, answer.stdout.splitlines()):
        turns[line["operation"], line["connections"], line["name"]].append(line)
    middle = lambda lines, value: statistics.median(map(value, lines))
    rate = lambda line: line["requests"] / line["seconds"]
    rows = []
    for (operation, connections, name), lines in turns.items():
        ours = turns[operation, connections, "lookoutd"]
        rows.append([
            f"{operation}, {connections} at once, {name}", f"{middle(lines, rate):,.0f}",
            *(f"{middle(lines, lambda line: line[key]):.2f}" for key in ["p50_ms", "p99_ms"]),
            f"{middle(lines, lambda line: line['cpu_us']):,.0f}", f"{lines[0]['bytes']:,}",
            f"{middle(ours, rate) / middle(lines, rate):.1f}x",
        ])
    return [{
        "title": f"Reads of the API; medians of {rounds}",
        "note": "One client for both, in Python: the bytes of one signed request, sent again and again. It is what limits the "
                "faster of the two; CPU is the server's.",
        "head": ["", "requests/s", "p50 ms", "p99 ms", "server CPU us/request", "bytes", "requests/s of lookoutd"],
        "rows": sorted(rows),
    }]
