"""Real clients of a store at their everyday work: each copies a tree there and back, and the trees are equal.

    clients.py URL KEY SECRET [NAME...]

Prints a line for each client that fails and why, then how many there were; exits 1 if any failed.
"""

import filecmp
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from pathlib import Path
from urllib.parse import urlsplit

URL, KEY, SECRET = sys.argv[1:4]
MIB = 1 << 20
HOST = urlsplit(URL).netloc
SCRIPTS = sysconfig.get_path("scripts")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1",
               "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
               "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "NO_PROXY": "*", "no_proxy": "*"}
os.environ.update(CREDENTIALS)
os.environ.pop("AWS_PROFILE", None)

import boto3  # noqa: E402  (after the environment that it reads)
from boto3.s3.transfer import TransferConfig  # noqa: E402
from botocore.config import Config  # noqa: E402

s3 = boto3.client("s3", endpoint_url=URL, config=Config(proxies={}, s3={"addressing_style": "path"}))
clients = []


def client(function):
    clients.append(function)
    return function


def run(*command, **environment):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "HOME": environment.pop("HOME", "/nonexistent"), **environment})
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
    return done.stdout


def same(found, wanted):
    assert found == wanted, f"found {found!r}, wanted {wanted!r}"


def grow(root):
    """Files as a plant has them, and names as people give them."""
    chance = random.Random(1)
    names = {"input/pump/pump_20260101000500.csv": 3_000, "input/pump/pump_20260101001000.csv": 3_001, "labels.csv": 0,
             "deep/er/and/deeper/x": 1, "a b+c%41ü&=~!'().txt": 17, "limit/64KiB": 65_536, "limit/64KiB+1": 65_537,
             "models/large.bin": 18 * MIB + 5}
    for name, size in names.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(size))
        # Older than its copy: a store tells times by the second, and a sync takes again what seems newer.
        os.utime(file, (time.time() - 3_600,) * 2)
    return root


def tree(root):
    return {str(file.relative_to(root)): file for file in root.rglob("*") if file.is_file()}


def equal(found, wanted):
    here, there = tree(found), tree(wanted)
    same(sorted(here), sorted(there))
    for name, file in here.items():
        assert filecmp.cmp(file, there[name], shallow=False), f"{name} differs"


def keys(bucket, prefix=""):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return sorted(one["Key"] for page in pages for one in page.get("Contents", []))


def read(bucket, key):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except Exception:
        return True
    return False


@client
def boto3_managed_transfers(bucket, work):
    source = grow(work / "source")
    for name, file in tree(source).items():
        s3.upload_file(str(file), bucket, name, ExtraArgs={"ContentType": "text/csv", "Metadata": {"plant": "north"}})
        s3.download_file(bucket, name, str(back(work, name)))
    equal(work / "back", source)
    # Larger than a part, over an earlier object, then smaller than a part over the larger one.
    large, small = work / "large", work / "small"
    large.write_bytes(random.Random(2).randbytes(9 * MIB + 1))
    small.write_bytes(b"small")
    for file in (small, large, small):
        s3.upload_file(str(file), bucket, "again", ExtraArgs={"Metadata": {"is": file.name}})
        s3.download_file(bucket, "again", str(work / "got"))
        assert filecmp.cmp(work / "got", file, shallow=False), file.name
        same(s3.head_object(Bucket=bucket, Key="again")["Metadata"], {"is": file.name})
    # A managed copy goes by parts too.
    s3.upload_file(str(large), bucket, "again")
    s3.copy({"Bucket": bucket, "Key": "again"}, bucket, "copied", Config=TransferConfig(multipart_threshold=MIB, multipart_chunksize=5 * MIB))
    s3.download_file(bucket, "copied", str(work / "got"))
    assert filecmp.cmp(work / "got", large, shallow=False)


def back(work, name):
    file = work / "back" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


@client
def aws_cli(bucket, work):
    source = grow(work / "source")
    call = lambda *words: run(sys.executable, "-m", "awscli", "--endpoint-url", URL, *words)

    def aws(*words):
        """Once more where the client lost an answer: after a second without `100 Continue`, which a busy machine may take, it
        sends the body, and may then take the late line for the answer's headers (boto/boto3 issue 4507)."""
        try:
            return call(*words)
        except AssertionError as error:
            if not str(error).rstrip().endswith("'ETag'"):
                raise
            return call(*words)

    aws("s3", "sync", source, f"s3://{bucket}/tree", "--no-progress")
    aws("s3", "sync", f"s3://{bucket}/tree", work / "back", "--no-progress")
    equal(work / "back", source)
    same(aws("s3", "sync", source, f"s3://{bucket}/tree", "--no-progress").strip(), "")
    (source / "labels.csv").unlink()
    aws("s3", "sync", source, f"s3://{bucket}/tree", "--no-progress", "--delete")
    same(keys(bucket, "tree/labels"), [])
    aws("s3", "cp", source / "models/large.bin", f"s3://{bucket}/one", "--no-progress")
    aws("s3", "cp", f"s3://{bucket}/one", f"s3://{bucket}/two", "--no-progress")
    aws("s3", "mv", f"s3://{bucket}/two", work / "two", "--no-progress")
    assert filecmp.cmp(work / "two", source / "models/large.bin", shallow=False)
    same(keys(bucket, "two"), [])
    assert "large.bin" in aws("s3", "ls", f"s3://{bucket}/tree/models/")
    # A bucket that holds something is not removed, and nothing in it.
    held = keys(bucket)
    assert refused(aws, "s3", "rb", f"s3://{bucket}")
    same(keys(bucket), held)
    aws("s3", "mb", f"s3://{bucket}-other")
    aws("s3", "sync", f"s3://{bucket}/tree/input", f"s3://{bucket}-other/", "--no-progress")
    same(len(keys(f"{bucket}-other")), 2)
    aws("s3", "rb", f"s3://{bucket}-other", "--force")


