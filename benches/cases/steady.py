"""Memory of `run` as a gateway: no embedded parts, the bucket in SeaweedFS, after some windows' time."""

import os
import time

from harness import daemon, memory, sample, scratch
from seaweedfs import SeaweedFs

ORDER = 60
# The last is after two windows at least, whenever the minute began.
MINUTES = [1, 11]
NOT_MEASURED = ["Memory after days."]


def run(_rounds):
    rows = []
    with scratch() as directory, SeaweedFs(directory / "weed") as store:
        with daemon(["run"], store.gateway("steady/", directory / "data", sample()), directory / "log") as process:
            began = time.monotonic()
            for minutes in MINUTES:
                time.sleep(began + minutes * 60 - time.monotonic())
                os.kill(process.pid, 0)
                rows.append([f"after {minutes} min", *(f"{value:.1f}" for value in memory(process.pid))])
        written = len([name for name in store.list("steady/") if not name.startswith("_lookoutd/")])
    return [{
        "title": f"Memory of `run` as a gateway, {written // 24} windows shipped",
        "head": ["", "PSS MB", "of it anonymous", "RSS MB", "peak RSS MB", "CPU s"],
        "rows": rows,
    }]
