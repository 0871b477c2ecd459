"""Many schedulers in one service at PT5M, 24 components each: lateness, CPU and memory as their number grows."""

import statistics

from fleets import boundaries

ORDER = 70
OPT_IN = "takes a quarter of an hour"
NOT_MEASURED = ["Schedulers: uploads of their input, which all of them share, and prefixes with more than four windows of history."]
# A boundary a minute.
SPEED = 5


def run(rounds):
    rows = []
    for schedulers in [10, 100, 1000]:
        told = list(boundaries(schedulers, max(rounds, 3), SPEED))
        middle = lambda value: statistics.median(value(line) for line in told)
        rows.append([
            f"{schedulers:,}", f"{sum(line['executions'] for line in told):,}", f"{middle(lambda line: line['cpu_ms']):.1f}",
            *(f"{max(line['late_s'][at] for line in told):.2f}" for at in range(3)),
            f"{middle(lambda line: line['rss_mb']):.0f}", f"{max(line['peak_mb'] for line in told):.0f}",
            f"{max(line['files'] for line in told)}",
        ])
    return [{
        "title": f"Schedulers at PT5M with time {SPEED}x: every execution SUCCESS before the next boundary",
        "note": "One `lookoutd serve`, its S3 in process; the figures are of that process. Late: from the due time to the recorded "
                "end, in real seconds, of the worst boundary. All schedulers are due at the same moment.",
        "head": ["schedulers", "executions", "CPU ms per execution", "late s, median", "p99", "most", "RSS MB", "peak RSS MB",
                 "files open"],
        "rows": rows,
    }]
