"""PUTs and pages of a store with requests that were signed beforehand, so that the client costs little.

    objects.py URL put COUNT AT_ONCE       3 kB each, under a prefix of their own
    objects.py URL page                    pages of 1,000 keys
"""

import http.client
import json
import os
import statistics
import sys
import threading
import time
import urllib.parse

import boto3
import botocore.client
from botocore.exceptions import ClientError

url, what = sys.argv[1:3]
config = botocore.client.Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 0}, proxies={})
s3 = boto3.client("s3", endpoint_url=url, config=config)
host = urllib.parse.urlsplit(url).netloc
bucket = "bench"


def put(count, at_once):
    try:
        s3.create_bucket(Bucket=bucket)
    except ClientError:
        pass
    prefix, body = f"{os.getpid()}/", os.urandom(3_000)
    sign = lambda n: s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": f"{prefix}{n % 100:02}/{n:07}.csv"}, 3_600)
    targets = [sign(n)[len(url):] for n in range(count)]
    taken, lock = [], threading.Lock()

    def work(some):
        line, mine = http.client.HTTPConnection(host), []
        for target in some:
            began = time.perf_counter()
            line.request("PUT", target, body)
            answer = line.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            mine.append(time.perf_counter() - began)
        with lock:
            taken.extend(mine)

    threads = [threading.Thread(target=work, args=(targets[at::at_once],)) for at in range(at_once)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - began
    assert len(taken) == count
    taken.sort()
    return {"per_s": count / wall, "p50_ms": statistics.median(taken) * 1e3, "p99_ms": taken[int(count * 0.99)] * 1e3}


def page():
    first = s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
    prefix = first["Contents"][0]["Key"].split("/")[0]
    line, pages = http.client.HTTPConnection(host), []
    for n in range(20):
        asked = {"Bucket": bucket, "StartAfter": f"{prefix}/{n * 5:02}"}
        target = s3.generate_presigned_url("list_objects_v2", asked, 3_600)[len(url):]
        began = time.perf_counter()
        line.request("GET", target)
        answer = line.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        pages.append((time.perf_counter() - began) * 1e3)
    return {"pages_ms": pages}


print(json.dumps(put(int(sys.argv[3]), int(sys.argv[4])) if what == "put" else page()))