@client
def s5cmd(bucket, work):
    source = grow(work / "source")
    tool = lambda *words: run(f"{SCRIPTS}/s5cmd", "--endpoint-url", URL, *words)
    tool("sync", f"{source}/", f"s3://{bucket}/tree/")
    tool("sync", f"s3://{bucket}/tree/*", f"{work}/back/")
    equal(work / "back", source)
    same(tool("sync", f"{source}/", f"s3://{bucket}/tree/").strip(), "")
    (source / "labels.csv").unlink()
    tool("sync", "--delete", f"{source}/", f"s3://{bucket}/tree/")
    same(keys(bucket, "tree/labels"), [])
    tool("cp", f"s3://{bucket}/tree/models/large.bin", f"s3://{bucket}/copy")
    same(read(bucket, "copy"), (source / "models/large.bin").read_bytes())
    assert "large.bin" in tool("ls", f"s3://{bucket}/tree/models/")
    tool("rm", f"s3://{bucket}/tree/*")
    same(keys(bucket, "tree/"), [])


@client
def rclone(bucket, work):
    source = grow(work / "source")
    remote = f":s3,provider=Other,env_auth,endpoint='{URL}',region=us-east-1,force_path_style:{bucket}"
    tool = lambda *words: run(f"{SCRIPTS}/rclone", *words, "--config", "/dev/null", "--retries", "1", "--low-level-retries", "2",
                              "--s3-no-check-bucket")
    for more in ([], ["--fast-list"]):
        at = f"{remote}/tree{len(more)}"
        tool("sync", source, at, "--s3-upload-cutoff", "8M", "--s3-chunk-size", "5M", *more)
        tool("check", "--download", source, at, *more)
        target = work / f"back{len(more)}"
        tool("sync", at, target, *more)
        equal(target, source)
        # Again, there is nothing to do, and nothing is deleted.
        tool("sync", at, target, *more)
        equal(target, source)
        tool("sync", at, f"{remote}/copy{len(more)}", *more)
        same(len(keys(bucket, f"copy{len(more)}/")), len(tree(source)))
    tool("purge", f"{remote}/tree0")
    same(keys(bucket, "tree0/"), [])


