"""What every case of benches/run shares: where things are, how a process is measured, how turns become a table.

Every process is measured from outside: wall and CPU time from wait4, peak memory from GNU time, so that its own start
counts for a command line tool, an interpreter and lookoutd alike. Deliberately absent: what is compared with what.
"""

import contextlib
import datetime
import filecmp
import functools
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("LOOKOUTD_BENCH_CACHE", pathlib.Path.home() / ".cache/lookoutd-bench"))
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
LOOKOUTD = os.environ.get("LOOKOUTD", str(TARGET / "release/lookoutd"))
VENV = CACHE / "venv"
PYTHON = str(VENV / "bin/python")
PEERS = ROOT / "benches/peers"
AT = "2026-01-01T00:00:00"
KEY, SECRET = "lookoutd-bench", "lookoutd-bench-secret"

# No contender may look for credentials on this machine's network, or find real ones.
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "LOOKOUTD__"))},
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


def prepare():
    """The binary, GNU time, and a venv with every peer."""
    if not os.access(LOOKOUTD, os.X_OK):
        sys.exit(f"{LOOKOUTD} does not exist: cargo build --release, or set LOOKOUTD to a binary")
    if not os.access("/usr/bin/time", os.X_OK):
        sys.exit("GNU time is missing: apt-get install time")
    wanted = (ROOT / "tests/requirements.txt").read_text() + (ROOT / "benches/requirements.txt").read_text()
    mark = VENV / "requirements.txt"
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        subprocess.run([str(VENV / "bin/pip"), "install", "--quiet", "-r", str(ROOT / "tests/requirements.txt"),
                        "-r", str(ROOT / "benches/requirements.txt")], check=True)
        mark.write_text(wanted)


# --- measuring ---


def record(runs, name, command, items, environment=None):
    """One turn of the contender `name`, which handles so many items."""
    run = measure(command, environment or {})
    runs.setdefault(name, []).append({**run, "items": items})
    print(f"{name:28} {run['wall_s']:8.3f} s wall {run['cpu_s']:8.3f} s CPU {run['peak_mb']:8.1f} MB", flush=True)


