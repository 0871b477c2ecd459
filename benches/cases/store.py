"""The embedded store: PUTs of 3 kB beside SeaweedFS, its start and a page over 100,000 objects, and a day of the sample plant."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from harness import CACHE, ENVIRONMENT, LOOKOUTD, PEERS, PYTHON, daemon, free_ports
from seaweedfs import SeaweedFs

ORDER = 65
NOT_MEASURED = ["PUTs to the embedded store through TLS, and to a disk whose fsync is slow: the scratch directory's disk is what it is."]
# Smaller for a try.
OBJECTS = int(os.environ.get("LOOKOUTD_BENCH_OBJECTS", 100_000))
PUTS = {1: 1_000, 32: 6_400}
WINDOWS = int(os.environ.get("LOOKOUTD_BENCH_WINDOWS", 288))


def run(rounds):
    with on_disk() as directory:
        return [puts(directory, rounds), many(directory), day(directory)]


@contextlib.contextmanager
def on_disk():
    """Not in memory, where a sync costs nothing."""
    with tempfile.TemporaryDirectory(prefix="store-", dir=CACHE, ignore_cleanup_errors=True) as path:
        yield pathlib.Path(path)


@contextlib.contextmanager
def embedded(data_dir):
    """`lookoutd serve`, its S3 and the process; (process, endpoint, environment with its key pair)."""
    api, s3 = free_ports(2)
    arguments = ["serve", "--data-dir", str(data_dir), "--listen", f"127.0.0.1:{api}", "--s3-listen", f"127.0.0.1:{s3}",
                 "--admin-listen", ""]
    with daemon(arguments, {}, data_dir.with_suffix(".log")) as process:
        endpoint = f"http://127.0.0.1:{s3}"
        credentials = wait_for_file(data_dir / "credentials").read_text()
        key = re.search(r"aws_access_key_id = (\S+)\s+aws_secret_access_key = (\S+)", credentials)
        keys = {"AWS_ACCESS_KEY_ID": key[1], "AWS_SECRET_ACCESS_KEY": key[2]}
        yield process, endpoint, keys


def wait_for_file(path):
    for _ in range(3_000):
        if path.exists() and path.stat().st_size > 0:
            return path
        time.sleep(0.01)
    raise SystemExit(f"{path} did not come")


def peer(endpoint, keys, *arguments):
    """What benches/peers/objects.py measured."""
    told = subprocess.run([PYTHON, str(PEERS / "objects.py"), endpoint, *map(str, arguments)], check=True, stdout=subprocess.PIPE,
                          env={**ENVIRONMENT, **keys}, timeout=3_000)
    return json.loads(told.stdout)


def puts(directory, rounds):
    turns = {}
    for turn in range(rounds):
        for name, server in contenders(directory / f"turn-{turn}").items():
            with server as (process, endpoint, keys):
                for at_once, count in PUTS.items():
                    told = peer(endpoint, keys, "put", count, at_once)
                    with syncs(process) as counted:
                        peer(endpoint, keys, "put", count // 4, at_once)
                    told["syncs"] = counted[0] / (count // 4) if counted else None
                    turns.setdefault((name, at_once), []).append(told)
                    print(f"{name:28} {at_once:3} at once {told['per_s']:8.0f} PUT/s  p99 {told['p99_ms']:7.2f} ms", flush=True)
            shutil.rmtree(directory / f"turn-{turn}", ignore_errors=True)
    rows = []
    for (name, at_once), told in turns.items():
        middle = lambda key: statistics.median(one[key] for one in told)
        mine = statistics.median(one["per_s"] for one in turns["lookoutd", at_once])
        counted = [one["syncs"] for one in told if one["syncs"] is not None]
        rows.append([f"{name}, {at_once} at once", f"{middle('per_s'):,.0f}", f"{middle('p50_ms'):.2f}", f"{middle('p99_ms'):.2f}",
                     f"{statistics.median(counted):.2f}" if counted else "", f"{mine / middle('per_s'):.2f}x"])
    return {
        "title": f"PUT of 3 kB to a store on disk; medians of {rounds}",
        "note": "Requests are signed beforehand and sent over connections that stay open, by one Python process. Syncs are fsync "
                "and fdatasync of the server's processes, counted by strace in a run of its own. SeaweedFS syncs nothing as it comes.",
        "head": ["", "PUT/s", "ms, median", "p99", "syncs per PUT", "lookoutd's PUT/s"],
        "rows": rows,
    }


def contenders(directory):
    directory.mkdir()
    return {"lookoutd": embedded(directory / "lookoutd"), "SeaweedFS, fsync": weed(directory / "weed-fsync", True),
            "SeaweedFS, as it comes": weed(directory / "weed", False)}


@contextlib.contextmanager
def weed(directory, fsync):
    with SeaweedFs(directory, fsync) as store:
        yield store.server, store.endpoint, {}


@contextlib.contextmanager
def syncs(process):
    """Counts the syncs of a process until the block ends, if strace is there and may."""
    if not shutil.which("strace"):
        yield None
        return
    counted = []
    with tempfile.NamedTemporaryFile() as told:
        tracer = subprocess.Popen(["strace", "-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range", "-o", told.name, "-p",
                                   str(process.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        try:
            yield counted
        finally:
            tracer.terminate()
            tracer.wait(20)
        text = pathlib.Path(told.name).read_text()
        counted.append(sum(int(line.split()[3]) for line in text.splitlines() if re.search(r"\b(fsync|fdatasync|sync_file_range)$", line)))


def many(directory):
    """Start and pages over many objects."""
    data_dir = directory / "many"
    with embedded(data_dir) as (_, endpoint, keys):
        peer(endpoint, keys, "put", OBJECTS, 32)
    starts, pages = [], []
    for _ in range(5):
        began = time.perf_counter()
        with embedded(data_dir) as (_, endpoint, keys):
            starts.append(answered(endpoint) - began)
            pages += peer(endpoint, keys, "page")["pages_ms"]
    size = sum(file.stat().st_size for file in (data_dir / "s3").rglob("*") if file.is_file())
    return {
        "title": f"The embedded store over {OBJECTS:,} objects",
        "note": "Start: from the exec to the first answer, tried every 5 ms; a page: 1,000 keys out of the middle.",
        "head": ["objects", "MB on disk", "files", "start s, median", "most", "a page ms, median", "most"],
        "rows": [[f"{OBJECTS:,}", f"{size / 1e6:.0f}", str(count(data_dir / "s3")), f"{statistics.median(starts):.2f}",
                  f"{max(starts):.2f}", f"{statistics.median(pages):.1f}", f"{max(pages):.1f}"]],
    }


def answered(endpoint):
    """When it answers at all: a stranger is refused."""
    while True:
        try:
            urllib.request.urlopen(endpoint, timeout=5)
        except urllib.error.HTTPError:
            return time.perf_counter()
        except OSError:
            time.sleep(0.005)


def day(directory):
    """A day of the sample plant with everything embedded."""
    data_dir = directory / "day"
    told = subprocess.run([LOOKOUTD, "demo", "--speed", "600", "--windows", str(WINDOWS), "--data-dir", str(data_dir), "--output",
                           "json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    told = json.loads(told.stdout)
    rows = []
    for name in ["s3", "archive", ""]:
        place = data_dir / name
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        rows.append([name or "all of the data directory", f"{size / 1e6:.1f}", f"{count(place):,}"])
    return {
        "title": f"A day of the sample plant with everything embedded: {told['windows']} windows, {told['files']:,} input files",
        "head": ["directory", "MB", "files"],
        "rows": rows,
    }


def count(directory):
    return sum(1 for file in directory.rglob("*") if file.is_file())
