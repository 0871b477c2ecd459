"""Uploads a directory with boto3: --threads 1 is the plain loop, --threads 24 one thread per component's file."""

import argparse
import concurrent.futures
import os

import boto3
import botocore.config

from measure import Measure

parser = argparse.ArgumentParser()
parser.add_argument("--endpoint", required=True)
parser.add_argument("--bucket", required=True)
parser.add_argument("--prefix", required=True)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("directory")
given = parser.parse_args()

measure = Measure(f"boto3, {given.threads} threads" if given.threads > 1 else "boto3, sequential")
client = boto3.client(
    "s3", endpoint_url=given.endpoint, config=botocore.config.Config(max_pool_connections=max(10, given.threads))
)
files = sorted(os.scandir(given.directory), key=lambda entry: entry.name)


def upload(entry):
    with open(entry.path, "rb") as body:
        client.put_object(Bucket=given.bucket, Key=given.prefix + entry.name, Body=body.read())


with concurrent.futures.ThreadPoolExecutor(given.threads) as pool:
    list(pool.map(upload, files))
measure.report(len(files), sum(entry.stat().st_size for entry in files))
