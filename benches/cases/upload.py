"""Files of one, three and fifty windows to SeaweedFS: beside boto3, the AWS CLI, s5cmd and rclone."""

import subprocess
import sys

from harness import ENVIRONMENT, PEERS, PYTHON, VENV, cutter, history_default, record, replay, scratch, table, tags
from seaweedfs import SeaweedFs

ORDER = 40
NOT_MEASURED = ["Uploads with TLS, and to a store that is a network away: SeaweedFS on loopback answers in under a millisecond."]


def run(rounds):
    tables = []
    with scratch() as directory, SeaweedFs(directory / "weed") as store:
        for sequences, title in [(1, "one window"), (3, "the notebook's three windows"), (50, "fifty windows")]:
            files = directory / f"windows-{sequences}"
            subprocess.run(cutter("pandas", history_default(), tags(), sequences, files), check=True, env=ENVIRONMENT,
                           stdout=subprocess.DEVNULL)
            count = len(list(files.iterdir()))
            runs = {}
            for turn in range(rounds):
                for at, (name, command) in enumerate(contenders(store, files, sequences).items()):
                    prefix = f"{sequences}-{turn}-{at}/"
                    record(runs, name, command(prefix), count, store.environment(prefix, directory / "data" / prefix))
                    # What lookoutd finds the store's conditional creates out with is no input file.
                    stored = [name for name in store.list(prefix) if not name.startswith("_lookoutd/")]
                    expected = sorted(path.name for path in files.iterdir())
                    if stored != expected:
                        sys.exit(f"{name} left {len(stored)} of {count} objects under {prefix}")
            tables.append(table(f"Upload of {title}, {count} files, to SeaweedFS", runs, "lookoutd (cut and ship)"))
    return tables


def contenders(store, files, sequences):
    tool = lambda name: str(VENV / "bin" / name)
    boto3 = lambda threads: lambda prefix: [
        PYTHON, str(PEERS / "upload_boto3.py"), "--endpoint", store.endpoint, "--bucket", store.bucket, "--prefix", prefix,
        "--threads", str(threads), str(files)]
    remote = f":s3,provider=Other,env_auth,endpoint='{store.endpoint}':{store.bucket}/"
    return {
        "boto3, sequential": boto3(1),
        "boto3, 24 threads": boto3(24),
        "aws s3 cp --recursive": lambda prefix: [
            tool("aws"), "--endpoint-url", store.endpoint, "s3", "cp", "--recursive", "--quiet", str(files),
            f"s3://{store.bucket}/{prefix}"],
        "s5cmd": lambda prefix: [
            tool("s5cmd"), "--endpoint-url", store.endpoint, "cp", f"{files}/", f"s3://{store.bucket}/{prefix}"],
        "rclone": lambda prefix: [
            tool("rclone"), "copy", "--config", "/dev/null", "--transfers", "24", "--no-check-dest", str(files), remote + prefix],
        "lookoutd (cut and ship)": lambda _prefix: replay(history_default(), tags(), sequences),
    }