@client
def s3fs_and_pandas(bucket, work):
    import pandas
    import s3fs

    source = grow(work / "source")
    settings = {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": URL}}
    files = s3fs.S3FileSystem(**settings)
    files.put(str(source), f"{bucket}/tree", recursive=True)
    files.get(f"{bucket}/tree", str(work / "back"), recursive=True)
    equal(work / "back", source)
    same(len(files.find(f"{bucket}/tree")), len(tree(source)))
    assert files.isdir(f"{bucket}/tree/input") and not files.exists(f"{bucket}/tree/nothing")
    files.rm(f"{bucket}/tree", recursive=True)
    same(keys(bucket, "tree/"), [])
    frame = pandas.DataFrame({"Timestamp": pandas.date_range("2026-01-01", periods=50_000, freq="s"), "a": range(50_000)})
    for name, write, fetch in (("t.csv", frame.to_csv, lambda *a, **k: pandas.read_csv(*a, parse_dates=["Timestamp"], **k)),
                               ("t.parquet", frame.to_parquet, pandas.read_parquet)):
        write(f"s3://{bucket}/new/folder/{name}", index=False, storage_options=settings)
        found = fetch(f"s3://{bucket}/new/folder/{name}", storage_options=settings)
        assert (found["a"] == frame["a"]).all() and (found["Timestamp"] == frame["Timestamp"]).all(), name


@client
def pyarrow_datasets(bucket, work):
    import pyarrow
    import pyarrow.dataset
    import pyarrow.fs

    source = grow(work / "source")
    files = pyarrow.fs.S3FileSystem(access_key=KEY, secret_key=SECRET, endpoint_override=HOST, scheme="http", region="us-east-1")
    local = pyarrow.fs.LocalFileSystem()
    pyarrow.fs.copy_files(str(source), f"{bucket}/tree", source_filesystem=local, destination_filesystem=files)
    (work / "back").mkdir()
    pyarrow.fs.copy_files(f"{bucket}/tree", str(work / "back"), source_filesystem=files, destination_filesystem=local)
    equal(work / "back", source)
    table = pyarrow.table({"day": [n % 3 for n in range(200_000)], "value": [n / 7 for n in range(200_000)]})
    hive = pyarrow.dataset.partitioning(pyarrow.schema([("day", pyarrow.int64())]), flavor="hive")
    pyarrow.dataset.write_dataset(table, f"{bucket}/hive", filesystem=files, format="parquet", partitioning=hive)
    found = pyarrow.dataset.dataset(f"{bucket}/hive", filesystem=files, format="parquet", partitioning=hive)
    same(found.count_rows(), 200_000)
    one = found.to_table(filter=pyarrow.dataset.field("day") == 1)
    same(sorted(one["value"].to_pylist()), [n / 7 for n in range(200_000) if n % 3 == 1])
    # Over what is there, and away.
    pyarrow.dataset.write_dataset(table.slice(0, 10), f"{bucket}/hive", filesystem=files, format="parquet", partitioning=hive,
                                  existing_data_behavior="delete_matching")
    same(pyarrow.dataset.dataset(f"{bucket}/hive", filesystem=files, format="parquet").count_rows(), 10)
    files.delete_dir(f"{bucket}/hive")
    same(files.get_file_info(f"{bucket}/hive").type, pyarrow.fs.FileType.NotFound)


@client
def polars_parquet(bucket, work):
    import polars

    storage = {"aws_endpoint_url": URL, "aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "aws_region": "us-east-1",
               "aws_allow_http": "true"}
    frames = {"small": 3, "large": 400_000}
    for name, rows in frames.items():
        frame = polars.DataFrame({"n": range(rows), "x": [n * 0.37 for n in range(rows)]})
        frame.write_parquet(f"s3://{bucket}/{name}/p.parquet", storage_options=storage)
        found = polars.read_parquet(f"s3://{bucket}/{name}/p.parquet", storage_options=storage)
        assert found.equals(frame), name
        lazy = polars.scan_parquet(f"s3://{bucket}/{name}/*.parquet", storage_options=storage)
        same(lazy.filter(polars.col("n") < 2).select(polars.len()).collect().item(), 2)
        frame.lazy().sink_parquet(f"s3://{bucket}/{name}/sunk.parquet", storage_options=storage)
        same(polars.read_parquet(f"s3://{bucket}/{name}/sunk.parquet", storage_options=storage).shape, (rows, 2))
    polars.DataFrame({"a": [1]}).write_csv(f"s3://{bucket}/t.csv", storage_options=storage)
    same(polars.read_csv(f"s3://{bucket}/t.csv", storage_options=storage)["a"].to_list(), [1])


@client
def duckdb_httpfs(bucket, work):
    import duckdb
    import duckdb_extension_httpfs

    db = duckdb.connect(config={"extension_directory": str(work), "autoinstall_known_extensions": "false"})
    extension, = Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension")
    db.execute(f"LOAD '{extension}'")
    db.execute(f"CREATE SECRET (TYPE s3, KEY_ID '{KEY}', SECRET '{SECRET}', REGION 'us-east-1', ENDPOINT '{HOST}', USE_SSL false, URL_STYLE 'path')")
    db.execute("CREATE TABLE t AS SELECT i AS n, i % 3 AS day, i * 0.5 AS x FROM range(300000) r(i)")
    db.execute(f"COPY t TO 's3://{bucket}/one.parquet' (FORMAT parquet)")
    db.execute(f"COPY t TO 's3://{bucket}/one.csv' (HEADER)")
    db.execute(f"COPY t TO 's3://{bucket}/hive' (FORMAT parquet, PARTITION_BY (day))")
    for kind, name in (("read_parquet", "one.parquet"), ("read_csv", "one.csv"), ("read_parquet", "hive/*/*.parquet")):
        found = db.execute(f"SELECT count(*), sum(n), sum(x) FROM {kind}('s3://{bucket}/{name}')").fetchone()
        same(tuple(map(int, found)), (300_000, 44_999_850_000, 22_499_925_000))
    same(db.execute(f"SELECT count(*) FROM read_parquet('s3://{bucket}/hive/*/*.parquet', hive_partitioning=true) WHERE day = 2").fetchone()[0], 100_000)
    same(len(db.execute(f"SELECT file FROM glob('s3://{bucket}/hive/**')").fetchall()), len(keys(bucket, "hive/")))


chosen = [one for one in clients if not sys.argv[4:] or one.__name__ in sys.argv[4:]]
failed = []
for number, one in enumerate(chosen):
    bucket = f"clients-{number}-{int(time.time() * 1000) % 10**9}"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        try:
            s3.create_bucket(Bucket=bucket)
            one(bucket, Path(work))
            print(f"{one.__name__} {time.monotonic() - began:.1f} s")
        except Exception as error:
            failed.append(one.__name__)
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__]
            print(f"FAILED {one.__name__}, lines {lines}: {type(error).__name__}: {str(error)[:2000]}")
print(f"{len(chosen)} clients, {len(failed)} did not get their work done")
sys.exit(1 if failed else 0)
