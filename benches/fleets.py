"""Starts `peers/fleet.py`, many schedulers in one service, and hands out what it tells of each boundary."""

import json
import shutil
import subprocess
import sys

from harness import CACHE, ENVIRONMENT, LOOKOUTD, PEERS, PYTHON


def boundaries(schedulers, count, speed):
    """One dictionary per boundary. On the disk, not in memory: what an execution costs is partly its syncs."""
    directory = CACHE / f"fleet-{schedulers}"
    command = [PYTHON, str(PEERS / "fleet.py"), "--server", LOOKOUTD, "--directory", str(directory), "--schedulers",
               str(schedulers), "--boundaries", str(count), "--speed", str(speed)]
    try:
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
            for text in process.stdout:
                line = json.loads(text)
                print(f"{schedulers} schedulers, boundary {line['boundary']}: {line['took_s']:.1f} s, "
                      f"{line['cpu_ms']:.1f} ms CPU each, late {line['late_s'][1]:.1f} s, {line['rss_mb']:.0f} MB", flush=True)
                yield line
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)}\nended with {process.returncode}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