def measure(command, environment, cwd=None):
    report = CACHE / "time"
    began = time.perf_counter()
    process = subprocess.Popen(["/usr/bin/time", "-q", "-f", "%M", "-o", str(report), *command], cwd=cwd,
                               env={**ENVIRONMENT, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {process.returncode}:\n{errors[-2000:]}")
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": int(report.read_text()) / 1024}


def table(title, runs, ours, item="file"):
    """Medians of all turns, and each contender's ratio to `ours`; `item` names what was counted."""
    middle = medians(runs)
    mine = middle[ours]
    rows = []
    for name, run in middle.items():
        ratios = [f"{run[key] / mine[key]:.1f}x" for key in ["wall_s", "cpu_s", "peak_mb"]]
        spread = f"{min(turn['wall_s'] for turn in runs[name]):.3f} to {max(turn['wall_s'] for turn in runs[name]):.3f}"
        rows.append([name, f"{run['wall_s']:.3f}", spread, f"{run['cpu_s']:.3f}", f"{run['peak_mb']:.1f}",
                     f"{run['items'] / run['wall_s']:,.0f}", f"{run['cpu_s'] / run['items'] * 1e6:,.0f}", *ratios])
    turns = len(next(iter(runs.values())))
    return {
        "title": f"{title}; medians of {turns}",
        "head": ["", "wall s", "wall, least to most", "CPU s", "peak MB", f"{item}s/s", f"CPU us/{item}", f"wall / {ours}", "CPU",
                 "peak"],
        "rows": rows,
        "chart": {name: run["cpu_s"] / mine["cpu_s"] for name, run in middle.items() if name != ours},
    }


def medians(runs):
    return {name: {key: statistics.median(run[key] for run in turns) for key in turns[0]} for name, turns in runs.items()}


def memory(pid):
    """PSS, its anonymous part, RSS and peak RSS in MB, and the CPU seconds so far."""
    process = pathlib.Path(f"/proc/{pid}")
    rollup = (process / "smaps_rollup").read_text().splitlines()
    status = (process / "status").read_text().splitlines()
    kib = lambda lines, key: next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
    return kib(rollup, "Pss:"), kib(rollup, "Pss_Anon:"), kib(rollup, "Rss:"), kib(status, "VmHWM:"), cpu_of(pid)


def cpu_of(pid):
    ticks = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def daemon(arguments, environment, log):
    """A lookoutd that runs until the block ends; its standard error goes to the file `log`."""
    with open(log, "w") as errors:
        process = subprocess.Popen([LOOKOUTD, *arguments], env={**ENVIRONMENT, **environment}, stdout=subprocess.DEVNULL,
                                   stderr=errors)
        try:
            yield process
            if process.poll() is not None:
                sys.exit(f"lookoutd {' '.join(arguments)} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def wait_for(url):
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    sys.exit(f"{url} did not answer in a minute")


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


# --- the data ---


def sample(days=334, signals=None):
    """The sample plant of so many days, written once."""
    directory = CACHE / (f"sample-{days}" + (f"-{signals}" if signals else ""))
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        more = ["--signals", str(signals)] if signals else []
        subprocess.run([LOOKOUTD, "sample", str(directory), "--days", str(days), *more], check=True, env=ENVIRONMENT)
        (directory / "complete").touch()
    return directory


def tags():
    return sample() / "tags_description.csv"


def history_default():
    """The same rows as pandas writes them by default: one row group, no page index."""
    path = CACHE / "pandas-default.parquet"
    if not path.exists():
        source = str(sample() / "signals.parquet")
        subprocess.run([PYTHON, str(PEERS / "pandas_default.py"), source, str(path) + ".new"], check=True)
        os.rename(str(path) + ".new", path)
    return path


@functools.cache
def end_of(history):
    """The minute after the history's last row: where its last window ends."""
    script = "import sys, polars; print(polars.scan_parquet(sys.argv[1]).select(polars.col('Timestamp').max()).collect().item())"
    last = subprocess.run([PYTHON, "-c", script, str(history)], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return datetime.datetime.fromisoformat(last) + datetime.timedelta(minutes=1)


@contextlib.contextmanager
def scratch():
    """A directory in memory that is deleted at the end, so that no contender is measured by the disk."""
    with tempfile.TemporaryDirectory(prefix="lookoutd-bench-", dir="/dev/shm", ignore_cleanup_errors=True) as path:
        yield pathlib.Path(path)


# --- cutting, which several cases do ---


def cutter(peer, history, tag_list, sequences, out):
    return [PYTHON, str(PEERS / f"cut_{peer}.py"), "--parquet", str(history), "--tags", str(tag_list), "--at", AT,
            "--sequences", str(sequences), "--out", str(out)]


def replay(history, tag_list, sequences, out=None):
    """The history's last windows; without a directory to write to, into the bucket of the environment."""
    end = end_of(history)
    start = end - datetime.timedelta(minutes=5 * sequences)
    return [LOOKOUTD, "replay", "--parquet", str(history), "--tags", str(tag_list), "--from", start.isoformat(),
            "--to", end.isoformat(), "--at", f"{AT}Z", "--cadence", "PT5M", "--rows", "notebook",
            *(["--out", str(out)] if out else [])]


def cutting(title, history, sequences, rounds, peers):
    """All contenders cut the same windows; every file must be the same."""
    runs = {}
    with scratch() as directory:
        for _ in range(rounds):
            for peer in peers:
                record(runs, peer, cutter(peer, history, tags(), sequences, directory / peer), 24 * sequences)
            out = directory / "lookoutd"
            record(runs, "lookoutd", replay(history, tags(), sequences, out), 24 * sequences)
            for peer in peers:
                compare(directory / peer, out)
            for made in [*peers, "lookoutd"]:
                shutil.rmtree(directory / made)
    return table(f"{title} (every file byte-identical)", runs, "lookoutd")


def compare(theirs, ours):
    names = sorted(set(os.listdir(theirs)) | set(os.listdir(ours)))
    _, different, missing = filecmp.cmpfiles(theirs, ours, names, shallow=False)
    if different or missing:
        sys.exit(f"{theirs} and {ours}: {len(different)} files differ, {len(missing)} are missing: {(different + missing)[:3]}")
