"""A thousand schedulers for long: memory, open files and latency from the first boundary to the last; fails on a leak.

SOAK_BOUNDARIES (240: four hours), SOAK_SPEED (5: one a minute) and SOAK_SCHEDULERS (1000) in the environment change it.
"""

import os
import statistics
import sys

from fleets import boundaries

ORDER = 72
OPT_IN = "takes four hours"
# What memory may gain from the second quarter to the last, and open files from the first to the last.
MOST_GAIN, LEAST_MB, MOST_FILES = 0.10, 16, 16


def run(_rounds):
    number = lambda name, default: int(os.environ.get(f"SOAK_{name}", default))
    count, speed, schedulers = number("BOUNDARIES", 240), number("SPEED", 5), number("SCHEDULERS", 1000)
    if count < 8:
        sys.exit("SOAK_BOUNDARIES: expected at least 8, so that there are quarters to compare")
    told = list(boundaries(schedulers, count, speed))
    quarters = [told[at * count // 4:(at + 1) * count // 4] for at in range(4)]
    leak = leaks(quarters)
    rows = []
    for name, lines in zip(["first", "second", "third", "last"], quarters):
        asked = sorted(value for line in lines for value in line["asked_ms"])
        rows.append([
            name, f"{sum(line['executions'] for line in lines):,}", f"{middle(lines, 'rss_mb'):.1f}",
            str(max(line["files"] for line in lines)), f"{middle(lines, 'cpu_ms'):.1f}",
            f"{statistics.median(line['late_s'][0] for line in lines):.2f}", f"{max(line['late_s'][1] for line in lines):.2f}",
            f"{asked[len(asked) // 2]:.1f}", f"{asked[len(asked) * 99 // 100]:.1f}",
        ])
    if leak:
        sys.exit(f"leak: {leak}; quarters: {rows}")
    return [{
        "title": f"Soak: {schedulers:,} schedulers, {count} boundaries of PT5M with time {speed}x",
        "note": f"Resident memory by least squares: {slope(told) * 12:+.2f} MB per hour of schedules. Every execution SUCCESS.",
        "head": ["quarter", "executions", "RSS MB", "files open", "CPU ms per execution", "late s, median", "p99 of the worst",
                 "describe ms, median", "p99"],
        "rows": rows,
    }]


def leaks(quarters):
    """What grew and should not have; empty if nothing did."""
    before, after = middle(quarters[1], "rss_mb"), middle(quarters[3], "rss_mb")
    if after - before > max(before * MOST_GAIN, LEAST_MB):
        return f"RSS from {before:.1f} MB in the second quarter to {after:.1f} MB in the last"
    before, after = (max(line["files"] for line in quarter) for quarter in (quarters[0], quarters[3]))
    if after > before + MOST_FILES:
        return f"open files from {before} in the first quarter to {after} in the last"
    return ""


def middle(lines, key):
    return statistics.median(line[key] for line in lines)


def slope(told):
    """MB of resident memory per boundary, after the first quarter in which caches fill."""
    points = [(line["boundary"], line["rss_mb"]) for line in told[len(told) // 4:]]
    return statistics.linear_regression(*zip(*points)).slope
